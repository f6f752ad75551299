"""Reading by a cursor: the words for it, and the way to them that loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from headrace.logical import check_type

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import polars as pl

    from headrace.cursor.tracking import Tracked
    from headrace.flow import Position

__all__ = ["Cursor", "Latest", "TextType", "track"]


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The column whose greatest value says how far a source has been read.

    `start` is where the first run begins (inclusive): an exact text of the column's type, or ``from_target``: the
    newest value that the target holds already (for a table that was taken over).

    Only PostgreSQL knows the others. `then` are further columns, which order the rows of one value. `nulls` are the
    rows without a value: rejected (``refuse``), loaded at every run (``load``), or counted and left out (``skip``).
    """

    column: str
    start: str | None = None
    then: tuple[str, ...] = ()
    nulls: Literal["refuse", "load", "skip"] = "refuse"

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in order."""
        return (self.column, *self.then)

    @property
    def misses(self) -> str:
        """What a later run will not see, for `News.misses`."""
        return f"rows that come later and whose {self.column!r} is below the greatest one read"


@dataclass(frozen=True, kw_only=True)
class Latest:
    """Which row of several with equal `keys` counts: the one with the greatest `by`. For replace, recompute, files that
    are read whole, and a merge by the same keys and columns; other writes refuse it.

    `by` are columns, and the words ``file`` (name order) and ``line`` (then no column may be called so); what they
    leave open, file and line decide.
    NULL is the oldest. A row with a NULL key supersedes nothing.
    """

    keys: tuple[str, ...]
    by: tuple[str, ...] = ("file", "line")


@dataclass(frozen=True, kw_only=True)
class TextType:
    """How the texts of one column are read. `format` is strptime's; `true` and `false` are the texts of a bool;
    `decimal` is the decimal point, ``.`` or ``,`` (None: the source's).
    """

    type: str = field(metadata={"doc": "one of the [types](#types)"})
    format: str | None = None
    true: tuple[str, ...] | None = None
    false: tuple[str, ...] | None = None
    decimal: str | None = None

    def __post_init__(self) -> None:
        check_type(self.type, "type")


def track(  # each is one fact of the read
    frame: pl.LazyFrame,
    cursor: Cursor,
    *,
    after: Position | None,
    ties: Literal["again", "once"],
    source: str,
    newest: Callable[[str], str | None] = lambda _column: None,
    aside: Collection[str] = (),
) -> Tracked:
    """The rows of `frame` that lie after the position, and the position that they lead to.

    `frame` may be any lazy frame that can be collected again; what it needs of the source (a filter on the cursor,
    columns) is pushed down into it. `ties` is `Range.ties`, `newest` is `Snapshot.newest`. Columns
    ``_headrace_file`` and ``_headrace_line`` in `frame` say where a row stands and are no part of it; `aside` are
    columns that say so too, and may change though the row does not.

    Raises ConfigError for a column or a start that cannot be, DataError for a position of another type.
    """
    from headrace.cursor.tracking import tracked

    return tracked(frame, cursor, after=after, ties=ties, source=source, newest=newest, aside=aside)

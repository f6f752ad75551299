"""Reading by a cursor: the words for it, and the way to them that loads nothing heavy."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from headrace.errors import ConfigError, DataError
from headrace.frozen import frozen
from headrace.logical import check_type, parse_type
from headrace.units import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import polars as pl

    from headrace.cursor.tracking import Tracked
    from headrace.flow import Position

__all__ = ["Cursor", "Deletes", "Latest", "TextType", "track"]


@frozen(kw_only=True)
class Cursor:
    """The column whose greatest value says how far a source has been read.

    `start` is where the first run begins (inclusive): an exact text of the column's type, or ``from_target``: the
    newest value that the target holds already (for a table that was taken over). What is read from the beginning, by
    a full refresh, and to replace or recompute rows, begins at the beginning in spite of ``from_target``.

    Only PostgreSQL knows the others. `then` are further columns, which order the rows of one value. `nulls` are the
    rows without a value: rejected (``refuse``), loaded at every run (``load``), or counted and left out (``skip``).
    `late` says how rows are found whose transaction commits after a read has passed them: ``clock`` reads no further
    than the start of the oldest open transaction (for a timestamptz that the server's clock sets), ``snapshot`` looks
    for what the last read did not see, ``ignore`` does neither; ``auto``: ``clock`` for timestamptz, else ``snapshot``,
    and neither where the server cannot tell (views, foreign tables, standbys). `lag` is a span (``10 minutes``), or a
    number where the column is one: a merge reads so much again at each run, an append stays so far behind.
    """

    column: str
    start: str | None = None
    then: tuple[str, ...] = ()
    nulls: Literal["refuse", "load", "skip"] = "refuse"
    late: Literal["auto", "clock", "snapshot", "ignore"] = "auto"
    lag: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in order."""
        return (self.column, *self.then)

    @property
    def misses(self) -> str:
        """What a later run will not see, for `News.misses`."""
        return f"rows that come later and whose {self.column!r} is below the greatest one read"

    def refuse_other(self, after: Position | None, source: str) -> None:
        """Refuse a position of another column: it says nothing of this one's values. One from before positions kept
        their column goes on. Raises DataError.
        """
        was = (after or {}).get("column", self.column)
        if was != self.column:
            raise DataError(
                f"source {source!r} was read by {was!r}, and its cursor is {self.column!r} now",
                hint="put it back as it was, or run with --full-refresh",
            )


@frozen(kw_only=True)
class Deletes:
    """How a merge finds the rows that its source has deleted: no cursor sees them.

    `by` comparing keys (``compare``): all keys that the source has are read, in the snapshot of the new rows, and rows
    of other keys go from the table. `every` says how often (``"1d"``; None: at each run). `max` is the greatest share
    of the table's rows that may go at once: where more would, or where the source is empty, the run fails and nothing
    has changed. `as_` (JSON key ``as``) says what becomes of them: they go (``hard``), or stay, with the time of their
    deletion in the column ``_deleted_at`` (``soft``), until the source has the key again.
    """

    by: Literal["compare"] = "compare"
    every: str | None = None
    max: float = 0.05
    as_: Literal["hard", "soft"] = field(default="hard", metadata={"key": "as"})

    def __post_init__(self) -> None:
        if not 0 <= self.max <= 1:
            raise ConfigError(f'"max" of deletes cannot be {self.max}', hint="it is a share of the rows: 0.05 is 5 %")
        if self.every is not None:
            seconds(self.every, key="every")

    @property
    def interval(self) -> float:
        """The seconds from one comparison to the next; 0: each run compares."""
        return 0.0 if self.every is None else seconds(self.every)

    def due(self, after: Position | None, now: datetime, *, there: bool) -> tuple[bool, str]:
        """Whether it is time to compare, and the time of the last comparison, for the position to keep as ``compared``.

        `now` is on the clock of all positions; `there` says whether there is a table: else nothing can have gone.
        """
        compared: str | None = (after or {}).get("compared")
        waited = compared is None or (now - datetime.fromisoformat(compared)).total_seconds() >= self.interval
        return waited and there, now.isoformat() if compared is None or (waited and there) else compared


@frozen(kw_only=True)
class Latest:
    """Which row of several with equal `keys` counts: the one with the greatest `by`. For replace, recompute, files that
    are read whole, and a merge by the same keys and columns; other writes refuse it.

    `by` are columns, and the words ``file`` (name order) and ``line`` (then no column may be called so); what they
    leave open, file and line decide.
    NULL is the oldest. A row with a NULL key supersedes nothing.
    """

    keys: tuple[str, ...]
    by: tuple[str, ...] = ("file", "line")

    def __post_init__(self) -> None:
        if not self.keys:
            raise ConfigError('"latest" without keys', hint='"keys" are the columns in which versions of a row agree')


@frozen(kw_only=True)
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
        if self.format is not None:
            from headrace.exact.time import check_format  # Polars is imported for it

            check_format(parse_type(self.type), self.format)
        if both := set(self.true or ()).intersection(self.false or ()):
            raise ConfigError(f"the text {min(both)!r} is both true and false", hint="each text means one of them")
        if self.decimal not in (None, ".", ","):
            raise ConfigError(f'"decimal" cannot be {self.decimal!r}', hint='write "." or ","')


def track(
    frame: pl.LazyFrame,
    cursor: Cursor,
    *,
    after: Position | None,
    ties: Literal["again", "once"],
    source: str,
    newest: Callable[[str], str | None] = lambda _column: None,
    aside: Collection[str] = (),
    steady: bool = False,
) -> Tracked:
    """The rows of `frame` that lie after the position, and the position that they lead to.

    `frame` may be any lazy frame that can be collected again; what it needs of the source (a filter on the cursor,
    columns) is pushed down into it. `ties` is `Range.ties`, `newest` is `Snapshot.newest`, of the rows that
    are new; of all rows there is none, so they begin at the beginning. The columns `flow.PLACE` of `frame` say where a
    row stands and are no part of it; `aside` are columns that say so too, and may change though the row does not.
    `steady`: whoever reads the source sees to it that its rows are the same in each pass; else one that ends elsewhere
    than the one before raises UnavailableError.

    Raises ConfigError for a column or a start that cannot be, DataError for a position of another type.
    """
    from headrace.cursor.tracking import tracked

    return tracked(frame, cursor, after=after, ties=ties, source=source, newest=newest, aside=aside, steady=steady)

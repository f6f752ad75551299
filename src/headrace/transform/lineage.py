"""What the rows of a result depend on: the words in which SQL and Polars steps state what is proven of them.

Nothing is guessed. A step whose text or plan is not understood has a reason to be doubted, and doubt is what the
callers act on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from headrace.frozen import frozen

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Kind", "Origin", "Relation", "shared"]


class Origin(NamedTuple):
    """A column's type in its source's own system (`schema.Field.origin`), and the type that it is read as."""

    name: str
    read: pl.DataType


def shared(parts: Sequence[Mapping[str, Origin]]) -> dict[str, Origin]:
    """The columns that have the same origin in all parts."""
    first, *others = parts
    return {c: o for c, o in first.items() if all(part.get(c) == o for part in others)}


class Kind(IntEnum):
    """What a column's value depends on.

    OWN: on the one new row that its row is made of, and it is the same in all rows that any aggregate or window below
    has looked at together. ROW: on that row and on look-ups. SEVERAL: on several rows.
    """

    OWN = 0
    ROW = 1
    SEVERAL = 2


@frozen(kw_only=True)
class Relation:
    """Rows and what is proven of them.

    `new`: they are made from an increment, rows that are only a part of what their source has. `mixing` are the
    reasons why a row may depend on several rows of the increment, or on none (empty: each row stands alone).
    `regrouping` are the reasons why a group may depend on rows of other groups, or may come and go with rows that the
    increment does not have. `grouped` and `windowed`: an aggregate, a window has looked at several rows.
    `unsteady`, of rows that are not new: what in them differs from row to row without any reason; they are
    `regrouping` for that, and for what differs from run to run (a clock), and make what they are joined to so.
    `limited`: for certain, new rows are left out for their number alone. `origins` are the columns whose every value is
    one of a source's column, or null, and that column's origin; they do not hang on whether rows are new.
    """

    columns: Mapping[str, Kind] = field(default_factory=dict)
    new: bool = False
    mixing: tuple[str, ...] = ()
    regrouping: tuple[str, ...] = ()
    grouped: bool = False
    windowed: bool = False
    limited: bool = False
    unsteady: tuple[str, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @staticmethod
    def increment(columns: Iterable[str]) -> Relation:
        """A source's new rows."""
        return Relation(columns=dict.fromkeys(columns, Kind.OWN), new=True)

    @staticmethod
    def look_up(columns: Iterable[str], made_of: Iterable[Relation] = ()) -> Relation:
        """All rows of a source that is read whole, or of a step that reads (`made_of`) such alone."""
        parts = list(made_of)
        return Relation(
            columns=dict.fromkeys(columns, Kind.ROW),
            unsteady=tuple(dict.fromkeys(reason for part in parts for reason in part.unsteady)),
            regrouping=tuple(dict.fromkeys(reason for part in parts for reason in part.regrouping)),
        )

    @staticmethod
    def inconstant(unsteady: Iterable[str], clocks: Iterable[str]) -> Relation:
        """What a step over look-ups adds by itself to what it reads."""
        rows = tuple(unsteady)
        return Relation(unsteady=rows, regrouping=(*rows, *clocks))

    def typed(self, schema: Mapping[str, pl.DataType]) -> Relation:
        """The same, with the origins of the columns of this schema that are still what they were read as."""
        return replace(
            self,
            origins={c: self.origins[c] for c, t in schema.items() if c in self.origins and self.origins[c].read == t},
        )

    def why_all_groups(self, by: Sequence[str]) -> str | None:
        """Why the groups of `by` do not stand alone; None where they do (see `Transformed.why_all_groups`)."""
        if self.regrouping:
            return f"a step uses {self.regrouping[0]}"
        if not self.new:
            return "the result is not made of rows that are new"
        for column in by:
            if self.columns.get(column, Kind.SEVERAL) is not Kind.OWN:
                return f"{column!r} is not taken from the new rows alone, or not in every GROUP BY and PARTITION BY"
        return None

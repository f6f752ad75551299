"""A cursor in the server's words: what is new, compared by the server in its own types and collations.

Values cross runs as the exact text that the server writes of them, and come back as that text cast to the column's
type. Rows at the greatest value read are remembered: by hashes that the server makes of them, counted, where an append
must tell them from new ones; by one sum where all that matters is whether they have changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psycopg

from headrace.cursor import Cursor
from headrace.errors import ConfigError, DataError
from headrace.frozen import frozen
from headrace.sqltext import quoted
from headrace.systems.postgres.catalog import Column
from headrace.systems.postgres.connection import run
from headrace.systems.postgres.names import literal
from headrace.systems.postgres.selection import Selection

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["TIES_MAX", "Order"]

TIES_MAX = 10_000
_NANS = ("float4", "float8", "numeric")
_ENDLESS = (*_NANS, "date", "timestamp", "timestamptz")
Values = tuple[str, ...]


@frozen
class Order:
    """The cursor's columns, in order."""

    selection: Selection
    cursor: Cursor
    columns: tuple[Column, ...]

    @staticmethod
    def of(selection: Selection, cursor: Cursor) -> Order:
        """Raises ConfigError for a column that is not there."""
        return Order(selection, cursor, tuple(selection.column(n) for n in cursor.columns))

    # -- SQL ----------------------------------------------------------------------------------------------------

    @property
    def row(self) -> str:
        """The columns, to be compared."""
        return _tuple([quoted(c.name) for c in self.columns])

    @property
    def missing(self) -> str | None:
        """Of rows that have no place in the order: NULL, or not a number. None where no row can be such."""
        found = [f"{quoted(c.name)} IS NULL" for c in self.columns if not c.required]
        found += [f"{quoted(c.name)} = 'NaN'" for c in self.columns if c.type.base in _NANS]
        return " OR ".join(found) or None

    @property
    def present(self) -> str | None:
        """Of all other rows."""
        found = [f"{quoted(c.name)} IS NOT NULL" for c in self.columns if not c.required]
        found += [f"{quoted(c.name)} <> 'NaN'" for c in self.columns if c.type.base in _NANS]
        return " AND ".join(found) or None

    def compared(self, how: str, values: Values | None) -> str | None:
        """The row's columns against values; None where there are none."""
        if values is None:
            return None
        texts = [self.value(c, v) for c, v in zip(self.columns, values, strict=True)]
        if all(c.type.operators == "pg_catalog" for c in self.columns):
            return f"{self.row} {how} {_tuple(texts)}"
        *before, last = zip(self.columns, texts, strict=True)
        test = _compared(last[0], how, last[1])
        for column, text in reversed(before):  # one operator's name does for no row of several schemas
            same = f"{_compared(column, '=', text)} AND {test}"
            test = f"({same})" if how == "=" else f"({_compared(column, how[0], text)} OR ({same}))"
        return test

    @staticmethod
    def value(column: Column, text: str) -> str:
        """A value from its text, as SQL."""
        return f"CAST({literal(text)} AS {column.type.name})"

    def digest(self, names: Sequence[str]) -> str:
        """A text that rows have in common where these columns, by the server's names, are all equal."""
        shown = ", ".join(_lasting(self.selection.column(name)) for name in names)
        text = f"CAST(ROW({shown}) AS text)"
        return (
            f"pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256(pg_catalog.convert_to({text}, 'UTF8')), 1, 12),"
            " 'hex')"
        )

    # -- questions ----------------------------------------------------------------------------------------------

    def greatest(self, keeper: Connection, *conditions: str | None) -> Values | None:
        """The greatest values among the rows that satisfy the conditions; None where there is no row.

        Raises ConfigError for a type without an order.
        """
        # named anew: ORDER BY takes a name for that of an output column first, and texts have another order
        texts = ", ".join(f"CAST({quoted(c.name)} AS text) AS _headrace_{at}" for at, c in enumerate(self.columns))
        order = ", ".join(f"{quoted(c.name)} DESC" for c in self.columns)
        query = f"SELECT {texts} {self.selection.rows(self.present, *conditions)} ORDER BY {order} LIMIT 1"
        try:
            row = keeper.execute(query.encode()).fetchone()
        except psycopg.errors.UndefinedFunction as error:
            words = ", ".join(f"{c.name!r} ({c.type.name})" for c in self.columns)
            raise ConfigError(
                f"{self.selection.relation.name}: {words} cannot be a cursor: the type has no order",
                hint="a cursor is a number, a date, a time, a uuid or a text",
            ) from error
        return None if row is None else tuple(row)

    def back(self, keeper: Connection, rows: str, steps: Sequence[int]) -> list[Values]:
        """Of the rows (FROM and WHERE), the values of those so many from the end, the farthest first."""
        names = [f"_headrace_{at}" for at in range(len(self.columns))]
        inner = ", ".join(f"{quoted(c.name)} AS {n}" for c, n in zip(self.columns, names, strict=True))
        order = ", ".join(f"{quoted(c.name)} DESC" for c in self.columns)
        query = (
            f"SELECT {', '.join(f'CAST({n} AS text)' for n in names)} FROM (SELECT {inner}, pg_catalog.row_number()"
            f" OVER (ORDER BY {order}) AS _headrace_n {rows} ORDER BY {order} LIMIT {max(steps)}) AS s"
            f" WHERE _headrace_n IN ({', '.join(map(str, steps))}) ORDER BY _headrace_n DESC"
        )
        return [tuple(row) for row in keeper.execute(query.encode()).fetchall()]

    def every(self, keeper: Connection, rows: str, step: int) -> list[Values]:
        """Of the rows (FROM and WHERE) in order, the values of each `step`-th, equal ones once."""
        names = [f"k{at}" for at in range(len(self.columns))]
        inner = ", ".join(f"{quoted(c.name)} AS {n}" for c, n in zip(self.columns, names, strict=True))
        order = ", ".join(quoted(c.name) for c in self.columns)
        texts = ", ".join(f"CAST({n} AS text) AS _headrace_{n}" for n in names)
        query = (
            f"SELECT {texts} FROM (SELECT {inner}, pg_catalog.row_number() OVER (ORDER BY {order}) AS n {rows}) AS s"
            f" WHERE n % {step} = 0 GROUP BY {', '.join(names)} ORDER BY {', '.join(names)}"
        )
        return [tuple(row) for row in keeper.execute(query.encode()).fetchall()]

    def checked(self, keeper: Connection, values: Values, what: str) -> Values:
        """The values as the server writes them. Raises ConfigError for a text that is none of the type."""
        casts = ", ".join(f"CAST({self.value(c, v)} AS text)" for c, v in zip(self.columns, values, strict=True))
        try:
            with keeper.transaction():
                row = keeper.execute(f"SELECT {casts}".encode()).fetchone()
        except psycopg.DataError as error:
            types = ", ".join(c.type.name for c in self.columns)
            raise ConfigError(
                f"{what} of cursor {', '.join(self.cursor.columns)!r} is no {types}",
                hint="write it as PostgreSQL does: 2024-01-31 10:00:00.5+00",
            ) from error
        assert row is not None  # noqa: S101  # a SELECT without FROM
        return tuple(row)

    def digests(self, keeper: Connection, condition: str | None, names: Sequence[str]) -> dict[str, int]:
        """The digests of the rows that satisfy a condition (None: none does), and how often each is there.

        Raises DataError for too many.
        """
        if condition is None:
            return {}
        rows = self.selection.rows(condition)
        query = f"SELECT {self.digest(names)}, pg_catalog.count(*) {rows} GROUP BY 1 LIMIT {TIES_MAX + 1}"
        found = {str(digest): int(count) for digest, count in keeper.execute(query.encode()).fetchall()}
        if sum(found.values()) > TIES_MAX:
            raise DataError(
                f"more than {TIES_MAX:,} rows share the last value of cursor {', '.join(self.cursor.columns)!r}, have"
                " none, or were written while a transaction was open that has just ended",
                hint='an append cannot remember them all: use "write": {"type": "merge", "keys": […]}; run again if a'
                " transaction was the cause",
            )
        return found

    def among(self, keeper: Connection, condition: str, names: Sequence[str], digests: Sequence[str]) -> dict[str, int]:
        """Which of these digests the rows that satisfy a condition have, and how often each is there."""
        if not digests:
            return {}
        rows = f"SELECT {self.digest(names)} AS digest {self.selection.rows(condition)}"
        query = f"SELECT digest, pg_catalog.count(*) FROM ({rows}) AS s WHERE digest = ANY ($1) GROUP BY 1"
        return {str(digest): int(count) for digest, count in run(keeper, query, [list(digests)])}

    def count(self, keeper: Connection, condition: str) -> int:
        """How many rows satisfy a condition."""
        ((count,),) = keeper.execute(f"SELECT pg_catalog.count(*) {self.selection.rows(condition)}".encode()).fetchall()
        return int(count)

    def state(self, keeper: Connection, condition: str | None) -> str:
        """What tells the rows that satisfy a condition (None: none does) from what they may be at the next run."""
        if condition is None:
            return ""
        names = [self.selection.names[c.name] for c in self.selection.columns]
        text = f"CAST(ROW({', '.join(map(quoted, names))}) AS text)"
        hashed = f"CAST(pg_catalog.hashtextextended({text}, 0) AS numeric)"
        query = f"SELECT pg_catalog.count(*), pg_catalog.sum({hashed}) {self.selection.rows(condition)}"
        ((count, total),) = keeper.execute(query.encode()).fetchall()
        return f"{count}/{total or 0}"

    def refuse_endless(self, values: Values | None) -> None:
        """Refuse to read up to infinity: nothing would ever be new after it. Raises DataError."""
        first = self.columns[0]
        if values is not None and first.type.base in _ENDLESS and values[0].lower() == "infinity":
            raise DataError(
                f"{self.selection.relation.name}: cursor {first.name!r} is infinity in some rows, and nothing"
                " that comes later would be new",
                hint=f'mend them, or leave them out: "where": "{quoted(first.name)} < \'infinity\'"',
            )

    def types(self) -> list[str]:
        """The columns' types, for the position."""
        return [c.type.name for c in self.columns]

    def refuse_other(self, after: Mapping[str, Any]) -> None:
        """Refuse a position of another order: other columns, or types that are ordered otherwise. Raises DataError."""
        was, now = list(after.get("types", [])), self.types()
        columns = list(after.get("columns", []))
        if columns == list(self.cursor.columns) and len(was) == len(now) and all(map(_alike, was, now)):
            return
        before = ", ".join(f"{c} {t}" for c, t in zip(columns, was, strict=False))
        raise DataError(
            f"source {self.selection.source!r} was read by {before or 'another cursor'}, and its cursor is "
            + ", ".join(f"{c} {t}" for c, t in zip(self.cursor.columns, now, strict=True))
            + " now",
            hint="put it back as it was, or run with --full-refresh",
        )


def _lasting(column: Column) -> str:
    """SQL for what stays the same of a value where its column has grown: 1.10 is 1.100 then."""
    name = quoted(column.name)
    match column.type.base:
        case "numeric":
            return f"pg_catalog.trim_scale({name})"
        case "float4":
            return f"CAST({name} AS float8)"
        case "bpchar" if column.type.name.startswith("character("):
            return f"CAST({name} AS text)"
    return name


def _compared(column: Column, how: str, text: str) -> str:
    """SQL: by the operators of the column's own order, wherever they are: citext's are not those of text."""
    return f"{quoted(column.name)} OPERATOR({quoted(column.type.operators)}.{how}) {text}"


def _alike(was: str, now: str) -> bool:
    """Whether two types order the same texts in the same way."""
    if was == now:
        return True
    return _family(was) is not None and _family(was) == _family(now)


_BY_NAME = {
    "smallint": 0, "integer": 0, "bigint": 0, "numeric": 0, "real": 1, "double precision": 1,
    "text": 2, "character varying": 2, "timestamp without time zone": 3, "timestamp with time zone": 4,
}  # fmt: skip


def _family(name: str) -> int | None:
    """Types of one family hold the same values, more or fewer of them."""
    plain = name
    while "(" in plain:
        before, _, rest = plain.partition("(")
        plain = before.rstrip() + rest.partition(")")[2]
    return _BY_NAME.get(plain)


def _tuple(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"

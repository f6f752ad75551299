"""A contract's SQL rules: bound once, then computed batch by batch by a DuckDB that sees nothing but the batch.

DuckDB and not Polars' own SQL: the same words must mean the same in a rule and in a transform (division, regular
expressions, NULLs, casts).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl

from headrace.errors import ConfigError, ContractError
from headrace.schema import Schema
from headrace.stream import picked
from headrace.stream.inmemory import in_memory
from headrace.transform.columns import carry, folded, restated
from headrace.transform.query import Query

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

__all__ = ["SQLEvaluation", "SQLRules"]

_ARROW = pl.CompatLevel.newest()


class SQLRules:
    """SQL boolean expressions over the row, as columns to be computed: column → (what it is, text).

    Raises ConfigError that says which one does not parse, does not fit the columns, is not boolean, looks at several
    rows, or reads a column whose name differs from another's in case alone.
    """

    def __init__(self, rules: Mapping[str, tuple[str, str]], schema: pl.Schema) -> None:
        used: set[str] = set()
        if rules:
            told = {c: schema[c] for c in {folded(c): c for c in reversed(schema)}.values()}  # one for each name in SQL
            with in_memory(threads=1) as con:
                _mount(con, pl.DataFrame(schema=told))
                for what, text in rules.values():
                    used |= _bind(con, what, text, pl.Schema(told), list(schema))
        self._rules = rules
        self._columns = [c for c in schema if c in used] or list(schema)[:1]

    def open(self) -> SQLEvaluation:
        """A session that computes the rules, for one pass."""
        select = ", ".join(f'({text}) AS "{i}"' for i, (_, text) in enumerate(self._rules.values()))
        said = [what for what, _ in self._rules.values()]
        return SQLEvaluation(f"SELECT {select} FROM row", self._columns, names=list(self._rules), said=said)


class SQLEvaluation:
    """A DuckDB session of one pass. Close it: DuckDB complains of connections that outlive the interpreter."""

    def __init__(self, query: str, columns: list[str], *, names: list[str], said: list[str]) -> None:
        self._query = query
        self._columns = columns
        self._names = names
        self._said = said
        self._con: duckdb.DuckDBPyConnection | None = None

    def columns(self, rows: pl.DataFrame) -> list[pl.Series]:
        """The rules' values (Boolean) for each row, under the names that `SQLRules` was given."""
        if not self._names:
            return []
        if self._con is None:
            self._con = in_memory(threads=1)  # Polars has the other ones busy
        try:
            _mount(self._con, picked(rows, self._columns))
            table = self._con.sql(self._query).to_arrow_table()
        except duckdb.Error as error:
            kind = type(error).__name__.removesuffix("Exception")
            raise ContractError(
                f"an SQL rule of the contract failed on a value ({kind})",
                hint="use try_cast, or guard the value: a NULL passes",
            ) from error
        if table.num_rows != rows.height:
            one = ("one of " if len(self._said) > 1 else "") + ", ".join(self._said)
            raise ConfigError(f"{one} makes rows of its own", hint="it must say one thing of one row")
        found = pl.from_arrow(table)
        assert isinstance(found, pl.DataFrame)  # noqa: S101  # a table is a frame
        return [column.alias(name) for column, name in zip(found.get_columns(), self._names, strict=True)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._con is not None:
            self._con.close()
            self._con = None


def _mount(con: duckdb.DuckDBPyConnection, rows: pl.DataFrame) -> None:
    """The rows as ``row``, each column as DuckDB holds its type exactly."""
    con.register("_carried", rows.select(carry(rows.schema)).to_arrow(compat_level=_ARROW))
    con.execute(f'CREATE OR REPLACE TEMP VIEW "row" AS SELECT {restated(Schema.of_polars(rows.schema))} FROM _carried')


def _bind(con: duckdb.DuckDBPyConnection, what: str, text: str, schema: pl.Schema, columns: Sequence[str]) -> set[str]:
    """The columns, of `columns`, that the expression reads, from the empty table ``row`` of this schema."""
    query = f"SELECT ({text}) AS ok FROM row"
    tree = json.loads(con.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()[0][0])
    words = {w.lower() for w in _walk(tree)}
    try:
        found = con.sql(query).to_arrow_table()
    except duckdb.Error as error:
        raise _refused(what, query, schema) from error
    # an aggregate of no row is a row
    if found.num_rows or words & {"<several>"}:
        raise ConfigError(f"{what} looks at several rows", hint="a rule sees one row; aggregate in a transform")
    if found.column_names != ["ok"] or str(found.schema.field("ok").type) != "bool":
        raise ConfigError(f"{what} is not true or false", hint="write a comparison, e.g. price >= 0")
    used = {c for c in columns if "*" in words or c.lower() in words}
    if other := next((c for c in columns if c in used and c not in schema), None):
        one = next(c for c in schema if folded(c) == folded(other))
        raise ConfigError(
            f"{what} reads one of the columns {one!r} and {other!r}, whose names differ in case alone: SQL cannot tell"
            " them apart",
            hint="rename one of them in the source or in a transform, or write the rule in Python",
        )
    return used


def _refused(what: str, query: str, schema: pl.Schema) -> ConfigError:
    """Why DuckDB refuses the expression, in the safe words that transforms have for it."""
    try:
        Query(query, {"row": pl.LazyFrame(schema=schema)}, {})
    except ConfigError as error:
        message = error.message.replace("and no frame has it", "and the rows do not have it")
        return ConfigError(f"{what}: {message}", hint=error.hint)
    return ConfigError(f"{what} does not fit the rows", hint="it is DuckDB's dialect")


def _walk(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _walk(child)
    elif isinstance(node, dict):
        match node.get("class"):
            case "STAR":
                yield "*"
            case "SUBQUERY" | "WINDOW":
                yield "<several>"
            case "COLUMN_REF":
                yield from node["column_names"]
        for child in node.values():
            yield from _walk(child)

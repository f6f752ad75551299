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
from headrace.query import Query

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Self

__all__ = ["SQLEvaluation", "SQLRules"]


class SQLRules:
    """SQL boolean expressions over the row, as columns to be computed: column → (rule's name, text).

    Raises ConfigError that names the rule which does not parse, does not fit the columns, is not boolean, or looks at
    several rows.
    """

    def __init__(self, rules: Mapping[str, tuple[str, str]], schema: pl.Schema) -> None:
        used: set[str] = set()
        for name, text in rules.values():
            _check(name, text, schema)
            used |= _columns(text, schema)
        self._rules = rules
        self._columns = [c for c in schema if c in used] or list(schema)[:1]

    def open(self) -> SQLEvaluation:
        """A session that computes the rules, for one pass."""
        select = ", ".join(f'({text}) AS "{i}"' for i, (_, text) in enumerate(self._rules.values()))
        return SQLEvaluation(f"SELECT {select} FROM row", self._columns, names=list(self._rules))


class SQLEvaluation:
    """A DuckDB session of one pass. Close it: DuckDB complains of connections that outlive the interpreter."""

    def __init__(self, query: str, columns: list[str], *, names: list[str]) -> None:
        self._query = query
        self._columns = columns
        self._names = names
        self._con: duckdb.DuckDBPyConnection | None = None

    def columns(self, rows: pl.DataFrame) -> list[pl.Series]:
        """The rules' values (Boolean) for each row, under the names that `SQLRules` was given."""
        if not self._names:
            return []
        if self._con is None:
            self._con = _connect()
        needed = rows.select(_presentable(rows.select(self._columns)))
        self._con.register("row", needed.to_arrow(compat_level=pl.CompatLevel.newest()))
        try:
            table = self._con.sql(self._query).to_arrow_table()
        except duckdb.Error as error:
            kind = type(error).__name__.removesuffix("Exception")
            raise ContractError(
                f"an SQL rule of the contract failed on a value ({kind})",
                hint="use try_cast, or guard the value: a NULL passes",
            ) from error
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


def _connect() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:")
    for setting in ("threads = 1", "TimeZone = 'UTC'", "python_enable_replacements = false"):
        con.execute(f"SET {setting}")  # one thread: Polars has the others busy
    con.execute("SET enable_external_access = false")
    return con


def _presentable(rows: pl.DataFrame) -> list[pl.Expr]:
    """The columns, those of types that DuckDB cannot take in written as ones that it can, exactly."""
    written = {pl.Null(): pl.String(), pl.Int128(): pl.Decimal(38, 0)}
    return [pl.col(n).cast(written[d]) if d in written else pl.col(n) for n, d in rows.schema.items()]


def _check(name: str, text: str, schema: pl.Schema) -> None:
    try:
        query = Query(f"SELECT ({text}) AS ok FROM row", {"row": pl.LazyFrame(schema=schema)}, {})
    except ConfigError as error:
        message = error.message.replace("and no frame has it", "and the rows do not have it")
        raise ConfigError(f"rule {name!r}: {message}", hint=error.hint) from error
    if query.syntax.mixing or query.syntax.tables != ("row",) or "SELECT" in _words(text):
        raise ConfigError(f"rule {name!r} looks at several rows", hint="a rule sees one row; aggregate in a transform")
    if list(query.schema.values()) != [pl.Boolean()]:
        raise ConfigError(f"rule {name!r} is not true or false", hint="write a comparison, e.g. price >= 0")


def _columns(text: str, schema: pl.Schema) -> set[str]:
    """The columns that the rule names; all of them where it says ``*``. DuckDB's names know no case."""
    words = {w.lower() for w in _words(text)}
    return set(schema) if "*" in words else {c for c in schema if c.lower() in words}


def _words(text: str) -> set[str]:
    """The names of columns in the rule; ``*`` for all of them, ``SELECT`` for a subquery."""
    with duckdb.connect(":memory:") as con:
        rows = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT ({text}) FROM row"]).fetchall()
    return set(_walk(json.loads(rows[0][0])))


def _walk(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _walk(child)
    elif isinstance(node, dict):
        match node.get("class"):
            case "STAR":
                yield "*"
            case "SUBQUERY":
                yield "SELECT"
            case "COLUMN_REF":
                yield from node["column_names"]
        for child in node.values():
            yield from _walk(child)

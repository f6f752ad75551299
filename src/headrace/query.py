"""One SELECT in DuckDB's dialect over named lazy frames: what it means, and the frame of its result.

DuckDB runs in memory and sees nothing but the frames: no files, no network, no Python variables. Frames go in
and the result comes out as Arrow streams, so neither is ever whole in memory; what DuckDB itself must hold
(groups, sorts, joins) spills to disk beyond its memory limit.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import polars as pl

from headrace.errors import ConfigError, RejectedError, TransformError
from headrace.stream import FrameStream, original, scan_batches
from headrace.syntax import Syntax, identifier, session

__all__ = ["Query", "Scan"]

_BATCH_ROWS = 100_000


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a query needs of one frame: the columns, and a predicate that all rows it uses fulfil (or None)."""

    columns: tuple[str, ...]
    predicate: pl.Expr | None


class Query:
    """A SELECT bound to frames and params.

    Binding reads no rows. Raises ConfigError for an unknown table, column or function, or a missing param.
    """

    def __init__(self, text: str, frames: Mapping[str, pl.LazyFrame], params: Mapping[str, Any]) -> None:
        self.text = text.rstrip().rstrip(";")
        self.syntax = Syntax.of(self.text)
        for table in self.syntax.tables:
            if table not in frames:
                near = difflib.get_close_matches(table, frames, n=1)
                raise ConfigError(
                    f"SQL reads {table!r}, and no frame has that name",
                    hint=f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(frames))}",
                )
        for name in self.syntax.params:
            if name not in params:
                raise ConfigError(f"SQL uses ${name}, and params have no {name!r}", hint='add it to "params"')
        self.params = {name: params[name] for name in self.syntax.params}
        self.frames = {table: _presentable(frames[table]) for table in self.syntax.tables}
        self.schema, self.scans = self._bind()

    def _bind(self) -> tuple[pl.Schema, dict[str, Scan]]:
        """The result's schema, and what the query needs of each frame, from empty tables of the same shape."""
        schemas = {name: frame.collect_schema() for name, frame in self.frames.items()}
        with session() as con:
            con.execute("SET disabled_optimizers = 'statistics_propagation'")
            try:
                for name, schema in schemas.items():
                    empty = pl.DataFrame(schema=schema)
                    con.register("_empty", empty.to_arrow())
                    con.execute(f"CREATE TABLE {identifier(name)} AS SELECT * FROM _empty")
                    con.unregister("_empty")
                result = con.sql(self.text, params=self.params).pl()
                plan = con.execute(f"EXPLAIN (FORMAT json) {self.text}", self.params).fetchall()[0][1]
            except duckdb.Error as error:
                raise _refused(error, schemas) from error
            except pl.exceptions.DuplicateError as error:
                raise ConfigError(
                    "SQL gives two columns of one name", hint="SELECT * EXCLUDE (name), or * REPLACE (… AS name)"
                ) from error
            except pl.exceptions.ComputeError as error:
                raise ConfigError(
                    "SQL returns a type that cannot go on (an INTERVAL)", hint="cast it, e.g. to a number of seconds"
                ) from error
            return result.schema, {n: _needs(con, json.loads(plan), n, s) for n, s in schemas.items()}

    def lazy(self) -> pl.LazyFrame:
        """The result, lazily; reads its frames again each time it is collected."""
        return scan_batches(self._stream, self.schema)

    def _stream(self) -> Iterator[pl.DataFrame]:
        with TemporaryDirectory(prefix="headrace-sql-") as spill, session(Path(spill)) as con:
            for name, frame in self.frames.items():
                needs = self.scans[name]
                lazy = frame if needs.predicate is None else frame.filter(needs.predicate)
                con.register(name, FrameStream(lazy.select(needs.columns)))
            try:
                for batch in con.sql(self.text, params=self.params).arrow(_BATCH_ROWS):
                    yield pl.DataFrame(pl.from_arrow(batch)).cast(self.schema)
            except (duckdb.Error, OSError, pl.exceptions.PolarsError) as error:
                if (cause := original(error)) is not None:
                    raise cause from None
                raise _failed(error) from error


def _presentable(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The frame with the few types that DuckDB cannot take in written as ones that it can, exactly."""
    casts = []
    for name, dtype in frame.collect_schema().items():
        if dtype == pl.Null():
            casts.append(pl.col(name).cast(pl.String))
        elif dtype == pl.Int128():
            casts.append(pl.col(name).cast(pl.Decimal(38, 0)))
    return frame.with_columns(casts) if casts else frame


def _refused(error: duckdb.Error, schemas: Mapping[str, pl.Schema]) -> ConfigError:
    """Why a query does not bind, in safe words: names of columns and functions, never a literal."""
    text = str(error)
    if (missing := _between(text, 'Referenced column "', '"')) is not None:
        columns = sorted({c for s in schemas.values() for c in s})
        near = difflib.get_close_matches(missing, columns, n=1)
        return ConfigError(
            f"SQL reads column {missing!r}, and no frame has it",
            hint=f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(columns[:30])}",
        )
    if (missing := _between(text, "with name ", " does not exist")) is not None:
        return ConfigError(f"SQL uses {missing}, which does not exist", hint="it is DuckDB's dialect")
    kind = type(error).__name__.removesuffix("Exception")
    return ConfigError(f"SQL does not fit the frames ({kind})", hint="run `headrace preview` with --step before it")


def _between(text: str, start: str, end: str) -> str | None:
    _, found, rest = text.partition(start)
    return rest.partition(end)[0] if found and end in rest else None


def _failed(error: Exception) -> TransformError | RejectedError:
    if isinstance(error, duckdb.OutOfMemoryException | OSError):
        return RejectedError(
            "the SQL transform ran out of memory or of temporary disk", hint="free space in the temporary folder"
        )
    kind = type(error).__name__.removesuffix("Exception")
    return TransformError(
        f"the SQL transform failed on a value ({kind})", hint="try_cast, or a contract on the source, names the rows"
    )


def _needs(con: duckdb.DuckDBPyConnection, plan: Any, name: str, schema: pl.Schema) -> Scan:
    """The columns and simple filters that DuckDB's optimiser would push into a scan of the table.

    One row of a table that is scanned twice must serve both scans: then no filter is pushed.
    """
    scans: list[Mapping[str, Any]] = []
    _collect_scans(plan, f"memory.main.{name}", scans)
    if not scans:  # the optimiser found that no row can matter; still, one column keeps the row count
        return Scan(columns=tuple(schema)[:1], predicate=None)
    filters = [[_parsed_filter(con, f) for f in _listed(scan.get("Filters"))] for scan in scans]
    if any(node is None for nodes in filters for node in nodes):
        return Scan(columns=tuple(schema), predicate=None)
    used = {c for scan in scans for c in _listed(scan.get("Projections"))}
    used |= {c for nodes in filters for node in nodes for c in _columns(node)}  # those are not among the projections
    columns = tuple(c for c in schema if c in used) or tuple(schema)[:1]
    found = [e for node in filters[0] for e in _comparisons(node, schema)] if len(scans) == 1 else []
    return Scan(columns=columns, predicate=pl.all_horizontal(found) if found else None)


def _parsed_filter(con: duckdb.DuckDBPyConnection, text: str) -> Any:
    rows = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT 1 WHERE {text}"]).fetchall()
    parsed = json.loads(rows[0][0])
    return None if parsed["error"] else parsed["statements"][0]["node"]["where_clause"]


def _columns(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _columns(child)
    elif isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            yield from node["column_names"]  # a table's or a struct's name among them does no harm
        for child in node.values():
            yield from _columns(child)


def _collect_scans(node: Any, table: str, into: list[Mapping[str, Any]]) -> None:
    if isinstance(node, list):
        for child in node:
            _collect_scans(child, table, into)
        return
    info = node.get("extra_info", {})
    if isinstance(info, dict) and str(info.get("Table", "")).replace('"', "") == table:
        into.append(info)
    _collect_scans(node.get("children", []), table, into)


def _listed(value: Any) -> list[str]:
    if not value:
        return []
    return [value] if isinstance(value, str) else list(value)


_COMPARISONS = {
    "COMPARE_EQUAL": "__eq__",
    "COMPARE_GREATERTHAN": "__gt__",
    "COMPARE_LESSTHAN": "__lt__",
    "COMPARE_GREATERTHANOREQUALTO": "__ge__",
    "COMPARE_LESSTHANOREQUALTO": "__le__",
}


def _comparisons(node: Any, schema: pl.Schema) -> list[pl.Expr]:
    """The parts of a filter that mean the same in Polars: an integer, date or text column against a constant.

    Whatever is not understood is left to DuckDB, which applies all of them again anyway.
    """
    if node.get("type") == "CONJUNCTION_AND":
        return [e for child in node["children"] for e in _comparisons(child, schema)]
    left, right = node.get("left", {}), node.get("right", {})
    if node.get("type") not in _COMPARISONS or left.get("class") != "COLUMN_REF":
        return []
    column = ".".join(left["column_names"])
    dtype = schema.get(column)
    constant = _constant(right)
    if dtype is None or constant is None:
        return []
    if dtype.is_integer() and isinstance(constant, int):
        literal = pl.lit(constant, dtype=pl.Int128)
    elif dtype == pl.String() and isinstance(constant, str) and right.get("class") == "CONSTANT":
        literal = pl.lit(constant)
    elif dtype == pl.Date() and isinstance(constant, str):
        literal = pl.lit(constant).str.to_date("%Y-%m-%d")
    else:
        return []
    return [getattr(pl.col(column), _COMPARISONS[node["type"]])(literal)]


def _constant(node: Mapping[str, Any]) -> int | str | None:
    if node.get("class") == "CAST" and (node.get("type_expr") or {}).get("type_name") == "DATE":
        inner = _constant(node["child"])
        return inner if isinstance(inner, str) else None
    if node.get("class") != "CONSTANT":
        return None
    literal = node.get("literal") or {}
    match literal.get("kind"):
        case "INTEGER":
            return int(literal["text"])
        case "STRING":
            return str(literal["text"])
    return None

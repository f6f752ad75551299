"""One SELECT in DuckDB's dialect over named lazy frames: what it means, and the frame of its result.

DuckDB runs in memory and sees nothing but the frames: no files, no network, no Python variables. Frames go in
and the result comes out as Arrow streams, so neither is ever whole in memory; what DuckDB itself must hold
(groups, sorts, joins) spills to disk beyond its memory limit.
"""

from __future__ import annotations

import difflib
import functools
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

__all__ = ["Query", "Scan", "Syntax"]

MEMORY_LIMIT = "400MB"
_BATCH_ROWS = 100_000


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """What the text of a SELECT says, before any schema is known.

    `mixing` names what makes a row of the result depend on several rows of the input (an aggregate, a window,
    DISTINCT, LIMIT, a set operation); `after_groups` what can drop a whole group from a result (HAVING,
    QUALIFY, LIMIT). `tables` are the frames it reads, `params` the ``$names`` it uses.
    """

    tables: tuple[str, ...]
    params: tuple[str, ...]
    mixing: tuple[str, ...]
    after_groups: tuple[str, ...]

    @staticmethod
    def of(text: str) -> Syntax:
        """Parse one SELECT. Raises ConfigError for anything else, with where it stops making sense."""
        with _session() as con:
            parsed = json.loads(con.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchall()[0][0])
        if parsed["error"]:
            if parsed.get("error_type") == "not implemented":
                raise ConfigError("an SQL transform must be one SELECT", hint="loading is the destination's part")
            raise ConfigError(f"SQL does not parse{_position(text, parsed)}", hint="it is DuckDB's dialect")
        if len(parsed["statements"]) != 1:
            raise ConfigError("an SQL transform must be one SELECT", hint="give each its own step")
        statement = parsed["statements"][0]
        found = _Found()
        found.visit(statement["node"])
        params = tuple(sorted(p["key"] for p in statement.get("named_param_map") or ()))
        return Syntax(
            tables=tuple(sorted(found.tables - found.defined)),
            params=params,
            mixing=tuple(sorted(found.mixing)),
            after_groups=tuple(sorted(found.after_groups)),
        )


def _position(text: str, parsed: Mapping[str, Any]) -> str:
    """Where the parser stopped; its own message may quote a literal, so it is not passed on."""
    if not str(parsed.get("position", "")).isdigit():
        return ""
    before = text[: int(parsed["position"])]
    return f" at line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


class _Found:
    """A walk over DuckDB's serialised syntax tree."""

    def __init__(self) -> None:
        self.tables: set[str] = set()
        self.defined: set[str] = set()
        self.mixing: set[str] = set()
        self.after_groups: set[str] = set()

    def visit(self, node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                self.visit(item)
        elif isinstance(node, dict):
            self.note(node)
            for value in node.values():
                self.visit(value)

    def note(self, node: Mapping[str, Any]) -> None:
        kind = node.get("type")
        if kind == "BASE_TABLE":
            self.tables.add(node["table_name"])
        for entry in (node.get("cte_map") or {}).get("map", ()):
            self.defined.add(entry["key"])
        self.mixing |= _mixing(node)
        self.after_groups |= {clause.upper() for clause in ("having", "qualify") if node.get(clause)}
        if kind in ("LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"):
            self.after_groups.add("LIMIT")


def _mixing(node: Mapping[str, Any]) -> set[str]:
    """What in this node makes a row of the result depend on several rows."""
    kind, name = str(node.get("type")), str(node.get("function_name", ""))
    union_all = node.get("setop_type") == "UNION" and node.get("setop_all")
    signs = {
        "a window function": node.get("class") == "WINDOW",
        f"the aggregate {name}": node.get("class") == "FUNCTION" and name.lower() in _aggregates(),
        "GROUP BY": node.get("group_expressions") or node.get("aggregate_handling") == "FORCE_AGGREGATES",
        "DISTINCT": kind == "DISTINCT_MODIFIER",
        "LIMIT": kind in ("LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"),
        "a set operation": kind == "SET_OPERATION_NODE" and not union_all,
        "SAMPLE": node.get("sample"),
    }
    return {words for words, sign in signs.items() if sign}


@functools.cache
def _aggregates() -> frozenset[str]:
    with _session() as con:
        rows = con.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'"
        ).fetchall()
    return frozenset(name for (name,) in rows)


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
        with _session() as con:
            con.execute("SET disabled_optimizers = 'statistics_propagation'")
            try:
                for name, schema in schemas.items():
                    empty = pl.DataFrame(schema=schema)
                    con.register("_empty", empty.to_arrow())
                    con.execute(f"CREATE TABLE {_identifier(name)} AS SELECT * FROM _empty")
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
        with TemporaryDirectory(prefix="headrace-sql-") as spill, _session(Path(spill)) as con:
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


class _session:  # noqa: N801 - used as a function
    """A DuckDB of its own in memory that can reach nothing but what is registered."""

    def __init__(self, spill: Path | None = None) -> None:
        self.spill = spill

    def __enter__(self) -> duckdb.DuckDBPyConnection:
        self.con = duckdb.connect(":memory:")
        if self.spill is not None:
            self.con.execute("SET memory_limit = ?", [MEMORY_LIMIT])
            self.con.execute("SET temp_directory = ?", [str(self.spill)])
        self.con.execute("SET TimeZone = 'UTC'")
        self.con.execute("SET python_enable_replacements = false")
        self.con.execute("SET enable_external_access = false")
        return self.con

    def __exit__(self, *_: object) -> None:
        self.con.close()


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


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

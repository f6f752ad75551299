"""One SELECT in DuckDB's dialect over named lazy frames: what it means, and the frame of its result.

DuckDB runs in memory and sees nothing but the frames: no files, no network, no Python variables. Frames go in
and the result comes out as Arrow streams, so neither is ever whole in memory; what DuckDB itself must hold
(groups, sorts, joins) spills to disk beyond its memory limit. A frame that is just Parquet files DuckDB reads itself,
wherever it sees the same types in them as Polars does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import polars as pl

from headrace import interruption
from headrace.errors import ConfigError, RejectedError, SchemaError, TransformError, UnavailableError, did_you_mean
from headrace.frozen import frozen
from headrace.logical import Type
from headrace.schema import Schema
from headrace.sqltext import quoted
from headrace.stream import FrameStream, framed, original, scan_batches
from headrace.stream.direct import Direct, direct, give_up
from headrace.stream.inmemory import no_room
from headrace.transform.columns import Column, carry, columns_of, crossing, logical, physical, restated, restore
from headrace.transform.syntax import Syntax, binding, session

__all__ = ["Query", "Scan"]


@frozen(kw_only=True)
class Scan:
    """What a query needs of one frame: the columns, and a predicate that all rows it uses fulfil (or None)."""

    columns: tuple[str, ...]
    predicate: pl.Expr | None


class Query:
    """A SELECT bound to frames and params. `said` is what errors call it, with its place.

    Binding reads no rows. Raises ConfigError for an unknown table, column or function, or a missing param; SchemaError
    for a column of the result or of a frame that cannot cross exactly.
    """

    def __init__(
        self, text: str, frames: Mapping[str, pl.LazyFrame], params: Mapping[str, Any], *, said: str = ""
    ) -> None:
        self.text = text.rstrip().rstrip(";")
        self.said = said
        try:
            self.syntax = Syntax.of(self.text)
            self._require(frames, params)
            self.params = {name: params[name] for name in self.syntax.params}
            self.frames = {table: frames[table] for table in self.syntax.tables}
            self.result, self.scans = self._bind()
        except (ConfigError, SchemaError) as error:
            if not said:
                raise
            raise type(error)(f"{said}: {error.message}", hint=error.hint) from error.__cause__
        self.schema = pl.Schema({name: column.type.polars() for name, column in self.result})

    def _require(self, frames: Mapping[str, pl.LazyFrame], params: Mapping[str, Any]) -> None:
        for table in self.syntax.tables:
            if table not in frames:
                raise ConfigError(
                    f"SQL reads {table!r}, and no frame has that name",
                    hint=did_you_mean(table, frames, otherwise=f"there are: {', '.join(sorted(frames))}"),
                )
            _refuse_names(table, frames[table].collect_schema())
        for name in self.syntax.params:
            if name not in params:
                raise ConfigError(f"SQL uses ${name}, and params have no {name!r}", hint='add it to "params"')

    def _bind(self) -> tuple[tuple[tuple[str, Column], ...], dict[str, Scan]]:
        """The result's columns, and what the query needs of each frame, from empty tables of the same shape."""
        schemas = {name: frame.collect_schema() for name, frame in self.frames.items()}
        whole = {name: Scan(columns=tuple(schema), predicate=None) for name, schema in schemas.items()}
        with binding() as con:
            try:
                for number, (name, schema) in enumerate(schemas.items()):
                    empty = pl.DataFrame(schema=schema).select(carry(schema))
                    con.register("_empty", empty.to_arrow(compat_level=pl.CompatLevel.newest()))
                    con.execute(f"CREATE TABLE {_STREAM}{number} AS SELECT * FROM _empty")
                    con.unregister("_empty")
                    self._mount(con, number, name, whole[name])
                plan = self._plan(con)  # first: its errors say the line
                relation = con.sql(self.text, params=self.params)
                result = _result(relation.columns, relation.types)
                scans = {
                    name: _needs(con, plan, f"{_STREAM}{number}", schema)
                    for number, (name, schema) in enumerate(schemas.items())
                }
                for number, name in enumerate(schemas):
                    self._mount(con, number, name, scans[name])
                sure = _UNNEEDED not in json.dumps(self._plan(con))
                if self.syntax.momentary:
                    scans = {name: replace(scan, predicate=None) for name, scan in scans.items()}
            except duckdb.Error as error:
                raise _refused(error, schemas) from error
        return result, scans if sure else whole

    def _plan(self, con: duckdb.DuckDBPyConnection) -> Any:
        return json.loads(con.execute(f"EXPLAIN (FORMAT json) {self.text}", self.params).fetchall()[0][1])

    def _mount(self, con: duckdb.DuckDBPyConnection, number: int, name: str, needs: Scan) -> None:
        """A view of a frame's stream with ALL its columns, so that the text always means what it meant when bound.

        A column that the query does not need is not streamed: to have taken it for unneeded in error raises.
        """
        parts = [
            restated(Schema((field,)))
            if field.name in needs.columns
            else f"CAST(error('{_UNNEEDED}') AS {physical(field.type)}) AS {quoted(field.name)}"
            for field in Schema.of_polars(self.frames[name].collect_schema())
        ]
        con.execute(f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT {', '.join(parts)} FROM {_STREAM}{number}")

    def lazy(self) -> pl.LazyFrame:
        """The result, lazily; reads its frames again each time it is collected."""
        return scan_batches(self._stream, self.schema)

    def _stream(self) -> Iterator[pl.DataFrame]:
        found = {} if self.syntax.stops_early else {n: direct(frame) for n, frame in self.frames.items()}
        read = {name: one for name, one in found.items() if one is not None}
        given = False
        try:
            for rows in self._run(read):
                given = True
                yield rows
        except (_OtherTypesError, TransformError, RejectedError) as error:
            if not read or interruption.came():
                raise
            if given:
                for one in read.values():
                    give_up(one)
                raise UnavailableError(
                    f"{self._what} broke off in files that DuckDB reads by itself",
                    hint="run again: they are streamed now",
                ) from error
        else:
            return
        yield from self._run({})  # a file that DuckDB reads in another way, or not at all, or not in its memory

    def _run(self, read: Mapping[str, Direct]) -> Iterator[pl.DataFrame]:
        """The result's rows. The frames in `read` DuckDB reads by itself."""
        columns = tuple(column for _, column in self.result)
        names, sent = ", ".join(c.name for c in columns), ", ".join(_sent(c) for c in columns)
        select = f"SELECT {sent} FROM (\n{self.text}\n) AS _result({names})"
        paths = [path for one in read.values() for path in one.paths]
        with TemporaryDirectory(prefix="headrace-sql-") as spill, ExitStack() as stack:
            con = stack.enter_context(session(Path(spill), paths))
            try:
                for number, (name, frame) in enumerate(self.frames.items()):
                    if name in read:
                        _attach(con, number, read[name], frame.collect_schema())
                        stack.enter_context(read[name].reading())
                    else:
                        needs = self.scans[name]
                        lazy = frame if needs.predicate is None else frame.filter(needs.predicate)
                        con.register(f"{_STREAM}{number}", FrameStream(crossing(lazy.select(needs.columns))))
                    self._mount(con, number, name, self.scans[name])
                for batch in framed(con.sql(select, params=self.params)):
                    rows = batch.select(restore(logical(columns)))
                    rows.columns = [name for name, _ in self.result]
                    yield rows
            except (duckdb.Error, OSError, pl.exceptions.PolarsError) as error:
                if (cause := original(error)) is not None:
                    raise cause from None
                raise self._failed(error) from error

    @property
    def _what(self) -> str:
        return self.said or "the SQL transform"

    def _failed(self, error: Exception) -> TransformError | RejectedError:
        what = self._what
        if isinstance(error, duckdb.OutOfMemoryException | OSError):
            return no_room(what)
        for name, column in self.result:
            for guard, words in (
                (column.no_time, "24:00:00, no time of a day"),
                (_wide(column), "more than 38 digits"),
            ):
                if guard in str(error):
                    return TransformError(f"{what}: column {name!r} holds {words}", hint="cast it to text")
        kind = type(error).__name__.removesuffix("Exception")
        return TransformError(
            f"{what} failed on a value ({kind})", hint="try_cast, or a contract on the source, names the rows"
        )


class _OtherTypesError(Exception):
    """DuckDB sees other types in a file than Polars does."""


_STREAM = "_headrace_stream_"
_UNNEEDED = "headrace took a column for unneeded"


def _attach(con: duckdb.DuckDBPyConnection, number: int, read: Direct, schema: pl.Schema) -> None:
    """What DuckDB reads by itself, in a stream's place. Raises where it sees other columns or types there, or not the
    same in all files: what it tells of a query's types is the first file's.
    """
    relation = con.sql(read.query)
    try:
        seen = [(c.name, c.held) for c in columns_of(relation.columns, relation.types)]
    except SchemaError:
        raise _OtherTypesError from None
    if len(con.execute(read.shapes).fetchall()) != 1:
        raise _OtherTypesError
    if seen != [(field.name, physical(field.type)) for field in Schema.of_polars(schema)]:
        raise _OtherTypesError
    con.execute(f"CREATE VIEW {_STREAM}{number} AS {read.query}")


def _refuse_names(table: str, schema: pl.Schema) -> None:
    """Names that SQL has no word for, and tables without any."""
    if not schema:
        raise ConfigError(f"SQL reads {table!r}, which has no columns", hint="files have none while there is no file")
    lowered = [name.lower() for name in schema]
    for name in schema:
        if not name or lowered.count(name.lower()) > 1:
            what = "differs from another in case alone" if name else "has no name"
            raise ConfigError(f"column {name!r} of {table!r} {what}: SQL cannot say it", hint="rename it in Python")


def _result(names: Sequence[str], types: Sequence[Any]) -> tuple[tuple[str, Column], ...]:
    """The result's columns: names, and the columns as they cross, under names of their own.

    A HUGEINT, which is what sum() gives, goes on as decimal(38,0), which every destination has: exact, or refused.
    """
    if len(set(names)) < len(names):
        raise ConfigError("SQL gives two columns of one name", hint="SELECT * EXCLUDE (name), or * REPLACE (… AS name)")
    found = columns_of(names, types)
    return tuple((c.name, replace(c, name=f"c{i}", type=_decimal(c.type))) for i, c in enumerate(found))


def _decimal(type: Type) -> Type:
    match type.name, type.args:
        case "int128", _:
            return Type("decimal", (38, 0))
        case "list", (inner,):
            return Type("list", (_decimal(inner),))
        case "array", (inner, width):
            return Type("array", (_decimal(inner), width))
        case "struct", fields:
            return Type("struct", tuple((n, _decimal(t)) for n, t in fields))
    return type


def _wide(column: Column) -> str:
    return f"column {column.name} holds more than 38 digits"


def _sent(column: Column) -> str:
    """SQL that sends a column of the result as its carried type, exactly or not at all."""
    if column.held != "HUGEINT":
        return column.sent()
    name = column.name
    cast = f"TRY_CAST({name} AS DECIMAL(38,0))"
    return f"CASE WHEN {name} IS NULL OR {cast} IS NOT NULL THEN {cast} ELSE error('{_wide(column)}') END AS {name}"


def _refused(error: duckdb.Error, schemas: Mapping[str, pl.Schema]) -> ConfigError:
    """Why a query does not bind, in safe words: names of columns and functions, never a literal."""
    text = str(error)
    line = _between(text, "\nLINE ", ":")
    place = f" (line {line})" if line is not None and line.isdigit() else ""
    if (missing := _between(text, 'Referenced column "', '"')) is not None:
        columns = sorted({c for s in schemas.values() for c in s})
        return ConfigError(
            f"SQL reads column {missing!r}, and no frame has it{place}",
            hint=did_you_mean(missing, columns, otherwise=f"there are: {', '.join(columns[:30])}"),
        )
    if (missing := _between(text, "with name ", " does not exist")) is not None:
        return ConfigError(f"SQL uses {missing}, which does not exist{place}", hint="it is DuckDB's dialect")
    kind = type(error).__name__.removesuffix("Exception")
    return ConfigError(
        f"SQL does not fit the frames ({kind}){place}", hint="run `headrace preview` with --step before it"
    )


def _between(text: str, start: str, end: str) -> str | None:
    _, found, rest = text.partition(start)
    return rest.partition(end)[0] if found and end in rest else None


def _needs(con: duckdb.DuckDBPyConnection, plan: Any, table: str, schema: pl.Schema) -> Scan:
    """The columns and simple filters that DuckDB's optimiser would push into a scan of the table.

    One row of a table that is scanned twice must serve both scans: then no filter is pushed.
    """
    scans: list[Mapping[str, Any]] = []
    _collect_scans(plan, f"memory.main.{table}", scans)
    if not scans:  # the optimiser found that no row can matter; still, one column keeps the row count
        return Scan(columns=tuple(schema)[:1], predicate=None)
    filters = [[_parsed_filter(con, f) for f in _listed(scan.get("Filters"))] for scan in scans]
    if any(node is None for nodes in filters for node in nodes):
        return Scan(columns=tuple(schema), predicate=None)
    used = {c for scan in scans for c in _listed(scan.get("Projections"))}
    if not used <= set(schema):  # a name that the plan prints in another way
        return Scan(columns=tuple(schema), predicate=None)
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
            names = node["column_names"]  # a table's or a struct's name among them does no harm
            yield from (*names, ".".join(names))  # the plan writes the column "a.b" as it writes a struct's field
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
    *struct, column = left["column_names"]
    dtype = None if struct else schema.get(column)
    constant = _constant(right)
    if dtype is None or constant is None:
        return []
    if dtype.is_integer() and isinstance(constant, int):
        literal = pl.lit(constant, dtype=pl.Int128)
    elif (dtype == pl.String() and isinstance(constant, str)) or (dtype == pl.Date() and isinstance(constant, date)):
        literal = pl.lit(constant)
    else:
        return []
    return [getattr(pl.col(column), _COMPARISONS[node["type"]])(literal)]


def _constant(node: Mapping[str, Any]) -> int | str | date | None:
    if node.get("class") == "CAST" and (node.get("type_expr") or {}).get("type_name") == "DATE":
        with suppress(ValueError):  # infinity, or a year that has not four digits
            return date.fromisoformat(str(_constant(node["child"])))
        return None
    if node.get("class") != "CONSTANT":
        return None
    literal = node.get("literal") or {}
    kind = {"INTEGER": int, "STRING": str}.get(str(literal.get("kind")))
    return None if kind is None else kind(literal["text"])

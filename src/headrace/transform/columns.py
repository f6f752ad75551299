"""Columns: the logical types of headrace, the types DuckDB holds them in, and what Arrow carries between.

Three types for one column. The *logical* one is in the ledger. The *physical* one holds every value of it
exactly (a duration is its BIGINT, an enum its text). The *carried* one is what both Polars and DuckDB can put
into an Arrow stream (a HUGEINT goes as text).
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import ConfigError, SchemaError
from headrace.frozen import frozen
from headrace.logical import Type, widens
from headrace.schema import Field, Schema
from headrace.sqltext import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "Column",
    "carried",
    "carry",
    "check_fits",
    "columns_of",
    "crossing",
    "described",
    "folded",
    "logical",
    "physical",
    "restated",
    "restore",
]

_PHYSICAL = {
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "int128": "HUGEINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "binary": "BLOB",
    "date": "DATE",
    "time": "TIME_NS",
    "json": "JSON",
    "categorical": "VARCHAR",
    "enum": "VARCHAR",
    "null": "VARCHAR",  # all NULL: any type can be made of it later
    "duration": "BIGINT",
}
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
NO_TIME = re.compile(r"column .* holds 24:00:00, which is no time of a day")
"""What `Column.sent` has DuckDB say of a TIME that would become null on its way."""
_TEXT = ("string", "categorical", "enum", "json")
_CARRIED_AS_TEXT = ("int128", "json", "null", "categorical", "enum")


def folded(name: str) -> str:
    """A name as DuckDB compares it: of the letters only ASCII's have no case (É and é are two names)."""
    return name.translate(_LOWER)


def physical(type: Type) -> str:
    """The DuckDB type that holds every value of `type` exactly. Raises SchemaError where there is none."""
    match type.name, type.args:
        case "decimal", (precision, scale):
            return f"DECIMAL({precision},{scale})"
        case "datetime", (unit, None):
            return {"ms": "TIMESTAMP_MS", "us": "TIMESTAMP", "ns": "TIMESTAMP_NS"}[unit]
        case "datetime", (unit, _):
            return "TIMESTAMPTZ_NS" if unit == "ns" else "TIMESTAMPTZ"
        case "list", (inner,):
            return f"{physical(inner)}[]"
        case "array", (inner, width) if width > 0:
            return f"{physical(inner)}[{width}]"
        case "struct", fields if fields:
            return "STRUCT(" + ", ".join(f"{quoted(n)} {physical(t)}" for n, t in fields) + ")"
    if type.name not in _PHYSICAL:
        raise SchemaError(f"DuckDB cannot hold {type}", hint="drop the column in a transform, or make it text")
    return _PHYSICAL[type.name]


def carried(type: Type) -> Type:
    """The type in which values of `type` cross between Polars and DuckDB."""
    match type.name, type.args:
        case "duration", _:
            return Type("int64")
        case "list", (inner,):
            return Type("list", (carried(inner),))
        case "array", (inner, width):
            return Type("array", (carried(inner), width))
        case "struct", fields:
            return Type("struct", tuple((n, carried(t)) for n, t in fields))
    return Type("string") if type.name in _CARRIED_AS_TEXT else type


def carry(schema: Mapping[str, pl.DataType]) -> list[pl.Expr]:
    """The columns of a frame of this schema, as DuckDB can take them."""
    exprs = []
    for field in Schema.of_polars(schema):
        goes = carried(field.type)
        column = pl.col(field.name)
        exprs.append(column if goes == field.type else column.cast(goes.polars()))
    return exprs


def crossing(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The frame, as DuckDB can take it: itself, where no column must be cast."""
    schema = frame.collect_schema()
    if all(carried(field.type) == field.type for field in Schema.of_polars(schema)):
        return frame
    return frame.select(carry(schema))


def restated(schema: Schema) -> str:
    """SQL that makes of columns as they were carried the ones that DuckDB holds, for a SELECT list."""
    parts = []
    for field in schema:
        name, held = quoted(field.name), physical(field.type)
        parts.append(name if held == physical(carried(field.type)) else f"CAST({name} AS {held}) AS {name}")
    return ", ".join(parts)


def restore(schema: Schema) -> list[pl.Expr]:
    """The logical columns, from what DuckDB sent (see `Column.sent`)."""
    return [_restored(pl.col(f.name), f.type).alias(f.name) for f in schema]


def _restored(expr: pl.Expr, type: Type) -> pl.Expr:
    """A cast, but that Polars' own leaves what is inside of a list alone where it should become Null."""
    if not _holds_null(type):
        return expr.cast(type.polars())
    match type.name, type.args:
        case "list", (inner,):
            return expr.list.eval(_restored(pl.element(), inner))
        case "array", (inner, width):
            return expr.arr.to_list().list.eval(_restored(pl.element(), inner)).list.to_array(width)
        case "struct", fields:
            parts = [_restored(expr.struct.field(n), t).alias(n) for n, t in fields]
            return pl.when(expr.is_not_null()).then(pl.struct(parts))
    return expr.cast(pl.Null)


def _holds_null(type: Type) -> bool:
    match type.name, type.args:
        case (("list" | "array"), (inner, *_)):
            return _holds_null(inner)
        case "struct", fields:
            return any(_holds_null(t) for _, t in fields)
    return type.name == "null"


def check_fits(rows: Schema, table: Schema) -> None:
    """Raises SchemaError unless every column of `rows` goes into the table exactly."""
    for field in rows:
        if field.name not in table or not _fits(field.type, table[field.name]):
            holds = f"the table holds {table[field.name]}" if field.name in table else "the table does not have it"
            raise SchemaError(f"column {field.name!r} is {field.type}, {holds}", hint="cast it in a transform")


def _fits(rows: Type, table: Type) -> bool:
    if widens(rows, table) or (rows.name in _TEXT and table.name in _TEXT):
        return True
    if rows.name != table.name:
        return False
    match rows.name, rows.args, table.args:
        case "list", (mine,), (its,):
            return _fits(mine, its)
        case "array", (mine, width), (its, its_width):
            return width == its_width and _fits(mine, its)
        case "struct", fields, its_fields:
            return [n for n, _ in fields] == [n for n, _ in its_fields] and all(
                _fits(a, b) for (_, a), (_, b) in zip(fields, its_fields, strict=True)
            )
    return False


@frozen
class Column:
    """A column of a table or query as DuckDB has it: its name, the type that DuckDB holds it in, its logical type."""

    name: str
    held: str
    type: Type

    @property
    def exact(self) -> bool:
        """Whether the held type is the one headrace would choose."""
        return physical(self.type) == self.held

    @property
    def no_time(self) -> str:
        """What is said where a TIME is 24:00:00, in SQL's quotes."""
        return f"column {self.name} holds 24:00:00, which is no time of a day".replace("'", "")

    def sent(self) -> str:
        """SQL that sends the column as its carried type."""
        name = quoted(self.name)
        goes = physical(carried(self.type))
        value = name
        if self.held.startswith("MAP("):
            value = f"CASE WHEN {name} IS NOT NULL THEN map_entries({name}) END"
        if (midnight := _midnight(value, self.type)) is not None:  # DuckDB's 24:00:00 would become null on its way
            value = f"CASE WHEN {midnight} THEN error('{self.no_time}') ELSE {value} END"
        return name if goes == self.held and value == name else f"CAST({value} AS {goes}) AS {name}"

    def taken(self, source: str) -> str:
        """SQL that makes the column's value from `source`, an expression of the carried type."""
        cast = f"CAST({source} AS {self.held})"
        if self.exact or self.held == "UUID":
            return cast
        goes = physical(carried(self.type))
        back = f"CAST({cast} AS {goes})"
        message = f"column {self.name} cannot hold a value exactly".replace("'", "")
        return f"CASE WHEN {back} IS NOT DISTINCT FROM CAST({source} AS {goes}) THEN {cast} ELSE error('{message}') END"


def _midnight(value: str, type: Type, depth: int = 0) -> str | None:
    """SQL for whether 24:00:00 is among the times in a value; None where its type has none."""
    match type.name, type.args:
        case "time", _:
            return f"{value} = TIME '24:00:00'"
        case (("list" | "array"), (inner, *_)):
            item = f"headrace_{depth}"
            found = _midnight(item, inner, depth + 1)
            return found and f"len(list_filter(CAST({value} AS {physical(inner)}[]), lambda {item}: {found})) > 0"
        case "struct", fields:
            ways = [f"struct_extract({value}, {literal(n)})" for n, _ in fields]
            parts = [_midnight(way, t, depth) for way, (_, t) in zip(ways, fields, strict=True)]
            some = [part for part in parts if part is not None]
            return " OR ".join(f"coalesce({part}, false)" for part in some) if some else None
    return None


def described(connection: DuckDBPyConnection, query: str) -> tuple[Column, ...]:
    """The columns of a query, with logical types of their own.

    Raises ConfigError for a query that does not bind, SchemaError that names a column no type can carry.
    """
    relation = connection.sql(query)
    if relation is None:
        raise ConfigError("the query gives no rows", hint="write one SELECT")
    try:
        return columns_of(relation.columns, relation.types)
    finally:
        del relation


def columns_of(names: Sequence[str], types: Sequence[Any]) -> tuple[Column, ...]:
    """Columns by their names and DuckDB's types. Raises SchemaError that names a column no type can carry."""
    return tuple(Column(n, _spelled(t), _logical_column(n, t)) for n, t in zip(names, types, strict=True))


def _logical_column(name: str, held: Any) -> Type:
    try:
        return _logical(held)
    except SchemaError as error:
        raise SchemaError(f"column {name!r}: {error.message}", hint=error.hint) from None


_LOGICAL = {
    "boolean": Type("bool"),
    "tinyint": Type("int8"),
    "smallint": Type("int16"),
    "integer": Type("int32"),
    "bigint": Type("int64"),
    "hugeint": Type("int128"),
    "utinyint": Type("uint8"),
    "usmallint": Type("uint16"),
    "uinteger": Type("uint32"),
    "ubigint": Type("uint64"),
    "float": Type("float32"),
    "double": Type("float64"),
    "varchar": Type("string"),
    "blob": Type("binary"),
    "date": Type("date"),
    "time": Type("time"),
    "time_ns": Type("time"),
    "timestamp_s": Type("datetime", ("ms", None)),
    "timestamp_ms": Type("datetime", ("ms", None)),
    "timestamp": Type("datetime", ("us", None)),
    "timestamp_ns": Type("datetime", ("ns", None)),
    "timestamp with time zone": Type("datetime", ("us", "UTC")),
    "timestamptz_ns": Type("datetime", ("ns", "UTC")),
    "null": Type("null"),
}
_AS_TEXT = ("uhugeint", "interval", "bit", "uuid", "time with time zone", "bignum")
"""Exact as DuckDB's own text, and as nothing else that Polars has."""


def _logical(held: Any, *, nested: bool = False) -> Type:  # noqa: PLR0911  # one for each kind of type
    if str(held) == "JSON":
        return Type("json")
    if held.id in _LOGICAL:
        return _LOGICAL[held.id]
    match held.id:
        case "decimal":
            (_, precision), (_, scale) = held.children
            return Type("decimal", (int(precision), int(scale)))
        case "enum":
            ((_, values),) = held.children
            return Type("enum", tuple(values))
        case "list":
            ((_, inner),) = held.children
            return Type("list", (_logical(inner, nested=True),))
        case "array":
            (_, inner), (_, width) = held.children
            return Type("array", (_logical(inner, nested=True), int(width)))
        case "struct":
            return Type("struct", tuple((n, _logical(t, nested=True)) for n, t in held.children))
        case "map" if not nested:
            (_, key), (_, value) = held.children
            entry = (("key", _logical(key, nested=True)), ("value", _logical(value, nested=True)))
            return Type("list", (Type("struct", entry),))
    if held.id in _AS_TEXT:
        return Type("string")
    raise SchemaError(f"DuckDB's type {held.id.upper()} cannot be carried exactly here", hint="cast it in a query")


def _spelled(held: Any) -> str:
    """DuckDB's type as `physical` spells it, so that the two compare."""
    match held.id:
        case "list":
            ((_, inner),) = held.children
            return f"{_spelled(inner)}[]"
        case "array":
            (_, inner), (_, width) = held.children
            return f"{_spelled(inner)}[{int(width)}]"
        case "struct":
            return "STRUCT(" + ", ".join(f"{quoted(n)} {_spelled(t)}" for n, t in held.children) + ")"
        case "timestamp with time zone":
            return "TIMESTAMPTZ"
    return str(held)


def logical(columns: tuple[Column, ...]) -> Schema:
    """The logical schema of these columns."""
    return Schema(tuple(Field(c.name, c.type) for c in columns))

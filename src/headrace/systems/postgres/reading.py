"""Rows of a table that headrace writes, in their logical types, which are not always those of PostgreSQL's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from headrace.errors import DataError
from headrace.exact import from_text
from headrace.logical import PER_SECOND, Type
from headrace.sqltext import quoted
from headrace.systems.postgres import catalog
from headrace.systems.postgres.copying import copied
from headrace.systems.postgres.encoding import Column, natural
from headrace.systems.postgres.types import TEXT, PgType

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["batches"]

_COPIED = ("bool", "int16", "int32", "int64", "float32", "float64", "decimal", "date", "time", "datetime", "binary")


def batches(connection: Connection, query: str, columns: Sequence[Column]) -> Iterator[pl.DataFrame]:
    """The rows of `query` (a table expression that has `columns`), in their logical types. The first batch is empty.

    Raises DataError that names the column whose type cannot hold a value (an infinite date).
    """
    as_sent = [catalog.Column(c.name, PgType(c.held, "other", _carried(c), partial=False)) for c in columns]
    exprs = [_read(pl.col(c.name), sent.type.held, c.type) for c, sent in zip(columns, as_sent, strict=True)]
    select = ", ".join(_sent(c) for c in columns)
    yield pl.DataFrame(schema={c.name: c.type.polars() for c in columns})
    for sent in copied(connection, f"SELECT {select} FROM ({query}) AS q", as_sent, "the table"):
        rows = sent.select(exprs)
        for column in columns:
            if rows[column.name].null_count() != sent[column.name].null_count():
                raise DataError(
                    f"column {column.name!r} holds a value that {column.type} cannot", hint="look at the table"
                )
        yield rows


def _carried(column: Column) -> Type:
    """The type as which the column's text is read; text itself, where more has to be made of it."""
    type = column.type
    plain = type.args[0] if type.name == "list" and column.held.endswith("[]") else type
    return type if plain.name in _COPIED and natural(column.held) == type else TEXT


def _sent(column: Column) -> str:
    """SQL for the column as the text that is read."""
    name = f"q.{quoted(column.name)}"
    if _carried(column) != TEXT:
        return name
    match column.type.name:
        case "list" | "array" if column.held.endswith("[]"):
            return f"array_to_json({name})::text"
        case "duration":
            return f"trunc(extract(epoch FROM {name}) * {PER_SECOND[column.type.args[0]]})::bigint::text"
    return f"{name}::text"


def _read(sent: pl.Expr, carried: Type, type: Type) -> pl.Expr:
    if carried != TEXT:
        return sent.cast(type.polars())  # nanoseconds, where Polars has no microseconds
    return sent.cast(pl.Int64).cast(type.polars()) if type.name == "duration" else from_text(sent, type)

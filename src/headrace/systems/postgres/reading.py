"""Rows of the database in their logical types, batch by batch: COPY's text, read by `headrace.exact`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl
import psycopg
import pyarrow as pa
import pyarrow.csv as pacsv

from headrace.errors import DataError
from headrace.exact import from_text
from headrace.schema import Type
from headrace.systems.postgres.encoding import Column
from headrace.systems.postgres.names import quoted

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["batches"]

_BLOCK_BYTES = 4 << 20
_CONVERT = {"strings_can_be_null": True, "quoted_strings_can_be_null": False, "null_values": [""]}


def batches(connection: Connection, query: str, columns: Sequence[Column]) -> Iterator[pl.DataFrame]:
    """The rows of `query` (a table expression that has `columns`), in their logical types.

    Raises DataError that names the column whose type cannot hold a value (an infinite date).
    """
    names = [str(n) for n in range(len(columns))]
    exprs = [_read(pl.col(n), c.type).alias(c.name) for n, c in zip(names, columns, strict=True)]
    convert = pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.large_string()), **_CONVERT)
    select = ", ".join(_sent(c) for c in columns)
    yield pl.DataFrame(schema={c.name: c.type.polars() for c in columns})
    for block in _blocks(connection, f"COPY (SELECT {select} FROM ({query}) AS q) TO STDOUT (FORMAT csv)"):
        table = pacsv.read_csv(
            pa.BufferReader(block),
            pacsv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
            pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert,
        )
        texts = pl.DataFrame(table)
        rows = texts.select(exprs)
        for name, column in zip(names, columns, strict=True):
            if rows[column.name].null_count() != texts[name].null_count() and column.type.name != "null":
                raise DataError(
                    f"column {column.name!r} holds a value that {column.type} cannot", hint="look at the table"
                )
        yield rows


def _blocks(connection: Connection, statement: str) -> Iterator[bytes]:
    with psycopg.RawCursor(connection) as cursor, cursor.copy(statement) as copy:
        waiting: list[bytes] = []
        size = 0
        for row in copy:
            waiting.append(bytes(row))
            size += len(row)
            if size >= _BLOCK_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
        if waiting:
            yield b"".join(waiting)


def _sent(column: Column) -> str:
    """SQL for the column as the text that `exact.from_text` reads."""
    name = f"q.{quoted(column.name)}"
    match column.type.name:
        case "list" | "array" if column.held.endswith("[]"):
            return f"array_to_json({name})::text"
        case "duration":
            per_second = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[column.type.args[0]]
            return f"trunc(extract(epoch FROM {name}) * {per_second})::bigint::text"
    return f"{name}::text"


def _read(texts: pl.Expr, type: Type) -> pl.Expr:
    return texts.cast(pl.Int64).cast(type.polars()) if type.name == "duration" else from_text(texts, type)

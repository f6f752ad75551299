"""COPY's text as frames: blocks of rows of about a megabyte, decoded one by one, so that memory does not grow.

The server writes CSV: NULL is nothing, an empty text is two quotes. PyArrow's reader makes columns of it. A value
that the column's type cannot hold is an `UnheldError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice, repeat, takewhile
from operator import itemgetter, lt
from typing import TYPE_CHECKING

import polars as pl
import psycopg
import pyarrow as pa
from psycopg.pq import ExecStatus
from pyarrow import csv

from headrace.errors import DataError, UnavailableError, UnheldError
from headrace.logical import Type
from headrace.systems.postgres.arrays import decoded
from headrace.systems.postgres.connection import answered, awaited, told

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.pq.abc import PGresult

    from headrace.systems.postgres.catalog import Column

__all__ = ["copied"]

_BLOCK_BYTES = 1 << 20
_ROWS_AT_ONCE = 64  # of the widest of rows so many are held, whatever the block is to be
# libpq gives a row with its size; (0, b"") if the next one is yet to come, and (-1, b"") if there is none
_IS_ROW = partial(lt, (1,))
_ROW = itemgetter(1)
_BOM = b"\xef\xbb\xbf"  # the reader would drop it from the first value of a block


def copied(connection: Connection, query: str, columns: Sequence[Column], source: str) -> Iterator[pl.DataFrame]:
    """The rows of a SELECT whose result is these columns, in their logical types.

    Left early, it is the caller's to cancel what the server still sends. Raises UnheldError, DataError (a text that is
    no UTF-8), and what the driver says.
    """
    for block in _blocks(connection, f"COPY ({query}) TO STDOUT (FORMAT csv)"):
        yield _decoded(block, columns, source)


def _blocks(connection: Connection, statement: str) -> Iterator[bytes]:
    """Whole rows, in blocks of about `_BLOCK_BYTES`. Straight from libpq, and without a line of Python for each row:
    that would cost as much as all else here.
    """
    pgconn = connection.pgconn
    pgconn.send_query(statement.encode())
    answered(pgconn)
    asked = map(pgconn.get_copy_data, repeat(1))
    parts, size = list[bytes](), 0
    while True:
        taken = list(islice(takewhile(_IS_ROW, asked), _ROWS_AT_ONCE))
        if taken:
            parts.append(b"".join(map(_ROW, taken)))
            size += len(parts[-1])
        if size >= _BLOCK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
        if len(taken) == _ROWS_AT_ONCE:
            continue
        if (result := told(pgconn)) is None or result.status != ExecStatus.COPY_OUT:
            break
        awaited(pgconn)
    _ended(connection, result)
    if parts:
        yield b"".join(parts)


def _ended(connection: Connection, result: PGresult | None) -> None:
    """The COPY came to its end by itself: only then were these all the rows."""
    last, statuses = None, []
    while result is not None:
        last = result
        statuses.append(result.status)
        result = told(connection.pgconn)
    if last is None or ExecStatus.COMMAND_OK not in statuses:
        if last is not None and last.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(last, encoding="utf-8")
        raise UnavailableError("the connection was lost while rows were read", hint="run again")


def _decoded(block: bytes, columns: Sequence[Column], source: str) -> pl.DataFrame:
    made = _columns(block, columns, range(len(columns)))
    if made is None:
        raise _refused(block, columns, source)
    return pl.DataFrame(made)


def _columns(block: bytes, columns: Sequence[Column], picked: Sequence[int]) -> list[pl.Series] | None:
    """These of the block's columns; None where a type cannot hold a value."""
    try:
        table = _parsed(block, [carried(c.type.held) for c in columns], picked)
    except pa.ArrowInvalid:
        return None
    made = []
    for at, texts in zip(picked, pl.DataFrame(table).get_columns(), strict=True):
        series = decoded(texts, columns[at].type.held, _convert)
        if series is None:
            return None
        made.append(series.alias(columns[at].name))
    return made


def carried(type: Type) -> pa.DataType:
    """The type as which PyArrow reads the text; what is decoded here is read as text first."""
    match type.name, type.args:
        case "decimal", (precision, scale):
            return pa.decimal128(precision, scale)
        case "datetime", (unit, zone):
            return pa.timestamp(unit, zone)
        case "time", _:
            return pa.time64("us")
        case (("string" | "json" | "binary" | "list"), _):
            return pa.string()
    plain = {
        "bool": pa.bool_(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(), "uint32": pa.uint32(),
        "float32": pa.float32(), "float64": pa.float64(), "date": pa.date32(),
    }  # fmt: skip
    return plain[type.name]


def _parsed(block: bytes, types: Sequence[pa.DataType], picked: Sequence[int]) -> pa.Table:
    block = _BOM + block if block.startswith(_BOM) else block
    names = [str(at) for at in range(len(types))]
    return csv.read_csv(
        pa.BufferReader(block),
        read_options=csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types=dict(zip(names, types, strict=True)),
            include_columns=[names[at] for at in picked],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
        ),
        memory_pool=pa.system_memory_pool(),  # PyArrow's own keeps some 25 MB more than it uses
    )


def _convert(texts: pl.Series, type: Type) -> pl.Series | None:
    """Texts without comma, quote and line end as `type`; None where it cannot hold one of them."""
    block = "".join(["\n" if text is None else f"{text}\n" for text in texts.to_list()]).encode()
    try:
        return pl.DataFrame(_parsed(block, [carried(type)], [0])).to_series() if block else texts.cast(type.polars())
    except pa.ArrowInvalid:
        return None


def _refused(block: bytes, columns: Sequence[Column], source: str) -> Exception:
    """Which columns have a value that their type cannot hold."""
    bad = [c for at, c in enumerate(columns) if _columns(block, columns, [at]) is None]
    partial = {c.name for c in bad if c.type.partial}
    if partial:
        return _unheld(partial, source)
    names = ", ".join(sorted(repr(c.name) for c in bad)) or "the rows"
    return DataError(
        f"source {source!r}: what the server sends for {names} is no UTF-8, or no value of its type",
        hint="a database with encoding SQL_ASCII may hold any bytes: convert them in a query",
    )


def _unheld(names: set[str], source: str) -> UnheldError:
    return UnheldError(
        f"source {source!r}: {', '.join(map(repr, sorted(names)))} holds values that its natural type cannot: NaN,"
        " infinity, a year before 1 or after 9999, 24:00, or an array that is no plain list",
        source=source,
        columns=frozenset(names),
    )

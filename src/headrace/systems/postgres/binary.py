"""Rows in COPY's binary form, where every column has one: the server takes it in two thirds of the time of text.

A row is the number of its fields, then of each the length in bytes (-1: NULL) and the bytes, all big-endian. What has
as many bytes in every row is made of columns of 32-bit words that Polars lays side by side, so that a whole run of
fields is turned round at once; Arrow joins the runs, and the texts between them, row by row.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import pyarrow as pa

from headrace.frozen import frozen
from headrace.logical import Type
from headrace.systems.postgres.encoding import Column, cut, refuse_longer, refuse_nul
from headrace.systems.postgres.moments import in_reach, microseconds, whole

__all__ = ["has_form", "packed"]

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_BLOCK_BYTES = 2 << 20
_ORDINAL = "_headrace_ordinal"
_TEXTS = ("string", "categorical", "enum", "null")
_TAKEN = {
    "smallint": ("int8", "uint8", "int16"),
    "integer": ("int8", "uint8", "int16", "uint16", "int32"),
    "bigint": ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"),
    "real": ("float32",),
    "double precision": ("float32", "float64"),
    "boolean": ("bool",),
    "bytea": ("binary",),
    "date": ("date",),
    "time without time zone": ("time",),
    "timestamp without time zone": ("datetime",),
    "timestamp with time zone": ("datetime",),
    "text": _TEXTS,
    "json": ("json",),
}
_NUMBERS = {
    "smallint": pl.Int16,
    "integer": pl.Int32,
    "bigint": pl.Int64,
    "real": pl.Float32,
    "double precision": pl.Float64,
}
_EPOCH_DAYS, _EPOCH_US = 10_957, 946_684_800_000_000  # 2000-01-01, from which PostgreSQL counts
_HALF, _SMALL, _WORD = 1 << 16, 1 << 31, 1 << 32
_NEGATIVE = 0x4000 << 16
_DIGITS = 4  # a numeric's digits are of base 10,000
_BASE = 10**_DIGITS


def has_form(columns: Mapping[str, tuple[Type, Column]]) -> bool:
    """Whether all values of these columns have a binary form that means the same as their text."""
    return all(_has_form(type, column) for type, column in columns.values())


def _has_form(type: Type, column: Column) -> bool:
    held, _, args = column.held.partition("(")
    match held, type.name:
        case "numeric", "decimal":
            precision, scale = type.args
            most, places = (int(part) for part in args[:-1].split(",")) if args else (precision, scale)
            return bool(scale <= places and precision - scale <= most - places)
        case "character varying", name:
            return name in _TEXTS and not args.endswith("[]")
        case _, "datetime" if (type.args[1] is None) != (held == "timestamp without time zone"):
            return False
    return not args and type.name in _TAKEN.get(held, ())


def packed(
    frames: Iterator[pl.DataFrame], columns: Mapping[str, tuple[Type, Column]], *, ordinal: bool
) -> Iterator[tuple[bytes | pa.Buffer, int]]:
    """As `encoding.encoded`, in blocks of some megabytes, for COPY … FROM STDIN (FORMAT binary)."""
    fields = [_Field(name, type, column.held) for name, (type, column) in columns.items()]
    if ordinal:
        fields.insert(0, _Field(_ORDINAL, Type("int64"), "bigint"))
    count = 0
    yield _HEADER, 0
    for frame in frames:
        for rows in cut(frame, _BLOCK_BYTES):
            numbered = rows.with_row_index(_ORDINAL, offset=count) if ordinal else rows
            count += rows.height
            if rows.height:
                yield _joined(numbered, fields), rows.height
    yield _TRAILER, 0


@frozen
class _Field:
    """A column of the logical type `type`, on its way into one of PostgreSQL's type `held`."""

    name: str
    type: Type
    held: str

    def prepared(self, values: pl.Series) -> pl.Series:
        """The numbers, texts or bytes that PostgreSQL has for the values. Raises DataError."""
        match self.type.name:
            case "string" | "categorical" | "enum" | "null" | "json":
                texts = values.cast(pl.String)
                refuse_longer(self.name, texts, self.held)
                return texts
            case "date":
                in_reach(self.name, days := values.to_physical(), 1)
                return days - _EPOCH_DAYS
            case "time":
                return whole(self.name, values.to_physical(), 1_000)
            case "datetime":
                return microseconds(self.name, values, self.type) - _EPOCH_US
            case "decimal":
                return values.to_physical()
        return values.cast(_NUMBERS[self.held]) if self.held in _NUMBERS else values

    def words(self, values: pl.Series) -> list[pl.Expr] | None:
        """Length and value as 32-bit words, of values that `prepared` has given; None where it has not whole words."""
        if self.type.name == "decimal":
            return _numeric(values, self.type.args[1])
        match values.dtype:
            case pl.Int32():
                return [_word(4), pl.col(values.name)]
            case pl.Int64():
                return [_word(8), *_halves(values)]
            case pl.Float32():
                return [_word(4), pl.lit(_bits(values, pa.int32()))]
            case pl.Float64():
                return [_word(8), *_halves(_bits(values, pa.int64()), literal=True)]
        return None


def _joined(rows: pl.DataFrame, fields: list[_Field]) -> pa.Buffer:
    """The rows as they go over the wire."""
    import pyarrow.compute as pc

    frame = pl.DataFrame([f.prepared(rows[f.name]).alias(f.name) for f in fields])
    empty = pa.scalar(b"", pa.binary())
    runs: list[list[pl.Expr]] = [[]]
    parts: list[Any] = [pa.scalar(len(fields).to_bytes(2, "big"), pa.binary())]
    for field in fields:
        values = frame[field.name]
        words, nulls = field.words(values), values.null_count() > 0
        if words is not None and not nulls:
            runs[-1] += words
            continue
        length = _length(values) if words is None else words[0]
        length = pl.when(pl.col(field.name).is_null()).then(-1).otherwise(length) if nulls else length
        runs[-1].append(length.cast(pl.Int32))
        made = _bytes(values) if words is None else _laid(frame, [[w.fill_null(0) for w in words[1:]]])[0]
        parts += [pc.if_else(values.is_not_null().to_arrow(), made, empty) if nulls else made]
        runs.append([])
    laid = _laid(frame, [run for run in runs if run])
    for at in range(len(laid)):  # each stands before the field whose length is its last word
        parts.insert(1 + 2 * at, laid[at])
    pool = pa.system_memory_pool()  # PyArrow's own keeps what it has used
    return pc.binary_join_element_wise(*parts, empty, memory_pool=pool).buffers()[2]


def _laid(frame: pl.DataFrame, runs: list[list[pl.Expr]]) -> list[pa.Array]:
    """Of each run the words of each row, side by side and turned round."""
    made = []
    together = frame.select(pl.concat_arr(run).alias(str(at)) for at, run in enumerate(runs))
    for run, column in zip(runs, together, strict=True):
        words = column.arr.explode().to_arrow()
        turned = array.array("i", memoryview(words.buffers()[1])[words.offset * 4 :][: len(words) * 4].tobytes())
        if sys.byteorder == "little":
            turned.byteswap()
        fixed = pa.Array.from_buffers(pa.binary(4 * len(run)), frame.height, [None, pa.py_buffer(turned)])
        made.append(fixed.cast(pa.binary()))
    return made


def _bytes(values: pl.Series) -> pa.Array:
    """Of texts and bytes themselves, of booleans one byte, of small integers two. Raises DataError for a NUL."""
    import pyarrow.compute as pc

    match values.dtype:
        case pl.Boolean():
            return pc.if_else(values.to_arrow(), pa.scalar(b"\1", pa.binary()), pa.scalar(b"\0", pa.binary()))
        case pl.Int16():
            turned = array.array("h", values.fill_null(0).to_list())
            if sys.byteorder == "little":
                turned.byteswap()
            return pa.Array.from_buffers(pa.binary(2), len(values), [None, pa.py_buffer(turned)]).cast(pa.binary())
    made = values.cast(pl.Binary).to_arrow().cast(pa.binary())
    if values.dtype == pl.String and made.buffers()[2].to_pybytes().find(0) >= 0:
        refuse_nul(values.name, values)
    return made


def _length(values: pl.Series) -> pl.Expr:
    column = pl.col(values.name)
    match values.dtype:
        case pl.String():
            return column.str.len_bytes()
        case pl.Binary():
            return column.bin.size()
    return pl.lit(1 if values.dtype == pl.Boolean else 2)


def _word(value: int) -> pl.Expr:
    return pl.lit(value, dtype=pl.Int32)


def _bits(values: pl.Series, type: pa.DataType) -> pl.Series:
    """The numbers whose bits are those of these floats."""
    return pl.Series(values.name, values.rechunk().to_arrow().view(type))


def _halves(values: pl.Series, *, literal: bool = False) -> list[pl.Expr]:
    """The high word and the low one."""
    column = pl.lit(values) if literal else pl.col(values.name)
    low, high = values.min(), values.max()
    if low is None or (low >= 0 and high < _SMALL):  # type: ignore[operator]  # numbers
        return [_word(0), column.cast(pl.Int32)]
    above = column // _WORD
    below = column - above * _WORD
    return [above.cast(pl.Int32), pl.when(below < _SMALL).then(below).otherwise(below - _WORD).cast(pl.Int32)]


def _numeric(values: pl.Series, scale: int) -> list[pl.Expr]:
    """Length, number of digits and weight of the first, sign and scale, digits: zeros at either end do no harm."""
    low, high = values.min() or 0, values.max() or 0
    most = max(-int(low), int(high))  # type: ignore[arg-type]  # numbers
    after = -(-scale // _DIGITS)
    before = max(1, -(-len(str(most // 10**scale)) // _DIGITS))
    before += (before + after) % 2  # two of them make a word
    narrow = pl.Int32 if most < _SMALL else pl.Int64 if most < _SMALL * _SMALL else None
    column = pl.col(values.name) if narrow is None else pl.col(values.name).cast(narrow)
    size = column if int(low) >= 0 else column.abs()  # type: ignore[arg-type]  # numbers
    digits = []
    for end in range(-_DIGITS * (before - 1), _DIGITS * after + 1, _DIGITS):  # places after the point
        spare = max(0, end - scale)  # the last one may have fewer places
        known = most // 10 ** max(0, scale - end)
        digit = size if end >= scale else size // 10 ** (scale - end) if known else _word(0)
        digit = digit % 10 ** (_DIGITS - spare) if known >= 10 ** (_DIGITS - spare) else digit
        digits.append(digit * 10**spare if spare else digit)
    sign = _word(scale)
    if int(low) < 0:  # type: ignore[arg-type]  # numbers
        sign = pl.when(column < 0).then(_NEGATIVE + scale).otherwise(scale).cast(pl.Int32)
    pairs = zip(digits[::2], digits[1::2], strict=True)
    return [
        _word(8 + 2 * len(digits)),
        _word(len(digits) << 16 | before - 1),
        sign,
        *((first * _HALF + second).cast(pl.Int32) for first, second in pairs),
    ]

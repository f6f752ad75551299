"""The columns of a reading: their types, where they come from, and how texts become values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from headrace import exact
from headrace.errors import DataError, SchemaError
from headrace.flow import FILE, LINE
from headrace.frozen import frozen
from headrace.logical import Type
from headrace.schema import Field, Schema

if TYPE_CHECKING:
    from headrace.cursor import TextType
    from headrace.systems.files.paths import File

__all__ = [
    "WIDEST", "Column", "Converted", "Layout", "Reject", "Texts", "convert", "hive_value", "placed", "reading",
    "refuse_wide", "strict", "texts_of",
]  # fmt: skip

WIDEST = 10_000  # what DuckDB and Polars plan in seconds; a few times more takes them many minutes
_MAX_LENGTH = 2**31
_SAFE_LENGTH = 15
"""A number of so many characters has so few digits that the nearest float writes it back."""


@frozen
class Column:
    """One column of the result. `origin` is ``field`` (a field of the file), ``hive``, or the word of an added one
    (``file``, ``line``, ``modified``). `inferred` says from how many rows its type was inferred, None: declared.
    """

    name: str
    type: Type
    text: TextType | None = None
    inferred: int | None = None
    origin: str = "field"


@frozen
class Layout:
    """All columns, in order."""

    columns: tuple[Column, ...]
    nulls: tuple[str, ...] = ()
    decimal: str = "."

    @property
    def schema(self) -> Schema:
        """The columns and types, as they are seen from outside."""
        return Schema(tuple(Field(c.name, c.type) for c in self.columns))

    def judged(self, wanted: set[str] | None) -> tuple[Column, ...]:
        """The columns that a pass must convert: those wanted (None: all), and those whose type is declared."""
        return tuple(
            c
            for c in self.columns
            if wanted is None or c.name in wanted or (c.origin == "field" and c.inferred is None)
        )


def refuse_wide(columns: int, hint: str) -> None:
    """Asked before a row is looked at too: a grammar of so many fields, or a guess at each, takes minutes.

    Raises DataError.
    """
    if columns > WIDEST:
        raise DataError(f"the files have more than {WIDEST:,} columns", hint=hint)


def placed(layout: Layout) -> Layout:
    """The columns with each row's file and line in front."""
    file = Column(FILE, Type("string"), origin="file", inferred=0)
    line = Column(LINE, Type("int64"), origin="line", inferred=0)
    return Layout((file, line, *layout.columns), layout.nulls, layout.decimal)


@frozen
class Reject:
    """One record that could not be read."""

    file: str
    line: int
    row: str
    rules: tuple[str, ...]


@frozen
class Texts:
    """A piece of a file as texts: `frame` has a String column for each field that was asked for (None: rows without
    any), but for those in `values`, which hold the type's values already. `lines` gives each row's line, `raw` the
    texts of some rows as they stand in the file. `bad` are records that have no row. `size` is what the piece takes in
    the file, unpacked, in bytes.
    """

    frame: pl.DataFrame
    lines: Callable[[], pl.Series]
    raw: Callable[[Sequence[int]], list[str]]
    bad: tuple[Reject, ...] = ()
    size: int = 0
    values: Collection[str] = ()


@frozen
class Converted:
    """Rows with their values, and the records that have none; how many there were, and of how many bytes."""

    frame: pl.DataFrame
    rejects: tuple[Reject, ...] = ()
    read: int = 0
    size: int = 0


def reading(column: Column, layout: Layout) -> pl.Expr:
    """The values of a text column; null where its type cannot hold the text exactly."""
    text, how = texts_of(column.name, layout), column.text
    decimal = (how.decimal if how else None) or layout.decimal
    return exact.from_text(
        text,
        column.type,
        format=how.format if how else None,
        true=tuple((how.true if how else None) or ()),
        false=tuple((how.false if how else None) or ()),
        decimal=decimal,
    )


def _floats(texts: pl.Series) -> pl.Series | None:
    """Floats by Polars' own cast, where none of them has overflowed or underflowed; else None."""
    values = texts.cast(pl.Float64, strict=False)
    doubtful = texts.filter(values.is_infinite() | (values == 0)).unique()
    made = doubtful.to_frame("t").select(exact.from_text(pl.col("t"), Type("float64"))).to_series()
    return None if made.null_count() else values


def _values(texts: pl.DataFrame, column: Column, layout: Layout) -> pl.Series:
    """The values of a text column; null where its type cannot hold the text exactly."""
    if column.type.name == "string" and not layout.nulls:
        return texts[column.name]
    texts = texts[column.name].to_frame()  # a select costs as much as its frame is wide
    plain = column.type.name == "float64" and layout.decimal == "." and (column.text is None or not column.text.decimal)
    if plain and (fast := _floats(texts.select(texts_of(column.name, layout)).to_series())) is not None:
        return fast
    return texts.select(reading(column, layout).alias(column.name)).to_series()


def texts_of(name: str, layout: Layout) -> pl.Expr:
    """The texts of a column; those that mean null are null."""
    text = pl.col(name)
    return pl.when(~text.is_in(list(layout.nulls))).then(text) if layout.nulls else text


def strict(texts: pl.DataFrame, values: pl.DataFrame, column: Column) -> pl.DataFrame:
    """The values, null where an inferred type makes another value of a text than it is inferred from. A declared type
    may: it was said what the texts mean.
    """
    # the cheap questions first: they are asked of every value of a long file
    if column.type.name in ("int64", "float64"):
        return _strict_numbers(texts, values, column)
    return _strict_times(texts, values, column) if column.type.name == "datetime" else values


_TIMED, _TIMED_ZONED = len("2024-01-31T10:00"), len("2024-01-31T10+02:00") + 1
"""A text of so many characters has minutes."""


def _strict_times(texts: pl.DataFrame, values: pl.DataFrame, column: Column) -> pl.DataFrame:
    """A day must not become its midnight, nor an hour alone a time."""
    text, made = pl.col(column.name), pl.col("made")
    if not (texts[column.name].str.len_bytes() < (_TIMED if column.type.args[1] is None else _TIMED_ZONED)).any():
        return values
    both = pl.DataFrame([texts[column.name], values[column.name].alias("made")])
    timed = text.str.contains("^.{10}[T ]..:")
    return values.with_columns(both.select(pl.when(timed).then(made).alias(column.name)).to_series())


def _strict_numbers(texts: pl.DataFrame, values: pl.DataFrame, column: Column) -> pl.DataFrame:
    """A number must not lose leading zeros, a sign or digits; a word (``nan``, ``INF``) is none."""
    if column.type.name == "float64" and not (finite := values[column.name].is_finite()).all():
        values = values.with_columns(values[column.name].set(~finite, None))
    text, made = pl.col(column.name), pl.col("made")
    both = pl.DataFrame([texts[column.name], values[column.name].alias("made")])
    zero = text.str.starts_with("0") | text.str.starts_with("-0") | text.str.starts_with("+")
    long = text.str.len_bytes() > (_SAFE_LENGTH if column.type.name == "float64" else _MAX_LENGTH)
    if not both.select((zero | long).any()).item():
        return values
    padded = text.str.contains(r"^(?:\+|-?0[0-9]" + (")" if column.type.name == "float64" else "|-0$)"))
    if not both.select((padded | long).any()).item():
        return values
    short = text.str.contains(r"^-?[0.,]*[0-9.,]{1,15}0*$") | (text.str.len_bytes() <= _SAFE_LENGTH)
    whole = text.str.contains(r"^-?[0-9]+$") & (made.cast(pl.Int128, strict=False).cast(pl.String) == text)
    kept = whole | (_digits(made.cast(pl.String)) == _digits(text))
    exactly = ~padded & (short | kept) if column.type.name == "float64" else ~padded
    return values.with_columns(both.select(pl.when(exactly).then(made).alias(column.name)).to_series())


def _digits(number: pl.Expr) -> pl.Expr:
    """A number's significant digits: however its text has point and exponent (5.1e-05), they are the same."""
    return number.str.replace("[eE].*$", "").str.replace_all("[.,-]", "").str.strip_chars("0")


def convert(piece: Texts, layout: Layout, judged: tuple[Column, ...], file: File, fields: Collection[str]) -> Converted:
    """The rows of a piece with their values. `fields` are the columns that this file has.

    Rows that do not fit become rejects with their raw text.
    """
    present = [c for c in judged if c.origin == "field" and c.name in fields]
    texts = [c for c in present if c.name not in piece.values]
    values = pl.DataFrame(
        [piece.frame[c.name] if c.name in piece.values else _values(piece.frame, c, layout) for c in present]
    )
    for column in texts:
        if column.inferred is not None:
            values = strict(piece.frame, values, column)
    bad = _misfits(piece.frame, values, texts, layout)
    height = piece.frame.height
    rejects = list(piece.bad)
    keep: pl.Series | None = None
    if bad:
        keep, found = _rejects(piece, bad, present, file)
        rejects.extend(found)
    frame = _complete(values, judged, file, piece, height)
    if keep is not None:
        frame = frame.filter(keep)
    return Converted(frame, tuple(sorted(rejects, key=lambda r: r.line)), height + len(piece.bad), piece.size)


def _misfits(
    texts: pl.DataFrame, values: pl.DataFrame, present: Sequence[Column], layout: Layout
) -> dict[str, pl.Series]:
    """By column, which rows have a text and no value."""
    found = {}
    for column in present:
        if column.type.name == "string":
            continue
        lost = values[column.name].null_count() - texts[column.name].null_count()
        if lost or layout.nulls:
            told = texts[column.name].to_frame().select(texts_of(column.name, layout).is_not_null()).to_series()
            mask = told & values[column.name].is_null()
            if mask.any():
                found[column.name] = mask
    return found


def _rejects(
    piece: Texts, bad: Mapping[str, pl.Series], present: Sequence[Column], file: File
) -> tuple[pl.Series, list[Reject]]:
    broken = pl.Series([False]).new_from_index(0, piece.frame.height)
    for mask in bad.values():
        broken = broken | mask
    rows = broken.arg_true().to_list()
    lines = piece.lines()
    rules = {c.name: _rule(c) for c in present}
    rejects = [
        Reject(file.name, lines[row], text, tuple(rules[name] for name, mask in bad.items() if mask[row]))
        for row, text in zip(rows, piece.raw(rows), strict=True)
    ]
    return ~broken, rejects


def _rule(column: Column) -> str:
    if column.inferred is None:
        return f"{column.name}: not exactly {column.type}"
    declare = f'declare it: "types": {{"{column.name}": "string"}}'
    told = f"{column.name}: not exactly {column.type}, which was inferred"
    if not column.inferred:  # the table's column is of that type already
        return f"{told} by an earlier run; {declare}, and load the table anew: --full-refresh"
    return f'{told} from the first {column.inferred} rows; {declare}, or read all: "infer": "all"'


def _complete(values: pl.DataFrame, judged: Sequence[Column], file: File, piece: Texts, height: int) -> pl.DataFrame:
    """The judged columns in order; what the file does not have is null, what its name says is constant."""
    from headrace.systems.files.paths import hive_parts

    hive = hive_parts(file.name)
    made: list[pl.Series] = []
    for column in judged:
        dtype = column.type.polars()
        match column.origin:
            case "field" if column.name in values.columns:
                made.append(values[column.name])
                continue
            case "line":
                made.append(piece.lines().cast(dtype).alias(column.name))
                continue
            case "file":
                constant = pl.Series([file.name], dtype=pl.String)
            case "modified":
                constant = pl.Series([file.modified // 1000], dtype=pl.Int64).cast(dtype)
            case "hive":
                constant = hive_value(column, hive.get(column.name), file)
            case _:
                constant = pl.Series([None], dtype=dtype)
        made.append(constant.new_from_index(0, height).alias(column.name))
    return pl.DataFrame(made)


def hive_value(column: Column, text: str | None, file: File) -> pl.Series:
    """The value of a partition, a series of one. Raises SchemaError where its type cannot hold it."""
    layout = Layout((column,))
    frame = pl.DataFrame({column.name: [text]}, schema={column.name: pl.String})
    values = frame.select(reading(column, layout).alias(column.name))
    made = (values if column.inferred is None else strict(frame, values, column))[column.name]
    if text is not None and made[0] is None:
        raise SchemaError(
            f"file {file.name!r}: the folder's {column.name!r} is not exactly {column.type}",
            hint=f'declare it: "types": {{"{column.name}": "string"}}',
        )
    return made

r"""Values on their way into PostgreSQL: which type holds a logical one, and the text that COPY takes.

The form is COPY's own text format. It is the quickest of all that Polars can write, needs no quotes, and tells NULL
from an empty text and from any other (CSV before version 18 even ends at a line of ``\.``). A value that PostgreSQL's
type cannot hold is refused by its column's name; nothing is rounded or cut.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping

import polars as pl

from headrace.errors import DataError
from headrace.exact import to_text
from headrace.frozen import frozen
from headrace.logical import INTEGERS, Type, doubled, parse_type, widens
from headrace.schema import Field
from headrace.stream.drawing import said
from headrace.systems.postgres.moments import datetimes, durations, moments, whole
from headrace.systems.postgres.rounding import refuse_rounded

__all__ = [
    "SYSTEM",
    "Column",
    "accepts",
    "cut",
    "encoded",
    "fits",
    "natural",
    "physical",
    "refuse_longer",
    "refuse_nul",
    "takes",
]

SYSTEM = "postgres"
_PLAIN = {
    "int8": "smallint",
    "int16": "smallint",
    "int32": "integer",
    "int64": "bigint",
    "int128": "numeric(39,0)",
    "uint8": "smallint",
    "uint16": "integer",
    "uint32": "bigint",
    "uint64": "numeric(20,0)",
    "float32": "real",
    "float64": "double precision",
    "bool": "boolean",
    "string": "text",
    "binary": "bytea",
    "date": "date",
    "time": "time without time zone",
    "json": "json",  # jsonb would not keep the text as it stands
    "categorical": "text",
    "enum": "text",
    "null": "text",  # all NULL: any type can be made of it later
    "duration": "interval",
}
_TEXTS = ("string", "categorical", "enum", "json", "null")
_NATURAL = {
    "smallint": "int16",
    "integer": "int32",
    "bigint": "int64",
    "real": "float32",
    "double precision": "float64",
    "boolean": "bool",
    "bytea": "binary",
    "date": "date",
    "time without time zone": "time",
    "timestamp without time zone": "datetime(us)",
    "timestamp with time zone": "datetime(us, UTC)",
    "json": "json",
    "jsonb": "json",
    "oid": "uint32",
}
_ROUNDED = re.compile(r"(time|timestamp)\((\d)\) (with(?:out)? time zone)")
_UNBOUNDED = "numeric"
_NUMBERS = (*INTEGERS, "decimal")
_WHOLE = ("smallint", "integer", "bigint")
_SAID_TOO_LONG = ("character", "bit")
_CUTTING = re.compile(r'"char"|name|money|interval .+')
_LIMITED = re.compile(r"character(?: varying)?\((\d+)\)((?:\[\])?)")
_PADDED = "character("
_NOT_IN_ARRAYS = ("list", "array", "struct", "null", "duration")
_DIGITS_MAX = 38
_BLOCK_BYTES = 1 << 20
_SPECIAL = r"[\\\t\n\r]"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def physical(field: Field) -> str:
    """The PostgreSQL type that holds every value of the column, as ``format_type`` spells it: its origin, where that is
    PostgreSQL's own.
    """
    system, _, origin = (field.origin or "").partition(" ")
    return origin if system == SYSTEM and origin else _held(field.type)


def _held(type: Type) -> str:
    match type.name, type.args:
        case "decimal", (precision, scale):
            return f"numeric({precision},{scale})"
        case "datetime", (_, None):
            return "timestamp without time zone"
        case "datetime", _:
            return "timestamp with time zone"
        case (("list" | "array"), (inner, *_)) if inner.name not in _NOT_IN_ARRAYS:
            return f"{_held(inner)}[]"
        case (("list" | "array" | "struct"), _):
            return "json"  # exact: numbers keep their digits
    return _PLAIN[type.name]


def natural(held: str) -> Type:
    """The logical type of a column of this PostgreSQL type; text, where there is no other that is exact."""
    if held in _NATURAL:
        return parse_type(_NATURAL[held])
    if found := _ROUNDED.fullmatch(held):
        return _rounded(_NATURAL.get(f"{found[1]} {found[3]}", ""), int(found[2]))
    if held.endswith("[]") and (inner := natural(held[:-2])).name != "json":
        return Type("list", (inner,))
    if held.startswith("numeric("):
        precision, scale = (int(part) for part in held[len("numeric(") : -1].split(","))
        if precision <= _DIGITS_MAX and 0 <= scale <= precision:
            return Type("decimal", (precision, scale))
    return Type("string")


def _rounded(natural: str, digits: int) -> Type:
    """The logical type of one that rounds what has more digits than so many: it takes nothing finer."""
    if natural and digits == 6:  # noqa: PLR2004  # microseconds
        return parse_type(natural)
    if natural.startswith("datetime") and digits == 3:  # noqa: PLR2004  # milliseconds
        return parse_type(natural.replace("us", "ms"))
    return Type("string")


def takes(held: Field, rows: Field) -> bool:
    """Whether a column takes such rows exactly, though no logical type says so: a numeric of any size any number."""
    return held.origin == f"{SYSTEM} {_UNBOUNDED}" and rows.type.name in _NUMBERS


@frozen
class Column:
    """A column of a table: its name, its PostgreSQL type, the logical type, and who gives it a value.

    `generated`: always the server. `filled`: the server, where rows do not (a default, an identity). `over` is what a
    domain, or an array of one, is over: it is that type which takes or rounds a value (empty: it is none).
    """

    name: str
    held: str
    type: Type
    generated: bool = False
    filled: bool = False
    identity: bool = False
    over: str = ""

    @property
    def own(self) -> bool:
        """Whether rows need not bring it."""
        return self.generated or self.filled


def fits(rows: Field, column: Column) -> bool:
    """Whether rows of this field go into the column exactly, or are refused value by value by the server's own input
    function.
    """
    if rows.origin == f"{SYSTEM} {column.held}" or _held(rows.type) == column.held:
        return True
    if rows.type.name in _TEXTS and column.type.name in _TEXTS:
        return _says_no(column.over or column.held)
    items = (column.over or column.held).removesuffix("[]")
    if rows.type == column.type and _of_texts(rows.type) and not _says_no(items):
        return False
    held = Field(column.name, column.type, f"{SYSTEM} {column.held}")
    return widens(rows.type, column.type) or takes(held, rows)


def accepts(column: Column, rows: Type) -> bool:
    """Whether values of this type go into the column exactly, or are refused one by one by the server. `fits` asks it
    of all values that the type has, this of those that come: a large number does not go into an ``integer``.
    """
    held = column.held
    scale = int(held[:-1].rpartition(",")[2]) if re.fullmatch(r"numeric\(.*\)", held) else None
    match rows.name, rows.args:
        case name, _ if name in INTEGERS and (held in _WHOLE or (scale is not None and scale >= 0)):
            return True
        case "decimal", (_, places) if scale is not None:
            return bool(scale >= places)
        case name, _ if name in _TEXTS:
            return _says_no(column.over or held)
        case (("list" | "array"), (inner, *_)) if held.endswith("[]") and inner.name not in _NOT_IN_ARRAYS:
            return accepts(Column(column.name, held[:-2], natural(held[:-2]), over=column.over), inner)
        case (("list" | "array" | "struct"), _) if held == "jsonb":
            return _held(rows) == "json"
    return fits(Field(column.name, rows), column)


def _says_no(held: str) -> bool:
    """Whether the type's input function, or `rounding`, refuses a text that it cannot hold. With a precision most
    round it.
    """
    return ("(" not in held and _CUTTING.fullmatch(held) is None) or held.startswith(_SAID_TOO_LONG)


def _of_texts(type: Type) -> bool:
    return type.name in ("list", "array") and type.args[0].name in _TEXTS


def encoded(
    frames: Iterator[pl.DataFrame], columns: Mapping[str, tuple[Type, Column]], *, ordinal: bool
) -> Iterator[tuple[bytes, int]]:
    """Blocks of about a megabyte for COPY … FROM STDIN, each with its number of rows. `columns` are, for each column
    of the frames, the logical type of its values and the column that takes them. `ordinal`: the rows' number, from 0,
    comes as one more column in front.

    Raises DataError that names the column which cannot hold a value.
    """
    writers = {name: _writer(name, type, column) for name, (type, column) in columns.items()}
    count = 0
    for frame in frames:
        for rows in cut(frame):
            texts = [write(rows[name]) for name, write in writers.items()]
            if ordinal:
                texts.insert(0, pl.int_range(count, count + rows.height, eager=True).alias("_headrace_ordinal"))
            count += rows.height
            yield _block(pl.DataFrame(texts), writers), rows.height


def cut(frame: pl.DataFrame, size: int = _BLOCK_BYTES) -> Iterator[pl.DataFrame]:
    """The rows in parts of about so many bytes."""
    step = max(1, int(frame.height * size / max(1, sum(map(_bytes, frame.get_columns())))))
    return frame.iter_slices(step)


def _bytes(values: pl.Series) -> int:
    """About so many bytes of text. Texts that are the same may share their place in memory: the estimate would too."""
    if values.dtype == pl.String:
        return int(values.str.len_bytes().sum())
    return int(values.bin.size().sum()) * 2 if values.dtype == pl.Binary else int(values.estimated_size())


def _block(rows: pl.DataFrame, writers: Mapping[str, object]) -> bytes:
    out = io.BytesIO()
    try:
        rows.write_csv(
            out,
            include_header=False,
            separator="\t",
            quote_style="never",
            null_value="\\N",
            time_format="%H:%M:%S%.6f",
            datetime_format="%Y-%m-%d %H:%M:%S%.6f",
        )
    except pl.exceptions.PanicException as error:
        raise said(error) from None
    block = out.getvalue()
    if b"\0" in block:
        for name in writers:
            if rows[name].dtype == pl.String:
                refuse_nul(name, rows[name])
    return block


def refuse_nul(name: str, texts: pl.Series) -> None:
    """Raises DataError for a text that has the character NUL in it."""
    if texts.str.contains("\0", literal=True).any():
        raise DataError(
            f"column {name!r}: a text has the character NUL in it, which PostgreSQL does not take",
            hint="take it out in a transform: replace(column, chr(0), '')",
            details={"column": name},
        )


_Write = Callable[[pl.Series], pl.Series]


def _writer(name: str, type: Type, column: Column) -> _Write:
    """From a column's values to what Polars writes as COPY's text, or that text itself."""
    kind = doubled(type) if type.name in ("list", "array", "struct") else type
    if type != column.type and widens(type, column.type) and type.name in ("float32", "float64", "decimal"):
        kind = column.type
    # a float32's own digits would be another float64, in JSON too, whose column may grow
    plain = _plain(name, kind)
    held, texts = column.over or column.held, type.name in _TEXTS or _of_texts(type)

    def write(values: pl.Series) -> pl.Series:
        refuse_longer(name, values, held)
        made = plain(values if kind == type else values.cast(kind.polars())).alias(name)
        if texts and made.dtype == pl.String:
            refuse_rounded(name, made, held)
        if made.dtype != pl.String or not made.str.contains(_SPECIAL).any():
            return made
        return made.str.replace_many(_ESCAPES)

    return write


def refuse_longer(name: str, values: pl.Series, held: str) -> None:
    """Raises DataError for a text of more characters than the type takes, of which the server would cut blanks at the
    end without a word, and for one whose blanks at the end ``character(n)`` would not tell from its own: of these a
    text has all or none. Of an array's own text (not a list's items) the server is the judge.
    """
    if (limited := _LIMITED.fullmatch(held)) is None:
        return
    most, items = int(limited[1]), bool(limited[2])
    texts = values.explode() if items and isinstance(values.dtype, pl.List) else values
    if texts.dtype != pl.String or (items and texts is values):
        return
    length = texts.str.len_chars()
    if (length > most).any():
        raise DataError(
            f"column {name!r}: a text has more than the {most} characters that the table's column takes",
            hint="cut it in a transform, or ALTER the column",
            details={"column": name},
        )
    if held.startswith(_PADDED) and (texts.str.ends_with(" ") & (length < most)).any():
        raise DataError(
            f"column {name!r}: a text ends in a blank, and the table's column fills all texts to {most} with blanks",
            hint="cut its blanks in a transform: rtrim(column); or ALTER the column to text",
            details={"column": name},
        )


def _plain(name: str, type: Type) -> _Write:  # noqa: PLR0911  # one case for each type
    """The values as PostgreSQL's input functions read them: texts, or numbers whose text is theirs."""
    match type.name:
        case "date":
            return lambda values: moments(name, values, values.to_physical(), 1)
        case "datetime":
            return lambda values: datetimes(name, values, type)
        case "time":
            return lambda values: (whole(name, values.to_physical(), 1_000) * 1_000).cast(pl.Time)
        case "duration":
            return lambda values: durations(name, values, type)
        case "binary":
            return lambda values: "\\x" + values.bin.encode("hex")
        case "categorical" | "enum" | "null":
            return lambda values: values.cast(pl.String)
        case "list" | "array" if _held(type).endswith("[]"):
            return lambda values: _arrays(name, values, type)
        case "list" | "array" | "struct":
            return lambda values: values.to_frame("v").select(to_text(pl.col("v"), type)).to_series()
    return lambda values: values


def _arrays(name: str, values: pl.Series, type: Type) -> pl.Series:
    """Lists as array literals."""
    inner: Type = type.args[0]
    plain = _plain(name, inner)
    bare = inner.name not in (*_TEXTS, "binary")

    def items(parts: pl.Series) -> pl.Series:
        texts = _written(plain(parts))
        if bare:
            return texts
        return '"' + texts.str.replace_many({"\\": "\\\\", '"': '\\"'}) + '"'

    lists = values.arr.to_list() if type.name == "array" else values
    each = pl.element().map_batches(items, return_dtype=pl.String).fill_null("NULL")
    return "{" + lists.list.eval(each).list.join(",") + "}"


def _written(values: pl.Series) -> pl.Series:
    """What Polars would write into the file, as texts."""
    match values.dtype:
        case pl.Datetime():
            return values.dt.strftime("%Y-%m-%d %H:%M:%S%.6f")
        case pl.Time():
            return values.dt.strftime("%H:%M:%S%.6f")
    return values.cast(pl.String)

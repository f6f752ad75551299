"""Exact conversion: a value becomes the same value of another type, or null. Never a rounded or a shifted one.

Four expressions. `from_text` reads text, `to_text` writes text that `from_text` reads back to the same value, `lasting`
too where the type may have grown meanwhile, and `cast` goes from type to type. All give null for null, and null for
what the target cannot hold exactly, so that ``x.is_not_null() & converted.is_null()`` marks the rows that do not fit.
"""

from __future__ import annotations

from functools import partial

import polars as pl

from headrace.errors import ConfigError, SchemaError
from headrace.exact.text import read_text, write_text
from headrace.exact.time import check_format
from headrace.logical import FLOATS, INTEGERS, PER_SECOND, Type, doubled, widens
from headrace.schema import Schema

__all__ = ["cast", "from_text", "lasting", "newest", "to_text"]

_TEXTS = ("string", "json", "categorical", "enum")


def from_text(
    expr: pl.Expr,
    type: Type,
    *,
    format: str | None = None,
    true: tuple[str, ...] = (),
    false: tuple[str, ...] = (),
    decimal: str = ".",
) -> pl.Expr:
    r"""The values that the texts of `expr` (String) write, as `type`; null where the type cannot hold one exactly.

    No spaces around, no underscores. A float takes the nearest value; overflow to infinity and underflow to zero
    are refused. A decimal refuses digits beyond its scale that are not zero. Dates and times are ISO 8601, or
    `format` (strptime); more sub-second digits than the unit holds are refused. A zone-aware datetime needs an
    offset in the text, or a `format` without one, and then the text is local time in the type's zone (a local time
    that the zone skips or repeats is refused). `true` and `false` are the texts of a bool (both empty: ``true`` and
    ``false`` in any case). `decimal` is the decimal point. Binary is hexadecimal, with or without a leading
    ``\x``. Lists, arrays and structs are JSON; `format` and the others reach their items.

    Raises ConfigError for a `format` that cannot work.
    """
    if format is not None:
        check_format(type, format)
    match type.name:
        case "string":
            return expr
        case name if name in INTEGERS or name in ("categorical", "enum"):
            return expr.cast(type.polars(), strict=False)
    read = partial(read_text, type=type, format=format, true=true, false=false, decimal=decimal)
    return expr.map_batches(read, return_dtype=type.polars(), is_elementwise=True)


def to_text(expr: pl.Expr, type: Type) -> pl.Expr:
    """The values of `expr` (of `type`) as text (String) that `from_text` reads back to the same values.

    Floats by their shortest round trip, ``NaN``, ``inf``; a zone-aware datetime in UTC; binary as hexadecimal; lists,
    arrays and structs as JSON.
    """
    if type.name in (*INTEGERS, *_TEXTS, *FLOATS, "bool", "decimal", "null"):
        return expr.cast(pl.String)
    return expr.map_batches(partial(write_text, type=type), return_dtype=pl.String, is_elementwise=True)


def lasting(expr: pl.Expr, type: Type) -> pl.Expr:
    """As `to_text`, for text that outlives the column's type: a float32 at any depth is spelled as the float64 that it
    is. Its own shorter text would be another number once the column has grown; this one is the same number in both.
    """
    wide = doubled(type)
    return to_text(expr if wide == type else expr.cast(wide.polars()), wide)


def newest(rows: pl.LazyFrame, column: str, schema: Schema) -> str | None:
    """The greatest value of a column of `rows` (with this logical schema) as `to_text` writes it; None where there is
    none. NaN is the greatest float, as in every comparison.

    Raises ConfigError for a column that is not there.
    """
    if column not in schema:
        raise ConfigError(
            f"the table has no column {column!r}", hint=f"check the cursor's column; it has: {', '.join(schema.names)}"
        )
    type = schema[column]
    greatest = pl.col(column).nan_max() if type.name in FLOATS else pl.col(column).max()
    text: str | None = rows.select(greatest).select(to_text(pl.col(column), type)).collect().item()
    return text


def cast(expr: pl.Expr, old: Type, new: Type) -> pl.Expr:
    """The values of `expr` (of type `old`) as `new`; null where `new` cannot hold a value exactly.

    Floats and decimals meet in their shortest decimal text: 0.1 into decimal(12,2) is 0.10, and goes back to 0.1.
    A datetime keeps its instant when its zone changes.

    Raises SchemaError for a pair that means nothing: a naive datetime into a zone-aware one, bytes into a number.
    """
    if old == new or (new.name == "string" and old.name == "json"):
        return expr
    if old.name == "null":
        return expr.cast(new.polars())
    if old.name in ("string", "json"):
        return from_text(expr, new)
    if new.name == "string":
        return to_text(expr, old)
    if widens(old, new) and old.name not in ("list", "array", "struct"):
        return expr.cast(new.polars())
    made = _number(expr, old, new) if _is_number(old) else _other(expr, old, new)
    if made is None:
        raise SchemaError(
            f"{old} cannot become {new}",
            hint="convert it in a transform, where you say how"
            if old.name != "datetime" or new.name != "datetime"
            else "one has a time zone and the other has none: say in a transform which zone the naive one means",
        )
    return made


def _is_number(type: Type) -> bool:
    return type.name in (*INTEGERS, *FLOATS, "decimal", "bool")


def _number(expr: pl.Expr, old: Type, new: Type) -> pl.Expr | None:
    target = new.polars()
    if not _is_number(new):
        return None
    if {old.name, new.name} & {"bool"}:
        if new.name != "bool":
            return expr.cast(target) if new.name in INTEGERS else None
        return pl.when(expr.is_in([0, 1])).then(expr == 1) if old.name in INTEGERS else None
    if old.name in INTEGERS and new.name in INTEGERS:
        return expr.cast(target, strict=False)
    if old.name in FLOATS and new.name == "decimal":
        return from_text(to_text(expr, old), new)
    if old.name == "decimal" and new.name in FLOATS:
        there = from_text(to_text(expr, old), new)
        return _if_same(there, from_text(to_text(there, new), old), expr)
    there = expr.cast(target, strict=False)
    return _if_same(there, there.cast(old.polars(), strict=False), expr)


def _if_same(there: pl.Expr, back: pl.Expr, expr: pl.Expr) -> pl.Expr:
    return pl.when(back == expr).then(there)


def _other(expr: pl.Expr, old: Type, new: Type) -> pl.Expr | None:
    match old.name, new.name:
        case (("categorical" | "enum"), ("categorical" | "enum" | "json")):
            return from_text(expr.cast(pl.String), new)
        case "date", "datetime" if new.args[1] is None:
            there = expr.cast(new.polars(), strict=False)
            return _if_same(there, there.cast(pl.Date), expr)
        case "datetime", "date" if old.args[1] is None:
            there = expr.cast(pl.Date)
            return _if_same(there, there.cast(old.polars(), strict=False), expr)
        case "datetime", "datetime" if (old.args[1] is None) == (new.args[1] is None):
            return _ticks(expr, old.args[0], new.args[0]).cast(new.polars())
        case "duration", "duration":
            return _ticks(expr, old.args[0], new.args[0]).cast(new.polars())
        case (("list" | "array" | "struct"), ("list" | "array" | "struct")):
            return _nested(expr, old, new)
    return None


def _ticks(expr: pl.Expr, old: str, new: str) -> pl.Expr:
    """Counts of one unit as counts of another; null where there is a remainder or an overflow."""
    count = expr.to_physical()
    if PER_SECOND[new] >= PER_SECOND[old]:
        more = count.cast(pl.Int128) * (PER_SECOND[new] // PER_SECOND[old])
        return more.cast(pl.Int64, strict=False)
    ratio = PER_SECOND[old] // PER_SECOND[new]
    return pl.when(count % ratio == 0).then(count // ratio)


def _nested(expr: pl.Expr, old: Type, new: Type) -> pl.Expr | None:
    match old.name, new.name:
        case (("list" | "array"), ("list" | "array")):
            cast(pl.element(), old.args[0], new.args[0])
        case "struct", "struct":
            before, after = dict(old.args), dict(new.args)
            if set(before) != set(after):
                return None
            for name, inner in after.items():
                cast(pl.element(), before[name], inner)
        case _:
            return None
    convert = partial(_convert_nested, old=old, new=new)
    return expr.map_batches(convert, return_dtype=new.polars(), is_elementwise=True)


def _convert_nested(values: pl.Series, old: Type, new: Type) -> pl.Series:
    """Item by item; one item that does not fit makes the whole value null."""
    if old.name == "struct":
        before = dict(old.args)
        parts = [_convert(values.struct.field(n), before[n], t).alias(n) for n, t in new.args]
        fits = values.is_not_null()
        for part in parts:
            fits = fits & (part.is_null() == values.struct.field(part.name).is_null())
        return pl.select(pl.when(fits).then(pl.struct(parts)).alias(values.name)).to_series()
    lists = values.arr.to_list() if old.name == "array" else values
    if new.name == "array":
        width = new.args[1]
        lists = pl.select(pl.when(lists.list.len() == width).then(lists)).to_series()
    frame = pl.DataFrame({"l": lists}).with_row_index("i")
    items = frame.filter(pl.col("l").list.len() > 0).explode("l")
    made = _convert(items["l"], old.args[0], new.args[0])
    bad = items["i"].filter(made.is_null() & items["l"].is_not_null())
    grouped = items.select("i").with_columns(made.alias("m")).group_by("i", maintain_order=True).agg("m")
    empty = pl.lit([], dtype=pl.List(new.args[0].polars()))
    found = frame.join(grouped, on="i", how="left", maintain_order="left").select(
        pl.when(pl.col("l").is_null() | pl.col("i").is_in(bad.implode()))
        .then(None)
        .when(pl.col("l").list.len() == 0)
        .then(empty)
        .otherwise(pl.col("m"))
        .cast(new.polars())
        .alias(values.name)
    )
    return found.to_series()


def _convert(values: pl.Series, old: Type, new: Type) -> pl.Series:
    return values.to_frame("v").select(cast(pl.col("v"), old, new)).to_series()

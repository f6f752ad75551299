"""Text to values and values to text, a column at a time, exactly. `headrace.exact` is the way in."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.exact.time import arrow_cast, read_duration, read_moment, write_duration, write_moment
from headrace.logical import FLOATS, INTEGERS, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["read_text", "write_text"]

_NUMBERS = (*INTEGERS, "decimal")
_PLAIN_DECIMAL = 38
_NUMERAL = re.compile(r"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?[0-9]{1,9}))?", re.ASCII)


def read_text(  # noqa: C901, PLR0911  # one case for each type
    texts: pl.Series,
    type: Type,
    *,
    format: str | None = None,
    true: tuple[str, ...] = (),
    false: tuple[str, ...] = (),
    decimal: str = ".",
) -> pl.Series:
    """The values that `texts` (String) write, as `type`; null where it cannot hold one exactly."""
    if decimal != "." and type.name in (*FLOATS, "decimal"):
        texts = _with_point(texts, decimal)
    match type.name:
        case "float32" | "float64":
            return _floats(texts, type)
        case "decimal":
            return _decimals(texts, type)
        case "bool":
            return _bools(texts, true, false)
        case "date" | "time" | "datetime":
            return read_moment(texts, type, format)
        case "duration":
            return read_duration(texts, type.args[0])
        case "binary":
            return texts.str.replace(r"^\\x", "").str.decode("hex", strict=False)
        case "json":
            return _jsons(texts)
        case "list" | "array" | "struct":
            read = partial(read_text, format=format, true=true, false=false, decimal=decimal)
            return _nested(texts, type, read)
        case "null":
            return pl.Series(texts.name, [None] * len(texts), dtype=pl.Null)
    return texts.cast(type.polars(), strict=False)


def _with_point(texts: pl.Series, decimal: str) -> pl.Series:
    text = pl.col("t")
    plain = pl.when(~text.str.contains(".", literal=True)).then(text.str.replace_all(decimal, ".", literal=True))
    return texts.to_frame("t").select(plain.alias(texts.name)).to_series()


def _floats(texts: pl.Series, type: Type) -> pl.Series:
    values = texts.cast(type.polars(), strict=False)
    doubtful = values.is_infinite() | (values == 0)
    if not doubtful.any():
        return values
    # an infinity that has a digit has overflowed; a zero that has a digit other than 0 has underflowed
    text, value = pl.col("t"), pl.col("v")
    lost = (value.is_infinite() & text.str.contains("[0-9]")) | ((value == 0) & text.str.contains("^[^eE]*[1-9]"))
    frame = pl.DataFrame({"t": texts, "v": values})
    return frame.select(pl.when(~lost.fill_null(value=False)).then(value).alias(texts.name)).to_series()


def _decimals(texts: pl.Series, type: Type) -> pl.Series:
    import pyarrow as pa

    precision, scale = type.args
    text = pl.col("t")
    # Arrow reads beyond its tables when it must drop more than 38 digits, and makes 0 of .001E-80
    doubtful = (
        texts.to_frame("t").select(text.str.contains("[eE]") | (text.str.len_bytes() > _PLAIN_DECIMAL)).to_series()
    )
    plain = texts if not doubtful.any() else texts.set(doubtful, None)
    like = rf"^[+-]?0*[0-9]{{0,{precision - scale}}}(?:\.[0-9]{{0,{scale}}}0*)?$"
    made = arrow_cast(plain, pa.decimal128(precision, scale), like=like)
    if plain is texts:
        return made
    found = {t: _decimal(t, precision, scale) for t in texts.filter(doubtful).unique().to_list()}
    slow = [found.get(t) if d else None for t, d in zip(texts.to_list(), doubtful.to_list(), strict=True)]
    both = pl.DataFrame({"made": made, "slow": pl.Series(slow, dtype=type.polars())})
    return both.select(pl.coalesce("made", "slow").alias(texts.name)).to_series()


def _decimal(text: str, precision: int, scale: int) -> Decimal | None:
    """The number, where `precision` digits, `scale` of them after the point, hold it exactly."""
    if not (match := _NUMERAL.fullmatch(text)):
        return None
    sign, whole, fraction, exponent = match[1], match[2] or "", match[3] or match[4] or "", int(match[5] or "0")
    digits = (whole + fraction).lstrip("0")
    exponent -= len(fraction)
    significant = digits.rstrip("0")
    exponent += len(digits) - len(significant)
    if not significant:
        return Decimal(0)
    if exponent < -scale or len(significant) + exponent > precision - scale:
        return None
    return Decimal((sign == "-", tuple(int(d) for d in significant), exponent))


def _bools(texts: pl.Series, true: Sequence[str], false: Sequence[str]) -> pl.Series:
    text = pl.col("t")
    if not true and not false:
        text, true, false = text.str.to_lowercase(), ("true",), ("false",)
    made = pl.when(text.is_in(list(true))).then(True).when(text.is_in(list(false))).then(False)
    return texts.to_frame("t").select(made.alias(texts.name)).to_series()


def _jsons(texts: pl.Series) -> pl.Series:
    """Valid JSON text, as it is."""
    good = [t if t is not None and _loads(t) is not _BAD else None for t in texts.to_list()]
    return pl.Series(texts.name, good, dtype=pl.String)


class _Text(str):
    """A JSON number or literal as it was written."""

    __slots__ = ()


_BAD: Any = object()


def _loads(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    try:
        return json.loads(text, parse_int=_Text, parse_float=_Text, parse_constant=_refuse, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return _BAD


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; one that has a key twice says two things."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError
    return made


def _nested(texts: pl.Series, type: Type, read: Callable[..., pl.Series]) -> pl.Series:
    parsed = [None if t is None else _loads(t, _once) for t in texts.to_list()]
    # JSON's null is no value of the column, and not the column's null either
    values = [_BAD if v is None and t is not None else v for v, t in zip(parsed, texts.to_list(), strict=True)]
    made, bad = _build(values, type, read)
    frame = pl.DataFrame({"m": made, "bad": pl.Series(bad, dtype=pl.Boolean)})
    return frame.select(pl.when(~pl.col("bad")).then(pl.col("m")).alias(texts.name)).to_series()


def _build(values: list[Any], type: Type, read: Callable[..., pl.Series]) -> tuple[pl.Series, list[bool]]:
    """A column of `type` from parsed JSON, and which of its rows do not fit (their value is then any)."""
    match type.name:
        case "list" | "array":
            return _build_lists(values, type, read)
        case "struct":
            return _build_structs(values, type, read)
    texts = [_leaf(v, type) for v in values]
    made = read(pl.Series([None if t is _BAD else t for t in texts], dtype=pl.String), type)
    return made, [t is _BAD or (t is not None and lost) for t, lost in zip(texts, made.is_null(), strict=True)]


def _leaf(value: Any, type: Type) -> Any:
    if value is None or value is _BAD:
        return value
    if isinstance(value, bool):
        return ("true" if value else "false") if type.name == "bool" else _BAD
    if isinstance(value, _Text):
        return str(value) if type.name in (*_NUMBERS, *FLOATS) else _BAD
    return value if isinstance(value, str) else _BAD


def _build_lists(values: list[Any], type: Type, read: Callable[..., pl.Series]) -> tuple[pl.Series, list[bool]]:
    inner, width = type.args[0], type.args[1] if type.name == "array" else None
    bad = [v is not None and (not isinstance(v, list) or width not in (None, len(v))) for v in values]
    lists = [None if b else v for v, b in zip(values, bad, strict=True)]
    places = [i for i, v in enumerate(lists) for _ in v or ()]
    made, lost = _build([x for v in lists for x in v or ()], inner, read)
    for place, is_lost in zip(places, lost, strict=True):
        bad[place] = bad[place] or is_lost
    groups = (
        pl.DataFrame({"i": pl.Series(places, dtype=pl.UInt32), "m": made}).group_by("i", maintain_order=True).agg("m")
    )
    empty = pl.lit([], dtype=pl.List(inner.polars()))
    frame = pl.DataFrame({"null": pl.Series([v is None for v in lists], dtype=pl.Boolean)}).with_row_index("i")
    column = frame.join(groups, on="i", how="left", maintain_order="left").select(
        pl.when(pl.col("null")).then(None).otherwise(pl.coalesce("m", empty)).cast(pl.List(inner.polars()))
    )
    found = column.to_series()
    return (found.cast(type.polars()) if width is not None else found), bad


def _build_structs(values: list[Any], type: Type, read: Callable[..., pl.Series]) -> tuple[pl.Series, list[bool]]:
    names = {name for name, _ in type.args}
    bad = [v is not None and not (isinstance(v, dict) and names.issuperset(v)) for v in values]
    rows = [None if b else v for v, b in zip(values, bad, strict=True)]
    columns = []
    for name, inner in type.args:
        made, lost = _build([None if r is None else r.get(name) for r in rows], inner, read)
        columns.append(made.alias(name))
        bad = [b or is_lost for b, is_lost in zip(bad, lost, strict=True)]
    null = pl.Series([r is None for r in rows], dtype=pl.Boolean)
    return pl.select(pl.when(~null).then(pl.struct(columns))).to_series(), bad


def write_text(values: pl.Series, type: Type) -> pl.Series:
    """`values` (of `type`) as text that `read_text` reads back to the same values."""
    match type.name:
        case "date" | "time" | "datetime":
            return write_moment(values, type)
        case "duration":
            return write_duration(values, type.args[0])
        case "binary":
            return values.bin.encode("hex")
        case "list" | "array" | "struct":
            return pl.Series(values.name, _dumps(values, type), dtype=pl.String)
    return values.cast(pl.String)


def _dumps(values: pl.Series, type: Type) -> list[str | None]:
    """Each value as JSON text, None for null."""
    match type.name:
        case "list" | "array":
            lists = values.arr.to_list() if type.name == "array" else values
            lengths = lists.list.len().to_list()
            full = lists.filter(lists.list.len() > 0)
            items = iter(_dumps(full.explode(), type.args[0]) if len(full) else ())
            return [
                None if n is None else "[" + ", ".join(next(items) or "null" for _ in range(n)) + "]" for n in lengths
            ]
        case "struct":
            names = [json.dumps(name, ensure_ascii=False) for name, _ in type.args]
            fields = [_dumps(values.struct.field(n), t) for n, t in type.args]
            rows = zip(*fields, strict=True) if fields else ((),) * len(values)
            return [
                None if null else "{" + ", ".join(f"{n}: {v or 'null'}" for n, v in zip(names, row, strict=True)) + "}"
                for row, null in zip(rows, values.is_null(), strict=True)
            ]
    bare = type.name in (*_NUMBERS, "bool")
    return [
        None if t is None else t if bare else json.dumps(t, ensure_ascii=False)
        for t in write_text(values, type).to_list()
    ]

"""What PyArrow's reader does not decode: the texts of arrays and of bytes.

``{1,NULL,3}``: a text is in quotes where it must be, with backslashes before quotes and backslashes. Arrays of more
dimensions, or with other bounds than from 1 on, are no lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import polars as pl
import pyarrow as pa

from headrace.logical import Type

__all__ = ["decoded"]

_ITEM = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}]+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_TEXTS = ("string", "json")

Convert = Callable[[pl.Series, Type], pl.Series | None]


def decoded(texts: pl.Series, type: Type, convert: Convert) -> pl.Series | None:
    r"""Texts of a binary column, ``\x00ff``, as bytes, and those of arrays as lists; all others as they are. None where
    an array is no such list. `convert` reads the items.
    """
    if type.name == "binary":
        return texts.str.slice(2).str.decode("hex")
    return _lists(texts, type, convert) if type.name == "list" else texts


def _lists(texts: pl.Series, type: Type, convert: Convert) -> pl.Series | None:
    (item,) = type.args
    if (texts.str.starts_with("[") | texts.str.starts_with("{{")).any():
        return None
    if item.name in _TEXTS and texts.str.contains('"', literal=True).any():
        return pl.Series(texts.name, [_split(t) for t in texts.to_list()], dtype=pl.List(pl.String))
    body = texts.str.slice(1, texts.str.len_chars().cast(pl.Int64) - 2)
    body = body if item.name in _TEXTS else body.str.replace_all(r'["\\]', "")
    rows = body.str.split(",").to_frame("rows").with_columns(empty=body == "")
    split = rows.select(pl.when("empty").then(pl.lit([], dtype=pl.List(pl.String))).otherwise("rows")).to_series()
    arrow = split.to_arrow()
    items = pl.Series(arrow.values, dtype=pl.String)
    items = items.to_frame("i").select(pl.when(pl.col("i") != "NULL").then("i")).to_series()
    made = _items(items, item, convert)
    if made is None:
        return None
    nulls = arrow.is_null() if arrow.null_count else None
    whole = pa.LargeListArray.from_arrays(arrow.offsets, made.to_arrow(), mask=nulls)
    return pl.Series(texts.name, whole, dtype=type.polars())


def _items(items: pl.Series, type: Type, convert: Convert) -> pl.Series | None:
    if type.name in _TEXTS:
        return items
    if type.name == "binary":
        return items.str.slice(1).str.decode("hex")
    return convert(items, type)


def _split(text: str | None) -> list[str | None] | None:
    if text is None:
        return None
    found: list[str | None] = []
    for item in _ITEM.finditer(text, 1):
        if item[1] is not None:
            found.append(_ESCAPED.sub(r"\1", item[1]))
        else:
            found.append(None if item[2] == "NULL" else item[2])
    return found

"""The texts with which Polars' own CSV parser is trusted: of each type, the shape of those that it reads exactly.

Its parser of numbers, decimals, booleans and dates makes values while it splits fields, which costs less than texts
that are converted later. It is lenient, though: it rounds a decimal, drops leading zeros, and lets a float overflow.
So the regex that proves a block's records proves their fields' shapes too, and a block that has any other text goes
the careful way. A shape holds fewer texts than a type does, never more; the two ways give the same values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from headrace.frozen import frozen

if TYPE_CHECKING:
    import polars as pl

    from headrace.systems.files.layout import Column, Layout

__all__ = ["Shape", "shapes"]

_INTEGERS = {"int8": 2, "int16": 4, "int32": 9, "int64": 18, "uint8": 2, "uint16": 4, "uint32": 9, "uint64": 19}
"""How many digits of any value fit."""
# at most 15 digits in all: the nearest float then writes them back, as `layout.strict` asks of an inferred one
_FLOAT = (
    r"-?(?:0|[1-9][0-9]{0,7})(?:\.[0-9]{1,7})?"
    r"|-?(?:0|[1-9][0-9]{0,2})\.[0-9]{8,12}"
    r"|-?[1-9][0-9]{8,11}(?:\.[0-9]{1,3})?"
)
_DATE = r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2})-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"  # no day: the parser raises
_FIGURES, _LETTERS = "-.0123456789", "truefalsTRUEFALS"
_BOOL = "true|false|True|False|TRUE|FALSE"


@frozen
class Shape:
    """`pattern` is a regex of texts, made of the characters of `alphabet`, that Polars reads as `dtype` exactly. It
    knows no quotes and no empty text.
    """

    pattern: str
    dtype: pl.DataType
    alphabet: str


def shapes(columns: Iterable[Column], layout: Layout) -> Mapping[str, Shape]:
    """The shapes of those columns that have one, by name."""
    found = {c.name: _pattern(c, layout) for c in columns if c.origin == "field"}
    types = {c.name: c.type.polars() for c in columns}
    return {
        name: Shape(pattern, types[name], _LETTERS if pattern is _BOOL else _FIGURES)
        for name, pattern in found.items()
        if pattern
    }


def _pattern(column: Column, layout: Layout) -> str | None:
    how, type = column.text, column.type
    decimal = (how.decimal if how else None) or layout.decimal
    if how and (how.format or how.true or how.false):
        return None
    pattern = None
    if type.name in _INTEGERS:
        sign = "" if type.name.startswith("u") else "-?"
        pattern = f"0|{sign}[1-9][0-9]{{0,{_INTEGERS[type.name] - 1}}}"
    elif type.name == "float64" and decimal == ".":
        pattern = _FLOAT
    elif type.name == "decimal" and decimal == ".":
        pattern = _decimal(*type.args)
    elif type.name == "date":
        pattern = _DATE
    elif type.name == "bool":
        pattern = _BOOL
    if pattern and any(re.fullmatch(pattern, word) for word in layout.nulls):
        return None
    return pattern


def _decimal(precision: int, scale: int) -> str | None:
    if precision == scale:
        return None
    return rf"-?[0-9]{{1,{precision - scale}}}" + (rf"(?:\.[0-9]{{1,{scale}}})?" if scale else "")

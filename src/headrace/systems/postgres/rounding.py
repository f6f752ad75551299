"""Texts that a type's input function would change without a word: it rounds them, or cuts what the type lacks.

So a text goes into a date or a time only as ISO writes it, with no more digits and no other parts than the type keeps,
and into a type with a zone only with its own, since the server would add the session's; into a number of floating point
only where the number that is stored is written as the same one again.
"""

from __future__ import annotations

import math
import re
import struct
from decimal import Decimal
from fractions import Fraction

import polars as pl

from headrace.errors import DataError

__all__ = ["refuse_rounded"]

_DAY = r"(?:[+-]?\d{4,7}-\d{1,2}-\d{1,2}|\d{8})"
_HOURS = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d{0,6}0*)?)?"
_ZONE = r"(?: ?[+-]\d{1,2}(?::?\d{2}(?::?\d{2})?)?|[Zz]| ?[A-Za-z]{3,}(?:[/_+-][A-Za-z0-9]+)*)"
_MIDNIGHT = r"00:00(?::00(?:\.0*)?)?"
_WEEKDAY = r"(?i)\d ?(?:sun|mon|tue|wed|thu|fri|sat)"  # the server takes it where a zone may stand, and ignores it
_ERA = r"(?: (?:BC|AD))?"
_ENDLESS = r"[+-]?infinity|epoch"
_UNIT = (
    r"(?:microseconds?|usecs?|us|milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?"
    r"|w|months?|mons?|years?|yrs?|y|decades?|decs?|centur(?:y|ies)|cent|c|millenni(?:um|a)|mils?)"
)
_PARTED = r"(?:seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)"  # of which a millionth is a whole number of µs
_SPAN = (
    rf"@? ?(?:(?:[+-]?\d+(?: ?{_UNIT})?|[+-]?\d*\.\d{{1,6}}0*(?: ?{_PARTED})?|[+-]?\d+-\d+"
    r"|[+-]?\d+:\d{1,2}(?::\d{1,2}(?:\.\d{0,6}0*)?)?)(?: |$))+(?:ago)?"
    r"|P(?:[+-]?\d+[YMWD])*(?:T(?:[+-]?\d+[HM])*(?:[+-]?\d+(?:\.\d{1,6}0*)?S)?)?|[+-]?infinity"
)
_SHAPES = {
    "date": rf"{_DAY}(?:[T ]{_MIDNIGHT})?{_ERA}|{_ENDLESS}",
    "timestamp without time zone": rf"{_DAY}(?:[T ]{_HOURS})?{_ERA}|{_ENDLESS}",
    "timestamp with time zone": rf"{_DAY}[T ]{_HOURS}{_ZONE}{_ERA}|{_ENDLESS}",
    "time without time zone": _HOURS,
    "time with time zone": rf"{_HOURS}{_ZONE}",
    "interval": _SPAN,
}
"""By type, what all texts that it keeps as they are look like. Some that it would keep do not."""
_RANGES = (
    ("daterange", "datemultirange", "date"),
    ("tsrange", "tsmultirange", "timestamp without time zone"),
    ("tstzrange", "tstzmultirange", "timestamp with time zone"),
)
for _range, _several, _bound in _RANGES:
    _end = f'(?:"?(?:{_SHAPES[_bound]})"?)?'
    _SHAPES[_range] = rf"empty|[\[(]{_end},{_end}[\])]"
    _SHAPES[_several] = rf"\{{(?:(?:{_SHAPES[_range]}),?)*\}}"
_DIGITS = {
    "real": 6,
    **dict.fromkeys(("double precision", "point", "line", "lseg", "box", "path", "polygon", "circle"), 15),
}
"""By type, how many digits any number may have: those of its size that have no more are always kept."""
_NUMBER = re.compile(r"(\d*\.?\d*)(?:[eE]([+-]?\d+))?")
_SURE = {6: (Decimal("1e-30"), Decimal(2**24)), 15: (Decimal("1e-290"), Decimal(2**53))}
"""By the number of digits, between which numbers all of so many are kept: beyond, one may lie midway between two."""
_ITEM = r'[^{},"]+'


def refuse_rounded(name: str, texts: pl.Series, held: str) -> None:
    """Raises DataError where a text would become another value in a column of this type, or in its items."""
    items = held.endswith("[]")
    zoned = held.startswith("tstz") or "with time zone" in held
    plain = re.sub(r"\(\d\)", "", held.removesuffix("[]"))
    if items and plain.endswith("range"):
        return  # what is in quotes in quotes is left to the server
    if plain in _SHAPES:
        each = texts.str.replace(r"^\[[^{]*=", "").str.extract_all(_ITEM).explode() if items else texts
        each = each.str.strip_chars()
        shaped = each.str.contains(f"(?i)^(?:{_SHAPES[plain]})$")
        if zoned:
            shaped = shaped & ~each.str.contains(_WEEKDAY)
        if (shaped | (each == "NULL" if items else False)).all():
            return
    elif plain not in _DIGITS or not _inexact(texts, _DIGITS[plain]):
        return
    raise DataError(
        f"column {name!r}: a text that {held} would round or cut, or that is not written as PostgreSQL writes it"
        + (", with its zone" if zoned else ""),
        hint="write it as 2024-01-31 10:00:00.5+02, or say in a transform which zone it means"
        if zoned
        else "write it as 2024-01-31 10:00:00.5, 1 day 02:00:00.5 or 1.5, or round it in a transform",
        details={"column": name},
    )


def _inexact(texts: pl.Series, digits: int) -> bool:
    """Whether a number in the texts has more digits than are kept. Those that may are looked at one by one."""
    suspect = texts.filter(texts.str.contains(rf"(?:\d\.?){{{digits + 1}}}|[eE]").fill_null(value=False))
    return any(not _kept(found[1], found[2], digits) for t in suspect for found in _NUMBER.finditer(t) if found[1])


def _kept(number: str, exponent: str | None, digits: int) -> bool:
    """Whether the number is stored exactly, or as one that the server writes as the same again."""
    if not any(c.isdigit() for c in number) or len(exponent or "") > 4:  # noqa: PLR2004  # none that has a size
        return True
    exact = Decimal(f"{number}e{exponent or 0}")
    least, most = _SURE[digits]
    if not exact or (len(exact.normalize().as_tuple().digits) <= digits and least < exact < most):
        return True
    form, whole = ("f", "I") if digits == _DIGITS["real"] else ("d", "Q")
    try:
        bits = struct.pack(form, float(exact))
        (stored,), (place,) = struct.unpack(form, bits), struct.unpack(whole, bits)
        below, above = (struct.unpack(form, struct.pack(whole, place + step))[0] for step in (-1, 1))
    except (OverflowError, struct.error):  # too large, or too small: the server says so
        return True
    if math.inf in (stored, above) or not stored:
        return True
    value = Fraction(stored)
    low, high = (value + Fraction(below)) / 2, (value + Fraction(above)) / 2
    shown = (Decimal(f"{stored:.{n}e}") for n in range(17))  # the server writes the shortest that can be no other's
    return Fraction(exact) in (value, next(Fraction(d) for d in shown if low < Fraction(d) < high))

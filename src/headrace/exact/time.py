"""Dates, times, datetimes and durations as text, exactly.

Arrow's own parser is strict (no spaces, no sixtieth second, no more digits than the unit holds, an offset exactly
where the type has a zone) and three times as fast as Polars', so ISO 8601 goes through it. It fails as a whole, so
what looks wrong is taken out first and what still fails is found by halving.
"""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from headrace.errors import ConfigError
from headrace.logical import PER_SECOND, Type

__all__ = ["arrow_cast", "check_format", "read_duration", "read_moment", "write_duration", "write_moment"]

_DIGITS = {"ms": 3, "us": 6, "ns": 9}
_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_OFFSET = "(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)"
# chrono's directives and what they match; the sixtieth second, which chrono moves into the next minute, is left out
_DIRECTIVES = {
    "Y": "[0-9]{4}", "y": "[0-9]{2}", "C": "[0-9]{2}", "m": "[0-9]{1,2}", "d": "[0-9]{1,2}", "e": " ?[0-9]{1,2}",
    "b": "[A-Za-z]{3}", "h": "[A-Za-z]{3}", "B": "[A-Za-z]{3,9}", "a": "[A-Za-z]{3}", "A": "[A-Za-z]{6,9}",
    "j": "[0-9]{1,3}", "H": "[0-9]{1,2}", "k": " ?[0-9]{1,2}", "I": "[0-9]{1,2}", "l": " ?[0-9]{1,2}",
    "M": "[0-9]{1,2}", "S": "[0-5]?[0-9]", "p": "(?:AM|PM|am|pm)", "P": "(?:AM|PM|am|pm)",
    "z": _OFFSET, ":z": _OFFSET, "#z": _OFFSET, "%": "%",
    "3f": "[0-9]{3}", "6f": "[0-9]{6}", "9f": "[0-9]{9}", "s": "-?[0-9]{1,12}", "u": "[1-7]", "w": "[0-6]",
}  # fmt: skip
_COMPOUND = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y", "x": "%m/%d/%y", "X": "%H:%M:%S"}
_DIRECTIVE = re.compile(r"%(\.[369]?f|[-_0]?[:#]?[0-9]?[A-Za-z%])")
_FRACTIONS = ("f", "3f", "6f", "9f")
_OF_TIME = frozenset("HkIlMSpPs")


def arrow_cast(texts: pl.Series, target: Any, *, like: str) -> pl.Series:
    """`texts` through Arrow's strict parser for its type `target`; null for each text that it refuses.

    `like` is a regular expression that every text which Arrow takes matches: it only saves halving.
    """
    import pyarrow as pa

    oldest = pl.CompatLevel.oldest()
    try:
        return _series(_cast(texts.to_arrow(compat_level=oldest), target), texts.name)
    except pa.ArrowInvalid:
        likely = texts.to_frame("t").select(pl.when(pl.col("t").str.contains(like)).then(pl.col("t"))).to_series()
        return _series(_halve(likely.to_arrow(compat_level=oldest), target), texts.name)


def _series(batches: list[Any], name: str) -> pl.Series:
    import pyarrow as pa

    return pl.DataFrame(pa.RecordBatchReader.from_batches(batches[0].schema, batches)).to_series().alias(name)


def _cast(array: Any, target: Any) -> list[Any]:
    """Through readers, here and in `_series`: an array's own `cast`, and Polars' reading of one, would load
    `pyarrow.compute`, which makes 286 functions for a module to call one.
    """
    import pyarrow as pa

    before = pa.record_batch([array], names=["v"])
    rows = pa.RecordBatchReader.from_batches(before.schema, [before])
    return list(rows.cast(pa.schema([("v", target)])))


def _halve(array: Any, target: Any) -> list[Any]:
    import pyarrow as pa

    try:
        return _cast(array, target)
    except pa.ArrowInvalid:
        if len(array) == 1:
            return [pa.record_batch([pa.nulls(1, target)], names=["v"])]
        middle = len(array) // 2
        return _halve(array[:middle], target) + _halve(array[middle:], target)


def read_moment(texts: pl.Series, type: Type, format: str | None) -> pl.Series:
    """`texts` as date, time or datetime, by ISO 8601 or by `format`."""
    made = _by_format(texts, type, format) if format else _by_iso(texts, type)
    return _with_ticks(texts, made, type)


def _by_iso(texts: pl.Series, type: Type) -> pl.Series:
    import pyarrow as pa

    clock = "[0-9]{2}(?::[0-9]{2}(?::[0-5][0-9](?:\\.[0-9]{1,%d})?)?)?"
    match type.name, type.args:
        case "date", _:
            return arrow_cast(texts, pa.date32(), like=rf"^{_DATE}$")
        case "time", _:
            dated = texts.to_frame("t").select("1970-01-01T" + pl.col("t")).to_series()
            made = arrow_cast(dated, pa.timestamp("ns"), like=rf"^{_DATE}T{clock % 9}$")
            return made.dt.time()
        case _, (unit, zone):
            digits = _DIGITS[unit]
            offset = _OFFSET if zone else ""
            target = pa.timestamp(unit, "UTC" if zone else None)
            made = arrow_cast(texts, target, like=rf"^{_DATE}(?:[T ]{clock % digits})?{offset}$")
            return made.dt.convert_time_zone(zone) if zone else made
    raise AssertionError(type)


def _directives(format: str) -> tuple[str, list[str]]:
    """The format with Python's ``.%f`` written as chrono's ``%.f``, compound directives spelled out; its directives."""
    plain = format.replace(".%f", "%.f")
    for short, long in _COMPOUND.items():
        plain = plain.replace(f"%{short}", long)
    return plain, [d.lstrip("-_0") for d in _DIRECTIVE.findall(plain)]


def check_format(type: Type, format: str) -> None:
    """Raises ConfigError when `format` cannot be read, or cannot give a `type`."""
    if type.name in ("list", "array"):
        return check_format(type.args[0], format)
    if type.name not in ("date", "time", "datetime"):
        raise ConfigError(f"a format makes no sense for {type}", hint="only date, time and datetime have a format")
    _plain, found = _directives(format)
    unknown = [d for d in found if d not in _DIRECTIVES and not (d.startswith(".") and d[1:] in _FRACTIONS)]
    if unknown or not found:
        raise ConfigError(
            f"format {format!r} cannot be read" + (f": %{unknown[0]}" if unknown else ""),
            hint="use strptime directives: %d/%m/%Y %H:%M:%S%.f, %z for an offset",
        )
    offset = any(d in ("z", ":z", "#z") for d in found)
    if offset and (type.name != "datetime" or type.args[1] is None):
        raise ConfigError(
            f"format {format!r} has an offset, {type} has no time zone",
            hint="declare datetime(us, UTC), or leave %z out of the format",
        )
    return None


def _pattern(plain: str, unit: str) -> str:
    """A regular expression of what `plain` may match: no space around, no sixtieth second, no digit too many."""

    def one(match: re.Match[str]) -> str:
        name = match[1].lstrip("-_0")
        if name == ".f":
            return rf"(?:\.[0-9]{{1,{_DIGITS[unit]}}})?"
        if name.startswith("."):
            return rf"\.[0-9]{{{min(int(name[1]), _DIGITS[unit])}}}"
        return _DIRECTIVES[name]

    parts, at = [], 0
    for match in _DIRECTIVE.finditer(plain):
        parts += [re.escape(plain[at : match.start()]), one(match)]
        at = match.end()
    return "^" + "".join(parts) + re.escape(plain[at:]) + "$"


def _by_format(texts: pl.Series, type: Type, format: str) -> pl.Series:
    plain, found = _directives(format)
    unit = type.args[0] if type.name == "datetime" else "ns" if type.name == "time" else "us"
    text = pl.col("t")
    fits = pl.when(text.str.contains(_pattern(plain, unit))).then(text)
    offset = any(d in ("z", ":z", "#z") for d in found)
    plain = re.sub(r"%[:#]?z", "%#z", plain)
    if type.name == "time":
        made = fits.str.to_time(plain, strict=False)
    elif type.name == "date":
        if not _OF_TIME.intersection(found):
            made = fits.str.to_date(plain, strict=False)
        else:
            moment = fits.str.to_datetime(plain, time_unit="us", strict=False)
            made = pl.when(moment.dt.truncate("1d") == moment).then(moment.dt.date())
    else:
        made = _moment(fits, plain, type, absolute=offset or "s" in found, offset=offset)
    return texts.to_frame("t").select(made.alias(texts.name)).to_series()


def _moment(text: pl.Expr, plain: str, type: Type, *, absolute: bool, offset: bool) -> pl.Expr:
    unit, zone = type.args
    # nanoseconds wrap around without a word beyond 1677..2262: the whole milliseconds tell
    made = text.str.to_datetime(plain, time_unit=unit, time_zone="UTC" if offset else None, strict=False)
    if unit == "ns":
        coarse = text.str.to_datetime(plain, time_unit="ms", time_zone="UTC" if offset else None, strict=False)
        made = pl.when(made.dt.cast_time_unit("ms") == coarse).then(made)
    if zone is None:
        return made
    if offset:
        return made.dt.convert_time_zone(zone)
    if absolute:
        return made.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    return made.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")


_TICKS = r"^@(-?[0-9]+)(d|ms|us|ns)$"


def _iso(count: pl.Expr, unit: str) -> pl.Expr:
    """Whether a count of `unit` since 1970 is written as ISO 8601, and not as ticks."""
    day = count.floordiv(1 if unit == "d" else 86_400 * PER_SECOND[unit])
    usual = (day >= -719_162) & (day <= 2_932_896)  # noqa: PLR2004  # 0001-01-01 and 9999-12-31
    if unit == "ns":  # Arrow does not read the fraction of the first second that 64 bits hold
        usual = usual & (count >= -(2**63 // 10**9) * 10**9)
    return usual


def _with_ticks(texts: pl.Series, made: pl.Series, type: Type) -> pl.Series:
    """Reads ``@<count><unit>``: what `write_moment` writes for a year that four digits cannot hold, and of no other."""
    if type.name == "time" or made.null_count() == texts.null_count():
        return made
    unit = "d" if type.name == "date" else type.args[0]
    frame = pl.DataFrame({"t": texts, "m": made})
    count = pl.when(pl.col("t").str.extract(_TICKS, 2) == unit).then(pl.col("t").str.extract(_TICKS, 1))
    whole = count.cast(pl.Int32 if unit == "d" else pl.Int64, strict=False)
    beyond = pl.when(~_iso(whole, unit)).then(whole).cast(type.polars())
    return frame.select(pl.coalesce("m", beyond).alias(texts.name)).to_series()


def write_moment(values: pl.Series, type: Type) -> pl.Series:
    """Dates, times and datetimes as ISO 8601, zone-aware ones in UTC; ``@<count><unit>`` beyond years 1 to 9999."""
    value = pl.col("v")
    if type.name == "time":
        return values.to_frame("v").select(value.dt.to_string("%H:%M:%S%.f").alias(values.name)).to_series()
    unit = "d" if type.name == "date" else type.args[0]
    count = value.to_physical()
    usual = _iso(count, unit)
    safe = pl.when(usual).then(value)
    if unit == "d":
        text = safe.dt.to_string("%Y-%m-%d")
    elif type.args[1] is None:
        text = safe.dt.to_string("%Y-%m-%dT%H:%M:%S%.f")
    else:
        text = safe.dt.convert_time_zone("UTC").dt.to_string("%Y-%m-%dT%H:%M:%S%.f") + "Z"
    ticks = pl.format("@{}" + unit, count)
    made = pl.when(usual).then(text).when(value.is_not_null()).then(ticks)
    return values.to_frame("v").select(made.alias(values.name)).to_series()


_DURATION = re.compile(
    r"([+-]?)P(?=[0-9T])(?:([0-9]+)W)?(?:([0-9]+)D)?"
    r"(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)(?:\.([0-9]+))?S)?)?"
)


def read_duration(texts: pl.Series, unit: str) -> pl.Series:
    """ISO 8601 durations (``P1DT2H3M4.5S``, a sign before the P) as counts of `unit`."""
    found = {text: _count(text, unit) for text in texts.unique().to_list() if text is not None}
    counts = [None if t is None else found[t] for t in texts.to_list()]
    return pl.Series(texts.name, counts, dtype=pl.Int64).cast(pl.Duration(unit))  # type: ignore[arg-type]


_LEAST = -(2**63)


def write_duration(values: pl.Series, unit: str) -> pl.Series:
    """Durations as ISO 8601. Polars' own words fail for the least one: it has no positive counterpart."""
    seconds, rest = divmod(-_LEAST, PER_SECOND[unit])
    least = f"-PT{seconds}.{rest:0{_DIGITS[unit]}}S"
    value = pl.col("v")
    is_least = value.to_physical() == _LEAST
    text = pl.when(is_least).then(None).otherwise(value).dt.to_string("iso")
    return (
        values.to_frame("v")
        .select(pl.when(is_least).then(pl.lit(least)).otherwise(text).alias(values.name))
        .to_series()
    )


def _count(text: str, unit: str) -> int | None:
    if not text.isascii() or not (match := _DURATION.fullmatch(text)):
        return None
    sign, *parts, fraction = match.groups()
    weeks, days, hours, minutes, seconds = (int(p or 0) for p in parts)
    whole = (((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60 + seconds
    fraction = (fraction or "").rstrip("0")
    if len(fraction) > _DIGITS[unit]:
        return None
    count = whole * PER_SECOND[unit] + int(fraction.ljust(_DIGITS[unit], "0"))
    count = -count if sign == "-" else count
    return count if _LEAST <= count < -_LEAST else None

"""Dates, times and durations on their way into PostgreSQL, in microseconds; what it cannot hold is refused."""

from __future__ import annotations

import polars as pl

from headrace.errors import DataError
from headrace.logical import Type

__all__ = ["datetimes", "durations", "in_reach", "microseconds", "moments", "whole"]

_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31: what ISO writes with four digits
_FARTHEST = (-96_465_292, 95_026_236)  # years -262143 and 262142: what Polars writes at all
_DAY_US = 86_400_000_000


def whole(name: str, values: pl.Series, ticks: int) -> pl.Series:
    """Counts of a unit that is `ticks` times larger. Raises DataError where there is a remainder."""
    if (values % ticks != 0).any():
        raise DataError(
            f"column {name!r}: PostgreSQL keeps microseconds, and there are nanoseconds in a value",
            hint="cast it to microseconds in a transform, where you say how it is rounded",
            details={"column": name},
        )
    return values // ticks


def datetimes(name: str, values: pl.Series, type: Type) -> pl.Series:
    """Datetimes, in UTC, as Polars or `moments` writes them. Raises DataError."""
    unit, zone = type.args
    if zone is not None:
        values = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if unit == "ms":
        return moments(name, values, values.to_physical(), _DAY_US // 1_000)
    count = microseconds(name, values, type)
    return moments(name, count.cast(pl.Datetime("us")), count, _DAY_US)


def microseconds(name: str, values: pl.Series, type: Type) -> pl.Series:
    """Datetimes as microseconds since 1970 (UTC). Raises DataError for nanoseconds, and for far years."""
    count = values.to_physical()
    if type.args[0] == "ns":
        return whole(name, count, 1_000)
    if type.args[0] == "ms":
        in_reach(name, count, _DAY_US // 1_000)
        return count * 1_000
    in_reach(name, count, _DAY_US)
    return count


def in_reach(name: str, count: pl.Series, day: int) -> None:
    """Raises DataError for a moment (so many to a day) in a year that PostgreSQL is not given here."""
    low, high = count.min(), count.max()
    if low is not None and (low < _FARTHEST[0] * day or high >= (_FARTHEST[1] + 1) * day):  # type: ignore[operator]  # numbers
        raise DataError(
            f"column {name!r}: a value beyond the years that PostgreSQL is given here (up to 262142)",
            hint="look at the rows",
            details={"column": name},
        )


def moments(name: str, values: pl.Series, count: pl.Series, day: int) -> pl.Series:
    """Dates and datetimes: as they are, where their year has four digits; else as PostgreSQL writes them."""
    low, high = count.min(), count.max()
    if low is None or (low >= _FIRST_DAY * day and high < (_LAST_DAY + 1) * day):  # type: ignore[operator]  # numbers
        return values
    in_reach(name, count, day)
    year = pl.col("v").dt.year()
    shown = pl.when(year > 0).then(year).otherwise(1 - year).cast(pl.String).str.zfill(4)
    era = pl.when(year > 0).then(pl.lit("")).otherwise(pl.lit(" BC"))
    rest = pl.col("v").dt.strftime("-%m-%d" if day == 1 else "-%m-%d %H:%M:%S%.6f")
    return values.to_frame("v").select(pl.concat_str(shown, rest, era)).to_series()


def durations(name: str, values: pl.Series, type: Type) -> pl.Series:
    """Durations as interval literals. Raises DataError for nanoseconds."""
    count = whole(name, values.to_physical(), 1_000) if type.args[0] == "ns" else values.to_physical()
    more = 1_000 if type.args[0] == "ms" else 1
    micros = (pl.col("v").cast(pl.Int128) * more).cast(pl.String) + " microseconds"
    return count.to_frame("v").select(micros).to_series()

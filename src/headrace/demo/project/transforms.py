"""The demo's transforms: plain functions of lazy frames, which a test can call."""

from datetime import date

import polars as pl


def clean(flights: pl.LazyFrame, *, since: str) -> pl.LazyFrame:
    """Flights from the day `since` (ISO) on, with the columns that the daily figures need."""
    return flights.filter(pl.col("day") >= date.fromisoformat(since)).select(
        "day", "carrier", "origin", "dest", "dep_delay", "arr_delay"
    )

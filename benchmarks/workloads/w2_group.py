"""W2: Parquet, a filter and a group by (a Polars transform), Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

MARK = 1.10
FILE = "lineitem.parquet"


def shipped(lineitem: pl.LazyFrame) -> pl.LazyFrame:
    """What was shipped since 1995, by day, mode and flag."""
    from datetime import date

    import polars as pl

    return (
        lineitem.filter(pl.col("l_shipdate") >= date(1995, 1, 1))
        .group_by("l_shipdate", "l_shipmode", "l_returnflag")
        .agg(pl.len().alias("n"), pl.col("l_quantity").sum(), pl.col("l_extendedprice").sum())
    )


def headrace(data: Path, out: Path) -> None:
    """headrace, no settings."""
    import headrace as hr

    hr.run(
        hr.Pipeline(
            name="shipped",
            source=hr.FileSource(path=str(data / FILE)),
            transforms=(shipped,),
            destination=hr.ParquetDestination(path=str(out / "lake")),
            write=hr.Replace(),
        )
    )


def floor_polars(data: Path, out: Path) -> None:
    """Polars' sink_parquet."""
    import polars as pl

    (out / "lake").mkdir()
    shipped(pl.scan_parquet(data / FILE)).sink_parquet(out / "lake" / "out.parquet", compression="zstd")


RESULT = ("lake/*.parquet", None)

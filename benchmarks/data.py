"""The data of the benchmarks: TPC-H's lineitem, made once for each scale factor and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import duckdb

__all__ = ["made"]

CHANGED = "hash(l_orderkey, l_linenumber) % 100 = 0"


def made(folder: Path, sf: float) -> Path:
    """The folder with the data of that scale factor (1: 6,001,215 rows of lineitem); it is made if it is not there.

    ``lineitem.csv`` and ``lineitem.parquet`` are as the generator writes them. ``base.parquet`` has an ``updated_at``;
    ``changes.parquet`` is a hundredth of its keys: most of them newer, some older, some new.
    """
    place = folder / f"sf{sf:g}"
    if (place / "done").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for form in ("csv", "parquet"):
        _generate(form, sf, place)
    _derive(place)
    (place / "done").touch()
    return place


def _generate(form: str, sf: float, place: Path) -> None:
    program = Path(sys.executable).with_name("tpchgen-cli")
    subprocess.run([program, form, "-s", f"{sf:g}", "-T", "lineitem", f"--output-dir={place}"], check=True)


def _derive(place: Path) -> None:
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW lineitem AS FROM '{place / 'lineitem.parquet'}'")
        stamped = "SELECT *, l_shipdate + INTERVAL 1 HOUR AS updated_at FROM lineitem"
        con.execute(f"COPY ({stamped}) TO '{place / 'base.parquet'}' (COMPRESSION zstd)")
        con.execute(f"""
            COPY (
                SELECT * REPLACE (
                    l_orderkey + CASE WHEN l_partkey % 10 = 0 THEN 1_000_000_000_000 ELSE 0 END AS l_orderkey,
                    l_quantity + 1 AS l_quantity
                ), l_shipdate + INTERVAL 1 HOUR + CASE WHEN l_partkey % 10 = 1 THEN -1 ELSE 1 END * INTERVAL 1 DAY
                AS updated_at
                FROM lineitem WHERE {CHANGED}
            ) TO '{place / "changes.parquet"}' (COMPRESSION zstd)""")

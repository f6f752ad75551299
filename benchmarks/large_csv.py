"""A 3 GB CSV through headrace with no settings: merged by key into DuckDB, and filtered and grouped into Parquet.

    pip install tpchgen-cli
    tpchgen-cli csv -s 4 --tables lineitem --output-dir=DATA
    python benchmarks/large_csv.py DATA/lineitem.csv

Each job is a process of its own; what is printed is the operating system's account of it: wall and CPU seconds, and
the peak of its resident memory. `--floor` runs the same work with DuckDB alone, for comparison.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

GROUPED = """
    SELECT l_shipdate, l_shipmode, l_returnflag, count(*) AS n, sum(l_quantity) AS quantity,
        sum(l_extendedprice) AS price
    FROM source WHERE l_shipdate >= '1995-01-01' GROUP BY ALL
"""


def merge(file: Path, folder: Path) -> None:
    """All rows into a DuckDB table, by key."""
    import headrace as hr

    pipeline = hr.Pipeline(
        name="lineitem",
        source=hr.FileSource(path=str(file)),
        destination=hr.DuckDBDestination(path=str(folder / "w.duckdb"), table="lineitem"),
        write=hr.Merge(keys=("l_orderkey", "l_linenumber")),
    )
    print(hr.run(pipeline))


def group(file: Path, folder: Path) -> None:
    """A filter and a group by into a Parquet folder."""
    import headrace as hr

    pipeline = hr.Pipeline(
        name="shipped",
        source=hr.FileSource(path=str(file)),
        transforms=(hr.sql(GROUPED),),
        destination=hr.ParquetDestination(path=str(folder / "lake")),
        write=hr.Replace(),
    )
    print(hr.run(pipeline))


def floor_merge(file: Path, folder: Path) -> None:
    """DuckDB's own reader into a table with a primary key's worth of checking left out."""
    import duckdb

    with duckdb.connect(folder / "w.duckdb") as con:
        con.execute("CREATE TABLE lineitem AS SELECT * FROM read_csv(?)", [str(file)])


def floor_group(file: Path, folder: Path) -> None:
    """DuckDB's own reader and writer."""
    import duckdb

    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW source AS SELECT * FROM read_csv('{file}')")
        con.execute(f"COPY ({GROUPED}) TO '{folder / 'out.parquet'}' (FORMAT parquet, COMPRESSION zstd)")


def measured(job: Callable[[Path, Path], None], file: Path) -> None:
    """One job in a process of its own."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            job(file, Path(folder))
            sys.stdout.flush()
            os._exit(0)
        _, status, usage = os.wait4(child, 0)
        wall = time.monotonic() - began
    assert status == 0, f"{job.__name__} failed"
    cpu = usage.ru_utime + usage.ru_stime
    scale = 1024 if sys.platform != "darwin" else 1024 * 1024
    print(f"{job.__name__:12} wall {wall:6.1f} s   cpu {cpu:6.1f} s   peak {usage.ru_maxrss // scale:5} MB", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--floor", action="store_true", help="DuckDB alone")
    parser.add_argument("--only", choices=["merge", "group"])
    given = parser.parse_args()
    jobs = {"merge": floor_merge, "group": floor_group} if given.floor else {"merge": merge, "group": group}
    for name, job in jobs.items():
        if given.only in (None, name):
            measured(job, given.file)


if __name__ == "__main__":
    main()

"""The claims of speed in ARCHITECTURE.md, measured again: ``python benchmarks/claims.py [ROWS]``.

Each line is a claim and what this machine says of it. ROWS (a million by default) is the size of the smaller tables.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def merge() -> str:
    """DELETE and INSERT against MERGE: ROWS of which half are new, into a table of ten times as many."""
    import duckdb

    ways = {
        "MERGE": [
            "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE BY NAME WHEN NOT MATCHED THEN INSERT BY NAME"
        ],
        "DELETE and INSERT": ["DELETE FROM t USING s WHERE t.id = s.id", "INSERT INTO t BY NAME SELECT * FROM s"],
    }
    took = {}
    for name, statements in ways.items():
        with duckdb.connect() as con:
            columns = "hash(id) AS a, hash(id + 1)::VARCHAR AS b, id % 1000 AS c"
            con.execute(f"CREATE TABLE t AS SELECT id, {columns} FROM (SELECT range AS id FROM range({ROWS * 10}))")
            new = f"SELECT {ROWS * 19 // 2} + range AS id FROM range({ROWS})"
            con.execute(f"CREATE TABLE s AS SELECT id, {columns} FROM ({new})")
            con.execute("BEGIN")
            took[name] = seconds(lambda con=con, each=statements: [con.execute(one) for one in each])
            con.execute("COMMIT")
    return ", ".join(f"{name} {took[name]:.2f} s" for name in took)


def contract() -> str:
    """Rows through a contract of ten checks, a thousandth of them bad, against the same rows without one."""
    import polars as pl

    import headrace as hr

    ids = pl.int_range(ROWS * 4, eager=True)
    frame = pl.DataFrame({"id": ids, "v": ids % 1000, "t": (ids % 7).cast(pl.String), "f": ids / 3}).lazy()
    checked = hr.Contract(
        columns={
            "id": hr.Column(type="int64", nullable=False, min=0),
            "v": hr.Column(min=1, max=999, nullable=False),
            "t": hr.Column(pattern="[0-9]+", length=(1, 2), one_of=tuple("0123456")),
            "f": hr.Column(type="float64", nullable=False, min=0),
        }
    )
    good, bad = checked.split(frame)
    plain = seconds(lambda: [b.height for b in frame.collect_batches()])
    judged = seconds(lambda: (good.select(pl.len()).collect(), bad.select(pl.len()).collect()))
    rate = ROWS * 4 / judged / 1e6
    return f"without {plain:.2f} s, good and bad rows with it {judged:.2f} s ({rate:.1f}M rows a second)"


def imports() -> str:
    """What ``--help`` costs, and an import of headrace."""
    told = {
        "python": ["-c", "pass"],
        "import headrace": ["-c", "import headrace"],
        "headrace --help": ["-m", "headrace", "--help"],
    }
    runs = {n: min(seconds(lambda a=a: _run(a)) for _ in range(5)) for n, a in told.items()}
    return ", ".join(f"{name} {took * 1000:.0f} ms" for name, took in runs.items())


def _run(args: list[str]) -> None:
    subprocess.run([sys.executable, *args], check=True, capture_output=True)


if __name__ == "__main__":
    for claim in (merge, contract, imports):
        print(f"{claim.__doc__.splitlines()[0]}\n  {claim()}", flush=True)

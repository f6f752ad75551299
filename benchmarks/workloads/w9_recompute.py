"""W9: new rows touch one per cent of the groups, which are made again from all rows."""

from __future__ import annotations

from pathlib import Path

from workloads.lineitem import LEDGER, first, load

MARK = 1.5
BY = "l_suppkey"
TOTALS = f"""
    SELECT {BY}, count(*) AS n, sum(l_quantity) AS quantity, max(l_shipdate) AS last FROM {{}} GROUP BY {BY}
"""


def _late(data: Path, out: Path) -> None:
    """Rows of a hundredth of the suppliers."""
    import duckdb

    with duckdb.connect() as con:
        late = f"FROM '{data / 'base.parquet'}' WHERE hash({BY}) % 100 = 0 AND l_orderkey % 100 = 0"
        con.execute(f"COPY ({late}) TO '{out / 'late.parquet'}' (COMPRESSION zstd)")


def setup_headrace(data: Path, out: Path) -> None:
    """The first load."""
    first(data, out)
    _late(data, out)
    _load(out)


def headrace(data: Path, out: Path) -> None:
    """Headrace, no settings."""
    del data
    (out / "late.parquet").rename(out / "in" / "late.parquet")
    _load(out)


def _load(out: Path) -> None:
    import headrace as hr

    load(out, hr.Recompute(by=(BY,)), hr.sql(TOTALS.format("source")), table="totals")


def setup_floor_duckdb(data: Path, out: Path) -> None:
    """The first load."""
    import duckdb

    first(data, out)
    _late(data, out)
    query = TOTALS.format(f"'{out}/in/*.parquet'")
    with duckdb.connect(out / "w.duckdb") as con:
        con.execute(f"CREATE TABLE totals AS {query}")
        con.execute(LEDGER)


def floor_duckdb(data: Path, out: Path) -> None:
    """The groups that the new file touches, DELETE and INSERT by hand, in one transaction with a ledger's row."""
    import duckdb

    del data
    (out / "late.parquet").rename(out / "in" / "late.parquet")
    with duckdb.connect(out / "w.duckdb") as con:
        con.execute("BEGIN")
        con.execute(f"CREATE TEMP TABLE touched AS SELECT DISTINCT {BY} FROM '{out / 'in' / 'late.parquet'}'")
        con.execute(f"DELETE FROM totals WHERE {BY} IN (FROM touched)")
        rows = f"(FROM '{out / 'in' / '*.parquet'}' WHERE {BY} IN (FROM touched))"
        con.execute(f"INSERT INTO totals {TOTALS.format(rows)}")
        con.execute("INSERT INTO ledger VALUES (2, 'late.parquet', now())")
        con.execute("COMMIT")


RESULT = ("w.duckdb", "totals")

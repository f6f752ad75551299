"""A contract of RULES rules over the rows of a Parquet file, into DuckDB. Growth only: it has no mark."""

from __future__ import annotations

import os
from pathlib import Path

MARK = float("inf")
RULES = int(os.environ.get("RULES", "10"))


def headrace(data: Path, out: Path) -> None:
    """Headrace, RULES rules, each of another comparison."""
    import headrace as hr

    rules = {f"rule_{n}": f"l_quantity <> {n} + 1000 OR l_linenumber > {n % 7}" for n in range(RULES)}
    hr.run(
        hr.Pipeline(
            name="lineitem",
            source=hr.FileSource(path=str(data / "lineitem.parquet")),
            contract=hr.Contract(rules=rules, on_violation="quarantine"),
            destination=hr.DuckDBDestination(path=str(out / "w.duckdb"), table="lineitem"),
        )
    )


def floor_duckdb(data: Path, out: Path) -> None:
    """DuckDB without rules."""
    import duckdb

    with duckdb.connect(out / "w.duckdb") as con:
        con.execute(f"CREATE TABLE lineitem AS FROM '{data / 'lineitem.parquet'}'")


RESULT = ("w.duckdb", "lineitem")

"""A CSV of two million cells in COLUMNS columns, into DuckDB. Growth only: it has no mark."""

from __future__ import annotations

import os
from pathlib import Path

MARK = float("inf")
CELLS = 2_000_000
COLUMNS = int(os.environ.get("COLUMNS", "100"))


def _file(data: Path, out: Path) -> None:
    del data
    with (out / "wide.csv").open("w") as file:
        file.write(",".join(f"c{n}" for n in range(COLUMNS)) + "\n")
        for row in range(CELLS // COLUMNS):
            file.write(",".join(str(row * n) if n % 2 else f"text {row + n}" for n in range(COLUMNS)) + "\n")


setup_headrace = setup_floor_duckdb = _file


def headrace(data: Path, out: Path) -> None:
    """Headrace, no settings."""
    import headrace as hr

    del data
    hr.run(
        hr.Pipeline(
            name="wide",
            source=hr.FileSource(path=str(out / "wide.csv")),
            destination=hr.DuckDBDestination(path=str(out / "w.duckdb"), table="wide"),
        )
    )


def floor_duckdb(data: Path, out: Path) -> None:
    """DuckDB's read_csv, strict, rejects stored."""
    import duckdb

    del data
    with duckdb.connect(out / "w.duckdb") as con:
        con.execute(
            "CREATE TABLE wide AS FROM read_csv(?, strict_mode = true, store_rejects = true)", [str(out / "wide.csv")]
        )


RESULT = ("w.duckdb", "wide")

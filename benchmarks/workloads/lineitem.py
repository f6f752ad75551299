"""The table lineitem in DuckDB, from the files that have come so far; and what scripts by hand keep beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

KEYS = ("l_orderkey", "l_linenumber")
LEDGER = "CREATE TABLE ledger (number BIGINT, file VARCHAR, done TIMESTAMPTZ)"


def first(data: Path, out: Path) -> None:
    """The first file comes, with all rows."""
    (out / "in").mkdir()
    os.link(data / "base.parquet", out / "in" / "base.parquet")


def load(out: Path, write: Any, *transforms: Any, table: str = "lineitem") -> None:
    """What has come, by headrace."""
    import headrace as hr

    hr.run(
        hr.Pipeline(
            name=table,
            source=hr.FileSource(path=str(out / "in" / "*.parquet")),
            transforms=transforms,
            destination=hr.DuckDBDestination(path=str(out / "w.duckdb"), table=table),
            write=write,
        )
    )

"""W2s: Parquet, a filter and a group by in SQL, DuckDB."""

from __future__ import annotations

from pathlib import Path

MARK = 1.10
FILE = "lineitem.parquet"
SHIPPED = """
    SELECT l_shipdate, l_shipmode, l_returnflag, count(*) AS n, sum(l_quantity) AS quantity,
        sum(l_extendedprice) AS price
    FROM {} WHERE l_shipdate >= DATE '1995-01-01' GROUP BY ALL
"""


def headrace(data: Path, out: Path) -> None:
    """headrace, no settings."""
    import headrace as hr

    hr.run(
        hr.Pipeline(
            name="shipped",
            source=hr.FileSource(path=str(data / FILE)),
            transforms=(hr.sql(SHIPPED.format("source")),),
            destination=hr.DuckDBDestination(path=str(out / "w.duckdb"), table="shipped"),
            write=hr.Replace(),
        )
    )


def floor_duckdb(data: Path, out: Path) -> None:
    """DuckDB alone."""
    import duckdb

    query = SHIPPED.format(f"read_parquet('{data / FILE}')")
    with duckdb.connect(out / "w.duckdb") as con:
        con.execute(f"CREATE TABLE shipped AS {query}")


RESULT = ("w.duckdb", "shipped")

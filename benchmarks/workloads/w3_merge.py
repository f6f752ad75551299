"""W3: a merge of one per cent of changed rows into a DuckDB table; what is older than the target's row stays out."""

from __future__ import annotations

import os
from pathlib import Path

from workloads.lineitem import KEYS, LEDGER, first, load

MARK = 1.3


def setup_headrace(data: Path, out: Path) -> None:
    """The first load."""
    first(data, out)
    _load(out)


def headrace(data: Path, out: Path) -> None:
    """Headrace, no settings."""
    os.link(data / "changes.parquet", out / "in" / "changes.parquet")
    _load(out)


def _load(out: Path) -> None:
    import headrace as hr

    load(out, hr.Merge(keys=KEYS, latest_by=("updated_at",)))


def setup_floor_duckdb(data: Path, out: Path) -> None:
    """The first load."""
    import duckdb

    with duckdb.connect(out / "w.duckdb") as con:
        con.execute(f"CREATE TABLE lineitem AS FROM '{data / 'base.parquet'}'")
        con.execute(LEDGER)


def floor_duckdb(data: Path, out: Path) -> None:
    """staging, DELETE and INSERT by hand, in one transaction with a ledger's row."""
    import duckdb

    with duckdb.connect(out / "w.duckdb") as con:
        con.execute("BEGIN")
        con.execute(f"""
            CREATE TEMP TABLE staged AS FROM '{data / "changes.parquet"}'
            QUALIFY row_number() OVER (PARTITION BY l_orderkey, l_linenumber ORDER BY updated_at DESC) = 1""")
        same = "lineitem.l_orderkey = staged.l_orderkey AND lineitem.l_linenumber = staged.l_linenumber"
        con.execute(f"DELETE FROM staged USING lineitem WHERE {same} AND lineitem.updated_at > staged.updated_at")
        con.execute(f"DELETE FROM lineitem USING staged WHERE {same}")
        con.execute("INSERT INTO lineitem BY NAME FROM staged")
        con.execute("INSERT INTO ledger VALUES (2, 'changes.parquet', now())")
        con.execute("COMMIT")


def peer_dlt_best(data: Path, out: Path) -> None:
    """dlt, merge (upsert) of Arrow tables."""
    _dlt(data / "changes.parquet", out)


def setup_peer_dlt_best(data: Path, out: Path) -> None:
    """The first load."""
    _dlt(data / "base.parquet", out)


def _dlt(file: Path, out: Path) -> None:
    import dlt
    import pyarrow.parquet as pq

    @dlt.resource(
        name="lineitem", primary_key=list(KEYS), write_disposition={"disposition": "merge", "strategy": "upsert"}
    )
    def rows() -> object:
        yield from pq.ParquetFile(file).iter_batches(65_536)

    pipeline = dlt.pipeline(
        "w",
        destination=dlt.destinations.duckdb(str(out / "w.duckdb")),
        dataset_name="loaded",
        pipelines_dir=str(out / "dlt"),
    )
    pipeline.run(rows(), loader_file_format="parquet")


RESULT = ("w.duckdb", "lineitem")

"""W1: CSV lineitem into a DuckDB table, exact and strict; nothing is said of types."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

MARK = 1.15
FILE = "lineitem.csv"


def headrace(data: Path, out: Path) -> None:
    """headrace, no settings."""
    import headrace as hr

    hr.run(
        hr.Pipeline(
            name="lineitem",
            source=hr.FileSource(path=str(data / FILE)),
            destination=hr.DuckDBDestination(path=str(out / "w.duckdb"), table="lineitem"),
        )
    )


def floor_duckdb(data: Path, out: Path) -> None:
    """DuckDB's read_csv, strict, rejects stored."""
    import duckdb

    with duckdb.connect(out / "w.duckdb") as con:
        con.execute(
            "CREATE TABLE lineitem AS FROM read_csv(?, strict_mode = true, store_rejects = true)", [str(data / FILE)]
        )


def floor_polars(data: Path, out: Path) -> None:
    """Polars' scan_csv, a stream of batches, DuckDB."""
    import duckdb
    import polars as pl
    import pyarrow as pa

    rows = pl.scan_csv(data / FILE, try_parse_dates=True)
    schema = pl.DataFrame(schema=rows.collect_schema()).to_arrow().schema

    def batches() -> Iterator[pa.RecordBatch]:
        for frame in rows.collect_batches():
            yield from frame.to_arrow().cast(schema).to_batches()

    with duckdb.connect(out / "w.duckdb") as con:
        stream = pa.RecordBatchReader.from_batches(schema, batches())  # noqa: F841  # DuckDB finds it by its name
        con.execute("CREATE TABLE lineitem AS FROM stream")


def peer_dlt_best(data: Path, out: Path) -> None:
    """dlt, its read_csv_duckdb of Arrow tables, written as Parquet."""
    _dlt(data, out, "duckdb")


def peer_dlt(data: Path, out: Path) -> None:
    """dlt, its read_csv, as it comes."""
    _dlt(data, out, "rows")


def peer_sling(data: Path, out: Path) -> None:
    """sling, as it comes."""
    target = f"duckdb://{out / 'w.duckdb'}"
    command = ["sling", "run", "--src-stream", f"file://{data / FILE}", "--tgt-conn", target]
    subprocess.run([*command, "--tgt-object", "main.lineitem", "--mode", "full-refresh"], check=True)


def peer_ingestr(data: Path, out: Path) -> None:
    """ingestr, as it comes."""
    command = ["ingestr", "ingest", "--yes", "--source-uri", f"csv://{data / FILE}", "--source-table", "lineitem"]
    target = f"duckdb:///{out / 'w.duckdb'}"
    subprocess.run([*command, "--dest-uri", target, "--dest-table", "main.lineitem"], check=True)


def _dlt(data: Path, out: Path, how: str) -> None:
    import dlt
    from dlt.sources.filesystem import filesystem, read_csv, read_csv_duckdb

    files = filesystem(bucket_url=f"file://{data}", file_glob=FILE)
    rows = files | (read_csv_duckdb(use_pyarrow=True) if how == "duckdb" else read_csv())
    pipeline = dlt.pipeline(
        "w",
        destination=dlt.destinations.duckdb(str(out / "w.duckdb")),
        dataset_name="loaded",
        pipelines_dir=str(out / "dlt"),
    )
    form = {"loader_file_format": "parquet"} if how == "duckdb" else {}
    pipeline.run(rows.with_name("lineitem"), write_disposition="replace", **form)


RESULT = ("w.duckdb", "lineitem")

"""What each contestant does, one function each: ``python contestants.py NAME DSN FOLDER`` runs one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TABLE = "lineitem"


# -- out of PostgreSQL, into DuckDB ---------------------------------------------------------------------------------


def duckdb_headrace(dsn: str, folder: Path) -> None:
    """headrace, no settings."""
    import headrace as hr

    hr.run(
        hr.Pipeline(
            name="bench",
            source=hr.PostgresSource(dsn=dsn, table=TABLE),
            destination=hr.DuckDBDestination(path=str(folder / "out.duckdb"), table=TABLE),
            write=hr.Replace(),
        )
    )


def duckdb_psql_floor(dsn: str, folder: Path) -> None:
    """Psql COPY (FORMAT binary) to nowhere: the floor of reading alone."""
    del folder
    subprocess.run(
        ["psql", dsn, "-qc", f"COPY {TABLE} TO STDOUT (FORMAT binary)"], stdout=subprocess.DEVNULL, check=True
    )


def duckdb_by_hand(dsn: str, folder: Path) -> None:
    """By hand: COPY CSV through psycopg, PyArrow's reader, DuckDB."""
    import duckdb

    with duckdb.connect(str(folder / "out.duckdb")) as target:
        rows = _arrow(dsn)  # noqa: F841  # DuckDB finds it by its name
        target.execute(f"CREATE TABLE {TABLE} AS SELECT * FROM rows")


def duckdb_psql_by_hand(dsn: str, folder: Path) -> None:
    """The same by hand, with psql at the other end of a pipe in psycopg's place."""
    import duckdb

    with duckdb.connect(str(folder / "out.duckdb")) as target:
        rows = _piped(dsn)  # noqa: F841  # DuckDB finds it by its name
        target.execute(f"CREATE TABLE {TABLE} AS SELECT * FROM rows")


def duckdb_connectorx(dsn: str, folder: Path) -> None:
    """connectorx, its Arrow stream, DuckDB."""
    import connectorx
    import duckdb

    with duckdb.connect(str(folder / "out.duckdb")) as target:
        query = f"SELECT * FROM {TABLE}"
        rows = connectorx.read_sql(_uri(dsn), query, return_type="arrow_stream", batch_size=65_536)  # noqa: F841
        target.execute(f"CREATE TABLE {TABLE} AS SELECT * FROM rows")


def duckdb_adbc(dsn: str, folder: Path) -> None:
    """ADBC's driver, its Arrow stream, DuckDB."""
    import adbc_driver_postgresql.dbapi as adbc
    import duckdb

    with adbc.connect(_uri(dsn)) as source, source.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {TABLE}")
        rows = cursor.fetch_record_batch()  # noqa: F841
        with duckdb.connect(str(folder / "out.duckdb")) as target:
            target.execute(f"CREATE TABLE {TABLE} AS SELECT * FROM rows")


def duckdb_dlt_pyarrow(dsn: str, folder: Path) -> None:
    """dlt, backend pyarrow."""
    _dlt(dsn, folder, "pyarrow")


def duckdb_dlt_connectorx(dsn: str, folder: Path) -> None:
    """dlt, backend connectorx."""
    _dlt(dsn, folder, "connectorx")


def duckdb_dlt_sqlalchemy(dsn: str, folder: Path) -> None:
    """dlt, backend sqlalchemy (its default)."""
    _dlt(dsn, folder, "sqlalchemy")


# -- out of PostgreSQL, into Parquet --------------------------------------------------------------------------------


def parquet_headrace(dsn: str, folder: Path) -> None:
    """headrace, no settings."""
    import headrace as hr

    hr.run(
        hr.Pipeline(
            name="bench",
            source=hr.PostgresSource(dsn=dsn, table=TABLE),
            destination=hr.ParquetDestination(path=str(folder / "out")),
            write=hr.Replace(),
        )
    )


def parquet_by_hand(dsn: str, folder: Path) -> None:
    """COPY CSV through psycopg, PyArrow's reader and writer."""
    _parquet(_arrow(dsn), folder)


def parquet_psql_by_hand(dsn: str, folder: Path) -> None:
    """The same by hand, with psql at the other end of a pipe in psycopg's place."""
    _parquet(_piped(dsn), folder)


def _parquet(rows: Any, folder: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(folder / "out.parquet", rows.schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(batch)


def parquet_connectorx(dsn: str, folder: Path) -> None:
    """Connectorx's Arrow stream, PyArrow's writer."""
    import connectorx
    import pyarrow.parquet as pq

    rows = connectorx.read_sql(_uri(dsn), f"SELECT * FROM {TABLE}", return_type="arrow_stream", batch_size=65_536)
    with pq.ParquetWriter(folder / "out.parquet", rows.schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(batch)


# -- from Parquet into PostgreSQL -----------------------------------------------------------------------------------


def load_headrace(dsn: str, folder: Path) -> None:
    """headrace, no settings."""
    import headrace as hr

    hr.run(
        hr.Pipeline(
            name="bench",
            source=hr.FileSource(path=str(folder.parent / "lineitem.parquet")),
            destination=hr.PostgresDestination(dsn=dsn, table="bench.loaded_headrace"),
        )
    )


def load_psql_floor(dsn: str, folder: Path) -> None:
    """Psql COPY FROM a ready file (FORMAT binary), into a table that is there."""
    ready = folder.parent / "lineitem.bin"
    copy = rf"\copy bench.loaded_floor FROM '{ready}' (FORMAT binary)"
    make = f"CREATE TABLE bench.loaded_floor (LIKE public.{TABLE})"
    subprocess.run(["psql", dsn, "-q", "-c", make, "-c", copy], check=True)


def load_adbc(dsn: str, folder: Path) -> None:
    """ADBC's bulk ingest of the same Parquet file."""
    import adbc_driver_postgresql.dbapi as adbc
    import pyarrow.dataset as ds

    rows = ds.dataset(folder.parent / "lineitem.parquet").scanner(batch_size=65_536).to_reader()
    with adbc.connect(_uri(dsn)) as target, target.cursor() as cursor:
        cursor.adbc_ingest("loaded_adbc", rows, db_schema_name="bench", mode="create")
        target.commit()


# -------------------------------------------------------------------------------------------------------------------


def _arrow(dsn: str) -> Any:
    """The table as a RecordBatchReader, by COPY CSV through psycopg in blocks of a megabyte."""
    import io

    import psycopg

    connection = psycopg.connect(dsn)

    def blocks() -> Iterator[bytes]:
        waiting, size = [], 0
        with connection.cursor().copy(f"COPY {TABLE} TO STDOUT (FORMAT csv)") as copy:
            for row in copy:
                waiting.append(row)
                size += len(row)
                if size > 1 << 20:
                    yield b"".join(waiting)
                    waiting, size = [], 0
        yield b"".join(waiting)

    class Stream(io.RawIOBase):
        left, feed = b"", blocks()

        def readable(self) -> bool:
            return True

        def readinto(self, into: Any) -> int:
            if not self.left:
                self.left = next(self.feed, b"")
            taken = min(len(into), len(self.left))
            into[:taken], self.left = self.left[:taken], self.left[taken:]
            return taken

    return _read(Stream(), dsn)


def _piped(dsn: str) -> Any:
    """The same, by psql at the other end of a pipe: no row passes through Python."""
    command = ["psql", dsn, "-qc", f"COPY {TABLE} TO STDOUT (FORMAT csv)"]
    return _read(subprocess.Popen(command, stdout=subprocess.PIPE).stdout, dsn)


def _read(stream: Any, dsn: str) -> Any:
    import psycopg
    import pyarrow as pa
    from pyarrow import csv

    money, text, day = pa.decimal128(15, 2), pa.string(), pa.date32()
    kinds = [pa.int64(), pa.int64(), pa.int64(), pa.int32(), money, money, money, money, text, text, day, day, day]
    kinds += [text, text, text]
    with psycopg.connect(dsn) as connection:
        names = [row[0] for row in connection.execute(f"SELECT * FROM {TABLE} LIMIT 0").description or ()]
    return csv.open_csv(
        stream,
        csv.ReadOptions(column_names=names, block_size=1 << 20),
        convert_options=csv.ConvertOptions(
            column_types=dict(zip(names, kinds, strict=True)),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )


def _dlt(dsn: str, folder: Path, backend: str) -> None:
    import dlt
    from dlt.sources.sql_database import sql_table

    pipeline = dlt.pipeline(
        "bench",
        destination=dlt.destinations.duckdb(str(folder / "out.duckdb")),
        dataset_name="main_",
        pipelines_dir=str(folder / "dlt"),
    )
    rows = sql_table(credentials=_uri(dsn), table=TABLE, schema="public", backend=backend)
    pipeline.run(rows, write_disposition="replace", loader_file_format="parquet")


def _uri(dsn: str) -> str:
    words = dict(word.split("=", 1) for word in dsn.split())
    return f"postgresql://{words['user']}@{words['host']}:{words['port']}/{words['dbname']}"


CONTESTANTS: dict[str, Callable[[str, Path], None]] = {
    name: work
    for name, work in list(globals().items())
    if name.startswith(("duckdb_", "parquet_", "load_")) and callable(work)
}

if __name__ == "__main__":
    CONTESTANTS[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))

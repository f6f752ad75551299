"""W5: ten rows of CSV into DuckDB, the whole process."""

from __future__ import annotations

from pathlib import Path

MARK = 1.3
_ROWS = "id,name,price,day\n" + "".join(f"{n},name {n},{n}.25,2024-01-{n + 1:02}\n" for n in range(10))


def _file(data: Path, out: Path) -> None:
    del data
    (out / "ten.csv").write_text(_ROWS)


setup_headrace = setup_floor_polars = setup_peer_dlt = _file


def headrace(data: Path, out: Path) -> None:
    """headrace, no settings."""
    import headrace as hr

    del data
    hr.run(
        hr.Pipeline(
            name="ten",
            source=hr.FileSource(path=str(out / "ten.csv")),
            destination=hr.DuckDBDestination(path=str(out / "w.duckdb"), table="ten"),
        )
    )


def floor_polars(data: Path, out: Path) -> None:
    """Bare Polars into DuckDB, in one transaction with a ledger's row."""
    import duckdb
    import polars as pl

    del data
    events = pl.read_csv(out / "ten.csv", try_parse_dates=True)  # noqa: F841  # DuckDB finds it by its name
    with duckdb.connect(out / "w.duckdb") as con:
        con.execute("BEGIN")
        con.execute("CREATE TABLE ten AS FROM events")
        con.execute("CREATE TABLE ledger (number BIGINT, file VARCHAR, done TIMESTAMPTZ)")
        con.execute("INSERT INTO ledger VALUES (1, 'ten.csv', now())")
        con.execute("COMMIT")


def peer_dlt(data: Path, out: Path) -> None:
    """dlt, as it comes."""
    import dlt
    from dlt.sources.filesystem import filesystem, read_csv

    del data
    rows = filesystem(bucket_url=f"file://{out}", file_glob="ten.csv") | read_csv()
    pipeline = dlt.pipeline(
        "w",
        destination=dlt.destinations.duckdb(str(out / "w.duckdb")),
        dataset_name="loaded",
        pipelines_dir=str(out / "dlt"),
    )
    pipeline.run(rows.with_name("ten"))


RESULT = ("w.duckdb", "ten")

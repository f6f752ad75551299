"""W4: a run that finds nothing new among 10,000 files that it has seen."""

from __future__ import annotations

import os
from pathlib import Path

MARK = 1.5
FILES = int(os.environ.get("FILES", "10000"))


def _files(out: Path) -> None:
    (out / "in").mkdir()
    for n in range(FILES):
        (out / "in" / f"{n:06}.csv").write_text(f"id,name\n{n},row {n}\n")


def _run(out: Path) -> None:
    import headrace as hr

    hr.run(
        hr.Pipeline(
            name="events",
            source=hr.FileSource(path=str(out / "in" / "*.csv")),
            destination=hr.DuckDBDestination(path=str(out / "w.duckdb"), table="events"),
        )
    )


def setup_headrace(data: Path, out: Path) -> None:
    """The first load."""
    del data
    _files(out)
    _run(out)


def headrace(data: Path, out: Path) -> None:
    """headrace, no settings."""
    del data
    _run(out)


def setup_floor_duckdb(data: Path, out: Path) -> None:
    """The first load."""
    import duckdb

    del data
    _files(out)
    with duckdb.connect(out / "w.duckdb") as con:
        con.execute(f"CREATE TABLE events AS FROM '{out / 'in' / '*.csv'}'")
        con.execute("CREATE TABLE seen (name VARCHAR, size BIGINT, changed BIGINT)")
    _look(out, keep=True)


def floor_duckdb(data: Path, out: Path) -> None:
    """A script that lists, looks at each file's size and time, and anti-joins in DuckDB."""
    del data
    assert _look(out, keep=False) == 0


def _look(out: Path, *, keep: bool) -> int:
    import duckdb
    import pyarrow as pa

    found = [(entry.name, entry.stat()) for entry in os.scandir(out / "in") if entry.name.endswith(".csv")]
    files = pa.table(  # noqa: F841  # DuckDB finds it by its name
        {
            "name": [name for name, _ in found],
            "size": [about.st_size for _, about in found],
            "changed": [about.st_mtime_ns for _, about in found],
        }
    )
    with duckdb.connect(out / "w.duckdb") as con:
        new = con.execute("SELECT count(*) FROM files ANTI JOIN seen USING (name, size, changed)").fetchall()[0][0]
        if keep:
            con.execute("INSERT INTO seen FROM files")
    return int(new)


RESULT = ("w.duckdb", "events")

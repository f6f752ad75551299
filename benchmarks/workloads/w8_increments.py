"""W8: a thousand increments of a thousand rows each, in one process; each file and each commit is remembered."""

from __future__ import annotations

import os
from pathlib import Path

MARK = 2.0
INCREMENTS = int(os.environ.get("INCREMENTS", "1000"))
ROWS = 1000


def _files(data: Path, out: Path) -> None:
    del data
    (out / "in").mkdir()
    (out / "next").mkdir()
    for n in range(INCREMENTS):
        rows = "".join(f"{n * ROWS + i},name {i},{i}.25,2024-01-{i % 28 + 1:02}\n" for i in range(ROWS))
        (out / "next" / f"{n:06}.csv").write_text("id,name,price,day\n" + rows)


setup_headrace = setup_floor_duckdb = _files


def headrace(data: Path, out: Path) -> None:
    """headrace, no settings."""
    import headrace as hr

    del data
    pipeline = hr.Pipeline(
        name="events",
        source=hr.FileSource(path=str(out / "in" / "*.csv")),
        destination=hr.DuckDBDestination(path=str(out / "w.duckdb"), table="events"),
    )
    for file in sorted((out / "next").iterdir()):
        file.rename(out / "in" / file.name)
        hr.run(pipeline)


def floor_duckdb(data: Path, out: Path) -> None:
    """A thousand transactions by hand, each with a ledger's row and in a connection of its own."""
    import duckdb

    del data
    for n, file in enumerate(sorted((out / "next").iterdir())):
        with duckdb.connect(out / "w.duckdb") as con:
            con.execute("BEGIN")
            if n == 0:
                con.execute(f"CREATE TABLE events AS FROM '{file}' LIMIT 0")
                con.execute("CREATE TABLE ledger (number BIGINT, file VARCHAR PRIMARY KEY, done TIMESTAMPTZ)")
            con.execute(f"INSERT INTO events FROM read_csv('{file}', strict_mode = true, store_rejects = true)")
            con.execute("INSERT INTO ledger VALUES (?, ?, now())", [n, file.name])
            con.execute("COMMIT")


RESULT = ("w.duckdb", "events")

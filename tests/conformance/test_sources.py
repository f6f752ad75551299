"""Every source keeps the promises of `headrace.protocols.Source`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pytest

from headrace.protocols import Source
from headrace.systems.memory import MemorySource
from headrace.testing import SourceSuite

if TYPE_CHECKING:
    from server import Database


@cache
def _frames(_folder: str) -> list[pl.DataFrame]:
    return [pl.DataFrame(schema={"id": pl.Int64, "text": pl.String})]


class TestMemory(SourceSuite):
    def source(self, folder: Path) -> Source:
        return MemorySource(frames=_frames(str(folder)))

    def grow(self, folder: Path, ids: range) -> None:
        _frames(str(folder)).append(pl.DataFrame({"id": list(ids), "text": [f"row {i}" for i in ids]}))


class TestFiles(SourceSuite):
    def source(self, folder: Path) -> Source:
        from headrace.systems.files import FileSource

        return FileSource(path=str(folder / "*.csv"))

    def grow(self, folder: Path, ids: range) -> None:
        rows = "".join(f"{i},row {i}\n" for i in ids)
        (folder / f"{ids.start:05}.csv").write_text(f"id,text\n{rows}")


class TestDuckDB(SourceSuite):
    def source(self, folder: Path) -> Source:
        from headrace.cursor import Cursor
        from headrace.systems.duckdb import DuckDBSource

        return DuckDBSource(path=str(folder / "source.duckdb"), table="rows", cursor=Cursor(column="id"))

    def grow(self, folder: Path, ids: range) -> None:
        with duckdb.connect(str(folder / "source.duckdb")) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS rows (id BIGINT, text VARCHAR)")
            connection.executemany("INSERT INTO rows VALUES (?, ?)", [[i, f"row {i}"] for i in ids])


class TestPostgres(SourceSuite):
    database: Database

    @pytest.fixture(autouse=True)
    def _in_a_database(self, database: Database) -> None:
        self.database = database

    def source(self, folder: Path) -> Source:  # noqa: ARG002  # each test has a database of its own
        from headrace.systems.postgres import PostgresSource

        return PostgresSource(dsn=self.database.dsn, table="rows", cursor="id")

    def grow(self, folder: Path, ids: range) -> None:  # noqa: ARG002  # the same
        self.database.run("CREATE TABLE IF NOT EXISTS rows (id bigint PRIMARY KEY, text text)")
        self.database.run("INSERT INTO rows SELECT i, 'row ' || i FROM unnest(%s::int8[]) AS i", [list(ids)])

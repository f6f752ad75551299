"""Every destination keeps the promises of `headrace.protocols.Destination`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest

from headrace.errors import ConfigError, RejectedError
from headrace.protocols import Destination
from headrace.systems.duckdb import DuckDBDestination
from headrace.systems.memory import MemoryDestination
from headrace.systems.outfile import FileDestination
from headrace.systems.parquet import ParquetDestination
from headrace.testing import DestinationSuite
from headrace.testing.destination.subject import only
from headrace.testing.scripts import Step, commit_of
from headrace.writes import Replace, Write


@cache
def _memory(_folder: str) -> MemoryDestination:
    return MemoryDestination()


class TestMemory(DestinationSuite):
    durable = False
    examples = 2  # it is compared with itself

    def destination(self, folder: Path) -> Destination:
        return _memory(str(folder))

    def shared(self, folder: Path) -> Destination:
        return replace(_memory(str(folder)), adopt=True)


class TestDuckDB(DestinationSuite):
    examples = 8

    def destination(self, folder: Path) -> Destination:
        return DuckDBDestination(path=str(folder / "target.duckdb"), table="rows")

    def shared(self, folder: Path) -> Destination:
        return DuckDBDestination(path=str(folder / "target.duckdb"), table="rows", adopt=True)

    def drop(self, folder: Path) -> bool:
        with duckdb.connect(str(folder / "target.duckdb")) as connection:
            connection.execute("DROP TABLE rows")
        return True

    def effects(self) -> Sequence[tuple[Any, str]]:
        """Inside a transaction nothing outlives the process before its COMMIT."""
        from headrace.systems.duckdb import connection

        return [(duckdb, "connect"), (connection, "_commit"), (connection, "_close")]

    @only("append", "merge")
    def test_a_run_killed_at_every_effect_ends_as_a_calm_run(self, tmp_path: Path, write: str, usual: Write) -> None:
        """All writes are one transaction: the plainest and one that compares stand for all."""
        super().test_a_run_killed_at_every_effect_ends_as_a_calm_run(tmp_path, write, usual)

    def warm(self, folder: Path) -> AbstractContextManager[Any]:
        return duckdb.connect(str(folder / "target.duckdb"))


class TestParquet(DestinationSuite):
    def destination(self, folder: Path) -> Destination:
        return ParquetDestination(path=str(folder / "target"))

    def shared(self, folder: Path) -> Destination:
        return ParquetDestination(path=str(folder / "target"), adopt=True)


@pytest.mark.parametrize("name", ["n" * 300, "a\0b"])
@pytest.mark.parametrize(
    "made",
    [
        lambda path: DuckDBDestination(path=path, table="t"),
        lambda path: ParquetDestination(path=path),
        lambda path: FileDestination(path=path, format="csv"),
    ],
    ids=["duckdb", "parquet", "file"],
)
def test_a_path_that_no_file_can_have_is_an_error_in_words(tmp_path: Path, made: Any, name: str) -> None:
    step = Step(rows=[(1, "a", 1, "x", False)])

    def applied() -> None:
        destination = made(str(tmp_path / name))
        destination.apply(commit_of(destination, step, Replace()))

    for use in (applied, lambda: made(str(tmp_path / name)).history("p")):
        with pytest.raises((RejectedError, ConfigError), match=r"too long|NUL"):
            use()

"""Every destination keeps the promises of `headrace.protocols.Destination`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from headrace.protocols import Destination
from headrace.systems.memory import MemoryDestination
from headrace.testing import DestinationSuite


@cache
def _memory(_folder: str) -> MemoryDestination:
    return MemoryDestination()


class TestMemory(DestinationSuite):
    durable = False

    def destination(self, folder: Path) -> Destination:
        return _memory(str(folder))

    def shared(self, folder: Path) -> Destination:
        return replace(_memory(str(folder)), adopt=True)


class TestDuckDB(DestinationSuite):
    def destination(self, folder: Path) -> Destination:
        from headrace.systems.duckdb import DuckDBDestination

        return DuckDBDestination(path=str(folder / "target.duckdb"), table="rows")

    def shared(self, folder: Path) -> Destination:
        from headrace.systems.duckdb import DuckDBDestination

        return DuckDBDestination(path=str(folder / "target.duckdb"), table="rows", adopt=True)

    def effects(self) -> Sequence[tuple[Any, str]]:
        """Inside a transaction nothing outlives the process before its COMMIT."""
        from headrace.systems.duckdb import connection

        return [(duckdb, "connect"), (connection, "_commit"), (connection, "_close")]

    def warm(self, folder: Path) -> AbstractContextManager[Any]:
        return duckdb.connect(str(folder / "target.duckdb"))


class TestParquet(DestinationSuite):
    def destination(self, folder: Path) -> Destination:
        from headrace.systems.parquet import ParquetDestination

        return ParquetDestination(path=str(folder / "target"))

    def shared(self, folder: Path) -> Destination:
        from headrace.systems.parquet import ParquetDestination

        return ParquetDestination(path=str(folder / "target"), adopt=True)

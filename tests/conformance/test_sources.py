"""Every source keeps the promises of `headrace.protocols.Source`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import polars as pl

from headrace.protocols import Source
from headrace.systems.memory import MemorySource
from headrace.testing import SourceSuite


@cache
def _frames(_folder: str) -> list[pl.DataFrame]:
    return [pl.DataFrame(schema={"id": pl.Int64, "text": pl.String})]


class TestMemory(SourceSuite):
    def source(self, folder: Path) -> Source:
        return MemorySource(frames=_frames(str(folder)))

    def grow(self, folder: Path, ids: range) -> None:
        _frames(str(folder)).append(pl.DataFrame({"id": list(ids), "text": [f"row {i}" for i in ids]}))

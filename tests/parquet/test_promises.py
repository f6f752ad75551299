"""The Parquet folder keeps every promise of a destination, killed at every effect too."""

from __future__ import annotations

from pathlib import Path

from headrace.protocols import Destination
from headrace.systems.parquet import ParquetDestination
from headrace.testing import DestinationSuite


class TestParquet(DestinationSuite):
    def destination(self, folder: Path) -> Destination:
        return ParquetDestination(path="orders", base=folder)

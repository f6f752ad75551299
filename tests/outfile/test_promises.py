"""A single file keeps every promise of a destination that replaces, killed at every effect too."""

from __future__ import annotations

from pathlib import Path

from headrace.protocols import Destination
from headrace.systems.outfile import FileDestination
from headrace.testing import DestinationSuite


class TestCSV(DestinationSuite):
    def destination(self, folder: Path) -> Destination:
        return FileDestination(path="orders.csv", base=folder)


class TestNDJSON(DestinationSuite):
    examples = 5
    moments = ("before",)  # the log is the CSV file's, which is killed after its effects too

    def destination(self, folder: Path) -> Destination:
        return FileDestination(path="orders.ndjson", base=folder)


class TestIPC(DestinationSuite):
    examples = 5
    moments = ("before",)  # the log is the CSV file's, which is killed after its effects too

    def destination(self, folder: Path) -> Destination:
        return FileDestination(path="orders.arrow", base=folder)

"""The fault suite: its two forms, and the table at its end.

    make faults                  all of it, in the full form
    pytest tests/faults          the short form, which `make test` runs too

A module is a dimension. What only the full form has is marked ``full``, or asks the fixture `full`. A test says how
many cases it has tried with ``record_property("cases", n)``; one that says nothing is one case.
"""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from forge import Forge
    from server import Database

sys.path.insert(0, str(Path(__file__).parent))

_HERE = "tests/faults/"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", choices=("short", "full"), default="short", help="how much the fault suite tries")


def _full(config: pytest.Config) -> bool:
    return config.getoption("--faults", default="short") == "full"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: only in the full form of the fault suite")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _full(config):
        return
    left = [item for item in items if item.get_closest_marker("full") is not None]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item.get_closest_marker("full") is None]


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether this is the full form."""
    return _full(pytestconfig)


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    """Runs the command in forked processes."""
    from forge import Forge

    started = Forge()
    yield started
    started.close()


@pytest.fixture
def databases(request: pytest.FixtureRequest) -> Iterator[Callable[[Database | None], Database]]:
    """Makes fresh databases, for as long as the test runs: empty ones, or copies of one that nobody is connected to.

    No server is started before the first.
    """
    with contextlib.ExitStack() as made:

        def fresh(template: Database | None) -> Database:
            server = request.getfixturevalue("postgres")
            return made.enter_context(server.database(template="template0" if template is None else template.name))

        yield fresh


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table: dimension, cases, failures, seconds (all workers' together), and what was not tried."""
    if config.getoption("--faults", default=None) is None:  # nobody asked for this folder
        return
    lines: defaultdict[str, _Line] = defaultdict(_Line)
    # "": what went well before and after a test itself
    for outcome in ("passed", "failed", "error", ""):
        for report in terminalreporter.stats.get(outcome, ()):
            if report.nodeid.startswith(_HERE):
                lines[Path(report.nodeid.partition("::")[0]).stem.removeprefix("test_")].add(report, outcome)
    if not lines:
        return
    terminalreporter.section(f"faults, {'full' if _full(config) else 'short'} form")
    terminalreporter.write_line(f"{'dimension':<12} {'cases':>7} {'failures':>9} {'seconds':>8}")
    for dimension, line in sorted(lines.items()):
        terminalreporter.write_line(f"{dimension:<12} {line}")
    terminalreporter.write_line(f"{'together':<12} {sum(lines.values(), _Line())}")
    skipped = [r for r in terminalreporter.stats.get("skipped", ()) if r.nodeid.startswith(_HERE)]
    for reason in sorted({str(r.longrepr[2] if isinstance(r.longrepr, tuple) else r.longrepr) for r in skipped}):
        terminalreporter.write_line(f"not tried: {reason.removeprefix('Skipped: ')}")


@dataclass
class _Line:
    """One line of the table."""

    cases: int = 0
    failures: int = 0
    seconds: float = 0

    def add(self, report: pytest.TestReport, outcome: str) -> None:
        self.seconds += getattr(report, "duration", 0)  # what could not be collected has none
        self.failures += outcome in ("failed", "error")
        if outcome != "error" and report.when == "call":
            self.cases += int(dict(report.user_properties).get("cases", 1))

    def __add__(self, other: _Line) -> _Line:
        return _Line(self.cases + other.cases, self.failures + other.failures, self.seconds + other.seconds)

    def __str__(self) -> str:
        return f"{self.cases:>7,} {self.failures:>9,} {self.seconds:>8.0f}"

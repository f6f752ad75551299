"""Conformance suites for sources and destinations, faults, and a harness that kills. Needs pytest and Hypothesis.

    class TestMyDestination(DestinationSuite):
        def destination(self, folder: Path) -> Destination:
            return MyDestination(path=str(folder / "target"), table="rows")

Each test has the name of the promise that it holds the system to (see `headrace.protocols`). The memory system
is the reference: a destination must hold what memory holds after the same commits.
"""

import pytest

pytest.register_assert_rewrite("headrace.testing.destination", "headrace.testing.sources", "headrace.testing.kill")

from headrace.testing.destination import DestinationSuite  # noqa: E402  # after the asserts are rewritten
from headrace.testing.faults import BreakStream, FailAfterApply, HoldCommit, Reject  # noqa: E402
from headrace.testing.kill import killed_at_every_effect  # noqa: E402
from headrace.testing.scripts import Step  # noqa: E402
from headrace.testing.sources import SourceSuite  # noqa: E402

__all__ = [
    "BreakStream",
    "DestinationSuite",
    "FailAfterApply",
    "HoldCommit",
    "Reject",
    "SourceSuite",
    "Step",
    "killed_at_every_effect",
]

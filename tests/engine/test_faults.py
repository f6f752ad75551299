"""Faults between the engine and a destination: tried again by the run itself, and nothing doubled."""

from __future__ import annotations

import pytest

import headrace as hr
from headrace.testing import BreakStream, FailAfterApply, Reject

PATIENT = hr.Retry(attempts=2, wait_initial=0.01, wait_max=0.01)


@pytest.mark.parametrize("fault", [Reject, FailAfterApply, BreakStream])
def test_a_run_that_meets_a_fault_once_tells_of_its_commit_and_loads_each_row_once(place, fault):
    """Done-but-answer-lost too: the pending commit is found in the ledger, and is this run's own."""
    place.write("1.csv", "id,v\n1,a\n2,b\n")
    calm = place.duckdb()
    error = hr.UnavailableError("the connection is gone")
    report = hr.run(place.pipeline(destination=fault(calm, error), write=hr.Append()), retry=PATIENT)
    assert (report.status, [c.number for c in report.commits]) == ("loaded", [1])
    assert place.rows(place.pipeline(destination=calm, write=hr.Append())) == [(1, "a"), (2, "b")]

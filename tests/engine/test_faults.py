"""Faults between the engine and a destination: tried again by the run itself, and nothing doubled."""

from __future__ import annotations

import pytest

import headrace as hr
from headrace.testing import BreakStream, FailAfterApply, HoldCommit, Reject

PATIENT = hr.Retry(attempts=2, wait_initial=0.01, wait_max=0.01)


@pytest.mark.parametrize("fault", [Reject, FailAfterApply, HoldCommit, BreakStream])
def test_a_run_that_meets_a_fault_once_tells_of_its_commit_and_loads_each_row_once(place, fault):
    """Done-but-answer-lost too, even while the system is still committing: the pending commit is asked for by its id,
    and is this run's own.
    """
    place.write("1.csv", "id,v\n1,a\n2,b\n")
    calm = place.duckdb()
    error = hr.UnavailableError("the connection is gone")
    heard = []
    report = hr.run(
        place.pipeline(destination=fault(calm, error), write=hr.Append()), retry=PATIENT, observers=[heard.append]
    )
    told = [event.message for event in heard if type(event).__name__ == "Warned"]
    assert told == ["attempt 1 of 2 failed, again in 0.0 s: the connection is gone"] == list(report.warnings)
    assert (report.status, [c.number for c in report.commits]) == ("loaded", [1])
    assert place.rows(place.pipeline(destination=calm, write=hr.Append())) == [(1, "a"), (2, "b")]


class Gone(hr.MemoryDestination):
    """A system that is never there."""

    def inspect(self, _pipeline):
        raise hr.UnavailableError("not there")


@pytest.mark.parametrize("timeout", [None, 3600])
def test_a_runs_timeout_does_not_lengthen_a_retrys_own(place, timeout):
    place.write("1.csv", "id\n1\n")
    waits = []
    short = hr.Retry(attempts=50, wait_initial=1, wait_max=1, jitter=0, timeout=0.5, sleep=waits.append)
    with pytest.raises(hr.UnavailableError):
        hr.run(place.pipeline(destination=Gone()), retry=short, timeout=timeout)
    assert waits == []


class ConflictsWithItself(FailAfterApply):
    """A driver that sends the commit again by itself, and hears that the target has moved."""

    def __init__(self, destination):
        super().__init__(destination, hr.ConflictError("the target is at commit 1, this run began at 0"))


def test_a_conflict_with_the_runs_own_commit_is_no_failure(place):
    place.write("1.csv", "id,v\n1,a\n")
    report = hr.run(place.pipeline(destination=ConflictsWithItself(place.duckdb()), write=hr.Append()))
    assert (report.status, [c.number for c in report.commits]) == ("loaded", [1])
    assert place.rows(place.pipeline(write=hr.Append())) == [(1, "a")]


def test_a_target_that_is_away_when_the_run_begins_is_asked_again(place):
    class Starting(hr.MemoryDestination):
        def hold(self, pipeline, holder):
            if not asked:
                asked.append(1)
                raise hr.UnavailableError("the server is starting")
            return super().hold(pipeline, holder)

    asked = []
    place.write("1.csv", "id\n1\n")
    report = hr.run(place.pipeline(destination=Starting()), retry=PATIENT)
    assert report.status == "loaded"
    assert list(report.warnings) == ["attempt 1 of 2 failed, again in 0.0 s: the server is starting"]

"""SIGKILL at every system call that makes something durable or visible, then in the recovery, then the recovery.

A kill strikes at the entry of a call: what it would have done is undone, all before it is done. So the kills at all
calls of a trace show every state that a run can leave, but for those in the midst of one call. Runs are of one thread
where they can be, and it is asserted that each kill struck (see `crash.positions` for which calls are tried).
"""

from __future__ import annotations

import random

import pytest
from crash import Crashes, positions, stages
from forge import strace
from scenario import DESTINATIONS, SOURCES, WRITES, Scenario, scenarios

pytestmark = pytest.mark.skipif(strace() is not None, reason=str(strace()))

_SHORT = {"csv-merge-duckdb": 3, "csv-partitions-parquet": 3, "sqlite-merge-postgres": 2}
_INCREMENT = 2
_REFRESHED = ("csv-merge-duckdb", "csv-merge-postgres", "csv-partitions-parquet", "csv-replace-file")


def _rotating() -> list[Scenario]:
    """Each other source with each destination, and with each write."""
    found = []
    for i, source in enumerate(SOURCES[1:]):
        for j, destination in enumerate(DESTINATIONS):
            fits = list(scenarios(sources=[source], destinations=[destination]))
            found.append(fits[(i + 2 * j) % len(fits)])
    left = {(s, w) for s in SOURCES[1:] for w in WRITES} - {(one.source, one.write) for one in found}
    found += [one for s, w in sorted(left) if not (one := Scenario(s, w, "duckdb")).refused]
    return found


def _tried(scenario, tmp_path, forge, request, record_property, wanted=(2,), few=None):
    server = request.getfixturevalue("postgres") if scenario.needs_database else None
    crashes = Crashes(forge, tmp_path, server, seed=str(scenario))
    for stage in stages(scenario, tmp_path, forge, server, wanted):
        calls = positions(stage.calls, once=stage.number != _INCREMENT)
        if few is not None:
            calls = random.Random(str(scenario)).sample(calls, few)  # noqa: S311
        for call in calls:
            crashes.at(stage, call)
    record_property("cases", crashes.cases)
    assert crashes.twice, "no recovery was killed"
    assert crashes.missed <= crashes.cases // 5, f"{crashes.missed} calls were not struck"


@pytest.mark.parametrize("scenario", [pytest.param(s, id=str(s)) for s in scenarios() if str(s) in _SHORT])
def test_a_run_killed_at_a_call_and_in_its_recovery_ends_as_calm(scenario, tmp_path, forge, request, record_property):
    _tried(scenario, tmp_path, forge, request, record_property, few=_SHORT[str(scenario)])


@pytest.mark.full
@pytest.mark.parametrize("scenario", [pytest.param(s, id=str(s)) for s in scenarios(sources=["csv"])])
def test_a_run_killed_at_every_call_ends_as_calm(scenario, tmp_path, forge, request, record_property):
    """The increment at every call, the first load (and a full refresh) at the first call of each kind."""
    wanted = (1, 2, 3) if str(scenario) in _REFRESHED else (1, 2)
    _tried(scenario, tmp_path, forge, request, record_property, wanted)


@pytest.mark.full
@pytest.mark.parametrize("scenario", [pytest.param(s, id=str(s)) for s in _rotating()])
def test_a_run_of_any_source_killed_at_some_calls_ends_as_calm(scenario, tmp_path, forge, request, record_property):
    _tried(scenario, tmp_path, forge, request, record_property, few=4)

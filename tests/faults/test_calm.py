"""What all other dimensions rest on: without a fault every scenario runs, and two runs of it leave the same."""

from __future__ import annotations

import pytest
from scenario import STAGES, Laid, Scenario, scenarios

_SHORT = (Scenario("csv", "merge", "duckdb"), Scenario("sqlite", "append", "parquet"))


def test_no_dimension_of_the_suite_is_empty():
    every = list(scenarios())
    assert {s.source for s in every} >= {"csv", "sqlite", "table", "postgres"}
    assert {s.destination for s in every} == {"duckdb", "postgres", "parquet", "file"}


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(s, id=str(s), marks=[] if s in _SHORT else [pytest.mark.full]) for s in scenarios()],
)
def test_two_calm_runs_leave_the_same(scenario, tmp_path, databases, forge):
    # one of them in a process that was started, and not forked: the forge is the command
    ways = [Laid.run if scenario == _SHORT[0] else forge.run, forge.run]
    one, two = (_calm(scenario, tmp_path / str(n), databases, way) for n, way in enumerate(ways))
    for n, stage in enumerate(one):
        for part in stage:
            assert (n, part, stage[part]) == (n, part, two[n][part])


def _calm(scenario, folder, databases, run):
    laid = scenario.laid(folder, databases(None) if scenario.needs_database else None)
    looks = []
    for _ in STAGES:
        laid.advance(run)
        done = run(laid)
        assert getattr(done, "code", getattr(done, "returncode", None)) == 0, getattr(done, "stderr", done)
        looks.append(laid.look())
    return looks

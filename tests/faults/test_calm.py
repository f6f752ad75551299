"""What all other dimensions rest on: without a fault every scenario runs, and two runs of it leave the same."""

from __future__ import annotations

import pytest
from scenario import STAGES, Scenario, scenarios

_SHORT = (Scenario("csv", "merge", "duckdb"), Scenario("sqlite", "append", "parquet"))


def test_no_dimension_of_the_suite_is_empty():
    every = list(scenarios())
    assert {s.source for s in every} >= {"csv", "sqlite", "table", "postgres"}
    assert {s.destination for s in every} == {"duckdb", "postgres", "parquet", "file"}


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(s, id=str(s), marks=[] if s in _SHORT else [pytest.mark.full]) for s in scenarios()],
)
def test_two_calm_runs_leave_the_same(scenario, tmp_path, databases):
    looks = []
    for n in range(2):
        laid = scenario.laid(tmp_path / str(n), databases(None) if scenario.needs_database else None)
        looks.append([])
        for _ in STAGES:
            laid.advance()
            done = laid.run()
            assert done.returncode == 0, done.stderr
            looks[-1].append(laid.look())
    assert looks[0] == looks[1]

"""Bytes, then names, then the commit, then what readers see: on the trace of a run, for each destination of files."""

from __future__ import annotations

import pytest
from crash import stages
from forge import strace
from order import disorder
from scenario import Scenario, scenarios

pytestmark = pytest.mark.skipif(strace() is not None, reason=str(strace()))

_SHORT = (Scenario("csv", "partitions", "parquet"), Scenario("csv", "replace", "file"))
_FULL = list(scenarios(sources=["csv"], destinations=["duckdb", "parquet", "file"]))


@pytest.mark.parametrize(
    "scenario", [pytest.param(s, id=str(s), marks=[] if s in _SHORT else [pytest.mark.full]) for s in _FULL]
)
def test_what_a_run_says_is_on_the_disk_before_it_says_so(scenario, full, tmp_path, forge, record_property):
    wanted = (1, 2, 3) if full else (1, 2)
    tried = 0
    for stage in stages(scenario, tmp_path, forge, None, wanted):
        assert any(call.in_target for call in stage.calls)
        there = [str(path.relative_to(stage.before.folder)) for path in stage.before.target.rglob("*")]
        assert disorder(stage.calls, there) == [], f"stage {stage.number}"
        tried += 1
        if scenario in _SHORT:
            tried += _all_needed(stage.calls)
    record_property("cases", tried)


def _all_needed(calls) -> int:
    """Without the fsyncs of any one kind the order is wrong: what is asked for is enough to tell."""
    kinds = {c.kind for c in calls if "sync" in c.name and c.in_target and "/runs" not in c.kind}
    for kind in kinds:
        assert disorder([c for c in calls if not ("sync" in c.name and c.kind == kind)]), (
            f"fsync of {kind} is not needed"
        )
    return len(kinds)

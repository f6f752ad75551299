"""The suite itself: where the code is broken on purpose, it fails."""

from __future__ import annotations

import pytest
from crash import Crashes, stages
from forge import strace
from order import disorder
from scenario import Scenario

_TRACED = pytest.mark.skipif(strace() is not None, reason=str(strace()))
_PARQUET = Scenario("csv", "partitions", "parquet")


@_TRACED
@pytest.mark.parametrize(
    ("broken", "scenario", "at"),
    [
        ("the_ledger_is_outside_the_transaction", Scenario("csv", "append", "duckdb"), "target/w.duckdb.wal"),
        pytest.param(
            "the_ledger_is_outside_the_servers_transaction",
            Scenario("csv", "append", "postgres"),
            "the server",
            marks=pytest.mark.full,
        ),
    ],
)
def test_kills_find_rows_that_are_committed_without_their_position(broken, scenario, at, tmp_path, forge, request):
    server = request.getfixturevalue("postgres") if scenario.needs_database else None
    crashes = Crashes(forge, tmp_path, server, broken=broken)
    for stage in stages(scenario, tmp_path, forge, server, wanted=(2,), broken=broken):
        with pytest.raises(AssertionError, match="rows is"):
            _killed_at(crashes, stage, at)


def _killed_at(crashes, stage, kind):
    for call in stage.calls:
        if call.kind == kind:
            crashes.at(stage, call)


@_TRACED
@pytest.mark.parametrize(
    "broken",
    [
        "folders_are_not_synced",
        "files_are_not_synced",
        "entries_are_not_synced",
        "the_entry_comes_after_the_files",
    ],
)
def test_the_order_on_the_trace_finds_a_missing_fsync(broken, tmp_path, forge):
    for stage in stages(_PARQUET, tmp_path, forge, None, wanted=(1,), broken=broken):
        assert disorder(stage.calls)

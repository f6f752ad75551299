"""Any sequence of what sources, runs, faults and people do leaves in the target what a plain model says.

In the full form each run tries other sequences; the seed of one that fails is printed, and HEADRACE_FAULTS_SEED takes
it again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

import pytest
from cursors import Late, Table
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from machines import Files

full = pytest.mark.full
Tried = Callable[..., None]


@pytest.fixture
def tried(full: bool, record_property: Callable[[str, object], None]) -> Tried:
    """Run a machine: a few sequences, always the same; in the full form many new ones."""

    def run(machine: type[RuleBasedStateMachine], *, short: int, long: int, **parts: str) -> None:
        made = type(machine.__name__, (machine,), dict(parts))
        examples = long if full else short
        record_property("cases", examples)
        if full:
            number = int(os.environ.get("HEADRACE_FAULTS_SEED") or secrets.randbits(32))
            print(f"HEADRACE_FAULTS_SEED={number}")  # noqa: T201  # pytest shows it where the test fails
            made = seed(number)(made)
        run_state_machine_as_test(
            made,
            settings=settings(
                max_examples=examples,
                stateful_step_count=20 if full else 8,
                derandomize=not full,
                database=None,
                deadline=None,
                phases=[Phase.generate],  # a sequence is short as it is, and shrinking it would take minutes
                suppress_health_check=list(HealthCheck),
            ),
        )

    return run


@pytest.mark.parametrize(
    ("write", "destination"),
    [
        ("merge", "duckdb"),
        ("append", "duckdb"),
        ("history", "duckdb"),
        ("recompute", "duckdb"),
        ("partitions", "parquet"),
        pytest.param("append", "parquet", marks=full),
        pytest.param("partitions", "duckdb", marks=full),
    ],
)
def test_files_that_come_are_in_the_target_as_the_model_has_them(tried, write, destination):
    tried(Files, short=2, long=12, write=write, destination=destination)


@full
@pytest.mark.parametrize("write", ["append", "merge", "history", "recompute", "partitions"])
def test_files_that_come_are_in_postgres_as_the_model_has_them(tried, database, write):
    tried(Files, short=2, long=8, write=write, destination=database.dsn)


@pytest.mark.parametrize(("write", "system"), [("append", "duckdb"), ("append", "sqlite"), ("merge", "duckdb")])
def test_what_a_cursor_reads_is_in_the_target_once(tried, write, system):
    tried(Table, short=2, long=25, write=write, system=system)


@full
@pytest.mark.parametrize("write", ["append", "merge"])
@pytest.mark.parametrize("cursor", ["at", "number"])
def test_rows_that_commit_late_are_in_the_target_in_the_end(tried, database, cursor, write):
    tried(Late, short=2, long=12, dsn=database.dsn, cursor=cursor, write=write)

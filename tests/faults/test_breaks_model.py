"""The model fails where the code is broken on purpose, and the same steps pass where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cursors import Table
from machines import Files

import headrace as hr
from headrace.cursor import tracking
from headrace.flow import Commit, Receipt
from headrace.systems.duckdb import merging
from headrace.testing import faults


@contextmanager
def stepped(kind: type[Any], **parts: str) -> Iterator[Callable[..., None]]:
    """A machine, and a call that takes one step and asks the model."""
    machine = type(kind.__name__, (kind,), parts)()
    check = getattr(machine, "the_target_holds_what_the_model_says", None) or machine.the_target_holds_what_was_read

    def step(name: str, **how: Any) -> None:
        getattr(machine, name)(**how)
        check()

    try:
        yield step
    finally:
        machine.teardown()


CALM = {"fault": "none", "again": False}


def ties(step: Callable[..., None]) -> None:
    """A row that comes later and has the cursor's last value."""
    step("rows_come", rows=[(1, 3, 0)])
    step("it_runs", **CALM)
    step("rows_come", rows=[(2, 3, 0)])
    step("it_runs", **CALM)


def late(step: Callable[..., None]) -> None:
    """An older row that comes after the newer one."""
    step("a_file_comes", rows=[(1, 4, "a", 1, "I", "e")])
    step("it_runs", verb="run", **CALM)
    step("a_file_comes", rows=[(1, 2, "a", 3, "I", "e")])
    step("it_runs", verb="run", **CALM)


def again(step: Callable[..., None]) -> None:
    """A replay and a refresh leave the position as it is, and are commits all the same."""
    step("a_file_comes", rows=[(1, 4, "a", -1, "I", "e"), (2, 4, "a", 1, "I", "e")])
    step("it_runs", verb="run", **CALM)
    step("the_contract_is_relaxed_for_a_replay")
    step("it_runs", verb="refresh", fault="lost", again=True)


def excluded(monkeypatch: pytest.MonkeyPatch) -> None:
    """``>`` for ``>=`` in the cursor."""
    begin = tracking._Reader.begin

    def broken(self: Any, *args: Any) -> None:
        begin(self, *args)
        self.inclusive = False

    monkeypatch.setattr(tracking._Reader, "begin", broken)


def uncompared(monkeypatch: pytest.MonkeyPatch) -> None:
    """`latest_by` is not compared with the target."""
    monkeypatch.setattr(merging, "_drop_late", lambda _load, _write: None)


def by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit is known by its position, and not by its id."""
    apply = hr.DuckDBDestination.apply

    def broken(self: hr.DuckDBDestination, commit: Commit) -> Receipt:
        sent = faults._sent(commit)
        held = self.inspect(commit.pipeline)
        positions = sent.seal().positions
        if held.head is not None and all(held.positions.get(name) == at for name, at in positions.items()):
            return Receipt(id=held.head, number=held.number, repeated=True)
        return apply(self, sent)

    monkeypatch.setattr(hr.DuckDBDestination, "apply", broken)


@pytest.mark.parametrize(
    ("broken", "script", "kind", "parts"),
    [
        (excluded, ties, Table, {"write": "append"}),
        (uncompared, late, Files, {"write": "merge"}),
        (by_position, again, Files, {"write": "merge"}),
    ],
)
def test_the_model_fails_where_the_code_is_broken(monkeypatch, broken, script, kind, parts):
    with stepped(kind, **parts) as step:
        script(step)
    broken(monkeypatch)
    with stepped(kind, **parts) as step, pytest.raises(AssertionError):
        script(step)

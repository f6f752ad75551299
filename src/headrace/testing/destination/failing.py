"""Faults and deaths: whatever happens on the way, a run ends as a calm run does."""

# ruff: noqa: S101, D102  # these are tests, and their names say the promise

from __future__ import annotations

import inspect
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace.errors import ConflictError, UnavailableError
from headrace.testing.destination.subject import KILLED, REJECTED, Run, Subject, made
from headrace.testing.faults import BreakStream, FailAfterApply, HoldCommit, Reject
from headrace.testing.kill import killed, killed_at_every_effect, resolve
from headrace.testing.scripts import PIPELINE, WRITES, holds, play

if TYPE_CHECKING:
    from headrace.flow import Commit, Receipt
    from headrace.protocols import Destination
    from headrace.writes import Write

__all__ = ["Failing"]

_FREED_SECONDS = 10.0
_ATTEMPTS = 4


class Failing(Subject):
    """Scripted faults, and SIGKILL at every effect."""

    def test_a_run_with_faults_ends_as_a_calm_run(self, tmp_path: Path, write: str) -> None:
        """Each commit is refused, then its stream breaks, then its answer is lost; and each is held, in a run more."""
        calm = made(tmp_path / "calm")
        with self.warm(calm):
            play(self.destination(calm), REJECTED, WRITES[write])
        for name, faulty in (("faults", _faults), ("held", HoldCommit)):
            folder = made(tmp_path / name)
            with self.warm(folder):
                for n in range(1, len(REJECTED) + 1):
                    play(faulty(self.destination(folder)), REJECTED[:n], WRITES[write], apply=again)
            assert holds(self.destination(folder)) == holds(self.destination(calm)), name
            assert self.left_over(folder) == self.left_over(calm), name

    def test_a_run_killed_at_every_effect_ends_as_a_calm_run(self, tmp_path: Path, write: str, usual: Write) -> None:
        if not self.durable:
            pytest.skip("it does not outlive its process")
        suite = f"{inspect.getfile(type(self))}:{type(self).__qualname__}"
        effects = killed_at_every_effect(
            "headrace.testing.destination.failing:load",
            look="headrace.testing.destination.failing:look",
            folder=tmp_path,
            arguments={"suite": suite, "write": write},
            prepare=suite,
            effects="headrace.testing.destination.failing:effects",
            moments=self.moments if WRITES[write] is usual else ("before",),
        )
        assert effects > 0

    def test_a_dead_run_holds_nothing(self, tmp_path: Path) -> None:
        if not self.durable:
            pytest.skip("it does not outlive its process")
        suite = f"{inspect.getfile(type(self))}:{type(self).__qualname__}"
        killed("headrace.testing.destination.failing:die", folder=tmp_path, arguments={"suite": suite})
        with ExitStack() as stack:
            hold(self.destination(tmp_path), stack)


def load(folder: Path, suite: str, write: str) -> None:
    """The script that is killed: what a run does, and does again when it is started again."""
    destination = resolve(suite)().destination(folder)
    with ExitStack() as stack:
        hold(destination, stack)  # where a target may clear what a killed run left
        play(destination, KILLED, WRITES[write])
        destination.record({"pipeline": PIPELINE, "run": "run", "status": "loaded"})


def look(folder: Path, suite: str, write: str) -> str:  # noqa: ARG001  # the script's arguments
    """What is there after it."""
    subject = resolve(suite)()
    return repr((holds(subject.destination(folder)), subject.left_over(folder)))


def effects(suite: str, write: str) -> Sequence[tuple[Any, str]]:  # noqa: ARG001  # the script's arguments
    """The system's own effects."""
    own: Sequence[tuple[Any, str]] = resolve(suite)().effects()
    return own


def die(folder: Path, suite: str) -> None:
    """A run that is killed while it holds the target."""
    with resolve(suite)().destination(folder).hold(PIPELINE, Run("dead")):
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()


def hold(destination: Destination, stack: ExitStack) -> None:
    """Hold the target until the stack ends. A server may free a killed client's lock a moment after its death."""
    until = time.monotonic() + _FREED_SECONDS
    while True:
        try:
            stack.enter_context(destination.hold(PIPELINE, Run("run")))
        except ConflictError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def again(destination: Destination, commit: Commit) -> Receipt:
    """What the engine does with an attempt that failed: it asks what became of it, and tries again."""
    for _ in range(_ATTEMPTS):
        try:
            return destination.apply(commit)
        except UnavailableError:
            if (receipt := destination.settle(commit.pipeline, commit.id)) is not None:
                return receipt
    pytest.fail("it does not come about")


def _faults(destination: Destination) -> Destination:
    """The first attempt is refused, the second one's stream breaks, the third one's answer is lost."""
    return Reject(BreakStream(FailAfterApply(destination, at=2)))

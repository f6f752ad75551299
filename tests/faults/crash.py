"""A run that is killed at a system call, its recovery killed too, and what is left then: as calm, or AssertionError."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forge import Forge
    from scenario import Laid, Scenario
    from server import Database, Server
    from traces import Call

__all__ = ["Crashes", "Stage", "copy", "positions", "stages"]

TRIES = 3


@dataclass
class Stage:
    """A stage of a scenario: the pipeline as it is before the run, the calm run's calls, and all that it left."""

    number: int
    before: Laid
    calls: Sequence[Call]
    expected: dict[str, Any]


@contextmanager
def copy(laid: Laid, folder: Path, server: Server | None) -> Iterator[Laid]:
    """The same in another folder, and in another database, for a while."""
    made: AbstractContextManager[Database | None] = nullcontext()
    if laid.database is not None:
        assert server is not None
        made = server.database(template=laid.database.name)
    with made as database:
        yield laid.copied(folder, database)
    shutil.rmtree(folder)


@contextmanager
def empty(server: Server | None) -> Iterator[Database | None]:
    """A database, where there is a server."""
    with nullcontext() if server is None else server.database() as database:
        yield database


def stages(
    scenario: Scenario,
    folder: Path,
    forge: Forge,
    server: Server | None,
    wanted: Sequence[int] = (1, 2, 3),
    broken: str | None = None,
) -> Iterator[Stage]:
    """The `wanted` stages, one after the other, each as it is before its run, and run calmly."""
    with empty(server) as database:
        calm = scenario.laid(folder / "calm", database)
        for number in range(1, max(wanted) + 1):
            calm.advance(forge.run)
            with copy(calm, folder / "before", server) as before:
                ran = forge.run(calm, trace=True, broken=broken)
                assert ran.code == 0, ran.err
                if number in wanted:
                    yield Stage(number, before, ran.calls, calm.look())


@dataclass
class Crashes:
    """Kills runs of one scenario. `cases` counts those that were killed, `twice` the recoveries that were, `missed` the
    calls in threads of a pool that no kill has struck; `kinds` is what they were killed at.
    """

    forge: Forge
    folder: Path
    server: Server | None = None
    seed: str = ""
    broken: str | None = None
    cases: int = 0
    twice: int = 0
    missed: int = 0
    kinds: set[tuple[str, str]] = field(default_factory=set)

    def at(self, stage: Stage, call: Call) -> None:
        """Kill at this call, kill the recovery, recover, compare. Raises AssertionError."""
        where = f"stage {stage.number}, killed at {call.name} {call.nth} of {call.kind}"
        for _ in range(TRIES):  # threads: once in a while another one is faster
            with copy(stage.before, self.folder / "killed", self.server) as laid:
                ran = self.forge.run(laid, inject=_kill(call), broken=self.broken)
                if ran.code == 0:
                    continue
                assert ran.killed, f"{where}: exit {ran.code}\n{ran.err}"
                hit = [c for c in ran.calls if (c.name, c.nth) == (call.name, call.nth) and c.unfinished]
                assert hit, f"{where}: the trace does not show it"
                self.kinds.add((hit[0].name, hit[0].kind))
                where += self._kill_again(laid, stage, where)
                self._recover(laid, stage, where)
                self.cases += 1
                return
        # the work of a pool's threads is shared out by chance
        assert call.thread != stage.calls[0].thread or not call.in_target, f"{where}: it ended before it was killed"
        self.missed += 1

    def _kill_again(self, laid: Laid, stage: Stage, where: str) -> str:
        chance = random.Random(f"{self.seed} {where}")  # noqa: S311  # the same in each run of the suite
        again = chance.choice([call for call in stage.calls if call.lasting])
        ran = self.forge.run(laid, inject=_kill(again), broken=self.broken, arguments=_waiting(laid))
        assert ran.killed or ran.code == 0, f"{where}; then at {again.name} {again.nth}: exit {ran.code}\n{ran.err}"
        self.twice += ran.killed
        return f"; the recovery at {again.name} {again.nth}, of {again.kind}" if ran.killed else ""

    def _recover(self, laid: Laid, stage: Stage, where: str) -> None:
        ran = self.forge.run(laid, broken=self.broken, arguments=_waiting(laid))
        assert ran.code == 0, f"{where}; started again, exit {ran.code}\n{ran.err}"
        seen = laid.look()
        # who asks for a full refresh once more gets one more
        told = () if "--full-refresh" not in laid.arguments else ("number", "commits", "folder")
        different = [key for key, value in stage.expected.items() if seen[key] != value and key not in told]
        assert not different, f"{where}: " + "; ".join(
            f"{key} is {seen[key]}, calm it is {stage.expected[key]}" for key in different
        )


def positions(calls: Sequence[Call], *, once: bool = False) -> list[Call]:
    """The calls at which a kill can tell something new.

    Of calls of one kind in a row the first and the last (before anything of it was done; before the last of it was).
    Of those outside the target, whose effect no other run sees, the first of each kind; with `once` of all calls. And
    of the calls that count the same in several threads only the earliest: there a kill by number strikes.
    """
    earliest: dict[tuple[str, int], Call] = {}
    for call in calls:
        earliest.setdefault((call.name, call.nth), call)
    chosen: list[Call] = []
    known: set[tuple[str, str]] = set()
    for before, call, after in zip([None, *calls], calls, [*calls[1:], None], strict=False):
        alike = [other is not None and (other.name, other.kind) == (call.name, call.kind) for other in (before, after)]
        new = (call.name, call.kind) not in known
        struck = call.lasting and earliest[call.name, call.nth] is call
        if struck and (new if once or not call.in_target else not all(alike)):
            known.add((call.name, call.kind))
            chosen.append(call)
    return chosen


def _kill(call: Call) -> str:
    return f"{call.name}:signal=SIGKILL:when={call.nth}"


def _waiting(laid: Laid) -> Sequence[str]:
    """A server may need a moment to see that a client has gone."""
    return (*laid.arguments, "--wait", "20s") if laid.database is not None else laid.arguments

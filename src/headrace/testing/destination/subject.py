"""What a destination is tested with: the suite's parameters, and the scripts that its tests play."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pytest

from headrace.frozen import frozen
from headrace.systems.memory import MemoryDestination
from headrace.testing.kill import shape
from headrace.testing.scripts import WRITES, Holding, Step, holds, play, reject

if TYPE_CHECKING:
    from headrace.protocols import Destination
    from headrace.writes import Write

__all__ = [
    "FIRST",
    "KILLED",
    "REJECTED",
    "SECOND",
    "STEPS",
    "THIRD",
    "Run",
    "Subject",
    "files_of",
    "made",
    "memory",
    "only",
]

Test = TypeVar("Test", bound=Callable[..., None])

FIRST = Step(rows=[(1, "a", 1, "one", False), (2, "b", 1, "two", False), (3, None, None, "three", None)])
SECOND = Step(rows=[(2, "b", 3, "two!", False), (1, "a", 2, None, True), (4, "c", 1, "four", False)])
THIRD = Step(rows=[(1, "a", 1, "late", False), (4, "c", 4, "four!", False), (5, None, 1, "", False)], wide=True)
STEPS = (FIRST, SECOND, THIRD)
KILLED = (
    Step(rows=FIRST.rows, rejects=[reject("r1", key='["2"]'), reject("r2", file="1.csv")]),
    Step(rows=SECOND.rows, rejects=[reject("r3", key='["9"]')], wide=True),
)
REJECTED = (
    Step(rows=FIRST.rows, rejects=[reject("r1", key='["2"]'), reject("r2", file="1.csv")]),
    Step(rows=SECOND.rows, rejects=[reject("r3", key='["9"]')]),
    THIRD,
)


@frozen
class Run:
    """Who holds a target."""

    run: str


def only(*writes: str) -> Callable[[Test], Test]:
    """The test is about these writes: its `write` is each of them that the destination supports."""

    def marked(test: Test) -> Test:
        test.__dict__["writes"] = writes
        marked_too: Test = pytest.mark.usefixtures("write")(test)
        return marked_too

    return marked


class Subject:
    """The destination under test. `durable` is False for one that does not outlive its process: then nothing is
    killed. `examples` is the number of Hypothesis scripts for each write, `moments` when the plainest
    write is killed at each effect (the others only before).
    """

    durable: ClassVar[bool] = True
    examples: ClassVar[int] = 15
    moments: ClassVar[Sequence[str]] = ("before", "after")

    def destination(self, folder: Path) -> Destination:
        """The destination in this folder, with a table of any name. The same folder gives the same target, opened
        anew; an empty folder an empty target.
        """
        raise NotImplementedError

    def shared(self, folder: Path) -> Destination | None:  # noqa: ARG002  # for those who override it
        """Optional: the same target as a second pipeline gets it that writes the table too. None: a table is one
        pipeline's.
        """
        return None

    def effects(self) -> Sequence[tuple[Any, str]]:
        """Optional: what outlives the process beside files, as functions (their owner and their name): connecting,
        COMMIT. The harness that kills counts them.
        """
        return ()

    def left_over(self, folder: Path) -> Sequence[str]:
        """Optional: what lies in the target's place, the target itself too. By default the files in the folder."""
        return shape(folder)

    def drop(self, folder: Path) -> bool:  # noqa: ARG002  # for those who override it
        """Optional: drops the table in this folder as a person would, past the destination. False: nobody can."""
        return False

    def warm(self, folder: Path) -> AbstractContextManager[Any]:  # noqa: ARG002  # for those who override it
        """Optional: keeps the target in this folder open for a test of many commits, where opening it is dear."""
        return nullcontext()

    def unsupported(self, write: str) -> str | None:
        """None where the write is possible, else the hint."""
        with tempfile.TemporaryDirectory() as folder:
            return self.destination(Path(folder)).supports(write)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test that asks for `write` is made for each write that the destination supports; one that asks for `usual`
        is made once, with the plainest of them: what it is about does not depend on the write.
        """
        hints = _hints(self)
        supported = [name for name, hint in hints.items() if hint is None]
        if "usual" in metafunc.fixturenames:
            metafunc.parametrize("usual", [WRITES[supported[0]]], ids=supported[:1])
        if "write" in metafunc.fixturenames:
            wanted = metafunc.function.__dict__.get("writes", tuple(WRITES))
            hint = f"no {' or '.join(wanted)} here: {hints[wanted[0]]}"
            none = [pytest.param("", marks=pytest.mark.skip(reason=hint), id="none")]
            metafunc.parametrize("write", [name for name in wanted if name in supported] or none)


def _hints(subject: Subject) -> dict[str, str | None]:
    """Each write, and why it is not possible (None: it is); asked once for each suite, not for each of its tests."""
    kind = type(subject)
    if kind not in _asked:
        _asked[kind] = {name: subject.unsupported(name) for name in WRITES}
    return _asked[kind]


_asked: dict[type[Subject], dict[str, str | None]] = {}


def memory(steps: Sequence[Step], write: Write) -> Holding:
    """What memory holds after the steps."""
    play(memory := MemoryDestination(), steps, write)
    return holds(memory)


def made(folder: Path) -> Path:
    """The folder, which is there now."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def files_of(folder: Path) -> set[str]:
    """The names of all files in the folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}

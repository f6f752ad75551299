"""Faults as scripts: wrappers of the same shape as what they wrap.

destination = FailAfterApply(DuckDBDestination(…), at=2)     the second answer is lost
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import UnavailableError
from headrace.stream import FrameStream, scan_batches

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from headrace.flow import ArrowStream, Commit, Receipt, Snapshot
    from headrace.paths import Place
    from headrace.protocols import Destination, Holder

__all__ = ["BreakStream", "FailAfterApply", "HoldCommit", "Reject", "Wrapped"]


class Wrapped:
    """A destination that passes everything on to another one."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination

    def __getattr__(self, name: str) -> Any:
        return getattr(self.destination, name)

    def inspect(self, pipeline: str) -> Snapshot:
        """Passed on."""
        return self.destination.inspect(pipeline)

    def apply(self, commit: Commit) -> Receipt:
        """Passed on."""
        return self.destination.apply(commit)

    def settle(self, pipeline: str, id: str) -> Receipt | None:
        """Passed on."""
        return self.destination.settle(pipeline, id)

    def hold(self, pipeline: str, holder: Holder) -> AbstractContextManager[None]:
        """Passed on."""
        return self.destination.hold(pipeline, holder)

    def place(self) -> Place | None:
        """Passed on."""
        return self.destination.place()

    def supports(self, write: str) -> str | None:
        """Passed on."""
        return self.destination.supports(write)

    def record(self, run: Mapping[str, Any]) -> None:
        """Passed on."""
        self.destination.record(run)

    def history(self, pipeline: str) -> Sequence[Mapping[str, Any]]:
        """Passed on."""
        return self.destination.history(pipeline)

    def rejects(self, pipeline: str) -> pl.DataFrame:
        """Passed on."""
        return self.destination.rejects(pipeline)


class Reject(Wrapped):
    """The `at`-th apply (counted from 1) raises `error`, and nothing is done."""

    def __init__(self, destination: Destination, error: Exception | None = None, *, at: int = 1) -> None:
        super().__init__(destination)
        self.error = error or UnavailableError("a scripted fault: not now")
        self.at = at
        self._calls = itertools.count(1)

    def apply(self, commit: Commit) -> Receipt:
        """Apply, but for the one time."""
        if next(self._calls) == self.at:
            raise self.error
        return self.destination.apply(commit)


class FailAfterApply(Wrapped):
    """The `at`-th apply (counted from 1) is done, and then the answer is lost: `error` is raised."""

    def __init__(self, destination: Destination, error: Exception | None = None, *, at: int = 1) -> None:
        super().__init__(destination)
        self.error = error or UnavailableError("a scripted fault: the answer was lost")
        self.at = at
        self._calls = itertools.count(1)

    def apply(self, commit: Commit) -> Receipt:
        """Apply, and lose the answer the one time."""
        lost = next(self._calls) == self.at
        receipt = self.destination.apply(commit)
        if lost:
            raise self.error
        return receipt


class HoldCommit(Wrapped):
    """In the `at`-th apply (counted from 1) the answer to COMMIT is lost while the system is still committing: `error`
    is raised, and the commit becomes durable only afterwards, when somebody next waits for the target's lock:
    `settle` or `apply`. `inspect` does not wait, and sees the target as it was.
    """

    def __init__(self, destination: Destination, error: Exception | None = None, *, at: int = 1) -> None:
        super().__init__(destination)
        self.error = error or UnavailableError("a scripted fault: the connection was lost in COMMIT")
        self.at = at
        self._calls = itertools.count(1)
        self._held: Commit | None = None

    def apply(self, commit: Commit) -> Receipt:
        """Apply; the one time send all of it, and lose the answer."""
        self._end()
        if next(self._calls) != self.at:
            return self.destination.apply(commit)
        self._held = _sent(commit)
        raise self.error

    def settle(self, pipeline: str, id: str) -> Receipt | None:
        """Wait for the commit under way, then ask."""
        self._end()
        return self.destination.settle(pipeline, id)

    def _end(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self.destination.apply(held)


def _sent(commit: Commit) -> Commit:
    """The commit with nothing of the client's left in it: all rows drained, the seal known."""
    changes = []
    for change in commit.changes:
        rows = pl.DataFrame(change.rows())
        groups = None if change.groups is None else pl.DataFrame(change.groups())
        changes.append(replace(change, rows=_again(rows), groups=None if groups is None else _again(groups)))
    seal = commit.seal()
    if seal.rejects is not None:
        seal = replace(seal, rejects=replace(seal.rejects, rows=_again(pl.DataFrame(seal.rejects.rows()))))
    return replace(commit, changes=tuple(changes), seal=lambda: seal)


def _again(rows: pl.DataFrame) -> Callable[[], ArrowStream]:
    return lambda: FrameStream(rows.lazy())


class BreakStream(Wrapped):
    """In the `at`-th apply (counted from 1) the rows of every change end in `error` after `after_rows` rows."""

    def __init__(
        self, destination: Destination, error: Exception | None = None, *, after_rows: int = 1, at: int = 1
    ) -> None:
        super().__init__(destination)
        self.error = error or UnavailableError("a scripted fault: the stream broke")
        self.after_rows = after_rows
        self.at = at
        self._calls = itertools.count(1)

    def apply(self, commit: Commit) -> Receipt:
        """Apply, with broken streams the one time."""
        if next(self._calls) != self.at:
            return self.destination.apply(commit)
        changes = tuple(replace(c, rows=self._broken(c.rows)) for c in commit.changes)
        return self.destination.apply(replace(commit, changes=changes))

    def _broken(self, rows: Callable[[], ArrowStream]) -> Callable[[], ArrowStream]:
        def batches() -> Iterator[pl.DataFrame]:
            whole = pl.DataFrame(rows())
            for n in range(min(self.after_rows, whole.height)):
                yield whole.slice(n, 1)
            raise self.error

        def opened() -> ArrowStream:
            return FrameStream(scan_batches(batches, pl.DataFrame(rows()).schema))

        return opened

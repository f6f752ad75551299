"""The suite is worth something only if destinations that break their promises fail it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, settings

from headrace.flow import Commit, Receipt, Seal, TableChange
from headrace.protocols import Destination
from headrace.stream import FrameStream
from headrace.systems.memory import MemoryDestination
from headrace.testing import DestinationSuite
from headrace.testing.faults import Wrapped
from headrace.testing.scripts import PIPELINE, WRITES
from headrace.writes import Merge


class ForgetsIds(Wrapped):
    """Applies a commit again when its answer was lost."""

    def apply(self, commit: Commit) -> Receipt:
        number = self.destination.inspect(PIPELINE).number
        changes = tuple(replace(c, changes=() if number else c.changes) for c in commit.changes)
        again = replace(commit, id=f"{commit.id}-{number}", expected=number, changes=changes)
        return replace(self.destination.apply(again), id=commit.id)


class IgnoresExpected(Wrapped):
    """The last one wins."""

    def apply(self, commit: Commit) -> Receipt:
        return self.destination.apply(replace(commit, expected=self.destination.inspect(PIPELINE).number))


class KeepsHalf(Wrapped):
    """Keeps the rows of a commit whose seal says no."""

    def apply(self, commit: Commit) -> Receipt:
        heard: list[BaseException] = []
        calm = commit.seal

        def seal() -> Any:
            try:
                return calm()
            except BaseException as error:  # noqa: BLE001  # whatever the seal says
                heard.append(error)
                return Seal(positions={}, files={}, record={})

        receipt = self.destination.apply(replace(commit, seal=seal))
        if heard:
            raise heard[0]
        return receipt


class LastReadWins(Wrapped):
    """A late older row overwrites a newer one."""

    def apply(self, commit: Commit) -> Receipt:
        changes = [
            replace(c, write=replace(c.write, latest_by=())) for c in commit.changes if isinstance(c.write, Merge)
        ]
        return self.destination.apply(replace(commit, changes=tuple(changes)))


class KeepsDeleted(Wrapped):
    """Keeps the rows that delete their key."""

    def apply(self, commit: Commit) -> Receipt:
        changes = [replace(c, deletes=None, rows=_without(c)) for c in commit.changes]
        return self.destination.apply(replace(commit, changes=tuple(changes)))


def _without(change: TableChange) -> Callable[[], FrameStream]:
    """The rows without the column that says which of them delete their key."""
    return lambda: FrameStream(pl.DataFrame(change.rows()).drop(change.deletes or ()).lazy())


class WrapsErrors(Wrapped):
    """What a stream raised comes out as something else."""

    def apply(self, commit: Commit) -> Receipt:
        try:
            return self.destination.apply(commit)
        except Exception as error:
            raise RuntimeError(str(error)) from error


class SealsTwice(Wrapped):
    """Asks for the verdict once more."""

    def apply(self, commit: Commit) -> Receipt:
        receipt = self.destination.apply(commit)
        commit.seal()
        return receipt


S = DestinationSuite
BROKEN: list[tuple[type[Wrapped], Callable[..., None], tuple[Any, ...]]] = [
    (ForgetsIds, S.test_the_same_id_twice_gives_the_receipt_and_doubles_nothing, (WRITES["append"],)),
    (ForgetsIds, S.test_a_run_with_faults_ends_as_a_calm_run, ("append",)),
    (IgnoresExpected, S.test_a_stale_expected_is_a_conflict_and_changes_nothing, (WRITES["append"],)),
    (KeepsHalf, S.test_an_error_in_the_seal_comes_out_as_it_was_and_leaves_nothing, ("append", 1)),
    (LastReadWins, S.test_each_write_gives_what_memory_gives, ("merge",)),
    (KeepsDeleted, S.test_each_write_gives_what_memory_gives, ("merge",)),
    (WrapsErrors, S.test_an_error_in_the_stream_comes_out_as_it_was_and_leaves_nothing, ("append", 1)),
    (SealsTwice, S.test_the_seal_is_asked_once_and_after_the_rows, ("append",)),
]


@pytest.fixture
def _unshrunk() -> Iterator[None]:
    """What fails is to fail, and not to be made small."""
    calm = settings.get_current_profile_name()
    settings.register_profile("unshrunk", phases=(Phase.generate,))
    settings.load_profile("unshrunk")
    yield
    settings.load_profile(calm)


@pytest.mark.usefixtures("_unshrunk")
@pytest.mark.parametrize(("broken", "promise", "arguments"), BROKEN)
def test_a_destination_that_breaks_a_promise_fails(
    tmp_path: Path, broken: type[Wrapped], promise: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    @cache
    def made(_folder: str) -> Destination:
        return broken(MemoryDestination())

    class Suite(DestinationSuite):
        durable = False

        def destination(self, folder: Path) -> Destination:
            return made(str(folder))

    with pytest.raises((AssertionError, pytest.fail.Exception, RuntimeError)):
        promise(Suite(), tmp_path, *arguments)

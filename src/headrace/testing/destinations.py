"""What every destination promises, as tests."""

# ruff: noqa: S101, D102, PLR2004  # these are tests, and their names say the promise

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import ConflictError, ContractError, DataError, UnavailableError
from headrace.flow import FileStamp
from headrace.stream import FrameStream, scan_batches
from headrace.systems.memory import MemoryDestination
from headrace.testing.faults import BreakStream, FailAfterApply, Reject
from headrace.testing.kill import killed_at_every_effect, resolve, shape
from headrace.testing.scripts import PIPELINE, SOURCE, WRITES, Holding, Step, commit_of, holds, play, reject
from headrace.writes import Append, History, Merge, Replace, Write

if TYPE_CHECKING:
    from headrace.flow import ArrowStream, Commit, Receipt
    from headrace.protocols import Destination

__all__ = ["DestinationSuite"]

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


@dataclass(frozen=True)
class _Run:
    run: str


class DestinationSuite:
    """Subclass it as ``class TestMine(DestinationSuite)`` and write `destination`.

    Writes that the destination does not support are skipped. `durable` is False for one that does not outlive
    its process: then nothing is killed. `examples` is the number of Hypothesis scripts for each write.
    """

    durable: ClassVar[bool] = True
    examples: ClassVar[int] = 15

    def destination(self, folder: Path) -> Destination:
        """The destination in this folder, with a table of any name. The same folder gives the same target, opened
        anew; an empty folder an empty target.
        """
        raise NotImplementedError

    def warm(self, folder: Path) -> AbstractContextManager[Any]:  # noqa: ARG002  # for those who override it
        """Optional: keeps the target in this folder open for a test of many commits, where opening it is dear."""
        return nullcontext()

    def target(self, folder: Path, write: str = "append") -> Destination:
        """The destination, if it supports the write."""
        destination = self.destination(folder)
        if (hint := destination.supports(write)) is not None:
            assert hint.strip(), "a write that is not possible comes with what to use instead"
            pytest.skip(f"{write} is not supported")
        return destination

    # -- inspect ------------------------------------------------------------------------------------------------

    def test_inspect_creates_nothing(self, tmp_path: Path) -> None:
        snapshot = self.destination(tmp_path).inspect(PIPELINE)
        assert (snapshot.number, snapshot.schema, snapshot.scan, dict(snapshot.positions)) == (0, None, None, {})
        assert snapshot.last_id is None
        assert dict(snapshot.seen(SOURCE, None)) == {}
        assert list(tmp_path.iterdir()) == []

    def test_what_was_never_written_has_no_history_and_no_rejects(self, tmp_path: Path) -> None:
        destination = self.destination(tmp_path)
        assert list(destination.history(PIPELINE)) == []
        assert destination.rejects(PIPELINE).height == 0
        assert list(tmp_path.iterdir()) == []

    # -- apply --------------------------------------------------------------------------------------------------

    def test_a_commit_is_durable_when_apply_returns(self, tmp_path: Path) -> None:
        file = FileStamp(name="1.csv", size=1, version="1")
        commit = commit_of(destination := self.target(tmp_path), FIRST, Append(), position=1, files=[file])
        receipt = destination.apply(commit)
        assert (receipt.id, receipt.number, receipt.repeated) == (commit.id, 1, False)
        assert receipt.record == {"rows": 3}
        again = self.destination(tmp_path)
        assert again.inspect(PIPELINE).last_id == commit.id
        assert dict(again.inspect(PIPELINE).positions) == {SOURCE: {"step": 1}}
        assert dict(again.inspect(PIPELINE).identities) == {SOURCE: {"name": "script"}}
        assert again.inspect(PIPELINE).write == "append"
        assert again.inspect(PIPELINE).owned
        assert holds(again) == _memory([FIRST], Append())

    def test_a_snapshot_stays_as_it_was_inspected(self, tmp_path: Path) -> None:
        destination = self.target(tmp_path)
        destination.apply(commit_of(destination, FIRST, Append(), position=1))
        before = destination.inspect(PIPELINE)
        destination.apply(commit_of(destination, SECOND, Append(), position=2))
        assert (before.number, dict(before.positions)) == (1, {SOURCE: {"step": 1}})

    def test_the_same_id_twice_gives_the_receipt_and_doubles_nothing(self, tmp_path: Path) -> None:
        commit = commit_of(destination := self.target(tmp_path), FIRST, Append(), position=1)
        first = destination.apply(commit)
        destination.apply(commit_of(destination, SECOND, Append(), position=2))
        before = holds(destination)
        again = self.destination(tmp_path).apply(commit)
        assert again.repeated
        assert (again.id, again.number, dict(again.counts), again.record) == (
            first.id,
            first.number,
            dict(first.counts),
            first.record,
        )
        assert holds(destination) == before

    def test_a_stale_expected_is_a_conflict_and_changes_nothing(self, tmp_path: Path) -> None:
        destination = self.target(tmp_path)
        stale = commit_of(destination, SECOND, Append(), position=9)
        destination.apply(commit_of(destination, FIRST, Append(), position=1))
        before, files = holds(destination), _files(tmp_path)
        for commit in (stale, commit_of(destination, SECOND, Append(), expected=7)):
            with pytest.raises(ConflictError) as caught:
                destination.apply(commit)
            assert caught.value.hint
        assert (holds(destination), _files(tmp_path)) == (before, files)

    def test_a_position_that_goes_back_is_no_conflict(self, tmp_path: Path) -> None:
        destination = self.target(tmp_path)
        destination.apply(commit_of(destination, FIRST, Append(), position=5))
        destination.apply(commit_of(destination, SECOND, Append(), position=2))
        assert dict(destination.inspect(PIPELINE).positions) == {SOURCE: {"step": 2}}

    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize("earlier", [0, 1])
    def test_an_error_in_the_stream_comes_out_as_it_was_and_leaves_nothing(
        self, tmp_path: Path, write: str, earlier: int
    ) -> None:
        destination = self.target(tmp_path, write)
        play(destination, STEPS[:earlier], WRITES[write])
        before, files = holds(destination), _files(tmp_path)
        with self.warm(tmp_path):
            for error in (ContractError("broken"), KeyboardInterrupt(), ZeroDivisionError("mine")):
                commit = commit_of(destination, SECOND, WRITES[write], rows=_breaking(SECOND.frame, error))
                with pytest.raises(type(error)) as caught:
                    destination.apply(commit)
                assert caught.value is error
        assert (holds(self.destination(tmp_path)), _visible(tmp_path, files)) == (before, files)

    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize("earlier", [0, 1])
    def test_an_error_in_the_seal_comes_out_as_it_was_and_leaves_nothing(
        self, tmp_path: Path, write: str, earlier: int
    ) -> None:
        destination = self.target(tmp_path, write)
        play(destination, STEPS[:earlier], WRITES[write])
        before, files = holds(destination), _files(tmp_path)
        for error in (ContractError("the verdict"), KeyboardInterrupt()):
            commit = commit_of(destination, SECOND, WRITES[write], seal=_raising(error))
            with pytest.raises(type(error)) as caught:
                destination.apply(commit)
            assert caught.value is error
        assert (holds(self.destination(tmp_path)), _visible(tmp_path, files)) == (before, files)

    @pytest.mark.parametrize("write", WRITES)
    def test_the_seal_is_asked_once_and_after_the_rows(self, tmp_path: Path, write: str) -> None:
        destination, heard = self.target(tmp_path, write), list[str]()

        def rows() -> Iterator[pl.DataFrame]:
            yield FIRST.frame
            heard.append("drained")

        stream = lambda: FrameStream(scan_batches(rows, FIRST.frame.schema))  # noqa: E731
        destination.apply(commit_of(destination, FIRST, WRITES[write], rows=stream, seal=lambda: heard.append("seal")))
        assert heard[-1] == "seal"
        assert heard.count("seal") == 1
        assert "drained" in heard

    # -- writes -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("write", WRITES)
    def test_each_write_gives_what_memory_gives(self, tmp_path: Path, write: str) -> None:
        self.target(tmp_path, write)

        @settings(
            max_examples=self.examples,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(steps=st.lists(_steps(write), min_size=1, max_size=4))
        def agree(steps: Sequence[Step]) -> None:
            with tempfile.TemporaryDirectory(dir=tmp_path) as folder, self.warm(Path(folder)):
                destination, memory = self.destination(Path(folder)), MemoryDestination()
                for n, step in enumerate(steps, 1):
                    for each in (destination, memory):
                        each.apply(commit_of(each, _whole(steps[:n]) if write == "recompute" else step, WRITES[write]))
                assert holds(destination) == holds(memory)

        agree()

    def test_a_merge_without_an_order_keeps_the_last_read(self, tmp_path: Path) -> None:
        write = Merge(keys=("id",))
        play(destination := self.target(tmp_path, "merge"), STEPS, write)
        assert holds(destination) == _memory(STEPS, write)

    def test_a_merge_keeps_columns_that_the_rows_do_not_have(self, tmp_path: Path) -> None:
        steps = [Step(rows=[(1, "a", 1, "x", False)], wide=True), Step(rows=[(1, "a", 2, "y", False)])]
        play(destination := self.target(tmp_path, "merge"), steps, WRITES["merge"])
        assert holds(destination).rows == [("2", "10", "false", "1", "a", "y")]

    def test_a_history_without_an_order_goes_by_the_time_of_commits(self, tmp_path: Path) -> None:
        write = History(keys=("id",), track=("text",))
        play(destination := self.target(tmp_path, "history"), STEPS, write)
        play(memory := MemoryDestination(), STEPS, write)
        times = ("valid_from", "valid_to")
        assert holds(destination, ignoring=times) == holds(memory, ignoring=times)

    def test_a_history_closes_the_keys_that_a_complete_read_does_not_have(self, tmp_path: Path) -> None:
        write = History(keys=("id",), track=("text",), close_absent=True)
        destination, memory = self.target(tmp_path, "history"), MemoryDestination()
        gone = Step(rows=[(1, "a", 1, "one", False)], rejects=[reject("r1", key='["3"]')])
        for step in (FIRST, gone, FIRST):
            for each in (destination, memory):
                each.apply(commit_of(each, step, write, complete=True))
            times = ("valid_from", "valid_to")
            assert holds(destination, ignoring=times) == holds(memory, ignoring=times)
        assert len(holds(destination).rows) == len(FIRST.rows) + 1, "key 2 has gone and come back, key 3 was rejected"

    def test_a_merge_with_several_keys(self, tmp_path: Path) -> None:
        write = Merge(keys=("id", "part"), latest_by=("at",))
        steps = [Step(rows=[r for r in s.rows if r[1] is not None]) for s in STEPS]
        play(destination := self.target(tmp_path, "merge"), steps, write)
        assert holds(destination) == _memory(steps, write)

    @pytest.mark.parametrize("write", ["merge", "history"])
    def test_a_null_key_is_refused(self, tmp_path: Path, write: str) -> None:
        destination = self.target(tmp_path, write)
        play(destination, STEPS[:1], WRITES[write])
        before = holds(destination)
        with pytest.raises(DataError):
            destination.apply(commit_of(destination, Step(rows=[(None, "a", 1, "x", False)]), WRITES[write]))
        assert holds(destination) == before

    @pytest.mark.parametrize("earlier", [0, 1])
    def test_an_empty_replace_is_refused_unless_allowed(self, tmp_path: Path, earlier: int) -> None:
        destination = self.target(tmp_path, "replace")
        play(destination, STEPS[:earlier], Replace())
        before = holds(destination)
        with pytest.raises(DataError):
            destination.apply(commit_of(destination, Step(rows=[]), Replace()))
        assert holds(destination) == before
        destination.apply(commit_of(destination, Step(rows=[]), Replace(allow_empty=True)))
        assert holds(destination).rows == []

    @pytest.mark.parametrize("write", ["append", "partitions", "merge", "history"])
    def test_no_new_rows_leave_the_table_as_it_is(self, tmp_path: Path, write: str) -> None:
        destination = self.target(tmp_path, write)
        play(destination, STEPS[:1], WRITES[write])
        before = holds(destination).rows
        destination.apply(commit_of(destination, Step(rows=[]), WRITES[write]))
        assert holds(destination).rows == before
        assert holds(destination).number == 2

    @pytest.mark.parametrize("write", WRITES)
    def test_a_full_refresh_begins_with_an_empty_table(self, tmp_path: Path, write: str) -> None:
        destination = self.target(tmp_path, write)
        steps = [*STEPS, Step(rows=[(1, "a", 0, "anew", False)], fresh=True)]
        play(destination, steps, WRITES[write])
        assert holds(destination) == _memory(steps, WRITES[write])
        assert len(holds(destination).rows) == 1

    # -- ledger -------------------------------------------------------------------------------------------------

    def test_files_are_seen_under_their_stamps(self, tmp_path: Path) -> None:
        destination = self.target(tmp_path)
        stamps = [FileStamp(name=f"a/{n}.csv", size=n, version=f"v{n}") for n in range(3)]
        destination.apply(commit_of(destination, FIRST, Append(), files=stamps[:2]))
        changed = FileStamp(name="a/1.csv", size=11, version="w")
        destination.apply(commit_of(destination, SECOND, Append(), files=[changed, stamps[2]]))
        seen = self.destination(tmp_path).inspect(PIPELINE).seen
        assert dict(seen(SOURCE, None)) == {"a/0.csv": stamps[0], "a/1.csv": changed, "a/2.csv": stamps[2]}
        assert dict(seen(SOURCE, ["a/1.csv", "b.csv"])) == {"a/1.csv": changed}
        assert dict(seen("another", None)) == {}

    def test_rejects_are_kept_with_the_commit(self, tmp_path: Path) -> None:
        destination = self.target(tmp_path)
        rows = [reject("r1", key='["1"]'), reject("r2", file="a.csv")]
        receipt = destination.apply(commit_of(destination, Step(rows=FIRST.rows, rejects=rows), Append()))
        assert receipt.counts["rejected"] == 2
        kept = self.destination(tmp_path).rejects(PIPELINE).sort("id").to_dicts()
        assert kept == rows

    @pytest.mark.parametrize(
        ("settled", "left"),
        [
            ({}, ["k2", "k9", "new", "plain", "read", "read-too"]),
            ({"resolved": ("k9", "unknown")}, ["k2", "new", "plain", "read", "read-too"]),
            ({"files": ("a.csv",)}, ["k2", "k9", "new", "plain", "read-too"]),
            ({"keys": ("id",)}, ["k9", "new", "plain", "read", "read-too"]),
            ({"replace_sources": True}, ["new", "plain"]),
            ({"replace_all": True}, ["new"]),
        ],
    )
    def test_rejects_leave_when_they_are_settled(
        self, tmp_path: Path, settled: dict[str, Any], left: Sequence[str]
    ) -> None:
        destination = self.target(tmp_path)
        earlier = [
            reject("k2", key='["2"]'),
            reject("k9", key='["9"]'),
            reject("read", file="a.csv"),
            reject("read-too", file="b.csv"),
            {**reject("plain"), "source": None},
        ]
        new = [reject("new", key='["2"]', file="a.csv")]
        destination.apply(commit_of(destination, Step(rows=FIRST.rows, rejects=earlier), Append()))
        step = Step(rows=SECOND.rows, rejects=new)
        destination.apply(commit_of(destination, step, Append(), settled=settled))
        assert holds(destination).rejects == left

    def test_a_row_rejected_again_is_one_reject(self, tmp_path: Path) -> None:
        destination = self.target(tmp_path)
        for _ in range(2):
            destination.apply(commit_of(destination, Step(rows=FIRST.rows, rejects=[reject("r1")]), Append()))
        assert holds(destination).rejects == ["r1"]

    def test_history_is_newest_first_with_commits_and_runs(self, tmp_path: Path) -> None:
        destination = self.target(tmp_path)
        play(destination, STEPS[:2], Append())
        destination.record({"pipeline": PIPELINE, "run": "failed", "status": "failed"})
        entries = self.destination(tmp_path).history(PIPELINE)
        assert [e["kind"] for e in entries] == ["run", "commit", "commit"]
        assert [e["number"] for e in entries[1:]] == [2, 1]
        assert entries[0]["status"] == "failed"
        assert entries[1]["record"] == {"rows": 3}
        assert entries[1]["positions"] == {SOURCE: {"step": 2}}
        assert list(destination.history("another")) == []

    # -- hold ---------------------------------------------------------------------------------------------------

    def test_a_held_target_names_its_holder(self, tmp_path: Path) -> None:
        destination = self.destination(tmp_path)
        with destination.hold(PIPELINE, _Run("first")):
            with pytest.raises(ConflictError) as caught, self.destination(tmp_path).hold(PIPELINE, _Run("second")):
                pytest.fail("held twice")
            assert {"host", "pid", "run", "since"} <= caught.value.details.keys()
            assert caught.value.details["run"] == "first"
            assert "first" in caught.value.message
        with destination.hold(PIPELINE, _Run("third")):
            pass

    # -- faults -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize("fault", ["reject", "answer_lost", "stream_broken"])
    def test_a_run_with_faults_ends_as_a_calm_run(self, tmp_path: Path, write: str, fault: str) -> None:
        calm = self.target(_made(tmp_path / "calm"), write)
        play(calm, REJECTED, WRITES[write])
        for n in range(1, len(REJECTED) + 1):
            folder = _made(tmp_path / f"{fault}{n}")
            with self.warm(folder):
                faulty = _with_fault(fault, self.destination(folder), n)
                play(faulty, REJECTED, WRITES[write], apply=_again)
            assert holds(self.destination(folder)) == holds(calm)
            assert shape(folder) == shape(tmp_path / "calm")

    @pytest.mark.parametrize("write", WRITES)
    def test_a_run_killed_at_every_effect_ends_as_a_calm_run(self, tmp_path: Path, write: str) -> None:
        if not self.durable:
            pytest.skip("it does not outlive its process")
        self.target(_made(tmp_path / "probe"), write)
        suite = f"{inspect.getfile(type(self))}:{type(self).__qualname__}"
        effects = killed_at_every_effect(
            "headrace.testing.destinations:load",
            look="headrace.testing.destinations:look",
            folder=tmp_path,
            arguments={"suite": suite, "write": write},
            prepare=suite,
        )
        assert effects > 0


def load(folder: Path, suite: str, write: str) -> None:
    """The script that is killed: what a run does, and does again when it is started again."""
    destination = resolve(suite)().destination(folder)
    with destination.hold(PIPELINE, _Run("run")):  # where a target may clear what a killed run left
        play(destination, KILLED, WRITES[write])
        destination.record({"pipeline": PIPELINE, "run": "run", "status": "loaded"})


def look(folder: Path, suite: str, write: str) -> str:  # noqa: ARG001  # the script's arguments
    """What is there after it."""
    return repr(holds(resolve(suite)().destination(folder)))


def _memory(steps: Sequence[Step], write: Write) -> Holding:
    """What memory holds after the steps."""
    play(memory := MemoryDestination(), steps, write)
    return holds(memory)


def _again(destination: Destination, commit: Commit) -> Receipt:
    """What the engine does with an attempt that failed: the same commit again."""
    try:
        return destination.apply(commit)
    except UnavailableError:
        return destination.apply(commit)


def _breaking(frame: pl.DataFrame, error: BaseException) -> Callable[[], ArrowStream]:
    """A stream of one row and one more, and then the error."""

    def broken() -> Iterator[pl.DataFrame]:
        yield frame[:1]
        yield frame[1:2]
        raise error

    return lambda: FrameStream(scan_batches(broken, frame.schema))


def _raising(error: BaseException) -> Callable[[], None]:
    def verdict() -> None:
        raise error

    return verdict


def _with_fault(fault: str, destination: Destination, n: int) -> Destination:
    match fault:
        case "reject":
            return Reject(destination, at=n)
        case "answer_lost":
            return FailAfterApply(destination, at=n)
    return BreakStream(destination, after_rows=2, at=n)


_row = st.tuples(
    st.integers(1, 4),
    st.sampled_from(["a", "b", None]),
    st.sampled_from([None, 0, 1, 2, 3]),
    st.sampled_from(["x", "y", "", None]),
    st.sampled_from([False, False, False, None, True]),
)


def _steps(write: str) -> st.SearchStrategy[Step]:
    groups = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=1).map(tuple)
    return st.builds(
        Step,
        rows=st.lists(_row, max_size=6),
        wide=st.booleans(),
        groups=groups if write == "recompute" else st.just(()),
    )


def _whole(steps: Sequence[Step]) -> Step:
    """The last step as a recompute sees it: all rows read so far, of the groups that the last ones touch."""
    last = steps[-1]
    groups = {row[1] for row in last.rows} | set(last.groups)
    rows = [row for step in steps for row in step.rows if row[1] in groups]
    return Step(rows=rows, wide=last.wide, groups=tuple(sorted(groups, key=str)))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def _visible(folder: Path, before: set[str]) -> set[str]:
    """The files, but for the target's own empty frame where there was nothing before."""
    return _files(folder) if before else set()

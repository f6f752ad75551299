"""`inspect` and `apply`: a commit is applied wholly or not at all."""

# ruff: noqa: S101, D102  # these are tests, and their names say the promise

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from headrace.errors import ConflictError, ContractError, HeadraceError, UnavailableError
from headrace.flow import FileStamp
from headrace.stream import FrameStream, scan_batches
from headrace.testing.destination.subject import FIRST, SECOND, STEPS, Subject, files_of, memory
from headrace.testing.scripts import PIPELINE, SOURCE, WRITES, commit_of, holds, play

if TYPE_CHECKING:
    from headrace.flow import ArrowStream, Snapshot
    from headrace.writes import Write

__all__ = ["Applying"]


class Applying(Subject):
    """`inspect` and `apply`."""

    def test_inspect_creates_nothing(self, tmp_path: Path) -> None:
        snapshot = self.destination(tmp_path).inspect(PIPELINE)
        assert (snapshot.number, snapshot.schema, snapshot.scan, dict(snapshot.positions)) == (0, None, None, {})
        assert snapshot.head is None
        assert dict(snapshot.seen(SOURCE, None)) == {}
        assert self.left_over(tmp_path) == []

    def test_what_was_never_written_has_no_history_and_no_rejects(self, tmp_path: Path) -> None:
        destination = self.destination(tmp_path)
        assert list(destination.history(PIPELINE)) == []
        assert destination.rejects(PIPELINE).height == 0
        assert self.left_over(tmp_path) == []

    def test_a_commit_is_durable_when_apply_returns(self, tmp_path: Path, usual: Write) -> None:
        file = FileStamp(name="1.csv", size=1, version="1")
        commit = commit_of(destination := self.destination(tmp_path), FIRST, usual, position=1, files=[file])
        receipt = destination.apply(commit)
        assert (receipt.id, receipt.number, receipt.repeated) == (commit.id, 1, False)
        assert receipt.record == {"rows": 3}
        again = self.destination(tmp_path)
        assert again.inspect(PIPELINE).head == commit.id
        assert dict(again.inspect(PIPELINE).positions) == {SOURCE: {"step": 1}}
        assert dict(again.inspect(PIPELINE).identities) == {SOURCE: {"name": "script"}}
        assert again.inspect(PIPELINE).write == usual.type
        assert again.inspect(PIPELINE).owned
        assert holds(again) == memory([FIRST], usual)

    def test_a_snapshot_stays_as_it_was_inspected(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        destination.apply(commit_of(destination, FIRST, usual, position=1))
        before = destination.inspect(PIPELINE)
        destination.apply(commit_of(destination, SECOND, usual, position=2))
        assert (before.number, dict(before.positions)) == (1, {SOURCE: {"step": 1}})

    def test_a_scan_reads_whole_commits_as_of_its_snapshot_or_later(self, tmp_path: Path, usual: Write) -> None:
        """Never a part of one, and never fewer than the snapshot had; where that cannot be, it says so."""
        destination = self.destination(tmp_path)
        snapshots, whole = [], []
        for n in range(1, len(STEPS) + 1):
            play(destination, STEPS[:n], usual)
            snapshots.append(destination.inspect(PIPELINE))
            whole.append(texts(snapshots[-1]))
        for n, snapshot in enumerate(snapshots):
            try:
                rows = texts(snapshot)
            except UnavailableError:
                continue
            assert rows in whole[n:]

    def test_a_scan_in_the_midst_of_a_commit_sees_nothing_of_it(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        destination.apply(commit_of(destination, FIRST, usual))
        snapshot, seen = destination.inspect(PIPELINE), list[str]()
        destination.apply(commit_of(destination, SECOND, usual, seal=lambda: seen.extend(texts(snapshot))))
        assert seen == sorted(FIRST.frame["text"])

    def test_the_same_id_twice_gives_the_receipt_and_doubles_nothing(self, tmp_path: Path, usual: Write) -> None:
        commit = commit_of(destination := self.destination(tmp_path), FIRST, usual, position=1)
        first = destination.apply(commit)
        destination.apply(commit_of(destination, SECOND, usual, position=2))
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

    def test_settle_says_what_became_of_a_commit_and_changes_nothing(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        assert destination.settle(PIPELINE, "unknown") is None
        assert self.left_over(tmp_path) == []
        commit = commit_of(destination, FIRST, usual, position=1)
        assert destination.settle(PIPELINE, commit.id) is None
        receipt = destination.apply(commit)
        destination.apply(commit_of(destination, SECOND, usual, position=2))
        before = holds(destination)
        settled = self.destination(tmp_path).settle(PIPELINE, commit.id)
        assert settled is not None
        assert settled.repeated
        assert (settled.id, settled.number, dict(settled.counts), settled.record) == (
            receipt.id,
            receipt.number,
            dict(receipt.counts),
            receipt.record,
        )
        assert destination.settle(PIPELINE, "unknown") is None
        assert holds(destination) == before

    def test_a_stale_expected_is_a_conflict_and_changes_nothing(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        stale = commit_of(destination, SECOND, usual, position=9)
        destination.apply(commit_of(destination, FIRST, usual, position=1))
        before, files = holds(destination), files_of(tmp_path)
        for commit in (stale, commit_of(destination, SECOND, usual, expected=7)):
            with pytest.raises(ConflictError) as caught:
                destination.apply(commit)
            assert caught.value.hint
        assert (holds(destination), files_of(tmp_path)) == (before, files)

    def test_a_position_that_goes_back_is_no_conflict(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        destination.apply(commit_of(destination, FIRST, usual, position=5))
        destination.apply(commit_of(destination, SECOND, usual, position=2))
        assert dict(destination.inspect(PIPELINE).positions) == {SOURCE: {"step": 2}}

    @pytest.mark.parametrize("earlier", [0, 1])
    def test_an_error_in_the_stream_comes_out_as_it_was_and_leaves_nothing(
        self, tmp_path: Path, write: str, earlier: int
    ) -> None:
        destination = self.destination(tmp_path)
        play(destination, STEPS[:earlier], WRITES[write])
        before, files = holds(destination), files_of(tmp_path)
        with self.warm(tmp_path):
            for error in (ContractError("broken"), KeyboardInterrupt(), ZeroDivisionError("mine")):
                commit = commit_of(destination, SECOND, WRITES[write], rows=breaking(SECOND.frame, error))
                with pytest.raises(type(error)) as caught:
                    destination.apply(commit)
                assert caught.value is error
        assert (holds(self.destination(tmp_path)), visible(tmp_path, files)) == (before, files)

    @pytest.mark.parametrize("how", ["panic", "cut short"])
    def test_rows_whose_encoder_died_are_not_committed(
        self, tmp_path: Path, write: str, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A panic is no Exception; and a thread may end in other ways. A destination without encoders just commits."""

        def dies(_frame: pl.LazyFrame, place: Any, **_: Any) -> None:
            if isinstance(place, str | Path):
                Path(place).write_bytes(b"")
            raise pl.exceptions.PanicException if how == "panic" else SystemExit

        destination = self.destination(tmp_path)
        play(destination, STEPS[:1], WRITES[write])
        before = holds(destination)
        with monkeypatch.context() as patched:
            for name in ("sink_parquet", "sink_csv", "sink_ndjson", "sink_ipc"):
                patched.setattr(pl.LazyFrame, name, dies)
            try:
                play(destination, STEPS[:2], WRITES[write])
            except (HeadraceError, SystemExit):
                assert holds(self.destination(tmp_path)) == before
        play(destination, STEPS[:2], WRITES[write])
        assert holds(destination) == memory(STEPS[:2], WRITES[write])

    @pytest.mark.parametrize("earlier", [0, 1])
    def test_an_error_in_the_seal_comes_out_as_it_was_and_leaves_nothing(
        self, tmp_path: Path, write: str, earlier: int
    ) -> None:
        destination = self.destination(tmp_path)
        play(destination, STEPS[:earlier], WRITES[write])
        before, files = holds(destination), files_of(tmp_path)
        with self.warm(tmp_path):
            for error in (ContractError("the verdict"), KeyboardInterrupt()):
                commit = commit_of(destination, SECOND, WRITES[write], seal=raising(error))
                with pytest.raises(type(error)) as caught:
                    destination.apply(commit)
                assert caught.value is error
        assert (holds(self.destination(tmp_path)), visible(tmp_path, files)) == (before, files)

    def test_the_seal_is_asked_once_and_after_the_rows(self, tmp_path: Path, write: str) -> None:
        destination, heard = self.destination(tmp_path), list[str]()

        def rows() -> Iterator[pl.DataFrame]:
            yield FIRST.frame
            heard.append("drained")

        stream = lambda: FrameStream(scan_batches(rows, FIRST.frame.schema))  # noqa: E731
        destination.apply(commit_of(destination, FIRST, WRITES[write], rows=stream, seal=lambda: heard.append("seal")))
        assert heard[-1] == "seal"
        assert heard.count("seal") == 1
        assert "drained" in heard


def texts(snapshot: Snapshot) -> list[str]:
    """What the target holds in one column."""
    assert snapshot.scan is not None
    return sorted(snapshot.scan().select(pl.col("text").fill_null("NULL")).collect()["text"])


def breaking(frame: pl.DataFrame, error: BaseException) -> Callable[[], ArrowStream]:
    """A stream of one row and one more, and then the error."""

    def broken() -> Iterator[pl.DataFrame]:
        yield frame[:1]
        yield frame[1:2]
        raise error

    return lambda: FrameStream(scan_batches(broken, frame.schema))


def raising(error: BaseException) -> Callable[[], None]:
    def verdict() -> None:
        raise error

    return verdict


def visible(folder: Path, before: set[str]) -> set[str]:
    """The files, but for the target's own empty frame where there was nothing before."""
    return files_of(folder) if before else set()

"""The writes: after the same commits a destination holds what memory holds."""

# ruff: noqa: S101, D102, PLR2004  # these are tests, and their names say the promise

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import ConfigError, ContractError, DataError, SchemaError
from headrace.flow import Seal
from headrace.stream import FrameStream
from headrace.systems.memory import MemoryDestination
from headrace.testing.destination.subject import FIRST, SECOND, STEPS, Subject, made, memory, only
from headrace.testing.scripts import PIPELINE, WRITES, Step, commit_of, holds, play, reject
from headrace.writes import History, Merge, Replace

__all__ = ["Writing"]


class Writing(Subject):
    """Each write."""

    def test_each_write_gives_what_memory_gives(self, tmp_path: Path, write: str) -> None:
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

    def test_a_column_of_any_name_is_loaded_as_it_is_or_refused_by_name(self, tmp_path: Path, write: str) -> None:
        """Names that a system has for itself: a row's place, a column of its own."""
        own = (
            f"_headrace_{name}" for name in ("ordinal", "closed", "same", "end", "tomb", "row", "deleted", "Ordinal")
        )
        for name in ("rowid", "ROWID", "_rowid_", "ctid", "xmin", "filename", "index", 'a "b"', *own):
            first = Step(rows=[(1, "a", 1, "x", False), (2, "b", 1, "y", False), (3, "b", 1, "z", False)], wide=True)
            second = Step(rows=[(1, "a", 2, "x!", False), (1, "a", 2, "x?", False)], wide=True)
            steps = [replace(step, renamed={"extra": name}) for step in (first, second)]
            folder = made(tmp_path / name.replace('"', ""))
            refused: SchemaError | None = None
            with self.warm(folder):
                destination = self.destination(folder)
                try:
                    play(destination, steps, WRITES[write])
                except SchemaError as error:
                    refused = error
                held = holds(destination)
            if refused is None:
                assert held == memory(steps, WRITES[write])
            else:
                assert repr(name) in refused.message
                assert refused.hint
                assert held.number == 0

    def test_the_counts_are_what_memory_counts(self, tmp_path: Path, write: str) -> None:
        steps = [_whole(STEPS[:n]) if write == "recompute" else step for n, step in enumerate(STEPS, 1)]
        steps.append(Step(rows=[(1, "a", 0, "anew", False)], fresh=True))
        destination, memory = self.destination(tmp_path), MemoryDestination()
        for step in steps:
            here, there = (each.apply(commit_of(each, step, WRITES[write])) for each in (destination, memory))
            assert Counter(here.counts) == Counter(there.counts)  # what is not told is 0

    @only("merge", "history")
    def test_rows_without_their_order_are_refused_by_its_name(self, tmp_path: Path, write: str) -> None:
        destination = self.destination(tmp_path)
        play(destination, STEPS[:1], WRITES[write])
        before = holds(destination)
        for column in ("id", "at"):
            rows = lambda: FrameStream(FIRST.frame.drop(column).lazy())  # noqa: B023, E731
            with pytest.raises(ConfigError, match=repr(column)):
                destination.apply(commit_of(destination, SECOND, WRITES[write], rows=rows))
            assert holds(destination) == before

    @only("merge")
    def test_a_merge_without_an_order_keeps_the_last_read(self, tmp_path: Path) -> None:
        write = Merge(keys=("id",))
        play(destination := self.destination(tmp_path), STEPS, write)
        assert holds(destination) == memory(STEPS, write)

    @only("merge")
    @pytest.mark.parametrize("between", ["append", "replace"])
    def test_a_deletion_does_not_stand_against_a_key_that_another_write_has_put_again(
        self, tmp_path: Path, between: str
    ) -> None:
        steps = (
            (Step(rows=[(1, "a", 1, "x", False), (2, "a", 1, "y", False), (3, "a", 1, "z", False)]), "merge"),
            (Step(rows=[(1, "a", 9, "x", True), (3, "a", 9, "z", True)]), "merge"),
            (Step(rows=[(1, "a", 5, "back", False)]), between),
            (Step(rows=[(1, "a", 7, "newer", False), (3, "a", 7, "older than its end", False)]), "merge"),
        )
        destination, memory = self.destination(tmp_path), MemoryDestination()
        for step, write in steps:
            for each in (destination, memory):
                each.apply(commit_of(each, step, WRITES[write]))
        assert holds(destination) == holds(memory)
        assert "newer" in str(holds(destination).rows)

    @only("merge")
    def test_an_older_good_row_does_not_take_a_newer_one_out_of_quarantine(self, tmp_path: Path) -> None:
        """It was lost: the late row is no version that the table would keep, and nobody could replay the newer one."""
        waits = {"newer": 9, "equal": 5, "older": 4, "no order": None, "no number": "soon"}
        waits |= {"newer, before its cast": "9.0", "older, before its cast": "4.0"}
        rejects = [
            reject(id, key=f'["{n}"]', row=json.dumps({"id": str(n), "at": at if at is None else str(at)}))
            for n, (id, at) in enumerate(waits.items())
        ]
        late = [(n, "a", 5, "good", False) for n in range(len(waits))]
        steps = [Step(rows=[(0, "a", 7, "x", False)], rejects=rejects), Step(rows=late)]
        play(destination := self.destination(tmp_path), steps, WRITES["merge"])
        assert holds(destination) == memory(steps, WRITES["merge"])
        assert holds(destination).rejects == ["newer", "newer, before its cast", "no number"]

    @only("history")
    def test_a_good_version_takes_no_other_one_out_of_quarantine(self, tmp_path: Path) -> None:
        """It was lost: each version counts, and a later one of its key does not stand for it."""
        rejects = [
            reject(f"at {at}", key='["1"]', row=json.dumps({"id": "1", "at": at if at is None else str(at)}))
            for at in (None, 4, 5, 9)
        ]
        steps = [Step(rows=[(1, "a", 1, "x", False)], rejects=rejects), Step(rows=[(1, "a", 5, "good", False)])]
        play(destination := self.destination(tmp_path), steps, WRITES["history"])
        assert holds(destination) == memory(steps, WRITES["history"])
        assert sorted(holds(destination).rejects) == ["at 4", "at 9", "at None"]

    @only("merge")
    def test_a_merge_keeps_columns_that_the_rows_do_not_have(self, tmp_path: Path) -> None:
        steps = [Step(rows=[(1, "a", 1, "x", False)], wide=True), Step(rows=[(1, "a", 2, "y", False)])]
        play(destination := self.destination(tmp_path), steps, WRITES["merge"])
        assert holds(destination).rows == [("2", "10", "false", "1", "a", "y")]

    @only("merge")
    @pytest.mark.parametrize("marked", [False, True])
    def test_keys_that_the_source_has_no_more_go_or_are_marked(self, tmp_path: Path, marked: bool) -> None:
        rows = [(n, "a", 1, "x", False) for n in (1, 2, 3, 4)]
        steps = [
            Step(rows=rows, marked=marked),
            Step(rows=[(2, "a", 2, "y", False)], there=(1, 2, 4, 9), marked=marked),
            Step(rows=[], there=(1, 2), marked=marked),
            Step(rows=[(4, "a", 3, "back", False)], there=(1, 2, 3, 4), marked=marked),
        ]
        destination, memory = self.destination(tmp_path), MemoryDestination()
        for step, left in zip(steps, (4, 3, 2, 4 if marked else 3), strict=True):
            for each in (destination, memory):
                each.apply(commit_of(each, step, WRITES["merge"]))
            here, there = (holds(each, ignoring=("_deleted_at",) if marked else ()) for each in (destination, memory))
            assert here == there
            scan = destination.inspect(PIPELINE).scan
            assert scan is not None
            rows_now = scan().collect()
            assert (rows_now["_deleted_at"].null_count() if marked else rows_now.height) == left

    @only("merge")
    @pytest.mark.parametrize("there", [(), (1,)])
    def test_a_source_that_has_lost_too_many_keys_is_refused(self, tmp_path: Path, there: tuple[int, ...]) -> None:
        destination = self.destination(tmp_path)
        play(destination, [FIRST], WRITES["merge"])
        before = holds(destination)
        with pytest.raises(DataError):
            destination.apply(commit_of(destination, Step(rows=[], there=there), WRITES["merge"]))
        assert holds(destination) == before

    @only("history")
    def test_a_history_without_an_order_goes_by_the_time_of_commits(self, tmp_path: Path) -> None:
        write = History(keys=("id",), track=("text",))
        play(destination := self.destination(tmp_path), STEPS, write)
        play(memory := MemoryDestination(), STEPS, write)
        times = ("valid_from", "valid_to")
        assert holds(destination, ignoring=times) == holds(memory, ignoring=times)

    @only("history")
    def test_a_history_closes_the_keys_that_a_complete_read_does_not_have(self, tmp_path: Path) -> None:
        write = History(keys=("id",), track=("text",), close_absent=True)
        destination, memory = self.destination(tmp_path), MemoryDestination()
        gone = Step(rows=[(1, "a", 1, "one", False)], rejects=[reject("r1", key='["3"]')])
        for step in (FIRST, gone, FIRST):
            for each in (destination, memory):
                each.apply(commit_of(each, step, write, complete=True))
            times = ("valid_from", "valid_to")
            assert holds(destination, ignoring=times) == holds(memory, ignoring=times)
        assert len(holds(destination).rows) == len(FIRST.rows) + 1, "key 2 has gone and come back, key 3 was rejected"

    @only("merge")
    def test_a_merge_with_several_keys(self, tmp_path: Path) -> None:
        write = Merge(keys=("id", "part"), latest_by=("at",))
        steps = [Step(rows=[r for r in s.rows if r[1] is not None]) for s in STEPS]
        play(destination := self.destination(tmp_path), steps, write)
        assert holds(destination) == memory(steps, write)

    @only("merge", "history")
    def test_a_null_key_is_refused(self, tmp_path: Path, write: str) -> None:
        destination = self.destination(tmp_path)
        play(destination, STEPS[:1], WRITES[write])
        before = holds(destination)
        with pytest.raises(DataError):
            destination.apply(commit_of(destination, Step(rows=[(None, "a", 1, "x", False)]), WRITES[write]))
        assert holds(destination) == before

    @pytest.mark.parametrize("earlier", [0, 1])
    @only("replace")
    def test_an_empty_replace_is_refused_unless_allowed(self, tmp_path: Path, earlier: int) -> None:
        destination = self.destination(tmp_path)
        play(destination, STEPS[:earlier], Replace())
        before = holds(destination)
        with pytest.raises(DataError):
            destination.apply(commit_of(destination, Step(rows=[]), Replace()))
        assert holds(destination) == before
        destination.apply(commit_of(destination, Step(rows=[]), Replace(allow_empty=True)))
        assert holds(destination).rows == []

    @only("replace")
    def test_why_there_are_no_rows_is_said_before_that_there_are_none(self, tmp_path: Path) -> None:
        destination = self.destination(tmp_path)
        empty = commit_of(destination, Step(rows=[]), Replace())

        def judge() -> Seal:
            raise ContractError("all lines are malformed")

        with pytest.raises(ContractError, match="malformed"):
            destination.apply(replace(empty, seal=judge))

    @only("append", "partitions", "merge", "history")
    def test_no_new_rows_leave_the_table_as_it_is(self, tmp_path: Path, write: str) -> None:
        destination = self.destination(tmp_path)
        play(destination, STEPS[:1], WRITES[write])
        before = holds(destination).rows
        destination.apply(commit_of(destination, Step(rows=[]), WRITES[write]))
        assert holds(destination).rows == before
        assert holds(destination).number == 2

    def test_a_full_refresh_begins_with_an_empty_table(self, tmp_path: Path, write: str) -> None:
        destination = self.destination(tmp_path)
        steps = [*STEPS, Step(rows=[(1, "a", 0, "anew", False)], fresh=True)]
        play(destination, steps, WRITES[write])
        assert holds(destination) == memory(steps, WRITES[write])
        assert len(holds(destination).rows) == 1


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
        groups=groups if write in ("recompute", "partitions") else st.just(()),
    )


def _whole(steps: Sequence[Step]) -> Step:
    """The last step as a recompute sees it: all rows read so far, of the groups that the last ones touch."""
    last = steps[-1]
    groups = {row[1] for row in last.rows} | set(last.groups)
    rows = [row for step in steps for row in step.rows if row[1] in groups]
    return Step(rows=rows, wide=last.wide, groups=tuple(sorted(groups, key=str)))

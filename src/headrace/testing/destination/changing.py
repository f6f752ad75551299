"""What is remembered beside the rows, when the types, the keys or the table itself become others."""

# ruff: noqa: S101, D102  # these are tests, and their names say the promise

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.errors import SchemaError
from headrace.systems.memory import MemoryDestination
from headrace.testing.destination.subject import FIRST, SECOND, Subject, memory, only
from headrace.testing.scripts import PIPELINE, WRITES, Step, commit_of, holds, play, reject
from headrace.writes import History, Merge

__all__ = ["Changing"]

(TENTH,) = struct.unpack("f", struct.pack("f", 0.1))
SPELLINGS = [
    pytest.param("1.50", 1.5, pl.Decimal(10, 2), pl.Decimal(12, 3), id="decimal"),
    pytest.param("1", 1.0, pl.Int32(), pl.Float64(), id="integer"),
    pytest.param(str(TENTH), TENTH, pl.Float32(), pl.Float64(), id="float"),
]
"""A key as the quarantine has it, its value, the type that it came with, and a wider one that spells it otherwise."""


def _step(ids: list[float], type: Any, **more: Any) -> Step:
    """Rows with these keys."""
    rows = [(0, "a", 1, f"text {id}", False) for id in ids]
    return Step(rows=rows, more={"id": pl.Series(ids, dtype=pl.Float64).cast(type)}, **more)


class Changing(Subject):
    """Keys whose type has grown, tables that were dropped, a history by another column or of the future."""

    @only("merge", "history")
    @pytest.mark.parametrize(("text", "value", "narrow", "wide"), SPELLINGS)
    def test_a_key_in_quarantine_is_a_good_rows_key_though_its_type_spells_it_otherwise(
        self, tmp_path: Path, write: str, text: str, value: float, narrow: Any, wide: Any
    ) -> None:
        """It stayed for ever, and a replay of it overwrote the newer row."""
        waiting = [reject("same", key=f'["{text}"]'), reject("other", key='["7"]')]
        steps = [_step([9], narrow, rejects=waiting), _step([value], wide)]
        timeless = Merge(keys=("id",)) if write == "merge" else History(keys=("id",), track=("text",))
        play(destination := self.destination(tmp_path), steps, timeless)
        assert holds(destination).rejects == memory(steps, timeless).rejects == ["other"]

    @only("history")
    @pytest.mark.parametrize(("text", "value", "narrow", "wide"), SPELLINGS)
    def test_a_key_in_quarantine_is_not_absent_though_its_type_spells_it_otherwise(
        self, tmp_path: Path, text: str, value: float, narrow: Any, wide: Any
    ) -> None:
        """Its version was closed, and the source still had it."""
        timeless = History(keys=("id",), track=("text",), close_absent=True)
        steps = [_step([value, 9], wide), _step([9], narrow, rejects=[reject("bad", key=f'["{text}"]')])]
        for destination in (self.destination(tmp_path), MemoryDestination()):
            for step in steps:
                destination.apply(commit_of(destination, step, timeless, complete=True))
            assert (scan := destination.inspect(PIPELINE).scan) is not None
            assert scan().collect()["valid_to"].is_null().all()

    @only("merge")
    @pytest.mark.parametrize(("text", "value", "narrow", "wide"), SPELLINGS)
    def test_a_deletion_is_remembered_though_the_keys_type_has_grown(
        self, tmp_path: Path, write: str, text: str, value: float, narrow: Any, wide: Any
    ) -> None:
        del text
        gone = _step([value], narrow)
        steps = [replace(gone, rows=[(0, "a", 10, "x", True)]), _step([value, 9], wide)]
        play(destination := self.destination(tmp_path), steps, WRITES[write])
        assert holds(destination).rows == memory(steps, WRITES[write]).rows
        assert "text 9" in str(holds(destination).rows)
        assert len(holds(destination).rows) == 1

    @only("merge")
    def test_a_deletion_is_remembered_though_the_keys_are_named_in_another_order(self, tmp_path: Path) -> None:
        destination, memory = self.destination(tmp_path), MemoryDestination()
        steps = [(("id", "part"), 10, True), (("part", "id"), 5, False), (("part", "id"), 12, False)]
        for n, (keys, at, gone) in enumerate(steps):
            write = Merge(keys=keys, latest_by=("at",), delete_when="gone")
            for each in (destination, memory):
                each.apply(commit_of(each, Step(rows=[(1, "a", at, "x", gone)]), write))
                assert len(holds(each).rows) == (1 if n == len(steps) - 1 else 0)

    @only("merge", "history")
    @pytest.mark.parametrize("keys", ["the same keys", "keys of another type"])
    def test_a_table_that_was_dropped_has_no_past_for_a_full_refresh(
        self, tmp_path: Path, write: str, keys: str
    ) -> None:
        """What had been deleted did not come back, and versions that were gone did."""
        rows = [(1, "a", 10, "x", True), (2, "a", 10, "y", False), (2, "a", 12, "y", False)]
        texts = {"id": pl.Series(["one", "two", "two"])} if keys == "keys of another type" else {}
        play(destination := self.destination(tmp_path), [Step(rows=rows, more=texts)], WRITES[write])
        if not self.drop(tmp_path):
            pytest.skip("no table that could be dropped")
        anew = Step(rows=[(1, "a", 5, "again", False), (2, "a", 11, "z", False)], fresh=True)
        destination = self.destination(tmp_path)
        destination.apply(commit_of(destination, anew, WRITES[write]))
        assert holds(destination).rows == memory([anew], WRITES[write]).rows

    @only("history")
    @pytest.mark.parametrize("latest_by", [("part",), ()])
    def test_a_history_by_a_column_that_does_not_hold_its_moments_is_refused_by_name(
        self, tmp_path: Path, latest_by: tuple[str, ...]
    ) -> None:
        """Every version's moments were cast, of keys too that no row touched: times became days."""
        destination = self.destination(tmp_path)
        play(destination, [FIRST], WRITES["history"])
        before = holds(destination)
        other = History(keys=("id",), latest_by=latest_by, track=("text",))
        with pytest.raises(SchemaError, match="'valid_from'") as caught:
            destination.apply(commit_of(destination, SECOND, other))
        assert "int64" in caught.value.message
        assert "--full-refresh" in (caught.value.hint or "")
        assert holds(destination) == before

    @only("history")
    def test_a_historys_moments_grow_with_the_column_that_they_are_taken_from(self, tmp_path: Path) -> None:
        steps = [
            Step(rows=FIRST.rows, more={"at": pl.Series([3, 4, None], dtype=pl.Int32)}),
            Step(rows=SECOND.rows, more={"at": pl.Series([2, 2**40, 6], dtype=pl.Int64)}),
        ]
        play(destination := self.destination(tmp_path), steps, WRITES["history"])
        assert holds(destination).rows == memory(steps, WRITES["history"]).rows

    @only("history")
    @pytest.mark.parametrize("later", ["another", "the same"])
    def test_an_absent_keys_version_that_has_not_begun_is_not_closed(self, tmp_path: Path, later: str) -> None:
        """It ended before it began, and the key was valid in all the time until then."""
        rows = [(1, "a", 0, "the same", False), (1, "a", 0, later, False), (2, "a", 0, "stays", False)]
        days = [datetime(year, 1, 1) for year in (2024, 2999, 2024)]  # noqa: DTZ001  # naive on purpose
        both = Step(rows=rows, more={"at": pl.Series(days)})
        left = Step(rows=rows[2:], more={"at": pl.Series(days[2:])})
        write = History(keys=("id",), latest_by=("at",), track=("text",), close_absent=True)
        destination, memory = self.destination(tmp_path), MemoryDestination()
        for step in (both, left, left, both, left):
            for each in (destination, memory):
                each.apply(commit_of(each, step, write, complete=True))
            assert holds(destination, ignoring=("valid_to",)).rows == holds(memory, ignoring=("valid_to",)).rows
        scan = destination.inspect(PIPELINE).scan
        assert scan is not None
        story = scan().filter(pl.col("id") == 1).sort("valid_from").collect()
        assert story.filter(pl.col("valid_to") < pl.col("valid_from")).is_empty()
        assert story["valid_to"].is_null().to_list() == [False, True]

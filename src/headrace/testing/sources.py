"""What every source promises, as tests."""

# ruff: noqa: S101, D102, PLR2004  # these are tests, and their names say the promise

from __future__ import annotations

import json
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.flow import Batch, FileStamp, Range, Snapshot
from headrace.traits import SourceTraits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from headrace.protocols import Source

__all__ = ["SourceSuite"]

NAME = "source"


class SourceSuite:
    """Subclass it as ``class TestMine(SourceSuite)`` and write `source` and `grow`.

    The rows have a column `id` (an integer), the first of them 1, one more for each further row.
    """

    def source(self, folder: Path) -> Source:
        """The source in this folder; the same folder gives the same source, opened anew."""
        raise NotImplementedError

    def grow(self, folder: Path, ids: range) -> None:
        """Add rows with these ids to what the source in this folder reads."""
        raise NotImplementedError

    # -- reading on ---------------------------------------------------------------------------------------------

    def test_reading_on_from_a_position_continues_exactly_after_it(self, tmp_path: Path) -> None:
        ledger = _Ledger()
        for ids in (range(1, 6), range(6, 7), range(7, 30)):
            self.grow(tmp_path, ids)
            assert ledger.read(self.source(tmp_path)) == list(ids)

    def test_all_that_is_new_is_one_batch(self, tmp_path: Path) -> None:
        self.grow(tmp_path, range(1, 4))
        self.grow(tmp_path, range(4, 9))
        with _only(self.source(tmp_path).batches(Range(), Snapshot(), NAME)) as batch:
            assert _ids(batch.frame.lazy) == list(range(1, 9))
            assert not batch.news.empty

    def test_batches_of_some_bytes_are_the_same_rows(self, tmp_path: Path) -> None:
        for start in range(1, 40, 10):
            self.grow(tmp_path, range(start, start + 10))
        source = self.source(tmp_path)
        batches = [_ids(b.frame.lazy) for b in source.batches(Range(batch_bytes=1), Snapshot(), NAME)]
        assert [n for ids in batches for n in ids] == list(range(1, 41))
        assert (len(batches) > 1) == SourceTraits.of(source).cuts

    def test_nothing_new_is_an_empty_batch(self, tmp_path: Path) -> None:
        ledger = _Ledger()
        self.grow(tmp_path, range(1, 6))
        ledger.read(self.source(tmp_path))
        with ledger.batch(self.source(tmp_path)) as batch:
            assert batch.news.empty
            assert _ids(batch.frame.lazy) == []
            assert batch.counts().rows == 0

    def test_a_position_is_json_that_can_be_read_back(self, tmp_path: Path) -> None:
        self.grow(tmp_path, range(1, 6))
        ledger = _Ledger()
        ledger.read(self.source(tmp_path))
        assert json.loads(json.dumps(ledger.position)) == ledger.position
        assert json.loads(json.dumps(self.source(tmp_path).identity())) == self.source(tmp_path).identity()

    def test_what_comes_after_the_batch_was_made_is_left_for_the_next(self, tmp_path: Path) -> None:
        ledger = _Ledger()
        self.grow(tmp_path, range(1, 6))
        with ledger.batch(self.source(tmp_path)) as batch:
            self.grow(tmp_path, range(6, 9))
            assert ledger.drain(batch) == list(range(1, 6))
        assert ledger.read(self.source(tmp_path)) == list(range(6, 9))

    # -- frames -------------------------------------------------------------------------------------------------

    def test_a_frame_can_be_read_twice_and_counts_once(self, tmp_path: Path) -> None:
        self.grow(tmp_path, range(1, 6))
        with _only(self.source(tmp_path).batches(Range(), Snapshot(), NAME)) as batch:
            first, once = _ids(batch.frame.lazy), batch.counts()
            again = _ids(batch.frame.lazy)
            assert first == again == list(range(1, 6))
            assert batch.counts() == once
            assert once.rows == 5
            assert list(batch.rejects()) == list(batch.rejects())

    def test_columns_and_predicates_that_are_pushed_down_change_nothing(self, tmp_path: Path) -> None:
        self.grow(tmp_path, range(1, 21))
        with _only(self.source(tmp_path).batches(Range(), Snapshot(), NAME)) as batch:
            whole = batch.frame.lazy.collect()
            some = pl.col("id") % 3 == 0
            assert batch.frame.lazy.filter(some).collect().equals(whole.filter(some))
            assert batch.frame.lazy.select("id").collect().equals(whole.select("id"))
            others = [c for c in whole.columns if c != "id"]
            assert batch.frame.lazy.filter(some).select(others).collect().equals(whole.filter(some).select(others))
            assert batch.frame.lazy.head(3).collect().equals(whole.head(3))
            assert batch.frame.lazy.collect_schema() == whole.schema

    def test_the_whole_is_everything_up_to_the_same_point(self, tmp_path: Path) -> None:
        ledger = _Ledger()
        self.grow(tmp_path, range(1, 6))
        ledger.read(self.source(tmp_path))
        self.grow(tmp_path, range(6, 9))
        with ledger.batch(self.source(tmp_path)) as batch:
            self.grow(tmp_path, range(9, 12))
            if batch.whole is not None:
                assert _ids(batch.whole.lazy) == list(range(1, 9))

    def test_a_batch_is_confirmed_as_often_as_one_likes(self, tmp_path: Path) -> None:
        ledger = _Ledger()
        self.grow(tmp_path, range(1, 6))
        ledger.read(self.source(tmp_path))
        for _ in range(2):
            self.source(tmp_path).confirm({NAME: ledger.position})
        self.grow(tmp_path, range(6, 8))
        assert ledger.read(self.source(tmp_path)) == [6, 7]


class _Ledger:
    """What a destination would remember of a source."""

    def __init__(self) -> None:
        self.position: Any = None
        self.files: dict[str, FileStamp] = {}

    def batch(self, source: Source) -> AbstractContextManager[Batch]:
        """The one batch of all that is new."""

        def seen(_source: str, names: Iterable[str] | None) -> Mapping[str, FileStamp]:
            return {n: s for n, s in self.files.items() if names is None or n in set(names)}

        positions = {} if self.position is None else {NAME: self.position}
        snapshot = Snapshot(number=len(positions), positions=positions, seen=seen)
        return _only(source.batches(Range(after=self.position, ties="once"), snapshot, NAME))

    def drain(self, batch: Batch) -> list[int]:
        ids = _ids(batch.frame.lazy)
        self.position = batch.position()
        self.files.update({stamp.name: stamp for stamp in batch.files()})
        return ids

    def read(self, source: Source) -> list[int]:
        with self.batch(source) as batch:
            return self.drain(batch)


@contextmanager
def _only(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The one batch, for as long as the iterator is open; no other follows."""
    yield next(batches)
    assert list(batches) == []


def _ids(lazy: pl.LazyFrame) -> list[int]:
    return sorted(int(i) for i in lazy.select("id").collect()["id"])

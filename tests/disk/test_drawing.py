"""Batches drawn from a lazy frame: all of them, or what kept them from coming."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from headrace.errors import HeadraceError
from headrace.flow import TableChange
from headrace.journal.sink import drain
from headrace.schema import Schema
from headrace.stream import FrameStream, scan_batches
from headrace.stream.drawing import drawn, passed
from headrace.writes import Append


def _breaking(error: BaseException) -> pl.LazyFrame:
    def batches() -> Iterator[pl.DataFrame]:
        yield pl.DataFrame({"v": [1]})
        raise error

    return scan_batches(batches, {"v": pl.Int64()})


def test_all_rows_come_in_order() -> None:
    frame = pl.select(v=pl.int_range(300_000))
    assert pl.concat(drawn(frame.lazy())).equals(frame)


def test_a_panic_in_polars_is_not_the_end_of_the_rows(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HeadraceError, match="Polars broke off"):
        list(drawn(_breaking(pl.exceptions.PanicException("inside"))))
    capfd.readouterr()  # Polars says its own words too


def test_what_breaks_the_rows_comes_out_as_it_was() -> None:
    with pytest.raises(KeyError, match="mine"):
        list(drawn(_breaking(KeyError("mine"))))


def test_who_stops_early_leaves_nothing_running() -> None:
    before = threading.active_count()
    rows = drawn(pl.select(v=pl.int_range(5_000_000)).lazy())
    assert next(rows).height > 0
    rows.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_nothing_starts_before_it_is_asked_for() -> None:
    before = threading.active_count()
    drawn(_breaking(KeyError("mine")))
    assert threading.active_count() == before


def test_who_breaks_off_while_draining_leaves_nothing_running(tmp_path: Path) -> None:
    numbers = pl.select(v=pl.int_range(5_000_000)).lazy()
    change = TableChange(
        table="t", write=Append(), schema=Schema.of({"v": "int64"}), rows=lambda: FrameStream(numbers), changes=()
    )

    def breaks_off() -> None:
        with drain(change, tmp_path) as rows:
            next(rows)
            raise KeyError("disk full")

    before = threading.active_count()
    with pytest.raises(KeyError) as caught:  # it keeps all frames alive
        breaks_off()
    assert threading.active_count() == before, caught


def test_a_frame_that_is_a_generator_is_drawn_without_a_query() -> None:
    """A query around it would let rows wait in its buffers: hundreds of megabytes under a slow reader."""
    taken = []

    def batches() -> Iterator[pl.DataFrame]:
        for at in range(1_000):
            taken.append(at)
            yield pl.DataFrame({"v": [at], "w": [-at]})

    frame = scan_batches(batches, {"w": pl.Int64()})
    nested = scan_batches(lambda: passed(frame), {"w": pl.Int64()})
    rows = drawn(nested)
    assert next(rows).to_dict(as_series=False) == {"w": [0]}
    threading.Event().wait(0.2)
    assert len(taken) < 6
    rows.close()
    assert pl.concat(passed(frame, ["w"], pl.col("v") > 1, 2))["w"].to_list() == [-2, -3]

"""Batches on their way to an engine are sized in bytes."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from headrace.stream import FrameStream, scan_batches
from headrace.stream.drawing import drawn


def sizes(frames: list[pl.DataFrame]) -> list[tuple[int, int]]:
    stream = FrameStream(scan_batches(lambda: iter(frames), frames[0].schema))
    return [(batch.num_rows, batch.nbytes) for batch in pa.RecordBatchReader.from_stream(stream)]


def test_wide_rows_are_not_gathered_beyond_some_megabytes() -> None:
    wide = [pl.DataFrame({"text": ["x" * 100_000] * 20}) for _ in range(30)]
    found = sizes(wide)
    assert sum(rows for rows, _ in found) == 600
    assert max(size for _, size in found) < 10 << 20


def test_a_frame_that_is_too_large_comes_in_slices() -> None:
    found = sizes([pl.DataFrame({"text": ["x" * 100_000] * 600})])
    assert sum(rows for rows, _ in found) == 600
    assert max(rows for rows, _ in found) <= 100  # the slices share their text


def test_narrow_rows_are_gathered_to_what_an_engine_takes_at_once() -> None:
    found = sizes([pl.DataFrame({"id": [n]}) for n in range(5_000)])
    assert [rows for rows, _ in found] == [2048, 2048, 904]


def test_what_a_source_gives_goes_on_in_parts_of_some_megabytes() -> None:
    frame = pl.DataFrame({"text": ["x" * 100_000] * 600})
    parts = list(drawn(scan_batches(lambda: iter([frame]), frame.schema)))
    assert sum(part.height for part in parts) == 600
    assert max(part.height for part in parts) <= 100

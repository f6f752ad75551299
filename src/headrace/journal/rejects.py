"""Quarantined rows in files: Arrow IPC with the columns of `schema.REJECTS`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import polars as pl

from headrace import disk
from headrace.flow import Rejects
from headrace.schema import REJECTS
from headrace.stream import reraise
from headrace.stream.drawing import drawn

__all__ = ["read", "write"]


def read(files: Sequence[Path]) -> pl.DataFrame:
    """All rows of the files, in order. Raises FileNotFoundError where one has gone meanwhile."""
    empty = pl.DataFrame(schema=REJECTS.polars())
    return pl.concat([empty, *(pl.read_ipc(file) for file in files)])


def write(path: Path, old: Sequence[Path], rejects: Rejects, where: Path) -> tuple[int, bool]:
    """Write the new rejects to `path`, and with them the old ones that stay, if some of the old ones go.

    No good row takes a reject's place: of the writes that files take, none has keys (see `flow.Rejects`). Returns the
    rows written (0: no file), and whether the file takes the place of the old ones.
    """
    staying: pl.LazyFrame | None = None
    if old:
        before = pl.concat([pl.scan_ipc(file) for file in old])
        staying = before.filter(~_going(rejects).fill_null(value=False))
        if _count(staying) == _count(before):
            staying = None
    parts = [] if staying is None else [drawn(staying)]
    with disk.translated(where):
        rows = _write(path, chain(*parts, _new(rejects)))
        if rows:
            disk.sync_file(path)
    return rows, staying is not None


def _new(rejects: Rejects) -> Iterator[pl.DataFrame]:
    """The commit's own rejects. Drained here, in the caller's thread: see `headrace.journal.sink`."""
    import pyarrow as pa

    with reraise():
        for batch in pa.RecordBatchReader.from_stream(rejects.rows()):
            yield pl.DataFrame(pl.from_arrow(batch)).select(REJECTS.names).cast(REJECTS.polars())


def _write(path: Path, frames: Iterable[pl.DataFrame]) -> int:
    """As Arrow IPC, a frame at a time; how many rows. No rows: no file."""
    import pyarrow as pa

    rows, writer = 0, None
    for frame in frames:
        if frame.height:
            table = frame.to_arrow(compat_level=pl.CompatLevel.newest())
            writer = writer or pa.ipc.new_file(path, table.schema)
            writer.write_table(table)
            rows += frame.height
    if writer is not None:
        writer.close()
    return rows


def _going(rejects: Rejects) -> pl.Expr:
    """Which earlier rejects leave, by what the commit says of them."""
    if rejects.replace_all:
        return pl.lit(value=True)
    again = [id for frame in _new(rejects) for id in frame["id"]]
    going = pl.col("id").is_in([*rejects.resolved, *rejects.loaded, *rejects.discarded, *again])
    for told in rejects.superseded:
        stale = pl.col("source").eq_missing(pl.lit(told.source, dtype=pl.String)) & pl.col("stage").is_in(told.stages)
        going |= stale if told.files is None else stale & pl.col("file").is_in(told.files).fill_null(value=False)
    return going


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())

"""Quarantined rows in files: Arrow IPC with the columns of `schema.REJECTS`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from headrace import disk
from headrace.flow import Rejects
from headrace.schema import REJECTS
from headrace.stream import reraise

__all__ = ["read", "write"]


def read(files: Sequence[Path]) -> pl.DataFrame:
    """All rows of the files, in order. Raises FileNotFoundError where one has gone meanwhile."""
    empty = pl.DataFrame(schema=REJECTS.polars())
    return pl.concat([empty, *(pl.read_ipc(file) for file in files)])


def write(path: Path, old: Sequence[Path], rejects: Rejects, where: Path) -> tuple[int, bool]:
    """Write the new rejects to `path`, and with them the old ones that stay, if some of the old ones go.

    Returns the rows written (0: no file) and whether the old files are replaced by this one.
    """
    new = _drain(rejects)
    if not old or not (rejects.replace_all or rejects.replace_sources or _settles(old, rejects, new)):
        rows, rewritten = new, False
    else:
        rows, rewritten = pl.concat([_staying(old, rejects, new).collect(), new]), True
    if rows.height:
        with disk.translated(where):
            rows.write_ipc(path)
            disk.sync_file(path)
    return rows.height, rewritten


def _drain(rejects: Rejects) -> pl.DataFrame:
    with reraise():
        return pl.DataFrame(rejects.rows()).select(REJECTS.names).cast(REJECTS.polars())


def _staying(old: Sequence[Path], rejects: Rejects, new: pl.DataFrame) -> pl.LazyFrame:
    """The earlier rejects that nothing in the commit has settled."""
    rows = pl.concat([pl.scan_ipc(file) for file in old])
    if rejects.replace_all:
        return rows.clear()
    going = pl.col("id").is_in([*rejects.resolved, *new["id"]])
    going |= pl.col("file").is_in(list(rejects.files)) & pl.col("file").is_not_null()
    if rejects.replace_sources:
        going |= pl.col("source").is_not_null()
    return rows.filter(~going.fill_null(value=False))


def _settles(old: Sequence[Path], rejects: Rejects, new: pl.DataFrame) -> bool:
    if not (rejects.resolved or rejects.files or new.height):
        return False
    return _count(_staying(old, rejects, new)) < sum(_count(pl.scan_ipc(file)) for file in old)


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())

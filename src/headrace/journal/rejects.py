"""Quarantined rows in files: Arrow IPC with the columns of `schema.REJECTS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from headrace import disk
from headrace.exact import to_text
from headrace.flow import Rejects
from headrace.schema import REJECTS, Schema
from headrace.stream import reraise

__all__ = ["read", "write"]


def read(files: Sequence[Path]) -> pl.DataFrame:
    """All rows of the files, in order. Raises FileNotFoundError where one has gone meanwhile."""
    empty = pl.DataFrame(schema=REJECTS.polars())
    return pl.concat([empty, *(pl.read_ipc(file) for file in files)])


def write(
    path: Path, old: Sequence[Path], rejects: Rejects, fresh: Callable[[], pl.LazyFrame] | None, where: Path
) -> tuple[int, bool]:
    """Write the new rejects to `path`, and with them the old ones that stay, if some of the old ones go.

    `fresh` are the commit's good rows. Returns the rows written (0: no file), and whether the file takes the place of
    the old ones.
    """
    with reraise():
        new = pl.DataFrame(rejects.rows()).select(REJECTS.names).cast(REJECTS.polars())
    rows, rewritten = new, False
    if old:
        before = pl.concat([pl.scan_ipc(file) for file in old])
        going = _going(rejects, new) | pl.col("key").is_in(_good_keys(before, rejects.keys, fresh))
        staying = before.filter(~going.fill_null(value=False))
        if _count(staying) < _count(before):
            rows, rewritten = pl.concat([staying.collect(), new]), True
    if rows.height:
        with disk.translated(where):
            rows.write_ipc(path)
            disk.sync_file(path)
    return rows.height, rewritten


def _going(rejects: Rejects, new: pl.DataFrame) -> pl.Expr:
    """Which earlier rejects leave, by what the commit says of them."""
    if rejects.replace_all:
        return pl.lit(value=True)
    going = pl.col("id").is_in([*rejects.resolved, *new["id"]])
    going |= (pl.col("file").is_in(list(rejects.files))).fill_null(value=False)
    return going | pl.col("source").is_not_null() if rejects.replace_sources else going


def _good_keys(before: pl.LazyFrame, keys: Sequence[str], fresh: Callable[[], pl.LazyFrame] | None) -> list[str]:
    """The keys in quarantine that the commit has a good row of."""
    if not keys or fresh is None:
        return []
    held = before.select(pl.col("key").drop_nulls().unique()).collect()["key"].to_list()
    wanted = {tuple(json.loads(text)): text for text in held}
    wanted = {key: text for key, text in wanted.items() if len(key) == len(keys)}
    schema = fresh().collect_schema()
    if not wanted or not set(keys) <= set(schema):
        return []
    types = Schema.of_polars({name: schema[name] for name in keys})
    texts = fresh().select(to_text(pl.col(field.name), field.type) for field in types)
    looked_for = pl.LazyFrame(list(wanted), schema=dict.fromkeys(keys, pl.String), orient="row")
    found = looked_for.join(texts, on=list(keys), how="semi", nulls_equal=True).collect()
    return [wanted[key] for key in found.rows()]


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())

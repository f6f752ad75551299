"""Which rows in quarantine a newer good row of their key takes the place of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl

from headrace.exact import from_text

if TYPE_CHECKING:
    from headrace.schema import Schema

__all__ = ["KEY", "overtaken"]

KEY = "\0key"
"""The column of good rows that holds their key as `schema.REJECTS` has it: no column of rows is called so."""


def overtaken(waiting: pl.DataFrame, good: pl.DataFrame, latest_by: Schema) -> list[str]:
    """The ids of those rows in quarantine (`id`, `key` and, where there is `latest_by`, `row` of `schema.REJECTS`) that
    are not newer than a good row of their key (`KEY`, and the columns of `latest_by`). NULL, and what is no value of
    its column, is the oldest.
    """
    bodies = [json.loads(row) if row else {} for row in waiting["row"]] if len(latest_by) else []
    told = {f"\0{n}": (f, pl.Series([b.get(f.name) for b in bodies], dtype=pl.String)) for n, f in enumerate(latest_by)}
    held = waiting.select(pl.col("id").alias("\0id"), pl.col("key").alias(KEY)).with_columns(
        texts.to_frame("").select(from_text(pl.col(""), field.type)).to_series().alias(name)
        for name, (field, texts) in told.items()
    )
    newer = pl.lit(value=False)
    for name, (field, _) in reversed(told.items()):
        theirs, ours = pl.col(name), pl.col(field.name)
        greater = (theirs > ours).fill_null(value=False) | (theirs.is_not_null() & ours.is_null())
        newer = greater | (theirs.eq_missing(ours) & newer)
    return held.join(good, on=KEY).filter(~newer)["\0id"].unique().to_list()

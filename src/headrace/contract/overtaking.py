"""Which rows in quarantine a good row of their key takes the place of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl

from headrace.exact import from_text
from headrace.frozen import frozen

if TYPE_CHECKING:
    from headrace.schema import Schema

__all__ = ["KEY", "Good", "overtaken"]

KEY = "\0key"
"""The column of good rows that holds their key as `schema.REJECTS` has it: no column of rows is called so."""


@frozen(kw_only=True)
class Good:
    """Good rows of a commit: their keys (`KEY`) and the columns of `latest_by`. `versions`: see `overtaken`."""

    rows: pl.DataFrame
    latest_by: Schema
    versions: bool


def overtaken(waiting: pl.DataFrame, good: Good) -> list[str]:
    """The ids of those rows in quarantine (`id`, `key` and, where there is `latest_by`, `row` of `schema.REJECTS`) that
    are not newer than a good row of their key. NULL, and what is no value of its column, is the oldest.

    Where all `versions` of a key count (a history), it must be the same version: no other one stands for it.
    """
    latest_by = good.latest_by
    bodies = [json.loads(row) if row else {} for row in waiting["row"]] if len(latest_by) else []
    told = {f"\0{n}": (f, pl.Series([b.get(f.name) for b in bodies], dtype=pl.String)) for n, f in enumerate(latest_by)}
    held = waiting.select(pl.col("id").alias("\0id"), pl.col("key").alias(KEY)).with_columns(
        texts.to_frame("").select(from_text(pl.col(""), field.type)).to_series().alias(name)
        for name, (field, texts) in told.items()
    )
    stays = pl.lit(value=False)
    for name, (field, _) in reversed(told.items()):
        theirs, ours = pl.col(name), pl.col(field.name)
        if good.versions:
            stays |= theirs.ne_missing(ours)
        else:
            greater = (theirs > ours).fill_null(value=False) | (theirs.is_not_null() & ours.is_null())
            stays = greater | (theirs.eq_missing(ours) & stays)
    return held.join(good.rows, on=KEY).filter(~stays)["\0id"].unique().to_list()

"""Which rows in quarantine a good row of their key takes the place of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl

from headrace.exact import cast, from_text
from headrace.frozen import frozen
from headrace.schema import Type

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
    are not newer than a good row of their key. NULL is the oldest; what cannot be compared stays, as if it were newer.

    Where all `versions` of a key count (a history), it must be the same version: no other one stands for it.
    """
    latest_by = good.latest_by
    bodies = [json.loads(row) if row else {} for row in waiting["row"]] if len(latest_by) else []
    held = waiting.select(pl.col("id").alias("\0id"), pl.col("key").alias(KEY))
    for n, field in enumerate(latest_by):
        texts = pl.Series([body.get(field.name) for body in bodies], dtype=pl.String)
        values = _read(texts, field.type)
        absent = pl.Series([field.name not in body for body in bodies], dtype=pl.Boolean)
        unread = absent | (texts.is_not_null() & values.is_null())
        held = held.with_columns(values.alias(f"\0{n}"), unread.alias(f"\0unknown {n}"))
    stays = pl.lit(value=False)
    for n, field in reversed(list(enumerate(latest_by))):
        theirs, ours, unknown = pl.col(f"\0{n}"), pl.col(field.name), pl.col(f"\0unknown {n}")
        if good.versions:
            stays |= unknown | theirs.ne_missing(ours)
        else:
            greater = (theirs > ours).fill_null(value=False) | (theirs.is_not_null() & ours.is_null())
            stays = unknown | greater | (theirs.eq_missing(ours) & stays)
    return held.join(good.rows, on=KEY).filter(~stays)["\0id"].unique().to_list()


def _read(texts: pl.Series, type: Type) -> pl.Series:
    """The values of `type` that the exact texts became, or would have become by a contract's cast, whatever type they
    were written as: a reject keeps its row as it came. Null for the others.
    """
    text = pl.col("")
    ways = (cast(from_text(text, way), way, type) for way in _ways(type))
    return texts.to_frame("").select(pl.coalesce(from_text(text, type), *ways)).to_series()


def _ways(type: Type) -> tuple[Type, ...]:
    """The types whose texts are not those of `type`, though a cast may make its values of theirs."""
    match type.name:
        case name if name.startswith(("int", "uint")):
            return (Type("decimal", (38, 10)), Type("float64"), Type("bool"))
        case "decimal":
            return (Type("float64"),)
        case "bool":
            return (Type("int64"),)
        case "date":
            return (Type("datetime", ("ns", None)), Type("datetime", ("us", None)))
        case "datetime" if type.args[1] is None:
            return (Type("date"),)
    return ()

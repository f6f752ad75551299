"""Which rows in quarantine a good row of their key takes the place of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl

from headrace.exact import cast, from_text, to_text
from headrace.frozen import frozen
from headrace.logical import Type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headrace.schema import Schema

__all__ = ["KEY", "Good", "Waiting", "overtaken", "spelled"]

KEY = "\0key"
"""The column of good rows that holds their key as `schema.REJECTS` has it: no column of rows is called so."""


@frozen(kw_only=True)
class Good:
    """Good rows of a commit: their keys (`KEY`, spelled by the key columns' `types`) and the columns of `latest_by`.
    `versions`: see `overtaken`.
    """

    rows: pl.DataFrame
    types: tuple[Type, ...]
    latest_by: Schema
    versions: bool


class Waiting:
    """The keys of a quarantine, for good rows of many pieces: each is spelled once for each types of keys."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = list(dict.fromkeys(keys))
        self._spelled: dict[tuple[Type, ...], pl.DataFrame] = {}

    def of(self, good: Good) -> list[str]:
        """Those that a good row has, as they stand in the quarantine."""
        if good.types not in self._spelled:
            texts = {"key": self._keys, KEY: spelled(self._keys, good.types)}
            self._spelled[good.types] = pl.DataFrame(texts, schema={"key": pl.String, KEY: pl.String})
        return self._spelled[good.types].join(good.rows, on=KEY, how="semi")["key"].to_list()


def spelled(keys: Sequence[str | None], types: Sequence[Type]) -> list[str | None]:
    """Keys of a quarantine as a table with key columns of these types spells them: it may have grown since. What is no
    such key stays as it is.
    """
    parts = [None if key is None else json.loads(key) for key in keys]
    whole = [part if part is not None and len(part) == len(types) else [None] * len(types) for part in parts]
    columns = []
    for n, type in enumerate(types):
        texts = pl.Series([part[n] for part in whole], dtype=pl.String)
        values = _read(texts, type)
        columns.append(values.to_frame("").select(to_text(pl.col(""), type)).to_series())
    told = zip(keys, zip(*columns, strict=True), strict=True)
    return [key if None in texts else json.dumps(texts, ensure_ascii=False) for key, texts in told]


def overtaken(waiting: pl.DataFrame, good: Good) -> list[str]:
    """The ids of those rows in quarantine (`id`, `key` and, where there is `latest_by`, `row` of `schema.REJECTS`) that
    are not newer than a good row of their key. NULL is the oldest; what cannot be compared stays, as if it were newer.

    Where all `versions` of a key count (a history), it must be the same version: no other one stands for it.
    """
    latest_by = good.latest_by
    bodies = [json.loads(row) if row else {} for row in waiting["row"]] if len(latest_by) else []
    keys = pl.Series(KEY, spelled(waiting["key"].to_list(), good.types), dtype=pl.String)
    held = waiting.select(pl.col("id").alias("\0id"), keys)
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

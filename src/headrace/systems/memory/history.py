"""History: versions of each key, told anew from all that was ever read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from headrace.contract.overtaking import spelled
from headrace.errors import ConfigError, SchemaError
from headrace.logical import Type, widens
from headrace.schema import Schema
from headrace.systems.memory.rows import Key, Order, check_keys, gathered, key_texts, keys_of, orders_of, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from headrace.flow import TableChange
    from headrace.systems.memory.writes import Table
    from headrace.writes import History

__all__ = ["history"]


def history(
    table: Table, change: TableChange, write: History, rows: pl.DataFrame, at: datetime, rejected: pl.DataFrame
) -> tuple[Table, dict[str, int]]:
    """All that was ever read, told anew: so the versions cannot depend on how it was split into commits."""
    require(rows, (*write.keys, *write.latest_by), change.table)
    check_keys(keys_of(rows, write.keys), write.keys, change.table)
    new = _timed(rows, write, table.schema, at)
    known = new.clear() if table.events is None else _grown(table.events, new, write, change.table)
    events = pl.concat([known, new], how="diagonal")
    if write.close_absent and change.complete:
        events = pl.concat([events, _back(known, rows, write, table.schema, at)], how="diagonal")
    versions = _versions(events, write, table.schema)
    closed = 0
    if write.close_absent and change.complete:
        gone = _gone(versions, rows, write, rejected)
        closed = gone.height
        ends = _timed(gone, write, table.schema, at, begins=False).with_columns(_closed=pl.lit(value=True))
        events = pl.concat([events, ends], how="diagonal")
        versions = _versions(events, write, table.schema)
    counts = {"inserted": versions.height - table.rows.height, "deleted": closed}
    return replace(table, rows=versions, events=events), counts


def _grown(known: pl.DataFrame, new: pl.DataFrame, write: History, table: str) -> pl.DataFrame:
    """The events, whose moments have the type of the new ones. Raises SchemaError where that one would cut them."""
    before, now = (Schema.of_polars(events.select("_began").schema)["_began"] for events in (known, new))
    if not widens(before, now):
        raise SchemaError(
            f"table {table!r}: column {write.valid_from!r} is {before}, and its moments would be {now}",
            hint="go on by the same latest_by, or tell the history anew: --full-refresh --discard-history",
            details={"column": write.valid_from},
        )
    return known.with_columns(pl.col("_began").cast(now.polars()))


def _timed(rows: pl.DataFrame, write: History, schema: Schema, at: datetime, *, begins: bool = True) -> pl.DataFrame:
    """The rows as events: `_began` is the first `latest_by`, or (without one, or not `begins`) the commit's time."""
    kind = schema[write.latest_by[0]] if write.latest_by else Type("datetime", ("us", "UTC"))
    moment = pl.Series([at], dtype=pl.Datetime("us", "UTC"))
    if write.latest_by and begins:
        began = pl.col(write.latest_by[0])
    elif kind.name == "datetime":
        zone = kind.args[1]
        local = moment.dt.replace_time_zone(None) if zone is None else moment.dt.convert_time_zone(zone)
        began = pl.lit(local.dt.cast_time_unit(kind.args[0])).first()
    elif kind.name == "date":
        began = pl.lit(moment.dt.date()).first()
    else:
        raise ConfigError(
            f"close_absent closes at a commit's time, and {write.latest_by[0]!r} is no date or time",
            hint="choose a latest_by that is one, or none",
        )
    return rows.with_columns(_began=began, _closed=pl.lit(value=False))


def _back(known: pl.DataFrame, rows: pl.DataFrame, write: History, schema: Schema, at: datetime) -> pl.DataFrame:
    """Rows of keys that are closed and are there again with no newer moment: they come back at the commit's time."""
    if not write.latest_by:
        return _timed(rows.clear(), write, schema, at)
    ends = known.filter("_closed")
    ended = dict(zip(keys_of(ends, write.keys), orders_of(ends, ["_began"]), strict=True))
    versions = _versions(known, write, schema)
    is_open = set(keys_of(versions.filter(pl.col(write.valid_to).is_null()), write.keys))
    keys, orders = keys_of(rows, write.keys), orders_of(rows, write.latest_by)
    newest: dict[Key, int] = {}
    for n, key in enumerate(keys):
        if key not in newest or orders[n] >= orders[newest[key]]:
            newest[key] = n
    moments = orders_of(rows, write.latest_by[:1])
    back = [n for k, n in newest.items() if k in ended and k not in is_open and moments[n] <= ended[k]]
    return _timed(rows[back], write, schema, at, begins=False)


def _gone(versions: pl.DataFrame, rows: pl.DataFrame, write: History, rejected: pl.DataFrame) -> pl.DataFrame:
    """The keys with an open version that the rows do not have. A rejected key counts as there, and while a rejected
    row's key is not known nothing is gone.
    """
    keys = versions.filter(pl.col(write.valid_to).is_null()).select(write.keys)
    there = set(keys_of(rows, write.keys))
    types = Schema.of_polars(keys.schema)
    told = spelled(rejected["key"].to_list(), [types[k] for k in write.keys])
    spared = {tuple(json.loads(key)) for key in told if key is not None}
    unknown = rejected["key"].null_count() > 0
    gone = [
        not unknown and key not in there and text not in spared
        for key, text in zip(keys_of(keys, write.keys), key_texts(keys, write.keys), strict=True)
    ]
    return keys.filter(pl.Series(gone, dtype=pl.Boolean))


def _versions(events: pl.DataFrame, write: History, schema: Schema) -> pl.DataFrame:
    """Each key's story, with the moments at which its versions begin and end."""
    track = write.track or tuple(c for c in schema.names if c not in (*write.keys, *write.latest_by))
    orders, values = orders_of(events, ["_began", *write.latest_by, "_closed"]), keys_of(events, [*track, "_closed"])
    kept: list[int] = []
    ends: list[int | None] = []
    for numbers in _by_key(keys_of(events, write.keys)):
        story = _story(numbers, orders, values)
        for n, following in zip(story, [*story[1:], None], strict=True):
            if not events["_closed"][n]:
                kept.append(n)
                ends.append(following)
    rows = events[kept].select(schema.names)
    starts = events["_began"]
    return rows.with_columns(
        gathered(starts, kept).alias(write.valid_from), gathered(starts, ends).alias(write.valid_to)
    )


def _by_key(keys: Sequence[Key]) -> Iterator[list[int]]:
    groups: dict[Key, list[int]] = {}
    for n, key in enumerate(keys):
        groups.setdefault(key, []).append(n)
    yield from groups.values()


def _story(numbers: Sequence[int], orders: Sequence[Order], values: Sequence[Key]) -> list[int]:
    """The events of one key that make a version: of equal moments the last read, of equal values the first."""
    at_moment = {orders[n]: n for n in numbers}
    story: list[int] = []
    for n in (at_moment[moment] for moment in sorted(at_moment)):
        if not story or values[story[-1]] != values[n]:
            story.append(n)
    return story

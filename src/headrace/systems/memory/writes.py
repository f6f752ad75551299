"""What each write means, row by row. The oracle: clarity over speed.

Values are never rebuilt from Python objects (nanoseconds and decimals would suffer): a write decides which rows
stay, by their numbers in the old rows followed by the new ones, and gathers them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING

import polars as pl

from headrace.contract.overtaking import KEY, Good, Waiting, overtaken
from headrace.errors import ConfigError, ConflictError, DataError, SchemaError
from headrace.frozen import frozen
from headrace.ledger import refuse_emptying
from headrace.schema import REJECTS, AddColumn, CreateTable, Field, Schema, WidenColumn
from headrace.systems.memory.history import history
from headrace.systems.memory.rows import Key, Order, check_keys, gathered, key_texts, keys_of, orders_of, require
from headrace.writes import Append, History, Merge, Partitions, Recompute, Replace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from headrace.flow import ArrowStream, Census, Rejects, TableChange

__all__ = ["Drained", "Table", "drain", "drained", "no_rejects", "unsettled", "written"]


@frozen(kw_only=True)
class Table:
    """A table's rows, the pipelines that write it, and what a merge or a history remembers beside the rows.

    `schema` is the logical one, without the columns that a history adds. `deleted` are the keys that a merge
    deleted, with the `latest_by` values at which it did. `events` are all rows that a history has seen, in the
    order read, with `_began` (when they begin to be valid) and `_closed` (the key was absent: only key columns).
    """

    pipelines: tuple[str, ...]
    schema: Schema
    rows: pl.DataFrame
    deleted: Mapping[Key, Order] = field(default_factory=dict)
    events: pl.DataFrame | None = None


@frozen(kw_only=True)
class Drained:
    """A change whose streams have been read to the end: its `rows`, and which of them delete their key."""

    change: TableChange
    rows: pl.DataFrame
    deletes: Sequence[bool]
    groups: pl.DataFrame | None


def drain(change: TableChange) -> Drained:
    """Read the change's rows (and groups) to the end."""
    groups = None if change.groups is None else drained(change.groups())
    rows = drained(change.rows())
    if change.deletes is None:
        return Drained(change=change, rows=rows, deletes=[False] * rows.height, groups=groups)
    deletes = rows[change.deletes].to_list()
    return Drained(change=change, rows=rows.drop(change.deletes), deletes=deletes, groups=groups)


def drained(stream: ArrowStream) -> pl.DataFrame:
    """All rows of a stream."""
    return pl.DataFrame(stream)


def no_rejects() -> pl.DataFrame:
    """An empty quarantine."""
    return pl.DataFrame(schema=REJECTS.polars())


def written(
    table: Table | None, pipeline: str, drained: Drained, at: datetime, rejected: pl.DataFrame
) -> tuple[Table, dict[str, int]]:
    """The table after the change, and its counts. `rejected` is the quarantine after the commit.

    Raises ConfigError for rows without a column that is a key or an order, ConflictError for a table that has appeared,
    DataError for a NULL key and for an empty Replace, SchemaError where rows do not fit the schema.
    """
    change = drained.change
    emptied = table.rows.height if table is not None and _begins_empty(change) else 0
    table, counts = _carried_out(_changed(table, pipeline, change), drained, at, rejected)
    return table, {**counts, "deleted": counts["deleted"] + emptied}


def _begins_empty(change: TableChange) -> bool:
    return change.fresh or isinstance(change.write, Replace)


def _carried_out(table: Table, drained: Drained, at: datetime, rejected: pl.DataFrame) -> tuple[Table, dict[str, int]]:
    """The write itself."""
    change = drained.change
    _check_columns(drained.rows, change)
    types = change.schema.polars()
    rows = drained.rows.cast({name: types[name] for name in drained.rows.columns})
    match change.write:
        case Append():
            return _put(table, [table.rows, rows])
        case Replace():
            refuse_emptying(f"table {change.table!r}", change, rows.height)
            return _put(table, [rows])
        case Partitions(by=by):
            kept = _without(table.rows, by, rows)
            return _put(table, [kept if drained.groups is None else _without(kept, by, drained.groups), rows])
        case Recompute(by=by):
            if drained.groups is None and not change.complete:
                raise ConfigError(f"table {change.table!r}: recompute without its groups", hint="run --full-refresh")
            kept = table.rows.clear() if drained.groups is None else _without(table.rows, by, drained.groups)
            return _put(table, [kept, rows])
        case Merge():
            merged, counts = _merge(table, change.write, rows, drained.deletes, change.table)
            return (merged, counts) if change.census is None else _taken(merged, counts, change, change.census, at)
        case History():
            return history(table, change, change.write, rows, at, rejected)


def _changed(table: Table | None, pipeline: str, change: TableChange) -> Table:
    """The table after the schema changes, its rows as they were (new columns NULL)."""
    pipelines = tuple(dict.fromkeys((*(table.pipelines if table else ()), pipeline)))
    if table is None or _begins_empty(change):
        return Table(pipelines=pipelines, schema=change.schema, rows=pl.DataFrame(schema=change.schema.polars()))
    rows, events = table.rows, table.events
    for step in change.changes:
        match step:
            case CreateTable():
                raise ConflictError(f"table {change.table!r} has appeared since the run began", hint="run again")
            case AddColumn(field=new):
                rows, events = _with_null(rows, new), None if events is None else _with_null(events, new)
            case WidenColumn(name=name, new=kind):
                rows = rows.cast({name: kind.polars()})
                events = None if events is None else events.cast({name: kind.polars()})
    return replace(table, pipelines=pipelines, schema=change.schema, rows=rows, events=events)


def _with_null(rows: pl.DataFrame, new: Field) -> pl.DataFrame:
    return rows.with_columns(pl.lit(None, dtype=new.type.polars()).alias(new.name))


def _check_columns(rows: pl.DataFrame, change: TableChange) -> None:
    for name in rows.columns:
        if name not in change.schema:
            raise SchemaError(f"column {name!r} is not in table {change.table!r}", hint="this is a bug in the engine")


def _put(table: Table, parts: Sequence[pl.DataFrame]) -> tuple[Table, dict[str, int]]:
    """The table with just these rows, the new ones last; columns that they do not have are NULL."""
    schema = table.schema.polars()
    rows = pl.concat([pl.DataFrame(schema=schema), *parts], how="diagonal").select(list(schema))
    inserted = parts[-1].height
    kept = sum(part.height for part in parts[:-1])
    return replace(table, rows=rows), {"inserted": inserted, "deleted": table.rows.height - kept}


def _without(rows: pl.DataFrame, by: Sequence[str], touched: pl.DataFrame) -> pl.DataFrame:
    """The rows whose `by` values none of the `touched` rows has; NULL equals NULL."""
    gone = set(keys_of(touched.cast({c: rows.schema[c] for c in by}), by))
    return rows.filter(pl.Series([key not in gone for key in keys_of(rows, by)], dtype=pl.Boolean))


def _merge(
    table: Table, write: Merge, rows: pl.DataFrame, deletes: Sequence[bool], name: str
) -> tuple[Table, dict[str, int]]:
    """Of each key the newest new row; older than what is known of the key: nothing; else it deletes or is put."""
    require(rows, (*write.keys, *write.latest_by), name)
    both = pl.concat([table.rows, rows], how="diagonal")
    new = range(table.rows.height, both.height)
    keys = keys_of(both, sorted(write.keys))  # deletions are remembered by them, in whatever order they are named
    orders = orders_of(both, write.latest_by)
    check_keys(keys[table.rows.height :], write.keys, name)
    winners: dict[Key, int] = {}
    for n in new:
        if keys[n] not in winners or orders[n] >= orders[winners[keys[n]]]:
            winners[keys[n]] = n
    before = {key: n for n, key in enumerate(keys[: table.rows.height])}
    live, dead, settled = dict(before), dict(table.deleted), set[Key]()
    for key, n in winners.items():
        known = orders[before[key]] if key in before else dead.get(key)
        if known is not None and orders[n] < known:
            continue
        settled.add(key)
        live.pop(key, None)
        dead.pop(key, None)
        if deletes[n - table.rows.height]:
            dead[key] = orders[n]
        else:
            live[key] = n
    taken = both.select(
        gathered(both[c], [n if c in rows.columns else before.get(key) for key, n in live.items()])
        for c in table.schema.names
    )
    counts = {
        "inserted": len(live.keys() - before.keys()),
        "updated": len(settled & live.keys() & before.keys()),
        "deleted": len(before.keys() - live.keys()),
    }
    return replace(table, rows=taken, deleted=dead), counts


def _taken(
    table: Table, counts: dict[str, int], change: TableChange, census: Census, at: datetime
) -> tuple[Table, dict[str, int]]:
    """The table without the rows that the census does not have, or with their mark."""
    keys = getattr(change.write, "keys", ())
    there = drained(census.keys()).cast({k: change.schema[k].polars() for k in keys})
    known = set(keys_of(there, keys))
    lives = [True] * table.rows.height if census.mark is None else table.rows[census.mark].is_null().to_list()
    stands = [key in known for key in keys_of(table.rows, keys)]
    gone = [live and not stand for live, stand in zip(lives, stands, strict=True)]
    back = sum(stand and not live for live, stand in zip(lives, stands, strict=True))
    if sum(gone) > census.max * sum(lives) or (sum(gone) and not known):
        raise DataError(
            f"table {change.table!r}: {sum(gone):,} of {sum(lives):,} rows would be deleted", hint="look at the source"
        )
    counts = {**counts, "deleted": counts["deleted"] + sum(gone), "updated": counts["updated"] + back}
    if census.mark is None:
        return replace(table, rows=table.rows.filter(~pl.Series(gone, dtype=pl.Boolean))), counts
    marks = [None if stand else at if went else old
             for stand, went, old in zip(stands, gone, table.rows[census.mark], strict=True)]  # fmt: skip
    marked = pl.Series(census.mark, marks, dtype=table.rows.schema[census.mark])
    return replace(table, rows=table.rows.with_columns(marked)), counts


def unsettled(old: pl.DataFrame, new: pl.DataFrame, rejects: Rejects, changes: Sequence[Drained]) -> pl.DataFrame:
    """The quarantine after a commit: the earlier rejects that nothing has settled, then the new ones."""
    again = set(new["id"])
    gone = {*rejects.resolved, *rejects.loaded, *rejects.discarded}
    good = _overtaken(old, rejects.keys, changes)
    stays = [
        not (
            rejects.replace_all
            or row["id"] in gone
            or any(
                row["source"] == told.source
                and row["stage"] in told.stages
                and (told.files is None or row["file"] in told.files)
                for told in rejects.superseded
            )
            or row["id"] in good
        )
        and row["id"] not in again
        for row in old.iter_rows(named=True)
    ]
    return pl.concat([old.filter(pl.Series(stays, dtype=pl.Boolean)), new.select(old.columns)])


def _overtaken(old: pl.DataFrame, keys: Sequence[str], changes: Sequence[Drained]) -> set[str]:
    """The rejects that a good row of the commit takes the place of; for a recompute, those of a replaced group."""
    found = set[str]()
    for drained in changes:
        rows, change = drained.rows if drained.groups is None else drained.groups, drained.change
        if keys and set(keys) <= set(rows.columns):
            require(rows, change.latest_by, change.table)
            typed = rows.cast({n: change.schema[n].polars() for n in (*keys, *change.latest_by)})
            texts = [json.dumps(key, ensure_ascii=False) for key in key_texts(typed, keys)]
            good = Good(
                rows=typed.select(pl.Series(KEY, texts, dtype=pl.String), *change.latest_by),
                types=tuple(change.schema[k] for k in keys),
                latest_by=Schema(tuple(Field(n, change.schema[n]) for n in change.latest_by)),
                versions=change.keeps_versions,
            )
            same = Waiting(old["key"].drop_nulls()).of(good)
            found.update(overtaken(old.filter(pl.col("key").is_in(same)), good))
    return found

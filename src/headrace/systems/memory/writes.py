"""What each write means, row by row. The oracle: clarity over speed.

Values are never rebuilt from Python objects (nanoseconds and decimals would suffer): a write decides which rows
stay, by their numbers in the old rows followed by the new ones, and gathers them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import total_ordering
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import ConfigError, ConflictError, DataError, SchemaError
from headrace.exact import to_text
from headrace.query import Query
from headrace.schema import REJECTS, AddColumn, CreateTable, Field, Schema, WidenColumn
from headrace.writes import Append, History, Merge, Partitions, Recompute, Replace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from headrace.flow import ArrowStream, Rejects, TableChange

__all__ = ["Drained", "Table", "drain", "drained", "no_rejects", "unsettled", "written"]

Key = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table's rows, and what a merge or a history remembers beside them.

    `schema` is the logical one, without the columns that a history adds. `deleted` are the keys that a merge
    deleted, with the `latest_by` values at which it did. `events` are all rows that a history has seen, in the
    order read, with `_commit` (number of the write) and `_at` (the commit's time).
    """

    pipeline: str
    schema: Schema
    rows: pl.DataFrame
    deleted: Mapping[Key, _Order] = field(default_factory=dict)
    events: pl.DataFrame | None = None


@dataclass(frozen=True, kw_only=True)
class Drained:
    """A change whose streams have been read to the end."""

    change: TableChange
    rows: pl.DataFrame
    groups: pl.DataFrame | None


def drain(change: TableChange) -> Drained:
    """Read the change's rows (and groups) to the end."""
    groups = None if change.groups is None else drained(change.groups())
    return Drained(change=change, rows=drained(change.rows()), groups=groups)


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

    Raises ConfigError for another pipeline's table, ConflictError for one that has appeared, DataError for a NULL
    key and for an empty Replace, SchemaError where rows do not fit the schema.
    """
    change = drained.change
    table = _changed(table, pipeline, change)
    _check_columns(drained.rows, change)
    types = change.schema.polars()
    rows = drained.rows.cast({name: types[name] for name in drained.rows.columns})
    match change.write:
        case Append():
            return _put(table, [table.rows, rows])
        case Replace(allow_empty=allow_empty):
            if rows.is_empty() and not allow_empty:
                raise DataError(
                    f"table {change.table!r} would be replaced by no rows at all",
                    hint='look at the source; say "allow_empty": true if an empty table is meant',
                )
            return _put(table, [rows])
        case Partitions(by=by):
            return _put(table, [_without(table.rows, by, rows), rows])
        case Recompute(by=by):
            if drained.groups is None and not change.complete:
                raise ConfigError(f"table {change.table!r}: recompute without its groups", hint="run --full-refresh")
            kept = table.rows.clear() if drained.groups is None else _without(table.rows, by, drained.groups)
            return _put(table, [kept, rows])
        case Merge():
            return _merge(table, change.write, rows, change.table)
        case History():
            return _history(table, change, change.write, rows, at, rejected)


def _changed(table: Table | None, pipeline: str, change: TableChange) -> Table:
    """The table after the schema changes, its rows as they were (new columns NULL)."""
    if table is not None and table.pipeline != pipeline:
        raise ConfigError(
            f"table {change.table!r} is written by pipeline {table.pipeline!r}", hint="load into another table"
        )
    if table is None or change.fresh or isinstance(change.write, Replace):
        return Table(pipeline=pipeline, schema=change.schema, rows=pl.DataFrame(schema=change.schema.polars()))
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
    return replace(table, schema=change.schema, rows=rows, events=events)


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


def keys_of(rows: pl.DataFrame, columns: Sequence[str]) -> list[Key]:
    """The values of these columns, one hashable tuple per row. NaN equals NaN, as in every engine."""
    return [tuple(_hashable(v) for v in row) for row in _plain(rows, columns).iter_rows()]


def _plain(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """The columns with instants as integers: Python's own have no nanoseconds."""
    exact = (pl.Datetime, pl.Duration, pl.Time)
    return rows.select(pl.col(c).to_physical() if isinstance(rows.schema[c], exact) else pl.col(c) for c in columns)


def _hashable(value: Any) -> Any:
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return "NaN"
    if isinstance(value, dict):
        return tuple((name, _hashable(v)) for name, v in value.items())
    if isinstance(value, list | pl.Series):
        return tuple(_hashable(v) for v in value)
    return value


@total_ordering
class _Order:
    """A row's `latest_by` values. NULL is the oldest, NaN the newest; of no columns all are equal."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.parts = tuple(_ranked(v) for v in values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Order) and self.parts == other.parts

    def __lt__(self, other: _Order) -> bool:
        return self.parts < other.parts

    def __hash__(self) -> int:
        return hash(self.parts)


def _ranked(value: Any) -> tuple[int, Any]:
    if value is None:
        return (0, 0)
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return (2, 0)
    return (1, value)


def _orders(rows: pl.DataFrame, latest_by: Sequence[str]) -> list[_Order]:
    if not latest_by:
        return [_Order(())] * rows.height
    return [_Order(row) for row in _plain(rows, latest_by).iter_rows()]


def _merge(table: Table, write: Merge, rows: pl.DataFrame, name: str) -> tuple[Table, dict[str, int]]:
    """Of each key the newest new row; older than what is known of the key: nothing; else it deletes or is put."""
    both = pl.concat([table.rows, rows], how="diagonal")
    new = range(table.rows.height, both.height)
    keys, orders = keys_of(both, write.keys), _orders(both, write.latest_by)
    _check_keys(keys[table.rows.height :], write.keys, name)
    winners: dict[Key, int] = {}
    for n in new:
        if keys[n] not in winners or orders[n] >= orders[winners[keys[n]]]:
            winners[keys[n]] = n
    deletes = dict(zip(new, _true_for(rows, write.delete_when), strict=True))
    before = {key: n for n, key in enumerate(keys[: table.rows.height])}
    live, dead, settled = dict(before), dict(table.deleted), set[Key]()
    for key, n in winners.items():
        known = orders[before[key]] if key in before else dead.get(key)
        if known is not None and orders[n] < known:
            continue
        settled.add(key)
        live.pop(key, None)
        dead.pop(key, None)
        if deletes[n]:
            dead[key] = orders[n]
        else:
            live[key] = n
    taken = both.select(
        _gathered(both[c], [n if c in rows.columns else before.get(key) for key, n in live.items()])
        for c in table.schema.names
    )
    counts = {
        "inserted": len(live.keys() - before.keys()),
        "updated": len(settled & live.keys() & before.keys()),
        "deleted": len(before.keys() - live.keys()),
    }
    return replace(table, rows=taken, deleted=dead), counts


def _check_keys(keys: Sequence[Key], columns: Sequence[str], table: str) -> None:
    if nulls := sum(None in key for key in keys):
        raise DataError(
            f"{nulls} row(s) for table {table!r} have a NULL key ({', '.join(columns)})",
            hint="say in the contract that the key columns are not nullable, and what becomes of such rows",
            details={"rows": nulls, "keys": list(columns)},
        )


def _true_for(rows: pl.DataFrame, condition: str | None) -> list[bool]:
    """Whether the SQL expression is TRUE for each row."""
    if condition is None:
        return [False] * rows.height
    frame = rows.with_row_index("_headrace_row").lazy()
    query = Query(f"SELECT _headrace_row AS n, coalesce(({condition}), FALSE) AS yes FROM r", {"r": frame}, {})
    return query.lazy().collect().sort("n")["yes"].to_list()


def _history(
    table: Table, change: TableChange, write: History, rows: pl.DataFrame, at: datetime, rejected: pl.DataFrame
) -> tuple[Table, dict[str, int]]:
    """All that was ever read, told anew: so the versions cannot depend on how it was split into commits."""
    _check_keys(keys_of(rows, write.keys), write.keys, change.table)
    number = 1 if table.events is None else table.events["_commit"].max() + 1  # type: ignore[operator]
    marks = {"_commit": pl.lit(number, pl.Int64), "_at": pl.lit(at).cast(pl.Datetime("us", "UTC"))}
    parts = [pl.DataFrame(schema=table.schema.polars()) if table.events is None else table.events]
    events = pl.concat([*parts, rows.with_columns(**marks)], how="diagonal")
    versions = _versions(events, write, table.schema)
    return replace(table, rows=versions, events=events), {"inserted": versions.height - table.rows.height}


def key_texts(rows: pl.DataFrame, keys: Sequence[str]) -> list[Key]:
    """The keys as the quarantine writes them: exact texts."""
    schema = Schema.of_polars(rows.select(keys).schema)
    return list(rows.select(to_text(pl.col(f.name), f.type) for f in schema).iter_rows())


def _versions(events: pl.DataFrame, write: History, schema: Schema) -> pl.DataFrame:
    """Each key's story, with the moments at which its versions begin and end."""
    began = write.latest_by[0] if write.latest_by else "_at"
    track = write.track or tuple(c for c in schema.names if c not in (*write.keys, *write.latest_by))
    orders, values = _orders(events, write.latest_by or ("_commit",)), keys_of(events, track)
    kept: list[int] = []
    ends: list[int | None] = []
    for numbers in _by_key(keys_of(events, write.keys)):
        story = _story(numbers, orders, values)
        kept += story
        ends += [*story[1:], None]
    rows = events[kept].select(schema.names)
    starts = events[began]
    return rows.with_columns(
        _gathered(starts, kept).alias(write.valid_from), _gathered(starts, ends).alias(write.valid_to)
    )


def _gathered(values: pl.Series, numbers: Sequence[int | None]) -> pl.Series:
    """The values at these numbers, NULL for None."""
    return values.gather(pl.Series(numbers, dtype=pl.Int64))


def _by_key(keys: Sequence[Key]) -> Iterator[list[int]]:
    groups: dict[Key, list[int]] = {}
    for n, key in enumerate(keys):
        groups.setdefault(key, []).append(n)
    yield from groups.values()


def _story(numbers: Sequence[int], orders: Sequence[_Order], values: Sequence[Key]) -> list[int]:
    """The events of one key that make a version: of equal moments the last read, of equal values the first."""
    at_moment = {orders[n]: n for n in numbers}
    story: list[int] = []
    for n in (at_moment[moment] for moment in sorted(at_moment)):
        if not story or values[story[-1]] != values[n]:
            story.append(n)
    return story


def unsettled(old: pl.DataFrame, new: pl.DataFrame, rejects: Rejects, changes: Sequence[Drained]) -> pl.DataFrame:
    """The quarantine after a commit: the earlier rejects that nothing has settled, then the new ones."""
    again = set(new["id"])
    good = _good_keys(rejects.keys, changes)
    stays = [
        not (
            rejects.replace_all
            or row["id"] in rejects.resolved
            or (rejects.replace_sources and row["source"] is not None)
            or row["file"] in rejects.files
            or (row["key"] is not None and tuple(json.loads(row["key"])) in good)
        )
        and row["id"] not in again
        for row in old.iter_rows(named=True)
    ]
    return pl.concat([old.filter(pl.Series(stays, dtype=pl.Boolean)), new.select(old.columns)])


def _good_keys(keys: Sequence[str], changes: Sequence[Drained]) -> set[Key]:
    """The keys that the commit has good rows of; for a recompute those of the groups it replaced."""
    found: set[Key] = set()
    for drained in changes:
        rows = drained.rows if drained.groups is None else drained.groups
        if keys and set(keys) <= set(rows.columns):
            typed = rows.cast({k: drained.change.schema[k].polars() for k in keys})
            found |= set(key_texts(typed, keys))
    return found

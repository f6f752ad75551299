"""Merge: one row per key, the newest, in the batch and against the target; deletions are remembered.

Deletes and inserts rather than MERGE: several times faster without an index, and by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.errors import DataError
from headrace.ledger import newer, refuse_census, refuse_nested, refuse_null_key
from headrace.sqltext import literal, quoted
from headrace.systems.duckdb.loading import ORDINAL, Load, same
from headrace.systems.duckdb.tables import generated

if TYPE_CHECKING:
    from headrace.flow import Census
    from headrace.writes import Merge

__all__ = ["merge", "refuse_null_keys", "take_census"]

_MATCHED = "temp.main._headrace_matched"
_DELETED = "temp.main._headrace_deleted"


def merge(load: Load, write: Merge) -> None:
    """Carry out `write` (see its docstring).

    Raises DataError for a NULL in a key and for a key that the target holds twice, ConfigError for keys or
    `latest_by` that are not columns.
    """
    load.stage()
    load.require(write.keys, "key")
    load.require(write.latest_by, "latest_by column")
    refuse_nested(load.table, load.change.schema, (*write.keys, *write.latest_by))
    refuse_null_keys(load, write.keys)
    _settle_repeats(load, write)
    if load.count(f"SELECT count(*) FROM (SELECT 1 FROM {load.table.sql} LIMIT 1)") == 0 and not _tombs(load):
        deleted = _mark_deleted(load)
        load.counts["inserted"] += load.insert_stage(f"WHERE {ORDINAL} NOT IN (FROM {_DELETED})" if deleted else "")
    else:
        _drop_late(load, write)
        deleted = _mark_deleted(load)
        _into_rows(load, write, deleted=deleted)
    if write.latest_by:
        _remember_deletions(load, write, deleted=deleted)
    load.run(f"DROP TABLE IF EXISTS {_DELETED}")


def take_census(load: Load, write: Merge, census: Census) -> None:
    """Delete, or mark as deleted, the table's rows whose keys the source has no more.

    Raises DataError where more than `census.max` of those that live would go, or where the source has no key at all.
    """
    table, known = load.table.sql, "temp.main._headrace_census"
    with load.incoming(census.keys) as (rows, _):
        load.run(f"CREATE TEMP TABLE {known} AS SELECT DISTINCT * FROM ({rows})")
    lives = "true" if census.mark is None else f"t.{quoted(census.mark)} IS NULL"
    keys = same("t", "c", write.keys, "=")
    missing = f"FROM {table} AS t ANTI JOIN {known} AS c ON {keys} WHERE {lives}"
    gone = load.count(f"SELECT count(*) {missing}")
    living = load.count(f"SELECT count(*) FROM {table} AS t WHERE {lives}")
    counted = load.count(f"SELECT count(*) FROM (SELECT 1 FROM {known} LIMIT 1) AS k")
    refuse_census(load.table, census, gone=gone, living=living, known=counted)
    if census.mark is None:
        load.counts["deleted"] += load.delete(table, f"SELECT t.rowid {missing}")
    else:
        mark = quoted(census.mark)
        back = f"SELECT t.rowid FROM {table} AS t SEMI JOIN {known} AS c ON {keys} WHERE t.{mark} IS NOT NULL"
        load.counts["updated"] += load.run(f"UPDATE {table} SET {mark} = NULL WHERE rowid IN ({back})")
        load.counts["deleted"] += load.run(
            f"UPDATE {table} SET {mark} = ?::VARCHAR::TIMESTAMPTZ WHERE rowid IN (SELECT t.rowid {missing})",
            [load.at.isoformat()],
        )
    load.run(f"DROP TABLE {known}")


def refuse_null_keys(load: Load, keys: Sequence[str]) -> None:
    """Raises DataError if a staged row has NULL in a key."""
    for key in keys:
        refuse_null_key(load.table, key, load.count(f"SELECT count(*) FROM {load.staged} WHERE {quoted(key)} IS NULL"))


def newest_first(columns: Sequence[str], table: str = "") -> str:
    """SQL's ORDER BY for the newest row first: NULL is the oldest, of equal ones the last read is newer."""
    prefix = f"{table}." if table else ""
    return ", ".join([*(f"{prefix}{quoted(c)} DESC NULLS LAST" for c in columns), f"{prefix}{ORDINAL} DESC"])


def _settle_repeats(load: Load, write: Merge) -> None:
    """Leave one row for each key in the stage."""
    keys = ", ".join(map(quoted, write.keys))
    if load.count(f"SELECT count(*) FROM (SELECT 1 FROM {load.staged} GROUP BY {keys})") == load.counts["rows"]:
        return
    ranked = f"row_number() OVER (PARTITION BY {keys} ORDER BY {newest_first(write.latest_by)})"
    load.delete(load.staged, f"SELECT rowid FROM {load.staged} QUALIFY {ranked} > 1")


def _drop_late(load: Load, write: Merge) -> None:
    """Take the rows out of the stage that are older than the target's, or than the remembered deletion of a key that
    the target does not have: another write may have put it there again.
    """
    if not write.latest_by:
        return
    pairs = [(f"t.{quoted(c)}", f"s.{quoted(c)}") for c in write.latest_by]
    known = [(load.table.sql, "")]
    if _tombs(load):
        gone = f"ANTI JOIN {load.table.sql} AS live ON {same('live', 's', write.keys, '=')}"
        known.append((f"({_tombstones(load, write)})", gone))
    for older, gone in known:
        load.delete(
            load.staged,
            f"SELECT s.rowid FROM {load.staged} AS s JOIN {older} AS t ON {same('t', 's', write.keys, '=')} {gone}"
            f" WHERE {newer(pairs)}",
        )


def _mark_deleted(load: Load) -> bool:
    """Note which staged rows delete their key; whether there are any."""
    if load.change.deletes is None:
        return False
    deletes = quoted(load.change.deletes)
    load.run(f"CREATE TEMP TABLE {_DELETED} AS SELECT {ORDINAL} FROM {load.staged} WHERE {deletes}")
    return load.count(f"SELECT count(*) FROM {_DELETED}") > 0


def _into_rows(load: Load, write: Merge, *, deleted: bool) -> None:
    """Bring the staged rows into the target's rows of the same keys."""
    table, keys = load.table.sql, same("t", "s", write.keys, "=")
    load.run(
        f"CREATE TEMP TABLE {_MATCHED} AS SELECT s.{ORDINAL}, t.rowid AS r FROM {load.staged} AS s JOIN {table} AS t"
        f" ON {keys}"
    )
    matched = load.count(f"SELECT count(*) FROM {_MATCHED}")
    if twice := matched - load.count(f"SELECT count(DISTINCT {ORDINAL}) FROM {_MATCHED}"):
        raise DataError(
            f"table {load.table} holds keys ({', '.join(write.keys)}) more than once: {twice} rows too many",
            hint="merge needs one row for each key; remove the others, or choose other keys",
        )
    gone = 0
    if deleted:
        gone = load.count(f"SELECT count(*) FROM {_MATCHED} SEMI JOIN {_DELETED} USING ({ORDINAL})")
    kept = _keep_missing(load, write)
    load.delete(table, f"SELECT r FROM {_MATCHED}")
    lives = f"WHERE {ORDINAL} NOT IN (FROM {_DELETED})" if deleted else "WHERE true"
    if kept:  # a new key has no values to keep, and gets the table's defaults
        there = f"{ORDINAL} IN (SELECT {ORDINAL} FROM {_MATCHED})"
        inserted = load.insert_stage(f"{lives} AND {there}")
        inserted += load.insert_stage(f"{lives} AND NOT {there}", load.rows.names)
    else:
        inserted = load.insert_stage(lives)
    load.counts["deleted"] += gone
    load.counts["updated"] += matched - gone
    load.counts["inserted"] += inserted - (matched - gone)
    load.run(f"DROP TABLE {_MATCHED}")


def _keep_missing(load: Load, write: Merge) -> bool:
    """Give the staged rows the target's values of the columns that they do not have; whether there are any."""
    missing = [c for c in load.columns if c.name not in load.rows]
    if missing:
        made = generated(load.connection, load.table)
        missing = [c for c in missing if c.name not in made]
    if not missing:
        return False
    kept = ", ".join(f"t.{quoted(c.name)}" for c in missing)
    load.run(
        f"CREATE TEMP TABLE _headrace_whole AS SELECT s.*, {kept} FROM {load.staged} AS s"
        f" LEFT JOIN {load.table.sql} AS t ON {same('t', 's', write.keys, '=')}"
    )
    load.run(f"DROP TABLE {load.staged}")
    load.run(f"ALTER TABLE temp.main._headrace_whole RENAME TO {load.staged.rpartition('.')[2]}")
    return True


def _tombs(load: Load) -> bool:
    return load.count(f"SELECT count(*) FROM _headrace.tombstones WHERE name = {literal(load.table.key)}") > 0


def _tombstones(load: Load, write: Merge) -> str:
    """SQL for the remembered deletions under these keys (in whatever order they were named) and this order, in the
    columns' own types.
    """
    held = {c.name: c.held for c in load.columns}
    at = {k: f"list_position(keys, {literal(k)})" for k in write.keys}
    picks = [f'CAST("values"[{at[k]}] AS {held[k]}) AS {quoted(k)}' for k in write.keys]
    picks += [f"CAST(latest[{i}] AS {held[c]}) AS {quoted(c)}" for i, c in enumerate(write.latest_by, 1)]
    return (
        f"SELECT {', '.join(picks)}, rowid AS _headrace_tomb FROM _headrace.tombstones"
        f" WHERE name = {literal(load.table.key)} AND list_sort(keys) = list_sort({_list(write.keys)})"
        f" AND latest_by = {_list(write.latest_by)}"
    )


def _remember_deletions(load: Load, write: Merge, *, deleted: bool) -> None:
    """Forget the deletions of keys that have come anew, remember the new ones."""
    if _tombs(load):
        load.delete(
            "_headrace.tombstones",
            f"SELECT t._headrace_tomb FROM ({_tombstones(load, write)}) AS t"
            f" JOIN {load.staged} AS s ON {same('t', 's', write.keys, '=')}",
        )
    if deleted:
        values, latest = (
            "[" + ", ".join(_text(load, n) for n in names) + "]" for names in (write.keys, write.latest_by)
        )
        load.run(
            f"INSERT INTO _headrace.tombstones SELECT {literal(load.table.key)}, {_list(write.keys)}, {values},"
            f" {_list(write.latest_by)}, {latest} FROM {load.staged} AS s WHERE {ORDINAL} IN (FROM {_DELETED})"
        )


def _text(load: Load, name: str) -> str:
    """SQL for a staged value as it is remembered. A FLOAT as the DOUBLE that it is: the column may grow, and the
    shorter text would be another number then.
    """
    held = next(c.held for c in load.columns if c.name == name)
    return f"CAST({f'CAST(s.{quoted(name)} AS DOUBLE)' if held == 'FLOAT' else f's.{quoted(name)}'} AS VARCHAR)"


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(literal, texts)) + "]"

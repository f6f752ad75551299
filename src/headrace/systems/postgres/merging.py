"""Merge: one row per key, the newest, in the batch and against the target; deletions are remembered. And replace.

UPDATE and INSERT rather than one MERGE: as quick, and they need neither a unique index nor a server newer than 14. A
row is updated only where it differs, and that is asked of the bytes (``*<>``): for IS DISTINCT FROM boxes of one area
are the same, and 1.0 is 1.00, and json has no equality at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.errors import DataError, SchemaError
from headrace.ledger import newer, refuse_census, refuse_nested, refuse_null_key
from headrace.sqltext import quoted
from headrace.systems.postgres.loading import ORDINAL, Load, same
from headrace.systems.postgres.names import literal
from headrace.systems.postgres.tables import existing, loose, unique_on

if TYPE_CHECKING:
    from headrace.flow import Census
    from headrace.writes import Merge, Replace

__all__ = ["differ", "merge", "newest_first", "refuse_null_keys", "replace", "take_census"]


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
    _settle_repeats(load, write.keys, write.latest_by)
    load.reshape()
    tombs = _tombs(load)
    if write.latest_by:
        _drop_late(load, write, tombs=tombs)
    _refuse_twice(load, write.keys)
    deletes = _deletes(load)
    if deletes is not None:
        load.counts["deleted"] += load.run(
            f"DELETE FROM {load.table.sql} AS t USING {load.staged} AS s"
            f" WHERE {same('t', 's', write.keys)} AND {deletes}"
        )
    alive = "true" if deletes is None else f"NOT {deletes}"
    load.counts["updated"] += _update(load, write.keys, alive)
    absent = f"NOT EXISTS (SELECT FROM {load.table.sql} AS t WHERE {same('t', 's', write.keys)})"
    load.counts["inserted"] += load.insert_stage(f"WHERE {alive} AND {absent}")
    if write.latest_by:
        _remember_deletions(load, write, tombs=tombs)


def take_census(load: Load, write: Merge, census: Census) -> None:
    """Delete, or mark as deleted, the table's rows whose keys the source has no more.

    Raises DataError where more than `census.max` of those that live would go, or where the source has no key at all.
    """
    table, known = load.table.sql, "pg_temp._headrace_census"
    load.make(known, write.keys)
    load.copy(known, census.keys)
    load.run(f"ANALYZE {known}")
    lives = "true" if census.mark is None else f"t.{quoted(census.mark)} IS NULL"
    there = f"EXISTS (SELECT FROM {known} AS c WHERE {same('t', 'c', write.keys)})"
    gone = load.count(f"SELECT count(*) FROM {table} AS t WHERE {lives} AND NOT {there}")
    living = load.count(f"SELECT count(*) FROM {table} AS t WHERE {lives}")
    counted = load.count(f"SELECT count(*) FROM (SELECT 1 FROM {known} LIMIT 1) AS k")
    refuse_census(load.table, census, gone=gone, living=living, known=counted)
    if census.mark is None:
        load.counts["deleted"] += load.run(f"DELETE FROM {table} AS t WHERE NOT {there}")
    else:
        mark = quoted(census.mark)
        load.counts["updated"] += load.run(
            f"UPDATE {table} AS t SET {mark} = NULL WHERE t.{mark} IS NOT NULL AND {there}"
        )
        load.counts["deleted"] += load.run(
            f"UPDATE {table} AS t SET {mark} = $1::timestamptz WHERE {lives} AND NOT {there}", [load.at.isoformat()]
        )
    load.run(f"DROP TABLE {known}")


def replace(load: Load, write: Replace) -> None:
    """The rows become the whole table. Readers see it as it was until the commit.

    Raises DataError as `merge` does for keys.
    """
    load.run("DELETE FROM _headrace.tombstones WHERE name = $1", [load.table.key])  # the rows are all there is to know
    if write.keys:
        _replace_by_keys(load, write.keys)
        return
    if load.shape.there and not load.shape.anew:
        load.empty()
    load.counts["inserted"] += load.insert()


def _replace_by_keys(load: Load, keys: Sequence[str]) -> None:
    """The keys are held to be what they should be in the first load too: the next one would refuse them."""
    table = load.table.sql
    load.stage()
    load.require(keys, "key")
    refuse_nested(load.table, load.change.schema, keys)
    refuse_null_keys(load, keys)
    _refuse_repeats(load, keys)
    load.reshape()
    if load.shape.anew or not load.shape.there:
        load.counts["inserted"] += load.insert_stage()
        return
    _refuse_twice(load, keys)
    load.counts["deleted"] += load.delete(
        f"FROM {table} AS t WHERE NOT EXISTS (SELECT FROM {load.staged} AS s WHERE {same('t', 's', keys)})"
    )
    load.counts["updated"] += _update(load, keys, "true")
    absent = f"NOT EXISTS (SELECT FROM {table} AS t WHERE {same('t', 's', keys)})"
    load.counts["inserted"] += load.insert_stage(f"WHERE {absent}")


def refuse_null_keys(load: Load, keys: Sequence[str]) -> None:
    """Raises DataError if a staged row has NULL in a key."""
    for key in keys:
        refuse_null_key(load.table, key, load.count(f"SELECT count(*) FROM {load.staged} WHERE {quoted(key)} IS NULL"))


def _refuse_repeats(load: Load, keys: Sequence[str]) -> None:
    """A replace by keys has no order in which one of two rows would be the last."""
    names = ", ".join(map(quoted, keys))
    if found := load.count(f"SELECT count(*) - count(DISTINCT ({names})) FROM {load.staged}"):
        raise DataError(
            f"table {load.table}: the rows have keys ({', '.join(keys)}) more than once: {found} rows too many",
            hint="choose other keys, or aggregate in a transform",
        )


def newest_first(load: Load, columns: Sequence[str], table: str = "") -> str:
    """SQL's ORDER BY for the newest row first: NULL is the oldest, of equal ones the last read is newer."""
    prefix = f"{table}." if table else ""
    order = [f"{prefix}{quoted(c)}{load.collated(c)} DESC NULLS LAST" for c in columns]
    return ", ".join([*order, f"{prefix}{ORDINAL} DESC"])


def differ(left: str, right: str, names: Sequence[str]) -> str:
    """SQL: the named columns of two tables are not the same, byte for byte.

    Without the cast the parser would compare column by column, by operators that the types do not have.
    """
    rows = (f"ROW({', '.join(f'{side}.{quoted(n)}' for n in names)})::record" for side in (left, right))
    return " OPERATOR(pg_catalog.*<>) ".join(rows)


def _settle_repeats(load: Load, keys: Sequence[str], latest_by: Sequence[str]) -> None:
    """Leave one row for each key in the stage."""
    names = ", ".join(map(quoted, keys))
    repeated = f"SELECT FROM {load.staged} GROUP BY {names} HAVING count(*) > 1"
    if not load.count(f"SELECT count(*) FROM ({repeated} LIMIT 1) AS q"):
        return
    ranked = f"row_number() OVER (PARTITION BY {names} ORDER BY {newest_first(load, latest_by)}) AS place"
    load.run(
        f"DELETE FROM {load.staged} AS s USING (SELECT {ORDINAL}, {ranked} FROM {load.staged}) AS r"
        f" WHERE r.{ORDINAL} = s.{ORDINAL} AND r.place > 1"
    )


def _drop_late(load: Load, write: Merge, *, tombs: bool) -> None:
    """Take the rows out of the stage that are older than the target's, or than the remembered deletion of a key that
    the target does not have: another write may have put it there again.
    """
    compared = [f"{quoted(c)}{load.collated(c)}" for c in write.latest_by]
    pairs = [(f"t.{c}", f"s.{c}") for c in compared]
    late = f"{same('t', 's', write.keys)} AND {newer(pairs)}"
    load.run(f"DELETE FROM {load.staged} AS s USING {load.table.sql} AS t WHERE {late}")
    if tombs:
        gone = f"NOT EXISTS (SELECT FROM {load.table.sql} AS live WHERE {same('live', 's', write.keys)})"
        load.run(f"DELETE FROM {load.staged} AS s USING ({_tombstones(load, write)}) AS t WHERE {late} AND {gone}")


def _refuse_twice(load: Load, keys: Sequence[str]) -> None:
    """The target must hold each key once; where a unique index sees to that, nothing is looked at."""
    oid = existing(load.connection, load.table)
    if oid is None or unique_on(load.connection, oid, keys):
        return
    twice = load.count(
        f"SELECT coalesce(sum(q.n - 1), 0) FROM (SELECT count(*) AS n FROM {load.staged} AS s"
        f" JOIN {load.table.sql} AS t ON {same('t', 's', keys)} GROUP BY s.{ORDINAL}) AS q"
    )
    if twice:
        raise DataError(
            f"table {load.table} holds keys ({', '.join(keys)}) more than once: {twice} rows too many",
            hint=f"{load.change.write.type} needs one row for each key; remove the others, or choose other keys",
        )


def _update(load: Load, keys: Sequence[str], where: str) -> int:
    """Update the target's rows of the same keys, those that differ; how many. Columns that rows lack are left alone. A
    key may be equal and yet spelled otherwise: then it differs too.
    """
    spelled = loose(load.connection, load.table, load.columns, keys)
    names = [n for n in load.written if n not in keys or n in spelled]
    if not names:
        return 0
    if always := next((c.name for c in load.columns if c.identity and c.name in names), None):
        raise SchemaError(
            f"table {load.table}: column {always!r} is GENERATED ALWAYS AS IDENTITY, and an update cannot set it",
            hint=f"leave it out of the rows, or ALTER COLUMN {quoted(always)} SET GENERATED BY DEFAULT",
        )
    sets = ", ".join(f"{quoted(n)} = s.{quoted(n)}" for n in names)
    return load.run(
        f"UPDATE {load.table.sql} AS t SET {sets} FROM {load.staged} AS s"
        f" WHERE {same('t', 's', keys)} AND {where} AND {differ('t', 's', names)}"
    )


def _deletes(load: Load) -> str | None:
    """SQL: whether a staged row deletes its key; None where none does."""
    return None if load.change.deletes is None else f"s.{quoted(load.change.deletes)}"


def _tombs(load: Load) -> bool:
    known = f"SELECT FROM _headrace.tombstones WHERE name = {literal(load.table.key)} LIMIT 1"
    return load.count(f"SELECT count(*) FROM ({known}) AS q") > 0


def _tombstones(load: Load, write: Merge) -> str:
    """SQL for the remembered deletions under these keys (in whatever order they were named) and this order, in the
    columns' own types.
    """
    held = {c.name: c.held for c in load.columns}
    at = {k: f"array_position(keys, {literal(k)})" for k in write.keys}
    picks = [f'("values"[{at[k]}])::{held[k]} AS {quoted(k)}' for k in write.keys]
    picks += [f"(latest[{i}])::{held[c]} AS {quoted(c)}" for i, c in enumerate(write.latest_by, 1)]
    return (
        f"SELECT {', '.join(picks)}, ctid AS _headrace_tomb FROM _headrace.tombstones"
        f" WHERE name = {literal(load.table.key)} AND keys @> {_list(write.keys)} AND keys <@ {_list(write.keys)}"
        f" AND latest_by = {_list(write.latest_by)}"
    )


def _remember_deletions(load: Load, write: Merge, *, tombs: bool) -> None:
    """Forget the deletions of keys that have come anew, remember the new ones."""
    if tombs:
        load.run(
            f"DELETE FROM _headrace.tombstones WHERE ctid IN (SELECT t._headrace_tomb FROM ({_tombstones(load, write)})"
            f" AS t JOIN {load.staged} AS s ON {same('t', 's', write.keys)})"
        )
    if (deletes := _deletes(load)) is not None:
        values, latest = (
            "ARRAY[" + ", ".join(_text(load, n) for n in names) + "]" for names in (write.keys, write.latest_by)
        )
        load.run(
            f"INSERT INTO _headrace.tombstones SELECT {literal(load.table.key)}, {_list(write.keys)}, {values},"
            f" {_list(write.latest_by)}, {latest} FROM {load.staged} AS s WHERE {deletes}"
        )


def _text(load: Load, name: str) -> str:
    """SQL for a staged value as it is remembered. A real as the double precision that it is: the column may grow, and
    the shorter text would be another number then.
    """
    held = next(c.held for c in load.columns if c.name == name)
    return f"s.{quoted(name)}{'::double precision' if held == 'real' else ''}::text"


def _list(texts: Sequence[str]) -> str:
    return "ARRAY[" + ", ".join(map(literal, texts)) + "]::text[]"

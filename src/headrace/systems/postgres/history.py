"""History (slowly changing dimension, type 2): every version of each key, told anew for the keys that rows touch.

The table holds the versions. Beside it stands what the versions alone do not say: rows that made no version since
they repeat the one before (a late row in between would make them one), and the moments at which absent keys were
closed. So the versions do not depend on how the rows were split into commits. Versions that stay as they are, are left
alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from headrace.contract.overtaking import spelled
from headrace.exact import to_text
from headrace.ledger import refuse_history, rejected_keys
from headrace.logical import Type
from headrace.sqltext import quoted
from headrace.systems.postgres.connection import run
from headrace.systems.postgres.encoding import Column
from headrace.systems.postgres.loading import ORDINAL, Load, same
from headrace.systems.postgres.merging import newest_first, refuse_null_keys
from headrace.systems.postgres.reading import batches
from headrace.systems.postgres.tables import past

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.systems.postgres.ledger import Key
    from headrace.writes import History

__all__ = ["close_absent", "history"]

_TOUCHED = "pg_temp._headrace_touched"
_TOLD = "pg_temp._headrace_told"
_TURNED = "pg_temp._headrace_turned"
_REOPENED = "pg_temp._headrace_reopened"
_CLOSED = "_headrace_closed"
_SAME = "_headrace_same"
_ROW = "_headrace_row"


def history(load: Load, write: History) -> None:
    """Put the rows among the versions of their keys.

    Raises DataError for a NULL key, ConfigError for columns that are not there or are the write's own.
    """
    load.keep = load.keep or (write.close_absent and load.change.complete)
    load.stage()
    load.require(write.keys, "key")
    load.require(write.latest_by, "latest_by column")
    load.require(write.track, "track column")
    refuse_history(load.table, write, load.rows, load.change.schema)
    refuse_null_keys(load, write.keys)
    load.reshape()
    if run(load.connection, "SELECT to_regclass($1) IS NULL", [past(load.table)])[0][0]:
        columns = ", ".join(quoted(n) for n in _kept(load, write))
        empty = f"SELECT {columns}, false AS {_CLOSED} FROM {load.table.sql} WITH NO DATA"
        load.run(f"CREATE TABLE {past(load.table)} AS {empty}")
        load.run(f"ALTER TABLE {past(load.table)} REPLICA IDENTITY FULL")  # a publication may be of all tables
    _temporary(load, _TOUCHED, f"SELECT DISTINCT {_list(write.keys)} FROM {load.staged}")
    _tell(load, write)
    load.run(f"DROP TABLE {_TOUCHED}")


def _kept(load: Load, write: History) -> list[str]:
    """The columns of a version, but for its end."""
    return [c.name for c in load.columns if not c.own and c.name != write.valid_to]


def _list(names: Sequence[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{quoted(n)}" for n in names)


def _temporary(load: Load, name: str, query: str) -> None:
    load.run(f"CREATE TEMP TABLE {name.removeprefix('pg_temp.')} ON COMMIT DROP AS {query}")
    load.run(f"ANALYZE {name}")


def _began(load: Load, write: History) -> str:
    """SQL for the moment at which a staged row begins to be valid."""
    return f"s.{quoted(write.latest_by[0])}" if write.latest_by else _moment(load, write)


def _moment(load: Load, write: History) -> str:
    """The commit's time in the type of `valid_from`."""
    held = next(c.held for c in load.columns if c.name == write.valid_from)
    return f"'{load.at.isoformat()}'::timestamptz::{held}"


def _picked(load: Load, write: History, began: str) -> str:
    """The columns of a version from a staged row ``s``: those that the rows do not have are NULL."""
    held = {c.name: c.held for c in load.columns}
    picks = []
    for name in _kept(load, write):
        source = (
            began if name == write.valid_from else f"s.{quoted(name)}" if name in load.rows else f"NULL::{held[name]}"
        )
        picks.append(f"{source} AS {quoted(name)}")
    return ", ".join(picks)


def _tell(load: Load, write: History, *, rows: bool = True) -> None:
    """Write the versions of the touched keys anew, from all that is known of them and from the staged `rows`."""
    table, began, keys = load.table.sql, quoted(write.valid_from), _list(write.keys)
    kept = _kept(load, write)
    touched = f"JOIN {_TOUCHED} AS k ON {same('e', 'k', write.keys)}"
    reopened = _reopened(load, write) if rows else ""
    undone = ""
    if reopened:  # a closing at this very moment is undone (dates are coarse)
        undone = (
            f" WHERE NOT EXISTS (SELECT FROM {_REOPENED} AS r WHERE {same('e', 'r', write.keys)} AND e.{_CLOSED}"
            f" AND e.{began} >= r.{began})"
        )
    columns = _list(kept, "e.")
    everything = (
        f"SELECT {columns}, false AS {_CLOSED}, -1::bigint AS {ORDINAL} FROM {table} AS e {touched}"
        f" UNION ALL SELECT {columns}, e.{_CLOSED}, -1 FROM {past(load.table)} AS e {touched}{undone}"
    )
    if rows:
        new = f"SELECT {_picked(load, write, _began(load, write))}, false, s.{ORDINAL} FROM {load.staged} AS s"
        everything += f" UNION ALL {new}{reopened}"
    ordered = [f"{quoted(c)}{load.collated(c)} NULLS FIRST" for c in write.latest_by]
    story = (
        f"(PARTITION BY {keys} ORDER BY "
        f"{', '.join([f'{began}{load.collated(write.valid_from)} NULLS FIRST', _CLOSED, *ordered])})"
    )
    moment = ", ".join([keys, began, *map(quoted, write.latest_by), _CLOSED])
    last_read = f"row_number() OVER (PARTITION BY {moment} ORDER BY {ORDINAL} DESC) AS _headrace_place"
    own = {*write.keys, *write.latest_by, write.valid_from, write.valid_to}
    track = write.track or tuple(n for n in kept if n not in own)
    value = f"ROW({', '.join([_CLOSED, *map(quoted, track)])})::record"
    repeats = f"coalesce({value} OPERATOR(pg_catalog.*=) lag({value}) OVER {story}, false)"
    _temporary(
        load,
        _TOLD,
        f"SELECT {_list(kept)}, {_CLOSED}, {repeats} AS {_SAME}"
        f" FROM (SELECT *, {last_read} FROM ({everything}) AS u) AS e WHERE _headrace_place = 1",
    )
    ends = f"lead({began}) OVER {story} AS {quoted(write.valid_to)}"
    turns = f"SELECT {_list(kept)}, {_CLOSED}, {ends} FROM {_TOLD} WHERE NOT {_SAME}"
    _temporary(load, _TURNED, f"SELECT * FROM ({turns}) AS t WHERE NOT {_CLOSED}")
    _bring(load, write, [*kept, write.valid_to])
    load.run(f"DELETE FROM {past(load.table)} AS e USING {_TOUCHED} AS k WHERE {same('e', 'k', write.keys)}")
    remembered = f"({_SAME} AND NOT {_CLOSED})" if write.latest_by else "false"
    load.run(
        f"INSERT INTO {past(load.table)} ({_list(kept)}, {_CLOSED}) SELECT {_list(kept)}, {_CLOSED} FROM {_TOLD}"
        f" WHERE {_CLOSED} OR {remembered}"
    )
    for name in (_TOLD, _TURNED, *([_REOPENED] if reopened else [])):
        load.run(f"DROP TABLE {name}")


def _bring(load: Load, write: History, columns: Sequence[str]) -> None:
    """Make the table's versions of the touched keys what was told."""
    table = load.table.sql
    alike = (
        f"{same('t', 'n', write.keys)}"
        f" AND ROW({_list(columns, 't.')})::record OPERATOR(pg_catalog.*=) ROW({_list(columns, 'n.')})::record"
    )
    gone = load.run(
        f"DELETE FROM {table} AS t USING {_TOUCHED} AS k WHERE {same('t', 'k', write.keys)}"
        f" AND NOT EXISTS (SELECT FROM {_TURNED} AS n WHERE {alike})"
    )
    made = load.run(
        f"INSERT INTO {table} ({_list(columns)}) OVERRIDING SYSTEM VALUE SELECT {_list(columns)} FROM {_TURNED} AS n"
        f" WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {alike})"
    )
    load.counts["inserted"] += made - gone


def _reopened(load: Load, write: History) -> str:
    """SQL for the keys that were closed and are there again, in a full read, with no newer moment than the closing:
    they come back at the commit's time. Other keys that come back have a moment of their own.
    """
    if not (write.close_absent and load.change.complete and write.latest_by):
        return ""
    keys, began, latest = _list(write.keys), quoted(write.valid_from), quoted(write.latest_by[0])
    newest = (
        f"row_number() OVER (PARTITION BY {keys} ORDER BY {newest_first(load, write.latest_by)}) AS _headrace_place"
    )
    closed = f"SELECT {keys}, max({began}) AS _headrace_end FROM {past(load.table)} WHERE {_CLOSED} GROUP BY {keys}"
    still_open = (
        f"SELECT FROM {load.table.sql} AS o WHERE {same('s', 'o', write.keys)} AND o.{quoted(write.valid_to)} IS NULL"
    )
    _temporary(
        load,
        _REOPENED,
        f"SELECT {_picked(load, write, _moment(load, write))}, false AS {_CLOSED}, s.{ORDINAL}"
        f" FROM (SELECT *, {newest} FROM {load.staged}) AS s JOIN ({closed}) AS c ON {same('s', 'c', write.keys)}"
        f" WHERE s._headrace_place = 1 AND NOT EXISTS ({still_open})"
        f" AND coalesce(s.{latest} <= c._headrace_end, true)",
    )
    return f" UNION ALL SELECT {_list(_kept(load, write))}, {_CLOSED}, {ORDINAL} FROM {_REOPENED}"


def close_absent(load: Load, write: History, key: Key) -> None:
    """Close the keys that a complete full read did not have. A rejected key counts as there; if a rejected row's
    key is not known, none is closed.
    """
    if not (write.close_absent and load.change.complete):
        return
    if (rejected := _rejected_keys(load, write, key)) is None:
        return
    table, began = load.table.sql, quoted(write.valid_from)
    _temporary(
        load,
        _TOUCHED,
        f"SELECT row_number() OVER () AS {_ROW}, * FROM (SELECT DISTINCT {_list(write.keys, 't.')} FROM {table} AS t"
        f" WHERE t.{quoted(write.valid_to)} IS NULL"
        f" AND NOT EXISTS (SELECT FROM {load.good} AS s WHERE {same('t', 's', write.keys)})) AS q",
    )
    _keep_rejected(load, write, rejected)
    closing, keys = _moment(load, write), _list(write.keys)
    load.run(
        f"INSERT INTO {past(load.table)} ({keys}, {began}, {_CLOSED}) SELECT {keys}, {closing}, true FROM {_TOUCHED}"
    )
    load.counts["deleted"] += load.count(f"SELECT count(*) FROM {_TOUCHED}")
    later = " UNION ALL ".join(
        f"SELECT {keys} FROM {name} WHERE {began} > {closing}" for name in (table, past(load.table))
    )
    ends = f"NOT EXISTS (SELECT FROM ({later}) AS l WHERE {same('k', 'l', write.keys)})"
    load.run(
        f"UPDATE {table} AS t SET {quoted(write.valid_to)} = {closing} FROM {_TOUCHED} AS k"
        f" WHERE {same('t', 'k', write.keys)} AND t.{quoted(write.valid_to)} IS NULL AND {ends}"
    )
    # what has not begun is not closed, and what repeated the version before is one of its own behind a closing
    load.run(f"DELETE FROM {_TOUCHED} AS k WHERE {ends}")
    if load.count(f"SELECT count(*) FROM {_TOUCHED}"):
        _tell(load, write, rows=False)
    load.run(f"DROP TABLE {_TOUCHED}")


def _rejected_keys(load: Load, write: History, key: Key) -> set[tuple[str | None, ...]] | None:
    """The keys of the rows in quarantine, as exact texts, spelled by the table's types; None where one of them is not
    known.
    """
    query = 'SELECT DISTINCT "key" FROM _headrace.rejects WHERE pipeline = $1 AND target = $2'
    texts = run(load.connection, query, key.values)
    types = {c.name: c.type for c in load.columns}
    told = spelled([text for (text,) in texts], [types[k] for k in write.keys])
    return rejected_keys(told, len(write.keys))


def _keep_rejected(load: Load, write: History, rejected: set[tuple[str | None, ...]]) -> None:
    """Take the keys of rejected rows out of those that are to be closed."""
    if not rejected:
        return
    held = {c.name: c for c in load.columns}
    columns = [Column(_ROW, "bigint", Type("int64")), *(held[k] for k in write.keys)]
    texts = [to_text(pl.col(k), held[k].type).alias(k) for k in write.keys]
    kept: list[int] = []
    for batch in list(batches(load.connection, f"SELECT * FROM {_TOUCHED}", columns)):
        there = zip(batch[_ROW], batch.select(texts).iter_rows(), strict=True)
        kept += [row for row, found in there if found in rejected]
    load.run(f"DELETE FROM {_TOUCHED} WHERE {_ROW} = ANY ($1::bigint[])", [kept])

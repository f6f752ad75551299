"""History (slowly changing dimension, type 2): every version of each key, told anew for the keys that rows touch.

The table holds the versions. Beside it stands what the versions alone do not say: rows that made no version since
they repeat the one before (a late row in between would make them one), and the moments at which absent keys were
closed. So the versions do not depend on how the rows were split into commits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import polars as pl

from headrace.contract.overtaking import spelled
from headrace.exact import to_text
from headrace.ledger import refuse_history, rejected_keys
from headrace.logical import Type
from headrace.sqltext import quoted
from headrace.systems.duckdb.frames import batches
from headrace.systems.duckdb.loading import ORDINAL, Load, same
from headrace.systems.duckdb.merging import newest_first, refuse_null_keys
from headrace.systems.duckdb.tables import past
from headrace.transform.columns import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.systems.duckdb.ledger import Key
    from headrace.writes import History

__all__ = ["close_absent", "history"]

_TOUCHED = "temp.main._headrace_touched"
_TOLD = "temp.main._headrace_told"
_REOPENED = "temp.main._headrace_reopened"
_CLOSED = "_headrace_closed"
_WIDE = re.compile(r"\b(?:FLOAT|DOUBLE|INTERVAL)\b")


def history(load: Load, write: History) -> None:
    """Put the rows among the versions of their keys.

    Raises DataError for a NULL key, ConfigError for columns that are not there or are the write's own.
    """
    load.keep_stage = load.keep_stage or (write.close_absent and load.change.complete)
    load.stage()
    load.require(write.keys, "key")
    load.require(write.latest_by, "latest_by column")
    load.require(write.track, "track column")
    refuse_history(load.table, write, load.rows, load.change.schema)
    refuse_null_keys(load, write.keys)
    columns = ", ".join(quoted(c.name) for c in load.columns if c.name != write.valid_to)
    load.run(
        f"CREATE TABLE IF NOT EXISTS {past(load.table)} AS"
        f" SELECT {columns}, false AS {_CLOSED} FROM {load.table.sql} WHERE false"
    )
    keys = ", ".join(map(quoted, write.keys))
    load.run(f"CREATE TEMP TABLE {_TOUCHED} AS SELECT DISTINCT {keys} FROM {load.staged}")
    before = load.count(f"SELECT count(*) FROM {load.table.sql}")
    _tell(load, write)
    load.counts["inserted"] += load.count(f"SELECT count(*) FROM {load.table.sql}") - before
    load.run(f"DROP TABLE {_TOUCHED}")


def _began(load: Load, write: History) -> str:
    """SQL for the moment at which a staged row begins to be valid."""
    return quoted(write.latest_by[0]) if write.latest_by else _moment(load, write)


def _moment(load: Load, write: History) -> str:
    """The commit's time in the type of `valid_from`."""
    held = next(c.held for c in load.columns if c.name == write.valid_from)
    return f"CAST(CAST('{load.at.isoformat()}' AS TIMESTAMPTZ) AS {held})"


def _tell(load: Load, write: History, *, rows: bool = True) -> None:
    """Write the versions of the touched keys anew, from all that is known of them and from the staged `rows`."""
    table, began = load.table.sql, quoted(write.valid_from)
    touched = f"SEMI JOIN {_TOUCHED} AS k ON {same('e', 'k', write.keys)}"
    reopened = _reopened(load, write) if rows else ""
    # a closing at this very moment is undone (dates are coarse)
    undone = f" ANTI JOIN {_REOPENED} AS r ON {same('e', 'r', write.keys)} AND e.{_CLOSED} AND e.{began} >= r.{began}"
    known = (
        f"SELECT e.* EXCLUDE ({quoted(write.valid_to)}), false AS {_CLOSED}, -1 AS {ORDINAL}"
        f" FROM {table} AS e {touched}"
        f" UNION ALL BY NAME SELECT e.*, -1 AS {ORDINAL}"
        f" FROM {past(load.table)} AS e {touched}{undone if reopened else ''}"
    )
    new = f" UNION ALL BY NAME SELECT s.*, {_began(load, write)} AS {began}, false AS {_CLOSED} FROM {load.staged} AS s"
    order = ", ".join([f"{began} NULLS FIRST", _CLOSED, *(f"{quoted(c)} NULLS FIRST" for c in write.latest_by)])
    keys = ", ".join(map(quoted, write.keys))
    moment = ", ".join([keys, began, *map(quoted, write.latest_by), _CLOSED])
    last_read = _first(moment, f"{ORDINAL} DESC")
    own = {*write.keys, *write.latest_by, write.valid_from, write.valid_to}
    track = write.track or tuple(c.name for c in load.columns if c.name not in own)
    # a constant beside them: a row of no columns, or of NULLs alone, must still be a row
    value = f"struct_pack(headrace := {_CLOSED}{_compared(load, track)})"
    story = f"(PARTITION BY {keys} ORDER BY {order})"
    load.run(
        f"CREATE TEMP TABLE {_TOLD} AS WITH e AS (SELECT * FROM ({known}{new if rows else ''}{reopened})"
        f" QUALIFY {last_read})"
        f" SELECT * EXCLUDE ({ORDINAL}), {value} IS NOT DISTINCT FROM lag({value}) OVER {story} AS _headrace_same"
        " FROM e"
    )
    turns = f"SELECT *, lead({began}) OVER {story} AS {quoted(write.valid_to)} FROM {_TOLD} WHERE NOT _headrace_same"
    for name in (table, past(load.table)):
        load.delete(name, f"SELECT t.rowid FROM {name} AS t SEMI JOIN {_TOUCHED} AS k ON {same('t', 'k', write.keys)}")
    load.run(
        f"INSERT INTO {table} BY NAME SELECT * EXCLUDE ({_CLOSED}, _headrace_same) FROM ({turns}) WHERE NOT {_CLOSED}"
    )
    remembered = f"(_headrace_same AND NOT {_CLOSED})" if write.latest_by else "false"
    load.run(
        f"INSERT INTO {past(load.table)} BY NAME SELECT * EXCLUDE (_headrace_same) FROM {_TOLD}"
        f" WHERE {_CLOSED} OR {remembered}"
    )
    load.run(f"DROP TABLE {_TOLD}")
    load.run(f"DROP TABLE IF EXISTS {_REOPENED}")


def _compared(load: Load, track: Sequence[str]) -> str:
    """SQL for the fields by which versions are told apart: the columns, and what values that DuckDB calls equal differ
    in (the sign of a zero, the parts of an interval, what a collation overlooks).
    """
    held = {c.name: c.held for c in load.columns}
    fields = []
    for at, name in enumerate(track):
        column = quoted(name)
        fields.append(f", c{at} := {column}" + (' COLLATE "binary"' if held[name] == "VARCHAR" else ""))
        if held[name] in ("FLOAT", "DOUBLE"):
            fields.append(f", d{at} := {column} = 0 AND signbit({column})")
        elif _WIDE.search(held[name]):
            fields.append(f", d{at} := replace(CAST({column} AS VARCHAR), '-nan', 'nan')")  # NaN has no sign
    return "".join(fields)


def _first(keys: str, order: str) -> str:
    """SQL, for a QUALIFY: the row is the first of its keys. By row_number() DuckDB would make an aggregate of it, which
    loses the sign of a zero in a FLOAT, a list or a struct.
    """
    return f"lag({ORDINAL}) OVER (PARTITION BY {keys} ORDER BY {order}) IS NULL"


def _reopened(load: Load, write: History) -> str:
    """SQL for the keys that were closed and are there again, in a full read, with no newer moment than the closing:
    they come back at the commit's time. Other keys that come back have a moment of their own.
    """
    if not (write.close_absent and load.change.complete and write.latest_by):
        return ""
    keys, began, latest = ", ".join(map(quoted, write.keys)), quoted(write.valid_from), quoted(write.latest_by[0])
    newest = _first(keys, newest_first(write.latest_by))
    closed = f"SELECT {keys}, max({began}) AS _headrace_end FROM {past(load.table)} WHERE {_CLOSED} GROUP BY {keys}"
    still_open = f"SELECT {keys} FROM {load.table.sql} WHERE {quoted(write.valid_to)} IS NULL"
    load.run(
        f"CREATE TEMP TABLE {_REOPENED} AS SELECT s.*, {_moment(load, write)} AS {began}, false AS {_CLOSED}"
        f" FROM (SELECT * FROM {load.staged} QUALIFY {newest}) AS s"
        f" JOIN ({closed}) AS c ON {same('s', 'c', write.keys)}"
        f" ANTI JOIN ({still_open}) AS o ON {same('s', 'o', write.keys)}"
        f" WHERE coalesce(s.{latest} <= c._headrace_end, true)"
    )
    return f" UNION ALL BY NAME FROM {_REOPENED}"


def close_absent(load: Load, write: History, key: Key) -> None:
    """Close the keys that a complete full read did not have. A rejected key counts as there; if a rejected row's
    key is not known, none is closed.
    """
    if write.close_absent and load.change.complete and (rejected := _rejected_keys(load, write, key)) is not None:
        table, began = load.table.sql, quoted(write.valid_from)
        load.run(
            f"CREATE TEMP TABLE {_TOUCHED} AS SELECT DISTINCT {', '.join(f't.{quoted(k)}' for k in write.keys)}"
            f" FROM {table} AS t ANTI JOIN {load.good} AS s ON {same('t', 's', write.keys)}"
            f" WHERE t.{quoted(write.valid_to)} IS NULL"
        )
        _keep_rejected(load, write, rejected)
        closing = _moment(load, write)
        keys = ", ".join(map(quoted, write.keys))
        load.run(
            f"INSERT INTO {past(load.table)} BY NAME"
            f" SELECT {keys}, {closing} AS {began}, true AS {_CLOSED} FROM {_TOUCHED}"
        )
        load.counts["deleted"] += load.count(f"SELECT count(*) FROM {_TOUCHED}")
        later = " UNION ALL ".join(
            f"SELECT {keys} FROM {name} WHERE {began} > {closing}" for name in (table, past(load.table))
        )
        load.run(
            f"UPDATE {table} AS t SET {quoted(write.valid_to)} = {closing}"
            f" FROM (FROM {_TOUCHED} AS k ANTI JOIN ({later}) AS l ON {same('k', 'l', write.keys)}) AS k"
            f" WHERE {same('t', 'k', write.keys)} AND t.{quoted(write.valid_to)} IS NULL"
        )
        _retell(load, write, later)
        load.run(f"DROP TABLE {_TOUCHED}")


def _retell(load: Load, write: History, later: str) -> None:
    """Put the closings into the stories of those keys that go on after them: `later` is SQL for their keys. What has
    not begun is not closed, and what repeated the version before is one of its own behind a closing.
    """
    on = f"SEMI JOIN ({later}) AS l ON {same('k', 'l', write.keys)}"
    if not load.count(f"SELECT count(*) FROM {_TOUCHED} AS k {on}"):
        return
    load.run(f"DELETE FROM {_TOUCHED} WHERE rowid NOT IN (SELECT k.rowid FROM {_TOUCHED} AS k {on})")
    before = load.count(f"SELECT count(*) FROM {load.table.sql}")
    _tell(load, write, rows=False)
    load.counts["inserted"] += load.count(f"SELECT count(*) FROM {load.table.sql}") - before


def _rejected_keys(load: Load, write: History, key: Key) -> set[tuple[str | None, ...]] | None:
    """The keys of the rows in quarantine, as exact texts, spelled by the table's types; None where one of them is not
    known.
    """
    texts = load.connection.execute(
        'SELECT DISTINCT "key" FROM _headrace.rejects WHERE pipeline = ? AND target = ?', key.values
    ).fetchall()
    types = {c.name: c.type for c in load.columns}
    told = spelled([text for (text,) in texts], [types[k] for k in write.keys])
    return rejected_keys(told, len(write.keys))


def _keep_rejected(load: Load, write: History, rejected: set[tuple[str | None, ...]]) -> None:
    """Take the keys of rejected rows out of those that are to be closed."""
    if not rejected:
        return
    held = {c.name: c for c in load.columns}
    columns = [Column("_headrace_row", "BIGINT", Type("int64")), *(held[k] for k in write.keys)]
    texts = [to_text(pl.col(k), held[k].type).alias(k) for k in write.keys]
    kept: list[int] = []
    query = f"SELECT rowid AS _headrace_row, * FROM {_TOUCHED}"
    for batch in list(batches(load.connection, query, columns)):
        there = zip(batch["_headrace_row"], batch.select(texts).iter_rows(), strict=True)
        kept += [row for row, found in there if found in rejected]
    load.run(f"DELETE FROM {_TOUCHED} WHERE rowid IN (SELECT unnest(?::BIGINT[]))", [kept])

"""Rejected rows in the ledger: which leave the quarantine with a commit, and which enter it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from headrace.contract.overtaking import KEY, Good, Waiting, overtaken
from headrace.exact import to_text
from headrace.schema import REJECTS
from headrace.sqltext import quoted
from headrace.stream import FrameStream
from headrace.systems.duckdb.frames import batches
from headrace.transform.columns import Column, logical, physical

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection

    from headrace.flow import Rejects
    from headrace.systems.duckdb.ledger import Key
    from headrace.systems.duckdb.loading import Load

__all__ = ["frame", "held", "settled", "update"]

_PIECE_ROWS = 250_000
_MINE = "pipeline = ? AND target = ?"


def held(connection: DuckDBPyConnection, key: Key) -> tuple[bool, bool]:
    """Whether rows are in quarantine, and whether any has a key, so that good rows of that key would supersede it."""
    mine = f"FROM _headrace.rejects WHERE {_MINE}"
    query = f'SELECT EXISTS ({mine}), EXISTS ({mine} AND "key" IS NOT NULL)'
    ((some, keyed),) = connection.execute(query, key.values * 2).fetchall()
    return bool(some), bool(keyed)


def frame(connection: DuckDBPyConnection, key: Key) -> pl.DataFrame:
    """The rows in quarantine, oldest first, with the columns of `schema.REJECTS`."""
    names = ", ".join(quoted(n) for n in REJECTS.names)
    query = f"SELECT {names} FROM _headrace.rejects WHERE {_MINE} ORDER BY number, source, file, line, id"
    columns = [Column(f.name, physical(f.type), f.type) for f in REJECTS]
    return pl.concat([pl.DataFrame(schema=REJECTS.polars()), *batches(connection, query, columns, key.values)])


def settled(connection: DuckDBPyConnection, key: Key) -> tuple[frozenset[str], frozenset[str]]:
    """The ids of the rejects that do not come back: those that were discarded, and those that were loaded."""
    rows = connection.execute(f"SELECT id, loaded FROM _headrace.settled WHERE {_MINE}", key.values).fetchall()
    given_up, appended = (frozenset(id for id, loaded in rows if loaded is which) for which in (False, True))
    return given_up, appended


def update(
    connection: DuckDBPyConnection,
    key: Key,
    rejects: Rejects | None,
    loads: Sequence[Load],
    *,
    number: int,
    at: datetime,
    some: bool,
) -> int:
    """Bring the quarantine up to date with a commit; how many rows have entered it. `some`: there are any in it."""
    if rejects is None:
        return 0
    if rejects.replace_all:
        connection.execute(f"DELETE FROM _headrace.settled WHERE {_MINE} AND loaded", key.values)
    for ids, loaded in ((rejects.discarded, False), (rejects.loaded, True)):
        if ids:
            connection.execute(
                "INSERT INTO _headrace.settled SELECT ?, ?, ?, unnest(?::VARCHAR[]), ?",
                [*key.values, number, list(ids), loaded],
            )
    if some:
        _leave(connection, key, rejects, loads)
    return _enter(connection, key, rejects, number=number, at=at) if rejects.count else 0


def _leave(connection: DuckDBPyConnection, key: Key, rejects: Rejects, loads: Sequence[Load]) -> None:
    """Take out what the commit settles or supersedes."""
    mine = f"DELETE FROM _headrace.rejects WHERE {_MINE}"
    if rejects.replace_all:
        connection.execute(mine, key.values)
    for told in rejects.superseded:
        connection.execute(
            f"{mine} AND source IS NOT DISTINCT FROM ? AND stage IN (SELECT unnest(?::VARCHAR[]))"
            " AND (?::VARCHAR[] IS NULL OR file IN (SELECT unnest(?::VARCHAR[])))",
            [*key.values, told.source, list(told.stages), *[None if told.files is None else list(told.files)] * 2],
        )
    if settled := [*rejects.resolved, *rejects.loaded, *rejects.discarded]:
        connection.execute(f"{mine} AND id IN (SELECT unnest(?::VARCHAR[]))", [*key.values, settled])
    if rejects.keys:
        _overtake(connection, key, rejects.keys, loads)


def _overtake(connection: DuckDBPyConnection, key: Key, names: Sequence[str], loads: Sequence[Load]) -> None:
    """Take out what a good row of the commit takes the place of."""
    mine = f"DELETE FROM _headrace.rejects WHERE {_MINE}"
    keyed = f'SELECT DISTINCT "key" FROM _headrace.rejects WHERE {_MINE} AND "key" IS NOT NULL'
    kept = Waiting(text for (text,) in connection.execute(keyed, key.values).fetchall())
    theirs = f'FROM _headrace.rejects WHERE {_MINE} AND "key" IN (SELECT unnest(?::VARCHAR[]))'
    for good in _good_rows(connection, names, loads):
        values = [*key.values, kept.of(good)]
        if len(good.latest_by):
            waiting = connection.sql(f'SELECT id, "key", "row" {theirs}', params=values).pl()
            values = [*key.values, overtaken(waiting, good)]
        which = "id" if len(good.latest_by) else '"key"'
        connection.execute(f"{mine} AND {which} IN (SELECT unnest(?::VARCHAR[]))", values)


def _enter(connection: DuckDBPyConnection, key: Key, rejects: Rejects, *, number: int, at: datetime) -> int:
    rows = FrameStream(lambda: pl.scan_arrow_c_stream(rejects.rows()).match_to_schema(REJECTS.polars()))
    columns = ", ".join(quoted(n) for n in REJECTS.names)
    connection.register("_headrace_rejected", rows)
    connection.execute(f"CREATE TEMP TABLE _headrace_entering AS SELECT {columns} FROM _headrace_rejected")
    connection.unregister("_headrace_rejected")
    entering = "temp.main._headrace_entering"
    connection.execute(f"DELETE FROM _headrace.rejects WHERE {_MINE} AND id IN (SELECT id FROM {entering})", key.values)
    ((count,),) = connection.execute(
        f"INSERT INTO _headrace.rejects SELECT ?, ?, ?, ?::VARCHAR::TIMESTAMPTZ, {columns} FROM {entering}",
        [*key.values, number, at.isoformat()],
    ).fetchall()
    connection.execute(f"DROP TABLE {entering}")
    return int(count)


def _good_rows(connection: DuckDBPyConnection, names: Sequence[str], loads: Sequence[Load]) -> Iterator[Good]:
    """The commit's good rows, some at a time. Not distinct: what DuckDB takes for the same
    key (0.0 and -0.0) may be two texts.
    """
    for load in loads:
        columns = [c for n in names for c in load.columns if c.name == n]
        if len(columns) != len(names) or not load.keep_stage:
            continue
        texts = [to_text(pl.col(c.name), c.type).alias(c.name) for c in columns]
        order = [c for n in load.change.latest_by for c in load.columns if c.name == n]
        picked = list({c.name: c for c in (*columns, *order)}.values())
        taken = ", ".join(quoted(c.name) for c in picked)
        at = -1
        while (end := _piece_end(connection, load.good, at)) is not None:
            piece = f"SELECT {taken} FROM {load.good} WHERE rowid > {at} AND rowid <= {end}"
            rows = pl.concat(batches(connection, piece, picked))
            written = [json.dumps(row, ensure_ascii=False) for row in rows.select(texts).iter_rows()]
            yield Good(
                rows=rows.select(pl.Series(KEY, written, dtype=pl.String), *(c.name for c in order)),
                types=tuple(c.type for c in columns),
                latest_by=logical(tuple(order)),
                versions=load.change.keeps_versions,
            )
            at = end


def _piece_end(connection: DuckDBPyConnection, table: str, at: int) -> int | None:
    """The rowid of the last row of the next piece: they have gaps, and in a table of this transaction begin at 2^62."""
    following = f"SELECT rowid FROM {table} WHERE rowid > {at} ORDER BY rowid LIMIT {_PIECE_ROWS}"
    ((end,),) = connection.execute(f"SELECT max(rowid) FROM ({following})").fetchall()
    return None if end is None else int(end)

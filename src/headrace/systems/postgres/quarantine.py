"""Rejected rows in the ledger: which leave the quarantine with a commit, and which enter it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

import polars as pl
import psycopg

from headrace.contract.overtaking import KEY, Good, Waiting, overtaken
from headrace.exact import to_text
from headrace.schema import REJECTS, Field, Schema
from headrace.sqltext import quoted
from headrace.stream.drawing import drawn
from headrace.systems.postgres.connection import run
from headrace.systems.postgres.encoding import Column, encoded
from headrace.systems.postgres.loading import Load, copied
from headrace.systems.postgres.reading import batches

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection

    from headrace.flow import Rejects
    from headrace.systems.postgres.ledger import Key

__all__ = ["frame", "has_keys", "settled", "update"]

_MINE = "pipeline = $1 AND target = $2"
_HELD = {"line": "bigint", "rules": "text[]"}
_NUL, _SHOWN = "\0", "\N{SYMBOL FOR NULL}"


def has_keys(connection: Connection, key: Key) -> bool:
    """Whether rows in quarantine have a key, so that good rows of that key would supersede them."""
    query = f'SELECT 1 FROM _headrace.rejects WHERE {_MINE} AND "key" IS NOT NULL LIMIT 1'
    return bool(run(connection, query, key.values))


def frame(connection: Connection, key: Key) -> pl.DataFrame:
    """The rows in quarantine, oldest first, with the columns of `schema.REJECTS`."""
    rows = run(
        connection,
        'SELECT id, stage, source, file, line, rules, "row", "key", raw FROM _headrace.rejects'
        f" WHERE {_MINE} ORDER BY number, source NULLS FIRST, file NULLS FIRST, line NULLS FIRST, id",
        key.values,
    )
    told = [(*row[:6], row[6] if row[8] is None else row[8].decode(), row[7]) for row in rows]
    return pl.DataFrame(told, schema=REJECTS.polars(), orient="row")


def settled(connection: Connection, key: Key) -> tuple[frozenset[str], frozenset[str]]:
    """The ids of the rejects that do not come back: those that were discarded, and those that were loaded."""
    rows = run(connection, f"SELECT id, loaded FROM _headrace.settled WHERE {_MINE}", key.values)
    given_up, appended = (frozenset(id for id, loaded in rows if loaded is which) for which in (False, True))
    return given_up, appended


def update(
    connection: Connection,
    key: Key,
    rejects: Rejects | None,
    loads: Sequence[Load],
    *,
    number: int,
    at: datetime,
) -> int:
    """Bring the quarantine up to date with a commit; how many rows have entered it."""
    if rejects is None:
        return 0
    mine = f"DELETE FROM _headrace.rejects WHERE {_MINE}"
    if rejects.replace_all:
        run(connection, mine, key.values)
        run(connection, f"DELETE FROM _headrace.settled WHERE {_MINE} AND loaded", key.values)
    for told in rejects.superseded:
        run(
            connection,
            f"{mine} AND source IS NOT DISTINCT FROM $3::text AND stage = ANY ($4::text[])"
            " AND ($5::text[] IS NULL OR file = ANY ($5::text[]))",
            [*key.values, told.source, list(told.stages), None if told.files is None else list(told.files)],
        )
    if gone := [*rejects.resolved, *rejects.loaded, *rejects.discarded]:
        run(connection, f"{mine} AND id = ANY ($3::text[])", [*key.values, gone])
    for ids, loaded in ((rejects.discarded, False), (rejects.loaded, True)):
        if ids:
            statement = "INSERT INTO _headrace.settled SELECT $1, $2, $3::bigint, unnest($4::text[]), $5"
            run(connection, statement, [*key.values, number, list(ids), loaded])
    if rejects.keys and (superseded := _superseded(connection, key, rejects.keys, loads)):
        run(connection, f"{mine} AND id = ANY ($3::text[])", [*key.values, superseded])
    return _enter(connection, key, rejects, number=number, at=at)


def _enter(connection: Connection, key: Key, rejects: Rejects, *, number: int, at: datetime) -> int:
    lazy = pl.scan_arrow_c_stream(rejects.rows()).match_to_schema(REJECTS.polars()).with_columns(_raw())
    lazy = lazy.with_columns(pl.col("row").str.replace_all(_NUL, _SHOWN, literal=True))
    with closing(drawn(lazy)) as frames:
        for first in frames:
            if first.height:
                return _put(connection, key, chain([first], frames), number=number, at=at)
    return 0


def _put(connection: Connection, key: Key, frames: Iterator[pl.DataFrame], *, number: int, at: datetime) -> int:
    names = (*REJECTS.names, "raw")
    columns = ", ".join(f"{quoted(n)} {'bytea' if n == 'raw' else _HELD.get(n, 'text')}" for n in names)
    entering = "pg_temp._headrace_entering"
    run(connection, f"CREATE TEMP TABLE _headrace_entering ({columns}) ON COMMIT DROP")
    taken = {f.name: (f.type, Column(f.name, _HELD.get(f.name, "text"), f.type)) for f in REJECTS}
    binary = next(f.type for f in _BINARY)
    taken["raw"] = (binary, Column("raw", "bytea", binary))
    statement = f"COPY {entering} ({', '.join(map(quoted, names))}) FROM STDIN"
    copied(connection, statement, encoded(frames, taken, ordinal=False))
    run(connection, f"DELETE FROM _headrace.rejects WHERE {_MINE} AND id IN (SELECT id FROM {entering})", key.values)
    with psycopg.RawCursor(connection) as cursor:
        picked = ", ".join(map(quoted, names))
        cursor.execute(
            f"INSERT INTO _headrace.rejects (pipeline, target, number, rejected_at, {picked})"
            f" SELECT $1, $2, $3::bigint, $4::timestamptz, {picked}"
            f" FROM (SELECT DISTINCT ON (id) * FROM {entering}) AS e",
            [*key.values, number, at.isoformat()],
        )
        count = cursor.rowcount
    run(connection, f"DROP TABLE {entering}")
    return count


_BINARY = type(REJECTS).of({"raw": "binary"})


def _raw() -> pl.Expr:
    """The row as bytes, where it has a character that no text of PostgreSQL can have."""
    return pl.when(pl.col("row").str.contains(_NUL, literal=True)).then(pl.col("row").cast(pl.Binary)).alias("raw")


def _superseded(connection: Connection, key: Key, names: Sequence[str], loads: Sequence[Load]) -> list[str]:
    """The ids of rejects that a good row of this commit takes the place of."""
    theirs = f'FROM _headrace.rejects WHERE {_MINE} AND "key" IS NOT NULL'
    kept = run(connection, f'SELECT id, "key" {theirs}', key.values)
    keyed = pl.DataFrame(kept, schema={"id": pl.String, "key": pl.String}, orient="row")
    keys = Waiting(keyed["key"])
    found = set[str]()
    for good in _good_rows(connection, names, loads) if kept else ():
        waiting = keyed.filter(pl.col("key").is_in(keys.of(good)))
        if len(good.latest_by):
            values = [*key.values, waiting["id"].to_list()]
            rows = run(connection, f'SELECT id, "key", "row" {theirs} AND id = ANY ($3::text[])', values)
            waiting = pl.DataFrame(rows, schema=dict.fromkeys(("id", "key", "row"), pl.String), orient="row")
        found.update(overtaken(waiting, good))
    return sorted(found)


def _good_rows(connection: Connection, names: Sequence[str], loads: Sequence[Load]) -> Iterator[Good]:
    """The commit's good rows, some at a time."""
    for load in loads:
        columns = [c for n in names for c in load.columns if c.name == n]
        if len(columns) != len(names) or not load.keep:
            continue
        texts = [to_text(pl.col(c.name), c.type).alias(c.name) for c in columns]
        order = [c for n in load.change.latest_by for c in load.columns if c.name == n]
        latest_by = Schema(tuple(Field(c.name, c.type) for c in order))
        picked = list({c.name: c for c in (*columns, *order)}.values())
        query = f"SELECT DISTINCT {', '.join(quoted(c.name) for c in picked)} FROM {load.good}"
        for batch in batches(connection, query, picked):
            written = [json.dumps(row, ensure_ascii=False) for row in batch.select(texts).iter_rows()]
            rows = batch.select(pl.Series(KEY, written, dtype=pl.String), *latest_by.names)
            types = tuple(c.type for c in columns)
            yield Good(rows=rows, types=types, latest_by=latest_by, versions=load.change.keeps_versions)

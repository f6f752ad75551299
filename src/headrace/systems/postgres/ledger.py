"""The ledger: what has been loaded, in tables of the schema ``_headrace`` of the very database that it speaks of.

The key is the pipeline and the target table; commits are numbered by the target. All but `ensure` runs inside a
transaction of the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.flow import Commit, FileStamp, Receipt, Seal
from headrace.frozen import frozen
from headrace.ledger import VERSION, Head, Owned, entries, refuse_newer
from headrace.schema import Schema
from headrace.sqltext import quoted
from headrace.systems.postgres.connection import run, transaction

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["VERSION", "Head", "Key", "Owned"]

_MAKING = 0x6865_6164_7261_6365  # the advisory lock under which a ledger is made: "headrace"
_TABLES = """
CREATE SCHEMA IF NOT EXISTS _headrace;
CREATE TABLE _headrace.ledger (version integer NOT NULL);
CREATE TABLE _headrace.commits (
    pipeline text NOT NULL, target text NOT NULL, number bigint NOT NULL, id text NOT NULL UNIQUE,
    run text NOT NULL, committed_at timestamptz NOT NULL, write text,
    positions json NOT NULL, identities json NOT NULL,
    schemas json NOT NULL, counts json NOT NULL, record json NOT NULL, PRIMARY KEY (target, number));
CREATE INDEX ON _headrace.commits (pipeline, target, number);
CREATE TABLE _headrace.tables (
    name text NOT NULL, pipeline text NOT NULL, target text NOT NULL, schema json NOT NULL,
    added text[] NOT NULL, PRIMARY KEY (name, pipeline));
CREATE TABLE _headrace.files (
    pipeline text NOT NULL, target text NOT NULL, source text NOT NULL, name text NOT NULL,
    size bigint NOT NULL, version text NOT NULL, number bigint NOT NULL,
    PRIMARY KEY (pipeline, target, source, name));
CREATE TABLE _headrace.rejects (
    pipeline text NOT NULL, target text NOT NULL, number bigint NOT NULL, rejected_at timestamptz NOT NULL,
    id text, stage text, source text, file text, line bigint, rules text[], "row" text, raw bytea, "key" text);
CREATE INDEX ON _headrace.rejects (pipeline, target, id);
CREATE TABLE _headrace.settled (
    pipeline text NOT NULL, target text NOT NULL, number bigint NOT NULL, id text NOT NULL, loaded boolean NOT NULL);
CREATE INDEX ON _headrace.settled (pipeline, target);
CREATE TABLE _headrace.runs (
    pipeline text NOT NULL, target text NOT NULL, recorded_at timestamptz NOT NULL, run json NOT NULL);
CREATE INDEX ON _headrace.runs (pipeline, target);
CREATE TABLE _headrace.tombstones (
    name text NOT NULL, keys text[] NOT NULL, "values" text[] NOT NULL,
    latest_by text[] NOT NULL, latest text[] NOT NULL);
CREATE INDEX ON _headrace.tombstones (name);
ALTER TABLE _headrace.ledger REPLICA IDENTITY FULL;
ALTER TABLE _headrace.rejects REPLICA IDENTITY FULL;
ALTER TABLE _headrace.settled REPLICA IDENTITY FULL;
ALTER TABLE _headrace.runs REPLICA IDENTITY FULL;
ALTER TABLE _headrace.tombstones REPLICA IDENTITY FULL;
"""
_UNNAMED = """
SELECT c.relname FROM pg_class AS c
WHERE EXISTS (SELECT FROM pg_publication) AND c.relnamespace = '_headrace'::regnamespace AND c.relkind = 'r'
  AND c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)
  AND pg_has_role(c.relowner, 'USAGE') ORDER BY 1
"""
"""Tables of older ledgers whose rows a publication of all tables cannot name: it keeps them from being deleted."""


@frozen
class Key:
    """Whose ledger: the pipeline, and the target as ``schema.table``."""

    pipeline: str
    target: str

    @property
    def values(self) -> list[Any]:
        """For ``pipeline = $1 AND target = $2``."""
        return [self.pipeline, self.target]

    def head(self, connection: Connection) -> Head:
        """The last commits; number 0 where there is none."""
        last = run(
            connection,
            "SELECT number, id, committed_at FROM _headrace.commits WHERE target = $1 ORDER BY number DESC LIMIT 1",
            [self.target],
        )
        if not last:
            return Head()
        number, top, at = last[0]
        own = run(
            connection,
            "SELECT positions, identities, write, record FROM _headrace.commits"
            " WHERE pipeline = $1 AND target = $2 ORDER BY number DESC LIMIT 1",
            self.values,
        )
        return Head(number, top, at.astimezone(UTC), *(own[0] if own else ()))

    def seen(self, connection: Connection, source: str, names: Iterable[str] | None) -> Mapping[str, FileStamp]:
        """The stamps under which the named files (None: all) were read."""
        rows = run(
            connection,
            "SELECT name, size, version FROM _headrace.files WHERE pipeline = $1 AND target = $2 AND source = $3"
            " AND ($4::text[] IS NULL OR name = ANY ($4::text[]))",
            [*self.values, source, None if names is None else list(names)],
        )
        return {row[0]: FileStamp._make(row) for row in rows}

    def remember(
        self,
        connection: Connection,
        commit: Commit,
        seal: Seal,
        *,
        head: Head,
        at: datetime,
        counts: Mapping[str, int],
    ) -> None:
        """Write the commit, and the files it has read."""
        number = head.number + 1
        write = commit.write or head.write
        schemas = {c.table: c.schema.to_json() for c in commit.changes}
        positions, identities = head.moved(seal)
        run(
            connection,
            "INSERT INTO _headrace.commits VALUES ($1, $2, $3::bigint, $4, $5, $6::timestamptz, $7, $8::json, $9::json,"
            " $10::json, $11::json, $12::json)",
            [
                *self.values,
                number,
                commit.id,
                commit.run,
                at.isoformat(),
                write,
                json.dumps(positions),
                json.dumps(identities),
                json.dumps(schemas),
                json.dumps(dict(counts)),
                json.dumps(dict(seal.record)),
            ],
        )
        if seal.forget_files:
            run(connection, "DELETE FROM _headrace.files WHERE pipeline = $1 AND target = $2", self.values)
        for source, stamps in seal.files.items():
            if stamps:
                self._remember_files(connection, source, stamps, number)

    def _remember_files(self, connection: Connection, source: str, stamps: Sequence[FileStamp], number: int) -> None:
        last = {s.name: s for s in stamps}
        run(
            connection,
            "INSERT INTO _headrace.files SELECT $1, $2, $3, f.name, f.size, f.version, $7::bigint"
            " FROM unnest($4::text[], $5::bigint[], $6::text[]) AS f(name, size, version)"
            " ON CONFLICT (pipeline, target, source, name)"
            " DO UPDATE SET size = excluded.size, version = excluded.version, number = excluded.number",
            [
                *self.values,
                source,
                list(last),
                [s.size for s in last.values()],
                [s.version for s in last.values()],
                number,
            ],
        )


def exists(connection: Connection) -> bool:
    """Whether the database has a ledger. Raises ConfigError where a newer headrace has written it."""
    if run(connection, "SELECT to_regclass('_headrace.ledger')")[0][0] is None:
        return False
    ((version,),) = run(connection, "SELECT max(version) FROM _headrace.ledger")
    refuse_newer(version, "database")
    return version is not None


def ensure(connection: Connection) -> None:
    """Make the ledger unless it is there, in a transaction of its own: a first load takes long, and other tables' first
    loads would wait for it.
    """
    if not exists(connection):
        with transaction(connection):
            run(connection, "SELECT pg_advisory_xact_lock($1::bigint)", [_MAKING])
            if not exists(connection):
                connection.execute(_TABLES)
                run(connection, "INSERT INTO _headrace.ledger VALUES ($1)", [VERSION])
    for (name,) in run(connection, _UNNAMED):  # one by one: who holds one of them may wait for another
        run(connection, f"ALTER TABLE _headrace.{quoted(name)} REPLICA IDENTITY FULL")


def receipt(connection: Connection, id: str) -> Receipt | None:
    """What was answered, or should have been, to the commit of this id."""
    rows = run(connection, "SELECT number, counts, record FROM _headrace.commits WHERE id = $1", [id])
    if not rows:
        return None
    number, counts, record = rows[0]
    return Receipt(id=id, number=number, counts=counts, record=record, repeated=True)


def owned(connection: Connection, name: str) -> Owned | None:
    """The table as the ledger knows it, None for one that headrace does not keep."""
    rows = run(
        connection,
        "SELECT pipeline, target, schema, added FROM _headrace.tables WHERE name = $1 ORDER BY pipeline",
        [name],
    )
    if not rows:
        return None
    return Owned(Schema.from_json(rows[0][2]), {row[0]: row[1] for row in rows}, tuple(rows[0][3]))


def own(connection: Connection, name: str, key: Key, schema: Schema, added: Sequence[str]) -> None:
    """Keep the table's logical schema, and that this pipeline writes it: into one target, the last one."""
    text = json.dumps(schema.to_json(), ensure_ascii=False)
    known = owned(connection, name)
    if known is not None and (known.schema, known.added) != (schema, tuple(added)):
        statement = "UPDATE _headrace.tables SET schema = $2::json, added = $3::text[] WHERE name = $1"
        run(connection, statement, [name, text, list(added)])
    if known is None or not known.written_by(*key.values):
        statement = (
            "INSERT INTO _headrace.tables VALUES ($1, $2, $3, $4::json, $5::text[])"
            " ON CONFLICT (name, pipeline) DO UPDATE SET target = excluded.target"
        )
        run(connection, statement, [name, *key.values, text, list(added)])


def forget_others(connection: Connection, name: str, key: Key) -> None:
    """The table was removed and is made anew: what other pipelines had loaded into it is gone, and they begin anew; so
    does this one with another target.
    """
    for kept in ("commits", "files", "rejects", "settled", "tables"):
        column = "name" if kept == "tables" else "target"
        other = f"{column} = $1 AND (pipeline <> $2 OR target <> $3)"
        run(connection, f"DELETE FROM _headrace.{kept} WHERE {other}", [name, *key.values])


def record(connection: Connection, key: Key, told: Mapping[str, Any], at: datetime) -> None:
    """Keep a run, as later than what is there: the clock may have been set back."""
    run(
        connection,
        "INSERT INTO _headrace.runs"
        " SELECT $1, $2, greatest($3::timestamptz, max(at) + interval '1 microsecond'), $4::json"
        " FROM (SELECT committed_at AS at FROM _headrace.commits WHERE pipeline = $1 AND target = $2"
        " UNION ALL SELECT recorded_at FROM _headrace.runs WHERE pipeline = $1 AND target = $2) AS known",
        [*key.values, at.isoformat(), json.dumps(dict(told))],
    )


def history(connection: Connection, key: Key) -> Sequence[Mapping[str, Any]]:
    """Commits and runs, newest first."""
    commits = run(
        connection,
        "SELECT committed_at, number, id, run, write, positions, counts, record FROM _headrace.commits"
        " WHERE pipeline = $1 AND target = $2",
        key.values,
    )
    runs = run(
        connection, "SELECT recorded_at, run FROM _headrace.runs WHERE pipeline = $1 AND target = $2", key.values
    )
    facts = ("number", "id", "run", "write", "positions", "counts", "record")
    return entries(((at, dict(zip(facts, told, strict=True))) for at, *told in commits), runs)

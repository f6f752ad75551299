"""The ledger: what has been loaded, in tables of the schema ``_headrace`` in the very file it speaks of.

The key is the pipeline and the target table; commits are numbered by the target. Everything here runs inside a
transaction of the caller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from headrace.flow import Commit, Receipt, Seal
from headrace.frozen import frozen
from headrace.ledger import VERSION, Head, Owned, entries, refuse_newer
from headrace.schema import REJECTS, Schema
from headrace.sqltext import quoted
from headrace.transform.columns import physical

if TYPE_CHECKING:
    import polars as pl
    from duckdb import DuckDBPyConnection

__all__ = ["VERSION", "Head", "Key", "Owned"]

_REJECT_COLUMNS = ", ".join(f"{quoted(f.name)} {physical(f.type)}" for f in REJECTS)
_TABLES = f"""
CREATE SCHEMA IF NOT EXISTS _headrace;
CREATE TABLE IF NOT EXISTS _headrace.ledger (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS _headrace.commits (
    pipeline VARCHAR NOT NULL, target VARCHAR NOT NULL, number BIGINT NOT NULL, id VARCHAR NOT NULL,
    run VARCHAR NOT NULL, committed_at TIMESTAMPTZ NOT NULL, write VARCHAR,
    positions JSON NOT NULL, identities JSON NOT NULL,
    schemas JSON NOT NULL, counts JSON NOT NULL, record JSON NOT NULL);
CREATE TABLE IF NOT EXISTS _headrace.tables (
    name VARCHAR NOT NULL, pipeline VARCHAR NOT NULL, target VARCHAR NOT NULL, schema JSON NOT NULL,
    added VARCHAR[] NOT NULL);
CREATE TABLE IF NOT EXISTS _headrace.files (
    pipeline VARCHAR NOT NULL, target VARCHAR NOT NULL, source VARCHAR NOT NULL, name VARCHAR NOT NULL,
    size BIGINT NOT NULL, version VARCHAR NOT NULL, number BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS _headrace.rejects (
    pipeline VARCHAR NOT NULL, target VARCHAR NOT NULL, number BIGINT NOT NULL, rejected_at TIMESTAMPTZ NOT NULL,
    {_REJECT_COLUMNS});
CREATE TABLE IF NOT EXISTS _headrace.settled (
    pipeline VARCHAR NOT NULL, target VARCHAR NOT NULL, number BIGINT NOT NULL, id VARCHAR NOT NULL,
    loaded BOOLEAN NOT NULL);
CREATE TABLE IF NOT EXISTS _headrace.runs (
    pipeline VARCHAR NOT NULL, target VARCHAR NOT NULL, recorded_at TIMESTAMPTZ NOT NULL, run JSON NOT NULL);
CREATE TABLE IF NOT EXISTS _headrace.tombstones (
    name VARCHAR NOT NULL, keys VARCHAR[] NOT NULL, "values" VARCHAR[] NOT NULL,
    latest_by VARCHAR[] NOT NULL, latest VARCHAR[] NOT NULL);
"""


@frozen
class Key:
    """Whose ledger: the pipeline, and the target as ``schema.table``."""

    pipeline: str
    target: str

    @property
    def values(self) -> list[str]:
        """For ``pipeline = ? AND target = ?``."""
        return [self.pipeline, self.target]

    def head(self, connection: DuckDBPyConnection) -> Head:
        """The last commits; number 0 where there is none."""
        columns = "pipeline = ?, number, id, epoch_us(committed_at), positions, identities, write, record"
        newest = f"SELECT {columns} FROM _headrace.commits WHERE target = ? {{}} ORDER BY number DESC LIMIT 1"
        last = connection.execute(newest.format(""), self.values).fetchall()
        if not last:
            return Head()
        ((mine, number, top, at, *_),) = last
        if not mine:
            own = newest.format("AND pipeline = ?")
            last = connection.execute(own, [*self.values, self.pipeline]).fetchall()
        if not last:
            return Head(number, top, _instant(at))
        ((_, _, _, _, positions, identities, write, record),) = last
        facts = (json.loads(positions), json.loads(identities), write, json.loads(record))
        return Head(number, top, _instant(at), *facts)

    def files(self, connection: DuckDBPyConnection) -> pl.DataFrame:
        """The files that were read: source, name, and size and version as their stamps were."""
        query = "SELECT source, name, size, version FROM _headrace.files WHERE pipeline = ? AND target = ?"
        found: pl.DataFrame = connection.sql(query, params=self.values).pl()
        return found

    def remember(
        self,
        connection: DuckDBPyConnection,
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
        connection.execute(
            "INSERT INTO _headrace.commits VALUES (?, ?, ?, ?, ?, ?::VARCHAR::TIMESTAMPTZ, ?, ?, ?, ?, ?, ?)",
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
        self._remember_files(connection, seal, number)

    def _remember_files(self, connection: DuckDBPyConnection, seal: Seal, number: int) -> None:
        if seal.forget_files:
            connection.execute("DELETE FROM _headrace.files WHERE pipeline = ? AND target = ?", self.values)
        for source, stamps in seal.files.items():
            if not stamps:
                continue
            names, sizes, versions = zip(*((s.name, s.size, s.version) for s in stamps), strict=True)
            connection.execute(
                "DELETE FROM _headrace.files WHERE pipeline = ? AND target = ? AND source = ?"
                " AND name IN (SELECT unnest(?::VARCHAR[]))",
                [*self.values, source, list(names)],
            )
            connection.execute(
                "INSERT INTO _headrace.files SELECT ?, ?, ?, unnest(?::VARCHAR[]), unnest(?::BIGINT[]),"
                " unnest(?::VARCHAR[]), ?",
                [*self.values, source, list(names), list(sizes), list(versions), number],
            )


def exists(connection: DuckDBPyConnection) -> bool:
    """Whether the file has a ledger. Raises ConfigError where a newer headrace has written it."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = '_headrace'"
        " AND table_name = 'ledger'"
    ).fetchall()
    if not found:
        return False
    ((version,),) = connection.execute("SELECT max(version) FROM _headrace.ledger").fetchall()
    refuse_newer(version, "file")
    return version is not None


def ensure(connection: DuckDBPyConnection) -> None:
    """Make the ledger unless it is there."""
    if not exists(connection):
        for statement in _TABLES.split(";"):
            if statement.strip():
                connection.execute(statement)
        connection.execute("INSERT INTO _headrace.ledger VALUES (?)", [VERSION])


def receipt(connection: DuckDBPyConnection, id: str) -> Receipt | None:
    """What was answered, or should have been, to the commit of this id."""
    rows = connection.execute("SELECT number, counts, record FROM _headrace.commits WHERE id = ?", [id]).fetchall()
    if not rows:
        return None
    number, counts, record = rows[0]
    return Receipt(id=id, number=number, counts=json.loads(counts), record=json.loads(record), repeated=True)


def owned(connection: DuckDBPyConnection, name: str) -> Owned | None:
    """The table as the ledger knows it, None for one that headrace does not keep."""
    query = "SELECT pipeline, target, schema, added FROM _headrace.tables WHERE name = ?"
    rows = connection.execute(query, [name]).fetchall()
    if not rows:
        return None
    return Owned(Schema.from_json(json.loads(rows[0][2])), {row[0]: row[1] for row in rows}, tuple(rows[0][3]))


def own(connection: DuckDBPyConnection, name: str, key: Key, schema: Schema, added: Sequence[str]) -> None:
    """Keep the table's logical schema, and that this pipeline writes it: into one target, the last one."""
    text = json.dumps(schema.to_json(), ensure_ascii=False)
    known = owned(connection, name)
    if known is not None and (known.schema, known.added) != (schema, tuple(added)):
        connection.execute(
            "UPDATE _headrace.tables SET schema = ?, added = ? WHERE name = ?", [text, list(added), name]
        )
    if known is None or not known.written_by(*key.values):
        forget = "DELETE FROM _headrace.tables WHERE name = ? AND pipeline = ?"
        connection.execute(forget, [name, key.pipeline])
        connection.execute(
            "INSERT INTO _headrace.tables VALUES (?, ?, ?, ?, ?)", [name, *key.values, text, list(added)]
        )


def forget_others(connection: DuckDBPyConnection, name: str, key: Key) -> None:
    """The table was removed and is made anew: what other pipelines had loaded into it is gone, and they begin anew; so
    does this one with another target.
    """
    for kept in ("commits", "files", "rejects", "settled", "tables"):
        column = "name" if kept == "tables" else "target"
        other = f"{column} = ? AND (pipeline <> ? OR target <> ?)"
        connection.execute(f"DELETE FROM _headrace.{kept} WHERE {other}", [name, *key.values])


def record(connection: DuckDBPyConnection, key: Key, run: Mapping[str, Any], at: datetime) -> None:
    """Keep a run, as later than what is there: the clock may have been set back."""
    connection.execute(
        "INSERT INTO _headrace.runs"
        " SELECT $1, $2, greatest($3::VARCHAR::TIMESTAMPTZ, max(instant) + INTERVAL 1 MICROSECOND), $4"
        " FROM (SELECT committed_at AS instant FROM _headrace.commits WHERE pipeline = $1 AND target = $2"
        " UNION ALL SELECT recorded_at FROM _headrace.runs WHERE pipeline = $1 AND target = $2)",
        [*key.values, at.isoformat(), json.dumps(dict(run))],
    )


def history(connection: DuckDBPyConnection, key: Key) -> Sequence[Mapping[str, Any]]:
    """Commits and runs, newest first."""
    commits = connection.execute(
        "SELECT epoch_us(committed_at), number, id, run, write, positions, counts, record FROM _headrace.commits"
        " WHERE pipeline = ? AND target = ?",
        key.values,
    ).fetchall()
    runs = connection.execute(
        "SELECT epoch_us(recorded_at), run FROM _headrace.runs WHERE pipeline = ? AND target = ?", key.values
    ).fetchall()
    plain, parsed = ("number", "id", "run", "write"), ("positions", "counts", "record")

    def facts(told: Sequence[Any]) -> dict[str, Any]:
        return {**dict(zip(plain, told[:4], strict=True)), **dict(zip(parsed, map(json.loads, told[4:]), strict=True))}

    return entries(
        ((_instant(at), facts(told)) for at, *told in commits), ((_instant(at), json.loads(run)) for at, run in runs)
    )


def _instant(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)

"""PostgreSQL keeps the promises of `headrace.protocols.Destination`: one database, a schema for each folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from headrace.protocols import Destination
from headrace.testing import DestinationSuite
from headrace.testing.destination.subject import STEPS, only
from headrace.testing.scripts import WRITES, holds, play
from headrace.writes import Write

if TYPE_CHECKING:
    from server import Database


def _dsn(folder: Path) -> str:
    """The server of this test session: a process that was started by a test looks for what the fixture left."""
    for parent in folder.resolve().parents:
        if (found := parent / "postgres.dsn").exists():
            return found.read_text()
    return "host=/nowhere"


@pytest.mark.usefixtures("postgres")
class TestPostgres(DestinationSuite):
    examples = 5

    def destination(self, folder: Path) -> Destination:
        from headrace.systems.postgres import PostgresDestination

        return PostgresDestination(dsn=_dsn(folder), table=f"{_schema(folder)}.rows")

    def shared(self, folder: Path) -> Destination:
        from headrace.systems.postgres import PostgresDestination

        return PostgresDestination(dsn=_dsn(folder), table=f"{_schema(folder)}.rows", adopt=True)

    def drop(self, folder: Path) -> bool:
        with psycopg.connect(_dsn(folder)) as connection:
            connection.execute(f"DROP TABLE {_schema(folder)}.rows")
        return True

    def effects(self) -> Sequence[tuple[Any, str]]:
        """Inside a transaction nothing outlives the process before its COMMIT."""
        from headrace.systems.postgres import connection

        return [(connection, "_commit")]

    @only("append", "merge")
    def test_a_run_with_faults_ends_as_a_calm_run(self, tmp_path: Path, write: str) -> None:
        """All writes are one transaction: the plainest and one that compares stand for all."""
        super().test_a_run_with_faults_ends_as_a_calm_run(tmp_path, write)

    @only("append", "merge")
    def test_a_run_killed_at_every_effect_ends_as_a_calm_run(self, tmp_path: Path, write: str, usual: Write) -> None:
        super().test_a_run_killed_at_every_effect_ends_as_a_calm_run(tmp_path, write, usual)

    def left_over(self, folder: Path) -> Sequence[str]:
        with psycopg.connect(_dsn(folder)) as connection:
            rows = connection.execute(
                "SELECT n.nspname || '.' || c.relname"
                " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = %(schema)s OR c.relname = 'history ' || %(schema)s || '.rows'"
                " UNION ALL SELECT c.relname FROM pg_class AS c WHERE c.relname LIKE '\\_headrace\\_%%'"
                " UNION ALL SELECT 'tombstone' FROM _headrace.tombstones WHERE name = %(schema)s || '.rows'",
                {"schema": _schema(folder)},
            ).fetchall()
        return sorted(name.replace(_schema(folder), "#") for (name,) in rows)


def _schema(folder: Path) -> str:
    return f"s{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}"


@pytest.mark.parametrize("write", ["merge", "partitions", "replace", "recompute", "history"])
def test_a_partitioned_table_takes_every_write(database: Database, write: str) -> None:
    from headrace.systems.postgres import PostgresDestination

    database.run(
        "CREATE TABLE orders (id bigint, part text, at bigint, text text, gone boolean) PARTITION BY LIST (part);"
        "CREATE TABLE p_a PARTITION OF orders FOR VALUES IN ('a'); CREATE TABLE p_rest PARTITION OF orders DEFAULT"
    )
    if write == "history":
        database.run("ALTER TABLE orders ADD valid_from bigint, ADD valid_to bigint")
    destination = PostgresDestination(dsn=database.dsn, table="orders", adopt=True)
    other = PostgresDestination(dsn=database.dsn, table="plain")
    for each in (destination, other):
        play(each, STEPS[:2], WRITES[write])
    assert holds(destination).rows == holds(other).rows

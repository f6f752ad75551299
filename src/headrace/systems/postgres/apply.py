"""Apply a commit: one connection, one transaction, rows and ledger together or not at all."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from headrace.errors import ConfigError
from headrace.flow import Receipt
from headrace.ledger import refuse_emptying, succeed
from headrace.systems.postgres import ledger, quarantine
from headrace.systems.postgres.connection import Dsn, connected, run, transaction
from headrace.systems.postgres.history import close_absent, history
from headrace.systems.postgres.loading import Load, append, partitions, recompute
from headrace.systems.postgres.locks import lock
from headrace.systems.postgres.merging import merge, replace, take_census
from headrace.systems.postgres.shaping import shaped
from headrace.systems.postgres.tables import Table, notes
from headrace.writes import Append, History, Merge, Partitions, Recompute, Replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from headrace.flow import Commit, TableChange
    from headrace.systems.postgres import PostgresDestination

__all__ = ["apply", "ddl", "settle", "told"]

_FOREIGN = """
WITH RECURSIVE family AS (
  SELECT c.oid, c.relkind FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND c.relname = $2
  UNION SELECT c.oid, c.relkind FROM family AS f JOIN pg_inherits AS i ON i.inhparent = f.oid
  JOIN pg_class AS c ON c.oid = i.inhrelid
) SELECT 1 FROM family WHERE relkind = 'f' LIMIT 1
"""


def apply(key: ledger.Key, commit: Commit, how: PostgresDestination) -> Receipt:
    """See `headrace.protocols.Destination.apply`."""
    with connected(how.dsn, name=commit.pipeline) as connection:
        ledger.ensure(connection)
        with transaction(connection):
            lock(connection, key.target, *(Table.of(change.table).key for change in commit.changes))
            return _apply(connection, key, commit, how)


def settle(dsn: Dsn, key: ledger.Key, id: str) -> Receipt | None:
    """See `headrace.protocols.Destination.settle`."""
    with connected(dsn, name=key.pipeline) as connection, transaction(connection):
        lock(connection, key.target)
        return ledger.receipt(connection, id) if ledger.exists(connection) else None


def ddl(key: ledger.Key, change: TableChange, how: PostgresDestination) -> Sequence[str]:
    """The statements with which `apply` would change the table's shape."""
    with connected(how.dsn, name=key.pipeline) as connection, transaction(connection, read_only=True):
        known = ledger.owned(connection, Table.of(change.table).key) if ledger.exists(connection) else None
        return shaped(connection, change, key, known, how).statements


def told(key: ledger.Key, change: TableChange, how: PostgresDestination) -> Sequence[str]:
    """What a person should know of how `apply` would carry the change out."""
    with connected(how.dsn, name=key.pipeline) as connection, transaction(connection, read_only=True):
        _refuse_foreign(connection, Table.of(change.table))
        return notes(connection, change, create_index=how.create_index)


def _apply(connection: Connection, key: ledger.Key, commit: Commit, how: PostgresDestination) -> Receipt:
    if (known := ledger.receipt(connection, commit.id)) is not None:
        return known
    head = key.head(connection)
    at = succeed(head, commit)
    keyed = quarantine.has_keys(connection, key)
    loads = []
    for index, change in enumerate(commit.changes):
        _set_path(connection, "pg_catalog")
        table = Table.of(change.table)
        _refuse_foreign(connection, table)
        held = ledger.owned(connection, table.key)
        shape = shaped(connection, change, key, held, how)
        if held is not None and not shape.there:
            ledger.forget_others(connection, table.key, key)
        loads.append(Load(connection, change, shape, index, at, keep=keyed))
        _set_path(connection, None)
        _write(loads[-1])
        ledger.own(connection, table.key, key, shape.wanted, tuple(f.name for f in shape.added))
    seal = commit.seal()
    rejected = quarantine.update(connection, key, seal.rejects, loads, number=head.number + 1, at=at)
    counts = Counter(rejected=rejected)
    for load in loads:
        refuse_emptying(f"table {load.table}", load.change, load.counts["rows"])
        if isinstance(load.change.write, History):
            close_absent(load, load.change.write, key)
        counts.update(load.counts)
    key.remember(connection, commit, seal, head=head, at=at, counts=counts)
    return Receipt(id=commit.id, number=head.number + 1, counts=dict(counts), record=dict(seal.record))


def _refuse_foreign(connection: Connection, table: Table) -> None:
    """Raises ConfigError for a table with rows on another server: that one commits before this one, each by itself."""
    if run(connection, _FOREIGN, [table.schema, table.name]):
        raise ConfigError(
            f"table {table} has rows on a foreign server, which are no one transaction with the ledger",
            hint="connect to that server itself, or load into a table of this one",
        )


def _set_path(connection: Connection, path: str | None) -> None:
    """The role's own search path (None) for the writes, and until COMMIT: triggers run in it, and operators of types
    that extensions bring are found in it.
    """
    run(connection, "SELECT pg_catalog.set_config('search_path', $1, true)", [path])


def _write(load: Load) -> None:
    match load.change.write:
        case Append():
            append(load)
        case Replace() as write:
            replace(load, write)
        case Partitions() as write:
            partitions(load, write)
        case Merge() as write:
            merge(load, write)
            if load.change.census is not None:
                take_census(load, write, load.change.census)
        case History() as write:
            history(load, write)
        case Recompute() as write:
            recompute(load, write)

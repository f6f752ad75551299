"""What a database holds for a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from headrace import exact
from headrace.errors import UnavailableError
from headrace.flow import FileStamp, Held, Snapshot
from headrace.logical import FLOATS, INTEGERS
from headrace.schema import Field, Schema
from headrace.sqltext import quoted
from headrace.stream import asked, scan_generator
from headrace.systems.postgres import ledger, quarantine
from headrace.systems.postgres.connection import Dsn, connected, transaction
from headrace.systems.postgres.encoding import SYSTEM, Column, physical
from headrace.systems.postgres.reading import batches
from headrace.systems.postgres.tables import Table, columns_of, existing

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["inspect"]


def inspect(dsn: Dsn, key: ledger.Key, table: Table) -> Snapshot:
    """See `headrace.protocols.Destination.inspect`."""
    with connected(dsn, name=key.pipeline) as connection, transaction(connection, "REPEATABLE READ", read_only=True):
        has_ledger = ledger.exists(connection)
        snapshot = _snapshot(connection, dsn, key, has_ledger=has_ledger)
        return replace(snapshot, **vars(_held(connection, dsn, key, table, has_ledger=has_ledger)))


def inspect_all(dsn: Dsn, key: ledger.Key) -> Snapshot:
    """The same of a schema of many tables, each of which is looked at when it is asked for."""

    def tables(table: str) -> Held:
        with connected(dsn, name=key.pipeline) as now, transaction(now, "REPEATABLE READ", read_only=True):
            return _held(now, dsn, key, Table.of(table), has_ledger=ledger.exists(now))

    with connected(dsn, name=key.pipeline) as connection, transaction(connection, "REPEATABLE READ", read_only=True):
        return replace(_snapshot(connection, dsn, key, has_ledger=ledger.exists(connection)), tables=tables)


def _snapshot(connection: Connection, dsn: Dsn, key: ledger.Key, *, has_ledger: bool) -> Snapshot:
    """What is the pipeline's, and the number of the target."""

    def seen(source: str, names: Iterable[str] | None) -> Mapping[str, FileStamp]:
        with connected(dsn, name=key.pipeline) as now:
            return key.seen(now, source, names) if ledger.exists(now) else {}

    if not has_ledger:
        return Snapshot(seen=seen)
    return key.head(connection).snapshot(seen, quarantine.settled(connection, key))


def _held(connection: Connection, dsn: Dsn, key: ledger.Key, table: Table, *, has_ledger: bool) -> Held:
    """What is the table's."""
    known = ledger.owned(connection, table.key) if has_ledger else None
    if (oid := existing(connection, table)) is None:
        return Held()
    columns = columns_of(connection, oid, known.schema if known else None)
    return Held(
        schema=_schema(columns, known),
        owned=known is not None and known.written_by(*key.values),
        versions=known is not None and bool(known.added),
        others=known.others(*key.values) if known else frozenset(),
        scan=lambda: _scan(dsn, key, table, columns),
        newest=lambda column: _newest(dsn, key, table, column),
    )


def _schema(columns: tuple[Column, ...], known: ledger.Owned | None) -> Schema:
    """The logical schema of what rows bring: not what the write adds, nor what the server gives by itself. A column
    that is as the ledger knows it has its origin.
    """
    told = {f.name: f for f in known.schema} if known else {}
    added = known.added if known else ()
    return Schema(
        tuple(
            told[c.name] if c.name in told and physical(told[c.name]) == c.held else _field(c)
            for c in columns
            if c.name not in added and not c.own
        )
    )


def _field(column: Column) -> Field:
    """A column that headrace did not make. One that holds numbers of any size says so: see `encoding.takes`."""
    return Field(column.name, column.type, f"{SYSTEM} numeric" if column.held == "numeric" else None)


@contextmanager
def _reading(dsn: Dsn, key: ledger.Key, table: Table) -> Iterator[tuple[Connection, tuple[Column, ...]]]:
    """One snapshot of the table, and its columns as they are in it."""
    with connected(dsn, name=key.pipeline) as connection, transaction(connection, "REPEATABLE READ", read_only=True):
        known = ledger.owned(connection, table.key) if ledger.exists(connection) else None
        if (oid := existing(connection, table)) is None:
            raise UnavailableError(f"table {table} has gone", hint="run again")
        yield connection, columns_of(connection, oid, known.schema if known else None)


def _scan(dsn: Dsn, key: ledger.Key, table: Table, columns: tuple[Column, ...]) -> pl.LazyFrame:
    """The rows, lazily. Only the columns that are asked for are read; the predicate is applied here."""

    def generate(
        wanted: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        needed = set(wanted if wanted is not None else [c.name for c in columns])
        needed |= set(predicate.meta.root_names()) if predicate is not None else set()
        with _reading(dsn, key, table) as (connection, now):
            picked = [c for c in now if c.name in needed] or list(now[:1])
            limit = "" if n_rows is None or predicate is not None else f" LIMIT {n_rows}"
            rows = batches(connection, f"SELECT * FROM {table.sql}{limit}", picked)
            yield from asked(rows, wanted, predicate, n_rows)

    return scan_generator(generate, {c.name: c.type.polars() for c in columns})


def _newest(dsn: Dsn, key: ledger.Key, table: Table, column: str) -> str | None:
    """The greatest value of a column as its exact text."""
    with _reading(dsn, key, table) as (connection, now):
        rows = pl.DataFrame()
        if found := [c for c in now if c.name == column]:
            name = quoted(column)
            # an enum has an order of its own, which its text does not have
            ordered = found[0].type.name in _ORDERED
            collate = ' COLLATE pg_catalog."C"' if found[0].held in ("text", "character varying") else ""
            pick = f"max({name}{collate})" if ordered else f"DISTINCT {name}"
            rows = pl.concat(batches(connection, f"SELECT {pick} AS {name} FROM {table.sql}", found))
    return exact.newest(rows.lazy(), column, Schema(tuple(Field(c.name, c.type) for c in now)))


_ORDERED = (*INTEGERS, *FLOATS, "decimal", "string", "categorical", "date", "time", "datetime", "duration")

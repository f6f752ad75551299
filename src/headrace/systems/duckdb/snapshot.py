"""What a DuckDB file holds for a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headrace import exact
from headrace.flow import FileStamp, Held, Snapshot
from headrace.schema import Schema
from headrace.sqltext import quoted
from headrace.systems.duckdb import ledger, quarantine
from headrace.systems.duckdb.connection import reading, there
from headrace.systems.duckdb.frames import batches, scan
from headrace.systems.duckdb.tables import Table, columns_of, existing
from headrace.transform.columns import Column, logical

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["inspect", "inspect_all"]


def inspect(path: Path, key: ledger.Key, table: Table) -> Snapshot:
    """See `headrace.protocols.Destination.inspect`."""
    if not there(path):
        return Snapshot()
    with reading(path) as connection:
        kept = ledger.exists(connection)
        snapshot = _snapshot(connection, key) if kept else Snapshot()
        return replace(snapshot, **vars(_held(connection, path, key, table, kept=kept)))


def inspect_all(path: Path, key: ledger.Key) -> Snapshot:
    """The same of a schema of many tables, each of which is looked at when it is asked for."""

    def tables(table: str) -> Held:
        if not there(path):
            return Held()
        with reading(path) as connection:
            return _held(connection, path, key, Table.of(table), kept=ledger.exists(connection))

    if not there(path):
        return Snapshot(tables=tables)
    with reading(path) as connection:
        snapshot = _snapshot(connection, key) if ledger.exists(connection) else Snapshot()
        return replace(snapshot, tables=tables)


def _snapshot(connection: DuckDBPyConnection, key: ledger.Key) -> Snapshot:
    """What is the pipeline's, and the number of the target."""
    files = key.files(connection)  # now and not when they are asked for: to open the file again costs more

    def seen(source: str, names: Iterable[str] | None) -> Mapping[str, FileStamp]:
        some = files.filter(pl.col("source") == source)
        some = some if names is None else some.filter(pl.col("name").is_in(list(names)))
        rows = some.select("name", "size", "version").iter_rows()
        return {row[0]: FileStamp._make(row) for row in rows}

    return key.head(connection).snapshot(seen, quarantine.settled(connection, key))


def _held(connection: DuckDBPyConnection, path: Path, key: ledger.Key, table: Table, *, kept: bool) -> Held:
    """What is the table's; `kept`: there is a ledger."""
    table = table.within(connection)
    known = ledger.owned(connection, table.key) if kept else None
    if not existing(connection, table):
        return Held()
    columns = columns_of(connection, table, known.schema if known else None)

    def current(connection: DuckDBPyConnection) -> tuple[str, tuple[Column, ...]]:
        owned = ledger.owned(connection, table.key) if ledger.exists(connection) else None
        return f"FROM {table.sql}", columns_of(connection, table, owned.schema if owned else None)

    def newest(column: str) -> str | None:
        with reading(path) as later:
            _, now = current(later)
            schema = logical(now)
            found = [c for c in now if c.name == column]
            # an enum has an order of its own, which DuckDB, where it is text, does not know
            pick = f"DISTINCT {quoted(column)}" if found and found[0].type.name == "enum" else f"max({quoted(column)})"
            query = f"SELECT {pick} AS {quoted(column)} FROM {table.sql}"
            rows = pl.concat(batches(later, query, found)) if found else pl.DataFrame()
        return exact.newest(rows.lazy(), column, schema)

    return Held(
        schema=_schema(columns, known),
        owned=known is not None and known.written_by(*key.values),
        versions=known is not None and bool(known.added),
        others=known.others(*key.values) if known else frozenset(),
        scan=lambda: scan(path, current, columns),
        newest=newest,
    )


def _schema(columns: tuple[Column, ...], known: ledger.Owned | None) -> Schema:
    """The logical schema of what rows bring: not what the write adds. A column that is as the ledger knows it has its
    origin.
    """
    if known is None:
        return logical(columns)
    told = {f.name: f for f in known.schema}
    mine = tuple(f for f in logical(columns) if f.name not in known.added)
    return Schema(tuple(told[f.name] if f.name in told and told[f.name].type == f.type else f for f in mine))

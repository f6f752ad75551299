"""What a DuckDB file holds for a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headrace import exact
from headrace.flow import FileStamp, Snapshot
from headrace.schema import Schema
from headrace.systems.duckdb import ledger, quarantine
from headrace.systems.duckdb.connection import reading
from headrace.systems.duckdb.frames import batches, scan
from headrace.systems.duckdb.tables import Table, columns_of, existing
from headrace.transform.columns import Column, logical, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["inspect"]


def inspect(path: Path, key: ledger.Key, table: Table) -> Snapshot:
    """See `headrace.protocols.Destination.inspect`."""
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return Snapshot()
    with reading(path) as connection:
        head, known, columns, settled = ledger.Head(), None, None, (frozenset[str](), frozenset[str]())
        if ledger.exists(connection):
            head, known = key.head(connection), ledger.owned(connection, table.key)
            settled = quarantine.settled(connection, key)
        if existing(connection, table):
            columns = columns_of(connection, table, known.schema if known else None)
    discarded, loaded = settled
    return replace(_snapshot(path, key, table, head, known, columns), discarded=discarded, loaded=loaded)


def _snapshot(  # what was read in one transaction
    path: Path,
    key: ledger.Key,
    table: Table,
    head: ledger.Head,
    known: ledger.Owned | None,
    columns: tuple[Column, ...] | None,
) -> Snapshot:
    def seen(source: str, names: Iterable[str] | None) -> Mapping[str, FileStamp]:
        with reading(path) as connection:
            return key.seen(connection, source, names) if ledger.exists(connection) else {}

    def current(connection: DuckDBPyConnection) -> tuple[str, tuple[Column, ...]]:
        owned = ledger.owned(connection, table.key) if ledger.exists(connection) else None
        return f"FROM {table.sql}", columns_of(connection, table, owned.schema if owned else None)

    def newest(column: str) -> str | None:
        with reading(path) as connection:
            _, now = current(connection)
            schema = logical(now)
            found = [c for c in now if c.name == column]
            # an enum has an order of its own, which DuckDB, where it is text, does not know
            pick = f"DISTINCT {quoted(column)}" if found and found[0].type.name == "enum" else f"max({quoted(column)})"
            query = f"SELECT {pick} AS {quoted(column)} FROM {table.sql}"
            rows = pl.concat(batches(connection, query, found)) if found else pl.DataFrame()
        return exact.newest(rows.lazy(), column, schema)

    return Snapshot(
        number=head.number,
        head=head.top,
        others=frozenset(known.pipelines if known and columns is not None else ()) - {key.pipeline},
        last_id=head.id,
        record=head.record,
        positions=head.positions,
        identities=head.identities,
        schema=None if columns is None else _schema(columns, known),
        owned=columns is None or (known is not None and key.pipeline in known.pipelines),
        write=head.write,
        seen=seen,
        scan=None if columns is None else lambda: scan(path, current, columns),
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

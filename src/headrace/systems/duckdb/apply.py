"""Apply a commit: one connection, one transaction, rows and ledger together or not at all."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import duckdb

from headrace.flow import Receipt
from headrace.ledger import refuse_emptying, succeed
from headrace.systems.duckdb import ledger, quarantine
from headrace.systems.duckdb.connection import limited, limits, transaction, writing
from headrace.systems.duckdb.errors import exhausted
from headrace.systems.duckdb.history import close_absent, history
from headrace.systems.duckdb.loading import Load, append, partitions, recompute, replace
from headrace.systems.duckdb.merging import merge, take_census
from headrace.systems.duckdb.tables import prepare
from headrace.writes import Append, History, Merge, Partitions, Recompute, Replace

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from headrace.flow import Commit
    from headrace.systems.duckdb import DuckDBDestination

__all__ = ["apply"]


def apply(path: Path, key: ledger.Key, commit: Commit, how: DuckDBDestination) -> Receipt:
    """See `headrace.protocols.Destination.apply`."""
    stream = all(isinstance(change.write, Append | Replace) for change in commit.changes)
    with writing(path, leave=True) as connection:
        *tries, last = limits(stream=stream)
        for limit in tries:
            try:
                with limited(connection, limit), transaction(connection):
                    return _apply(connection, key, commit, how)
            except duckdb.Error as error:  # what cannot spill (wide rows, many columns) needs more
                if not exhausted(error):
                    raise
        with limited(connection, last), transaction(connection):
            return _apply(connection, key, commit, how)


def _apply(connection: DuckDBPyConnection, key: ledger.Key, commit: Commit, how: DuckDBDestination) -> Receipt:
    ledger.ensure(connection)
    if (known := ledger.receipt(connection, commit.id)) is not None:
        return known
    head = key.head(connection)
    at = succeed(head, commit)
    some, keyed = quarantine.held(connection, key)
    loads = []
    for index, change in enumerate(commit.changes):
        columns, emptied = prepare(connection, change, key, how)
        loads.append(Load(connection, change, columns, index, at, keep_stage=keyed))
        loads[-1].counts.update({"deleted": emptied} if emptied else {})
        _write(loads[-1])
    seal = commit.seal()
    rejected = quarantine.update(connection, key, seal.rejects, loads, number=head.number + 1, at=at, some=some)
    counts = Counter(rejected=rejected)
    for load in loads:
        refuse_emptying(f"table {load.table}", load.change, load.counts["inserted"])
        if isinstance(load.change.write, History):
            close_absent(load, load.change.write, key)
        load.clear()
        counts.update(load.counts)
    key.remember(connection, commit, seal, head=head, at=at, counts=counts)
    return Receipt(id=commit.id, number=head.number + 1, counts=dict(counts), record=dict(seal.record))


def _write(load: Load) -> None:
    match load.change.write:
        case Append():
            append(load)
        case Replace():
            replace(load)
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

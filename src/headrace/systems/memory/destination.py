"""The memory destination: the promises of `protocols.Destination` in the plainest way that keeps them."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.errors import ConfigError, ConflictError
from headrace.flow import FileStamp, Position, Receipt, Snapshot
from headrace.frozen import frozen
from headrace.paths import Place

if TYPE_CHECKING:
    import polars as pl

    from headrace.flow import Commit, Seal
    from headrace.protocols import Holder
    from headrace.systems.memory.writes import Drained, Table

__all__ = ["MemoryDestination"]


def _now() -> datetime:
    return datetime.now(UTC)


@frozen(kw_only=True)
class _Ledger:
    """All that is remembered of one pipeline in one target. A value: a commit makes a new one."""

    record: Mapping[str, Any] = field(default_factory=dict)
    write: str | None = None
    positions: Mapping[str, Position] = field(default_factory=dict)
    identities: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, FileStamp]] = field(default_factory=dict)
    rejects: pl.DataFrame | None = None
    discarded: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()


class _Store:
    """What is held. Replaced entry by entry, under the lock, by whole values only."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.tables: dict[str, Table] = {}
        self.heads: dict[str, Receipt] = {}
        self.ledgers: dict[tuple[str, str], _Ledger] = {}
        self.receipts: dict[str, Receipt] = {}
        self.entries: list[tuple[tuple[str, str], Mapping[str, Any]]] = []
        self.holders: dict[str, Mapping[str, Any]] = {}


@frozen(kw_only=True)
class MemoryDestination:
    """Tables in this process's memory: for tests, and as the reference for every other destination.

    `table` is the target that `inspect` looks at. Two instances share nothing; ``dataclasses.replace`` gives
    another table of the same store when `store` is passed on. `adopt` lets it write a table that another pipeline
    writes too. `clock` is the commit's time, in UTC.
    """

    type: ClassVar[str] = "memory"
    table: str = "rows"
    adopt: bool = False
    clock: Callable[[], datetime] = field(default=_now, repr=False, compare=False, metadata={"key": None})
    store: Any = field(default_factory=_Store, repr=False, compare=False, metadata={"key": None})

    def inspect(self, pipeline: str) -> Snapshot:
        """What the target holds now; a later commit does not change the snapshot."""
        with self.store.lock:
            ledger: _Ledger = self.store.ledgers.get(self._key(pipeline), _Ledger())
            table: Table | None = self.store.tables.get(self.table)
            head: Receipt | None = self.store.heads.get(self.table)

        def seen(source: str, names: Iterable[str] | None) -> Mapping[str, FileStamp]:
            stamps = ledger.files.get(source, {})
            return dict(stamps) if names is None else {name: stamps[name] for name in names if name in stamps}

        def newest(column: str) -> str | None:
            from headrace import exact
            from headrace.schema import Schema

            if table is None:
                return None
            return exact.newest(table.rows.lazy(), column, Schema.of_polars(table.rows.schema))

        return Snapshot(
            number=head.number if head else 0,
            head=head.id if head else None,
            others=frozenset(table.pipelines if table else ()) - {pipeline},
            record=ledger.record,
            positions=ledger.positions,
            identities=ledger.identities,
            schema=None if table is None else table.schema,
            versions=table is not None and table.events is not None,
            write=ledger.write,
            seen=seen,
            scan=None if table is None else table.rows.lazy,
            newest=newest,
            discarded=ledger.discarded,
            loaded=ledger.loaded,
        )

    def apply(self, commit: Commit) -> Receipt:
        """Apply the commit wholly or not at all: new values are made aside and put in place in one instant."""
        from headrace.stream import reraise
        from headrace.systems.memory.writes import drain, written

        with self.store.lock:
            ledger: _Ledger = self.store.ledgers.get(self._key(commit.pipeline), _Ledger())
            receipt: Receipt | None = self.store.receipts.get(commit.id)
            before: dict[str, Table] = dict(self.store.tables)
        if receipt is not None:
            return replace(receipt, repeated=True)
        self._check_expected(commit)
        self._check_owner(commit, before)
        with reraise():
            changes = [drain(change) for change in commit.changes]
            seal = commit.seal()
            rejects = _quarantine(ledger.rejects, changes, seal)
        at = self.clock()
        tables, counts = dict(before), Counter[str]()
        for change in changes:
            name = change.change.table
            tables[name], counted = written(tables.get(name), commit.pipeline, change, at, rejects)
            counts.update(counted, rows=change.rows.height)
        counts["rejected"] = 0 if seal.rejects is None else seal.rejects.count
        receipt = Receipt(id=commit.id, number=commit.expected + 1, counts=dict(counts), record=seal.record)
        after = replace(
            _with_seal(ledger, seal),
            record=seal.record,
            write=commit.write or ledger.write,
            rejects=rejects,
        )
        self._put(commit, before, tables, after, receipt, at)
        return receipt

    def _put(
        self,
        commit: Commit,
        before: Mapping[str, Table],
        tables: Mapping[str, Table],
        ledger: _Ledger,
        receipt: Receipt,
        at: datetime,
    ) -> None:
        """All of a commit in one instant, unless somebody else was faster."""
        changed = {change.table for change in commit.changes}
        with self.store.lock:
            self._check_expected(commit)
            if any(self.store.tables.get(name) is not before.get(name) for name in changed):
                raise ConflictError("another run has changed the table meanwhile", hint="run it again")
            self.store.tables.update({name: tables[name] for name in changed})
            self.store.ledgers[self._key(commit.pipeline)] = ledger
            self.store.receipts[commit.id] = self.store.heads[self.table] = receipt
            self.store.entries.append((self._key(commit.pipeline), _entry(commit, receipt, ledger, at)))

    def _check_expected(self, commit: Commit) -> None:
        head: Receipt | None = self.store.heads.get(self.table)
        if (number := head.number if head else 0) != commit.expected:
            raise ConflictError(
                f"table {self.table!r} is at commit {number}, and commit {commit.expected} was expected",
                hint="another run has moved it; run again",
                details={"number": number, "expected": commit.expected},
            )

    def _check_owner(self, commit: Commit, tables: Mapping[str, Table]) -> None:
        for name in (change.table for change in commit.changes if not self.adopt):
            if name in tables and commit.pipeline not in tables[name].pipelines:
                raise ConfigError(
                    f"table {name!r} is written by pipeline {tables[name].pipelines[0]!r}",
                    hint='load into another table, or say "adopt": true to let two pipelines write it: this one then'
                    " loads all that its sources have",
                )

    def _key(self, pipeline: str) -> tuple[str, str]:
        return pipeline, self.table

    def settle(self, pipeline: str, id: str) -> Receipt | None:  # noqa: ARG002  # the protocol's
        """The receipt of the commit, if there is one."""
        with self.store.lock:
            receipt: Receipt | None = self.store.receipts.get(id)
        return None if receipt is None else replace(receipt, repeated=True)

    @contextmanager
    def hold(self, pipeline: str, holder: Holder) -> Iterator[None]:
        """Hold the table. Held by another run: ConflictError that names it."""
        me = {"pipeline": pipeline, "host": socket.gethostname(), "pid": os.getpid(), "run": holder.run}
        me["since"] = self.clock().isoformat()
        with self.store.lock:
            if (it := self.store.holders.get(self.table)) is not None:
                raise ConflictError(
                    f"table {self.table!r} is held by run {it['run']} of {it['pipeline']!r} "
                    f"(host {it['host']}, PID {it['pid']}, since {it['since']})",
                    hint="wait for it with --wait 10m, or stop it",
                    details=dict(it),
                )
            self.store.holders[self.table] = me
        try:
            yield
        finally:
            with self.store.lock:
                del self.store.holders[self.table]

    def place(self) -> Place | None:
        """No pipeline can name it."""
        return None

    def supports(self, write: str) -> str | None:  # noqa: ARG002  # the protocol's
        """Every write is possible."""
        return None

    def record(self, run: Mapping[str, Any]) -> None:
        """Keep a run."""
        with self.store.lock:
            self.store.entries.append((self._key(run["pipeline"]), {**run, "kind": "run"}))

    def history(self, pipeline: str) -> Sequence[Mapping[str, Any]]:
        """Commits and runs of the pipeline, newest first."""
        with self.store.lock:
            return [dict(entry) for key, entry in reversed(self.store.entries) if key == self._key(pipeline)]

    def rejects(self, pipeline: str) -> pl.DataFrame:
        """The rows now in quarantine."""
        from headrace.systems.memory.writes import no_rejects

        with self.store.lock:
            ledger: _Ledger = self.store.ledgers.get(self._key(pipeline), _Ledger())
        return no_rejects() if ledger.rejects is None else ledger.rejects


def _with_seal(ledger: _Ledger, seal: Seal) -> _Ledger:
    rejects = seal.rejects
    loaded = frozenset[str]() if rejects is not None and rejects.replace_all else ledger.loaded
    known = _Ledger() if seal.forget_files else ledger
    remembered = dict(known.files)
    for source, stamps in seal.files.items():
        remembered[source] = {**remembered.get(source, {}), **{stamp.name: stamp for stamp in stamps}}
    return replace(
        ledger,
        positions={**known.positions, **seal.positions},
        identities={**known.identities, **seal.identities},
        files=remembered,
        discarded=ledger.discarded.union(() if rejects is None else rejects.discarded),
        loaded=loaded.union(() if rejects is None else rejects.loaded),
    )


def _entry(commit: Commit, receipt: Receipt, ledger: _Ledger, at: datetime) -> Mapping[str, Any]:
    return {
        "kind": "commit",
        "number": receipt.number,
        "id": receipt.id,
        "run": commit.run,
        "write": ledger.write,
        "at": at.isoformat(),
        "counts": receipt.counts,
        "positions": ledger.positions,
        "record": receipt.record,
    }


def _quarantine(old: pl.DataFrame | None, changes: Sequence[Drained], seal: Seal) -> pl.DataFrame:
    """The rejects after the commit: the earlier ones that nothing has settled, then the new ones."""
    from headrace.systems.memory.writes import drained, no_rejects, unsettled

    before = no_rejects() if old is None else old
    if seal.rejects is None:
        return before
    return unsettled(before, drained(seal.rejects.rows()), seal.rejects, changes)

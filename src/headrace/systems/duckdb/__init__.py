"""DuckDB files, both ways: `DuckDBDestination` and `DuckDBSource`.

The ledger is in the same file as the table and is written in the same transaction: see `ledger`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.contract import Contract
from headrace.cursor import Cursor, Deletes
from headrace.errors import ConfigError
from headrace.frozen import frozen
from headrace.paths import Place, refuse_no_path, rooted

if TYPE_CHECKING:
    import polars as pl

    from headrace.flow import Batch, Commit, Position, Range, Receipt, Snapshot, TableChange
    from headrace.protocols import Holder
    from headrace.systems.duckdb.ledger import Key
    from headrace.systems.duckdb.tables import Table

__all__ = ["DuckDBDestination", "DuckDBSource"]

_WRITES = ("append", "replace", "partitions", "merge", "history", "recompute")


@frozen(kw_only=True)
class DuckDBDestination:
    """A table of a DuckDB file, or a schema for many tables. The file is made by the first commit.

    `table` is ``table`` or ``schema.table``; a pipeline of many tables has `schema` in its place. `adopt` takes over a
    table that headrace did not make, or that another pipeline writes too (then no load may take its rows away: no
    replace, partitions, recompute, deletes by comparing keys, `close_absent` or full refresh).
    `base` is the folder that a relative `path` is relative to.
    """

    type: ClassVar[str] = "duckdb"
    readers: ClassVar[str] = "readers see whole commits; a process that has the file open keeps the others out"
    path: str
    table: str | None = None
    schema: str | None = None
    adopt: bool = False
    base: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        refuse_no_path(self.path, "duckdb destination")
        if Path(self.path).stem.lower() == "_headrace":  # DuckDB could not tell the file from the ledger's schema
            raise ConfigError(f"{self.path!r} has the name of headrace's own schema", hint="give the file another name")
        if (self.table is None) == (self.schema is None):
            raise ConfigError(
                f"duckdb destination {self.path!r}: give either table or schema",
                hint='one table: "table": "orders"; many: "schema": "shop"',
            )

    def of(self, name: str) -> DuckDBDestination:
        """The one table of this name in the schema."""
        from headrace.systems.duckdb.tables import Table

        return replace(self, table=Table(Table.of(f"{self.schema}.t").schema, name).spelled, schema=None)

    def inspect(self, pipeline: str) -> Snapshot:
        """What the table holds now. Raises ConfigError, UnavailableError, RejectedError."""
        from headrace.systems.duckdb.snapshot import inspect, inspect_all

        if self.table is None:
            return inspect_all(self._file, self._key(pipeline))
        return inspect(self._file, self._key(pipeline), self._table)

    def apply(self, commit: Commit) -> Receipt:
        """Apply the commit in one transaction, with the ledger. See `headrace.protocols.Destination.apply`."""
        from headrace.systems.duckdb.apply import apply

        return apply(self._file, self._key(commit.pipeline), commit, self)

    def settle(self, pipeline: str, id: str) -> Receipt | None:  # noqa: ARG002  # the protocol's
        """What the ledger says of the commit, once nobody else of this process is writing."""
        from headrace.systems.duckdb import ledger
        from headrace.systems.duckdb.connection import there, writing

        if not there(self._file):
            return None
        with writing(self._file) as connection:
            return ledger.receipt(connection, id) if ledger.exists(connection) else None

    @contextmanager
    def hold(self, pipeline: str, holder: Holder) -> Iterator[None]:
        """Hold the table for one run, by a lock file beside the database."""
        from headrace.guard import hold
        from headrace.systems.duckdb.connection import held

        lock = self._file.with_name(f"{self._file.name}.{self._table.file}.lock")
        with hold(lock, pipeline, holder), held(self._file):
            yield

    def ddl(self, change: TableChange) -> Sequence[str]:
        """What `apply` would do to the table's columns, as SQL."""
        from headrace.systems.duckdb.tables import ddl

        return ddl(change)

    def place(self) -> Place:
        """The table. A process opens a file once: either to read or to write."""
        return _place(self.base, self.path, None if self.table is None else _spelled(self.table))

    def supports(self, write: str) -> str | None:
        """All writes are possible."""
        return None if write in _WRITES else f"DuckDB knows {', '.join(_WRITES)}"

    def record(self, run: Mapping[str, Any]) -> None:
        """Keep a run; `run` has its ``pipeline``. Nothing is made where there is no folder."""
        from datetime import UTC, datetime

        from headrace.systems.duckdb import ledger
        from headrace.systems.duckdb.connection import transaction, writing

        if not self._file.parent.is_dir():
            return
        with writing(self._file) as connection, transaction(connection):
            ledger.ensure(connection)
            ledger.record(connection, self._key(str(run["pipeline"])), run, datetime.now(UTC))

    def history(self, pipeline: str) -> Sequence[Mapping[str, Any]]:
        """Commits and runs of the pipeline, newest first."""
        from headrace.systems.duckdb import ledger
        from headrace.systems.duckdb.connection import reading, there

        if not there(self._file):
            return []
        with reading(self._file) as connection:
            return ledger.history(connection, self._key(pipeline)) if ledger.exists(connection) else []

    def rejects(self, pipeline: str) -> pl.DataFrame:
        """The rows now in quarantine, with the columns of `schema.REJECTS`."""
        import polars as pl

        from headrace.schema import REJECTS
        from headrace.systems.duckdb import ledger, quarantine
        from headrace.systems.duckdb.connection import reading, there

        empty = pl.DataFrame(schema=REJECTS.polars())
        if not there(self._file):
            return empty
        with reading(self._file) as connection:
            found = ledger.exists(connection)
            return quarantine.frame(connection, self._key(pipeline)) if found else empty

    @property
    def _file(self) -> Path:
        return rooted(self.base, self.path)

    @property
    def _table(self) -> Table:
        from headrace.systems.duckdb.tables import Table

        return Table.of(self.table) if self.table is not None else Table(Table.of(f"{self.schema}.t").schema, "*")

    def _key(self, pipeline: str) -> Key:
        from headrace.systems.duckdb.ledger import Key

        return Key(pipeline, self._table.key)


@frozen(kw_only=True)
class DuckDBSource:
    """A table or a query of a DuckDB file; exactly one of `table` and `query` is given.

    With a `cursor` a run reads the rows from its last value on, NULLs rejected; without one, or with `read`
    "all", everything at every run. `deletes` says how the rows that were deleted are found. `rename` maps columns to
    new names, by which all else calls them. The file may be the destination's own.
    """

    type: ClassVar[str] = "duckdb"
    outward: ClassVar[frozenset[str]] = frozenset(("path", "table", "read", "deletes"))
    path: str
    table: str | None = None
    query: str | None = None
    cursor: str | Cursor | None = None
    read: Literal["new", "all"] = "new"
    deletes: Deletes | None = None
    contract: Contract | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    base: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        refuse_no_path(self.path, "duckdb source")
        if (self.table is None) == (self.query is None):
            raise ConfigError(f"duckdb source {self.path!r}: give either table or query", hint='e.g. "table": "orders"')
        if isinstance(self.cursor, str):
            object.__setattr__(self, "cursor", Cursor(column=self.cursor))

    def batches(self, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
        """ONE batch of all that is new, of one snapshot of the file.

        Raises ConfigError (no file, no table, a query that does not bind), SchemaError (a type that cannot be
        carried exactly), UnavailableError (another process is writing).
        """
        from headrace.systems.duckdb.source import batches

        return batches(self, rooted(self.base, self.path), range, snapshot, name)

    def confirm(self, positions: Mapping[str, Position]) -> None:
        """Nothing waits for it."""

    def identity(self) -> Any:
        """The file's name and the table or query."""
        query = {} if self.query is None else {"query": self.query}
        return {"type": self.type, "file": Path(self.path).name, "table": self.table, **query}

    def places(self) -> Sequence[Place]:
        """The table; of a query whatever in it can name one."""
        if self.table is not None:
            names = {_spelled(self.table)}
        else:
            words = [word.split(".") for word in re.findall(r"[\w.]+", str(self.query).lower().replace('"', ""))]
            names = {_spelled(".".join(word[at:])) for word in words for at in range(len(word))}
        return [_place(self.base, self.path, name) for name in sorted(names)]


def _spelled(table: str) -> str:
    return table.lower().replace('"', "").removeprefix("main.")


def _place(base: Path | None, path: str, table: str | None) -> Place:
    return Place(system="duckdb", where=Place.absolute(base, path), name=table, exclusive=True)

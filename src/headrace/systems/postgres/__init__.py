"""PostgreSQL, both ways: `PostgresDestination` and `PostgresSource`.

The ledger is in the same database as the table and is written in the same transaction: see `ledger`. The driver,
psycopg, is the extra ``headrace[postgres]``; nothing here imports it before it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.contract import Contract
from headrace.cursor import Cursor, Deletes
from headrace.errors import ConfigError
from headrace.frozen import frozen

if TYPE_CHECKING:
    import polars as pl

    from headrace.flow import Batch, Commit, Position, Range, Receipt, Snapshot, TableChange
    from headrace.paths import Place
    from headrace.protocols import Holder
    from headrace.schema import Field
    from headrace.systems.postgres.ledger import Key
    from headrace.systems.postgres.tables import Table

__all__ = ["PostgresDestination", "PostgresSource"]

_WRITES = ("append", "replace", "partitions", "merge", "history", "recompute")


@frozen(kw_only=True)
class PostgresDestination:
    """A table of a PostgreSQL database (14 or newer), or a schema for many tables.

    `dsn` is a DSN or URI, or libpq's keywords as an object (``{"host": …, "sslmode": "verify-full"}``,
    ``{"service": …}``); None: the ``PG*`` variables. `table` is ``schema.name``; ``name`` alone is public's; a pipeline
    of many tables has `schema` in its place. The first commit makes both where they are not there. `adopt` takes over a
    table that headrace did not make, or that another pipeline writes too (then no load may take its rows away: no
    replace, partitions, recompute, deletes by comparing keys, `close_absent` or full refresh). `create_index` makes a
    unique index on the keys of a merge or a replace, where there is none.

    The connection must be the server's own, or a pooler's that gives a whole session.
    """

    type: ClassVar[str] = "postgres"
    native: ClassVar[str] = "postgres"
    truncates: ClassVar[bool] = True
    readers: ClassVar[str] = "readers see whole commits"
    dsn: str | Mapping[str, str | int] | None = field(default=None, repr=False)
    table: str | None = None
    schema: str | None = None
    adopt: bool = False
    create_index: bool = False

    def __post_init__(self) -> None:
        if (self.table is None) == (self.schema is None):
            raise ConfigError(
                "postgres destination: give either table or schema",
                hint='one table: "table": "public.orders"; many: "schema": "shop"',
            )

    def of(self, name: str) -> PostgresDestination:
        """The one table of this name in the schema."""
        from headrace.sqltext import quoted
        from headrace.systems.postgres.names import named

        return replace(self, table=quoted(named(f"{self.schema}.t")[0], name), schema=None)

    def inspect(self, pipeline: str) -> Snapshot:
        """What the table holds now. Raises ConfigError, UnavailableError, RejectedError."""
        from headrace.systems.postgres.snapshot import inspect, inspect_all

        if self.table is None:
            return inspect_all(self.dsn, self._key(pipeline))
        return inspect(self.dsn, self._key(pipeline), self._table)

    def apply(self, commit: Commit) -> Receipt:
        """Apply the commit in one transaction, with the ledger. See `headrace.protocols.Destination.apply`."""
        from headrace.systems.postgres.apply import apply

        return apply(self._key(commit.pipeline), commit, self)

    def settle(self, pipeline: str, id: str) -> Receipt | None:
        """What the ledger says of the commit, once no server is committing to the table."""
        from headrace.systems.postgres.apply import settle

        return settle(self.dsn, self._key(pipeline), id)

    def hold(self, pipeline: str, holder: Holder) -> AbstractContextManager[None]:
        """Hold the table for one run, by an advisory lock on a connection of its own."""
        from headrace.systems.postgres.locks import hold

        return hold(self.dsn, self._key(pipeline).target, pipeline, holder)

    def ddl(self, change: TableChange) -> Sequence[str]:
        """The very statements with which `apply` would change the table's shape."""
        from headrace.systems.postgres.apply import ddl

        taken = replace(self, adopt=True)  # whose table it is, inspect has told
        return ddl(self._key("plan"), change, taken)

    def notes(self, change: TableChange) -> Sequence[str]:
        """What a person should know of how `apply` would carry the change out: a missing index, what readers see."""
        from headrace.systems.postgres.apply import told

        return told(self._key("plan"), change, self)

    def takes(self, held: Field, rows: Field) -> bool:
        """Whether a column takes such rows exactly, though no logical type says so: a numeric takes any number."""
        from headrace.systems.postgres.encoding import takes

        return takes(held, rows)

    def place(self) -> Place:
        """The table."""
        from headrace.systems.postgres.names import place

        return place(self.dsn, None if self.table is None else self._name)

    def supports(self, write: str) -> str | None:
        """All writes are possible."""
        return None if write in _WRITES else f"PostgreSQL knows {', '.join(_WRITES)}"

    def record(self, run: Mapping[str, Any]) -> None:
        """Keep a run; `run` has its ``pipeline``."""
        from datetime import UTC, datetime

        from headrace.systems.postgres import ledger
        from headrace.systems.postgres.connection import connected, transaction

        key = self._key(str(run["pipeline"]))
        with connected(self.dsn, name=key.pipeline) as connection:
            ledger.ensure(connection)
            with transaction(connection):
                ledger.record(connection, key, run, datetime.now(UTC))

    def history(self, pipeline: str) -> Sequence[Mapping[str, Any]]:
        """Commits and runs of the pipeline, newest first."""
        from headrace.systems.postgres import ledger
        from headrace.systems.postgres.connection import connected, transaction

        with connected(self.dsn, name=pipeline) as connection, transaction(connection, "REPEATABLE READ"):
            return ledger.history(connection, self._key(pipeline)) if ledger.exists(connection) else []

    def rejects(self, pipeline: str) -> pl.DataFrame:
        """The rows now in quarantine, with the columns of `schema.REJECTS`."""
        import polars as pl

        from headrace.schema import REJECTS
        from headrace.systems.postgres import ledger, quarantine
        from headrace.systems.postgres.connection import connected

        with connected(self.dsn, name=pipeline) as connection:
            if not ledger.exists(connection):
                return pl.DataFrame(schema=REJECTS.polars())
            return quarantine.frame(connection, self._key(pipeline))

    @property
    def _name(self) -> str:
        """The table as the ledger spells it; ``schema.*`` for many."""
        from headrace.systems.postgres.names import dotted, named, spelled

        return spelled(self.table) if self.table is not None else f"{dotted(named(f'{self.schema}.t')[0])}.*"

    @property
    def _table(self) -> Table:
        from headrace.systems.postgres.tables import Table

        return Table.of(str(self.table))

    def _key(self, pipeline: str) -> Key:
        from headrace.systems.postgres.ledger import Key

        return Key(pipeline, self._name)


@frozen(kw_only=True)
class PostgresSource:
    """A table (or view, partitioned or foreign table) or a query of a PostgreSQL database; one of `table` and `query`
    is given, and neither where the pipeline has many tables.

    `dsn` is a DSN or URI, or libpq's keywords as an object (``{"host": …, "sslmode": "verify-full"}``,
    ``{"service": …}``); None: the ``PG*`` variables. `table` is ``schema.name``; ``name`` alone is public's. `columns`
    are those that are read (none named: all); `where` is SQL that all rows satisfy; `rename` maps columns to new names,
    by which all else but `columns`, `where`, `types` and the cursor calls them. `types` says ``string`` of columns that
    are to be read as their exact text.

    All that a run reads is of one snapshot. With a `cursor` (a column, or several) a run reads the rows from its last
    value on; without one, or with `read` "all", everything at every run. `deletes` says how the rows that were deleted
    are found.
    """

    type: ClassVar[str] = "postgres"
    outward: ClassVar[frozenset[str]] = frozenset(("dsn", "table", "read", "deletes"))
    current: ClassVar[bool] = True
    dsn: str | Mapping[str, str | int] | None = field(default=None, repr=False)
    table: str | None = None
    query: str | None = None
    columns: tuple[str, ...] = ()
    where: str | None = None
    cursor: str | tuple[str, ...] | Cursor | None = None
    read: Literal["new", "all"] = "new"
    deletes: Deletes | None = None
    contract: Contract | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    base: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.table is not None and self.query is not None:
            raise ConfigError("postgres source: give either table or query", hint='e.g. "table": "public.orders"')
        if self.query is not None and self.where is not None:
            raise ConfigError("postgres source: where belongs to a table", hint="write it into the query")
        if isinstance(self.cursor, str):
            object.__setattr__(self, "cursor", Cursor(column=self.cursor))
        elif isinstance(self.cursor, tuple | list):
            if not self.cursor:
                raise ConfigError("postgres source: a cursor has a column", hint='e.g. "cursor": "updated_at"')
            first, *then = self.cursor
            object.__setattr__(self, "cursor", Cursor(column=first, then=tuple(then)))
        if wrong := next((t for t in self.types.values() if t != "string"), None):
            raise ConfigError(
                f"postgres source: a column can be read as string, not as {wrong!r}",
                hint="cast it in a query, or in a transform",
            )

    @property
    def cuts(self) -> bool:
        """Whether several commits may be made of what is new: along the cursor."""
        return self.cursor is not None and self.read == "new"

    def batches(self, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
        """All that is new, of one snapshot: ONE batch, or with ``range.batch_bytes`` several, cut along the cursor.

        Raises ConfigError (no such table, a query that does not bind), RejectedError (rights), UnavailableError (no
        answer), and while rows are read UnheldError.
        """
        from headrace.systems.postgres.source import batches

        return batches(self, range, snapshot, name)

    def matching(self, pattern: str) -> Sequence[str]:
        """The tables that a name, or a pattern such as ``public.ref_*``, means. Raises ConfigError: there is none."""
        from headrace.systems.postgres.many import matching

        return matching(self.dsn, pattern)

    def together(
        self, sources: Mapping[str, PostgresSource], ranges: Mapping[str, Range], snapshots: Mapping[str, Snapshot]
    ) -> Iterator[Mapping[str, Batch]]:
        """The batches of several tables, of one snapshot."""
        from headrace.systems.postgres.many import together

        return together(self.dsn, sources, ranges, snapshots)

    def confirm(self, positions: Mapping[str, Position]) -> None:
        """Nothing waits for it."""

    def identity(self) -> Any:
        """The table and its `where`, or the query; which database it is in, the server says when it is read: see
        `Batch.identity`.
        """
        from headrace.systems.postgres.names import spelled

        table = None if self.table is None else spelled(self.table)
        return {"type": self.type, "table": table, "query": self.query, "where": self.where}

    def places(self) -> Sequence[Place]:
        """The table; of a query whatever in it can name one."""
        from headrace.systems.postgres.names import place, spelled, words

        if self.table is None and self.query is None:
            return [place(self.dsn, None)]
        names = [spelled(self.table)] if self.table is not None else words(str(self.query))
        return [place(self.dsn, name) for name in names]

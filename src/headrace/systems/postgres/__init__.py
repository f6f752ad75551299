"""PostgreSQL, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.contract import Contract
from headrace.cursor import Cursor
from headrace.errors import ConfigError

if TYPE_CHECKING:
    from headrace.flow import Batch, Place, Position, Range, Snapshot

__all__ = ["PostgresSource"]


@dataclass(frozen=True, kw_only=True)
class PostgresSource:
    """A table (or view, partitioned or foreign table) or a query of a PostgreSQL database; exactly one of `table` and
    `query` is given.

    `dsn` is a DSN or URI, or libpq's keywords as an object (``{"host": …, "sslmode": "verify-full"}``,
    ``{"service": …}``); None: the ``PG*`` variables. `table` is ``schema.name``; ``name`` alone is public's. `columns`
    are those that are read (none named: all); `where` is SQL that all rows satisfy; `rename` maps columns to new names,
    by which all else but `columns`, `where`, `types` and the cursor calls them. `types` says ``string`` of columns that
    are to be read as their exact text.

    All that a run reads is of one snapshot. With a `cursor` (a column, or several) a run reads the rows from its last
    value on; without one, or with `read` "all", everything at every run.
    """

    type: ClassVar[str] = "postgres"
    dsn: str | Mapping[str, str | int] | None = field(default=None, repr=False)
    table: str | None = None
    query: str | None = None
    columns: tuple[str, ...] = ()
    where: str | None = None
    cursor: str | tuple[str, ...] | Cursor | None = None
    read: Literal["new", "all"] = "new"
    contract: Contract | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    base: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.table is None) == (self.query is None):
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

    def batches(self, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
        """ONE batch of all that is new, of one snapshot.

        Raises ConfigError (no such table, a query that does not bind), RejectedError (rights), UnavailableError (no
        answer), and while rows are read UnheldError.
        """
        from headrace.systems.postgres.source import batches

        return batches(self, range, snapshot, name)

    def confirm(self, position: Position) -> None:
        """Nothing waits for it."""

    def identity(self) -> Any:
        """The table or query; which database it is in, the server says when it is read (`Batch.identity`)."""
        from headrace.systems.postgres.names import spelled

        return {"type": self.type, "table": None if self.table is None else spelled(self.table), "query": self.query}

    def places(self) -> Sequence[Place]:
        """The table; of a query whatever in it can name one."""
        from headrace.systems.postgres.names import place, spelled, words

        names = [spelled(self.table)] if self.table is not None else words(str(self.query))
        return [place(self.dsn, name) for name in names]

"""SQLite files as a source. Types are the declared ones, and a value that is not of its type is an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.contract import Contract
from headrace.cursor import Cursor
from headrace.errors import ConfigError
from headrace.frozen import frozen
from headrace.paths import Place, refuse_no_path, rooted

if TYPE_CHECKING:
    from headrace.flow import Batch, Position, Range, Snapshot

__all__ = ["SQLiteSource"]


@frozen(kw_only=True)
class SQLiteSource:
    """A table or a query of an SQLite file; exactly one of `table` and `query` is given.

    A column's type is the declared one (INTEGER int64, REAL float64, TEXT string, BLOB binary, BOOLEAN bool, DATE
    date, DATETIME and TIMESTAMP datetime(us), DECIMAL(p,s) decimal, JSON json), else the one that all its values
    have. A value that does not fit is a DataError that names column and rowid. With a `cursor` a run reads the rows
    from its last value on, NULLs rejected; without one, or with `read` "all", everything at every run. `rename`
    maps columns to new names, by which all else calls them.
    """

    type: ClassVar[str] = "sqlite"
    outward: ClassVar[frozenset[str]] = frozenset(("path", "table", "read"))
    path: str
    table: str | None = None
    query: str | None = None
    cursor: str | Cursor | None = None
    read: Literal["new", "all"] = "new"
    contract: Contract | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    base: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        refuse_no_path(self.path, "sqlite source")
        if (self.table is None) == (self.query is None):
            raise ConfigError(f"sqlite source {self.path!r}: give either table or query", hint='e.g. "table": "orders"')
        if isinstance(self.cursor, str):
            object.__setattr__(self, "cursor", Cursor(column=self.cursor))

    def batches(self, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
        """ONE batch of all that is new, of one snapshot of the file where its journal is a WAL. Else readers would stop
        who writes: each pass reads anew, up to the value and the rowid that were greatest at first.

        Raises ConfigError (no file, no table, a query that does not parse), SchemaError (a column of mixed types),
        UnavailableError (another process is writing), and while rows are read DataError.
        """
        from headrace.systems.sqlite.source import batches

        return batches(self, rooted(self.base, self.path), range, snapshot, name)

    def confirm(self, positions: Mapping[str, Position]) -> None:
        """Nothing waits for it."""

    def identity(self) -> Any:
        """The file's name and the table or query."""
        query = {} if self.query is None else {"query": self.query}
        return {"type": self.type, "file": Path(self.path).name, "table": self.table, **query}

    def places(self) -> Sequence[Place]:
        """The file. No pipeline writes one."""
        return (Place(system=self.type, where=Place.absolute(self.base, self.path), name=self.table),)

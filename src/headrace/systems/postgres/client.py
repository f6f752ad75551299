"""PostgreSQL for people who only want to talk to it: rows as frames, both ways, in transactions.

    with hr.postgres.connect(dsn) as db:  # commits at the end, rolls back after an exception, closes
        db.insert(frame, "events")
        large = db.query("SELECT * FROM events WHERE value > %s", [100])

Values are parameters, or psycopg's literals; SQL that is made of parts is a `psycopg.sql.Composable`, in which a name
is an `Identifier`: text is never glued. Rows come and go by COPY, in the types that a source reads.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any, LiteralString, Self

import polars as pl

from headrace.errors import ConfigError, HeadraceError, UnavailableError, UnheldError
from headrace.schema import Schema
from headrace.systems.postgres.catalog import resulting
from headrace.systems.postgres.connection import (
    Dsn,
    answered,
    connected,
    endpoint,
    psycopg,
    roll_back,
    session,
    transaction,
)
from headrace.systems.postgres.copying import copied
from headrace.systems.postgres.errors import translated, verdict, violated
from headrace.systems.postgres.target import Target

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import SQL, Composed

    from headrace.flow import ArrowStream

__all__ = ["Pool", "Transaction", "connect"]

_ROLES = ("search_path", "row_security", "idle_session_timeout", "statement_timeout", "transaction_timeout")
_OWN = dict.fromkeys(_ROLES)  # the transaction is the user's, and so are the role's limits


@contextmanager
def connect(dsn: Dsn = None, *, name: str = "client") -> Iterator[Transaction]:
    """One transaction on a connection of its own: committed at the end, rolled back after an exception, closed.

    `dsn` is a DSN or URI, or libpq's keywords as an object; None: the ``PG*`` variables. `name` goes into
    ``application_name``. The search path and the time-outs of statements and transactions are the role's own; times are
    in UTC.

    Raises ConfigError, RejectedError, UnavailableError; HeadraceError where the connection is lost in COMMIT, so that
    nobody can say whether it came about.
    """
    with connected(dsn, name=name, settings=_OWN) as connection, _transaction(connection, endpoint(dsn)) as made:
        yield made


class Pool:
    """Connections that are used again, for programs with many short transactions, in any number of threads of one
    process.

    `size` is how many there are at most; who finds all of them busy waits `timeout` seconds. One that comes back is as
    new (``DISCARD ALL``), one that was lost meanwhile is replaced. Close it, or use it as a context manager.
    """

    def __init__(self, dsn: Dsn = None, *, size: int = 4, timeout: float = 30.0, name: str = "client") -> None:
        if size < 1:
            raise ConfigError("a pool has one connection at least", hint="e.g. size=4")
        self._dsn, self._size, self._timeout, self._name = dsn, size, timeout, name
        self._where = endpoint(dsn)
        self._process, self._closed = os.getpid(), False
        self._idle: list[_Kept] = []
        self._turns = BoundedSemaphore(size)
        self._end = weakref.finalize(self, _close, self._idle, self._process)

    def __repr__(self) -> str:
        return f"Pool({self._where!r}, size={self._size})"

    @contextmanager
    def connect(self) -> Iterator[Transaction]:
        """One transaction, as that of `hr.postgres.connect`. Raises UnavailableError where all connections are busy."""
        if self._process != os.getpid():  # a fork shares the sockets, and hangs in Polars
            raise ConfigError(
                f"{self._where}: the pool is another process's", hint="make it in the process that uses it"
            )
        if self._closed:
            raise ConfigError(f"{self._where}: the pool is closed", hint="make another, or close it later")
        if not self._turns.acquire(timeout=self._timeout):
            raise UnavailableError(
                f"{self._where}: all {self._size} connections of the pool were busy for {self._timeout:g} s",
                hint="hold them for less long, or give the pool more (size=…)",
            )
        try:
            with translated(self._where):
                kept = self._taken()
                try:
                    with _transaction(kept.connection, self._where) as made:
                        yield made
                finally:
                    self._give_back(kept)
        finally:
            self._turns.release()

    def close(self) -> None:
        """Close what is idle now, and what is busy when it comes back."""
        self._closed = True
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _taken(self) -> _Kept:
        while (kept := _popped(self._idle)) is not None:
            try:
                session(kept.connection, _OWN)
            except psycopg.Error:
                kept.closing.close()
            else:
                return kept
        opened = ExitStack()
        return _Kept(opened.enter_context(connected(self._dsn, name=self._name, settings=_OWN)), opened)

    def _give_back(self, kept: _Kept) -> None:
        try:
            kept.connection.execute("DISCARD ALL")
        except psycopg.Error:
            kept.closing.close()
            return
        self._idle.append(kept)
        if self._closed:
            _close(self._idle, self._process)


class Transaction:
    """One transaction: what `connect` gives. What fails in it ends it: nothing of it is kept, and it takes no more.

    For one thread at a time. Leave the session's settings of how values are written (``DateStyle``, ``bytea_output``)
    as they are.
    """

    def __init__(self, line: _Line) -> None:
        self._line = line

    def query(
        self,
        sql: LiteralString | SQL | Composed,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        types: Mapping[str, str] | None = None,
    ) -> pl.DataFrame:
        """The rows of a SELECT, VALUES or WITH, or of a statement that has RETURNING.

        `params` are values for ``%s``, or by name for ``%(name)s``; a percent sign beside them is ``%%``. Columns have
        the types in which `PostgresSource` reads them: what has no exact one is the server's text. `types` says
        ``string`` of columns that are to be read as text.

        Raises UnheldError for a value that its column's type cannot hold (NaN in a numeric, an infinite date), and as
        `execute` does.
        """
        with self._line.speaking() as connection:
            text = self._line.sent = _bound(connection, sql, params).strip().rstrip(";")
            columns = [
                replace(c, type=c.type.as_text()) if c.name in (types or {}) else c
                for c in _described(connection, text, types or {})
            ]
            empty = pl.DataFrame(schema=Schema.of({c.name: c.type.held for c in columns}).polars())
            try:
                return pl.concat([empty, *copied(connection, f"{text}\n", columns, "query")])
            except (psycopg.errors.SyntaxError, psycopg.errors.FeatureNotSupported) as error:
                raise ConfigError(
                    "a query is a SELECT, VALUES, TABLE or WITH, or changes rows and has RETURNING",
                    hint="settings: SELECT current_setting(…); what gives no rows: execute",
                ) from error
            except UnheldError as error:
                told = ", ".join(f'"{name}": "string"' for name in sorted(error.columns))
                raise UnheldError(
                    error.message,
                    source=error.details["source"],
                    columns=error.columns,
                    hint=f"read as text it is exact: types={{{told}}}",
                ) from None

    def execute(
        self, sql: LiteralString | SQL | Composed, params: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> int:
        """Run a statement, or several; how many rows it touched. `params` as in `query`.

        Raises ConfigError (it does not fit the tables, or its parameters), DataError (a value does not fit its column,
        a broken constraint, by name), RejectedError (rights), UnavailableError (no answer, a deadlock).
        """
        with self._line.speaking() as connection, psycopg.ClientCursor(connection) as cursor:
            self._line.sent = sql if isinstance(sql, str) else sql.as_string(connection)
            with _fitting():
                cursor.execute(sql, params)
            touched = max(0, cursor.rowcount)
            while cursor.nextset():
                touched += max(0, cursor.rowcount)
            return touched

    def insert(self, frame: pl.DataFrame | pl.LazyFrame | ArrowStream, table: str) -> int:
        """Add the frame's rows to the table by COPY; how many. `table` is ``name`` (as the search path finds it) or
        ``schema.name``. Columns go by name; those that the frame lacks get their default.

        `frame` may be anything that gives an Arrow C stream; a lazy frame and a stream are never in memory as a whole.
        Raises ConfigError (no such table), SchemaError that names a column which the table lacks or does not take
        exactly, DataError that names the column which cannot hold a value or the constraint that a row breaks.
        """
        with self._line.speaking() as connection:
            return Target.of(connection, table).insert(frame)

    def upsert(self, frame: pl.DataFrame | pl.LazyFrame | ArrowStream, table: str, *, keys: str | Sequence[str]) -> int:
        """Insert the frame's rows, or update those that the table has under the same keys and that differ; how many
        were written. Of rows with the same keys the last counts; columns that the frame lacks are left as they are.

        It is one INSERT … ON CONFLICT, right beside other writers too, so the table needs a unique index on the keys.
        Raises as `insert` does; ConfigError without such an index, DataError for NULL in a key.
        """
        names = (keys,) if isinstance(keys, str) else tuple(keys)
        with self._line.speaking() as connection:
            return Target.of(connection, table).upsert(frame, names)


@dataclass
class _Kept:
    """A connection of a pool, and what closes it."""

    connection: Connection
    closing: ExitStack


def _close(idle: list[_Kept], process: int) -> None:
    while process == os.getpid() and (kept := _popped(idle)) is not None:
        kept.closing.close()


def _popped(idle: list[_Kept]) -> _Kept | None:
    """The last one, if any: another thread may take it between a look and the taking."""
    try:
        return idle.pop()
    except IndexError:
        return None


@dataclass
class _Line:
    """What a `Transaction` speaks through. `sent` is the user's own SQL, for the lines in messages."""

    connection: Connection
    where: str
    ended: str = ""
    sent: str = ""
    busy: Lock = field(default_factory=Lock)

    @contextmanager
    def speaking(self) -> Iterator[Connection]:
        """Around all that is said to the server: errors are headrace's, and end the transaction."""
        self.check()
        if not self.busy.acquire(blocking=False):
            raise ConfigError(
                f"{self.where}: two things at once in one transaction",
                hint="one transaction for each thread; collect a frame that reads by it before it is written by it",
            )
        try:
            with translated(self.where):
                try:
                    yield self.connection
                    self._check_open()
                except BaseException as error:
                    self._broken(error)
                    raise
        finally:
            self.sent = ""
            self.busy.release()

    def check(self) -> None:
        """Raises ConfigError where it has ended."""
        if self.ended:
            raise ConfigError(
                f"{self.where}: {self.ended}",
                hint="let an error end the with block; what may fail alone belongs into a block of its own",
            )

    def _check_open(self) -> None:
        if self.connection.info.transaction_status != psycopg.pq.TransactionStatus.INTRANS:
            raise ConfigError(
                f"{self.where}: the statement ended the transaction", hint="leave COMMIT and ROLLBACK to the with block"
            )

    def _broken(self, error: BaseException) -> None:
        self.ended = "something failed before, and nothing of the transaction is kept"
        roll_back(self.connection)
        if not isinstance(error, psycopg.Error) or self.connection.closed:
            return
        if isinstance(error, psycopg.errors.IntegrityError):
            raise violated(self.connection, error) from error
        if self.sent and (at := error.diag.statement_position):
            line = self.sent.count("\n", 0, int(at)) + 1
            raise verdict(error, f"{self.where}, line {line} of the statement") from error


@contextmanager
def _transaction(connection: Connection, where: str) -> Iterator[Transaction]:
    line = _Line(connection, where)
    committing = False
    try:
        with transaction(connection):
            yield Transaction(line)
            line.check()
            committing = True
    except psycopg.OperationalError as error:
        if committing and connection.closed:
            raise HeadraceError(
                f"{where}: the connection was lost in COMMIT, and nobody knows whether it came about",
                hint="look whether the rows are there before you do it again; a pipeline would know",
            ) from error
        raise
    finally:
        line.ended = "the transaction has come to its end"


@contextmanager
def _fitting() -> Iterator[None]:
    try:
        yield
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None:
            raise
        raise ConfigError(
            "the statement and its parameters do not go together",
            hint="one plain value for each %s (or %(name)s, by name), and %% for a percent sign; rows go in by insert",
        ) from error


def _bound(connection: Connection, sql: LiteralString | SQL | Composed, params: Any) -> str:
    """The statement with its values as literals: COPY takes no parameters beside itself."""
    with psycopg.ClientCursor(connection) as cursor, _fitting():
        return cursor.mogrify(sql, params)


def _described(connection: Connection, text: str, types: Mapping[str, str]) -> Sequence[Any]:
    """The columns of a query that is not run."""
    pgconn = connection.pgconn
    pgconn.send_prepare(b"", text.encode())
    answered(pgconn)
    pgconn.send_describe_prepared(b"")
    columns = resulting(connection, answered(pgconn))
    if not columns:
        raise ConfigError("the statement gives no rows", hint="use execute")
    names = [c.name for c in columns]
    for name, type in types.items():
        if name not in names:
            raise ConfigError(f"types: the query has no column {name!r}", hint=f"it has: {', '.join(names)}")
        if type != "string":
            raise ConfigError(f"a column can be read as string, not as {type!r}", hint="cast it in the query")
    return columns

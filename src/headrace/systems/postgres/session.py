"""One snapshot of a database, for all that a run reads: any number of connections share it, in any thread.

A first connection keeps the snapshot open and exports it; each reading of a frame takes it over on a connection of its
own. Where the server exports none, the first connection is the only one, and frames are read one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus

from headrace.errors import UnavailableError
from headrace.sqltext import quoted
from headrace.systems.postgres.activity import Activity, seen
from headrace.systems.postgres.connection import cancelled, connected, drain, endpoint
from headrace.systems.postgres.names import named
from headrace.systems.postgres.unseen import Unseen, ends

if TYPE_CHECKING:
    from psycopg import Connection

    from headrace.systems.postgres.connection import Dsn

__all__ = ["Session", "opened"]

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_KEPT = {"idle_in_transaction_session_timeout": "1d"}  # the snapshot's keeper is idle for as long as others read
_THEIRS = "SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path'"
_TURN_SECONDS = 60.0
_PAUSES = (0.02, 0.08, 0.3, 0.6)


@dataclass
class Session:
    """An open snapshot. `keeper` answers questions about it, of the thread that opened it alone; `exported` is the
    snapshot's name for other connections (None: there can be none), `snapshot` its text; `activity` who was open just
    before it was taken. `theirs` is the role's own search path, `path` the one that is set.
    """

    dsn: Dsn
    name: str
    where: str
    keeper: Connection
    exported: str | None
    activity: Activity
    snapshot: str
    theirs: str
    path: str = "pg_catalog"
    _working: set[Connection] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)
    _turn: Lock = field(default_factory=Lock)
    _closed: bool = False

    def set_path(self, path: str) -> None:
        """The search path from now on: the role's own for what a user wrote, else pg_catalog's alone."""
        self.keeper.execute("SELECT pg_catalog.set_config('search_path', %s, false)", [path])
        self.path = path

    @contextmanager
    def worker(self) -> Iterator[Connection]:
        """A connection that sees the snapshot, for one reading. What it is still busy with at the end is cancelled.

        Raises UnavailableError.
        """
        if self.exported is None:
            with self._alone() as connection:
                yield connection
            return
        with connected(self.dsn, name=self.name, settings=_settings(self.path), reads=True) as connection:
            try:
                connection.execute(_BEGIN)
                connection.execute(f"SET TRANSACTION SNAPSHOT '{self.exported}'")
            except psycopg.Error:
                self._heed()  # the snapshot went with the session
                raise
            with self._known(connection):
                try:
                    yield connection
                finally:
                    _cancel(connection)

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """The keeper, for one reading at a time; what is cancelled does not end its transaction."""
        if not self._turn.acquire(timeout=_TURN_SECONDS):
            raise UnavailableError(
                f"{self.where}: the server shares no snapshot, and two readings at once need two connections",
                hint="read the source once in the transform, or connect to the primary without a pooler",
            )
        try:
            self.keeper.execute("SAVEPOINT headrace")
            try:
                with self._known(self.keeper):
                    yield self.keeper
            finally:
                _cancel(self.keeper)
                if self.keeper.pgconn.transaction_status == TransactionStatus.ACTIVE:
                    drain(self.keeper)
                self.keeper.execute("ROLLBACK TO SAVEPOINT headrace")
        finally:
            self._turn.release()

    @contextmanager
    def _known(self, connection: Connection) -> Iterator[None]:
        with self._lock:
            self._heed()
            self._working.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._working.discard(connection)

    def _heed(self) -> None:
        if self._closed:
            raise UnavailableError(f"{self.where}: the reading was closed", hint="run again")

    def unseen(self) -> Unseen | None:
        """Whom the snapshot may have missed (None: nobody was open when it was taken, nor has begun since)."""
        with connected(self.dsn, name=self.name, reads=True) as connection:
            now = seen(connection)
            xmin, xmax = ends(self.snapshot)
            if now.count or now.hidden or now.prepared or xmin < xmax or now.next > xmax:
                return Unseen.of(connection, self.snapshot)
        return None

    def close(self) -> None:
        """Cancel on the server whatever still reads, in whichever thread. More than once: a server hears nothing of it
        before it has a query, and one may be about to be sent. A reading that nobody goes on with cannot end.
        """
        with self._lock:
            self._closed = True
        for pause in _PAUSES:
            with self._lock:
                working = list(self._working)
            if not working:
                return
            for connection in working:
                _cancel(connection)
            time.sleep(pause)


_sharing: dict[tuple[str, str], Session] = {}
_gate = Lock()


@contextmanager
def opened(dsn: Dsn, *, name: str, tables: Sequence[str] = (), reader: str = "") -> Iterator[Session]:
    """A snapshot, open until the end. `name` goes into ``application_name``; `tables` are those that nobody may alter
    or truncate until then: rows that TRUNCATE takes are gone from older snapshots too. `reader` is whose run it is: its
    other sources in this database see the same snapshot (empty: nobody shares it).

    Raises ConfigError, RejectedError, UnavailableError.
    """
    name = reader or name
    key = (repr(dsn if dsn is None or isinstance(dsn, str) else sorted(dsn.items())), reader)
    with connected(dsn, name=name, settings=_KEPT, reads=True) as keeper:
        ((path,),) = keeper.execute(_THEIRS).fetchall()
        activity, exported = _begun(keeper, tables, _sharing.get(key) if reader else None)
        ((snapshot,),) = keeper.execute("SELECT CAST(pg_catalog.pg_current_snapshot() AS text)").fetchall()
        session = Session(dsn, name, endpoint(dsn), keeper, exported, activity, snapshot, path)
        with _gate:
            first = bool(reader) and exported is not None and _sharing.setdefault(key, session) is session
        try:
            yield session
        finally:
            if first:
                with _gate:
                    del _sharing[key]
            session.close()


def _begun(keeper: Connection, tables: Sequence[str], other: Session | None) -> tuple[Activity, str | None]:
    """Begin the transaction, in the other's snapshot where there is one: who was open before it, and its name."""
    activity = seen(keeper)
    keeper.execute(_BEGIN)
    if other is not None:
        try:
            keeper.execute(f"SET TRANSACTION SNAPSHOT '{other.exported}'")
            activity = other.activity
        except psycopg.Error as error:  # it was closed meanwhile
            if error.sqlstate is None:
                raise
            keeper.execute("ROLLBACK")
            keeper.execute(_BEGIN)
    _lock(keeper, tables)
    exported = _exported(keeper)
    if exported is None:
        _lock(keeper, tables)
    return activity, exported


def _exported(keeper: Connection) -> str | None:
    """Take the transaction's snapshot: its name, or None where the server gives none; then it is begun anew."""
    try:
        ((name,),) = keeper.execute("SELECT pg_catalog.pg_export_snapshot()").fetchall()
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        keeper.execute("ROLLBACK")
        keeper.execute(_BEGIN)
        return None
    return str(name)


def _lock(keeper: Connection, tables: Sequence[str]) -> None:
    """Before the snapshot is taken, which no lock needs. What cannot be locked (a foreign table, no table) is not."""
    for table in tables:
        keeper.execute("SAVEPOINT headrace")
        try:
            keeper.execute(f"LOCK TABLE {quoted(*named(table))} IN ACCESS SHARE MODE".encode())
        except (psycopg.ProgrammingError, psycopg.NotSupportedError):
            keeper.execute("ROLLBACK TO SAVEPOINT headrace")
        keeper.execute("RELEASE SAVEPOINT headrace")


def _settings(path: str) -> Mapping[str, str]:
    return {**_KEPT, "search_path": path}


def _cancel(connection: Connection) -> None:
    """The query that is under way ends on the server; nothing happens where none is."""
    with suppress(psycopg.Error):
        cancelled(connection)

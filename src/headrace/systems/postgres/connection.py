"""Connections to PostgreSQL with headrace's session, and transactions on them.

Values cross as text whose form depends on the session, so every connection fixes it: dates in ISO, UTC, floats in the
shortest exact digits. All names in SQL are qualified: the search path is pg_catalog's alone.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

from headrace import interruption
from headrace.errors import ConfigError, UnavailableError

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.pq import PGconn, TransactionStatus
except ImportError:
    raise ConfigError("PostgreSQL needs the package psycopg", hint='pip install "headrace[postgres]"') from None

from headrace.systems.postgres.errors import translated, violated

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.pq import abc

__all__ = [
    "LOCK_WAIT", "READING", "Dsn", "answered", "awaited", "cancelled", "connected", "drain", "endpoint", "flushed",
    "psycopg", "roll_back", "run", "session", "told", "transaction",
]  # fmt: skip

# `psycopg` is among them for the modules that are loaded first: without it, what they say is the error above

Dsn = str | Mapping[str, str | int] | None
"""A DSN or URI; libpq's keywords as an object; None: the PG* variables."""

READING = "reading"
"""The last word of the application name of those that only read a source: they hold nothing back."""
_NAME_BYTES = 63  # the server cuts application_name here
_CONNECT: dict[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
LOCK_WAIT = "60s"
_SESSION = {
    "search_path": "pg_catalog",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "array_nulls": "on",
    "quote_all_identifiers": "off",  # the catalog's own spelling of types
    "lc_monetary": "C",
    "xmloption": "content",
    "standard_conforming_strings": "on",
    "row_security": "off",  # an error rather than rows that are not there
    "lock_timeout": LOCK_WAIT,
    "idle_in_transaction_session_timeout": "15min",
    "idle_session_timeout": "0",  # a run's lock is held by a session that does nothing else
    "client_connection_check_interval": "10s",  # a killed client's query ends, and gives up its locks
}
_UNLIMITED = ("statement_timeout", "transaction_timeout")
"""0, unless the DSN's options give one: a role's or a database's own would end a long load as often as it is tried."""
_UNLIMIT = """SELECT pg_catalog.count(pg_catalog.set_config(name, '0', false)) FROM pg_catalog.pg_settings
WHERE name OPERATOR(pg_catalog.=) ANY (%s) AND source OPERATOR(pg_catalog.<>) 'client'"""
_CANCEL_SECONDS = 5.0
_NEW_IN = 140000  # the server's version that knows the last two

Isolation = Literal["READ COMMITTED", "REPEATABLE READ"]


@contextmanager
def connected(
    dsn: Dsn,
    *,
    name: str,
    where: str | None = None,
    settings: Mapping[str, str | None] | None = None,
    reads: bool = False,
) -> Iterator[Connection]:
    """A connection in autocommit, closed at the end. `name` is the pipeline, for ``application_name``; `where` is what
    messages call the place (None: host and database); `settings` are set over the session's own (None: the role's).
    `reads`: it only reads a source.

    Raises ConfigError (no such database or role, a DSN that cannot be read), RejectedError (password, rights),
    UnavailableError (no answer, starting up, too many connections, the connection was lost).
    """
    with translated("postgres"):
        info = _conninfo(dsn, _application(name, reads=reads))
    with translated(where or endpoint(dsn)):
        connection = psycopg.connect(info, autocommit=True, prepare_threshold=None)
        try:
            session(connection, settings or {})
            with interruption.breakable(lambda: cancelled(connection)):
                yield connection
        finally:
            _close(connection)


def endpoint(dsn: Dsn) -> str:
    """Where a DSN leads, in words without a secret: ``postgres shop at db.example.org:5433``."""
    with translated("postgres"):
        known = conninfo_to_dict(_text(dsn))
    words = ["postgres"]
    if "@" in f"{known.get('host', '')}{known.get('dbname', '')}":
        return "postgres"  # of a URI whose password has an @ or a / in it as it stands, the rest of that is here
    if name := known.get("dbname"):
        words.append(str(name))
    if host := known.get("host") or known.get("hostaddr"):
        words.append(f"at {host}" + (f":{known['port']}" if known.get("port") else ""))
    elif service := known.get("service"):
        words.append(f"(service {service})")
    return " ".join(words)


@contextmanager
def transaction(
    connection: Connection, isolation: Isolation = "READ COMMITTED", *, read_only: bool = False
) -> Iterator[None]:
    """All that is done inside is kept, or after an exception nothing of it: what the server is still busy with is
    cancelled there, and rolled back.
    """
    connection.execute(f"BEGIN ISOLATION LEVEL {isolation}{' READ ONLY' if read_only else ''}")
    try:
        yield
        if read_only:
            connection.execute("COMMIT")
        else:
            _commit(connection)
    except BaseException as error:
        roll_back(connection)
        if isinstance(error, psycopg.errors.IntegrityError) and not connection.closed:
            raise violated(connection, error) from error
        raise


def run(connection: Connection, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement with its values as ``$1``, ``$2`` …; its rows, where it gives some. A percent sign is nothing
    special in it: names may have one.
    """
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(statement, list(values) if values else None)
        return cursor.fetchall() if cursor.description else []


def _commit(connection: Connection) -> None:
    if connection.execute("COMMIT").statusmessage != "COMMIT":  # an aborted transaction says ROLLBACK, without an error
        raise UnavailableError("postgres: the transaction had been aborted", hint="run again")


def roll_back(connection: Connection) -> None:
    """End the transaction, and what is still under way on the server. The error that led here is the one heard."""
    with suppress(psycopg.Error):
        if cancelled(connection):
            drain(connection)
        if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            connection.execute("ROLLBACK")
            return
    if connection.info.transaction_status != TransactionStatus.IDLE:
        _close(connection)  # the server rolls back what it has


def cancelled(connection: Connection) -> bool:
    """Cancel what the server is busy with for this connection; False where it is not. In any thread."""
    if connection.info.transaction_status != TransactionStatus.ACTIVE:
        return False
    connection.cancel_safe(timeout=_CANCEL_SECONDS)
    return True


def drain(connection: Connection) -> None:
    """Read on to the end of what was cancelled: the results, and the rows of a COPY."""
    pgconn = connection.pgconn
    while (result := told(pgconn)) is not None:
        if result.status == psycopg.pq.ExecStatus.COPY_OUT:
            while (count := pgconn.get_copy_data(1)[0]) >= 0:
                if not count:
                    awaited(pgconn)
        elif result.status == psycopg.pq.ExecStatus.COPY_IN:
            pgconn.put_copy_end(b"cancelled")


def awaited(pgconn: abc.PGconn) -> None:
    """Wait until the server has sent more. libpq would wait for it with the interpreter's lock held: no other
    thread would run meanwhile, and no signal be heard.
    """
    _ready(pgconn, select.POLLIN)
    pgconn.consume_input()


def flushed(pgconn: abc.PGconn) -> None:
    """Wait until the server has taken what was sent: libpq would keep all that it is slower to take."""
    while pgconn.flush():
        if _ready(pgconn, select.POLLIN | select.POLLOUT) & ~select.POLLOUT:
            pgconn.consume_input()  # what the server says meanwhile, an error too


def _ready(pgconn: abc.PGconn, events: int) -> int:
    """Wait for one of the events on the socket; which of them came. A poll, since an epoll takes four calls more."""
    poll = select.poll()
    poll.register(pgconn.socket, events)
    return poll.poll()[0][1]


def told(pgconn: abc.PGconn) -> abc.PGresult | None:
    """The server's next result, None after the last. Waited for as `awaited` waits."""
    flushed(pgconn)
    while pgconn.is_busy():
        awaited(pgconn)
    return pgconn.get_result()


def answered(pgconn: abc.PGconn) -> abc.PGresult:
    """The answer to what was sent; of a COPY the first of it, before the rows. Raises what the server says."""
    found: list[abc.PGresult] = []
    while not found or found[-1].status != psycopg.pq.ExecStatus.COPY_OUT:
        if (result := told(pgconn)) is None:
            break
        found.append(result)
    if not found:
        raise UnavailableError("the connection was lost", hint="run again")
    if found[-1].status == psycopg.pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(found[-1], encoding="utf-8")
    return found[-1]


def _close(connection: Connection) -> None:
    connection.close()


def _application(name: str, *, reads: bool) -> str:
    """The application's name. Who writes never has the last word of a reader, whatever the pipeline is called: its rows
    would be passed over.
    """
    last = f" {READING}" if reads else ""
    own = _shortened(f"headrace {name}", len(last)) + last
    return own if reads or not own.endswith(f" {READING}") else f"{_shortened(own, 1)}."


def _shortened(name: str, spare: int) -> str:
    return name.encode()[: _NAME_BYTES - spare].decode(errors="ignore")


def _conninfo(dsn: Dsn, own: str) -> str:
    text = _text(dsn)
    known = _known(text)
    waits = {k: known.get(k, v) for k, v in _CONNECT.items()}  # psycopg waits by itself, and reads no service
    return make_conninfo(text, client_encoding="UTF8", application_name=own, **dict[str, Any](waits))


def _known(text: str) -> dict[str, str]:
    """What libpq makes of a DSN: with its service, the PG* variables and what is built in.

    Only a connection is told of the service's. A mode of TLS that does not exist ends it before it has begun.
    """
    begun = PGconn.connect_start(make_conninfo(text, sslmode="none of them").encode())
    try:
        return {o.keyword.decode(): o.val.decode() for o in begun.info if o.val}
    finally:
        begun.finish()


def _text(dsn: Dsn) -> str:
    return make_conninfo("", **dict[str, Any](dsn)) if isinstance(dsn, Mapping) else str(dsn or "")


def session(connection: Connection, settings: Mapping[str, str | None]) -> None:
    """Make a new session, or one as new, headrace's, with these settings over it (None: the role's own)."""
    wanted = {name: text for name, text in {**_SESSION, **settings}.items() if text is not None}
    if connection.info.server_version < _NEW_IN:
        wanted.pop("client_connection_check_interval")
        wanted.pop("idle_session_timeout", None)
    sets = ", ".join(["pg_catalog.set_config(%s, %s, false)"] * len(wanted))
    unlimited = [name for name in _UNLIMITED if name not in settings]
    values = [text for pair in wanted.items() for text in pair]
    connection.execute(f"SELECT {sets}, ({_UNLIMIT})", [*values, unlimited])

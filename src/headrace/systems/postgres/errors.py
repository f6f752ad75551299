"""PostgreSQL's errors as headrace's: one table by SQLSTATE, applied at this system's edge.

The server's text may quote cells (DETAIL nearly always does), so it is read here for the names in it and never passed
on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from headrace.errors import ConfigError, DataError, HeadraceError, RejectedError, UnavailableError
from headrace.stream import root

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["BY_STATE", "translated", "verdict", "violated"]

_Verdict = tuple[type[HeadraceError], str, str]

_ROWS: _Verdict = (DataError, "a value does not fit its column", "look at the rows; declare the column's type")
_BROKEN_RULE: _Verdict = (DataError, "a row breaks a constraint", "look at the rows")
_SQL: _Verdict = (ConfigError, "the statement does not fit the tables", "check its names and types")
_NAME: _Verdict = (ConfigError, "there is no such table, column, type or function", "check the names")
_BROKEN: _Verdict = (RejectedError, "the server failed inside itself", "look at the server's log")
_LOST: _Verdict = (UnavailableError, "the connection was lost", "run again")
_BUSY: _Verdict = (UnavailableError, "another transaction is in the way", "run again")
_UNREADY: _Verdict = (
    ConfigError,
    "something is not as the statement needs it",
    "REFRESH a materialized view; give a published table a REPLICA IDENTITY, and an upsert a constraint not DEFERRABLE",
)
_RIGHTS: _Verdict = (RejectedError, "the role may not do this", "GRANT the right, or connect as another role")
_PARTLY: _Verdict = (
    RejectedError,
    "row-level security would show only a part of the rows to the role (of a view: to its owner)",
    "connect as a role that its policies do not bind: its owner where they are not forced, or one with BYPASSRLS",
)
_LOGIN: _Verdict = (RejectedError, "the server does not let this role in", "check user, password and pg_hba.conf")
_FULL: _Verdict = (RejectedError, "the server's disk is full", "free space on the server")
_STATE: _Verdict = (RejectedError, "the server refused the transaction's state", "report this")
_FUNCTION: _Verdict = (DataError, "a trigger or function on the server said no", "look at the table's triggers")
_FOREIGN: _Verdict = (RejectedError, "a foreign server failed", "look at the foreign table's server")
_CANCELLED: _Verdict = (
    UnavailableError,
    "the query was cancelled: a time-out, or an administrator",
    "run again, with a longer time-out if there is one",
)
_NO_DATABASE: _Verdict = (ConfigError, "there is no such database", "check the DSN's dbname")
_STANDBY: _Verdict = (RejectedError, "the server takes no writes: a standby, or read-only", "connect to the primary")

BY_STATE: dict[str, _Verdict] = {
    **dict.fromkeys(("02", "09", "27", "2F", "38", "39", "P0"), _FUNCTION),
    **dict.fromkeys(("03", "0B", "0F", "0Z", "24", "25", "26", "2D", "34", "3B"), _STATE),
    **dict.fromkeys(("0A", "10", "20", "21", "42", "54"), _SQL),
    **dict.fromkeys(("0L", "0P", "2B", "42501"), _RIGHTS),
    **dict.fromkeys(("08", "57"), _LOST),
    **dict.fromkeys(("23", "44"), _BROKEN_RULE),
    **dict.fromkeys(("40", "55006", "55P03", "72"), _BUSY),
    **dict.fromkeys(("58", "F0", "XX"), _BROKEN),
    **dict.fromkeys(("3F", "42703", "42704", "42883", "42P01"), _NAME),
    **dict.fromkeys(("3D", "57P04"), _NO_DATABASE),
    "22": _ROWS,
    "28": _LOGIN,
    "55": _UNREADY,
    "HV": _FOREIGN,
    "23502": (DataError, "a row has NULL where the table has NOT NULL", "look at the rows, or give the column a value"),
    "23503": (DataError, "a row points to one that is not there, or that others point to would go", "load that first"),
    "23505": (DataError, "two rows are the same where the table takes one", "look at the keys of the write"),
    "23514": (DataError, "a row breaks a CHECK", "look at the rows, or say the rule in the contract"),
    "25001": (ConfigError, "the statement cannot run in a transaction", "run it with psql, by itself"),
    "25006": _STANDBY,
    "25P03": (UnavailableError, "the transaction was idle for too long, and the server ended it", "run again"),
    "25P04": (
        UnavailableError,
        "the transaction took longer than its transaction_timeout, and the server ended it",
        "give the DSN's options a longer one, or none",
    ),
    "2BP01": (ConfigError, "something else depends on the table", "drop what depends on it first"),
    "42601": (ConfigError, "the SQL is no single well-formed statement", "look at the SQL"),
    "53": (UnavailableError, "the server has not enough memory or connections now", "run again"),
    "53100": _FULL,
    "53200": (UnavailableError, "the server is out of memory", "run again later"),
    "53300": (UnavailableError, "the server has no connection left", "run again later"),
    "54000": (
        DataError,
        "a row is larger than PostgreSQL takes (8,160 bytes of short values), or a value too long for an index",
        "split the table by its columns, nest some of them, or drop the index",
    ),
    "54011": (ConfigError, "more columns than PostgreSQL takes (1,600)", "select fewer"),
    "57014": _CANCELLED,
    "58030": (RejectedError, "the server cannot read or write its disk", "look at the server's log"),
}
"""By SQLSTATE, or by its class (the first two characters)."""

_BY_CLASS: dict[str, _Verdict] = {
    "Error": _BROKEN,
    "DataError": _ROWS,  # by psycopg itself: NUL in a text
    "IntegrityError": _BROKEN_RULE,
    "InterfaceError": _LOST,
    "InternalError": _BROKEN,
    "NotSupportedError": _SQL,
    "OperationalError": _LOST,
    "ProgrammingError": (ConfigError, "the DSN cannot be read", "write host=… dbname=…, or postgresql://host/dbname"),
    "ConnectionTimeout": (UnavailableError, "the server does not answer", "check host and port; run again"),
    "Warning": _BROKEN,
}
_CONNECTING: tuple[tuple[str, _Verdict], ...] = (
    (r"database .* does not exist", _NO_DATABASE),
    (r"role .* does not exist|password authentication failed|no password supplied|no pg_hba\.conf entry", _LOGIN),
    (r"(is not permitted|may not|not allowed) to (log in|connect)|permission denied for database", _LOGIN),
    (r"definition of service|service file", (ConfigError, "there is no such service", "check pg_service.conf")),
    (
        r"certificate|SSL|TLS",
        (RejectedError, "TLS was refused", "check sslmode, sslrootcert and the server's certificate"),
    ),
    (r"Connection refused|No such file", (UnavailableError, "no server answers there", "check host and port")),
    (
        r"could not translate host name|failed to resolve host",
        (UnavailableError, "the host's name is not known", "check the host; run again if the network was away"),
    ),
    (r"too many clients|remaining connection slots|too many connections", BY_STATE["53300"]),
    (
        r"starting up|shutting down|recovery",
        (UnavailableError, "the server is starting or stopping", "run again in a moment"),
    ),
    (r"timeout expired", _BY_CLASS["ConnectionTimeout"]),
)
"""libpq gives no SQLSTATE where a connection does not come about."""

_DENIED = re.compile(r"permission denied for (\w+(?: \w+)?) (\S+)|must be owner of (\w+(?: \w+)?) (\S+)")
_GUARDED = re.compile(r'^query would be affected by row-level security policy for table "?(.+?)"?$')
_ABSENT = re.compile(r'^(column|relation|type|schema|function|role|collation) "?(.+?)"? (?:of .+ )?does not exist')
_UNPREPARED = re.compile(r'^(?:cannot (?:update|delete from) table|materialized view) "(.+?)"')
_COPIED = re.compile(r"^COPY .*?, line \d+, column (.+?)(?:: |$)", re.MULTILINE)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Around whatever speaks to PostgreSQL: what comes out is headrace's, or what a stream raised, as it was.

    `where` names the server for the message.
    """
    try:
        yield
    except Exception as error:
        if (found := root(error, "psycopg")) is not None:
            if found is error:
                raise
            raise found from None
        if isinstance(error, psycopg.Error):
            raise verdict(error, where) from error
        raise


def verdict(error: psycopg.Error, where: str, columns: Sequence[str] = ()) -> HeadraceError:
    """What headrace says of a driver's error; `columns` are those that it is about, where the server does not say."""
    state = error.sqlstate
    if state is None:
        kind, what, hint = _without_state(error)
        return kind(f"{where}: {what}", hint=hint)
    kind, what, hint = BY_STATE.get(state) or BY_STATE.get(state[:2]) or _BROKEN
    if state == "42501" and _GUARDED.search(error.diag.message_primary or ""):
        kind, what, hint = _PARTLY
    names = _names(error)
    about = [f"{word} {name!r}" for word, name in names.items()]
    if columns:
        about.append(f"column{'s' if len(columns) > 1 else ''} {', '.join(map(repr, columns))}")
    told = ", ".join(about)
    details = {**names, "sqlstate": state, **({"columns": list(columns)} if columns else {})}
    return kind(f"{where}: {what}{f' ({told})' if about else ''}", hint=hint, details=details)


def _without_state(error: psycopg.Error) -> _Verdict:
    if isinstance(error, psycopg.OperationalError):
        for pattern, found in _CONNECTING:
            if re.search(pattern, str(error)):
                return found
    if type(error) is psycopg.DatabaseError:  # a result that libpq made itself, where the server's did not come
        return _LOST
    return next(_BY_CLASS[c.__name__] for c in type(error).__mro__ if c.__name__ in _BY_CLASS)


def _names(error: psycopg.Error) -> dict[str, Any]:
    """What the server names: never a value."""
    diag = error.diag
    names = {}
    if diag.table_name:
        names["table"] = f"{diag.schema_name}.{diag.table_name}" if diag.schema_name else diag.table_name
    if diag.constraint_name:
        names["constraint"] = diag.constraint_name
    if diag.column_name:
        names["column"] = diag.column_name
    elif found := _COPIED.search(diag.context or ""):
        names["column"] = found[1]
    if found := _DENIED.search(diag.message_primary or ""):
        names[found[1] or found[3]] = found[2] or found[4]
    if found := _GUARDED.search(diag.message_primary or ""):
        names.setdefault("table", found[1])
    if found := _UNPREPARED.search(diag.message_primary or ""):
        names.setdefault("table", found[1])
    if found := _ABSENT.search(diag.message_primary or ""):
        names.setdefault("table" if found[1] == "relation" else found[1], found[2])
    return names


def violated(connection: Connection, error: psycopg.errors.IntegrityError) -> HeadraceError:
    """What is said of a broken constraint, the columns that it is over among it: the server names them only in a text
    with the values. The transaction has ended.
    """
    diag = error.diag
    if diag.column_name or not diag.constraint_name:
        return verdict(error, _where(connection))
    columns = connection.execute(
        "SELECT a.attname FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace"
        " JOIN pg_attribute AS a ON a.attrelid = t.oid"
        " LEFT JOIN pg_constraint AS c ON c.conrelid = t.oid AND c.conname = %(name)s"
        " LEFT JOIN pg_class AS r ON r.relname = %(name)s AND r.relnamespace = n.oid"
        " LEFT JOIN pg_index AS i ON i.indexrelid = r.oid AND i.indrelid = t.oid"
        " WHERE n.nspname = %(schema)s AND t.relname = %(table)s"
        " AND (a.attnum = ANY (c.conkey) OR a.attnum = ANY (i.indkey::smallint[])) ORDER BY a.attnum",
        {"name": diag.constraint_name, "schema": diag.schema_name, "table": diag.table_name},
    ).fetchall()
    return verdict(error, _where(connection), [name for (name,) in columns])


def _where(connection: Connection) -> str:
    return f"postgres {connection.info.dbname}"

"""Who may write a table: advisory locks of the database it is in.

Two for each table. One is a live run's, on a connection of its own, and dies with it. The other is a commit's, and
ends with its transaction: who asks what became of a commit waits for it, so that a server which is still committing has
ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg

from headrace.errors import ConflictError
from headrace.systems.postgres.connection import LOCK_WAIT, Dsn, connected, run

if TYPE_CHECKING:
    from psycopg import Connection

    from headrace.protocols import Holder

__all__ = ["hold", "lock"]

_COMMIT_WAIT = "10min"
"""A commit under way may be a long load."""
_TOLD = ("pipeline", "run", "host", "pid", "since")


def lock(connection: Connection, *targets: str) -> None:
    """Wait until nobody else is committing to these tables; nobody will be until the transaction ends.

    Raises the driver's LockNotAvailable after ten minutes.
    """
    locks = [f"SELECT pg_advisory_xact_lock({number})" for number in sorted({_number("commit", t) for t in targets})]
    waits = (f"SET LOCAL lock_timeout = '{wait}'" for wait in (_COMMIT_WAIT, LOCK_WAIT))
    connection.execute(f"; {'; '.join(locks)}; ".join(waits))


@contextmanager
def hold(dsn: Dsn, target: str, pipeline: str, holder: Holder) -> Iterator[None]:
    """See `headrace.protocols.Destination.hold`. Who holds it stands in the statement that took the lock: the server
    shows that of a live session to others of the same role.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    who = dict(zip(_TOLD, (pipeline, holder.run, socket.gethostname(), os.getpid(), since), strict=True))
    number = _number("run", target)
    with connected(dsn, name=pipeline) as connection:
        signed = f"SELECT pg_try_advisory_lock({number}) /* {json.dumps(who).replace('*/', '* /')} */"
        while not run(connection, signed)[0][0]:
            if (known := _signature(connection, number)) is not None:
                raise _conflict(target, known)
        try:
            yield
        finally:  # a session that is closed gives its locks up some time after that
            with suppress(psycopg.Error):
                run(connection, f"SELECT pg_advisory_unlock({number})")


def _signature(connection: Connection, number: int) -> dict[str, Any] | None:
    """What the holder has said of itself; where this role may not see that, what anybody sees of its session (`session`
    and `role`). None where nobody holds it any more.
    """
    halves = ((number >> 32) & 0xFFFF_FFFF, number & 0xFFFF_FFFF)
    rows = run(
        connection,
        "SELECT a.query, a.application_name, a.pid, a.usename"
        " FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND l.classid::bigint = $1::bigint AND l.objid::bigint = $2::bigint",
        halves,
    )
    for query, application, session, role in rows:
        pipeline = (application or "").removeprefix("headrace ") or "unknown"
        return _said(query or "") or {"pipeline": pipeline, "session": session, "role": role}
    return None


def _said(query: str) -> dict[str, Any] | None:
    """What stands in the statement that took the lock; None where that is not shown."""
    try:
        who = json.loads(query.partition("/* ")[2].removesuffix(" */"))
    except ValueError:
        return None
    return who if isinstance(who, dict) and set(_TOLD) <= set(who) else None


def _conflict(target: str, who: dict[str, Any]) -> ConflictError:
    held = f"table {target}: pipeline {who['pipeline']!r} is running"
    if "session" in who:
        return ConflictError(
            f"{held}, in session {who['session']} of role {who['role']!r} on the server",
            hint="wait for it with --wait 10m; GRANT pg_read_all_stats to this role, and it is told host, PID and run",
            details=who,
        )
    return ConflictError(
        f"{held}: host {who['host']}, PID {who['pid']}, run {who['run']}, since {who['since']}",
        hint="wait for it with --wait 10m",
        details=who,
    )


def _number(what: str, target: str) -> int:
    """The lock's number, a signed 64-bit integer."""
    digest = hashlib.blake2b(f"headrace {what} {target}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)

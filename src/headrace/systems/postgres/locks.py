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
    who = {
        "pipeline": pipeline,
        "run": holder.run,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
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
    """What the holder has said of itself, as far as this role may see it; None where nobody holds it any more."""
    halves = ((number >> 32) & 0xFFFF_FFFF, number & 0xFFFF_FFFF)
    rows = run(
        connection,
        "SELECT a.query, a.application_name FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND l.classid::bigint = $1::bigint AND l.objid::bigint = $2::bigint",
        halves,
    )
    for query, application in rows:
        _, _, text = (query or "").partition("/* ")
        try:
            who = json.loads(text.removesuffix(" */"))
        except ValueError:
            return {"pipeline": (application or "").removeprefix("headrace ") or "unknown"}
        return who if isinstance(who, dict) else {}
    return None


def _conflict(target: str, who: dict[str, Any]) -> ConflictError:
    known = {key: who.get(key, "unknown") for key in ("pipeline", "run", "host", "pid", "since")}
    return ConflictError(
        f"table {target}: pipeline {known['pipeline']!r} is running: host {known['host']}, "
        f"PID {known['pid']}, run {known['run']}, since {known['since']}",
        hint="wait for it with --wait 10m",
        details=known,
    )


def _number(what: str, target: str) -> int:
    """The lock's number, a signed 64-bit integer."""
    digest = hashlib.blake2b(f"headrace {what} {target}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)

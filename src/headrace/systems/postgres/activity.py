"""Who else has a transaction open, and since when: read before a snapshot is taken, or after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.frozen import frozen
from headrace.systems.postgres.connection import READING

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["Activity", "Prepared", "seen"]

MARGIN = "1 second"
"""A transaction's start is its statement's, which is a moment older than what it shows of itself."""

_SEEN = f"""
SELECT pg_is_in_recovery(), CAST(clock_timestamp() AS text),
  CAST(LEAST(min(o.since), clock_timestamp()) - interval '{MARGIN}' AS text),
  (array_agg(o.who ORDER BY o.since, o.who))[1], CAST(min(o.since) AS text), count(o.who),
  (SELECT count(*) FROM pg_catalog.pg_stat_activity AS h
    WHERE h.datid = d.oid AND h.pid <> pg_backend_pid()
      AND (h.query = '<insufficient privilege>' OR h.state = 'disabled')),
  pg_snapshot_xmax(pg_current_snapshot())::text
FROM pg_catalog.pg_database AS d LEFT JOIN (
  SELECT a.datname, a.xact_start AS since, format('pid %s (%s)', a.pid, COALESCE(NULLIF(a.application_name, ''),
      a.usename, a.backend_type)) AS who
  FROM pg_catalog.pg_stat_activity AS a
  WHERE a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid()
    AND a.backend_type NOT IN ('autovacuum worker', 'walsender')
    AND NOT (a.application_name LIKE 'headrace % {READING}' AND a.backend_xid IS NULL)
) AS o ON o.datname = d.datname
WHERE d.datname = current_database() GROUP BY d.oid
"""
_PREPARED = """
SELECT p.gid, CAST(p.prepared AS text), ARRAY(
  SELECT l.relation::int8 FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_locks AS own USING (virtualtransaction)
  WHERE own.transactionid = p.transaction AND l.locktype = 'relation')
FROM pg_catalog.pg_prepared_xacts AS p WHERE p.database = current_database() ORDER BY p.prepared
"""
_FAMILY = """
WITH RECURSIVE family AS (
  SELECT %s::oid AS oid UNION ALL
  SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN family AS f ON f.oid = i.inhparent
)
SELECT f.oid::int8 FROM family AS f
"""


@frozen
class Prepared:
    """A transaction that is prepared, and not yet committed: its name, since when it is so (when it began is not
    known), and the relations that it has locked.
    """

    name: str
    since: str
    relations: frozenset[int]


@frozen
class Activity:
    """Open transactions of this database, at one moment (`now`).

    `horizon` is the start of the oldest of them, or now, and a margin before that; what a transaction that is not yet
    committed dates by the server's clock lies at it or later. `holder` is who has been open longest, `since` when,
    `count` how many there are. `hidden` says that there are sessions which this role may not see, or that tell nothing
    (``track_activities`` is off). `next` is the number of the next transaction. `prepared` are those that nobody has
    open any more, the oldest first.
    """

    standby: bool
    now: str
    horizon: str
    holder: str | None
    since: str | None
    count: int
    hidden: bool
    next: int
    prepared: tuple[Prepared, ...] = ()

    def waiting(self, connection: Connection, oid: int | None) -> Prepared | None:
        """The oldest prepared transaction that has locked the relation (None: any), or a part of it."""
        if not self.prepared or oid is None:
            return next(iter(self.prepared), None)
        family = {int(found) for (found,) in connection.execute(_FAMILY, [oid]).fetchall()}
        return next((p for p in self.prepared if p.relations & family), None)


def seen(connection: Connection) -> Activity:
    """As of now; outside of any snapshot, and of any transaction.

    Who is prepared is asked after who is open: what is prepared in between was open then.
    """
    ((standby, now, horizon, holder, since, count, hidden, following),) = connection.execute(_SEEN).fetchall()
    found = connection.execute(_PREPARED).fetchall()
    prepared = tuple(Prepared(str(name), str(at), frozenset(locked)) for name, at, locked in found)
    return Activity(standby, now, horizon, holder, since, count, hidden > 0, int(following), prepared)

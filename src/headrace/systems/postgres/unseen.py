"""Which transactions a snapshot may not have seen: those that were open then, subtransactions too.

A snapshot's text lists open transactions, but not their subtransactions, which have numbers of their own. So each
number below its end is asked after, just after it was taken: of a transaction that is open still, every part that may
yet be committed says so. What has ended in between cannot be told from what had ended before: from the first such
number on all are suspect. They lie near the end, since a transaction that is open for long is open still.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from headrace.frozen import frozen
from headrace.systems.postgres.names import literal

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["Unseen", "ends"]

_ASKED_MAX = 2_000_000  # of these a server tells some hundred thousand in a second
_RANGES_MAX = 100
_OPEN = """
SELECT s.x FROM pg_catalog.generate_series(CAST(%s AS int8), CAST(%s AS int8)) AS s (x)
WHERE pg_catalog.pg_xact_status(CAST(CAST(s.x AS text) AS xid8)) = 'in progress' ORDER BY s.x
"""
_ENDED = """
SELECT min(s.x) FROM pg_catalog.unnest(CAST(%s AS int8[])) AS s (x)
WHERE pg_catalog.pg_xact_status(CAST(CAST(s.x AS text) AS xid8)) <> 'in progress'
"""


def ends(snapshot: str) -> tuple[int, int]:
    """A snapshot's first number that was open, and the first that was not yet given."""
    xmin, xmax, _ = snapshot.split(":")
    return int(xmin), int(xmax)


@frozen
class Unseen:
    """Numbers of transactions that a snapshot may not have seen: from, up to and with (None: and all after).

    `blank`: none of them is of a row that it has seen.
    """

    ranges: tuple[tuple[int, int | None], ...]
    blank: bool = False

    @staticmethod
    def of(connection: Connection, snapshot: str) -> Unseen:
        """Asked of the server now, by a connection that is in no transaction."""
        xmin, xmax = ends(snapshot)
        everything = Unseen(((xmin, None),), blank=xmin == xmax)
        if xmax - xmin > _ASKED_MAX:
            return everything
        given = [int(x) for x in snapshot.split(":")[2].split(",") if x]
        found = _ranges(x for (x,) in connection.execute(_OPEN, [xmin, xmax - 1]).fetchall())
        ((ended,),) = connection.execute(_ENDED, [given]).fetchall()
        tail = xmax if ended is None else int(ended)
        known = [r for r in found if r[0] < tail]
        if len(known) > _RANGES_MAX:
            return everything
        return Unseen((*known, (tail, None)), blank=tail == xmax)

    @staticmethod
    def from_json(told: Sequence[Sequence[int | None]]) -> Unseen:
        """From a position."""
        return Unseen(tuple((int(first or 0), last) for first, last in told))

    def to_json(self) -> list[list[int | None]]:
        """For a position."""
        return [list(r) for r in self.ranges]

    @property
    def sql(self) -> str:
        """SQL: of rows that they wrote. Numbers wrap: they are compared by their age."""
        return f"({' OR '.join(_between(*r) for r in self.ranges)})"


def _between(first: int, last: int | None) -> str:
    return f"age(xmin) BETWEEN {'0' if last is None else _age(last)} AND {_age(first)}"


def _age(number: int) -> str:
    return f"age(CAST({literal(str(number % 2**32))} AS xid))"


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int | None]]:
    """Numbers in order as runs of them."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return list(runs)

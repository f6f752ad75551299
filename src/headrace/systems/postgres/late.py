"""Rows that are committed late: after a read, and yet with a cursor's value below what that read has reached.

``clock``: the server's clock sets the cursor. A transaction dates its rows by its start at the earliest, so a read goes
no further than where the oldest one that is still open began. Who is open, or prepared, is read BEFORE the snapshot is
taken: whoever commits in between is in the snapshot, and counts as open.

``snapshot``: anything else sets it (a sequence, an application). The snapshot is kept, and the next read looks for rows
below that it did not see, by the numbers of the transactions that wrote them: only where other transactions were open
then. An append tells them from rows that were updated since (see `intact`).

`Cursor.lag` goes with either, and stands alone where neither is possible (views, foreign tables, standbys): a merge
reads so much of the end again, an append stays so far behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from headrace.errors import ConfigError, DataError, UnavailableError
from headrace.frozen import frozen
from headrace.sqltext import quoted
from headrace.systems.postgres.activity import Activity
from headrace.systems.postgres.intact import kept, unloaded
from headrace.systems.postgres.names import literal
from headrace.systems.postgres.order import Order, Values
from headrace.systems.postgres.unseen import Unseen, ends

if TYPE_CHECKING:
    from headrace.flow import Range
    from headrace.systems.postgres.session import Session

__all__ = ["Late"]

Mode = Literal["clock", "snapshot", "ignore"]

_WRAP = 2**31


@frozen(kw_only=True)
class Late:
    """How far a read goes, and what it looks for below where it begins.

    `ceiling` and `caught` are SQL: what all rows that are read satisfy, and what those below do that were
    committed since (None: there are none). `known` are the digests of rows among `caught` that were seen all the same.
    `held` says in words what keeps the `ceiling` low, `unseen` whom the snapshot may have missed (None: nobody).
    `looks`: rows are looked for by a snapshot, under `clock` only what was missed before that was the mode; `bound` is
    SQL for the value below which a clock's rows are all there.
    """

    order: Order
    mode: Mode
    activity: Activity
    again: bool
    ceiling: str | None = None
    horizon: str | None = None
    caught: str | None = None
    known: Mapping[str, int] | None = None
    held: str | None = None
    unseen: Unseen | None = None
    looks: bool = False
    bound: str = ""

    @staticmethod
    def of(order: Order, session: Session, range: Range) -> Late:
        """Before anything is read. Raises ConfigError, DataError, UnavailableError."""
        activity, after = session.activity, dict((range.after or {}).get("late") or {})
        made = Late(order=order, mode=_mode(order, activity), activity=activity, again=range.ties == "again")
        if made.mode == "clock":
            made = made.up_to_horizon(session, after)
        if made.mode == "snapshot" or (made.mode == "clock" and after.get("snapshot")):
            made = replace(made, looks=True, unseen=session.unseen())  # at once: in a while somebody will be busy
        if made.looks and after.get("snapshot"):
            made = made.looking_back(session, after, _values(range), list((range.after or {}).get("hashed") or {}))
        return made.behind(session) if order.cursor.lag is not None and not made.again else made

    # -- clock --------------------------------------------------------------------------------------------------

    def up_to_horizon(self, session: Session, after: Mapping[str, Any]) -> Late:
        """No further than where an open transaction may still write. Raises UnavailableError."""
        horizon, held = self.activity.horizon, None
        if self.activity.holder is not None:
            held = f"{self.activity.holder}, whose transaction is open since {self.activity.since}"
        if (waiting := self.activity.waiting(session.keeper, self.order.selection.relation.oid)) is not None:
            held = f"the prepared transaction {waiting.name!r}, not yet committed since {waiting.since}"
            if not after.get("horizon"):
                raise UnavailableError(
                    f"{self.order.selection.relation.name}: {held} has written here, and when it began is not known",
                    hint="COMMIT PREPARED or ROLLBACK PREPARED it, and run again",
                )
            horizon = str(after["horizon"])  # it began after that
        first = self.order.columns[0]
        value = f"CAST({literal(horizon)} AS timestamptz)"
        return replace(self, ceiling=f"{quoted(first.name)} < {value}", bound=value, horizon=horizon, held=held)

    # -- snapshot -----------------------------------------------------------------------------------------------

    def looking_back(
        self, session: Session, after: Mapping[str, Any], last: Values | None, names: Sequence[str]
    ) -> Late:
        """What the last read may have missed; nothing where nobody else was open then, or nothing has changed. `names`
        are the columns that digests were made of.
        """
        (first, end), (_, now) = ends(after["snapshot"]), ends(session.snapshot)
        if now < end and not self.activity.standby:
            raise DataError(
                "the server has gone back: it has seen fewer transactions than when it was read last",
                hint="has it been restored from a backup? run with --full-refresh",
            )
        if after.get("unseen") is None or last is None:
            return self
        if now - first >= _WRAP:
            raise DataError(
                "too many transactions have passed since the last read to find what was committed late",
                hint="run with --full-refresh",
            )
        was = Unseen.from_json(after["unseen"])
        below = f"{self.order.compared('<=', last)} AND {was.sql}"
        if self.order.state(session.keeper, below) == after.get("state"):
            return self
        if self.again or not names:  # after a merge an append is refused later, by what it lacks
            return replace(self, caught=below)
        found = unloaded(self.order, session.keeper, last, was, after, names)
        return replace(self, caught=found, known=dict(after.get("seen") or {}))

    def told(self, session: Session, until: Values | None, names: list[str]) -> dict[str, Any]:
        """What the position keeps of a read up to `until`. Raises DataError."""
        told: dict[str, Any] = {"mode": self.mode}
        if self.mode == "clock":
            told["horizon"] = self.horizon
        if self.looks and until is not None and not self._passed(session, until):
            told |= {"snapshot": session.snapshot, "unseen": None}
            if (unseen := self.unseen) is not None:
                told["unseen"] = unseen.to_json()
                below = f"{self.order.compared('<=', until)} AND {unseen.sql}"
                told["state"] = "0/0" if unseen.blank else self.order.state(session.keeper, below)
                if not self.again:
                    told |= kept(self.order, session.keeper, until, unseen, names)
        return told

    def _passed(self, session: Session, until: Values) -> bool:
        """Whether the clock alone sees to what lies beyond: all who may yet write have begun later than that."""
        if self.mode != "clock":
            return False
        query = f"SELECT {self.order.value(self.order.columns[0], until[0])} < {self.bound}"
        return bool(session.keeper.execute(query.encode()).fetchall()[0][0])

    # -- lag ----------------------------------------------------------------------------------------------------

    def lagging(self, values: Values | None) -> str | None:
        """SQL: of rows that lie no further below the values than the lag (None: there is none, or no value)."""
        if self.order.cursor.lag is None or values is None:
            return None
        first = self.order.columns[0]
        return f"{quoted(first.name)} >= {self._less(self.order.value(first, values[0]))}"

    def behind(self, session: Session) -> Late:
        """An append stays behind the end: the clock's, where the cursor is one, else the greatest value's."""
        order, first = self.order, self.order.columns[0]
        end = f"CAST({literal(self.activity.now)} AS timestamptz)" if first.type.base == "timestamptz" else None
        if end is None:
            greatest = order.greatest(session.keeper, self.ceiling)
            if greatest is None:
                return self
            end = order.value(first, greatest[0])
        behind = f"{quoted(first.name)} <= {self._less(end)}"
        return replace(self, ceiling=behind if self.ceiling is None else f"{self.ceiling} AND {behind}")

    def _less(self, end: str) -> str:
        base, lag = self.order.columns[0].type.base, literal(self.order.cursor.lag or "")
        if base in ("int2", "int4", "int8"):
            return f"CAST({end} AS int8) - CAST({lag} AS int8)"
        if base in ("numeric", "float4", "float8"):
            return f"{end} - CAST({lag} AS {base})"
        if base in ("date", "timestamptz", "timestamp"):
            return f"{end} - CAST({lag} AS interval)"
        raise ConfigError(
            f"cursor {self.order.cursor.column!r} is {self.order.columns[0].type.name}, from which no lag can be taken",
            hint="leave the lag out; it is for dates, times and numbers",
        )

    # -- words --------------------------------------------------------------------------------------------------

    def misses(self) -> str:
        """What a later run will not see, for `News.misses`."""
        cursor = self.order.cursor
        column, lag = cursor.column, cursor.lag
        found = {
            "clock": f"rows whose {column!r} was set by another clock than the server's, below what was read",
            "snapshot": f"rows whose {column!r} was drawn before a read, by a transaction that began after it",
            "ignore": f"rows that are committed after others with a greater {column!r}",
        }[self.mode]
        if self.mode == "clock" and self.activity.hidden:
            found = f"rows with a {column!r} below what was read, of sessions that this role may not see"
        return found if lag is None else f"{found}, by more than {lag}"

    def future(self) -> str | None:
        """SQL: of rows that are dated after the server's clock; None where that does not set the cursor."""
        first = self.order.columns[0]
        if self.mode != "clock":
            return None
        now = f"CAST({literal(self.activity.now)} AS timestamptz)"
        return f"{quoted(first.name)} > {now}"

    def warnings(self, *, waiting: bool, future: bool) -> tuple[str, ...]:
        """What a person should hear: `waiting` says that there are rows which the read leaves for later, `future` that
        some are dated after now.
        """
        name, said = self.order.selection.source, []
        if self.mode == "clock" and waiting and self.held is not None:
            said.append(f"source {name!r} is held back by {self.held}")
        if future:
            said.append(
                f"source {name!r}: rows whose {self.order.columns[0].name!r} lies in the future wait until it has come"
            )
        if self.mode == "clock" and self.activity.hidden:
            said.append(
                f"source {name!r}: this role may not see what other sessions do, or track_activities is off, and rows"
                " that they commit late may be lost: GRANT pg_read_all_stats to it, or give the cursor a lag"
            )
        return tuple(said)


def _values(range: Range) -> Values | None:
    cursor = (range.after or {}).get("cursor")
    return None if cursor is None else tuple(cursor)


def _mode(order: Order, activity: Activity) -> Mode:
    """How rows that are committed late are found. Raises ConfigError for what cannot be."""
    cursor, base = order.cursor, order.columns[0].type.base
    relation = order.selection.relation
    possible = relation.stored and not activity.standby
    if cursor.late == "auto":
        if not possible:
            return "ignore"
        return "clock" if base == "timestamptz" and not relation.replicated else "snapshot"
    if cursor.late == "clock" and base == "timestamp":
        raise ConfigError(
            f"cursor {cursor.column!r} is timestamp, which each session writes in its own time zone: no clock says up"
            " to where it is complete",
            hint='say "late": "snapshot", or leave it out; or make the column timestamptz',
        )
    if cursor.late == "clock" and base != "timestamptz":
        raise ConfigError(
            f"cursor {cursor.column!r} is {order.columns[0].type.name}, which no clock sets",
            hint='say "late": "snapshot", or leave it out',
        )
    if cursor.late != "ignore" and not possible:
        where = "a standby" if activity.standby else "a foreign table" if relation.remote else f"a {relation.kind}"
        raise ConfigError(
            f"{relation.name}: {where} does not tell which transactions wrote its rows",
            hint='leave "late" out, and give the cursor a "lag"',
        )
    return cursor.late

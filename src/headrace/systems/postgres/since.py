"""What is new by a cursor: where a read begins and ends, in one batch or in several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.cursor.nulls import refused
from headrace.errors import ConfigError
from headrace.flow import Batch, Counts, News, Position, Range, Retold, Snapshot, Superseded
from headrace.frozen import frozen
from headrace.stream.drawing import drawn
from headrace.stream.numbering import numbered
from headrace.systems.postgres.errors import translated
from headrace.systems.postgres.late import Late
from headrace.systems.postgres.order import Order, Values
from headrace.systems.postgres.selection import Sight

if TYPE_CHECKING:
    from headrace.systems.postgres.session import Session

__all__ = ["Reading"]

_SAMPLE = 1000
_NO_ROWS = ("/", "/0/0")  # a state without a row


@frozen(kw_only=True)
class Reading:
    """One read by a cursor: its bounds, as the snapshot has them.

    `last` is where it begins (`inclusive`: with the rows there) and `until` where it ends; None: at the very beginning,
    and nowhere, since there is no row. `floor` is SQL: no row below the cursor's `start` is read, ever. `hashed` are
    the columns, by the server's names, that the digests of rows at an end are over, and their types.
    """

    order: Order
    session: Session
    range: Range
    after: Mapping[str, Any]
    as_text: frozenset[str]
    late: Late
    floor: str | None
    last: Values | None
    inclusive: bool
    until: Values | None
    hashed: Mapping[str, str]
    missing: int

    @staticmethod
    def of(order: Order, session: Session, range: Range, snapshot: Snapshot, as_text: frozenset[str]) -> Reading:
        """Raises ConfigError, DataError, UnavailableError."""
        keeper, after = session.keeper, dict(range.after or {})
        late = Late.of(order, session, range)
        last, inclusive, floor = _begin(order, session, range, snapshot)
        found = order.greatest(keeper, order.compared(">=" if inclusive else ">", last), late.ceiling)
        order.refuse_endless(found)
        missing = 0
        if order.missing is not None and order.cursor.nulls == "skip":
            query = f"SELECT pg_catalog.count(*) {order.selection.rows(order.missing)}"
            ((missing,),) = keeper.execute(query.encode()).fetchall()
        return Reading(
            order=order,
            session=session,
            range=range,
            after=after,
            as_text=as_text,
            late=late,
            floor=floor,
            last=last,
            inclusive=inclusive,
            until=found or last,
            hashed=_hashed(order, after),
            missing=missing,
        )

    # -- batches ------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """All that is new, as one batch; as several, cut along the cursor, where the range asks for it."""
        whole = Part(reading=self, last=self.last, inclusive=self.inclusive, until=self.until, first=True)
        if self.range.batch_bytes is None or whole.empty:
            yield whole.batch()
            return
        begin: Values | None = self.last
        for at, until in enumerate([*self._cuts(self.range.batch_bytes), self.until]):
            part = Part(reading=self, last=begin, inclusive=self.inclusive and at == 0, until=until, first=at == 0)
            yield part.batch()
            begin = until

    def _cuts(self, size: int) -> list[Values]:
        """The cursor's values at which batches of about so many bytes end, but for the last one."""
        keeper, order = self.session.keeper, self.order
        rows = order.selection.rows(self.within(self.last, self.until, inclusive=self.inclusive))
        whole = "CAST(s.* AS text)"  # a column may be called s, and none is called s.*
        sample = f"SELECT pg_catalog.avg(pg_catalog.length({whole})) FROM (SELECT * {rows} LIMIT {_SAMPLE}) AS s"
        ((width,),) = keeper.execute(sample.encode()).fetchall()
        step = max(1, int(size / max(float(width or 1), 1.0)))
        return [v for v in order.every(keeper, rows, step) if v != self.until]

    def within(self, last: Values | None, until: Values | None, *, inclusive: bool) -> str:
        """SQL: of rows between two ends."""
        order = self.order
        upto = order.compared("<=", until) or "false"
        beyond = order.compared(">=" if inclusive else ">", last)
        return " AND ".join(c for c in (order.present, self.floor, beyond, upto) if c)

    # -- what stands at an end ----------------------------------------------------------------------------------

    @property
    def once(self) -> bool:
        """Whether rows that were read must be told from new ones."""
        return self.range.ties == "once"

    @property
    def nulls(self) -> str | None:
        """SQL: of rows without a value that are loaded; None where there are none."""
        return self.order.missing if self.order.cursor.nulls == "load" else None

    def state(self, until: Values | None) -> str:
        """What tells the rows that the next read will see again from what they may be then."""
        keeper, order = self.session.keeper, self.order
        at = self.late.lagging(until) if not self.once else None
        ends = order.compared("=", until) if at is None else f"{at} AND {order.compared('<=', until)}"
        told = order.missing if order.cursor.nulls != "skip" else None
        return "/".join([order.state(keeper, ends), order.state(keeper, told)])

    def boundary(self, until: Values | None) -> dict[str, int] | None:
        """The digests of rows that the next read will see again, for an append."""
        if not self.once:
            return None
        keeper, names = self.session.keeper, list(self.hashed)
        found = Counter(self.order.digests(keeper, self.order.compared("=", until), names))
        return dict(found + Counter(self.order.digests(keeper, self.nulls, names)))

    def known(self) -> dict[str, int]:
        """The digests of rows that were read already, of those that this read sees again.

        Raises ConfigError where an earlier read kept none.
        """
        if not (self.once and self.after.get("columns")):
            return {}
        if self.after.get("boundary") is None:
            raise ConfigError(
                f"source {self.order.selection.source!r} was read for a merge: ties at the cursor's end cannot be told"
                " apart",
                hint="go on with merge, or run once with --full-refresh",
            )
        before = Counter(self.after["boundary"]) + Counter(self.late.known or {})
        self._refuse_retyped(before)
        return dict(before)

    def again(self, last: Values | None) -> str:
        """SQL: of rows that may have been read before, where a read begins at `last`."""
        at = [self.order.compared("=", last), self.nulls, self.late.caught]
        return " OR ".join(f"({c})" for c in at if c)

    def _refuse_retyped(self, before: Counter[str]) -> None:
        """Raises ConfigError where a column's values are other texts now, since it has another type: no row would be
        known again. Most types that have grown leave them as they were.
        """
        relation, was = self.order.selection.relation, dict(self.after.get("hashed") or {})
        changed = next((name for name, held in was.items() if relation[name].type.name != held), None)
        said = self.again(self.last)
        if changed is None or not before or not said:
            return
        if Counter(self.order.among(self.session.keeper, said, list(was), list(before))) >= before:
            return
        raise ConfigError(
            f"{relation.name}: column {changed!r} was {was[changed]} and is {relation[changed].type.name} now, and by"
            " its values it was known what was read",
            hint="run once with --full-refresh, or put the column back",
        )


@dataclass(kw_only=True)
class Part:
    """What one batch reads of a `Reading`: the rows from `last` on up to `until`, and in the first one all else."""

    reading: Reading
    last: Values | None
    inclusive: bool
    until: Values | None
    first: bool
    part: Sight = field(default_factory=Sight)
    all: Sight = field(default_factory=lambda: Sight(split=True))
    _told: Position | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is new."""
        reading = self.reading
        if reading.late.caught is not None or self.until != self.last:
            return False
        state = reading.state(self.until)
        if self.until is None and state in _NO_ROWS:
            return True
        return bool(reading.after) and reading.after.get("state") == state

    def batch(self) -> Batch:
        """The batch."""
        reading, order = self.reading, self.reading.order
        selection, known = order.selection, reading.known() if self.first else {}
        self.part.split = self.last is None and self.reading.range.batch_bytes is None
        self.part.known, self.part.mark = known, self._mark() if known else None
        facts: dict[str, Any] = {"bounds": self._bounds(), **selection.facts(), "late": reading.late.mode}
        if reading.missing:
            facts["skipped"] = reading.missing
        return Batch(
            frame=selection.frame(self.part, self._where()),
            news=News(
                rows=None, empty=self.empty, facts=facts, misses=reading.late.misses(), warnings=self._warnings()
            ),
            position=self.position,
            counts=lambda: Counts(rows=self._drained.rows or 0),
            rejects=self._rejects,
            files=tuple,
            whole=selection.frame(self.all, self._or_null(reading.within(None, self.until, inclusive=True))),
        )

    @property
    def _drained(self) -> Sight:
        """The whole, where that is what was read."""
        return self.all if self.part.rows is None and self.all.rows is not None else self.part

    def _bounds(self) -> dict[str, Any]:
        said = {"from": self.last, "to": self.until}
        return {
            "column": ", ".join(self.reading.order.cursor.columns),
            **{word: None if values is None else ", ".join(values) for word, values in said.items()},
            "inclusive": self.inclusive,
        }

    def _warnings(self) -> tuple[str, ...]:
        reading, order = self.reading, self.reading.order
        if not self.first:
            return ()
        said = list(reading.late.warnings(waiting=self._waiting(), future=self._future()))
        if reading.missing:
            rows = f"{reading.missing:,} row{'s' if reading.missing > 1 else ''}"
            said.append(f"source {order.selection.source!r}: {rows} without a value of the cursor skipped")
        relation = order.selection.relation
        if relation.stored and not relation.ordered(order.cursor.columns):
            columns = ", ".join(order.cursor.columns)
            said.append(f"{relation.name} has no index on {columns}: each run reads the whole table on the server")
        return tuple(said)

    def _waiting(self) -> bool:
        """Whether there are rows beyond the horizon."""
        reading = self.reading
        if reading.late.held is None:
            return False
        beyond = reading.order.compared(">", self.until)
        return reading.order.greatest(reading.session.keeper, beyond) is not None

    def _future(self) -> bool:
        """Whether there are rows which are dated after the server's clock."""
        reading = self.reading
        beyond = reading.late.future()
        return beyond is not None and reading.order.greatest(reading.session.keeper, beyond) is not None

    def _where(self) -> str:
        """SQL: of the rows of this batch."""
        reading = self.reading
        within = reading.within(self.last, self.until, inclusive=self.inclusive)
        if not self.first:
            return within
        lagging = reading.late.lagging(self.last) if not reading.once else None
        if lagging is not None:  # the end of what was read, once more
            again = [reading.order.present, reading.floor, lagging, reading.order.compared("<=", self.until)]
            within = " AND ".join(c for c in again if c)
        found = [within]
        if reading.late.caught is not None:
            found.append(" AND ".join(c for c in (reading.floor, reading.late.caught) if c))
        return self._or_null(" OR ".join(f"({c})" for c in found) if len(found) > 1 else within)

    def _or_null(self, condition: str) -> str:
        nulls = self.reading.nulls
        return condition if nulls is None else f"({condition}) OR {nulls}"

    def _mark(self) -> str:
        """SQL: the digest of a row that may have been read before."""
        reading = self.reading
        names = list(reading.after.get("hashed") or reading.hashed)
        return f"CASE WHEN {reading.again(self.last)} THEN {reading.order.digest(names)} END"

    def position(self) -> Position:
        """Where the rows lead; asked of the server once."""
        if self._told is None:
            with translated(self.reading.session.where):
                self._told = self._asked()
        return self._told

    def _asked(self) -> Position:
        reading, order = self.reading, self.reading.order
        texts = {"as_text": sorted(reading.as_text)} if reading.as_text else {}
        told: dict[str, Any] = {
            "cursor": None if self.until is None else list(self.until),
            "columns": list(order.cursor.columns),
            "types": order.types(),
            "state": reading.state(self.until),
            "boundary": reading.boundary(self.until),
            "late": reading.late.told(reading.session, self.until, list(reading.hashed)),
        }
        if reading.once:
            told["hashed"] = dict(reading.hashed)
        return {**told, **texts}

    def _rejects(self) -> Retold:
        """Of the rows without a value; of the whole, everything was judged anew."""
        name = self.reading.order.selection.source
        if not self.first:
            return Retold()
        whole = self.all.rows is not None
        superseded = Superseded(source=name) if whole else Superseded(source=name, stages=("cursor",))
        return Retold(frames=self._refused, superseded=(superseded,))

    def _refused(self) -> Iterator[pl.DataFrame]:
        order = self.reading.order
        if order.cursor.nulls != "refuse" or order.missing is None:
            return
        selection = order.selection
        columns = tuple(replace(c, type=c.type.as_text()) for c in selection.columns)
        missing = replace(selection, columns=columns).scan(Sight(), order.missing)
        some = f"SELECT pg_catalog.count(*) FROM (SELECT 1 {selection.rows(order.missing)} LIMIT 1) AS s"
        with translated(self.reading.session.where):
            ((there,),) = self.reading.session.keeper.execute(some.encode()).fetchall()
        if there:
            yield from numbered(lambda: (refused(selection.source, batch.rows(named=True)) for batch in drawn(missing)))


def _begin(order: Order, session: Session, range: Range, snapshot: Snapshot) -> tuple[Values | None, bool, str | None]:
    """From where to read, whether the rows there are read too, and SQL below which nothing ever is."""
    after, start = range.after or {}, order.cursor.start
    floor: Values | None = None
    if start is not None and start != "from_target":
        floor = _first(order, session, start)
    if after.get("cursor") is not None:
        order.refuse_other(after)
        return tuple(after["cursor"]), True, order.compared(">=", floor)
    if start == "from_target" and (newest := snapshot.newest(order.cursor.column)) is not None:
        return _first(order, session, newest), range.ties == "again", None
    return floor, True, order.compared(">=", floor)


def _first(order: Order, session: Session, text: str) -> Values:
    """A start in the first column. Raises ConfigError where there are more."""
    if order.cursor.then:
        raise ConfigError("a cursor of several columns has no start", hint='say it in "where"')
    return order.checked(session.keeper, (text,), "the start")


def _hashed(order: Order, after: Mapping[str, Any]) -> dict[str, str]:
    """The columns of the selection, by the server's names. Raises ConfigError where one that was digested is gone."""
    have = {c.name for c in order.selection.relation.columns}
    if gone := next((name for name in after.get("hashed") or {} if name not in have), None):
        raise ConfigError(
            f"{order.selection.relation.name} has no column {gone!r} any more, by which it was known what was read",
            hint="run once with --full-refresh, or put the column back",
        )
    return {order.selection.names[c.name]: c.type.name for c in order.selection.columns}

"""Reading PostgreSQL: what is new since a cursor's value, or all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.cursor import Cursor
from headrace.cursor.tracking import NULL_CURSOR, reject_id
from headrace.errors import ConfigError
from headrace.flow import Batch, Counts, Frame, News, Position, Range, Retold, Snapshot, Superseded
from headrace.schema import REJECTS
from headrace.stream.drawing import drawn
from headrace.systems.postgres.order import Order, Values
from headrace.systems.postgres.selection import Selection, Sight, bound
from headrace.systems.postgres.session import opened

if TYPE_CHECKING:
    from psycopg import Connection

    from headrace.systems.postgres import PostgresSource

__all__ = ["batches"]


def batches(source: PostgresSource, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
    """See `headrace.protocols.Source.batches`. The snapshot is open for as long as the iterator is."""
    after = range.after or {}
    with opened(source.dsn, name=name) as session:
        as_text = range.as_text | frozenset(after.get("as_text", ()))
        selection = bound(session, source, name, as_text)
        if source.read == "all" or not isinstance(source.cursor, Cursor):
            yield _whole(selection, as_text)
            return
        order = Order.of(selection, source.cursor)
        yield _Since.of(order, session.keeper, range, snapshot, as_text).batch()


def _whole(selection: Selection, as_text: frozenset[str]) -> Batch:
    """All rows, at every run."""
    sight = Sight()
    told = {"as_text": sorted(as_text)} if as_text else {}
    return Batch(
        frame=_frame(selection, sight),
        news=News(rows=None, empty=None, facts=_facts(selection)),
        position=lambda: told,
        counts=lambda: Counts(rows=sight.rows or 0),
        rejects=lambda: Retold(superseded=(Superseded(source=selection.source),)),
        files=tuple,
        complete=True,
    )


def _frame(selection: Selection, sight: Sight, *conditions: str | None) -> Frame:
    return Frame(
        lazy=selection.scan(sight, *conditions),
        scan={"type": "postgres", "relation": selection.relation.name, "where": [c for c in conditions if c]},
        origins=selection.origins,
    )


def _facts(selection: Selection) -> dict[str, Any]:
    relation = selection.relation
    partial = [c.name for c in selection.columns if c.type.partial]
    return {"kind": relation.kind, "about_rows": relation.rows, **({"maybe_as_text": partial} if partial else {})}


@dataclass(kw_only=True)
class _Since:
    """The rows from the last values on, up to the greatest as of the snapshot.

    `last` is where the read begins and `until` where it ends (None: there is no row at all); `boundary` are the digests
    of the rows at `until`, and of those without a value where they are loaded, for an append.
    """

    order: Order
    range: Range
    after: Mapping[str, Any]
    last: Values | None
    inclusive: bool
    until: Values | None
    boundary: Mapping[str, int] | None
    known: Mapping[str, int]
    state: str
    as_text: frozenset[str]
    told: Mapping[str, str]
    part: Sight = field(default_factory=Sight)
    all: Sight = field(default_factory=Sight)

    @staticmethod
    def of(order: Order, keeper: Connection, range: Range, snapshot: Snapshot, as_text: frozenset[str]) -> _Since:
        """As the snapshot has it. Raises ConfigError, DataError."""
        after = dict(range.after or {})
        last, inclusive = _begin(order, keeper, range, snapshot)
        found = order.greatest(keeper, order.compared(">=" if inclusive else ">", last))
        until = found or last
        once, loads = range.ties == "once", order.cursor.nulls == "load"
        hashed = _hashed(order, after, same=until == last)
        boundary: dict[str, int] | None = None
        if once:
            boundary = order.boundary(keeper, found, list(hashed)) if found else dict(after.get("boundary") or {})
            if loads and order.missing:
                boundary = {**boundary, **order.boundary(keeper, None, list(hashed))}
        state = "/".join([order.state(keeper, found) if found else "", order.state(keeper, None)])
        return _Since(
            order=order, range=range, after=after, last=last, inclusive=inclusive, until=until, boundary=boundary,
            known=_known(order, after) if once and range.after else {}, state=state, as_text=as_text, told=hashed,
        )  # fmt: skip

    def batch(self) -> Batch:
        """What is new."""
        selection = self.order.selection
        self.part.known = self.known
        self.part.mark = self._mark() if self.known else None
        bounds = {
            "column": ", ".join(self.order.cursor.columns),
            "from": self._said(self.last),
            "to": self._said(self.until),
            "inclusive": self.inclusive,
        }
        return Batch(
            frame=_frame(selection, self.part, self._within(self.order.compared(self._beyond, self.last))),
            news=News(
                rows=None,
                empty=self._empty(),
                facts={"bounds": bounds, **_facts(selection)},
                misses=self.order.cursor.misses,
            ),
            position=self.position,
            counts=lambda: Counts(rows=self._drained.rows or 0),
            rejects=self._rejects,
            files=tuple,
            whole=_frame(selection, self.all, self._within(None)),
        )

    @property
    def _beyond(self) -> str:
        return ">=" if self.inclusive else ">"

    @property
    def _drained(self) -> Sight:
        """The whole, where that is what was read."""
        return self.all if self.part.rows is None and self.all.rows is not None else self.part

    @staticmethod
    def _said(values: Values | None) -> str | None:
        return None if values is None else ", ".join(values)

    def _within(self, beyond: str | None) -> str | None:
        """Of the rows between here and `until`; those without a value too, where they are loaded."""
        order = self.order
        upto = order.compared("<=", self.until) or "false"
        inside = " AND ".join(c for c in (order.present, beyond, upto) if c)
        return f"{inside} OR {order.missing}" if order.cursor.nulls == "load" and order.missing else inside

    def _mark(self) -> str:
        """SQL: the digest of a row that may have been read before."""
        order = self.order
        loads = order.cursor.nulls == "load" and order.missing
        at = " OR ".join(c for c in (order.compared("=", self.last), order.missing if loads else None) if c)
        known = [c for c in self.after.get("hashed", {}) if c]
        return f"CASE WHEN {at} THEN {order.digest(known or list(self.told))} END"

    def _empty(self) -> bool:
        if self.until is None and self.order.missing is None:
            return True
        return bool(self.range.after) and self.after.get("state") == self.state and self.until == self.last

    def position(self) -> Position:
        """Where the rows lead."""
        if self.until is None:
            return {**self.after, **({"as_text": sorted(self.as_text)} if self.as_text else {})}
        told: dict[str, Any] = {
            "cursor": list(self.until),
            "columns": list(self.order.cursor.columns),
            "types": self.order.types(),
            "state": self.state,
            "boundary": None if self.boundary is None else dict(self.boundary),
        }
        if self.boundary is not None:
            told["hashed"] = dict(self.told)
        return {**told, **({"as_text": sorted(self.as_text)} if self.as_text else {})}

    def _rejects(self) -> Retold:
        """Of the rows without a value; of the whole, everything was judged anew."""
        name = self.order.selection.source
        whole = self.all.rows is not None
        superseded = Superseded(source=name) if whole else Superseded(source=name, stages=("cursor",))
        return Retold(frames=self._refused, superseded=(superseded,))

    def _refused(self) -> Iterator[pl.DataFrame]:
        order = self.order
        if order.cursor.nulls != "refuse" or order.missing is None:
            return
        selection = order.selection
        columns = tuple(replace(c, type=c.type.as_text()) for c in selection.columns)
        texts = replace(selection, columns=columns).scan(Sight(), order.missing)
        for batch in drawn(texts):
            rows = [json.dumps(row, ensure_ascii=False) for row in batch.iter_rows(named=True)]
            made = [
                (reject_id("cursor", selection.source, None, None, text), "cursor", selection.source, None, None,
                 [NULL_CURSOR], text, None) for text in rows
            ]  # fmt: skip
            yield pl.DataFrame(made, schema=REJECTS.polars(), orient="row")


def _begin(order: Order, keeper: Connection, range: Range, snapshot: Snapshot) -> tuple[Values | None, bool]:
    """From where to read, and whether the rows there are read too."""
    after = range.after or {}
    if after.get("cursor") is not None:
        order.refuse_other(after)
        return tuple(after["cursor"]), True
    start = order.cursor.start
    if start == "from_target":
        newest = snapshot.newest(order.cursor.column)
        return (None, True) if newest is None else (_padded(order, keeper, newest), range.ties == "again")
    return (None, True) if start is None else (_padded(order, keeper, start), True)


def _padded(order: Order, keeper: Connection, text: str) -> Values:
    """A start in the first column. Raises ConfigError where there are more."""
    if order.cursor.then:
        raise ConfigError("a cursor of several columns has no start", hint='say it in "where"')
    return order.checked(keeper, (text,), "the start")


def _hashed(order: Order, after: Mapping[str, Any], *, same: bool) -> dict[str, str]:
    """What digests are over, by the server's names: at the last position's values what it was there."""
    if same and after.get("hashed"):
        return dict(after["hashed"])
    selection = order.selection
    return {selection.names[c.name]: c.type.name for c in selection.columns}


def _known(order: Order, after: Mapping[str, Any]) -> dict[str, int]:
    """The digests of rows that were read already. Raises ConfigError where an earlier read kept none."""
    boundary = after.get("boundary")
    if boundary is None:
        raise ConfigError(
            f"source {order.selection.source!r} was read for a merge: ties at the cursor's end cannot be told apart",
            hint="go on with merge, or run once with --full-refresh",
        )
    for name in after.get("hashed", {}):
        order.selection.column(name)
    return {str(k): int(v) for k, v in boundary.items()}

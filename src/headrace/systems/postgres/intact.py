"""Which rows below an end an append has not loaded yet, of those that a later transaction has written.

An update writes a row anew, and the server tells it from one that was committed late by nothing. So the position keeps
what tells them apart. Of a primary key of whole numbers the gaps near the end: what stands in one now is new, and
nothing else is. Of all else how many rows a snapshot surely had, near the end and in all: as long as none is missing
none was updated, and what came is new. Where some are missing, the append is refused: it would load rows twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.errors import DataError
from headrace.sqltext import quoted
from headrace.systems.postgres.unseen import Unseen

if TYPE_CHECKING:
    from psycopg import Connection

    from headrace.systems.postgres.order import Order, Values

__all__ = ["kept", "unloaded"]

_NEAR = 10_000
_STEPS = (10, 100, 1_000, _NEAR)  # old rows may be deleted: what lies nearer than these is counted by itself too
_GAPS_MAX = 1_000
_WHOLE = ("int2", "int4", "int8")

Gaps = list[tuple[int | None, int | None]]


def kept(order: Order, keeper: Connection, until: Values, unseen: Unseen, names: Sequence[str]) -> dict[str, Any]:
    """For the position of a read up to `until`, of the rows below it. Raises DataError for too many to remember.

    `end`: below that no gap is known, and rows go by `counts` and by the digests of those that are `seen` though they
    are suspect; None: there is nothing below.
    """
    gaps, end = _gaps(order, keeper, until)
    told: dict[str, Any] = {"gaps": gaps, "end": None if end is None else list(end), "counts": [], "seen": {}}
    if end is None:
        return told
    bounds: list[Values | None] = [] if gaps is not None else [*_bounds(order, keeper, end)]
    bounds.append(None)
    told["counts"] = [[b, n] for b, n in zip(bounds, _counts(order, keeper, end, unseen, bounds), strict=True)]
    if not unseen.blank:
        told["seen"] = order.digests(keeper, f"{order.compared('<', end)} AND {unseen.sql}", names)
    return told


def unloaded(
    order: Order, keeper: Connection, last: Values, was: Unseen, told: Mapping[str, Any], names: Sequence[str]
) -> str:
    """SQL of the rows up to `last` that are new, or among those that are `seen`.

    Raises DataError where they cannot be told from rows that were loaded.
    """
    suspect = f"{order.compared('<=', last)} AND {was.sql}"
    gaps: Gaps | None = told.get("gaps")
    end = told.get("end") if gaps is not None else list(last)
    if end is not None:
        _refuse_changed(order, keeper, tuple(end), was, told, names)
    if gaps is None:
        return suspect
    new = [_within(order, gaps), *([] if end is None else [order.compared("<", tuple(end))])]
    return f"{suspect} AND ({' OR '.join(str(n) for n in new)})"


def _refuse_changed(
    order: Order, keeper: Connection, end: Values, was: Unseen, told: Mapping[str, Any], names: Sequence[str]
) -> None:
    """Raises DataError where there are rows below `end` that may be new, and may be ones that were loaded."""
    seen = Counter(dict(told.get("seen") or {}))
    suspect = f"{order.compared('<', end)} AND {was.sql}"
    same = Counter(order.among(keeper, suspect, names, list(seen))) & seen
    if order.count(keeper, suspect) == same.total():
        return
    if same == seen:
        for bound, count in told.get("counts") or ():
            first = None if bound is None else tuple(bound)
            if first is not None and order.count(keeper, f"{suspect} AND {order.compared('<', first)}"):
                continue
            if _counts(order, keeper, end, was, [first]) == [count]:
                return
    raise DataError(
        f"{order.selection.relation.name}: rows that were read have been changed, rewritten or deleted since, and what"
        " was committed late, by a transaction that was open then, cannot be told from them",
        hint='use merge, or "late": "ignore" and a "lag"; then run once with --full-refresh',
    )


def _counts(
    order: Order, keeper: Connection, end: Values, unseen: Unseen, bounds: Sequence[Values | None]
) -> list[int]:
    """How many rows below `end` that a snapshot surely had there are yet, from each bound on (None: in all)."""
    each = [f"pg_catalog.count(*) FILTER (WHERE {order.compared('>=', b) or 'true'})" for b in bounds]
    rows = f"{_all(order)} WHERE {order.compared('<', end)} AND NOT {unseen.sql}"
    (found,) = keeper.execute(f"SELECT {', '.join(each)} {rows}".encode()).fetchall()
    return [int(n) for n in found]


def _all(order: Order) -> str:
    """SQL: of all rows, those too that a `where` of the source leaves out: they may have been loaded before."""
    return f"FROM {order.selection.relation.sql}"


def _bounds(order: Order, keeper: Connection, end: Values) -> list[Values]:
    """The cursor's values so many rows below the end, the farthest first."""
    return order.back(keeper, order.selection.rows(order.present, order.compared("<", end)), _STEPS)


def _gaps(order: Order, keeper: Connection, until: Values) -> tuple[Gaps | None, Values | None]:
    """Where there is no row near the end, and from where on that is known (None: everywhere). No gaps and `until`,
    where the cursor is no primary key of whole numbers.
    """
    first, relation = order.columns[0], order.selection.relation
    if len(order.columns) > 1 or relation.keys != (first.name,) or first.type.base not in _WHOLE or not first.required:
        return None, until
    name = quoted(first.name)
    rows = f"{_all(order)} WHERE {order.compared('<=', until)}"
    near = f"SELECT CAST({name} AS int8) AS k {rows} ORDER BY {name} DESC LIMIT {_NEAR + 1}"
    ((count, lowest),) = keeper.execute(f"SELECT pg_catalog.count(*), min(k) FROM ({near}) AS s".encode()).fetchall()
    query = (
        f"SELECT k + 1, above - 1 FROM (SELECT k, pg_catalog.lag(k) OVER (ORDER BY k DESC) AS above FROM ({near}) AS s)"
        f" AS g WHERE above > k + 1 ORDER BY k DESC LIMIT {_GAPS_MAX}"
    )
    found: Gaps = [(int(a), int(b)) for a, b in keeper.execute(query.encode()).fetchall()]
    if len(found) == _GAPS_MAX:
        return found, (str(found[-1][0]),)
    if count > _NEAR:
        return found, (str(lowest),)
    return [*found, (None, None if lowest is None else int(lowest) - 1)], None


def _within(order: Order, gaps: Gaps) -> str:
    """SQL: of rows that stand in a gap now."""
    if not gaps:
        return "false"
    ends = (", ".join("NULL" if n is None else str(n) for n in side) for side in zip(*gaps, strict=True))
    arrays = ", ".join(f"pg_catalog.unnest(CAST(ARRAY[{side}] AS int8[]))" for side in ends)
    name = quoted(order.columns[0].name)
    return (
        f"EXISTS (SELECT FROM ROWS FROM ({arrays}) AS _headrace_gap (_headrace_a, _headrace_b)"
        f" WHERE {name} >= COALESCE(_headrace_a, {name}) AND {name} <= COALESCE(_headrace_b, {name}))"
    )

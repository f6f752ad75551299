"""Reading PostgreSQL: what is new since a cursor's value, or all of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.cursor import Cursor
from headrace.flow import Batch, Counts, Frame, News, Position, Range, Retold, Snapshot, Superseded
from headrace.systems.postgres.connection import psycopg
from headrace.systems.postgres.order import Order
from headrace.systems.postgres.selection import Selection, Sight, bound
from headrace.systems.postgres.session import opened
from headrace.systems.postgres.since import Reading

if TYPE_CHECKING:
    from headrace.cursor import Deletes
    from headrace.systems.postgres import PostgresSource
    from headrace.systems.postgres.session import Session

__all__ = ["batches", "read"]


def batches(source: PostgresSource, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
    """See `headrace.protocols.Source.batches`. The snapshot is open for as long as the iterator is."""
    tables = () if source.table is None else (source.table,)
    with opened(source.dsn, name=name, tables=tables, reader=range.reader) as session:
        yield from read(session, source, range, snapshot, name)


def read(
    session: Session, source: PostgresSource, range: Range, snapshot: Snapshot, name: str
) -> Generator[Batch, None, None]:
    """The batches of one source, as the session's snapshot has them."""
    as_text = range.as_text | frozenset((range.after or {}).get("as_text", ()))
    selection = bound(session, source, name, as_text)
    whole = source.read == "all" or not isinstance(source.cursor, Cursor)
    if isinstance(source.cursor, Cursor) and not whole:
        reading = Reading.of(Order.of(selection, source.cursor), session, range, snapshot, as_text)
        found = reading.batches()
    else:
        found = iter((_whole(selection, as_text),))
    identity = {**source.identity(), **_identity(session, selection)}
    census, stamp = _census(selection, source.deletes, range, snapshot)
    for batch in found:
        yield replace(
            batch,
            identity=identity,
            keys=selection.keys,
            census=census,
            position=_stamped(batch.position, stamp),
        )
        census = None  # of a read that is cut into batches the first one has it


def _census(
    selection: Selection, deletes: Deletes | None, range: Range, snapshot: Snapshot
) -> tuple[Frame | None, Mapping[str, str]]:
    """Every row, where it is time to compare keys, and what positions keep of that, by the server's clock."""
    if deletes is None:
        return None, {}
    ((now,),) = selection.session.keeper.execute("SELECT pg_catalog.transaction_timestamp()").fetchall()
    due, stamp = deletes.due(range.after, now, there=snapshot.schema is not None)
    return selection.frame(Sight(split=True)) if due else None, {"compared": stamp}


def _stamped(position: Callable[[], Position], told: Mapping[str, str]) -> Callable[[], Position]:
    return lambda: {**position(), **told}


def _whole(selection: Selection, as_text: frozenset[str]) -> Batch:
    """All rows, at every run."""
    sight = Sight(split=True)
    told = {"as_text": sorted(as_text)} if as_text else {}
    return Batch(
        frame=selection.frame(sight),
        news=News(rows=None, empty=None, facts=selection.facts()),
        position=lambda: told,
        counts=lambda: Counts(rows=sight.rows or 0),
        rejects=lambda: Retold(superseded=(Superseded(source=selection.source),)),
        files=tuple,
        complete=True,
    )


def _identity(session: Session, selection: Selection) -> dict[str, Any]:
    """The cluster (None where this role may not ask), the database, and the table by its number: one that was dropped
    and made again is another. A view is its name.
    """
    keeper = session.keeper
    try:
        with keeper.transaction():
            ((system,),) = keeper.execute("SELECT CAST(system_identifier AS text) FROM pg_catalog.pg_control_system()")
    except psycopg.errors.InsufficientPrivilege:
        system = None
    relation = selection.relation
    table = relation.oid if relation.kind in ("table", "partitioned table") else None
    return {"system": system, "database": keeper.info.dbname, "oid": table}

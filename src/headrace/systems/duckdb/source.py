"""Reading a DuckDB table or query: what is new since a cursor's value, or all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.cursor import Cursor, Deletes, track
from headrace.cursor.batches import everything, since
from headrace.errors import ConfigError, DataError
from headrace.exact import from_text, to_text
from headrace.flow import Batch, Frame, News, Position, Range, Snapshot
from headrace.frozen import frozen
from headrace.logical import Type
from headrace.schema import Schema, renamed
from headrace.sqltext import literal, quoted
from headrace.systems.duckdb.connection import reading
from headrace.systems.duckdb.frames import scan
from headrace.systems.duckdb.tables import Table
from headrace.transform.columns import Column, described, folded, logical

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from headrace.cursor.tracking import Tracked
    from headrace.systems.duckdb import DuckDBSource

__all__ = ["batches"]

_PUSHED = ("int", "uint", "decimal", "string", "date", "datetime", "time")
"""Kinds whose order is the same in Polars and in DuckDB."""


@frozen
class _Reading:
    """A source bound to its file: the query with new names, and its columns."""

    path: Path
    query: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> Schema:
        return logical(self.columns)

    def frame(self, where: str = "true") -> pl.LazyFrame:
        """The rows, lazily."""
        query, columns = f"FROM ({self.query}) WHERE {where}", self.columns

        def current(connection: DuckDBPyConnection) -> tuple[str, tuple[Column, ...]]:
            now = {c.name: c for c in described(connection, self.query)}
            if any(now.get(c.name) != c for c in columns):
                raise ConfigError(f"{self.path}: the columns have changed since the run began", hint="run again")
            return query, columns

        return scan(self.path, current, columns)


def batches(source: DuckDBSource, path: Path, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
    """See `headrace.protocols.Source.batches`."""
    with reading(path) as connection:
        query = _renamed(connection, _query(source, connection), source.rename)
        found = _Reading(path, query, described(connection, query))
        cursor = None if source.read == "all" else _cursor(source, found)
        if cursor is not None:
            cursor.refuse_other(range.after, name)  # before its value is taken for one of this column
        news = None if cursor is None else _News.of(connection, found, cursor, range, snapshot)
    if cursor is None or news is None:
        batch = everything(found.frame(), name=name)
    else:
        batch = _since(found, cursor, news, range, snapshot, name)
    yield batch if source.deletes is None else _compared(batch, found, source.deletes, range, snapshot)


def _compared(batch: Batch, found: _Reading, deletes: Deletes, range: Range, snapshot: Snapshot) -> Batch:
    """The batch with the census that is due. Where there is no table yet nothing can have gone."""
    due, stamp = deletes.due(range.after, datetime.now(UTC), there=snapshot.schema is not None)
    return replace(
        batch,
        census=Frame(lazy=found.frame()) if due else None,
        position=lambda: {**batch.position(), "compared": stamp},
    )


def _query(source: DuckDBSource, connection: DuckDBPyConnection) -> str:
    if source.query is not None:
        return f"{source.query.strip().rstrip(';')}\n"  # it may end with a comment
    return f"FROM {Table.of(source.table or '').within(connection).sql}"


def _renamed(connection: DuckDBPyConnection, query: str, rename: Mapping[str, str]) -> str:
    """The query with new names, by the columns' places: of two names that differ in case alone SQL reads one.

    Raises ConfigError for two such names that are left.
    """
    names = renamed([c.name for c in described(connection, query)], rename)
    told: dict[str, str] = {}
    for name in names:
        if (other := told.setdefault(folded(name), name)) != name:
            raise ConfigError(
                f"the columns {other!r} and {name!r} differ in case alone, and DuckDB takes them for one",
                hint=f'give one of them another name: "rename": {{"{name}": "{name}_2"}}, or AS in the query',
            )
    if not rename:
        return query
    columns = ", ".join(f"c{i} AS {quoted(name)}" for i, name in enumerate(names))
    return f"SELECT {columns} FROM ({query}) AS q({', '.join(f'c{i}' for i in range(len(names)))})"


def _cursor(source: DuckDBSource, found: _Reading) -> Cursor | None:
    if source.cursor is None:
        return None
    cursor = source.cursor if isinstance(source.cursor, Cursor) else Cursor(column=source.cursor)
    column = source.rename.get(cursor.column, cursor.column)
    if column not in found.schema:
        names = ", ".join(found.schema.names)
        raise ConfigError(f"{found.path}: there is no column {column!r} to be the cursor", hint=f"there are: {names}")
    return Cursor(column=column, start=cursor.start)


def _since(found: _Reading, cursor: Cursor, news: _News, range: Range, snapshot: Snapshot, name: str) -> Batch:
    """The rows from the cursor's last value on, up to its greatest as of now."""

    def tracked(where: str, **begin: Any) -> Tracked:
        return track(found.frame(where), cursor, ties=range.ties, source=name, **begin)

    part = tracked(news.where, after=range.after, newest=snapshot.newest)
    told = News(rows=news.rows, empty=news.empty, facts={"bounds": dict(part.bounds)}, misses=cursor.misses)
    return since(part, tracked(news.until, after=None), news=told, state=news.state, name=name)


@frozen
class _News:
    """What there is to read, as one transaction saw it.

    `where` and `until` are SQL; `state` tells the rows at the greatest value, and those without one, from what
    they may be at the next run: equal states mean that nothing is new.
    """

    last: str | None
    where: str
    until: str
    rows: int | None
    empty: bool
    state: str

    @staticmethod
    def of(connection: DuckDBPyConnection, found: _Reading, cursor: Cursor, range: Range, snapshot: Snapshot) -> _News:
        column = next(c for c in found.columns if c.name == cursor.column)
        name, table = _ordered(column), f"({found.query})"
        ((greatest,),) = connection.execute(f"SELECT CAST(max({name}) AS VARCHAR) FROM {table}").fetchall()
        last = _last(cursor, column.type, range.after, snapshot)
        _refuse_behind(connection, column, greatest, range.after)
        top, bottom = _pushed(connection, column, greatest), _pushed(connection, column, last)
        until = f"({name} IS NULL OR {name} <= {top})" if top else "true"
        where = f"({name} IS NULL OR {name} >= {bottom}) AND {until}" if bottom else until
        at_top = f"{name} = {top or f'(SELECT max({name}) FROM {table})'}"
        ((rows, nulls, state),) = connection.execute(
            f"SELECT count(*) FILTER ({where}), count(*) FILTER ({name} IS NULL),"
            f" concat_ws('/', count(*), CAST(sum(hash(_headrace_row)) FILTER ({at_top}) AS VARCHAR),"
            f" count(*) FILTER ({at_top})) FROM {table} AS _headrace_row"
        ).fetchall()
        state = f"{greatest}/{nulls}/{state}"
        known = rows if bottom is not None or last is None else None
        empty = known == 0 or (range.after is not None and range.after.get("state") == state)
        return _News(last, where, until, known, empty, state)


def _ordered(column: Column) -> str:
    """A column as positions are ordered: texts by their bytes, whatever the column's collation."""
    return quoted(column.name) + (' COLLATE "binary"' if column.held == "VARCHAR" else "")


def _refuse_behind(
    connection: DuckDBPyConnection, column: Column, greatest: str | None, after: Position | None
) -> None:
    """A source that has rows, and none as far as it was read, has gone back: what comes now would be taken for old.

    Raises DataError.
    """
    last = (after or {}).get("cursor")
    if last is None or greatest is None or (after or {}).get("type") != str(column.type):
        return
    now, then = _pushed(connection, column, greatest), _pushed(connection, column, str(last))
    if now is None or then is None:
        return
    ((behind,),) = connection.execute(f"SELECT {now} < {then}").fetchall()
    if behind:
        raise DataError(
            f"the source was read further in {column.name!r} than it goes now",
            hint="has it been restored from a backup? run with --full-refresh",
            details={"column": column.name},
        )


def _last(cursor: Cursor, type: Type, after: Position | None, snapshot: Snapshot) -> str | None:
    """The text of the value from which to read; `track` judges whether it can be one."""
    if after and after.get("cursor") is not None:
        return str(after["cursor"])
    if cursor.start == "from_target":
        return snapshot.newest(cursor.column)
    if cursor.start is None:
        return None
    try:
        text = pl.select(to_text(from_text(pl.lit(cursor.start), type), type)).item()
    except pl.exceptions.PolarsError:
        text = None
    return cursor.start if text is None else str(text)


def _pushed(connection: DuckDBPyConnection, column: Column, text: str | None) -> str | None:
    """The value as SQL, where DuckDB reads the text to that very value and orders the type as Polars does."""
    if text is None or "\0" in text or not column.exact or column.type.name.rstrip("0123456789") not in _PUSHED:
        return None
    value = literal(text)
    ((reads,),) = connection.execute(f"SELECT TRY_CAST({value} AS {column.held}) IS NOT NULL").fetchall()
    return f"CAST({value} AS {column.held})" if reads else None

"""A table as a lazy frame, for people who only want a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from headrace.errors import ConfigError
from headrace.stream import scan_generator
from headrace.systems.postgres import PostgresSource
from headrace.systems.postgres.connection import Dsn
from headrace.systems.postgres.selection import Sight, bound
from headrace.systems.postgres.session import opened

if TYPE_CHECKING:
    import polars as pl


__all__ = ["scan_postgres"]

_NAME = "scan"


def scan_postgres(
    dsn: Dsn, table: str | None = None, *, query: str | None = None, types: Mapping[str, str] | None = None
) -> pl.LazyFrame:
    """The rows of a table (or view), or of a query, lazily: every collection reads anew, in one snapshot.

    Columns, filters and limits that mean the same to the server become part of its query. `dsn` and `types` are those
    of `PostgresSource`, and so are the columns' types.

    Raises ConfigError, RejectedError, UnavailableError; while it is collected UnheldError for a value that a column's
    type cannot hold: read the column as text then, ``types={"valid_to": "string"}``.
    """
    source = PostgresSource(dsn=dsn, table=table, query=query, types=types or {})
    with opened(dsn, name=_NAME) as session:
        schema = bound(session, source, _NAME, frozenset()).schema

    def generate(
        wanted: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        with opened(dsn, name=_NAME, tables=[table] if table else []) as session:
            selection = bound(session, source, _NAME, frozenset())
            if selection.schema != schema:
                raise ConfigError(f"{selection.relation.name}: the columns have changed", hint="scan it again")
            yield from selection.read(Sight(), (), wanted, predicate, n_rows)

    return scan_generator(generate, schema.polars())

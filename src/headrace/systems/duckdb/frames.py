"""Rows of a DuckDB file as lazy frames that can be collected again and again, and batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.stream import asked, framed, scan_generator
from headrace.systems.duckdb.connection import reading
from headrace.transform.columns import Column, logical, restore

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb import DuckDBPyConnection

__all__ = ["batches", "scan"]


def batches(
    connection: DuckDBPyConnection, query: str, columns: Sequence[Column], values: Sequence[Any] = ()
) -> Iterator[pl.DataFrame]:
    """The rows of `query` (a table expression that has `columns`), in their logical types."""
    sent = ", ".join(c.sent() for c in columns)
    exprs = restore(logical(tuple(columns)))
    for batch in framed(connection.sql(f"SELECT {sent} FROM ({query})", params=list(values))):
        yield batch.select(exprs)


def scan(
    path: Path, query: Callable[[DuckDBPyConnection], tuple[str, tuple[Column, ...]]], columns: tuple[Column, ...]
) -> pl.LazyFrame:
    """The rows of a query, lazily: the file is opened anew, for one snapshot, whenever the frame is collected.

    `query` gives the SQL and its columns as they are when it is opened. Only the columns that are asked for
    are read; the predicate is applied here.
    """

    def generate(
        wanted: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        needed = set(wanted if wanted is not None else [c.name for c in columns])
        needed |= set(predicate.meta.root_names()) if predicate is not None else set()
        with reading(path) as connection:
            sql, now = query(connection)
            picked = [c for c in now if c.name in needed] or list(now[:1])
            yield from asked(batches(connection, sql, picked), wanted, predicate, n_rows)

    return scan_generator(generate, logical(columns).polars())

"""What rows are to a write: keys that can be compared, an order, values gathered by number."""

from __future__ import annotations

from functools import total_ordering
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import ConfigError, DataError
from headrace.exact import to_text
from headrace.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Key", "Order", "check_keys", "gathered", "key_texts", "keys_of", "orders_of", "require"]

Key = tuple[Any, ...]


def keys_of(rows: pl.DataFrame, columns: Sequence[str]) -> list[Key]:
    """The values of these columns, one hashable tuple per row. NaN equals NaN, as in every engine."""
    return [tuple(_hashable(v) for v in row) for row in _plain(rows, columns).iter_rows()]


def _plain(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """The columns with instants as integers: Python's own have no nanoseconds."""
    exact = (pl.Datetime, pl.Duration, pl.Time)
    return rows.select(pl.col(c).to_physical() if isinstance(rows.schema[c], exact) else pl.col(c) for c in columns)


def _hashable(value: Any) -> Any:
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return "NaN"
    if isinstance(value, dict):
        return tuple((name, _hashable(v)) for name, v in value.items())
    if isinstance(value, list | pl.Series):
        return tuple(_hashable(v) for v in value)
    return value


@total_ordering
class Order:
    """A row's `latest_by` values. NULL is the oldest, NaN the newest; of no columns all are equal."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.parts = tuple(_ranked(v) for v in values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Order) and self.parts == other.parts

    def __lt__(self, other: Order) -> bool:
        return self.parts < other.parts

    def __hash__(self) -> int:
        return hash(self.parts)


def _ranked(value: Any) -> tuple[int, Any]:
    if value is None:
        return (0, 0)
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return (2, 0)
    return (1, value)


def orders_of(rows: pl.DataFrame, latest_by: Sequence[str]) -> list[Order]:
    """The order of each row; of no columns all are equal."""
    if not latest_by:
        return [Order(())] * rows.height
    return [Order(row) for row in _plain(rows, latest_by).iter_rows()]


def require(rows: pl.DataFrame, columns: Sequence[str], table: str) -> None:
    """Raises ConfigError where the rows lack one of these columns: they have no key or no order without it."""
    if lacking := [c for c in columns if c not in rows.columns]:
        raise ConfigError(
            f"table {table!r}: the rows have no column {lacking[0]!r}",
            hint=f"they have {', '.join(rows.columns)}",
        )


def check_keys(keys: Sequence[Key], columns: Sequence[str], table: str) -> None:
    """Refuse NULL in a key. Raises DataError."""
    if nulls := sum(None in key for key in keys):
        raise DataError(
            f"{nulls} row(s) for table {table!r} have a NULL key ({', '.join(columns)})",
            hint="say in the contract that the key columns are not nullable, and what becomes of such rows",
            details={"rows": nulls, "keys": list(columns)},
        )


def key_texts(rows: pl.DataFrame, keys: Sequence[str]) -> list[Key]:
    """The keys as the quarantine writes them: exact texts."""
    schema = Schema.of_polars(rows.select(keys).schema)
    return list(rows.select(to_text(pl.col(f.name), f.type) for f in schema).iter_rows())


def gathered(values: pl.Series, numbers: Sequence[int | None]) -> pl.Series:
    """The values at these numbers, NULL for None."""
    return values.gather(pl.Series(numbers, dtype=pl.Int64))

"""Which predicates of Polars mean the same to PostgreSQL, and how they are written there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from headrace.systems.postgres.selection import Selection

__all__ = ["Pushed", "condition"]


@dataclass(frozen=True)
class Pushed:
    """A predicate's part for the server: SQL (None: nothing of it), and whether that is the `whole` of it."""

    sql: str | None
    whole: bool


def condition(predicate: pl.Expr | None, selection: Selection) -> Pushed:
    """What the server can judge of a predicate."""
    del selection
    return Pushed(None, predicate is None)

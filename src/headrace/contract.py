"""The contract: what rows must be, and what becomes of rows that are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Column", "Contract", "Rule"]

OnViolation = Literal["fail", "quarantine", "drop", "warn"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one column must be. `type`: cast exactly, or rejected. `length` is in characters, [min, max].
    `pattern` is a regular expression (Rust syntax) that must match the whole text. `on_violation` overrides
    the contract's for this column."""

    type: str | None = None
    nullable: bool = True
    unique: bool = False
    min: Any = None
    max: Any = None
    length: tuple[int | None, int | None] | None = None
    pattern: str | None = None
    one_of: tuple[Any, ...] | None = None
    on_violation: OnViolation | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A boolean expression over the row that must not be FALSE (NULL passes, as in SQL's CHECK)."""

    check: str | pl.Expr
    on_violation: OnViolation | None = None


@dataclass(frozen=True, kw_only=True)
class Contract:
    """Columns, rules and bounds. `rules` map a name to an SQL boolean expression (in Python a Polars one too).

    `on_violation`: ``fail`` (nothing is committed), ``quarantine`` (bad rows are kept with their reasons),
    ``drop`` (counted), ``warn`` (loaded, and said). `max_rejects` and `max_reject_share` (of the rows read)
    fail a run that rejects more. `min_rows`, `max_rows` bound the rows of a commit. `unique` are sets of
    columns whose values must not repeat: ``[["a", "b"]]``.
    """

    columns: Mapping[str, Column] = field(default_factory=dict)
    rules: Mapping[str, str | Rule | pl.Expr] = field(default_factory=dict)
    unique: tuple[tuple[str, ...], ...] = ()
    on_violation: OnViolation = "fail"
    max_rejects: int | None = None
    max_reject_share: float | None = None
    min_rows: int | None = None
    max_rows: int | None = None

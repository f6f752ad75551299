"""The contract: what rows must be, and what becomes of rows that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from headrace.errors import ConfigError, did_you_mean
from headrace.frozen import frozen
from headrace.logical import check_type

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Column", "Contract", "OnViolation", "Rule", "Versions"]

OnViolation = Literal["fail", "quarantine", "drop", "warn"]


@frozen(kw_only=True)
class Column:
    """What one column must be. A NULL breaks `nullable` and nothing else.

    `type`: every value is cast exactly, or its row is rejected. `min` and `max` are inclusive; for dates, times and
    decimals they may be written as text. `length` is [min, max] (either may be null): characters of a text, bytes
    of a binary, items of a list. `pattern` is a regular expression (Rust syntax) that must match the whole text.
    `unique`: a value that stands in several rows rejects all of them. `on_violation` overrides the contract's for
    this column; a value that its type cannot hold fails the run where it says ``warn``.
    """

    type: str | None = field(default=None, metadata={"doc": "one of the [types](#types)"})
    nullable: bool = True
    unique: bool = False
    min: Any = None
    max: Any = None
    length: tuple[int | None, int | None] | None = None
    pattern: str | None = None
    one_of: tuple[Any, ...] | None = None
    on_violation: OnViolation | None = None

    def __post_init__(self) -> None:
        _check_action(self.on_violation)
        if self.type is not None:
            check_type(self.type, "type")
        if self.one_of is not None and not self.one_of:
            raise ConfigError("one_of is empty: no value could pass", hint="list the allowed values, or leave it out")
        if self.length is not None:
            low, high = self.length
            if (low or 0) < 0 or (high is not None and high < (low or 0)):
                raise ConfigError(f"length {list(self.length)} is impossible", hint="write [min, max], e.g. [1, 20]")


@frozen(kw_only=True)
class Rule:
    """A boolean expression over the row that must not be FALSE (NULL passes, as in SQL's CHECK)."""

    check: str | pl.Expr
    on_violation: OnViolation | None = None

    def __post_init__(self) -> None:
        _check_action(self.on_violation)


@frozen(kw_only=True)
class Contract:
    """Columns, rules and bounds. `rules` map a name to an SQL boolean expression (in Python a Polars one too).

    `on_violation`: ``fail`` (nothing is committed), ``quarantine`` (bad rows are kept with their reasons),
    ``drop`` (counted), ``warn`` (loaded, and said). `max_rejects` and `max_reject_share` (of the rows read)
    fail a commit that rejects more, dropped rows among them. `min_rows`, `max_rows` bound the rows of a commit.
    A run is one commit, unless ``commit_every`` cuts it: each is judged alone then, and those before one that
    fails stay.
    `unique` are sets of columns whose values together must not repeat: ``[["a", "b"]]``.
    """

    columns: Mapping[str, Column] = field(default_factory=dict)
    rules: Mapping[str, str | Rule | pl.Expr] = field(default_factory=dict)
    unique: tuple[tuple[str, ...], ...] = ()
    on_violation: OnViolation = "fail"
    max_rejects: int | None = None
    max_reject_share: float | None = None
    min_rows: int | None = None
    max_rows: int | None = None

    def __post_init__(self) -> None:
        _check_action(self.on_violation)
        if wrong := [name for name, column in self.columns.items() if not isinstance(column, Column)]:
            raise ConfigError(f"the contract's column {wrong[0]!r} is no Column", hint='hr.Column(type="int64")')
        if any(isinstance(columns, str) for columns in self.unique):
            raise ConfigError("unique takes sets of columns", hint='write "unique": [["a", "b"]]')
        if not all(self.unique):
            raise ConfigError("unique names no column", hint='write "unique": [["a", "b"]]')
        if self.max_reject_share is not None and not 0 <= self.max_reject_share <= 1:
            raise ConfigError("max_reject_share is a share of the rows", hint="write 0.05 for five percent")

    def can(self, action: OnViolation) -> bool:
        """Whether that can become of any row."""
        own = [self.on_violation, *(c.on_violation for c in self.columns.values())]
        return action in [*own, *(r.on_violation for r in self.rules.values() if isinstance(r, Rule))]

    @overload
    def split(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]: ...
    @overload
    def split(self, frame: pl.LazyFrame) -> tuple[pl.LazyFrame, pl.LazyFrame]: ...
    def split(
        self, frame: pl.DataFrame | pl.LazyFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame] | tuple[pl.LazyFrame, pl.LazyFrame]:
        """The good rows, with the contract's types, and the bad rows as they came, with their reasons.

        The bad ones have a column more: ``rules``, a list of texts like ``"id: nullable"``, ``"price: min"``, the
        name of a rule, ``"unique(a, b)"``. Rows that break only rules whose `on_violation` is ``warn`` are good;
        otherwise `on_violation` makes no difference here, and ``fail`` does not raise. Lazy frames give lazy
        frames that stream, and read `frame` each time one of them is collected.

        Raises SchemaError for a missing column, for one called ``rules`` and for a type that cannot be cast,
        ConfigError for a rule that does not fit the frame.
        """
        from headrace.contract.verdict import split

        return split(self, frame)

    def check(self, frame: pl.DataFrame | pl.LazyFrame) -> None:
        """Raises ContractError, counted by rule, unless every row keeps the contract (``warn`` rules aside)."""
        from headrace.contract.verdict import check

        check(self, frame)


@frozen(kw_only=True)
class Versions:
    """Rows of equal `keys` that differ in `by` are versions of one row, of which the write keeps the newest. The last
    version of a key is read again with the next: that alone breaks no ``unique``.
    """

    keys: Sequence[str] = ()
    by: Sequence[str] = ()

    def apart(self, columns: Sequence[str]) -> tuple[str, ...]:
        """The columns in which two rows must be equal for their values in `columns` to repeat."""
        keyed = bool(self.keys) and set(self.keys) <= set(columns)
        return tuple(dict.fromkeys([*columns, *(self.by if keyed else ())]))


def _check_action(action: str | None) -> None:
    known = get_args(OnViolation)
    if action is not None and action not in known:
        raise ConfigError(
            f"on_violation {action!r} is unknown",
            hint=did_you_mean(str(action), known, otherwise=f"use one of: {', '.join(known)}"),
        )

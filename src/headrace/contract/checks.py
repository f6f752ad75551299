"""A contract bound to a frame's columns: its casts, and its checks as Polars expressions.

A check is an expression that is TRUE where a row breaks it, FALSE or null where it does not. It reads the cast
columns by their names, the columns as they came under `RAW` + name, and what Polars does not compute (SQL rules,
repeats) under the names that it asks for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.contract import Column, Contract, Rule
from headrace.contract.sqlrules import SQLRules
from headrace.errors import ConfigError, HeadraceError, SchemaError, did_you_mean
from headrace.exact import cast
from headrace.frozen import frozen
from headrace.logical import INTEGERS, Type, parse_type
from headrace.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headrace.contract import OnViolation

__all__ = ["RAW", "Bound", "Check", "bind"]

RAW = "\0raw "
_TEXTS = ("string", "json", "categorical", "enum")
_WIDEST = 2**127  # int128 ends below it


@frozen(kw_only=True)
class Check:
    """One rule: its name in rejects, what a broken one means for the row, and where it is broken."""

    name: str
    action: OnViolation
    broken: pl.Expr


@frozen(kw_only=True)
class Bound:
    """A contract bound to columns.

    `raw` is the schema of the rows that come, `schema` that of the good ones. `casts` turns the one into the
    other. `sql` computes the columns that the checks of SQL rules read; `unique` maps the column that a check reads to
    the columns that must not repeat together.
    """

    raw: Schema
    schema: Schema
    casts: Mapping[str, pl.Expr]
    checks: tuple[Check, ...]
    sql: SQLRules
    unique: Mapping[str, tuple[str, ...]]


def bind(contract: Contract, schema: pl.Schema, *, keys: Sequence[str] = ()) -> Bound:
    """The contract over rows of `schema`; `keys` must not be NULL either.

    Raises SchemaError for a column that is not there or a type that cannot be cast, ConfigError for a bound, a
    pattern or a rule that does not fit.
    """
    raw = Schema.of_polars(schema)
    _check_present(contract, raw, keys)
    types = {n: parse_type(c.type) for n, c in contract.columns.items() if c.type is not None}
    casts = {n: _cast(n, raw[n], t) for n, t in types.items() if t != raw[n]}
    after = Schema.of({f.name: types.get(f.name, f.type) for f in raw})
    checks = [c for n, column in contract.columns.items() for c in _column(n, column, contract, after[n], n in casts)]
    checks += [
        Check(name=f"{key}: null", action=_hard(contract.on_violation), broken=_original(key, casts).is_null())
        for key in keys
        if key not in contract.columns or contract.columns[key].nullable
    ]
    unique = _unique(contract)
    checks += [Check(name=n, action=a, broken=pl.col(c)) for c, (n, a, _) in unique.items()]
    sql, of_rules = _rules(contract, after.polars())
    return Bound(
        raw=raw,
        schema=after,
        casts=casts,
        checks=(*checks, *of_rules),
        sql=sql,
        unique={c: columns for c, (_, _, columns) in unique.items()},
    )


def _check_present(contract: Contract, schema: Schema, keys: Sequence[str]) -> None:
    wanted = [*contract.columns, *(c for columns in contract.unique for c in columns), *keys]
    if missing := [n for n in dict.fromkeys(wanted) if n not in schema]:
        raise SchemaError(
            f"the contract wants column {missing[0]!r}, and the rows do not have it"
            + (f" (nor {len(missing) - 1} more)" if len(missing) > 1 else ""),
            hint=did_you_mean(missing[0], schema.names, otherwise=f"there are: {', '.join(schema.names[:30])}"),
            details={"missing": missing},
        )


def _cast(name: str, old: Type, new: Type) -> pl.Expr:
    try:
        return cast(pl.col(name), old, new)
    except SchemaError as error:
        raise SchemaError(f"column {name!r}: {error.message}", hint=error.hint) from None


def _hard(action: OnViolation) -> OnViolation:
    """What cannot be loaded at all cannot be warned of either."""
    return "fail" if action == "warn" else action


def _original(name: str, casts: Mapping[str, pl.Expr]) -> pl.Expr:
    return pl.col(RAW + name) if name in casts else pl.col(name)


def _column(name: str, column: Column, contract: Contract, type: Type, is_cast: bool) -> Iterator[Check]:
    action = column.on_violation or contract.on_violation
    value = pl.col(name)
    raw = pl.col(RAW + name) if is_cast else value
    if is_cast:
        lost = value.is_null() & raw.is_not_null()
        yield Check(name=f"{name}: not {type}", action=_hard(action), broken=lost)
    if not column.nullable:
        yield Check(name=f"{name}: nullable", action=action, broken=raw.is_null())
    if column.min is not None:
        yield Check(name=f"{name}: min", action=action, broken=value < _bound(name, "min", column.min, type))
    if column.max is not None:
        yield Check(name=f"{name}: max", action=action, broken=value > _bound(name, "max", column.max, type))
    if column.length is not None:
        yield Check(name=f"{name}: length", action=action, broken=_outside(name, type, *column.length))
    if column.pattern is not None:
        yield Check(name=f"{name}: pattern", action=action, broken=_unlike(name, type, column.pattern))
    if column.one_of is not None:
        allowed = [_value(name, "one_of", v, type) for v in column.one_of]
        items = pl.concat(allowed).implode()
        yield Check(name=f"{name}: one_of", action=action, broken=~value.is_in(pl.lit(items)))


def _bound(name: str, what: str, bound: Any, type: Type) -> pl.Expr:
    """`bound` as a literal that compares exactly with a column of `type`."""
    if type.name in INTEGERS and isinstance(bound, int | float) and not isinstance(bound, bool):
        if not math.isfinite(bound):
            raise ConfigError(f"column {name!r}: {what} is not finite", hint="leave it out")
        whole = math.ceil(bound) if what == "min" else math.floor(bound)
        if not -_WIDEST <= whole < _WIDEST:
            raise ConfigError(f"column {name!r}: {what} is beyond all whole numbers of a column", hint="leave it out")
        fits = pl.select(pl.lit(whole, dtype=pl.Int128).cast(type.polars(), strict=False)).to_series()
        if fits.null_count():  # beyond the type's range: compare in the widest one
            return pl.lit(whole, dtype=pl.Int128)
        return pl.lit(fits).first()
    if type.name in ("list", "array", "struct", "binary", "bool"):
        raise ConfigError(f"column {name!r}: {type} has no {what}", hint="write a rule instead")
    return pl.lit(_value(name, what, bound, type)).first()


def _value(name: str, what: str, value: Any, type: Type) -> pl.Series:
    """`value`, from JSON or Python, as one value of `type`. Raises ConfigError when the type cannot hold it."""
    try:
        series = pl.Series("v", [value])
        made = series.to_frame().select(cast(pl.col("v"), Type.of_polars(series.dtype), type)).to_series()
    except (HeadraceError, TypeError, pl.exceptions.PolarsError):
        made = pl.Series("v", [None], dtype=type.polars())
    if made.null_count():
        hint = "write it as ISO 8601, with an offset where the type has a zone" if type.name == "datetime" else ""
        raise ConfigError(
            f"column {name!r}: {what} {value!r} is not a {type}", hint=hint or "write a value of the type"
        )
    return made


def _outside(name: str, type: Type, low: int | None, high: int | None) -> pl.Expr:
    value = pl.col(name)
    if type.name in _TEXTS:
        size = value.cast(pl.String).str.len_chars()
    elif type.name == "binary":
        size = value.bin.size().cast(pl.UInt32)
    elif type.name == "list":
        size = value.list.len()
    else:
        raise ConfigError(f"column {name!r}: {type} has no length", hint="only text, binary and lists have one")
    broken = pl.lit(value=False)
    if low is not None:
        broken = broken | (size < low)
    return broken if high is None else broken | (size > high)


def _unlike(name: str, type: Type, pattern: str) -> pl.Expr:
    if type.name not in _TEXTS:
        raise ConfigError(f"column {name!r}: {type} has no pattern", hint='only text has one: declare "type": "string"')
    whole = rf"\A(?:{pattern})\z"
    try:
        for one in (pattern, whole):  # "a)|(b" is none, though it would be one in the brackets
            pl.select(pl.lit("").str.contains(one))
    except pl.exceptions.PolarsError as error:
        raise ConfigError(
            f"column {name!r}: pattern {pattern!r} is no regular expression",
            hint="Rust syntax: no look-around, no back-references",
        ) from error
    return ~pl.col(name).cast(pl.String).str.contains(whole)


def _unique(contract: Contract) -> dict[str, tuple[str, OnViolation, tuple[str, ...]]]:
    found: list[tuple[str, OnViolation, tuple[str, ...]]] = [
        (f"{name}: unique", column.on_violation or contract.on_violation, (name,))
        for name, column in contract.columns.items()
        if column.unique
    ]
    found += [(f"unique({', '.join(columns)})", contract.on_violation, columns) for columns in contract.unique]
    return {f"\0unique {i}": one for i, one in enumerate(found)}


def _rules(contract: Contract, schema: pl.Schema) -> tuple[SQLRules, list[Check]]:
    sql: dict[str, tuple[str, str]] = {}
    checks = []
    for name, given in contract.rules.items():
        rule = given if isinstance(given, Rule) else Rule(check=given)
        action = rule.on_violation or contract.on_violation
        if isinstance(rule.check, pl.Expr):
            _check_expression(name, rule.check, schema)
            checks.append(Check(name=name, action=action, broken=~rule.check))
        else:
            column = f"\0rule {len(sql)}"
            sql[column] = (f"rule {name!r}", rule.check)
            checks.append(Check(name=name, action=action, broken=~pl.col(column)))
    return SQLRules(sql, schema), checks


def _check_expression(name: str, check: pl.Expr, schema: pl.Schema) -> None:
    if not check.meta.is_length_preserving() or not all(_by_row(check)):
        raise ConfigError(f"rule {name!r} looks at several rows", hint="a rule sees one row; aggregate in a transform")
    try:
        (dtype,) = pl.DataFrame(schema=schema).select(check).schema.values()
    except pl.exceptions.ColumnNotFoundError as error:
        missing = next((c for c in check.meta.root_names() if c not in schema), "?")
        raise _no_column(name, missing, schema) from error
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise ConfigError(f"rule {name!r} does not fit the rows", hint="try it with frame.select(…)") from error
    if dtype != pl.Boolean():
        raise ConfigError(f"rule {name!r} is not true or false but {dtype}", hint="write a comparison")


def _by_row(expr: pl.Expr) -> Iterator[bool]:
    """For each node of the expression, whether it looks at one row at a time. A Python function is believed."""
    try:
        yield expr.meta.is_row_separable()
    except pl.exceptions.PolarsError:  # a node whose type depends on its input: a Python function, list.eval
        return
    for node in expr.meta.pop():
        yield from _by_row(node)


def _no_column(rule: str, column: str, schema: pl.Schema) -> ConfigError:
    return ConfigError(
        f"rule {rule!r} reads column {column!r}, and the rows do not have it",
        hint=did_you_mean(column, schema, otherwise=f"there are: {', '.join(list(schema)[:30])}"),
    )

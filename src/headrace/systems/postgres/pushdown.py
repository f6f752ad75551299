"""Which predicates of Polars mean the same to PostgreSQL, and how they are written there.

Pushed is what both judge alike for every value: comparisons of integers, decimals, dates and times with literals of
their type, equality of texts whose collation compares bytes, truth values, NULL, and AND, OR and NOT of all these.
Not pushed: the order of texts (collations), floats (literals of another width), all functions. Of a conjunction each
part is judged by itself; what is left is Polars' to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.frozen import frozen
from headrace.sqltext import quoted
from headrace.systems.postgres.names import literal

if TYPE_CHECKING:
    from headrace.systems.postgres.catalog import Column

__all__ = ["Pushed", "condition"]

_OPERATORS = {"Eq": "=", "NotEq": "<>", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">="}
_BETWEEN = {"Both": (">=", "<="), "Left": (">=", "<"), "Right": (">", "<="), "None": (">", "<")}
_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
_EPOCH = date(1970, 1, 1)
_EXACT_TEXTS = ("text", "varchar")


@frozen
class Pushed:
    """A predicate's part for the server: SQL (None: nothing of it), and whether that is the `whole` of it."""

    sql: str | None
    whole: bool


class _OtherwiseError(Exception):
    """Something that PostgreSQL may judge otherwise."""


def condition(predicate: pl.Expr | None, columns: Mapping[str, Column], names: Mapping[str, str]) -> Pushed:
    """What the server can judge of a predicate on these columns; `names` says what the server calls each."""
    if predicate is None:
        return Pushed(None, whole=True)
    try:
        tree = json.loads(predicate.meta.serialize(format="json"))
    except (pl.exceptions.PolarsError, ValueError):  # a function of Python's
        return Pushed(None, whole=False)
    parts = list(_conjuncts(tree))
    judge, found = _Judge(columns, names), []
    for part in parts:
        try:
            found.append(judge.truth(part))
        except (_OtherwiseError, KeyError, TypeError, ValueError, OverflowError):
            continue
    return Pushed(" AND ".join(found) or None, whole=len(found) == len(parts))


def _conjuncts(tree: Any) -> Any:
    """The parts of a conjunction."""
    both = tree.get("BinaryExpr") if isinstance(tree, dict) else None
    if both is not None and both["op"] == "And":
        yield from _conjuncts(both["left"])
        yield from _conjuncts(both["right"])
    else:
        yield tree


@frozen
class _Judge:
    """Expressions as SQL. Every method raises `_OtherwiseError`, or a KeyError for what it does not know."""

    columns: Mapping[str, Column]
    names: Mapping[str, str]

    def truth(self, tree: Mapping[str, Any]) -> str:
        """An expression that is true, false or NULL."""
        ((kind, body),) = tree.items()
        if kind == "Column":
            if self.columns[body].type.held.name != "bool":
                raise _OtherwiseError
            return quoted(self.names[body])
        if kind == "BinaryExpr":
            if body["op"] in ("And", "Or"):
                return f"({self.truth(body['left'])} {body['op'].upper()} {self.truth(body['right'])})"
            return self.compared(body["left"], _OPERATORS[body["op"]], body["right"])
        if kind == "Function":
            return self.function(body["function"]["Boolean"], body["input"])
        raise _OtherwiseError

    def function(self, name: Any, inputs: list[Any]) -> str:
        """A function of truth values, or of NULL."""
        if name == "Not":
            return f"(NOT {self.truth(inputs[0])})"
        if name in ("IsNull", "IsNotNull"):
            return f"({self.column(inputs[0])[1]} {'IS NULL' if name == 'IsNull' else 'IS NOT NULL'})"
        if "IsBetween" in name:
            low, high = _BETWEEN[name["IsBetween"]["closed"]]
            parts = [self.compared(inputs[0], how, end) for how, end in zip((low, high), inputs[1:], strict=True)]
            return f"({' AND '.join(parts)})"
        raise _OtherwiseError

    def column(self, tree: Mapping[str, Any]) -> tuple[Column, str]:
        """A column, and its SQL."""
        name = tree["Column"]
        return self.columns[name], quoted(self.names[name])

    def compared(self, left: Mapping[str, Any], how: str, right: Mapping[str, Any]) -> str:
        """A column against a literal."""
        if "Column" in right:
            turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
            left, how, right = right, turned.get(how, how), left
        column, sql = self.column(left)
        return f"{sql} {how} {_value(column, right['Literal'], how)}"


def _value(column: Column, told: Mapping[str, Any], how: str) -> str:
    """A literal as a value of the column's type."""
    if "Scalar" not in told:
        raise _OtherwiseError
    ((kind, value),) = told["Scalar"].items()
    held = column.type.held
    match held.name, kind:
        case (("int16" | "int32" | "int64"), _) if kind in _INTEGERS:
            return str(int(value))
        case "decimal", "Decimal":
            unscaled, _, scale = value
            return f"CAST({literal(format(Decimal(unscaled).scaleb(-scale), 'f'))} AS numeric)"
        case "date", "Date":
            return f"CAST({literal((_EPOCH + timedelta(days=value)).isoformat())} AS date)"
        case "datetime", "Datetime":
            return _moment(held.args[1], *value)
        case "bool", "Boolean":
            return "true" if value else "false"
        case "string", "String" if how in ("=", "<>") and column.type.base in _EXACT_TEXTS and column.bytewise:
            return literal(value)
    raise _OtherwiseError


def _moment(zone: str | None, ticks: int, unit: str, told: Any) -> str:
    if unit != "Microseconds" or (told or {}).get("inner") != zone:
        raise _OtherwiseError
    text = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks)).replace(tzinfo=None).isoformat(" ")
    return f"CAST({literal(text)} AS timestamp)" if zone is None else f"CAST({literal(text + '+00')} AS timestamptz)"

"""Which columns of a Python step are a frame's own, passed on or renamed, by Polars' own plan of it.

A whitelist: a node that is not known to leave its columns as they are keeps no origin, nor does a column whose name an
expression may have. Values may be fewer, in another order, or null (an outer join's); none is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from headrace.transform.lineage import Origin, shared
from headrace.transform.plan import Node, restored, words

__all__ = ["passed"]

_Origins = dict[str, Origin]
_SIDES = ("input_left", "input_right")
_LEFT = ("Left", "Inner", "Semi", "Anti", "Cross")
"""Joins whose columns of a name that both sides have are the left side's."""


def passed(plan: Node, scanned: Callable[[Node], _Origins]) -> _Origins:
    """The origins of the plan's columns; `scanned` tells those of a scan.

    While the plan is walked, a name stands for "a column of this name, if there is one": what is there, a caller knows.
    Raises whatever a plan of another shape makes it raise.
    """
    ((name, body),) = plan.items()
    match name:
        case "IR":
            return passed(body["dsl"], scanned)
        case "Scan":
            return scanned(body)
        case "Join":
            return _joined(body, *(passed(body[side], scanned) for side in _SIDES))
        case "Union":
            return shared([passed(part, scanned) for part in body["inputs"]])
        case "DataFrameScan":
            return {}
    return _applied(name, body, passed(body["input"], scanned))


def _applied(name: str, body: Node, rows: _Origins) -> _Origins:
    """What a node leaves of its one input."""
    match name:
        case "Filter" | "Sort" | "Slice" | "Distinct" | "Cache":
            return rows
        case "Select":
            return _written({}, rows, body["expr"])
        case "HStack":
            return _written(rows, rows, body["exprs"])
        case "GroupBy" if body["apply"] is None:
            return _written(_written({}, rows, body["keys"]), {}, body["aggs"])
        case "MapFunction":
            return _mapped(rows, body["function"])
    return {}


def _joined(body: Node, left: _Origins, right: _Origins) -> _Origins:
    """A column that both sides have is the left one's, or (of a join that may merge them) either's."""
    mine, other = (set(restored(pl.LazyFrame, body[s]).collect_schema()) for s in _SIDES)
    how = body["options"]["args"]["how"]
    return {
        **{c: o for c, o in right.items() if c in other - mine},
        **{c: o for c, o in left.items() if c in mine and (c not in other or how in _LEFT or right.get(c) == o)},
    }


def _mapped(rows: _Origins, function: Any) -> _Origins:
    match function:
        case {"Rename": {"existing": existing, "new": new}}:
            now = dict(zip(existing, new, strict=True))
            kept = {c: o for c, o in rows.items() if c not in now and c not in new}
            return kept | {new: rows[old] for old, new in now.items() if old in rows}
        case {"Hint": _}:
            return rows
    return {}


def _written(before: _Origins, below: _Origins, expressions: Sequence[Any]) -> _Origins:
    """`before`, with what expressions over `below` are called: a column alone keeps its origin, all else has none."""
    rows = dict(before)
    if any("Selector" in e for e in expressions):
        rows = {**below, **rows}
    for expression in expressions:
        ((kind, body),) = expression.items()
        if kind == "Selector":
            continue
        origin = below.get(str(_column(expression)))
        name = body[1] if kind == "Alias" else _name(expression)
        if name is None:
            return {}
        rows.pop(name, None)
        if origin is not None:
            rows[name] = origin
    return rows


def _column(expression: Node) -> str | None:
    """The column that the expression is, whatever it is called."""
    match expression:
        case {"Column": str(name)}:
            return name
        case {"Alias": [inner, _]}:
            return _column(inner)
    return None


def _name(expression: Node) -> str | None:
    """What the expression's result is called, by Polars' own word; None where that hangs on other things."""
    if {"Selector", "KeepName"} & set(words(expression)):
        return None
    name: str | None = restored(pl.Expr, expression).meta.output_name(raise_if_undetermined=False)
    return name

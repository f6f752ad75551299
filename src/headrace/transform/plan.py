"""Polars' own plan of a Python step, as JSON, and how it is read.

The function is called once more, on stand-ins that have the frames' columns and no rows: scans of files that are not
there, so that the plan says which frame stands where, and a function that reads rows while it is bound is found out.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

__all__ = ["Node", "name_of", "named", "plan_of", "restored", "stand_in", "unseeded", "words"]

Node = Mapping[str, Any]
_STAND_IN = "headrace-stand-in/"


def plan_of(call: Callable[[list[pl.LazyFrame]], pl.LazyFrame], schemas: Sequence[pl.Schema]) -> Node | None:
    """The unoptimised plan of `call` over frames of these schemas; None where there is none."""
    stand_ins = [pl.scan_parquet(f"{_STAND_IN}{i}", schema=schema) for i, schema in enumerate(schemas)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Polars' JSON, which it may change: then nothing is proven, and said so
            return json.loads(call(stand_ins).serialize(format="json"))  # type: ignore[no-any-return]
    except Exception:  # noqa: BLE001  # whatever the user's function does to a stand-in, it is not proven
        return None


def stand_in(scan: Node) -> int | None:
    """Which frame a scan stands for; None: one that the function brings with it."""
    paths = (scan.get("sources") or {}).get("Paths") or [{}]
    place = str(paths[0].get("inner", paths[0]) if isinstance(paths[0], dict) else paths[0])
    return int(place.removeprefix(_STAND_IN)) if place.startswith(_STAND_IN) else None


def words(expression: Any) -> Iterator[str]:
    """Every word of a part of a plan that is no literal."""
    if isinstance(expression, list):
        for item in expression:
            yield from words(item)
    elif isinstance(expression, dict):
        for key, value in expression.items():
            yield key
            yield from words(value)


def named(part: Any) -> Iterator[str]:
    """Every word of a part of a plan but literals and the names of columns: functions without arguments as well."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, list):
        for item in part:
            yield from named(item)
    elif isinstance(part, dict):
        for key, value in part.items():
            yield key
            if key not in ("Column", "Selector"):
                yield from words(value) if key == "Literal" else named(value)


def unseeded(part: Any) -> Iterator[str]:
    """The random functions in a part of a plan that have no seed."""
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from unseeded(value)
    match part:
        case {"function": {"Random": {"method": method, "seed": None}}}:
            yield name_of(method)
        case {"function": {"ListExpr": {"Sample": {"seed": None}}}}:
            yield "Sample"


def name_of(variant: Any) -> str:
    """What Polars calls one of several: alone, or the key of what belongs to it."""
    return str(variant if isinstance(variant, str) else next(iter(variant)))


def restored(kind: type[pl.LazyFrame | pl.Expr], part: Node) -> Any:
    """A part of a plan as what it was made of. Raises what Polars raises where it does not read its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind.deserialize(io.StringIO(json.dumps(part)), format="json")

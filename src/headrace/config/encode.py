"""From a pipeline back to JSON: what it says, without what it leaves to the defaults, without secrets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.config.shapes import DESTINATIONS, SOURCES, keys_of, tag_of
from headrace.secret import Secret

__all__ = ["encode"]


def encode(pipeline: Any) -> dict[str, Any]:
    """The JSON of a pipeline (or of any part of one). Decoding it gives an equal pipeline.

    Keys that hold their default are left out; a secret is its reference (``{"env": "NAME"}``). A function is
    ``file.py:name`` from the pipeline's folder; a Polars expression, which JSON cannot hold, is its text.
    """
    base = getattr(pipeline, "base", None) or Path.cwd()
    encoded: dict[str, Any] = _encode(pipeline, base)
    return encoded


def _encode(value: Any, base: Path) -> Any:
    match value:
        case Secret():
            return dict(value.reference)
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(key): _encode(item, base) for key, item in value.items()}
        case tuple() | list():
            return [_encode(item, base) for item in value]
        case Path():
            return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _object(value, base)
    if callable(value) and hasattr(value, "__code__"):
        return _function(value, base)
    return str(value)


def _object(value: Any, base: Path) -> dict[str, Any]:
    made: dict[str, Any] = {}
    kind: Any = type(value)
    tag = tag_of(kind) or next(
        (tag for tags in (SOURCES, DESTINATIONS) for tag, place in tags.items() if place == _place(kind)), None
    )
    if tag:
        made["type"] = tag
    for key in keys_of(kind).values():
        item = getattr(value, key.name)
        if key.required or item != key.default:
            made[key.key] = _step(item, base) if key.name == "transforms" else _encode(item, base)
    return made


def _step(steps: Any, base: Path) -> list[Any]:
    """Transforms: a bare function is the step that calls it."""
    return [{"python": _function(step, base)} if callable(step) else _encode(step, base) for step in steps]


def _place(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _function(function: Any, base: Path) -> str:
    file = Path(function.__code__.co_filename)
    try:
        return f"{file.absolute().relative_to(base.absolute())}:{function.__qualname__}"
    except ValueError:
        return f"{function.__module__}:{function.__qualname__}"

"""The config's JSON Schema (draft 2020-12), from the same dataclasses that it is decoded into."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from headrace.config.shapes import DESTINATIONS, SOURCES, Key, Opaque, Role, keys_of, members, role_of, tag_of
from headrace.pipeline import Pipeline

__all__ = ["description", "schema"]

_REFERENCE = {"$ref": "#/$defs/reference"}
_PLAIN: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    Path: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}


def schema() -> dict[str, Any]:
    """The schema of a pipeline's file and of headrace.json."""
    made = _Definitions()
    pipeline = made.of(Pipeline, "Pipeline")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "headrace",
        "if": {
            "not": {"required": ["name"]},
            "anyOf": [{"required": [key]} for key in ("connections", "defaults", "profiles")],
        },
        "then": {"$ref": "#/$defs/Settings"},
        "else": pipeline,
        "$defs": {"reference": _reference(), "Settings": _settings(made), **made.found},
    }


def description(cls: Any, key: str | None = None) -> str:
    """What a dataclass's docstring says of it; with `key`, the sentences that say something of that key."""
    text = " ".join(inspect.cleandoc(cls.__doc__ or "").replace("``", "`").split())
    sentences = re.split(r"(?<=[.!?)])\s+(?=[A-Z`\"])", text)
    if key is None:
        return sentences[0]
    return " ".join(sentence for sentence in sentences[1:] if f"`{key}`" in sentence)


class _Definitions:
    """Definitions by name, made once each."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def of(self, cls: Any, name: str, tag: str | None = None) -> dict[str, Any]:
        """A reference to a dataclass's definition; `tag` is its ``type``."""
        if name not in self.found:
            self.found[name] = {}  # it may lead back to itself
            self.found[name] = self._object(cls, tag)
        return {"$ref": f"#/$defs/{name}"}

    def _object(self, cls: Any, tag: str | None) -> dict[str, Any]:
        keys = keys_of(cls)
        properties = {"type": {"const": tag}} if tag else {}
        properties |= {key.key: self._key(cls, key) for key in keys.values()}
        if cls is Pipeline:
            properties["$schema"] = {"type": "string"}
        required = [key.key for key in keys.values() if key.required]
        return {
            "type": "object",
            "description": description(cls),
            "properties": properties,
            "required": (["type"] if tag else []) + required,
            "additionalProperties": False,
        }

    def _key(self, cls: Any, key: Key) -> dict[str, Any]:
        made = self.value(key.type)
        if text := key.doc or description(cls, key.key):
            made = {**made, "description": text}
        if not key.required and isinstance(key.default, str | int | float | bool):
            made = {**made, "default": key.default}
        return made

    def value(self, annotation: Any) -> dict[str, Any]:
        """The schema of a value of this type."""
        options = [option for option in members(annotation) if option is not Opaque]
        if Any in options:
            return {}
        made = [one for option in options for one in self._option(option)]
        if not any((typing.get_origin(option) or option) in (dict, Mapping) for option in options):
            made.append(_REFERENCE)
        return made[0] if len(made) == 1 else {"anyOf": made}

    def _option(self, option: Any) -> Iterable[dict[str, Any]]:
        origin, args = typing.get_origin(option) or option, typing.get_args(option)
        if option in _PLAIN:
            yield dict(_PLAIN[option])
        elif origin is Literal:
            yield {"enum": list(args)}
        elif role := role_of(option):
            yield from self._role(role)
        elif dataclasses.is_dataclass(option):
            yield self.of(option, option.__name__, tag := tag_of(option))  # type: ignore[union-attr]  # a class
            if tag and not any(key.required for key in keys_of(option).values()):  # type: ignore[arg-type]
                yield {"const": tag, "description": description(option)}
        elif origin in (dict, Mapping):
            yield {"type": "object", "additionalProperties": self.value((args or (str, Any))[1])}
        elif origin is tuple and args and args[-1] is not ...:
            items = [self.value(arg) for arg in args]
            yield {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        elif origin in (tuple, list, Sequence):
            yield {"type": "array", "items": self.value(args[0])} if args else {"type": "array"}

    def _role(self, role: Role) -> Iterable[dict[str, Any]]:
        """Each system by its tag; or a connection's name, and any key of theirs."""
        every: dict[str, Any] = {}
        for tag in role.tags:
            cls = role.load(tag)
            yield self.of(cls, cls.__name__, tag)
            every |= self.found[cls.__name__].get("properties", {})
        names = {key: True for key in every if key != "type"}
        yield {
            "type": "object",
            "description": "A connection of headrace.json, and the keys that it leaves open.",
            "properties": {"connection": {"type": "string"}, "type": {"enum": list(role.tags)}, **names},
            "required": ["connection"],
            "additionalProperties": False,
        }


def _reference() -> dict[str, Any]:
    env = {"type": "object", "properties": {"env": {"type": "string"}, "default": {}}, "required": ["env"]}
    file = {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"]}
    return {
        "description": "A value that stands in an environment variable, or in a file (from the pipeline's folder).",
        "anyOf": [{**env, "additionalProperties": False}, {**file, "additionalProperties": False}],
    }


def _settings(made: _Definitions) -> dict[str, Any]:
    properties = made.found["Pipeline"]["properties"]
    tags = sorted({*SOURCES, *DESTINATIONS})
    connection = {"type": "object", "properties": {"type": {"enum": tags}}, "required": ["type"]}
    return {
        "type": "object",
        "description": "headrace.json: what the pipelines beside it share.",
        "properties": {
            "$schema": {"type": "string"},
            "connections": {
                "type": "object",
                "description": "Keys that a source or a destination takes over by the connection's name.",
                "additionalProperties": connection,
            },
            "defaults": {
                "type": "object",
                "description": "Keys that every pipeline has where it does not say otherwise.",
                "propertyNames": {"enum": list(properties)},
            },
            "profiles": {
                "type": "object",
                "description": "By name: dotted paths of keys, of connections or of every pipeline, to values.",
                "additionalProperties": {"type": "object"},
            },
        },
        "additionalProperties": False,
    }

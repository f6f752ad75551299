"""The config's shapes, read off the frozen dataclasses: one vocabulary for JSON and for Python.

A JSON key IS a field (or the field's ``metadata["key"]``, where Python has the word reserved). Names that a
module imports only for type checking (Polars' types) are opaque here: nothing heavy is imported to decode.
"""

from __future__ import annotations

import builtins
import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from headrace.errors import meant
from headrace.frozen import frozen

__all__ = ["DESTINATIONS", "SOURCES", "Key", "Opaque", "Role", "keys_of", "members", "near", "role_of", "tag_of"]

SOURCES = {
    "files": "headrace.systems.files:FileSource",
    "duckdb": "headrace.systems.duckdb:DuckDBSource",
    "postgres": "headrace.systems.postgres:PostgresSource",
    "sqlite": "headrace.systems.sqlite:SQLiteSource",
    "table": "headrace.systems.table:TableSource",
}
_VOCABULARY = ("headrace.contract", "headrace.cursor", "headrace.schema", "headrace.writes")
DESTINATIONS = {
    "duckdb": "headrace.systems.duckdb:DuckDBDestination",
    "parquet": "headrace.systems.parquet:ParquetDestination",
    "file": "headrace.systems.outfile:FileDestination",
    "postgres": "headrace.systems.postgres:PostgresDestination",
}


class _Opaque(type):
    def __getattr__(cls, name: str) -> type[Opaque]:
        if name.startswith("__"):
            raise AttributeError(name)
        return Opaque

    def __getitem__(cls, item: object) -> type[Opaque]:
        return Opaque


class Opaque(metaclass=_Opaque):
    """A type that JSON cannot give: a Polars expression, a frame, a function."""


@frozen
class Role:
    """A system in a pipeline: which tags it may have, and the class behind each."""

    name: str
    tags: Mapping[str, str]

    def load(self, tag: str) -> type:
        """The dataclass of a tag. Imports its module, and no other system's."""
        module, _, name = self.tags[tag].partition(":")
        found: type = getattr(import_module(module), name)
        return found


class SourceRole:
    """Stands for the protocol `Source` in annotations."""

    role = Role("source", SOURCES)


class DestinationRole:
    """Stands for the protocol `Destination` in annotations."""

    role = Role("destination", DESTINATIONS)


@frozen
class Key:
    """One JSON key of a dataclass: the keyword that it gives, and its type."""

    key: str
    name: str
    type: Any
    required: bool
    default: Any
    doc: str


class _Names(dict[str, Any]):
    """What an annotation may say. Unknown names are opaque."""

    def __init__(self, module: str) -> None:
        super().__init__(vars(typing))
        self.update(vars(sys.modules[module]))
        self.update(Source=SourceRole, Destination=DestinationRole, pl=Opaque, Path=Path)
        self.update(Callable=Callable, Mapping=Mapping, Sequence=Sequence)
        for place in _VOCABULARY:  # a module may name these for type checking only
            words = import_module(place)
            self.update({word: getattr(words, word) for word in words.__all__})

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Opaque)


@cache
def keys_of(cls: type) -> dict[str, Key]:
    """The JSON keys of a dataclass, in its order. Fields that JSON cannot give are left out."""
    owners = {name: owner for owner in reversed(cls.__mro__) for name in vars(owner).get("__annotations__", {})}
    found = {}
    for field in dataclasses.fields(cls):
        hidden = field.name == "base" or field.name.startswith("_") or field.metadata.get("json") is False
        if not field.init or hidden:
            continue
        annotation = _evaluate(field.type, owners[field.name].__module__)
        if all(member is Opaque or member is type(None) for member in members(annotation)):
            continue
        missing = dataclasses.MISSING
        required = field.default is missing and field.default_factory is missing
        default = field.default_factory() if field.default_factory is not missing else field.default
        key = field.metadata.get("key", field.name)
        doc = field.metadata.get("doc", "")
        found[key] = Key(key, field.name, annotation, required, None if required else default, doc)
    return found


def _evaluate(annotation: Any, module: str) -> Any:
    if not isinstance(annotation, str):
        return annotation
    return eval(annotation, {"__builtins__": {}}, _Names(module))  # noqa: S307 - the text of our own source


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, nested ones flattened; of anything else itself. Functions are opaque."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(inner for arg in typing.get_args(annotation) for inner in members(arg))
    if origin is Callable or annotation is Callable:
        return (Opaque,)
    return (type(None) if annotation is None else annotation,)


def role_of(annotation: Any) -> Role | None:
    """The role that an annotation stands for."""
    role = getattr(annotation, "role", None) if isinstance(annotation, type) else None
    return role if isinstance(role, Role) else None


def tag_of(cls: Any) -> str | None:
    """The ``type`` that tells a dataclass from its siblings in JSON; None where there is none."""
    tag = getattr(cls, "type", None) if isinstance(cls, type) and dataclasses.is_dataclass(cls) else None
    return tag if isinstance(tag, str) and "type" not in {field.name for field in dataclasses.fields(cls)} else None


def near(word: str, known: Iterable[str]) -> str:
    """``did you mean …?`` for a word that is not known; else which ones are."""
    options = list(known)
    flat = {option.replace("_", "").lower(): option for option in options}
    simple = word.replace("_", "").replace("-", "").lower()
    if found := flat.get(simple) or meant(word, options):
        return f'did you mean "{found}"?'
    return "known are " + ", ".join(sorted(options)) if options else ""

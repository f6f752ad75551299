"""From JSON to the frozen dataclasses. Every mistake of a file is found, not only the first."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from headrace.config import references
from headrace.config.jsonc import Node, Place
from headrace.config.shapes import Opaque, Role, keys_of, members, near, role_of, tag_of
from headrace.errors import ConfigError
from headrace.frozen import frozen
from headrace.secret import Secret

__all__ = ["FAILED", "Decoder", "Problem"]

FAILED: Any = object()
"""What stands for a value that could not be decoded; its problem is noted."""

_LISTS = (tuple, list, Sequence)
_MAPPINGS = (dict, Mapping)


@frozen
class Problem:
    """One mistake: the path of keys to it, what is wrong, what to do, and where it stands."""

    path: str
    message: str
    hint: str
    place: Place

    def to_dict(self) -> dict[str, Any]:
        """The problem as JSON."""
        where = {"file": self.place.file, "line": self.place.line, "column": self.place.column}
        return {"path": self.path, "message": self.message, "hint": self.hint, **where}


class Decoder:
    """Decodes nodes; `problems` fill up meanwhile.

    `base` is the folder that relative paths start from; `connections` are the nodes that a source or a
    destination may name.
    """

    def __init__(self, base: Path, connections: Mapping[str, Node] | None = None) -> None:
        self.base = base
        self.connections = connections or {}
        self.problems: list[Problem] = []

    def note(self, path: str, message: str, hint: str, place: Place) -> Any:
        """Keep a problem; gives FAILED."""
        self.problems.append(Problem(path, message, hint, place))
        return FAILED

    def finish(self) -> None:
        """Raises ConfigError with every problem noted so far."""
        if not self.problems:
            return
        problems = sorted(self.problems, key=lambda p: (p.place.file, p.place.line, p.place.column))
        details = {"errors": [problem.to_dict() for problem in problems]}
        first = problems[0]
        said = [f"{p.place}: {p.path}: {p.message}" if p.path else f"{p.place}: {p.message}" for p in problems]
        if len(problems) == 1:
            raise ConfigError(said[0], hint=first.hint, details=details)
        lines = [f"  {text}" + (f" ({p.hint})" if p.hint else "") for text, p in zip(said, problems, strict=True)]
        raise ConfigError(f"{len(problems)} mistakes\n" + "\n".join(lines), details=details)

    def value(self, node: Node, annotation: Any, path: str) -> Any:
        """The value that `annotation` asks for, or FAILED."""
        options = tuple(option for option in members(annotation) if option is not Opaque)
        if references.is_reference(node, options):
            node = references.resolve(node, options, path, self)
            if node is FAILED:
                return FAILED
        match node.value:
            case None if type(None) in options or Any in options:
                return None
            case dict():
                return self._object(node, options, path)
            case list():
                return self._list(node, options, path)
            case str():
                return self._text(node, options, path)
            case _:
                return self._number(node, options, path)

    def _wrong(self, node: Node, options: tuple[Any, ...], path: str) -> Any:
        """Note that the value has the wrong type."""
        return self.note(path, f"expected {expected(options)}, found {node.kind}", "", node.place)

    def _number(self, node: Node, options: tuple[Any, ...], path: str) -> Any:
        value = node.value
        for option in options:
            if typing.get_origin(option) is Literal:
                if any(value == one and type(value) is type(one) for one in typing.get_args(option)):
                    return value
            elif option is Any or option is type(value):
                return value
        if float in options and type(value) is int:
            return float(value)
        return self._wrong(node, options, path)

    def _text(self, node: Node, options: tuple[Any, ...], path: str) -> Any:
        value: str = node.value
        if str in options or Any in options:
            return value
        if Path in options:
            return Path(value)
        words = [one for option in options if typing.get_origin(option) is Literal for one in typing.get_args(option)]
        if value in words:
            return value
        tagged = {tag_of(option): option for option in options if tag_of(option)}
        if value in tagged:  # the shorthand: "append" for {"type": "append"}
            return self.fields(Node({}, node.place), tagged[value], path)
        words = [word for word in [*words, *tagged] if isinstance(word, str)]
        if words:
            return self.note(path, f"unknown {shown(value)}", near(value, words), node.place)
        return self._wrong(node, options, path)

    def _list(self, node: Node, options: tuple[Any, ...], path: str) -> Any:
        if Any in options:
            return plain_value(self, node, path)
        found = [option for option in options if (typing.get_origin(option) or option) in _LISTS]
        if not found:
            return self._wrong(node, options, path)
        for option in found[:-1]:
            trial = Decoder(self.base, self.connections)
            result = trial._items(node, option, path)
            if not trial.problems:
                return result
        return self._items(node, found[-1], path)

    def _items(self, node: Node, option: Any, path: str) -> Any:
        args = typing.get_args(option) or (Any, ...)
        fixed = typing.get_origin(option) is tuple and args[-1] is not ...
        if fixed and len(node.value) != len(args):
            return self.note(path, f"expected {len(args)} values, found {len(node.value)}", "", node.place)
        kinds = args if fixed else [args[0]] * len(node.value)
        made = [
            self.value(item, kind, f"{path}[{at}]")
            for at, (item, kind) in enumerate(zip(node.value, kinds, strict=True))
        ]
        if any(item is FAILED for item in made):
            return FAILED
        return made if (typing.get_origin(option) or option) is list else tuple(made)

    def _object(self, node: Node, options: tuple[Any, ...], path: str) -> Any:
        if role := next((found for option in options if (found := role_of(option))), None):
            return self._system(node, role, path)
        classes = [option for option in options if dataclasses.is_dataclass(option)]
        if tagged := {str(tag_of(cls)): cls for cls in classes if tag_of(cls)}:
            return self._tagged(node, tagged.keys(), tagged.__getitem__, path)
        if classes:
            return self._untagged(node, classes, path)
        for option in options:
            if (typing.get_origin(option) or option) in _MAPPINGS:
                kind = (typing.get_args(option) or (str, Any))[1]
                made = {key: self.value(item, kind, join(path, key)) for key, item in node.value.items()}
                return FAILED if any(item is FAILED for item in made.values()) else made
        return plain_value(self, node, path) if Any in options else self._wrong(node, options, path)

    def _system(self, node: Node, role: Role, path: str) -> Any:
        """A source or a destination, its connection's keys under its own."""
        if "connection" in node.value:
            named = node.value["connection"]
            connection = self.connections.get(named.value) if isinstance(named.value, str) else None
            if connection is None:
                known = near(str(named.value), self.connections)
                hint = known or 'headrace.json beside the pipeline holds "connections"'
                message = f"there is no connection {shown(named.value)}"
                return self.note(join(path, "connection"), message, hint, named.place)
            own = {key: item for key, item in node.value.items() if key != "connection"}
            node = Node({**connection.value, **own}, node.place, {**connection.keys, **node.keys})
        return self._tagged(node, role.tags.keys(), role.load, path)

    def _tagged(self, node: Node, tags: Any, load: Callable[[str], Any], path: str) -> Any:
        tag = node.value.get("type")
        if tag is None:
            hint = f"one of {', '.join(json.dumps(one) for one in tags)}"
            return self.note(path, 'the key "type" is missing', hint, node.place)
        if not isinstance(tag.value, str) or tag.value not in tags:
            hint = near(str(tag.value), tags)
            return self.note(join(path, "type"), f"unknown {shown(tag.value)}", hint, tag.place)
        rest = {key: item for key, item in node.value.items() if key != "type"}
        whole = f"--set '{path}={{\"type\": {json.dumps(tag.value)}}}' replaces all of it"
        alone = whole if tag.place.file.startswith("--set ") else ""
        return self.fields(Node(rest, node.place, node.keys), load(tag.value), path, alone)

    def _untagged(self, node: Node, classes: Sequence[Any], path: str) -> Any:
        """The class whose keys fit best."""
        given = set(node.value)
        fits = sorted(classes, key=lambda cls: -len(given & set(keys_of(cls))))
        if len(fits) > 1 and len(given & set(keys_of(fits[0]))) == len(given & set(keys_of(fits[1]))):
            known = {key for cls in classes for key in keys_of(cls)}
            for key in given - known:
                self.note(join(path, key), "unknown key", near(key, known), node.keys.get(key, node.place))
            if given <= known:
                self.note(
                    path, "cannot tell what this is", f"give one of {', '.join(sorted(known - given))}", node.place
                )
            return FAILED
        return self.fields(node, fits[0], path)

    def fields(self, node: Node, cls: Any, path: str, hint: str = "") -> Any:
        """The dataclass, made from an object's keys. `hint` is what to do about unknown ones, where that is known."""
        known = keys_of(cls)
        made: dict[str, Any] = {}
        for key, item in node.value.items():
            if key in known:
                made[known[key].name] = self.value(item, known[key].type, join(path, key))
            else:
                self.note(join(path, key), "unknown key", hint or near(key, known), node.keys.get(key, node.place))
                made[key] = FAILED
        for key in known.values():
            if key.required and key.name not in made:
                what = f"{path} has no {json.dumps(key.key)}" if path else f"there is no {json.dumps(key.key)}"
                made[key.name] = self.note(path, what, f"it is {expected(members(key.type))}", node.place)
        if any(item is FAILED for item in made.values()):
            return FAILED
        if any(field.name == "base" and field.init for field in dataclasses.fields(cls)):
            made["base"] = self.base
        try:
            return cls(**made)
        except ConfigError as error:
            for key in error.details.get("keys", ()):  # where in the part
                path, node = join(path, key), node.value[key]
            return self.note(path, error.message, error.hint, node.place)


def plain_value(decoder: Decoder, node: Node, path: str) -> Any:
    """A value of any shape, references inside it resolved."""
    made: list[Any] | dict[str, Any]
    if isinstance(node.value, dict):
        made = {key: decoder.value(item, Any, join(path, key)) for key, item in node.value.items()}
        return FAILED if any(item is FAILED for item in made.values()) else made
    made = [decoder.value(item, Any, f"{path}[{at}]") for at, item in enumerate(node.value)]
    return FAILED if any(item is FAILED for item in made) else made


def join(path: str, key: str) -> str:
    """The path of a key under a path; a key that is no word is quoted."""
    word = key if key.isidentifier() else json.dumps(key, ensure_ascii=False)
    return f"{path}.{word}" if path else word


def shown(value: Any) -> str:
    """A value in a message; what is secret is not shown."""
    return value.name if isinstance(value, Secret) else json.dumps(value, ensure_ascii=False, default=lambda _: "…")


def expected(options: tuple[Any, ...]) -> str:
    """What is expected, in words."""
    words: list[str] = []
    for option in options:
        words += [word for word in _describe(option) if word not in words]
    return " or ".join(words) or "a value"


def _describe(option: Any) -> list[str]:
    plainly = {str: "a text", Path: "a path", int: "a whole number", float: "a number", bool: "true or false"}
    if option in plainly:
        return [plainly[option]]
    if option in (type(None), Opaque):
        return []
    if typing.get_origin(option) is Literal:
        return [" or ".join(json.dumps(one) for one in typing.get_args(option))]
    if (typing.get_origin(option) or option) in _LISTS:
        args = typing.get_args(option)
        if len(args) > 1 and args[-1] is not ...:
            return [f"a list of {len(args)}"]
        inner = {str: "texts", int: "whole numbers", float: "numbers"}.get(args[0]) if args else None
        return [f"a list of {inner}" if inner else "a list"]
    return ["an object"]

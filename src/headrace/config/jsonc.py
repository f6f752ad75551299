"""JSON with comments and trailing commas, read so that every value knows the line it stands on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Any, NoReturn

from headrace.errors import ConfigError
from headrace.frozen import frozen

__all__ = ["Node", "Place", "node_of", "parse", "plain", "read"]

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = {"true": True, "false": False, "null": None}
_DEPTH = 100
_DECODER = json.JSONDecoder()


@frozen
class Place:
    """Where a value stands: a file (or ``--set``), line and column, both from 1 (0: not in a text)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@frozen
class Node:
    """A JSON value and its place. `value` is a dict of nodes, a list of nodes, or a scalar.

    `keys` are the places of an object's keys; `base` is the folder that relative paths in it start from.
    """

    value: Any
    place: Place
    keys: dict[str, Place] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What it is, in JSON's words."""
        match self.value:
            case dict():
                return "an object"
            case list():
                return "a list"
            case str():
                return "a text"
            case bool():
                return "true" if self.value else "false"
            case None:
                return "null"
            case _:
                return "a number"


def read(path: Path, *, shown: str | None = None) -> Node:
    """The document in a file. Raises ConfigError: no such file, not UTF-8, a syntax error (line and column)."""
    name = shown or str(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{name}: there is no such file", hint="check the path") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({error.strerror})", hint="check the path and its rights") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: not UTF-8 text", hint="save the file as UTF-8") from None
    return parse(text, name)


def parse(text: str, name: str) -> Node:
    """The document in a text; `name` is what errors call it. Raises ConfigError."""
    return _Reader(text, name).document()


def plain(node: Node) -> Any:
    """The bare JSON value."""
    match node.value:
        case dict() as items:
            return {key: plain(item) for key, item in items.items()}
        case list() as items:
            return [plain(item) for item in items]
        case scalar:
            return scalar


def node_of(value: Any, place: Place) -> Node:
    """A bare JSON value as nodes that all stand at `place`."""
    match value:
        case dict():
            return Node({key: node_of(item, place) for key, item in value.items()}, place, dict.fromkeys(value, place))
        case list() | tuple():
            return Node([node_of(item, place) for item in value], place)
        case scalar:
            return Node(scalar, place)


class _Reader:
    """One text being read. `at` is the next character."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.at = 0
        self.lines = [0, *(found.end() for found in re.finditer("\n", text))]

    def document(self) -> Node:
        node = self.value(0)
        if self.peek():
            self.fail("there is text after the end of the document", "a file holds one JSON value")
        return node

    def value(self, depth: int) -> Node:
        if depth > _DEPTH:
            self.fail(f"nested more than {_DEPTH} deep", "this is no configuration")
        char, place = self.peek(), self.place()
        match char:
            case "{":
                return self.object(place, depth)
            case "[":
                return Node(list(self.items("]", lambda: self.value(depth + 1))), place)
            case '"':
                return Node(self.string(), place)
        if found := _NUMBER.match(self.text, self.at):
            return self.number(found, place)
        if (found := _WORD.match(self.text, self.at)) and found[0] in _WORDS:
            self.at = found.end()
            return Node(_WORDS[found[0]], place)
        return self.unknown(found[0] if found else char)

    def object(self, place: Place, depth: int) -> Node:
        node = Node({}, place)

        def member() -> None:
            if self.peek() != '"':
                self.fail("a key in double quotes is expected here", 'write {"key": value}')
            here = self.place()
            key = self.string()
            if key in node.keys:
                self.fail(f"the key {json.dumps(key)} is here twice", f"it stands at {node.keys[key]} too", here)
            if self.peek() != ":":
                self.fail(f"':' is expected after the key {json.dumps(key)}", 'write {"key": value}')
            self.at += 1
            node.keys[key] = here
            node.value[key] = self.value(depth + 1)

        for _ in self.items("}", member):
            pass
        return node

    def items(self, end: str, item: Any) -> Iterator[Any]:
        """What stands between here and `end`, a trailing comma allowed."""
        opened = self.place()
        self.at += 1
        while (char := self.peek()) != end:
            if not char:
                self.fail(f"the text ends before the {end!r} that closes this", "add it", opened)
            yield item()
            if self.peek() == ",":
                self.at += 1
            elif self.peek() not in (end, ""):
                self.fail(f"',' or {end!r} is expected here", "is a comma missing before this?")
        self.at += 1

    def string(self) -> str:
        place = self.place()
        try:
            decoded, self.at = _DECODER.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            where = place if "Unterminated" in error.msg else self.place(error.pos)
            self.fail(f"a text in quotes is wrong: {error.msg[0].lower()}{error.msg[1:]}", "see json.org", where)
        text = str(decoded)
        if any("\ud800" <= char <= "\udfff" for char in text):
            self.fail("half a surrogate pair in a text", "write both halves", place)
        return text

    def number(self, found: re.Match[str], place: Place) -> Node:
        rest = self.text[found.end() : found.end() + 1]
        if rest.isalnum() or rest in ("_", "."):
            self.unknown(re.compile(r"[\w.+-]+").match(self.text, self.at)[0])  # type: ignore[index]  # it matched
        self.at = found.end()
        whole = not (found[1] or found[2])
        value: int | float = float(found[0])
        if value in (float("inf"), float("-inf")):
            self.fail("this number is too large", "no float64 holds it", place)
        value = int(found[0]) if whole else value
        return Node(value, place)

    def unknown(self, what: str) -> NoReturn:
        if not what:
            self.fail("the text ends where a value is expected", "is the file complete?")
        if what == "'":
            self.fail("texts stand in double quotes", "write \"…\" instead of '…'")
        near = {"True": "true", "False": "false", "None": "null"}.get(what)
        hint = f"did you mean {near}?" if near else 'a value is "…", a number, true, false, null, {…} or […]'
        self.fail(f"{what!r} is no JSON value", hint)

    def peek(self) -> str:
        """The next character that means something, "" at the end."""
        if found := _SPACE.match(self.text, self.at):
            self.at = found.end()
        if self.text.startswith("/*", self.at):
            self.fail("this comment is not closed", "close it with */")
        return self.text[self.at : self.at + 1]

    def place(self, at: int | None = None) -> Place:
        from bisect import bisect_right

        at = self.at if at is None else at
        line = bisect_right(self.lines, at)
        return Place(self.name, line, at - self.lines[line - 1] + 1)

    def fail(self, message: str, hint: str, place: Place | None = None) -> NoReturn:
        place = place or self.place()
        problem = {"path": "", "message": message, "hint": hint}
        where = {"file": place.file, "line": place.line, "column": place.column}
        raise ConfigError(f"{place}: {message}", hint=hint, details={**where, "errors": [{**problem, **where}]})

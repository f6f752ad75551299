"""``headrace.json``: what the pipelines beside it share, and the overrides of a profile and of ``--set``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from headrace.config.jsonc import Node, Place, node_of, parse, read
from headrace.config.references import is_reference
from headrace.config.shapes import near
from headrace.errors import ConfigError
from headrace.frozen import frozen

__all__ = ["FILE", "NAMING", "Override", "Settings", "assign", "merge", "override"]

FILE = "headrace.json"
_KEYS = ("connections", "defaults", "profiles")
NAMING = frozenset(("add_columns", "columns", "params", "rename", "rules", "sources", "tables", "types"))
"""Where an object's keys are the user's own names: one of them may be called ``env`` or ``file``."""
_SEGMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^.\[\]"]+)|\[([0-9]+)\]')


@frozen
class Override:
    """A value for the key at a dotted path. A key with a dot in it is quoted: ``columns."a.b".min``."""

    path: tuple[str, ...]
    value: Node

    @property
    def shared(self) -> bool:
        """Whether it changes headrace.json, and not each pipeline."""
        return self.path[0] in ("connections", "defaults")


@frozen
class Settings:
    """What a folder's pipelines share: connections by name, and defaults that are merged under each pipeline.

    `overrides` are the profile's, for each pipeline.
    """

    connections: Mapping[str, Node] = field(default_factory=dict)
    defaults: Node | None = None
    overrides: tuple[Override, ...] = ()

    @staticmethod
    def of(folder: Path, *, profile: str | None, overrides: tuple[Override, ...] = ()) -> Settings:
        """Those of a folder, with a profile's overrides and then `overrides` (its shared ones) applied.

        Raises ConfigError: an unknown key, an unknown profile, a path that leads nowhere.
        """
        path = folder / FILE
        document = read(path) if path.is_file() else Node({}, Place(str(path)))
        _check(document)
        chosen: tuple[Override, ...] = ()
        if profile is not None:
            profiles = _object(document, "profiles")
            if profile not in profiles:
                hint = near(profile, profiles) or f'write {{"profiles": {{"{profile}": {{…}}}}}} in {path}'
                raise ConfigError(f"{path}: there is no profile {profile!r}", hint=hint)
            chosen = tuple(
                Override(_segments(key, str(place)), profiles[profile].value[key])
                for key, place in profiles[profile].keys.items()
            )
        named = _object(document, "connections")
        for one in (*chosen, *overrides):
            document = assign(document, one) if one.shared else document
        connections = _object(document, "connections")
        _refuse_unnamed((*chosen, *overrides), named, connections)
        return Settings(connections, document.value.get("defaults"), tuple(one for one in chosen if not one.shared))


def _refuse_unnamed(overrides: tuple[Override, ...], named: Mapping[str, Node], made: Mapping[str, Node]) -> None:
    """A key of a connection that is not there makes one that nothing uses: a slip, unless a type makes it whole."""
    whole = {one.path[1] for one in overrides if one.path[0] == "connections" and len(one.path) == 2}  # noqa: PLR2004
    whole |= {name for name, node in made.items() if isinstance(node.value, dict) and "type" in node.value}
    known = {*named, *whole}
    for one in overrides:
        if one.path[0] == "connections" and len(one.path) > 1 and one.path[1] not in known:
            found = near(one.path[1], known)
            new = 'a new one is given as a whole, with its "type"'
            hint = found if found.startswith("did") else f"{new}; {found}" if found else new
            raise ConfigError(f"{one.value.place}: there is no connection {one.path[1]!r}", hint=hint)


def override(text: str) -> Override:
    """The override that ``key.path=value`` writes: the value is JSON where it is JSON, else text."""
    path, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: there is no =", hint="write --set key.path=value")
    where = f"--set {path}"
    try:
        json.loads(value)
    except ValueError:
        node = Node(value, Place(where))
    else:
        node = node_of(parse(value, where).value and json.loads(value), Place(where))
    return Override(_segments(path, where), node)


def _segments(path: str, where: str) -> tuple[str, ...]:
    found, at = [], 0
    while at < len(path):
        segment = _SEGMENT.match(path, at)
        if segment is None or (at and path[at - 1] not in ".[" and not segment[3]):
            break
        found.append(json.loads(f'"{segment[1]}"') if segment[1] is not None else segment[2] or segment[3])
        at = segment.end()
        if at < len(path) and path[at] == ".":
            at += 1
            if at == len(path):
                break
        elif at < len(path) and path[at] != "[":
            break
    else:
        if found:
            return tuple(found)
    raise ConfigError(f"{where}: {path!r} is no path of keys", hint='write e.g. destination.path, or columns."a.b".min')


def assign(node: Node, change: Override) -> Node:
    """The document with the value at the path replaced; objects on the way are made. Changes nothing in place."""
    return _assign(node, change.path, change, "")


def _assign(node: Node, path: tuple[str, ...], change: Override, done: str) -> Node:
    if not path:
        return change.value
    head, rest = path[0], path[1:]
    where = f"{done}.{head}" if done else head
    if isinstance(node.value, dict):
        inner = node.value.get(head) or Node({}, change.value.place)
        keys = {**node.keys, head: change.value.place}
        return Node({**node.value, head: _assign(inner, rest, change, where)}, node.place, keys)
    if isinstance(node.value, list) and head.isdigit() and int(head) < len(node.value):
        items = list(node.value)
        items[int(head)] = _assign(items[int(head)], rest, change, where)
        return Node(items, node.place)
    if isinstance(node.value, list):
        what = f"a list of {len(node.value)}"
        hint = "use a number from 0"
    else:
        what = node.kind
        hint = f"replace {done} as a whole"
    raise ConfigError(f"{change.value.place}: {done} is {what}, it has no {head!r}", hint=hint)


def merge(under: Node | None, over: Node, connections: Mapping[str, Node], path: tuple[str, ...] = ()) -> Node:
    """The keys of `over`, and those of `under` that it does not have, all the way down.

    An object with another ``type`` replaces the one under it as a whole, and a reference (``{"env": …}``) replaces
    whatever is under it, as whatever is over one does. What the connection has that `over` names is as `over`'s own.
    """
    if under is None or not isinstance(under.value, dict) or not isinstance(over.value, dict):
        return over
    if path[-1:] and path[-1] not in NAMING and any(is_reference(node, ()) for node in (under, over)):
        return over
    lent, lent_under = (_lent(node, connections, path) for node in (over, under))
    tags = [full["type"].value for full in (lent_under | under.value, lent | over.value) if "type" in full]
    if len(tags) == 2 and tags[0] != tags[1]:  # noqa: PLR2004 - both of them
        return over
    value = dict(over.value)
    for key, item in under.value.items():
        if key in value:
            value[key] = merge(item, value[key], connections, (*path, key))
        elif key not in lent:
            value[key] = item
    return Node(value, over.place, {**under.keys, **over.keys})


def _lent(node: Node, connections: Mapping[str, Node], path: tuple[str, ...]) -> dict[str, Node]:
    """What the connection gives that a source or a destination names."""
    system = path in (("source",), ("destination",)) or (path[:1] == ("sources",) and len(path) == 2)  # noqa: PLR2004
    named = node.value["connection"].value if system and "connection" in node.value else None
    found: Any = connections[named].value if isinstance(named, str) and named in connections else {}
    return found if isinstance(found, dict) else {}


def _object(document: Node, key: str) -> dict[str, Node]:
    found: dict[str, Node] = document.value[key].value if key in document.value else {}
    return found


def _check(document: Node) -> None:
    if not isinstance(document.value, dict):
        raise ConfigError(f"{document.place}: expected an object, found {document.kind}", hint="see headrace schema")
    for key, node in document.value.items():
        if key == "$schema":
            continue
        if key not in _KEYS:
            raise ConfigError(f"{document.keys[key]}: {key}: unknown key", hint=near(key, _KEYS))
        if not isinstance(node.value, dict):
            raise ConfigError(f"{node.place}: {key}: expected an object, found {node.kind}")
        for name, item in node.value.items() if key != "defaults" else ():
            if not isinstance(item.value, dict):
                raise ConfigError(f"{item.place}: {key}.{name}: expected an object, found {item.kind}")

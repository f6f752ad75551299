"""docs/reference.md, from the code: ``python -m headrace.cli.reference > docs/reference.md``."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from headrace.cli import command
from headrace.config.encode import encode
from headrace.config.shapes import DESTINATIONS, SOURCES, Key, Opaque, keys_of, members, role_of, tag_of
from headrace.logical import EXAMPLES
from headrace.pipeline import Pipeline

__all__ = ["markdown"]

_WORDS = {str: "text", Path: "path", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
_HEAD = """\
# Reference

Generated from the code by `python -m headrace.cli.reference > docs/reference.md`; a test compares.

The JSON keys of the config are the keywords of the Python classes of the same part. Comments and trailing commas
are allowed. Any value may be `{"env": "NAME", "default": …}` or `{"file": "path"}`: it is then read from there.
Relative paths start from the pipeline's file. Where a part has a `type` and no required key, its `type` alone stands
for it: `"write": "append"`.

A value that was read from the environment or a file is not shown: `${NAME}` stands for it, and for what is made of it,
in every report, plan, error, event and log line, with `--json` too. What is shown all the same: rows (`preview`,
`rejects`) and the names of files below a path; a pipeline's name; a number; a value of fewer than four characters
within a longer text; what a transform prints or the traceback of an exception of your own holds. The ledger keeps a
source's path, to know it again.
"""
_SETTINGS = """\
## headrace.json

Beside the pipelines; what they share.

| key | value | |
|---|---|---|
| `connections` | object | by name: keys that `{"connection": "name", …}` takes over in a source or a destination |
| `defaults` | object | keys that every pipeline has where it says nothing else; objects are merged all the way down, \
but for one of another type and a reference; a connection that a pipeline names stands over them |
| `profiles` | object | by name: `{"dotted.path": value}`, for `connections.…`, `defaults.…` or any key of a \
pipeline; `--profile` or `HEADRACE_PROFILE` picks one |
"""
_TYPES = """\
As a column of a contract and a text column of a file name them, and as `plan` shows them. Upper and lower case are one.
A name that is no word is quoted: `struct("unit price": int64)`.
"""
_CODES = """\
## Exit codes

| code | error | what to do |
|---|---|---|
| 0 | | |
| 1 | TransformError, RejectedError, a bug | your function failed; the system said no |
| 2 | ConfigError, wrong usage | fix the pipeline |
| 3 | DataError | look at the rows |
| 4 | UnavailableError | try again later |
| 5 | ConflictError | another headrace run has it |
| 130 | | interrupted |
"""


def markdown() -> str:
    """The whole document."""
    parts = [_HEAD, "# The config\n", *_config(), _types(), _SETTINGS, "# The command\n", *_commands(), _CODES]
    return "\n".join(parts)


def _config() -> Iterator[str]:
    yield _part(Pipeline, "A pipeline", None)
    waiting: list[tuple[Any, str, str | None]] = []
    for title, tags in (("Source", SOURCES), ("Destination", DESTINATIONS)):
        role = next(one for one in map(role_of, _mentioned(Pipeline)) if one and one.tags is tags)
        waiting += [(role.load(tag), f"{title} `{tag}`", tag) for tag in tags]
    waiting += [_titled(cls) for cls in _mentioned(Pipeline) if not role_of(cls)]
    seen: set[Any] = set()
    while waiting:
        cls, title, tag = waiting.pop(0)
        if cls in seen:
            continue
        seen.add(cls)
        yield _part(cls, title, tag)
        waiting += [_titled(inner) for inner in _mentioned(cls) if not role_of(inner)]


def _types() -> str:
    lines = ["## Types", "", _TYPES, "| type | |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {meaning} |" for name, meaning in EXAMPLES.items()), ""])


def _titled(cls: Any) -> tuple[Any, str, str | None]:
    tag = tag_of(cls)
    return cls, f"Write `{tag}`" if tag else cls.__name__, tag


def _mentioned(cls: Any) -> list[Any]:
    """The dataclasses and roles that a dataclass's keys lead to."""
    found: list[Any] = []
    for key in keys_of(cls).values():
        _collect(key.type, found)
    return found


def _collect(annotation: Any, found: list[Any]) -> None:
    for option in members(annotation):
        if role_of(option) or (dataclasses.is_dataclass(option) and option not in found):
            found.append(option)
        elif typing.get_origin(option) is not Literal:
            for arg in typing.get_args(option):
                if arg is not ...:
                    _collect(arg, found)


def _part(cls: Any, title: str, tag: str | None) -> str:
    text = inspect.cleandoc(cls.__doc__ or "").replace("``", "`")
    lines = [f"## {title}", "", f"In Python: `{cls.__name__}`.", "", text, ""]
    lines += ["| key | value | default |", "|---|---|---|"]
    if tag:
        lines.append(f'| `type` | `"{tag}"` | required |')
    lines += [_row(key) for key in keys_of(cls).values()]
    said = [f"- `{key.key}`: {key.doc}" for key in keys_of(cls).values() if key.doc]
    return "\n".join([*lines, *([""] if said else []), *said, ""])


def _row(key: Key) -> str:
    default = "required" if key.required else _default(key.default)
    return f"| `{key.key}` | {_value(key.type)} | {default} |"


def _default(value: Any) -> str:
    if value is ...:
        return "inherited"
    if dataclasses.is_dataclass(value):
        shown = encode(value)
        value = shown["type"] if list(shown) == ["type"] else shown
        if value == {}:
            return "its defaults"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def _value(annotation: Any) -> str:
    options = [option for option in members(annotation) if option not in (Opaque, type(None))]
    words = list(dict.fromkeys(word for option in options for word in _words(option)))
    return " or ".join(words) if len(words) < 3 else ", ".join(words[:-1]) + f" or {words[-1]}"  # noqa: PLR2004


def _words(option: Any) -> list[str]:  # noqa: PLR0911 - one for each kind of type
    origin, args = typing.get_origin(option) or option, typing.get_args(option)
    if option in _WORDS:
        return [_WORDS[option]]
    if option is Any:
        return ["any value"]
    if origin is Literal:
        return [f"`{json.dumps(one)}`" for one in args]
    if role := role_of(option):
        return [f"a {role.name}"]
    if dataclasses.is_dataclass(option):
        tag = tag_of(option)
        title = f"Write `{tag}`" if tag else option.__name__  # type: ignore[union-attr]  # a class
        anchor = re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-")
        return [f"[{tag or title}](#{anchor})"]
    if origin in (dict, Mapping):
        return [f"object: name → {_value(args[1])}" if args else "object"]
    if origin in (tuple, list, Sequence):
        if origin is tuple and args and args[-1] is not ...:
            return ["list [" + ", ".join(_value(arg) for arg in args) + "]"]
        return [f"list of {_value(args[0])}" if args else "list"]
    return ["value"]


def _commands() -> Iterator[str]:
    cli = command()
    shared = {option.name for option in cli.commands["schema"].params}
    yield f"{inspect.cleandoc(cli.help or '')}\n\nEvery command takes:\n"
    yield _options([one for one in cli.commands["schema"].params if isinstance(one, click.Option)])
    for name, one in cli.commands.items():
        context = click.Context(one, info_name=f"headrace {name}")
        usage = " ".join([f"headrace {name}", *one.collect_usage_pieces(context)])
        yield f"## `{usage}`\n\n{inspect.cleandoc(one.help or '')}\n"
        own = [o for o in one.params if isinstance(o, click.Option) and o.name not in shared]
        if own:
            yield _options(own)


def _options(options: Sequence[click.Option]) -> str:
    lines = ["| option | | default |", "|---|---|---|"]
    for option in options:
        names = ", ".join(f"`{name}`" for name in option.opts)
        value = "" if option.is_flag else f" {option.metavar or _choices(option)}"
        given = f" (or `{option.envvar}` in the environment)" if option.envvar else ""
        lines.append(f"| {names}{value} | {option.help}{given} | {_unset(option)} |")
    return "\n".join([*lines, ""])


def _unset(option: click.Option) -> str:
    """What holds where the option is not given."""
    if option.is_flag or option.multiple or option.default is None or not isinstance(option.default, str | int | float):
        return "off" if option.is_flag else "none"
    return f"`{option.default}`"


def _choices(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return " or ".join(f"`{one}`" for one in option.type.choices)
    return option.type.name.upper()


if __name__ == "__main__":
    sys.stdout.write(markdown())

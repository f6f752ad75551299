"""Values that stand elsewhere: ``{"env": "NAME", "default": …}`` and ``{"file": "path"}``."""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace.config.jsonc import Node, node_of
from headrace.errors import ConfigError
from headrace.paths import rooted
from headrace.secret import Secret

if TYPE_CHECKING:
    from headrace.config.decode import Decoder

__all__ = ["is_reference", "resolve"]


def is_reference(node: Node, options: tuple[Any, ...]) -> bool:
    """Whether an object stands for a value that is elsewhere.

    Where a mapping is expected its keys are the user's own (a column may be called ``file``), so there it
    never is one, unless a text is expected too (a DSN, or its keywords: none of them is called so).
    """
    if not isinstance(node.value, dict) or not node.value:
        return False
    if str not in options and any((typing.get_origin(option) or option) in (dict, Mapping) for option in options):
        return False
    return ("env" in node.value and node.value.keys() <= {"env", "default"}) or node.value.keys() == {"file"}


def resolve(node: Node, options: tuple[Any, ...], path: str, decoder: Decoder) -> Any:
    """The node that the reference stands for, or FAILED."""
    kind = "env" if "env" in node.value else "file"
    named = node.value[kind]
    if not isinstance(named.value, str) or not named.value:
        return decoder.note(f"{path}.{kind}", f"expected a text, found {named.kind}", "", named.place)
    if kind == "env":
        text = os.environ.get(named.value)
        if text is None:
            if "default" in node.value:
                return node.value["default"]
            message = f"the environment variable {named.value} is not set"
            return decoder.note(path, message, 'set it, or give a "default" beside "env"', node.place)
    else:
        try:
            text = rooted(decoder.base, named.value).read_text(encoding="utf-8")
        except (ConfigError, OSError, UnicodeDecodeError) as error:
            return decoder.note(path, *_unread(named.value, error), node.place)
        text = text.removesuffix("\n").removesuffix("\r")
    secret = Secret(text, {kind: named.value}, base=decoder.base)
    if _takes_text(options):
        return Node(secret, node.place)
    try:
        return node_of(json.loads(text), node.place)
    except ValueError:
        return Node(secret, node.place)


def _unread(name: str, error: ConfigError | OSError | UnicodeDecodeError) -> tuple[str, str]:
    """Why a file cannot be read, and what to do."""
    if isinstance(error, ConfigError):
        return error.message, error.hint
    if isinstance(error, UnicodeDecodeError):
        return f"the file {name} is not UTF-8 text", ""
    return f"the file {name} cannot be read ({error.strerror})", "paths start from the pipeline's folder"


def _takes_text(options: tuple[Any, ...]) -> bool:
    return any(option in (str, Path, Any) or typing.get_origin(option) is Literal for option in options)

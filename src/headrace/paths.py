"""Paths as people write them: from the pipeline's folder, and ``~`` is a home."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.errors import ConfigError

__all__ = ["refuse_no_path", "rooted"]


def rooted(base: Path | None, path: str | Path) -> Path:
    """The path from `base` (None: from where we are). Raises ConfigError for what is no path."""
    text = os.path.expanduser(path)  # noqa: PTH111  # pathlib's raises where nobody is called so
    if "\0" in text:
        raise ConfigError(f"{text!r}: no path can hold the character NUL", hint="look at how it is spelled")
    if text.startswith("~"):
        raise ConfigError(
            f"path {text!r}: nobody here has that home", hint='write the folder out; a name may begin with "./~"'
        )
    return (base or Path()) / text


def refuse_no_path(path: str, what: str) -> None:
    """Raises ConfigError for what is no path; an empty one would be the folder that paths are relative to."""
    if not path:
        raise ConfigError(
            f"the path of the {what} is empty", hint='write e.g. "path": "out/orders", or "." if you mean it'
        )
    rooted(None, path)

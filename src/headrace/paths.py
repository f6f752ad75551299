"""Where things lie: paths as people write them (from the pipeline's folder, ``~`` is a home), and places to compare."""

from __future__ import annotations

import os
import re
from pathlib import Path

from headrace.errors import ConfigError
from headrace.frozen import frozen

__all__ = ["Place", "refuse_no_path", "rooted"]

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def rooted(base: Path | None, path: str | Path) -> Path:
    """The path from `base` (None: from where we are). Raises ConfigError for what is no path."""
    text = os.path.expanduser(path)  # noqa: PTH111  # pathlib's raises where nobody is called so
    if "\0" in text:
        raise ConfigError(f"{text!r}: no path can hold the character NUL", hint="look at how it is spelled")
    if remote := _REMOTE.match(text):
        raise ConfigError(
            f"a path that begins with {remote[0]} is not read or written yet: paths are those of this machine's files",
            hint='write it without "file://"' if remote[0] == "file://" else "copy it to this machine, or mount it",
        )
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


@frozen(kw_only=True)
class Place:
    """Where rows lie, as a value that is compared and never understood: who writes a place runs before who reads it.

    `system` says what kind of place (``files``, ``duckdb``, ``pipeline``: the table of the one called `where`). `where`
    is the whole way there; that of files is an absolute path, in which a reader may have patterns, and ``**`` is any
    number of folders. `name` is what lies there, as the system spells it (a table; None: all of it). `exclusive`: of
    the runs in one process only one may use `where` at a time, to read or to write.
    """

    system: str
    where: str
    name: str | None = None
    exclusive: bool = False

    @staticmethod
    def absolute(base: Path | None, path: str | Path) -> str:
        """The path from `base`, without .. and with links as they are: a pattern has no real path."""
        return os.path.abspath(rooted(base, path))  # noqa: PTH100 - see above

"""From which folder files are named: a file must have the name under which it is remembered, or it would count as new.

It is the fixed part that all patterns have in common. Where the paths have changed since (``"was"``) it stays what it
was: the position says where that lies, seen from where it would lie now, so that a project may be moved as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.errors import DataError
from headrace.systems.files.paths import common

if TYPE_CHECKING:
    from headrace.cursor import Cursor
    from headrace.flow import Position
    from headrace.systems.files import FileSource

__all__ = ["moved", "refuse_read_by_name", "root_of"]

_KEY = "root"


def root_of(source: FileSource, after: Position | None, before: Any) -> str:
    """The folder, absolute. `after` is the last position (None: from the beginning), `before` the source's identity as
    it was then (None: as it is). Raises RejectedError for a path that cannot be looked at.
    """
    if after is None:
        return common(source.patterns, source.base)
    paths = before["path"] if isinstance(before, Mapping) and "path" in before else source.patterns
    return os.path.normpath(os.path.join(common(paths, source.base), after.get(_KEY, ".")))  # noqa: PTH118  # as above


def moved(source: FileSource, root: str) -> dict[str, str]:
    """What the position must say for the next run to name files from `root`."""
    now = common(source.patterns, source.base)
    return {} if root == now else {_KEY: os.path.relpath(root, now)}


def refuse_read_by_name(after: Position, cursor: Cursor, name: str) -> None:
    """A position of files that were read by their names knows no value of the cursor: all rows would come again. Raises
    DataError.
    """
    if "cursor" not in after and ("files" in after or "version" in after):
        raise DataError(
            f"source {name!r} was read file by file, and its cursor is {cursor.column!r} now",
            hint="put it back as it was, or run with --full-refresh",
        )

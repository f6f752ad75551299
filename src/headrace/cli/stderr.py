"""The command has a stderr of its own: what engines print to descriptor 2 by themselves is not on it.

Polars prints a panic before it raises it, and that may hold a cell's value; what others print breaks a JSON log.
With ``-v`` all of it is shown. What Python code writes to `sys.stderr` always is, and of a process that an engine takes
down, what its threads were at.
"""

from __future__ import annotations

import faulthandler
import io
import os
import sys
from contextlib import suppress

__all__ = ["share", "take", "write"]

_ENGINES = 2
_own = _ENGINES


def take() -> None:
    """Give `sys.stderr` a descriptor of its own, and send what others write to descriptor 2 nowhere.

    Nothing happens where `sys.stderr` is something else already. Where the command was started without one, it gets one
    that nobody reads: the next file to be opened would be descriptor 2, and what engines print would go into it.
    """
    global _own  # noqa: PLW0603 - there is one stderr
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(_nowhere(), "w"), "utf-8", "backslashreplace")
        return
    with suppress(OSError, ValueError):  # one without a descriptor
        if sys.stderr.fileno() != _ENGINES:
            return
        sys.stderr.flush()
        _own = os.dup(_ENGINES)
        _point(_nowhere())
        raw = io.BufferedWriter(io.FileIO(_own, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, sys.stderr.errors, line_buffering=True)
        faulthandler.enable(_own)


def share() -> None:
    """Let what is written to descriptor 2 be seen again."""
    if _own != _ENGINES:
        _point(os.dup(_own))


def write(data: bytes) -> None:
    """Write at once, past whatever is buffered or held by another thread."""
    os.write(_own, data)


def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _point(target: int) -> None:
    os.dup2(target, _ENGINES)
    os.close(target)

"""The command has a stderr of its own: what others print to descriptor 2 by themselves is not on it.

Polars prints a panic before it raises it, and that may hold a cell's value; what other engines and child processes
print breaks a JSON log. With ``-v`` all of it is shown. What Python code writes to `sys.stderr` always is, and what the
threads were at when an engine took the process down; why it did, engines say on descriptor 2.
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
        _point(_nowhere())
        sys.stderr = io.TextIOWrapper(io.FileIO(_ENGINES, "w", closefd=False), "utf-8", "backslashreplace")
        return
    with suppress(OSError, ValueError, AttributeError):  # one without a descriptor
        given = sys.stderr
        if given.fileno() != _ENGINES or not isinstance(given, io.TextIOWrapper):
            return
        given.flush()
        own = os.dup(_ENGINES)
        raw = io.BufferedWriter(io.FileIO(own, "w", closefd=False))
        now, line = given.write_through, given.line_buffering
        made = io.TextIOWrapper(raw, given.encoding, given.errors, write_through=now, line_buffering=line)
        sys.stderr = sys.__stderr__ = made  # type: ignore[misc]  # there is one stderr
        _own = own
        _point(_nowhere())
        faulthandler.enable(own)


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
    if target != _ENGINES:
        os.close(target)

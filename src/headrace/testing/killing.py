"""The process that `headrace.testing.kill` starts: it imports once, then forks a child for each line it is sent."""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

# Imported here, once, and used by nobody before the fork: an engine that has started threads cannot be forked.
import polars as pl
import pyarrow.parquet as pq

from headrace.testing.kill import resolve

__all__ = ["main"]

# Not fsync: what a process wrote outlives its SIGKILL without it, so before it all is as after it.
_OS = (
    *("link", "symlink", "rename", "replace", "truncate", "ftruncate", "write", "unlink", "remove"),
    *("mkdir", "makedirs", "rmdir"),
)


class Effects:
    """Counts effects in the folder, and kills the process at the n-th."""

    def __init__(self, folder: Path, kill: int | None, moment: str, report: int) -> None:
        self.folder = str(folder)
        self.kill = kill
        self.moment = moment
        self.report = report
        self.count = 0
        self.lock = threading.RLock()
        self.depth = threading.local()

    def call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function, which has an effect. Effects inside it (makedirs: mkdir) are not counted again."""
        if getattr(self.depth, "inside", False):
            return function(*args, **kwargs)
        with self.lock:
            self.count += 1
            mine = self.count == self.kill
        if mine and self.moment == "before":
            self.die(name, args)
        self.depth.inside = True
        try:
            answer = function(*args, **kwargs)
        finally:
            self.depth.inside = False
        if mine:
            self.die(name, args)
        return answer

    def die(self, name: str, args: tuple[Any, ...]) -> None:
        """SIGKILL, after saying which effect it was."""
        what = f"{name}({', '.join(repr(a)[:90] for a in args)})"
        _tell(self.report, {"effects": self.count, "effect": what})
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()  # it may take a moment to arrive; nothing may happen in it


def patched(effects: Effects, more: Sequence[tuple[Any, str]]) -> ExitStack:
    """Count all effects from here on: those on files, and `more`, the system's own."""
    stack = ExitStack()

    def counted(owner: Any, name: str) -> None:
        if hasattr(owner, name):
            real = getattr(owner, name)
            label = f"{getattr(owner, '__name__', owner)}.{name}"
            stack.enter_context(patch.object(owner, name, lambda *a, **k: effects.call(label, real, *a, **k)))

    for name in _OS:
        counted(os, name)
    _patch_opens(effects, stack)
    for name in ("sink_parquet", "sink_csv", "sink_ndjson", "sink_ipc"):
        _patch_method(effects, stack, pl.LazyFrame, name)
    for name in ("write_parquet", "write_csv", "write_ndjson", "write_ipc"):
        _patch_method(effects, stack, pl.DataFrame, name)
    for name in ("__init__", "write_table", "write_batch", "close"):
        _patch_method(effects, stack, pq.ParquetWriter, name)
    for owner, name in more:
        if isinstance(owner, type):
            _patch_method(effects, stack, owner, name)
        else:
            counted(owner, name)
    return stack


def _patch_method(effects: Effects, stack: ExitStack, owner: type, name: str) -> None:
    real = getattr(owner, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], io.BytesIO):  # into memory, which nothing outlives
            return real(self, *args, **kwargs)
        return effects.call(f"{owner.__name__}.{name}", real, self, *args, **kwargs)

    stack.enter_context(patch.object(owner, name, method))


def _patch_opens(effects: Effects, stack: ExitStack) -> None:
    real_open, real_os_open = io.open, os.open
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return real_open(file, mode, *args, **kwargs)
        return effects.call("open", real_open, file, mode, *args, **kwargs)

    def os_opened(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if not flags & writing:
            return real_os_open(path, flags, *args, **kwargs)
        descriptor: int = effects.call("os.open", real_os_open, path, flags, *args, **kwargs)
        return descriptor

    for owner in (builtins, io):
        stack.enter_context(patch.object(owner, "open", opened))
    stack.enter_context(patch.object(os, "open", os_opened))


_write = os.write


def _tell(descriptor: int, answer: dict[str, Any]) -> None:
    _write(descriptor, json.dumps(answer).encode() + b"\n")


def _child(asked: dict[str, Any], report: int) -> None:
    """Run the script, look, and say what was seen."""
    folder = Path(asked["folder"])
    effects = Effects(folder, asked["kill"], asked["moment"], report)
    try:
        script, look = resolve(asked["script"]), resolve(asked["look"])
        with patched(effects, _own(asked)):
            script(folder, **asked["arguments"])
        seen = look(folder, **asked["arguments"])
        _tell(report, {"ended": True, "effects": effects.count, "seen": seen})
    except BaseException:  # noqa: BLE001  # a child tells and ends, whatever it is
        _tell(report, {"error": traceback.format_exc(), "effects": effects.count})


def _own(asked: dict[str, Any]) -> Sequence[tuple[Any, str]]:
    """The effects that the system tells of."""
    own: Sequence[tuple[Any, str]] = resolve(asked["effects"])(**asked["arguments"]) if asked["effects"] else ()
    return own


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    for reference in (asked["script"], asked["look"], asked["prepare"]):
        if reference is not None:
            resolve(reference)
    _own(asked)  # what it imports is imported once
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(asked, writing)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    answer: dict[str, Any] = {
        "ended": False,
        "killed": False,
        "effects": 0,
        "effect": None,
        "seen": None,
        "error": None,
    }
    answer |= json.loads(lines[-1]) if lines else {"error": f"the child ended with status {status} and no word"}
    answer["killed"] = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return answer


def main() -> None:
    """Answer each line of JSON on stdin with one on stdout; what children print goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tempfile.gettempdir()  # found by trying to write: not an effect of the script's
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()

"""The command in a process of its own that costs no start: a server imports everything once and forks for each.

A child that crashes, hangs or takes too much memory is noticed, and takes nobody with it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Said", "headrace"]


@dataclass(frozen=True)
class Said:
    """What a command came to. `code` is negative where a signal ended it; `peak` is in bytes."""

    code: int
    out: str
    err: str
    hung: bool
    peak: int

    def __str__(self) -> str:
        how = "it hung" if self.hung else f"exit {self.code}"
        return f"{how}, at most {self.peak >> 20} MB\n--- stdout\n{self.out[-3000:]}\n--- stderr\n{self.err[-3000:]}"


def headrace(*args: str, folder: Path, seconds: float = 60, env: Mapping[str, str] | None = None) -> Said:
    """Run the command in `folder`."""
    asked = {"args": list(args), "folder": str(folder), "env": dict(env or {}), "seconds": seconds}
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(asked) + "\n")
    server.stdin.flush()
    return Said(**json.loads(server.stdout.readline()))


@functools.cache
def _server() -> subprocess.Popen[str]:
    started = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close() -> None:
        for pipe in (started.stdin, started.stdout):
            if pipe is not None:
                pipe.close()
        started.wait()

    atexit.register(close)
    return started


def _child(asked: Mapping[str, Any], out: int, err: int) -> None:
    """In the child: be the command."""
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(asked["folder"])
    os.environ.update(asked["env"])
    from headrace.cli import main

    main(asked["args"])


def _answer(asked: Mapping[str, Any]) -> Said:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code = 120  # of no error: an exception that the command has let out
            try:
                _child(asked, out.fileno(), err.fileno())
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 121
            except BaseException:  # noqa: BLE001
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            _leave(code)
        ended = os.pidfd_open(child)
        hung = not select.select([ended], [], [], asked["seconds"])[0]
        if hung:
            os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        os.close(ended)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return Said(os.waitstatus_to_exitcode(status), texts[0], texts[1], hung, usage.ru_maxrss << 10)


def _leave(code: int) -> None:
    """End as Python does: what runs at exit is a part of the command."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    os._exit(code)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in ("duckdb", "fastexcel", "polars", "psycopg", "pyarrow.parquet", "headrace.engine", "headrace.config"):
        importlib.import_module(name)
    from headrace.cli import command

    command()
    for line in sys.stdin:
        said = _answer(json.loads(line))
        print(json.dumps(said.__dict__), file=answers, flush=True)


if __name__ == "__main__":
    _serve()

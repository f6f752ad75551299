"""Commands that run at the same time, each in a process of its own, forked from one that has imported everything.

ended = together([Command(folder, ("run", "a.json")), Command(folder, ("run", "b.json"))])
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path

__all__ = ["Command", "Ended", "together"]

_SECONDS = 300
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["polars", "duckdb", "pyarrow.parquet", "psycopg", "headrace.cli.commands", "headrace.engine"]
)


@dataclass(frozen=True)
class Command:
    """``headrace`` with these words, in this folder. `broken`: ``module:function``, called before it."""

    folder: Path
    words: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    broken: str | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    pid: int
    out: str
    err: str


def together(commands: Sequence[Command]) -> list[Ended]:
    """Run all at once, each to its end."""
    barrier = _forks.Barrier(len(commands))
    with tempfile.TemporaryDirectory(prefix="headrace-rivals-") as said:
        files = [Path(said) / str(n) for n in range(len(commands))]
        started = [
            _forks.Process(target=_become, args=(command, file, barrier))
            for command, file in zip(commands, files, strict=True)
        ]
        for process in started:
            process.start()
        ended = []
        for process, file in zip(started, files, strict=True):
            process.join(_SECONDS)
            if process.exitcode is None:
                process.kill()
            assert process.exitcode is not None, "it hangs"
            out, err = (file.with_suffix(kind).read_text() for kind in (".out", ".err"))
            ended.append(Ended(process.exitcode, process.pid or 0, out, err))
    return ended


def _become(command: Command, said: Path, barrier: Barrier) -> None:
    os.chdir(command.folder)
    os.environ.update(command.env)
    for descriptor, kind in ((1, ".out"), (2, ".err")):
        file = os.open(said.with_suffix(kind), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    if command.broken is not None:
        module, _, name = command.broken.partition(":")
        getattr(importlib.import_module(module), name)()
    from headrace.cli import main

    barrier.wait(_SECONDS)
    main(list(command.words))

"""Kill a program with SIGKILL at every effect it has, start it again, and compare with a calm run.

A server process imports everything once and forks a child for each run (a fork, since starting Python with
Polars and DuckDB costs a second; forked before any engine has started a thread). In the child every *effect* is
counted: what a process does to files (open for writing, write, link, rename, replace, truncate, unlink, mkdir,
rmdir), each file that Polars or PyArrow write, and what the system under test names as its own (opening a connection,
COMMIT). The child kills itself right before the n-th, for every n; a second child, started on
what the first left, runs to the end.

What native code does between two effects (a database inside a COMMIT) is not cut in two here.
"""

# ruff: noqa: S101  # what it raises is a test's failure

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["killed", "killed_at_every_effect", "resolve", "shape"]

SIGKILL = -9


def killed_at_every_effect(
    script: str,
    *,
    look: str,
    folder: Path,
    arguments: Mapping[str, Any] | None = None,
    moments: Sequence[str] = ("before",),
    prepare: str | None = None,
    effects: str | None = None,
) -> int:
    """Kill `script` at every effect and start it again; the number of effects.

    `script` and `look` are ``module:function`` or ``file.py:function``, called with a folder (a Path) and
    `arguments` (JSON values). `script` does its work in the folder, and may be run again after it was killed;
    `look` gives JSON that tells what is there. `folder` is where the runs' folders are made. `moments`: kill
    ``before`` the effect, ``after`` it, or both. `prepare` is one more reference to import before forking,
    `effects` one to a function of `arguments` that gives the system's own effects: pairs of an owner (a module, a
    class) and the name of a function of it.

    Raises AssertionError where a run that was killed and started again does not end as the calm one: another
    `look`, or other files (see `shape`).
    """
    server = _server()
    asked = {"script": script, "look": look, "arguments": dict(arguments or {}), "prepare": prepare, "effects": effects}
    calm = server.run(asked, folder / "calm-run", kill=None)
    assert calm["ended"], f"the calm run failed:\n{calm['error']}"
    expected = (calm["seen"], shape(folder / "calm-run"))
    for moment in moments:
        n = 0
        while True:
            n += 1
            place = folder / f"killed-{moment}-{n}"
            killed = server.run(asked, place, kill=n, moment=moment)
            assert killed["ended"] or killed["killed"], f"it failed before it was killed:\n{killed['error']}"
            where = f"killed {moment} effect {n} of {calm['effects']}: {killed['effect']}"
            again = server.run(asked, place, kill=None)
            assert again["ended"], f"{where}; started again, it failed:\n{again['error']}"
            assert again["seen"] == expected[0], where
            assert shape(place) == expected[1], where
            shutil.rmtree(place)
            if not killed["killed"]:
                break
        assert n > 1 or not calm["effects"], "the program ended before its first effect"
    return int(calm["effects"])


def killed(script: str, *, folder: Path, arguments: Mapping[str, Any] | None = None) -> None:
    """Run a script that kills its own process. Raises AssertionError where it does not."""
    asked = {"script": script, "look": script, "arguments": dict(arguments or {}), "prepare": None, "effects": None}
    answer = _server().run(asked, folder, kill=None)
    assert answer["killed"], f"it was not killed: {answer['error']}"


def shape(folder: Path) -> list[str]:
    """The files under a folder, numbers and random parts of their names blotted out, sorted."""
    names = (str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return sorted(re.sub(r"[0-9a-f]{6,}|\d+", "#", name) for name in names)


@functools.cache
def resolve(reference: str) -> Any:
    """The object behind ``module:name`` or ``file.py:name``."""
    home, _, name = reference.rpartition(":")
    if not home.endswith(".py"):
        module = importlib.import_module(home)
    else:
        spec = importlib.util.spec_from_file_location(f"headrace_killed_{abs(hash(home))}", home)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return functools.reduce(getattr, name.split("."), module)


class _Server:
    """The process that forks. One for a whole test session."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace.testing.killing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)

    def run(
        self, asked: Mapping[str, Any], folder: Path, *, kill: int | None, moment: str = "before"
    ) -> dict[str, Any]:
        """One child, to its end: ``{"ended", "killed", "effects", "effect", "seen", "error"}``."""
        folder.mkdir(parents=True, exist_ok=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({**asked, "folder": str(folder), "kill": kill, "moment": moment}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the server that forks has died"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
        self.process.wait()


@functools.cache
def _server() -> _Server:
    return _Server()

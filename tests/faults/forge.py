"""The command in forked processes, at a fraction of what it costs to start it anew; under strace if asked.

    forge = Forge()
    ran = forge.run(laid)                                     # to its end
    ran = forge.run(laid, trace=True)                         # ran.calls: what it did that is durable or visible
    ran = forge.run(laid, inject="fsync:signal=SIGKILL:when=3")

The server imports everything once and uses none of it, since an engine whose threads work cannot be forked. Each child
is the command as `headrace` calls it, in a process of its own. A traced one stops itself first, until strace is there.
Runs are as nearly of one thread as they can be, on one CPU: strace counts by thread.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenario import Laid
    from traces import Call

__all__ = ["Forge", "Ran", "strace"]

_SECONDS = 120
_HUNG = 124  # as of timeout(1)


@functools.cache
def strace() -> str | None:
    """Why nothing can be traced here; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed: kills within system calls, the order of fsyncs and failing disks"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False)
    return "strace may not trace here (ptrace is forbidden)" if tried.returncode else None


@dataclass(frozen=True)
class Ran:
    """A run's end: the exit code, or minus the signal that killed it; what it said; its calls, where it was traced."""

    code: int
    out: str
    err: str
    calls: Sequence[Call] = ()

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Forge:
    """A server for one worker. It ends with us."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self.close)

    def close(self) -> None:
        """End it."""
        atexit.unregister(self.close)
        for pipe in (self._server.stdin, self._server.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self._server.wait()

    def run(
        self,
        laid: Laid,
        *,
        trace: bool = False,
        inject: str | None = None,
        path: Path | None = None,
        stopped: Callable[[], None] | None = None,
        broken: str | None = None,
        arguments: Sequence[str] | None = None,
        pipeline: Path | None = None,
    ) -> Ran:
        """Run the command at this stage. `inject` is a word of strace; with `path` only what is done to that file is
        traced, that it is opened and read too. `stopped` is called while a SIGSTOP that was injected holds the run.
        `broken` is a function of `breaks`, called before it.
        """
        words = laid.command(pipeline, arguments=arguments)
        words = words[words.index("run") :]
        said = laid.folder.with_name(f"{laid.folder.name}.said")
        asked = {
            "arguments": words,
            "folder": str(laid.folder),
            "env": laid.environment(POLARS_MAX_THREADS="1", TMPDIR=str(_temporary(laid))),
            "said": str(said),
            "traced": trace or inject is not None,
            "broken": broken,
        }
        started = self._ask(asked)
        if not asked["traced"]:
            return self._ended(said)
        from traces import Tracer

        tracer = Tracer(int(started["pid"]), inject, path)
        os.kill(int(started["pid"]), signal.SIGCONT)
        if stopped is not None and tracer.stopped():
            stopped()
        with _going_on(int(started["pid"])) if stopped is not None else contextlib.nullcontext():
            ran = self._ended(said)
        return replace(ran, calls=tracer.calls(laid.folder))

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the server that forks has died"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self, said: Path) -> Ran:
        code = self._answer()["code"]
        texts = []
        for kind in ("out", "err"):
            file = said.with_suffix(f".{kind}")
            texts.append(file.read_text())
            file.unlink()
        return Ran(code, *texts)


@contextlib.contextmanager
def _going_on(process: int) -> Iterator[None]:
    """Let a process go on, whenever it is stopped: what stops it strikes in each thread."""
    ended = threading.Event()

    def resume() -> None:
        while not ended.wait(0.05):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    resuming = threading.Thread(target=resume)
    resuming.start()
    try:
        yield
    finally:
        ended.set()
        resuming.join()


def _temporary(laid: Laid) -> Path:
    folder = laid.folder / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


# In the server


def serve() -> None:
    """A line of JSON for each run; ``{"pid"}`` once it is there to be traced, ``{"code"}`` when it has ended."""
    _import_all()
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(asked)
        hung = threading.Event()
        signal.signal(signal.SIGALRM, lambda *_, child=child, hung=hung: (hung.set(), os.kill(child, signal.SIGKILL)))
        signal.alarm(_SECONDS)
        if asked["traced"]:
            os.waitpid(child, os.WUNTRACED)
        _tell({"pid": child})
        _, status = os.waitpid(child, 0)
        signal.alarm(0)
        _tell({"code": _HUNG if hung.is_set() else os.waitstatus_to_exitcode(status)})


def _tell(answer: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _import_all() -> None:
    import importlib
    import pkgutil

    import headrace

    for name in ("polars", "duckdb", "pyarrow.csv", "pyarrow.dataset", "pyarrow.parquet", "psycopg", "sqlite3"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(headrace.__path__, "headrace."):
        if not module.name.startswith(("headrace.testing", "headrace.demo", "headrace.__main__")):
            importlib.import_module(module.name)


def _become(asked: dict[str, Any]) -> None:
    """The command's process: its folder, environment, output. Never returns."""
    os.chdir(asked["folder"])
    os.sched_setaffinity(0, {_cpu()})
    os.environ.clear()
    os.environ.update(asked["env"])
    for descriptor, kind in ((1, "out"), (2, "err")):
        said = os.open(Path(asked["said"]).with_suffix(f".{kind}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, descriptor)
        os.close(said)
    if asked["broken"]:
        import breaks

        getattr(breaks, asked["broken"])()
    if asked["traced"]:
        _let_be_traced()
        os.kill(os.getpid(), signal.SIGSTOP)
    from headrace.cli import main

    try:
        main(asked["arguments"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  # its traceback is a failure of the suite's
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # the interpreter's own end takes apart all that was imported: longer than the run


def _cpu() -> int:
    """One for each worker, as far as there are enough."""
    cpus, worker = sorted(os.sched_getaffinity(0)), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return cpus[int(worker.removeprefix("gw")) % len(cpus)]


def _let_be_traced() -> None:
    """By a process that is no ancestor of this one, where the kernel asks (Yama)."""
    import ctypes

    set_ptracer, anybody = 0x59616D61, -1
    ctypes.CDLL(None).prctl(set_ptracer, ctypes.c_ulong(anybody), 0, 0, 0)


if __name__ == "__main__":
    serve()

"""strace on a process: what it did that is durable or visible, call by call, as it would have been killed there."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Call", "Tracer"]

_CALLS = (
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "ftruncate", "truncate", "write", "pwrite64", "writev", "pwritev"),
    *("fsync", "fdatasync", "sendto", "sendmsg"),
)
"""What makes something durable or visible to others. A kill at the entry of such a call leaves it undone."""

_READING = ("openat", "read", "pread64", "mmap")

_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RANDOM = re.compile(
    r"(?<=part=)\w|(?<=headrace-spool-)[^/]+|(?<=headrace-sql-)[^/]+|(?<=^tmp/)\w{8}$|[0-9a-f]{8,}|\d+"
)
_PATH = re.compile(r'<(/[^>]*)>|"([^"]*)"')
_BY_DESCRIPTOR = {
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "fsync",
    "fdatasync",
    "ftruncate",
    "sendto",
    "sendmsg",
    "read",
    "pread64",
}
_WITHIN = 60.0


@dataclass(frozen=True, kw_only=True)
class Call:
    """One system call. `nth` counts the calls of this name in its thread, as strace does; `paths` are those that it
    names, from the scenario's folder; `socket`: it goes to a server. `injected`: it was made to fail.
    """

    name: str
    thread: int
    nth: int
    paths: tuple[str, ...]
    socket: bool
    injected: bool
    text: str

    @property
    def unfinished(self) -> bool:
        """Whether it never returned."""
        return self.text.endswith(("<unfinished ...>", "= ?"))

    @property
    def failed(self) -> bool:
        """Whether it returned an error."""
        return " = -1 " in self.text

    @property
    def kind(self) -> str:
        """What it is done to, the numbers and random parts blotted out."""
        if self.socket:
            return "the server"
        return " -> ".join(_RANDOM.sub("#", path) for path in self.paths) or "nothing"

    @property
    def lasting(self) -> bool:
        """Whether it is done to what outlives the process, and not to pipes, events, what is printed."""
        return self.socket or bool(self.paths)

    @property
    def in_target(self) -> bool:
        """Whether it is done to what the run is for: the destination."""
        return self.socket or any(path.startswith("target") for path in self.paths)


class Tracer:
    """strace attached to a process that waits for it."""

    def __init__(self, process: int, inject: str | None = None, path: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._written = Path(self._folder.name) / "trace"
        which = ",".join(f"?{name}" for name in (_CALLS if path is None else _READING))
        words = ["strace", "-f", "-y", "-q", "-s", "16", "-o", str(self._written), "-e", f"trace={which}"]
        words += [] if inject is None else ["-e", f"inject={inject}"]
        words += [] if path is None else ["-P", str(path)]
        self._strace = subprocess.Popen([*words, "-p", str(process)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until = time.monotonic() + _WITHIN
        while "TracerPid:\t0" in Path(f"/proc/{process}/status").read_text():
            assert self._strace.poll() is None, self._strace.communicate()[1].decode()
            assert time.monotonic() < until, "strace has not come"
            time.sleep(0.002)

    def stopped(self) -> bool:
        """Wait until an injected SIGSTOP holds the process; False where it ends without."""
        until = time.monotonic() + _WITHIN
        while self._strace.poll() is None:
            if "--- stopped by SIGSTOP ---" in self._written.read_text(errors="replace").partition("SIGCONT")[2]:
                return True
            assert time.monotonic() < until, "it has neither stopped nor ended"
            time.sleep(0.01)
        return False

    def calls(self, folder: Path) -> list[Call]:
        """The calls of the process, which has ended."""
        try:
            self._strace.communicate(timeout=_WITHIN)
            return _calls(self._written, folder)
        finally:
            self._strace.kill()
            self._strace.wait()
            self._folder.cleanup()


def _calls(written: Path, folder: Path) -> list[Call]:
    """The calls in the order of their entry."""
    counts: Counter[tuple[int, str]] = Counter()
    found = []
    for line in written.read_text(errors="replace").splitlines():
        parts = _LINE.match(line)
        if parts is None or parts[2] not in (*_CALLS, *_READING):
            continue
        thread, name, rest = int(parts[1]), parts[2], parts[3]
        counts[thread, name] += 1
        call = Call(
            name=name,
            thread=thread,
            nth=counts[thread, name],
            paths=_paths(name, rest, folder),
            socket="<socket:" in rest or "<TCP" in rest or "<UNIX" in rest,
            injected="(INJECTED)" in rest,
            text=line,
        )
        found.append(call)
    return found


def _paths(name: str, rest: str, folder: Path) -> tuple[str, ...]:
    if name in _BY_DESCRIPTOR:
        first = _PATH.search(rest.partition(",")[0])
        given = [first[1]] if first is not None and first[1] else []
    else:
        given, base = [], str(folder)
        for opened, named in _PATH.findall(rest):
            if opened:
                base = opened
            else:
                given.append(named if named.startswith("/") else f"{base}/{named}")
                base = str(folder)
    kept = [path.removeprefix(f"{folder}/") for path in given if not path.startswith("/dev/")]
    return tuple(path for path in kept if not path.endswith((".out", ".err")))

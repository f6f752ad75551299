"""A room of so many bytes for a process and all that it starts: beyond it somebody kills with SIGKILL.

with room(512 << 20) as found:
    process = found.start(["headrace", …], cwd=folder)     # a subprocess.Popen
    …
found.peak        # bytes that were in use at most, as far as is known
found.how         # "cgroup": the kernel kills; "watch": we do, by the sum of what the tree has resident
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Room", "room"]

_EVERY = 0.02


@dataclass
class Room:
    """See the module. `group` is the cgroup's folder (None: we watch)."""

    limit: int
    group: Path | None
    peak: int = 0
    killed: bool = False
    _watched: list[threading.Thread] = field(default_factory=list)

    @property
    def how(self) -> str:
        return "watch" if self.group is None else "cgroup"

    def start(self, command: Sequence[str], **more: Any) -> subprocess.Popen[str]:
        """Start a command in the room."""
        words = list(command)
        if self.group is not None:
            words = ["sh", "-c", f'echo $$ > "{self.group}/cgroup.procs" && exec "$@"', "sh", *words]
        process = subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
        self._watched.append(threading.Thread(target=self._watch, args=(process,)))
        self._watched[-1].start()
        return process

    def _watch(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            now = sum(_resident(pid) for pid in _tree(process.pid))
            self.peak = max(self.peak, now)
            if now > self.limit and self.group is None:
                self.killed = True
                for pid in _tree(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(_EVERY)


@contextlib.contextmanager
def room(limit: int) -> Iterator[Room]:
    """A room, for as long as this is open."""
    group = _group(limit)
    made = Room(limit, group)
    try:
        yield made
    finally:
        for thread in made._watched:
            thread.join()
        if group is not None:
            with contextlib.suppress(OSError):
                group.rmdir()


def _group(limit: int) -> Path | None:
    """A cgroup below our own with this limit, swap included; None where we may not make one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, names = Path("/sys/fs/cgroup/memory"), ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        elif not controllers:
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.swap.max")
        else:
            continue
        own = root / path.lstrip("/")
        group = (own if own.is_dir() else root) / f"headrace-{os.getpid()}-{time.monotonic_ns()}"
        try:
            group.mkdir()
            (group / names[0]).write_text(str(limit))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        with contextlib.suppress(OSError):
            (group / names[1]).write_text(str(limit if "memsw" in names[1] else 0))
        return group
    return None


def _tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
    return found


def _resident(pid: int) -> int:
    """Bytes that are the process's own: files that it has mapped are the page cache's."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0

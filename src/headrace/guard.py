"""What guards a run: its lock, its time, and the limits of the machine it is on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from headrace import disk
from headrace.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from headrace.protocols import Holder

__all__ = ["Deadline", "cpu_count", "deadline", "hold", "memory_limit"]

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60  # cgroup v1 writes "no limit" as a huge number of pages


@contextlib.contextmanager
def hold(lockfile: Path, pipeline: str, holder: Holder) -> Iterator[None]:
    """Hold `lockfile` for one run: against other processes, and against other threads of this one.

    The lock is the kernel's (flock), so that a dead run holds nothing, whatever its file says. The file says who
    holds it, as JSON: pipeline, run, host, pid, since (ISO 8601, UTC). It is gone after release.

    Held by a live run: ConflictError that names it. The folder cannot be written or locked: RejectedError.
    """
    with disk.translated(lockfile.parent):
        disk.make_folder(lockfile.parent)
        fd = _acquire(lockfile)
    try:
        with disk.translated(lockfile.parent):
            _sign(fd, pipeline, holder)
        yield
    finally:
        disk.remove(lockfile)  # while it is still locked: see _acquire
        os.close(fd)


def _acquire(lockfile: Path) -> int:
    """A locked descriptor of the file that `lockfile` names.

    The last holder unlinks the name. Between our open and our flock it may have done so: then we have locked a
    file that nobody else can find, and a third run would lock a new one. Hence the look at the inode, again and
    again until name and lock are the same file.
    """
    while True:
        fd = os.open(lockfile, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                named = os.stat(lockfile)  # noqa: PTH116
                if os.path.samestat(named, os.fstat(fd)):
                    return fd
        except OSError as error:
            held = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
            who = _read(fd) if held else {}
            os.close(fd)
            if held:
                raise _conflict(lockfile, who) from None
            raise
        os.close(fd)


def _sign(fd: int, pipeline: str, holder: Holder) -> None:
    who = {
        "pipeline": pipeline,
        "run": holder.run,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(who).encode(), 0)


def _read(fd: int) -> dict[str, Any]:
    for _ in range(20):  # the holder may have locked the file just now and not signed it yet
        with contextlib.suppress(ValueError):
            who = json.loads(os.pread(fd, 65536, 0))
            if isinstance(who, dict):
                return who
        time.sleep(0.01)
    return {}


def _conflict(lockfile: Path, who: dict[str, Any]) -> ConflictError:
    known = {key: who.get(key, "unknown") for key in ("pipeline", "run", "host", "pid", "since")}
    return ConflictError(
        f"{lockfile}: pipeline {known['pipeline']!r} is running: host {known['host']}, "
        f"PID {known['pid']}, run {known['run']}, since {known['since']}",
        hint="wait for it with --wait 10m",
        details=known,
    )


class Deadline:
    """A bound on a run: seconds of a monotonic clock, and SIGINT and SIGTERM. `check` raises once it has passed.

    Nothing is interrupted in the middle: who works in batches calls `check` between them, so that what is
    half done is undone in order.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self._start = time.monotonic()
        self._signal: int | None = None

    @property
    def left(self) -> float | None:
        """Seconds left (not below 0); None: unbounded."""
        return None if self.seconds is None else max(0.0, self._start + self.seconds - time.monotonic())

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Make the next `check` raise, as the signal would."""
        self._signal = number

    def check(self) -> None:
        """Raise KeyboardInterrupt after a signal, UnavailableError after the time; else nothing."""
        if self._signal is not None:
            raise KeyboardInterrupt(signal.Signals(self._signal).name)
        if self.left == 0.0:
            raise UnavailableError(
                f"the run was not done after {self.seconds:g} seconds", hint="give it more time with --timeout"
            )


@contextlib.contextmanager
def deadline(seconds: float | None = None) -> Iterator[Deadline]:
    """A `Deadline`; in the main thread SIGINT and SIGTERM are heeded at its next `check`, a second one at once.

    `seconds` None: no bound in time.
    """
    bound = Deadline(seconds)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if bound._signal is not None:  # noqa: SLF001  # the second one: the person means now
            raise KeyboardInterrupt(signal.Signals(number).name)
        bound.interrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield bound
        return
    earlier = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield bound
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def memory_limit() -> int:
    """Bytes that this process may use: the smallest of the machine's memory and its cgroups' limits (v1, v2)."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder, name in _cgroup_folders("memory"):
        text = _text(folder / ("memory.max" if name == "v2" else "memory.limit_in_bytes"))
        if text.isdigit() and 0 < int(text) < _NO_LIMIT:
            limits.append(int(text))
    return min(limits)


def cpu_count() -> int:
    """CPUs that this process may use, at least 1: its affinity, and its cgroups' quotas rounded up (v1, v2)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder, name in _cgroup_folders("cpu"):
        if name == "v2":
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            count = min(count, -(-int(quota) // int(period)))
    return max(1, count)


def _cgroup_folders(controller: str) -> Iterator[tuple[Path, str]]:
    """This process's cgroup and all above it, each with its version. In a container only the root may be seen."""
    for line in _text(_OWN_CGROUP).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, version = _CGROUPS, "v2"
        elif controller in controllers.split(","):
            root, version = _CGROUPS / controller, "v1"
        else:
            continue
        own = root / path.lstrip("/")
        while own != root and root in own.parents:
            yield own, version
            own = own.parent
        yield root, version


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

"""What guards a run: its lock, and the limits of the machine it is on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import disk
from headrace.errors import ConflictError

if TYPE_CHECKING:
    from headrace.protocols import Holder

__all__ = ["cpu_count", "hold", "memory_limit"]

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

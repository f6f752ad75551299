"""What a process costs: wall and CPU seconds, and the peak memory of it and of all that it starts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "measured"]

# A process's peak memory is never less than that of the one which starts it, so a small one does, without `site`.
_LAUNCH = """
import json, os, signal, sys, time

page = os.sysconf("SC_PAGE_SIZE")

def tree(group):
    total = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == group:  # its session
                total += int(fields[21]) * page
    return total

watched = os.path.isdir("/proc/self")
began, longest = time.perf_counter(), float(sys.argv[1])
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ, setsid=True)
peak = 0
while True:
    done, status, used = os.wait4(child, os.WNOHANG)
    if done:
        break
    peak = max(peak, tree(child) if watched else 0)
    if time.perf_counter() - began > longest:
        os.killpg(child, signal.SIGKILL)
    time.sleep(0.002 if time.perf_counter() - began < 1 else 0.05)
wall = time.perf_counter() - began
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps([wall, used.ru_utime + used.ru_stime, max(peak, used.ru_maxrss * unit) / 1e6, status]))
"""


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds, peak memory of the process tree in MB (10^6 bytes), exit status (0: it went well)."""

    wall: float
    cpu: float
    peak: float
    status: int


def measured(
    command: Sequence[str], errors: Path, environment: Mapping[str, str] | None = None, *, longest: float = math.inf
) -> Cost:
    """Run a command to its end, or kill it after `longest` seconds. What it writes to stderr is left in the file
    `errors`.

    CPU seconds are those of the process and of its descendants, by the kernel's account. Memory is the larger of the
    kernel's peak of the largest process and of what is seen of all together, looked at twenty times a second.
    """
    launch = [sys.executable, "-S", "-c", _LAUNCH, str(longest), *command]
    with errors.open("wb") as file:
        done = subprocess.run(launch, env=environment, stdout=subprocess.PIPE, stderr=file, check=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))

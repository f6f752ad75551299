"""The run lock and the machine's limits."""

# ruff: noqa: PTH208  # names alone are compared; a signal arrives a statement later
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace import guard
from headrace.errors import ConflictError

Cgroup = Callable[[str, dict[str, str]], None]


@dataclass(frozen=True)
class Run:
    run: str


HOLDER = """
import sys, time
from pathlib import Path
from headrace import guard
class Run:
    run = "theirs"
with guard.hold(Path(sys.argv[1]), "orders", Run()):
    print("held", flush=True)
    time.sleep(60)
"""


def _holding(lock: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_conflict_names_the_holder_and_the_way_out(tmp_path: Path) -> None:
    lock = tmp_path / "_headrace" / "lock"
    with _holding(lock) as process:
        try:
            with pytest.raises(ConflictError) as caught, guard.hold(lock, "orders", Run("mine")):
                pytest.fail("held twice")
        finally:
            process.kill()
    words = caught.value.message
    assert f"host {socket.gethostname()}" in words
    assert f"PID {process.pid}" in words
    assert "run theirs" in words
    assert caught.value.details["since"] in words
    assert "--wait 10m" in caught.value.hint
    assert caught.value.exit_code == 5


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with _holding(lock) as process:
        process.kill()
    assert json.loads(lock.read_text())["run"] == "theirs"
    with guard.hold(lock, "orders", Run("mine")):
        assert json.loads(lock.read_text())["run"] == "mine"
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_the_file_is_gone_after_release_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), guard.hold(tmp_path / "lock", "orders", Run("mine")):
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_two_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    inside, most, held = [0], [0], [0]
    lock = threading.Lock()

    def work() -> None:
        for _ in range(100):
            try:
                with guard.hold(tmp_path / "lock", "orders", Run("mine")):
                    with lock:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                        held[0] += 1
                    with lock:
                        inside[0] -= 1
            except ConflictError:
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert held[0] > 0
    assert os.listdir(tmp_path) == []


def test_a_lock_that_lost_its_name_while_it_was_taken_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    real, taken = guard.fcntl.flock, []

    def flock(fd: int, how: int) -> None:
        real(fd, how)
        if not taken:  # the last holder unlinks the name between our open and our flock
            lock.unlink()
            lock.touch()  # and a third run makes it anew
        taken.append(fd)

    monkeypatch.setattr(guard.fcntl, "flock", flock)
    with guard.hold(lock, "orders", Run("mine")):
        assert len(taken) == 2
        assert json.loads(lock.read_text())["run"] == "mine"


def test_memory_and_cpus_follow_the_smallest_limit_of_a_v2_hierarchy(cgroup: Cgroup) -> None:
    files = {"a/memory.max": "1000000\n", "a/b/memory.max": "max\n", "a/cpu.max": "150000 100000\n"}
    cgroup("0::/a/b\n", files)
    assert guard.memory_limit() == 1_000_000
    assert guard.cpu_count() == 2


def test_memory_and_cpus_follow_a_v1_container(cgroup: Cgroup) -> None:
    files = {
        "memory/memory.limit_in_bytes": "5000000",
        "cpu/cpu.cfs_quota_us": "100000",
        "cpu/cpu.cfs_period_us": "100000",
    }
    cgroup("4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n", files)
    assert guard.memory_limit() == 5_000_000
    assert guard.cpu_count() == 1


def test_without_limits_the_machine_is_the_limit(cgroup: Cgroup) -> None:
    cgroup("4:memory:/\n", {"memory/memory.limit_in_bytes": str(2**63 - 4096)})
    assert guard.memory_limit() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert guard.cpu_count() == 8

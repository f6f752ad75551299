"""Disks that fail, fill up or may not be written, and files that change while they are read.

Whatever happens: one clear error with a hint, the target as it was (or as the commit left it, where the disk failed
after it), and the next run ends as a calm one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from crash import TRIES, copy, positions, stages
from forge import strace
from scenario import Scenario, scenarios

_TRACED = pytest.mark.skipif(strace() is not None, reason=str(strace()))
_FAILING = (
    Scenario("csv", "merge", "duckdb"),
    Scenario("csv", "append", "duckdb"),
    Scenario("csv", "partitions", "parquet"),
    Scenario("csv", "append", "parquet"),
    Scenario("csv", "replace", "file"),
)
_ROOM = (0, 1 << 12, 1 << 16, 1 << 18, 1 << 20)  # bytes that are left
_TMPFS = 5 << 20


def told(ran) -> None:
    """Nothing, or one error and what to do about it."""
    assert ran.code in (0, 1, 4), ran.err
    assert "Traceback" not in ran.err, ran.err
    if ran.code:
        assert ran.err.count("error: ") == 1, ran.err
        assert ran.err.count("hint: ") == 1, ran.err


def same(seen, other) -> bool:
    """But for files that are left to clear up."""
    return {**seen, "folder": None} == {**other, "folder": None}


def _ids(*scenarios):
    return [pytest.param(s, id=str(s)) for s in scenarios]


def _fails(forge, folder, stage, call, error) -> bool:
    """Whether the call failed in a run; it need not where a pool's threads share their work out by chance."""
    where = f"stage {stage.number}, {error} from {call.name} {call.nth} of {call.kind}"
    return any(_failed(forge, folder, stage, call, error, where) for _ in range(TRIES))


def _failed(forge, folder, stage, call, error, where) -> bool:
    with copy(stage.before, folder / "failing", None) as laid:
        held = laid.look()
        ran = forge.run(laid, inject=f"{call.name}:error={error}")
        struck = [c for c in ran.calls if c.injected]
        if not struck:
            assert call.thread != stage.calls[0].thread, f"{where} never came"
            return False
        if not all(c.in_target for c in struck):
            return False
        told(ran)
        seen = laid.look()
        allowed = [stage.expected] if ran.code == 0 else [held, stage.expected]
        assert any(same(seen, one) for one in allowed), f"{where}: {ran.err}\n{seen}"
        again = forge.run(laid)
        assert again.code == 0, f"{where}, then calm: {again.err}"
        assert laid.look() == stage.expected, where
    return True


def _alone(call, calls) -> bool:
    """Whether no thread's wake-up of another would fail with it, for it counts the same: that is no disk's failure, and
    nobody would ever wake.
    """
    return call.name != "write" or all(c.in_target for c in calls if (c.name, c.nth) == (call.name, call.nth))


@_TRACED
@pytest.mark.parametrize("scenario", _ids(_FAILING[0], _FAILING[2]))
def test_a_disk_that_fails_once_is_told_and_costs_nothing(scenario, tmp_path, forge, record_property):
    increments = stages(scenario, tmp_path, forge, None, wanted=(2,))
    stage = next(increments)
    wanted = [c for c in positions(stage.calls) if c.in_target and c.name in ("fdatasync", "link")]
    assert _fails(forge, tmp_path, stage, wanted[0], f"EIO:when={wanted[0].nth}")
    record_property("cases", 1)


@pytest.mark.full
@_TRACED
@pytest.mark.parametrize("scenario", _ids(*_FAILING))
def test_a_disk_that_fails_anywhere_is_told_and_costs_nothing(scenario, tmp_path, forge, record_property):
    tried = missed = 0
    for stage in stages(scenario, tmp_path, forge, None, wanted=(1, 2)):
        kinds = {}
        for call in positions(stage.calls):
            removes = call.name.startswith(("unlink", "rmdir"))
            if call.in_target and not removes and _alone(call, stage.calls):
                kinds.setdefault((call.name, call.kind), call)
        for call in kinds.values():
            for error in (f"EIO:when={call.nth}", f"ENOSPC:when={call.nth}"):  # once: what is said is written too
                failed = _fails(forge, tmp_path, stage, call, error)
                tried, missed = tried + failed, missed + (not failed)
    assert tried
    assert missed <= 2 + tried // 5
    record_property("cases", tried)


@contextmanager
def _mounted(folder):
    """A file system of 5 MB at the folder, which has what the folder had."""
    had = folder.with_name("had")
    folder.rename(had)
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_TMPFS}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of 5 MB cannot be mounted here: disks that really fill up, or may not be written")
    try:
        shutil.copytree(had, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _filled(folder, room) -> None:
    """Fill the file system, but for so many bytes."""
    with (folder / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(1 << 12))
        except OSError:
            pass
        ballast.truncate(max(0, ballast.tell() - room))


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(s, id=str(s), marks=[] if s is _FAILING[0] else [pytest.mark.full]) for s in _FAILING],
)
def test_a_disk_that_is_full_is_told_and_costs_nothing(scenario, full, tmp_path, forge, record_property):
    increments = stages(scenario, tmp_path, forge, None, wanted=(2,))
    stage = next(increments)
    rooms = _ROOM if full else _ROOM[2:3]
    for room in rooms:
        with copy(stage.before, tmp_path / "full", None) as laid, _mounted(laid.target):
            held = laid.look()
            _filled(laid.target, room)
            ran = forge.run(laid)
            told(ran)
            assert not ran.code or "full" in ran.err, ran.err
            seen = laid.look()
            allowed = [stage.expected] if ran.code == 0 else [held, stage.expected]
            assert any(same(seen, one) for one in allowed), f"{room} bytes left: {ran.err}"
            (laid.target / "ballast").unlink()
            again = forge.run(laid)
            assert again.code == 0, f"{room} bytes left, then calm: {again.err}"
            assert laid.look() == stage.expected, room
    record_property("cases", len(rooms))


@pytest.mark.full
@pytest.mark.parametrize("scenario", _ids(*_FAILING))
def test_a_folder_that_may_not_be_written_is_told_and_costs_nothing(scenario, tmp_path, forge):
    increments = stages(scenario, tmp_path, forge, None, wanted=(2,))
    stage = next(increments)
    with copy(stage.before, tmp_path / "sealed", None) as laid, _mounted(laid.target):
        held = laid.look()
        subprocess.run(["mount", "-o", "remount,ro", str(laid.target)], check=True)
        ran = forge.run(laid)
        assert ran.code == 1, ran.err
        told(ran)
        subprocess.run(["mount", "-o", "remount,rw", str(laid.target)], check=True)
        assert laid.look() == held
        assert forge.run(laid).code == 0
        assert laid.look() == stage.expected


def _vanishes(file) -> None:
    file.unlink()


def _shrinks(file) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _grows(file) -> None:
    with file.open("ab") as more:
        more.write(file.read_bytes().splitlines(keepends=True)[1])


def _is_replaced(file) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes().replace(b"repeated", b"REPEATED"))
    other.rename(file)


_CHANGES = (_vanishes, _shrinks, _grows, _is_replaced)


@pytest.mark.full
@_TRACED
@pytest.mark.parametrize("change", _CHANGES, ids=[c.__name__.strip("_") for c in _CHANGES])
@pytest.mark.parametrize(
    "scenario", _ids(*scenarios(sources=["csv", "ndjson", "parquet"], writes=["append"], destinations=["duckdb"]))
)
def test_a_file_that_changes_while_it_is_read_is_told_or_read_as_it_is(
    scenario, change, tmp_path, forge, record_property
):
    tried = 0
    increments = stages(scenario, tmp_path, forge, None, wanted=(2,))
    stage = next(increments)
    file = f"in/2.{scenario.source}"
    with copy(stage.before, tmp_path / "afterwards", None) as laid:
        opens = [c for c in forge.run(laid, trace=True, path=laid.folder / file).calls if c.name == "openat"]
    with copy(stage.before, tmp_path / "changed", None) as laid:  # what is right once it has changed
        change(laid.folder / file)
        right = forge.run(laid)
        expected = laid.look()
    for nth in range(1, len(opens) + 1):
        with copy(stage.before, tmp_path / "changing", None) as laid:
            held, changed = laid.look(), laid.folder / file
            ran = forge.run(
                laid,
                inject=f"openat:signal=SIGSTOP:when={nth}",
                path=changed,
                stopped=lambda file=changed: change(file),
            )
            assert "Traceback" not in ran.err, ran.err
            assert ran.code in (0, 2, 3, 4), ran.err
            seen = laid.look()
            assert any(_cells(seen) == _cells(one) for one in (held, stage.expected, expected)), (
                f"open {nth}: {ran.err}"
            )
            if ran.code:
                assert same(seen, held), ran.err
            again = forge.run(laid)
            if ran.code:
                assert (again.code, _cells(laid.look())) == (right.code, _cells(expected)), again.err
            tried += 1
    assert tried
    record_property("cases", tried)


def _cells(seen):
    """What was read, but for the times of files."""
    return seen["rows"], seen["rejects"]

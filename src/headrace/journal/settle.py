"""What is left to do after a commit, and after a death. Every step may be done again, by anybody, at any time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import disk
from headrace.journal.state import Attempt, State, dump

if TYPE_CHECKING:
    from headrace.journal.log import Journal

__all__ = ["clear_asides", "finish", "lease", "listed"]

CHECKPOINT_EVERY = 32
_ATTEMPT = re.compile(r"(\d{10,})-([0-9a-f]{8})")


def finish(journal: Journal) -> None:
    """Do what is left of commits, remove what dead attempts left, write a checkpoint that is due."""
    staged = journal.root / "staged"
    names = sorted(listed(staged))
    if names:
        state = journal.load()
        for name in names:
            if (found := _ATTEMPT.fullmatch(name)) is not None:
                _settle(journal, Attempt(number=int(found[1]), token=found[2], folder=staged / name), state)
    _sweep_retired(journal)


def _settle(journal: Journal, attempt: Attempt, state: State) -> None:
    entry = journal.entry(attempt.number) if attempt.number <= state.number else None
    if entry is not None and entry["token"] == attempt.token:
        _publish(journal, attempt, entry, state)
        if attempt.number == state.number:
            _write_checkpoint(journal, attempt, state)
        disk.remove_tree(attempt.folder)
        return
    with _dead(attempt.folder) as dead:  # who lives removes its own
        if dead and not _won(journal, attempt):
            disk.remove_tree(attempt.folder)


def _won(journal: Journal, attempt: Attempt) -> bool:
    """Whether an attempt whose maker has gone is committed: perhaps just after `state` was read."""
    return journal.entry_path(attempt.number).exists() and journal.entry(attempt.number)["token"] == attempt.token


def _publish(journal: Journal, attempt: Attempt, entry: Mapping[str, Any], state: State) -> None:
    """Put what is staged in its place; take away what the commit removed. What a later commit removed stays away."""
    account = state.account(entry["pipeline"])
    places = [(f["name"], journal.place(f["name"])) for f in entry["added"] if f["name"] in state.data]
    added = [f["name"] for f in entry["rejects"]["added"] if f["name"] in account.rejects]
    places += [(name, journal.root / "rejects" / name) for name in added]
    for name, place in places:
        _move_in(attempt.staged(name), place)
    folders = {place.parent for _, place in places}
    for name in entry["rejects"]["removed"]:
        disk.remove(journal.root / "rejects" / name)
        folders.add(journal.root / "rejects")
    if entry["removed"] and not journal.overwrites:
        folders |= _retire(journal, [journal.place(name) for name in entry["removed"]])
    for folder in sorted(folders):
        with contextlib.suppress(FileNotFoundError):
            disk.sync_folder(folder)


def _move_in(staged: Path, place: Path) -> None:
    for last in (False, False, True):  # somebody else may just be removing the empty folder that we found
        disk.make_folder(place.parent)
        try:
            disk.move(staged, place)
        except FileNotFoundError:
            if last:
                raise
        else:
            return


def _retire(journal: Journal, paths: Sequence[Path]) -> set[Path]:
    """Take files away: for good, or, while somebody reads here, to where the readers look for them too."""
    retired = journal.root / "retired"
    with _unread(journal) as unread:
        for path in paths:
            if unread:
                disk.remove(path)
            else:
                disk.make_folder(retired)
                disk.move(path, retired / f"{path.name}.retired")
    folders = {path.parent for path in paths}
    for folder in folders:
        _prune(folder, journal.where)
    return folders


def _prune(folder: Path, above: Path) -> None:
    """Remove the folders that a removed partition leaves empty."""
    while above in folder.parents:
        try:
            os.rmdir(folder)  # noqa: PTH106
        except OSError:  # not empty, or gone
            return
        folder = folder.parent


def _sweep_retired(journal: Journal) -> None:
    if names := listed(journal.root / "retired"):
        with _unread(journal) as unread:
            for name in names if unread else ():
                disk.remove(journal.root / "retired" / name)


def _write_checkpoint(journal: Journal, attempt: Attempt, state: State) -> None:
    folder = journal.root / "checkpoints"
    earlier = sorted(journal.numbers(folder))
    if state.number - (earlier[-1] if earlier else 0) < CHECKPOINT_EVERY:
        return
    with contextlib.suppress(FileNotFoundError):  # somebody else has finished the attempt, and written it
        disk.replace(folder / f"{state.number:010}.json", dump(state.to_json()), aside=attempt.folder / "checkpoint")
    for number in earlier[:-1]:  # the last but one stays: somebody may be about to read it
        disk.remove(folder / f"{number:010}.json")


@contextlib.contextmanager
def _unread(journal: Journal) -> Iterator[bool]:
    """Whether nobody holds a `lease`; while this is open, nobody gets a new one."""
    fd = os.open(journal.root / "readers", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield _locked(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _dead(folder: Path) -> Iterator[bool]:
    """Whether the process that made an attempt's folder has gone: nobody holds its lock."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _locked(fd)
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def lease(root: Path) -> int | None:
    """A descriptor that keeps data files readable while it is open, though commits may remove them.

    None where there is no log yet, or the file system cannot lock: then a reader may find that a file has gone.
    """
    try:
        fd = os.open(root / "readers", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    except OSError:
        os.close(fd)
        return None
    return fd


def clear_asides(journal: Journal) -> None:
    """Remove half-written run records. Only for who holds the lock."""
    for name in listed(journal.root / "runs"):
        if name.endswith(".aside"):
            disk.remove(journal.root / "runs" / name)


def listed(folder: Path) -> list[str]:
    """The names in a folder; none where there is no folder."""
    try:
        return os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []

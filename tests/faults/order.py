"""What a power cut could undo, read off a trace: a killed process cannot show a missing fsync.

The kernel may keep what was written, and the names that were made, in any order, until it is told to wait: by fsync of
the file for its bytes, by fsync of the folder for the names in it. A trace is in order where

- a file is on the disk before it gets its place (link, rename);
- all that a commit names is on the disk, bytes and names, before the commit's entry is linked;
- the entry's own name is, before anything else that readers see is touched, and what was taken away goes after that;
- what was staged is cleared only once it is on the disk under its new name; a log is removed only once what it told is;
- at the end nothing waits.

Locks are no data, and run records are best effort: their order is not asked for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import PurePath

from traces import Call

__all__ = ["disorder"]

_NO_DATA = re.compile(r"\.lock$|/lock$|/readers$|headrace/runs(/|$)")
_ENTRY = re.compile(r"headrace/\d{10}\.json$")
_STAGED = re.compile(r"headrace/staged/[^/]+$")
_ASIDE = re.compile(r"headrace/staged/[^/]+/(entry|checkpoint)$")


class _Disk:
    """What is not on the disk yet: bytes by file, names by folder; and the commit whose entry has no lasting name."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.synced: set[str] = set()
        self.dirty: set[str] = set()
        self.names: defaultdict[str, set[str]] = defaultdict(set)
        self.entry: str | None = None
        self.wrong: list[str] = []

    def see(self, call: Call) -> None:
        paths = [path for path in call.paths if path.startswith("target")]
        if call.failed or not paths or any(_NO_DATA.search(path) for path in paths):
            return
        match call.name:
            case "ftruncate" if paths[0].endswith(".duckdb"):
                pass  # DuckDB gives back blocks that nothing on the disk refers to any more: it need not last
            case "write" | "pwrite64" | "writev" | "pwritev" | "ftruncate":
                self._written(paths[0])
            case "fsync" | "fdatasync":
                self._synced(paths[0])
            case "mkdir" | "mkdirat":
                self._named(paths[0])
            case "link" | "linkat" | "rename" | "renameat" | "renameat2":
                self._placed(*paths)
            case "unlink" | "unlinkat" | "rmdir":
                self._gone(paths[0])

    def _written(self, path: str) -> None:
        if path not in self.known:
            self._named(path)
        self.dirty.add(path)

    def _named(self, path: str) -> None:
        self.known.add(path)
        self.names[str(PurePath(path).parent)].add(path)

    def _synced(self, path: str) -> None:
        self.dirty.discard(path)
        self.synced.add(path)
        if self.entry in self.names.pop(path, ()):
            self.entry = None

    def _placed(self, source: str, target: str) -> None:
        if source in self.dirty or source not in self.synced:
            self.wrong.append(f"{target} got its name before it was on the disk")
        if _ENTRY.search(target):
            waiting = self._waiting() - {source}
            self.wrong += [f"{path} was not on the disk when {target} said that it is there" for path in waiting]
            self.entry = target
        else:
            self._after_the_entry(target)
        self._forget(source)
        self._named(target)

    def _gone(self, path: str) -> None:
        if not _ASIDE.search(path):
            self._after_the_entry(path)
        if path.endswith(".wal") and path.removesuffix(".wal") in self.dirty:
            self.wrong.append(f"{path} went before what it told was on the disk")
        if _STAGED.search(path):
            self.wrong += [f"{path} went before {other} was on the disk" for other in self._waiting()]
        self._forget(path)

    def _after_the_entry(self, path: str) -> None:
        if self.entry is not None:
            self.wrong.append(f"{path} was changed before {self.entry} was on the disk")

    def _forget(self, path: str) -> None:
        self.dirty.discard(path)
        self.names.pop(path, None)
        for names in self.names.values():
            names.discard(path)

    def _waiting(self) -> set[str]:
        return self.dirty | {name for names in self.names.values() for name in names}

    def end(self) -> list[str]:
        return [*self.wrong, *(f"{path} was not on the disk at the end" for path in sorted(self._waiting()))]


def disorder(calls: Sequence[Call], there: Collection[str] = ()) -> list[str]:
    """What of the trace is out of order, in words; nothing: all of it is in order. `there` are files that had their
    names before.
    """
    disk = _Disk()
    disk.known.update(there)
    for call in calls:
        disk.see(call)
    return disk.end()

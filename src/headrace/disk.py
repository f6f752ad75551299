"""Durable files on a local disk, in one place.

What is published is whole and survives a power cut: written aside, fsynced, then linked (`create`: only if
absent, the one compare-and-set that a file system has) or renamed (`replace`, `move`), and the folder fsynced.
`os.rename` would overwrite a rival's file without a word, so nothing here creates by renaming.

Every effect is a plain ``os.<call>`` of this module, so that a test can count them and kill at the n-th.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from headrace.errors import ConfigError, HeadraceError, RejectedError

__all__ = [
    "create",
    "make_folder",
    "move",
    "remove",
    "remove_tree",
    "replace",
    "sync_file",
    "sync_folder",
    "touch",
    "translated",
]

_NUL = "embedded null"  # what Python says of it
_OS_ERROR = re.compile(r"os error (\d+)")
_HINTS = {
    errno.ENOSPC: ("the disk is full", "make room, then run again: nothing was half kept"),
    errno.EDQUOT: ("the disk quota is used up", "make room, then run again: nothing was half kept"),
    errno.EFBIG: ("a file grew larger than is allowed here", "raise the limit (ulimit -f), then run again"),
    errno.EACCES: ("permission denied", "give this user the right to read and write there"),
    errno.EPERM: ("not permitted", "give this user the right to read and write there"),
    errno.EROFS: ("the file system is read-only", "mount it for writing, or choose another path"),
    errno.EIO: ("the disk failed to read or write", "look at the disk (dmesg, smartctl), then run again"),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n), then run again"),
    errno.ENFILE: ("too many open files in the whole system", "close some, then run again"),
    errno.ENAMETOOLONG: ("a file name is too long", "choose a shorter path"),
    errno.ENOTDIR: ("a file stands where a folder should be", "choose another path"),
    errno.EISDIR: ("a folder stands where a file should be", "choose another path"),
    errno.ENOENT: ("a file or folder has gone", "is something else cleaning up there? Run again"),
    errno.EOPNOTSUPP: ("the file system cannot do this (links, locks)", "choose a path on a local disk"),
    errno.ENOLCK: ("the file system cannot lock files", "choose a path on a local disk"),
    errno.EXDEV: ("the folder lies on two file systems", "keep the folder on one file system"),
}


@contextlib.contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn what the operating system says no with into a RejectedError that names `folder` (ConfigError: no path).

    Engines' exceptions that carry an ``os error`` number are translated too. HeadraceErrors and all other
    exceptions pass as they are. FileExistsError passes: it is an answer, not a failure.
    """
    try:
        yield
    except (HeadraceError, FileExistsError):
        raise
    except Exception as error:
        number = _errno(error)
        if isinstance(error, ValueError) and _NUL in str(error):
            raise ConfigError(
                f"{str(folder)!r}: no path can hold the character NUL", hint="look at how it is spelled"
            ) from error
        if number is None:
            raise
        what, hint = _HINTS.get(number, (os.strerror(number).lower(), "look at the path and at the disk"))
        raise RejectedError(f"{folder}: {what}", hint=hint, details={"errno": number}) from error


def _errno(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if type(error).__module__.partition(".")[0] in ("polars", "pyarrow", "builtins") and (
        found := _OS_ERROR.search(str(error))
    ):
        return int(found[1])
    return None


def create(path: Path, content: bytes, *, aside: Path) -> None:
    """Create `path` with `content`, durably, only if it is absent; else FileExistsError and nothing changed.

    `aside` is where the content is first written: on the same file system, and nobody else's.
    """
    _write(aside, content)
    try:
        os.link(aside, path)
    finally:
        remove(aside)
    sync_folder(path.parent)


def replace(path: Path, content: bytes, *, aside: Path) -> None:
    """Put `content` at `path`, durably and in one step, whatever stood there."""
    _write(aside, content)
    os.replace(aside, path)  # noqa: PTH105
    sync_folder(path.parent)


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def move(source: Path, target: Path) -> bool:
    """Rename within one file system; False where `source` is not there (someone has moved it already).

    The folders are the caller's to fsync: many moves, one fsync.
    """
    try:
        os.replace(source, target)  # noqa: PTH105  # counted by the fault tests as an os call
    except FileNotFoundError:
        if source.exists():
            raise
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file; it may have gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


def remove_tree(folder: Path) -> None:
    """Remove a folder and what is in it; it may have gone already, wholly or in part. Links are not followed.

    Where somebody writes there meanwhile, the folder stays.
    """
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(Path(entry.path))
        else:
            remove(Path(entry.path))
    try:
        os.rmdir(folder)  # noqa: PTH106
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably. One that is there already is fine."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        os.mkdir(folder)  # noqa: PTH102
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    sync_folder(folder.parent)


def sync_file(path: Path) -> None:
    """Wait until the bytes of a file that someone else has written are on the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def touch(path: Path) -> None:
    """Make an empty file unless there is one."""
    if not path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))

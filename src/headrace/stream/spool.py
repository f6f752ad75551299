"""Rejected rows on their way to the commit: on disk, so that no buffer grows with the number of bad rows.

A frame may be drained more than once in an attempt (a self-join, an engine that asks twice), and a pass may break
off. So rows are kept by pass, and one whole pass is what counts.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING

import polars as pl
import pyarrow as pa

from headrace.errors import RejectedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["Spool", "SpoolPass"]

_PREFIX = "headrace-spool-"
_NAME = re.compile(rf"{_PREFIX}(\d+)-")
_cleared: set[str] = set()


class SpoolPass:
    """One pass of one reading. `write` takes frames of equal schema; `count` is the rows so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pa.RecordBatchStreamWriter | None = None
        self.count = 0

    def write(self, rows: pl.DataFrame) -> None:
        """Keep `rows`. Raises RejectedError when the disk is full."""
        if rows.is_empty():
            return
        table = rows.to_arrow(compat_level=pl.CompatLevel.newest())
        with _disk(self._path):
            if self._writer is None:
                self._writer = pa.ipc.new_stream(self._path, table.schema)
            self._writer.write_table(table)
        self.count += rows.height

    def end(self) -> None:
        """Write what is left; no more rows after that."""
        if self._writer is not None:
            with _disk(self._path):
                self._writer.close()
            self._writer = None


class Spool:
    """The rows of one attempt, on disk in a private folder that goes with `close`, with the object, or, after a
    killed run, at the next start of any run on this machine.

    ``with spool.passed() as p: p.write(frame)`` is one pass. It counts only when the block ends without an
    exception; of several, the one with the most rows is kept. Any number of passes may run at once, in any thread.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._folder: Path | None = None
        self._passes = 0
        self._best: tuple[int, Path] | None = None
        self._remove: weakref.finalize[[Path, IO[bytes]], Spool] | None = None
        self._closed = False

    @property
    def count(self) -> int:
        """Rows of the pass that counts; 0 before one is complete."""
        with self._lock:
            return self._best[0] if self._best else 0

    @contextmanager
    def passed(self) -> Iterator[SpoolPass]:
        """One pass: complete when the block ends, forgotten when it raises."""
        path = self._next()
        one = SpoolPass(path)
        try:
            yield one
            one.end()
        except BaseException:
            with suppress(OSError, RejectedError, UnavailableError):
                one.end()
            path.unlink(missing_ok=True)
            raise
        self._keep(one.count, path)

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows of the pass that counts, a frame at a time; none before a pass is complete."""
        with self._lock:
            self._check_open()
            best = self._best
        if best is None or best[0] == 0:
            return
        with pa.OSFile(str(best[1]), "rb") as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)  # noqa: S101  # a record batch is a frame
                yield frame

    def close(self) -> None:
        """Delete the folder. A second call does nothing."""
        with self._lock:
            self._closed = True
            self._best = None
            if self._remove is not None:
                self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the spool is closed: its rows are gone")

    def _next(self) -> Path:
        with self._lock:
            self._check_open()
            if self._folder is None:
                self._folder, held = _new_folder()
                self._remove = weakref.finalize(self, _clear, self._folder, held)
            self._passes += 1
            return self._folder / f"{self._passes}.arrow"

    def _keep(self, count: int, path: Path) -> None:
        with self._lock:
            if self._closed:
                return
            if self._best is None or count > self._best[0]:
                old, self._best = self._best, (count, path)
                path = old[1] if old else Path(os.devnull)
            if path.parent == self._folder:
                path.unlink(missing_ok=True)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise RejectedError(
            f"rejected rows cannot be written to {path.parent.parent}"
            + (": the disk is full" if full else f": {os.strerror(error.errno or errno.EIO)}"),
            hint="make room there, or set TMPDIR to a folder with more room",
        ) from error


def _new_folder() -> tuple[Path, IO[bytes]]:
    root = Path(tempfile.gettempdir())
    if str(root) not in _cleared:
        _cleared.add(str(root))
        clear_dead(root)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    held = (folder / "held").open("wb")
    _try_lock(held)
    return folder, held


def clear_dead(root: Path) -> None:
    """Delete what killed runs left in `root`: folders whose process is gone and whose lock is free.

    The lock tells apart what the number alone does not: the same number in another container.
    """
    for folder in root.glob(f"{_PREFIX}*"):
        match = _NAME.match(folder.name)
        if match is None or _alive(int(match[1])):
            continue
        with suppress(OSError):
            with (folder / "held").open("ab") as held:
                if not _try_lock(held):
                    continue
            shutil.rmtree(folder)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _try_lock(held: IO[bytes]) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: the process number must do
        return True
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _clear(folder: Path, held: IO[bytes]) -> None:
    held.close()
    shutil.rmtree(folder, ignore_errors=True)

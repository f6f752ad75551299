"""DuckDB files opened for as long as they are needed, by several threads of this process at once.

DuckDB lets one process in. Within it, all connections to a file share one instance, which is either read-only
or not: so this module counts who uses an instance, and a writer waits until the read-only one is gone.

To open a file costs more CPU than a small commit. So while a run holds a table of it, a commit leaves it open for what
follows, the run's record or its next look (`held`), and whoever that is closes it. Between several commits of one run
the source is asked for its next rows first, and other processes are kept out for so long.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from headrace import disk, guard, interruption
from headrace.errors import ConfigError, UnavailableError
from headrace.systems.duckdb.errors import translated

__all__ = ["MEMORY_LIMIT_MB", "held", "reading", "there", "transaction", "unordered", "writing"]

MEMORY_LIMIT_MB = 400
"""At most, unless a commit needs more, and at most two fifths of what this process may use. It spills the rest beside
the file."""
STREAM_THREAD_MB = 30
"""Enough for a thread through which rows only pass, into new row groups."""
_THREADS_MAX = 4  # each needs its share of the memory
_WAIT_SECONDS = 60.0
_BORN_BYTES = 12_288  # three header blocks: DuckDB writes and syncs them before anything else


@dataclass
class _Instance:
    connection: duckdb.DuckDBPyConnection
    writable: bool
    users: int = 0


_instances: dict[str, _Instance] = {}
_holds: Counter[str] = Counter()
_writers: dict[str, threading.Lock] = {}
_gate = threading.Condition()


def there(path: Path) -> bool:
    """Whether there is a database (or a folder, or what is none). A file whose maker died before it was one is not
    there: the next writer makes it anew. Raises RejectedError, ConfigError (no path).
    """
    with disk.translated(path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        with _gate:  # a lock that is given back here would be given back for whoever opens the file meanwhile
            return not _unborn(os.path.realpath(path))


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads. Nothing is created or changed.

    Raises ConfigError (no such file, not DuckDB's), UnavailableError (another process is writing).
    """
    if not there(path):
        raise ConfigError(f"{path}: there is no such file, or an empty one", hint="check the path")
    with translated(str(path)), _using(os.path.realpath(path), writable=False) as connection:
        connection.execute("BEGIN TRANSACTION READ ONLY")  # all that is read is of one snapshot
        yield connection


@contextmanager
def held(path: Path) -> Iterator[None]:
    """While a run holds a table of the file: who is `writing` with `leave` leaves the file open for whoever is next."""
    real = os.path.realpath(path)
    with _gate:
        _holds[real] += 1
    try:
        yield
    finally:
        with _gate:
            _holds[real] -= 1
            if (instance := _instances.get(real)) is not None and not instance.users:
                del _instances[real]
                _close(instance)


@contextmanager
def writing(path: Path, *, leave: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that writes; the only one of this process. The file and its folder are made if they are not there.
    `leave`: see `held`.

    Raises as `reading`, RejectedError (rights, a full disk).
    """
    with disk.translated(path.parent):
        disk.make_folder(path.parent)
    real = os.path.realpath(path)
    with _gate:
        lock = _writers.setdefault(real, threading.Lock())
    with lock, translated(str(path)):
        with _using(real, writable=True, leave=leave) as connection:
            yield connection
        _keep_log(real)


def _keep_log(real: str) -> None:
    """Wait until the name of DuckDB's log is on the disk, where what was committed is in the log alone: the file is
    left open, somebody else of this process has it open, or there was no room to move it into the file. DuckDB waits
    for the bytes only.
    """
    if Path(f"{real}.wal").exists():
        with disk.translated(Path(real)):
            disk.sync_folder(Path(real).parent)


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All that is done inside is kept, or after an exception nothing of it."""
    connection.execute("BEGIN")
    try:
        yield
        _commit(connection)
    except BaseException:
        _roll_back(connection)
        raise


def _commit(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("COMMIT")


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    """After an error nothing may be kept; the error that led here is the one to be heard."""
    try:
        connection.execute("ROLLBACK")
    except (duckdb.Error, RuntimeError):  # no transaction is left, which is as good
        return


def _close(instance: _Instance) -> None:
    instance.connection.close()


@contextmanager
def _using(real: str, *, writable: bool, leave: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    with _gate:
        instance = _join(real, writable=writable)
        instance.users += 1
    well = False
    try:
        connection = instance.connection.cursor()
        try:
            _session(connection)
            with interruption.breakable(connection.interrupt):
                yield connection
        finally:
            connection.close()
        well = True
    finally:
        with _gate:
            instance.users -= 1
            stays = leave and well and _holds[real] > 0
            if not (instance.users or stays):
                if _instances.get(real) is instance:
                    del _instances[real]
                _close(instance)
            _gate.notify_all()


def _join(real: str, *, writable: bool) -> _Instance:
    """The instance of the file, opened now unless somebody has it open. The gate is held."""
    gone = _gate.wait_for(
        lambda: not (writable and real in _instances and not _instances[real].writable), timeout=_WAIT_SECONDS
    )
    if not gone:
        raise UnavailableError(
            f"{real}: a read of this file in this process has not ended", hint="drain or drop its frame, run again"
        )
    if (found := _instances.get(real)) is not None:
        return found
    _instances[real] = _Instance(_open(real, writable=writable), writable)
    return _instances[real]


def _open(real: str, *, writable: bool) -> duckdb.DuckDBPyConnection:
    if writable:
        _unborn(real, clear=True)
        born = not Path(real).exists()
        connection = duckdb.connect(real)
        if born:
            disk.sync_folder(Path(real).parent)
        # whoever has the file open alone has its spill folder alone: what is there, a killed run left
        shutil.rmtree(f"{real}.tmp", ignore_errors=True)
    else:
        try:
            connection = duckdb.connect(real, read_only=True)
        except duckdb.ConnectionException:  # the user has it open for writing in this process
            connection = duckdb.connect(real)
    try:
        connection.execute(f"SET GLOBAL memory_limit = '{limits(stream=False)[0]}MB'")
        connection.execute(f"SET GLOBAL threads = {_threads()}")
        connection.execute("SET GLOBAL autoinstall_known_extensions = false")
        connection.execute("SET GLOBAL autoload_known_extensions = false")
    except BaseException:
        connection.close()
        raise
    return connection


def limits(*, stream: bool) -> list[int]:
    """The memory in MB that a commit is tried with, one after the other: little where rows only pass through, then the
    usual, then all that DuckDB may have (two fifths of what this process may use).
    """
    most = guard.memory_limit() * 2 // 5 >> 20
    usual = min(MEMORY_LIMIT_MB, most)
    return sorted({*([min(STREAM_THREAD_MB * _threads(), usual)] if stream else []), usual, most})


def _threads() -> int:
    return min(guard.cpu_count(), _THREADS_MAX)


@contextmanager
def limited(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterator[None]:
    """So many MB of memory for all that is done inside."""
    connection.execute(f"SET GLOBAL memory_limit = '{limit}MB'")
    try:
        yield
    finally:
        with suppress(duckdb.OutOfMemoryException):  # what it cannot let go of it keeps until the file is closed
            connection.execute(f"SET GLOBAL memory_limit = '{limits(stream=False)[0]}MB'")


@contextmanager
def unordered(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Rows may go into a table in any order: to keep it, DuckDB lets one thread work, unless it has 16 MB for each
    column and each thread more. It is this cursor's own matter: a source in the same file keeps its order.
    """
    connection.execute("SET SESSION preserve_insertion_order = false")
    yield
    connection.execute("RESET SESSION preserve_insertion_order")  # not after an error: the transaction is aborted


def _session(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET python_enable_replacements = false")  # a name is a table, never a Python variable


def _unborn(real: str, *, clear: bool = False) -> bool:
    """Whether its maker died before it was a database: DuckDB would refuse it for ever. `clear` removes it then."""
    try:
        import fcntl

        path = Path(real)
        if not path.is_file() or (size := path.stat().st_size) >= _BORN_BYTES:
            return False
        with path.open("rb+" if clear else "rb") as file:
            if size and file.read(12)[8:] != b"DUCK":
                return False  # somebody's own small file
            # DuckDB locks the file while it makes it
            fcntl.lockf(file, (fcntl.LOCK_EX if clear else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            if clear:
                path.unlink()
            return True
    except (OSError, ImportError):
        return False

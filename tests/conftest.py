"""What every test begins with, and the PostgreSQL that some need."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace import guard, secret

sys.path.insert(0, str(Path(__file__).parent / "postgres_system"))

if TYPE_CHECKING:
    from server import Database, Server


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process remembers the texts that it must not show; another test may use one of them as a plain name."""
    monkeypatch.setattr(secret, "_known", {})


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, str]], None]:
    """Puts this process under limits, on a machine of eight CPUs: the text of its own cgroup, and the files of all."""

    def put(own: str, files: dict[str, str]) -> None:
        there = tmp_path / "cgroups"
        for name, content in {"own": own, **{f"fs/{name}": content for name, content in files.items()}}.items():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            (there / name).write_text(content)
        monkeypatch.setattr(guard, "_OWN_CGROUP", there / "own")
        monkeypatch.setattr(guard, "_CGROUPS", there / "fs")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))

    return put


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, one for each worker. Its DSN is in the file ``postgres.dsn`` of the session's folder too, for
    processes that a test starts.
    """
    from server import running

    with running() as server:
        (tmp_path_factory.getbasetemp() / "postgres.dsn").write_text(server.dsn)
        yield server


@pytest.fixture(scope="session")
def older_postgres() -> Iterator[Server]:
    """A server of the oldest version that is at hand, one for each worker."""
    from server import debian, running

    if (binaries := debian()) is None:
        pytest.skip("no PostgreSQL 15 is installed")
    with running(binaries) as server:
        yield server


@pytest.fixture
def database(postgres: Server) -> Iterator[Database]:
    """A fresh database."""
    with postgres.database() as made:
        yield made

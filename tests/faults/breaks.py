"""The code, broken on purpose, to show that the suite sees it. Each function breaks one thing in its process.

forge.run(laid, broken="folders_are_not_synced")
laid.run(broken="folders_are_not_synced")          # python tests/faults/breaks.py NAME run …
"""

from __future__ import annotations

import sys
from typing import Any


def the_ledger_is_outside_the_transaction() -> None:
    """DuckDB: the rows are committed, and then the ledger."""
    from headrace.systems.duckdb.ledger import Key

    _commit_before(Key)


def the_ledger_is_outside_the_servers_transaction() -> None:
    """PostgreSQL: the same."""
    from headrace.systems.postgres.ledger import Key

    _commit_before(Key)


def _commit_before(key: Any) -> None:
    remember = key.remember

    def late(self: Any, connection: Any, *args: Any, **kwargs: Any) -> None:
        connection.execute("COMMIT")
        connection.execute("BEGIN")
        remember(self, connection, *args, **kwargs)

    key.remember = late


def the_entry_comes_after_the_files() -> None:
    """Files: what readers see is changed before the commit is."""
    from headrace.journal.log import Journal

    commit = Journal._commit

    def early(self: Journal, attempt: Any, entry: Any) -> None:
        for file in entry["added"]:
            place = self.place(file["name"])
            place.parent.mkdir(parents=True, exist_ok=True)
            attempt.staged(file["name"]).replace(place)
        commit(self, attempt, entry)

    Journal._commit = early  # type: ignore[method-assign]


def nobody_locks() -> None:
    """Whoever wants the target has it."""
    import contextlib

    from headrace import guard

    guard.hold = lambda *_: contextlib.nullcontext()  # type: ignore[assignment]


def folders_are_not_synced() -> None:
    """Names are not waited for."""
    from headrace import disk

    disk.sync_folder = lambda _folder: None


def files_are_not_synced() -> None:
    """The bytes of files that an engine has written are not waited for."""
    from headrace import disk

    disk.sync_file = lambda _path: None


def entries_are_not_synced() -> None:
    """The bytes of a commit's entry are not waited for."""
    import os

    from headrace import disk

    write, fsync = disk._write, os.fsync

    def unsynced(*args: Any) -> None:
        os.fsync = lambda _descriptor: None
        try:
            write(*args)
        finally:
            os.fsync = fsync

    disk._write = unsynced


if __name__ == "__main__":
    from headrace.cli import main

    globals()[sys.argv[1]]()
    main(sys.argv[2:])

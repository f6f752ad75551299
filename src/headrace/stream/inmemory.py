"""DuckDBs in memory that are shut off from all but what is registered in them, and how their lack of room is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.errors import RejectedError

if TYPE_CHECKING:
    import duckdb

__all__ = ["in_memory", "no_room"]


def in_memory(
    *, memory: str | None = None, spill: str | None = None, paths: Sequence[str] = (), threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A DuckDB that can reach nothing but what is registered, and the files at `paths`; its time zone is UTC. To be
    closed.

    `memory` (``400MB``) and `threads` are its limits, `spill` the folder for what is beyond the one (None: DuckDB's own
    defaults).
    """
    import duckdb  # few pipelines need it for this

    settings = {
        "memory_limit": memory,
        "temp_directory": spill,
        "threads": threads,
        "TimeZone": "UTC",
        "python_enable_replacements": False,  # a name is a table, never a Python variable
        "allowed_paths": list(paths) or None,
        "enable_external_access": False,  # the last one: folders and paths cannot be set after it
    }
    con = duckdb.connect(":memory:")
    try:
        for name, value in settings.items():
            if value is not None:
                con.execute(f"SET {name} = ?", [value])
    except BaseException:
        con.close()
        raise
    return con


def no_room(what: str) -> RejectedError:
    """That `what` was more than memory and the temporary disk hold."""
    return RejectedError(f"{what} ran out of memory or of temporary disk", hint="free space in the temporary folder")

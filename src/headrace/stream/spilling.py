"""A DuckDB for what may be more than memory holds: values that repeat, rows that are numbered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from headrace import interruption
from headrace.stream import original
from headrace.stream.inmemory import in_memory, no_room

if TYPE_CHECKING:
    import duckdb

__all__ = ["spilling"]

_MEMORY_LIMIT = "300MB"


@contextmanager
def spilling(what: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory that spills beyond its limit, and gives a broken stream's exception back as it was.

    Raises RejectedError where there is no room, saying `what` was done.
    """
    import duckdb  # few pipelines need it for this

    with TemporaryDirectory(prefix="headrace-sql-") as spill, in_memory(memory=_MEMORY_LIMIT, spill=spill) as con:
        try:
            with interruption.breakable(con.interrupt):
                yield con
        except (duckdb.Error, OSError) as error:
            if (cause := original(error)) is not None:
                raise cause from None
            if not isinstance(error, duckdb.OutOfMemoryException | OSError):
                raise  # a defect of ours: it is no lack of room
            raise no_room(what) from error

"""Rows that an engine of SQL reads by itself: a frame over files that DuckDB reads just as well is read by it.

Rows that pass from Polars through Arrow into DuckDB are decoded, laid out anew and handed over by Python; a query that
needs a few sums of them takes twice as long for it. Where a frame is nothing but files that DuckDB reads to the very
same rows, it says so here; whoever has DuckDB at hand may read them in the frame's place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from headrace.frozen import frozen

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Direct", "direct", "give_up", "readable"]

_DIRECT = "_headrace_direct"
_given_up: set[str] = set()


@frozen(kw_only=True)
class Direct:
    """What DuckDB may read in a frame's place: `query`, a SELECT that gives the frame's columns and rows, in order, and
    opens the files at `paths` alone. It does where `shapes`, a query, gives one row: the files are all alike then in
    what DuckDB sees in them.

    `reading` is entered around each query over ALL of the rows, as one collection of the frame: it raises where the
    files have changed, and at its end the frame's counts are true. What the query does not need of the rows is not
    looked at, broken or not. Why a file cannot be read, a collection of the frame says.
    """

    query: str
    shapes: str
    paths: tuple[str, ...]
    reading: Callable[[], AbstractContextManager[None]]


def readable(frame: pl.LazyFrame, make: Callable[[], Direct | None]) -> pl.LazyFrame:
    """`frame`, of which `make` says, when it is to be read, whether and how DuckDB reads it by itself."""
    vars(frame)[_DIRECT] = make
    return frame


def direct(frame: pl.LazyFrame) -> Direct | None:
    """How DuckDB reads the very same rows by itself; None where it must be given them."""
    make: Callable[[], Direct | None] | None = vars(frame).get(_DIRECT)
    found = None if make is None else make()
    return None if found is None or not _given_up.isdisjoint(found.paths) else found


def give_up(read: Direct) -> None:
    """DuckDB broke off in the middle of these files: this process gives it their rows from now on."""
    _given_up.update(read.paths)

"""A lazy frame drawn batch by batch, so that nothing can end it early without a word.

``LazyFrame.collect_batches`` of Polars 2.1 takes a panic inside Polars for the end of the rows: the rest is lost in
silence. ``sink_batches`` raises it; so that runs in a thread of its own here, and hands its batches over.

A frame that is nothing but a generator of ours is drawn from that generator: a query of Polars around it would do
nothing to the rows but let them wait in its buffers, hundreds of megabytes of them under a slow reader.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress

import polars as pl

from headrace import interruption
from headrace.errors import HeadraceError

__all__ = ["Reads", "drawn", "height", "made_of", "of_height", "passed", "said", "tracked"]

Reads = Callable[[list[str] | None, pl.Expr | None, int | None, int | None], Generator[pl.DataFrame]]
"""(columns, predicate, row limit, batch size) → frames. The predicate may use columns outside `columns`; the
frames that come out have passed the predicate and have just `columns`."""

# Polars decodes up to 128 row groups of a Parquet file ahead of who asks: as good as all of it, and gigabytes.
os.environ.setdefault("POLARS_ROW_GROUP_PREFETCH_SIZE", "2")
_WAITING = 2
_LISTEN = 0.2
_MOMENT = 1.0
_LAST_MOMENT = 5.0
_READS = "_headrace_reads"
_HEIGHT = "_headrace_height"
_left_early: list[threading.Thread] = []
_generators = 0
_count = threading.Lock()


def drawn(frame: pl.LazyFrame) -> Generator[pl.DataFrame]:
    """The rows of `frame`, in order, at most two batches ahead of who asks. Nothing starts before that.

    What breaks the query comes out as it was; a panic of Polars as HeadraceError. Close it when it is left early:
    the query then ends at its next batch.
    """
    waiting: queue.Queue[pl.DataFrame | None] = queue.Queue(_WAITING)
    stopped = threading.Event()
    failed: list[BaseException] = []

    def put(rows: pl.DataFrame | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(rows, timeout=0.1)
            except queue.Full:
                continue
            return False
        return True

    def draw() -> None:
        try:
            _hand_over(frame, put)
        except BaseException as error:  # noqa: BLE001  # it is raised in the other thread
            failed.append(error)
        finally:
            put(None)

    thread = threading.Thread(target=draw, name="headrace-draw")
    thread.start()
    try:
        while (rows := _next(waiting)) is not None:
            yield rows
    finally:
        stopped.set()
        _see_off(thread)
    if failed:
        raise said(failed[0])


def _next(waiting: queue.Queue[pl.DataFrame | None]) -> pl.DataFrame | None:
    """What comes next. KeyboardInterrupt once the process is to end, though the query is deep in its next batch."""
    while True:
        with suppress(queue.Empty):
            return waiting.get(timeout=_LISTEN)
        interruption.heed()


def _hand_over(frame: pl.LazyFrame, put: Callable[[pl.DataFrame], bool]) -> None:
    """Give all rows to `put`, until it says that it has enough."""
    if (reads := _reads(frame)) is None:
        frame.sink_batches(put)
        return
    with closing(reads(frame.collect_schema().names(), None, None, None)) as batches:
        for rows in batches:
            if put(rows):
                return


def passed(
    frame: pl.LazyFrame, columns: list[str] | None = None, predicate: pl.Expr | None = None, n_rows: int | None = None
) -> Generator[pl.DataFrame]:
    """What a generator that hands the rows of `frame` on draws them with: as `drawn`, but without a thread of its own
    where the frame is a generator too, which is told what is asked for.
    """
    reads = _reads(frame)
    if reads is None:
        rows = frame if predicate is None else frame.filter(predicate)
        rows = rows if columns is None else rows.select(columns)
        with closing(drawn(rows if n_rows is None else rows.head(n_rows))) as batches:
            yield from batches
        return
    try:
        names = frame.collect_schema().names() if columns is None else columns
        with closing(reads(names, predicate, n_rows, None)) as batches:
            yield from batches
    except pl.exceptions.PanicException as error:
        raise said(error) from None


def made_of(reads: Reads, frame: pl.LazyFrame) -> pl.LazyFrame:
    """`frame`, of which is known that it is what `reads` gives and nothing else."""
    vars(frame)[_READS] = reads
    return frame


def of_height(frame: pl.LazyFrame, rows: int) -> pl.LazyFrame:
    """`frame`, of which is known, unread, that it has so many rows."""
    vars(frame)[_HEIGHT] = rows
    return frame


def height(frame: pl.LazyFrame) -> int | None:
    """How many rows `frame` has; None where only reading would tell."""
    found: int | None = vars(frame).get(_HEIGHT)
    return found


def _reads(frame: pl.LazyFrame) -> Reads | None:
    found: Reads | None = vars(frame).get(_READS)
    return found


def _see_off(thread: threading.Thread) -> None:
    """Give the thread a moment to end. Never more, and in a thread of Polars none at all.

    A generator that nobody closed is finalised wherever the garbage collector happens to run: in one of the threads
    that the query itself needs to come to its end, maybe, or in `thread` itself.
    """
    here = threading.current_thread()
    if not isinstance(here, threading._DummyThread) and here is not thread:  # noqa: SLF001  # the only name for a thread that Python did not start
        thread.join(_LISTEN if interruption.came() else _MOMENT)
    if thread.is_alive():
        _left_early.append(thread)


def tracked(generator: Iterator[pl.DataFrame]) -> Generator[pl.DataFrame]:
    """The generator, which Polars runs in a thread of its own, counted for as long as it lives."""
    global _generators  # noqa: PLW0603  # one process, one count
    with _count:
        _generators += 1
    try:
        yield from generator
    finally:
        with _count:
            _generators -= 1


@atexit.register
def _wait_for_the_last() -> None:
    """At exit, wait for queries that were left early: a thread of Polars that comes back to Python once the
    interpreter has gone takes the whole process down (``FATAL: exception not rethrown``).
    """
    until = time.monotonic() + _LAST_MOMENT
    while time.monotonic() < until and (_generators or any(t.is_alive() for t in _left_early)):
        time.sleep(0.01)


def said(error: BaseException) -> BaseException:
    """The error as it is told: a panic of Polars, whose words may hold a cell's value, as HeadraceError."""
    if isinstance(error, pl.exceptions.PanicException):
        return HeadraceError(
            "Polars broke off in the middle of a query (a panic): a bug in Polars, or in a plugin of it",
            hint="its own words are on stderr (the command shows them with -v); try the transform in smaller steps, "
            "or another version of Polars",
        )
    return error

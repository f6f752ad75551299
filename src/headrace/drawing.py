"""A lazy frame drawn batch by batch, so that nothing can end it early without a word.

``LazyFrame.collect_batches`` of Polars 2.1 takes a panic inside Polars for the end of the rows: the rest is lost in
silence. ``sink_batches`` raises it; so that runs in a thread of its own here, and hands its batches over.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import polars as pl

from headrace.errors import HeadraceError

__all__ = ["drawn", "said"]

_WAITING = 2


def drawn(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """The rows of `frame`, in order, at most two batches ahead of who asks. Nothing starts before that.

    What breaks the query comes out as it was; a panic of Polars as HeadraceError.
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
            frame.sink_batches(put)
        except BaseException as error:  # noqa: BLE001  # it is raised in the other thread
            failed.append(error)
        put(None)

    thread = threading.Thread(target=draw, name="headrace-draw")
    thread.start()
    try:
        while (rows := waiting.get()) is not None:
            yield rows
    finally:
        stopped.set()
        thread.join()
    if failed:
        raise said(failed[0])


def said(error: BaseException) -> BaseException:
    """The error as it is told: a panic of Polars, whose words may hold a cell's value, as HeadraceError."""
    if isinstance(error, pl.exceptions.PanicException):
        return HeadraceError(
            "Polars broke off in the middle of a query (a panic): a bug in Polars, or in a plugin of it",
            hint="its own words are on stderr; try the transform in smaller steps, or another version of Polars",
        )
    return error

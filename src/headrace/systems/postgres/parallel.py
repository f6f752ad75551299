"""Several readings at once, of parts of one table: as many as the process has CPUs for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from headrace import guard

if TYPE_CHECKING:
    from collections.abc import Generator

    import polars as pl

__all__ = ["LARGE_BYTES", "connections", "drawn_together", "page_ranges"]

LARGE_BYTES = 32 << 20
"""Smaller tables are read by one connection: another takes about as long to come about as these bytes."""
_CONNECTIONS_MAX = 4
_WAITING = 2


def connections() -> int:
    """How many connections this process can keep up with: one for each CPU that it may use, up to a few."""
    return min(_CONNECTIONS_MAX, guard.cpu_count())


def page_ranges(pages: int, count: int) -> list[str]:
    """SQL: of the rows of so many pages, in so many parts; the last one has no end, for pages beyond the estimate."""
    step = -(-pages // count)
    starts = [at * step for at in range(count)]
    ends = [f" AND ctid < '({start},0)'::tid" for start in starts[1:]] + [""]
    return [f"ctid >= '({start},0)'::tid{end}" for start, end in zip(starts, ends, strict=True)]


def drawn_together(passes: Sequence[Callable[[], Generator[pl.DataFrame]]]) -> Iterator[pl.DataFrame]:
    """The frames of all passes, each drawn in a thread of its own, as they come. What breaks one breaks all.

    Left early, the passes end at their next frame; nobody waits for that (see
    `headrace.stream.drawing`: the thread that finalises this may be one that they need).
    """
    waiting = _Waiting(len(passes))
    try:
        for one in passes:
            threading.Thread(target=waiting.draw, args=(one,), name="headrace-read").start()
        left = len(passes)
        while left:
            found = waiting.frames.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        waiting.stopped.set()


class _Waiting:
    """Frames that wait to be taken; None says that a pass has come to its end, an exception that it was broken."""

    def __init__(self, passes: int) -> None:
        self.frames: queue.Queue[pl.DataFrame | BaseException | None] = queue.Queue(_WAITING * passes)
        self.stopped = threading.Event()

    def draw(self, one: Callable[[], Generator[pl.DataFrame]]) -> None:
        """One pass, in a thread."""
        try:
            with closing(one()) as frames:
                for frame in frames:
                    if not self._put(frame):
                        return
        except BaseException as error:  # noqa: BLE001  # it is raised in the thread that asks
            self._put(error)
        self._put(None)

    def _put(self, found: pl.DataFrame | BaseException | None) -> bool:
        while not self.stopped.is_set():
            try:
                self.frames.put(found, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

"""Ctrl-C and SIGTERM end the command, whatever it is in the middle of.

Python tells the main thread of a signal between two of its instructions. Deep within an engine there may be none for
hours, and an engine may turn the KeyboardInterrupt into an error of its own. So a thread listens too: what has not
ended by itself within a grace is ended here. A run may die at any instant; the next one carries on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["caught", "end", "listening", "say_by"]

_GRACE = 2.0  # seconds for a run to end by itself
_ENDING = (signal.SIGINT, signal.SIGTERM)

_LAST_WORDS = "interrupted: what was committed stays, the next run goes on from there"

caught: list[int] = []
"""The signals that have come. While there is one, no error is worth telling: it is an engine's word for it."""
_written: list[Callable[[str], str]] = [str]


@contextmanager
def listening() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, and end the process after the grace."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for one in _ENDING:
        signal.signal(one, _interrupt)
    listener = threading.Thread(target=_listen, args=(reader,), name="headrace-signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        os.close(writer)
        listener.join()
        os.close(reader)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    caught.append(number)
    raise KeyboardInterrupt


def _listen(reader: int) -> None:
    while said := os.read(reader, 1):
        if said[0] in _ENDING:
            timer = threading.Timer(_GRACE, end, args=(said[0],))
            timer.daemon = True
            timer.start()


def say_by(write: Callable[[str], str]) -> None:
    """How the last words are written, as one line: a log of JSON has no other lines."""
    _written[:] = [write]


def end(number: int) -> NoReturn:
    """Say so, and end the process at once: threads may still be in the middle of a run."""
    os.write(2, _written[0](_LAST_WORDS).encode() + b"\n")
    if not sys.stdout.closed:
        sys.stdout.flush()
    os._exit(128 + number)

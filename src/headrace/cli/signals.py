"""Ctrl-C and SIGTERM end the command within two seconds, whatever it is in the middle of.

Python tells the main thread of a signal between two of its instructions. Deep within an engine there may be none for
hours, an engine may turn the KeyboardInterrupt into an error of its own, and other threads hear nothing. So a thread
listens too, and breaks off what is under way (see `headrace.interruption`). What has not ended by itself within a grace
is ended here. A run may die at any instant; the next one carries on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from headrace import interruption
from headrace.cli import stderr

__all__ = ["INTERRUPTED", "caught", "end", "ignore", "listening", "say_by"]

INTERRUPTED = 128 + signal.SIGINT
_GRACE = 0.6  # seconds for what is under way to end by itself
_PARTING = 1.1  # and then for its end to be put on record
_FLUSH = 0.1
_ENDING = (signal.SIGINT, signal.SIGTERM)

_LAST_WORDS = "interrupted: what was committed stays, the next run goes on from there"

caught: list[int] = []
"""The signals that have come. While there is one, no error is worth telling: it is an engine's word for it."""
_written: list[Callable[[str], str]] = [str]
_ending = threading.Lock()


@contextmanager
def listening() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, once, and end the process after the grace."""
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


def ignore() -> None:
    """Hear none of them from here on, nor while the interpreter comes to its end: it would give them their default."""
    for one in _ENDING:
        signal.signal(one, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Once: who is impatient, or a terminal and a parent that both pass Ctrl-C on, must not break the breaking off."""
    caught.append(number)
    if len(caught) == 1:
        interruption.begin()
        sys.unraisablehook = _unheard  # it may come where nothing can be raised: in a finaliser
        if not _importing(frame):  # DuckDB's module aborts the process; it is heeded right afterwards
            raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _unheard(_: object) -> None:
    """Nothing to be told."""


def _listen(reader: int) -> None:
    while said := os.read(reader, 1):
        if said[0] in _ENDING:
            threading.Thread(target=_see_to_it, args=(said[0],), name="headrace-ending", daemon=True).start()
            return


def _see_to_it(number: int) -> None:
    threading.excepthook = _unheard
    interruption.break_off(_GRACE)
    interruption.say_goodbye(_PARTING)
    end(number)


def say_by(write: Callable[[str], str]) -> None:
    """How the last words are written, as one line: a log of JSON has no other lines."""
    _written[:] = [write]


def end(number: int) -> NoReturn:
    """Say so, and end the process at once: threads may still be in the middle of a run."""
    if not _ending.acquire(blocking=False):
        threading.Event().wait()  # another thread is about to
    parting = threading.Thread(target=_part, daemon=True)  # whoever reads may have stopped to
    parting.start()
    parting.join(_FLUSH)
    os._exit(128 + number)


def _part() -> None:
    with suppress(OSError):
        stderr.write(_written[0](_LAST_WORDS).encode() + b"\n")
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()

"""One word to all that is under way in the process: break off. It comes from who ends the process.

Python raises KeyboardInterrupt in the main thread alone, and an engine in the middle of a query hears nothing. So what
works or waits in whatever thread says here how it is broken off, and runs how their end is put on record.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

__all__ = ["begin", "break_off", "breakable", "came", "heed", "parting", "pause", "say_goodbye"]

_AGAIN = 0.1  # seconds until what has begun another step meanwhile is broken off too

_Act = Callable[[], object]

_came: list[bool] = []  # no lock and no event: a signal's handler sets it in the middle of whatever
_breaks: dict[object, _Act] = {}
_partings: dict[object, _Act] = {}


def begin() -> None:
    """The word has come. From a signal's handler too."""
    _came.append(True)


def came() -> bool:
    """Whether the word has come. It stays: the process ends."""
    return bool(_came)


def heed() -> None:
    """Raise KeyboardInterrupt once the word has come."""
    if _came:
        raise KeyboardInterrupt


def pause(seconds: float) -> None:
    """Wait. Raises KeyboardInterrupt as soon as the word comes, in any thread."""
    until = time.monotonic() + seconds
    heed()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _AGAIN))
        heed()


@contextmanager
def breakable(act: _Act) -> Iterator[None]:
    """While this is open, `act` is how it is broken off: called from another thread, and perhaps several times."""
    key = object()
    _breaks[key] = act
    try:
        yield
    finally:
        del _breaks[key]


@contextmanager
def parting(act: _Act) -> Iterator[None]:
    """While this is open, `act` puts its end on record, should the process not wait for it any longer."""
    key = object()
    _partings[key] = act
    try:
        yield
    finally:
        del _partings[key]


def break_off(seconds: float) -> None:
    """Break off all that is under way now, for so long: what begins from here on (a record of the end) goes on."""
    begin()
    until = time.monotonic() + seconds
    _together([partial(_insist, key, act, until) for key, act in list(_breaks.items())], seconds)
    time.sleep(max(0.0, until - time.monotonic()))


def _insist(key: object, act: _Act, until: float) -> None:
    """Again and again: it may be between two steps, and begin the next one."""
    while key in _breaks and time.monotonic() < until:
        act()
        time.sleep(_AGAIN)


def say_goodbye(seconds: float) -> None:
    """Put on record the ends of those that have not come to it, within so many seconds."""
    _together(list(_partings.values()), seconds)


def _together(acts: Iterable[_Act], seconds: float) -> None:
    """Do all of these, each in a thread of its own; wait for so long and no longer."""
    threads = [threading.Thread(target=_tried, args=(act,), daemon=True) for act in acts]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _tried(act: _Act) -> None:
    with suppress(Exception):
        act()

"""One live line on a terminal: rows, bytes, rate, files done of all, memory."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TextIO

from headrace.cli.output import legible
from headrace.events import Event, Progress, RunFinished, RunStarted, Warned

__all__ = ["ProgressLine"]

_EVERY = 0.1  # seconds between repaints


class ProgressLine:
    """An observer that repaints one line of a terminal; several runs at once are summed on it."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._lock = threading.Lock()
        self._runs: dict[str, Progress | RunStarted] = {}
        self._began = time.monotonic()
        self._painted = 0.0

    def __call__(self, event: Event) -> None:
        """Repaint, at most ten times a second."""
        with self._lock:
            if isinstance(event, RunFinished):
                self._runs.pop(event.run, None)
                self._clear()
            elif isinstance(event, Progress | RunStarted):
                self._runs[event.run] = event
                if time.monotonic() - self._painted >= _EVERY:
                    self._paint()
            elif isinstance(event, Warned):
                self._clear()  # the warning's own line comes next

    def _paint(self) -> None:
        self._painted = time.monotonic()
        seconds = max(self._painted - self._began, 0.001)
        known = [one for one in self._runs.values() if isinstance(one, Progress)]
        rows, size = sum(one.rows for one in known), sum(one.bytes for one in known)
        files, total = sum(one.files for one in known), sum(one.files_total for one in known)
        parts = [", ".join(sorted({one.pipeline for one in self._runs.values()}))]
        parts += [f"{rows:,} rows", f"{size / 1e6:,.0f} MB", f"{size / 1e6 / seconds:,.0f} MB/s"]
        parts += [f"{files:,} of {total:,} files"] if total else []
        parts += [f"{memory:,} MB memory"] if (memory := _memory_mb()) else []
        text = legible(" · ".join([*parts, f"{seconds:.0f} s"]))
        self._out.write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
        self._out.flush()

    def _clear(self) -> None:
        self._out.write("\r\x1b[K")
        self._out.flush()


def _memory_mb() -> int:
    """The process's resident memory now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no import for one number
            return int(file.read().split()[1]) * 4096 // 1_000_000
    except OSError:
        return 0

"""W5: `headrace --help`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ALLOWED = 0.120
"""Seconds that it may take longer than its floor."""


def headrace(data: Path, out: Path) -> None:
    """The command."""
    del data, out
    _become(str(Path(sys.executable).with_name("headrace")), "--help")


def floor_python(data: Path, out: Path) -> None:
    """Python, which does nothing."""
    del data, out
    _become(sys.executable, "-c", "pass")


def _become(*command: str) -> None:
    """In place of this process, so that both pay the same for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execv(command[0], command)  # noqa: S606


RESULT = None

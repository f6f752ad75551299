"""Small programs for `test_kill.py`: one that can be killed at any effect, and some that cannot."""

from __future__ import annotations

import os
from pathlib import Path


def careful(folder: Path, rows: int = 3) -> None:
    """Write aside, sync, put in place."""
    for n in range(rows):
        target = folder / f"row-{n}.txt"
        if target.exists():
            continue
        aside = folder / "aside.tmp"
        with aside.open("w") as file:
            file.write(str(n))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)


def leaves_files(folder: Path, rows: int = 3) -> None:
    """Atomic, but what a killed run put aside stays for ever."""
    for n in range(rows):
        target = folder / f"row-{n}.txt"
        if target.exists():
            continue
        aside = folder / f"aside-of-process{os.getpid()}.tmp"
        aside.write_text(str(n))
        aside.rename(target)


def doubles(folder: Path, rows: int = 3) -> None:
    """The rows first and the position after them, in two files."""
    position = folder / "position"
    data = folder / "data"
    for n in range(int(position.read_text()) if position.exists() else 0, rows):
        with data.open("a") as file:
            file.write(f"{n}\n")
        aside = folder / "position.tmp"
        aside.write_text(str(n + 1))
        aside.replace(position)


def breaks(folder: Path, rows: int = 3) -> None:
    """Fails on what a killed run left."""
    (folder / "made").mkdir()
    careful(folder, rows)


def calm_failure(folder: Path, rows: int = 3) -> None:
    """Fails in any case."""
    raise ZeroDivisionError


def look(folder: Path, rows: int = 3) -> list[str]:
    return [p.read_text() for p in sorted(folder.glob("row-*")) or sorted(folder.glob("data"))]

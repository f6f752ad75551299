"""History and rejects, for people."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.cli.output import table

if TYPE_CHECKING:
    import polars as pl

__all__ = ["history_text", "rejects_text"]


def history_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """Commits and runs, a line each."""
    if not entries:
        return "no runs yet"
    wanted = ("kind", "number", "run", "status", "at", "started", "seconds", "rows", "rejected", "error")
    columns = [name for name in wanted if any(entry.get(name) is not None for entry in entries)]
    return table(entries, columns, width=shutil.get_terminal_size((200, 24)).columns)


def rejects_text(frame: pl.DataFrame) -> str:
    """Rejected rows, a line each, and how many there are."""
    if frame.is_empty():
        return "no rejected rows"
    columns = ["stage", "source", "file", "line", "rules", "row"]
    shown = [name for name in columns if frame[name].null_count() < frame.height]
    text = table(frame.to_dicts(), shown, width=shutil.get_terminal_size((200, 24)).columns)
    return f"{text}\n{frame.height:,} rejected rows"

"""History and rejects, for people."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.cli.output import table

if TYPE_CHECKING:
    import polars as pl

__all__ = ["history_text", "rejects_json", "rejects_text"]

_COUNTS = ("rows", "inserted", "updated", "deleted", "rejected", "dropped")


def history_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """Commits and runs, a line each, newest first."""
    if not entries:
        return "no runs yet"
    rows = [_entry(entry) for entry in entries]
    always = ("at", "what")
    columns = [name for name in rows[0] if name in always or any(row[name] is not None for row in rows)]
    return table(rows, columns, width=_width())


def _width() -> int | None:
    """Of the terminal; what goes into a file or a pipe is not cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    commit = entry.get("kind") == "commit"
    counts = entry.get("counts") or {} if commit else {}
    error = entry.get("error") or {}
    record = entry.get("record") or {}
    counts = {**counts, "dropped": record.get("dropped") or None} if commit else {}
    return {
        "at": str(entry.get("at") or entry.get("started") or "")[:19].replace("T", " "),
        "what": f"commit {entry.get('number')}" if commit else "run",
        "status": entry.get("write") if commit else str(entry.get("status", "")).replace("_", " "),
        **{name: counts.get(name) for name in _COUNTS},
        "seconds": None if entry.get("seconds") is None else f"{entry['seconds']:.1f}",
        "run": entry.get("run"),
        "note": error.get("message") or record.get("reason"),
    }


def rejects_json(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rejected rows as JSON: a row that could be read is an object of exact texts, a line that could not a text."""
    return [
        {**one, "row": one["row"] if one["stage"] == "parse" else json.loads(one["row"])} for one in frame.to_dicts()
    ]


def rejects_text(frame: pl.DataFrame) -> str:
    """Rejected rows, a line each, and how many there are."""
    if frame.is_empty():
        return "no rejected rows"
    columns = ["stage", "source", "file", "line", "rules", "row"]
    shown = [name for name in columns if frame[name].null_count() < frame.height]
    text = table(frame.to_dicts(), shown, width=_width())
    return f"{text}\n{frame.height:,} rejected rows"

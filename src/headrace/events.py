"""What happens in a run, as frozen values given to observers. Never a cell's value in an event.

Progress lines, logs, metrics, traces and notifications are observers of this one stream; the engine knows
none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from headrace.frozen import frozen

__all__ = ["CommitApplied", "Event", "Observer", "Progress", "RunFinished", "RunStarted", "Warned"]


@frozen(kw_only=True)
class Event:
    """The root: which pipeline, which run."""

    pipeline: str
    run: str

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON, its kind under ``event``."""
        return {"event": type(self).__name__, **asdict(self)}


@frozen(kw_only=True)
class RunStarted(Event):
    """A run has begun; nothing has been read."""


@frozen(kw_only=True)
class Progress(Event):
    """Rows have passed to the destination. Counts are of this run; `files_total` is 0 where not known."""

    rows: int
    bytes: int
    files: int
    files_total: int


@frozen(kw_only=True)
class Warned(Event):
    """Something that a person should know and that does not stop the run."""

    message: str


@frozen(kw_only=True)
class CommitApplied(Event):
    """A commit is durable in the destination."""

    number: int
    rows: int
    rejected: int
    dropped: int = 0


@frozen(kw_only=True)
class RunFinished(Event):
    """The run has ended; `status` is loaded, nothing_new, failed or skipped."""

    status: str
    seconds: float
    error: dict[str, Any] | None = None


Observer = Callable[[Event], None]

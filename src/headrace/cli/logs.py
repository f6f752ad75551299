"""Log lines on stderr, as text or as JSON: an observer of the engine's events, and the library's loggers."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.cli import signals
from headrace.cli.output import legible
from headrace.events import CommitApplied, Event, Progress, RunFinished, RunStarted, Warned
from headrace.secret import masked

if TYPE_CHECKING:
    from headrace.cli.options import Common

__all__ = ["EventLog", "begin", "error"]

_log = logging.getLogger("headrace")
_current = threading.local()
_EVERY = 10.0  # seconds between progress lines off a terminal


def begin(options: Common) -> None:
    """Send the library's log lines to stderr, in the format and from the level that the options ask for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if options.log_format == "json" else _Text())
    handler.addFilter(_with_run)
    level = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}[options.verbosity]
    if options.verbosity == 0 and options.log_format == "text" and sys.stderr.isatty():
        level = logging.WARNING  # the progress line and the report say the rest
    for name in ("headrace", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    if options.log_format == "json":
        signals.say_by(_interrupted)
    if options.log_format == "json" and not sys.warnoptions:
        warnings.simplefilter("default")
        logging.captureWarnings(True)


def _interrupted(words: str) -> str:
    record = logging.LogRecord(_log.name, logging.WARNING, "", 0, words, None, None)
    record.run = getattr(_current, "run", None)
    return _Json().format(record)


def error(problem: Mapping[str, Any]) -> None:
    """A log line for an error that ends a run or the command."""
    exception = {key: problem.get(key) for key in ("type", "message", "hint", "details")}
    fields = {"run": problem.get("run"), "exception": exception}
    _log.error("%s", problem["message"], extra={"fields": fields})


class EventLog:
    """An observer that writes a line for each event; progress every ten seconds."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Log the event."""
        fields = event.to_dict()
        extra = {"fields": fields}
        match event:
            case RunStarted():
                _current.run = event.run
                self._said[event.run] = time.monotonic()
                _log.info("%s: run %s started", event.pipeline, event.run, extra=extra)
            case Progress():
                if time.monotonic() - self._said.get(event.run, 0.0) >= _EVERY:
                    self._said[event.run] = time.monotonic()
                    _log.info(
                        "%s: %s rows, %s MB read",
                        event.pipeline,
                        f"{event.rows:,}",
                        f"{event.bytes / 1e6:,.0f}",
                        extra=extra,
                    )
            case Warned():
                _log.warning("%s: %s", event.pipeline, event.message, extra=extra)
            case CommitApplied():
                text = f"{event.pipeline}: commit {event.number}: {event.rows:,} rows, {event.rejected:,} rejected"
                text += f", {event.dropped:,} dropped" if event.dropped else ""
                _log.info("%s", text, extra=extra)
            case RunFinished() if signals.caught:
                pass  # its last words are said when the process ends
            case RunFinished():
                text = f"{event.pipeline}: {event.status.replace('_', ' ')} in {event.seconds:.1f} s"
                del fields["error"]  # it has its own line, when the command ends
                _log.info("%s", text, extra=extra)
                _current.run = None


def _with_run(record: logging.LogRecord) -> bool:
    record.run = getattr(record, "fields", {}).get("run") or getattr(_current, "run", None)
    return True


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = legible(masked(record.getMessage())).replace("\n", "\\n")
        return f"{clock} {record.levelname.lower()} {text}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {
            "time": stamp,
            "level": record.levelname.lower(),
            "logger": record.name,
            "run": getattr(record, "run", None),
            "message": masked(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = {"type": record.exc_info[0].__name__}
        return json.dumps(line, ensure_ascii=False, default=str)

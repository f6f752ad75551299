"""Errors, sorted by what the catcher does next.

    HeadraceError(message, *, hint)                                    exit code
    ├── ConfigError          fix the pipeline                                 2
    ├── DataError            look at the rows                                 3
    │   ├── ContractError    rows broke the contract
    │   ├── SchemaError      columns or types do not fit
    │   └── UnheldError      a column's type cannot hold a value: read as text, it can
    ├── UnavailableError     not now; the only one that is retried            4
    │   └── CircuitOpenError
    ├── ConflictError        another headrace run has it, or moved it         5
    ├── TransformError       your function failed; ``__cause__`` is yours     1
    └── RejectedError        the system said no: rights, a full disk          1

A message says what and where, the hint says what to do next. Neither ever holds a cell's value or a
driver's raw text: both may carry secrets. Each system translates its driver's exceptions at its own edge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from headrace.secret import masked

__all__ = [
    "CircuitOpenError",
    "ConfigError",
    "ConflictError",
    "ContractError",
    "DataError",
    "HeadraceError",
    "RejectedError",
    "SchemaError",
    "TransformError",
    "UnavailableError",
    "UnheldError",
    "did_you_mean",
    "meant",
]


class HeadraceError(Exception):
    """The root of every error that headrace raises on purpose.

    `message` says what is wrong and where; `hint` what to do about it; `details` are plain JSON values for
    machines (a file, a line, counts by rule). `report` is the `RunReport` of the run that it ended, with the commits
    made before (None: no run had begun).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(masked(message))
        self.message = masked(message)
        self.hint = masked(hint)
        self.details = masked(details or {})
        self.report: Any = None

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON: ``{"type", "message", "hint", "exit_code", "details"}``."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
            "details": self.details,
        }


class ConfigError(HeadraceError):
    """The pipeline as written cannot work: fix it."""

    exit_code = 2


class DataError(HeadraceError):
    """The rows are not what they should be: look at them."""

    exit_code = 3


class ContractError(DataError):
    """Rows broke the contract, and the contract says that this fails the run."""


class SchemaError(DataError):
    """Columns or types do not fit the contract or the target."""


class UnheldError(DataError):
    """Rows of `source` have values that the natural types of `columns` cannot hold (an infinite date).

    A run answers it by reading these columns as text from the start (`flow.Range.as_text`): nothing was committed. The
    message names the columns; the run's warning is it, and that they are read as text.
    """

    def __init__(self, message: str, *, source: str, columns: Iterable[str], hint: str = "") -> None:
        self.source, self.columns = source, frozenset(columns)
        super().__init__(message, hint=hint, details={"source": source, "columns": sorted(self.columns)})


class UnavailableError(HeadraceError):
    """A system cannot answer now: a network, a foreign lock, a file that is still changing. Retried."""

    exit_code = 4


class CircuitOpenError(UnavailableError):
    """The circuit breaker is open; the message says when it will try again."""


class ConflictError(HeadraceError):
    """Another headrace run holds the pipeline, or has moved it since it was inspected."""

    exit_code = 5


class TransformError(HeadraceError):
    """A transform failed; ``__cause__`` is what it raised."""


class RejectedError(HeadraceError):
    """The system said no and will say no again: missing rights, a full disk."""


def meant(word: str, known: Iterable[str]) -> str | None:
    """Which of the `known` words is close to one that is not among them."""
    import difflib  # for a run that fails anyway

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def did_you_mean(word: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """The hint for a word that is not among the `known` ones: which of them was meant, else `otherwise`."""
    near = meant(word, known)
    return otherwise if near is None else f"did you mean {near!r}?"

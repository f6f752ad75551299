"""History (slowly changing dimension, type 2)."""

from __future__ import annotations
from typing import Any


def history(load: Any, write: Any, at: Any) -> None:
    raise NotImplementedError

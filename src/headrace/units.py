"""Sizes and durations as people write them: ``64MB``, ``1GiB``, ``90s``, ``10m``."""

from __future__ import annotations

import re

from headrace.errors import ConfigError

__all__ = ["seconds", "size"]

_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def size(text: str | int) -> int:
    """Bytes, from a number or from text such as ``"64MB"`` or ``"1GiB"``. Raises ConfigError."""
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return text
    found = _QUANTITY.fullmatch(str(text))
    unit = _BYTES.get(found[2].upper()) if found else None
    if found is None or unit is None or not (number := int(float(found[1]) * unit)):
        raise ConfigError(f"{text!r} is not a size", hint='write e.g. "64MB" or "1GiB"')
    return number


def seconds(text: str | float, *, key: str | None = None) -> float:
    """Seconds, from a number or from text such as ``"90s"``, ``"10m"`` or ``"1d"``.

    Raises ConfigError, which names `key`.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    found = _QUANTITY.fullmatch(str(text))
    unit = _SECONDS.get(found[2] or "s") if found else None
    if found is None or unit is None:
        what = f'"{key}" cannot be {text!r}' if key else f"{text!r} is no duration"
        raise ConfigError(what, hint='write e.g. "30s", "5m" or "1h"')
    return float(found[1]) * unit

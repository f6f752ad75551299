"""Texts that must not be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

__all__ = ["Secret"]


class Secret(str):
    """A text that came from the environment or from a file: a str for drivers, ``***`` to every repr.

    `reference` is how the config names it (``{"env": "PASSWORD"}``): that is what is encoded, never the text.
    """

    __slots__ = ("reference",)
    reference: Mapping[str, Any]

    def __new__(cls, text: str, reference: Mapping[str, Any]) -> Self:
        """The text, and how the config names it."""
        made = super().__new__(cls, text)
        made.reference = dict(reference)
        return made

    def __repr__(self) -> str:
        return "'***'"

    def __getnewargs__(self) -> tuple[str, Mapping[str, Any]]:  # type: ignore[override]  # copies keep the mask
        return str.__str__(self), self.reference

"""Texts that must not be shown, and the one place where they are taken out of what is said.

A driver needs the text itself, and a path or a message that was made of it no longer knows where it came from. So the
texts are remembered for the whole process, and `masked` looks for them in all that leaves it: errors, reports, plans,
events, logs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

__all__ = ["Secret", "masked"]

T = TypeVar("T")

_LEAST = 4  # characters: shorter ones are no secrets, and would be found in every number

_known: dict[str, str] = {}
"""How the config names each text: ``${NAME}``."""


class Secret(str):
    """A text that came from the environment or from a file: a str for drivers, ``${NAME}`` to every repr.

    `reference` is how the config names it (``{"env": "PASSWORD"}``): that is what is encoded, never the text. `base` is
    the folder that the text is relative to, where it is a path.
    """

    __slots__ = ("reference",)
    reference: Mapping[str, Any]

    def __new__(cls, text: str, reference: Mapping[str, Any], *, base: Path | None = None) -> Self:
        """The text, and how the config names it."""
        made = super().__new__(cls, text)
        made.reference = dict(reference)
        _known.update(_forms(made, base))
        return made

    @property
    def name(self) -> str:
        """What is shown for it."""
        return f"${{{self.reference['env']}}}" if "env" in self.reference else f"${{file {self.reference['file']}}}"

    def __repr__(self) -> str:
        return repr(self.name)

    def __getnewargs__(self) -> tuple[str, Mapping[str, Any]]:  # type: ignore[override]  # copies keep the mask
        return str.__str__(self), self.reference


def masked(value: T) -> T:
    """`value`, a text or plain JSON, with the config's names in the place of the secret texts.

    A text is found where it stands as a word of its own, or is the whole; one of fewer than four characters where it is
    the whole.
    """
    found: Any = value
    if isinstance(value, str):
        found = _masked(value) if _known else value
    elif isinstance(value, Mapping):
        found = {key: masked(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        found = type(value)(masked(item) for item in value)
    made: T = found
    return made


def _masked(text: str) -> str:
    if text in _known:
        return _known[text]
    found = sorted((form for form in _known if len(form) >= _LEAST and form in text), key=len, reverse=True)
    if not found:
        return text
    pattern = "|".join(rf"{_edge(form[0], '<')}{re.escape(form)}{_edge(form[-1], '')}" for form in found)
    return re.sub(pattern, lambda hit: _known[hit[0]], text)


def _edge(char: str, behind: str) -> str:
    return rf"(?{behind}!\w)" if char.isalnum() or char == "_" else ""


def _forms(secret: Secret, base: Path | None) -> dict[str, str]:
    """The text, and what becomes of it where it is a path: from the root, the folder above its patterns, its folder."""
    text = str(secret)
    forms = {text}
    found = {}
    if "/" in text and "\n" not in text:
        root = Path(os.path.abspath(base or Path()))  # noqa: PTH100 - no links resolved
        whole = os.path.abspath(root / os.path.expanduser(text))  # noqa: PTH100, PTH111 - the same; it may be no path
        fixed = {re.split(r"[^/]*[*?\[]", path)[0].rstrip("/") for path in (text, whole)}
        forms |= {whole, *(os.path.normpath(path) for path in {text, *fixed} if "/" in path.strip("/"))}
        folder = Path(whole).parent
        if len(folder.parts) > 2 and not root.is_relative_to(folder):  # noqa: PLR2004 - / and a name: no secret
            found[str(folder)] = f"{secret.name}/.."
    return found | {form: secret.name for form in forms if form.strip()}

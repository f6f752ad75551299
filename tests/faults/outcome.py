"""What must be the same after runs that were disturbed and after the calm one, where there were more runs of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenario import Laid

__all__ = ["outcome"]


def outcome(laid: Laid) -> dict[str, Any]:
    """All that is left, but for the files of runs, and for what names the very database that was read."""
    seen = laid.look()
    del seen["identities"]
    positions = {name: position.get("cursor", position) for name, position in seen["positions"].items()}
    folder = [name for name in seen["folder"] if "/runs/" not in name]
    return {**seen, "positions": positions, "folder": folder}

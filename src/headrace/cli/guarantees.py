"""The tables of docs/guarantees.md, from the code: ``python -m headrace.cli.guarantees docs/guarantees.md``."""

from __future__ import annotations

import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from headrace.config.shapes import DESTINATIONS
from headrace.engine.guarantees import WRITES
from headrace.traits import DestinationTraits

__all__ = ["renewed"]

_BETWEEN = re.compile(r"(<!-- from the code -->\n).*?(<!-- to here -->)", re.DOTALL)


def renewed(document: str) -> str:
    """The document with what stands between its marks as the code has it now."""
    return _BETWEEN.sub(lambda found: found[1] + "\n".join(_lines()) + "\n" + found[2], document)


def _lines() -> Iterator[str]:
    yield "| write | what holds, whatever instant a run dies at | by what means |"
    yield "|---|---|---|"
    for write, row in WRITES.items():
        yield f"| {write} | {row.promise} | {row.because.format(state='*together*')} |"
    yield ""
    yield "*Together*: the position is committed together with the rows, as the destination does it:"
    yield ""
    yield "| destination | a commit is | meanwhile | refused, and what to take instead |"
    yield "|---|---|---|---|"
    for name, reference in DESTINATIONS.items():
        one = pkgutil.resolve_name(reference)
        refused: dict[str, list[str]] = {}
        for write in dict.fromkeys(row.partition(" ")[0] for row in WRITES):
            if (instead := one.supports(one, write)) is not None:  # no destination is needed to say so
                refused.setdefault(instead, []).append(write)
        words = "; ".join(f"{', '.join(writes)}: {instead}" for instead, writes in refused.items())
        traits = DestinationTraits.of(one)
        yield f"| {name} | {traits.at_once} | {traits.readers or ''} | {words} |"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(renewed(file.read_text("utf-8")), "utf-8")

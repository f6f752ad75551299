"""What is promised, and by what means: the one table from which `plan` and docs/guarantees.md speak.

A guarantee follows from the write (what holds of the rows), the destination (how a commit is one step, and what readers
see meanwhile) and the sources (what a later run will not see).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headrace.frozen import frozen
from headrace.traits import DestinationTraits
from headrace.writes import Append, History, Merge, Partitions, Recompute, Replace, Write

if TYPE_CHECKING:
    from headrace.protocols import Destination

__all__ = ["WRITES", "Guarantee", "guarantee"]


@frozen(kw_only=True)
class Guarantee:
    """`promise` is what holds whatever happens to a run, `because` by what means; ``{state}`` in it stands for how
    position and rows are one commit.
    """

    promise: str
    because: str


WRITES: Mapping[str, Guarantee] = {
    "append": Guarantee(promise="each row is loaded exactly once", because="{state}"),
    "merge": Guarantee(
        promise="each key holds its newest row", because="{state}; rows are compared with the target by latest_by"
    ),
    "merge without latest_by": Guarantee(
        promise="each key holds its last read row", because="{state}; a row that is read again replaces itself"
    ),
    "replace": Guarantee(
        promise="the table is always one whole read", because="it is swapped in one step, and {state}"
    ),
    "partitions": Guarantee(
        promise="each partition is always one whole batch", because="partitions are swapped in one step, and {state}"
    ),
    "history": Guarantee(
        promise="each version of a key is kept once",
        because="{state}; a version that is read again is the same version",
    ),
    "recompute": Guarantee(
        promise="each group is what a full run would give", because="groups are replaced in one step, and {state}"
    ),
}
"""By the write's type; of a merge that has no order, by its second name."""


def guarantee(write: Write, destination: Destination, *, misses: Sequence[str] = ()) -> tuple[str, str]:
    """The guarantee that follows, and why. `misses` is what the sources say that a later run will not see."""
    found = WRITES[_row(write)]
    traits = DestinationTraits.of(destination)
    emptied = isinstance(write, Replace) and write.truncate  # the destination's notes say what is seen then
    readers = None if emptied else traits.readers
    state = f"the position is committed together with the rows ({traits.at_once})"
    because = found.because.format(state=state)
    return (
        "; but not seen: ".join([found.promise, *([", ".join(misses)] if misses else [])]),
        "; ".join([because, *([readers] if readers else [])]),
    )


def _row(write: Write) -> str:
    match write:
        case Merge(latest_by=()):
            return "merge without latest_by"
        case Append() | Merge() | Replace() | Partitions() | History() | Recompute():
            return write.type

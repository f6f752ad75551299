"""What a source or a destination may have besides the methods of its protocol, and what holds where it has it not.

`protocols` tells what each of these means. They are looked for here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from headrace.frozen import frozen
from headrace.schema import in_words

if TYPE_CHECKING:
    from headrace.contract import Contract
    from headrace.cursor import Cursor, Deletes, Latest
    from headrace.flow import Batch, TableChange
    from headrace.protocols import Destination, Source
    from headrace.schema import Field

__all__ = ["DestinationTraits", "SourceTraits"]


@frozen(kw_only=True)
class SourceTraits:
    """What a source may have besides: see `protocols.Source`."""

    read: Literal["new", "all"] = "new"
    contract: Contract | None = None
    cursor: Cursor | None = None
    current: bool = False
    latest: Latest | None = None
    deletes: Deletes | None = None
    rereads: frozenset[str] | None = None
    cuts: bool = False
    outward: frozenset[str] = frozenset()
    matching: Callable[[str], Sequence[str]] | None = None
    together: Callable[..., Iterator[Mapping[str, Batch]]] | None = None
    reparse: Callable[..., Batch] | None = None

    @staticmethod
    def of(source: Source) -> SourceTraits:
        """What this one has."""
        return SourceTraits(**_had(source, SourceTraits))


@frozen(kw_only=True)
class DestinationTraits:
    """What a destination may have besides: see `protocols.Destination`."""

    type: str
    path: object = None
    table: str | None = None
    schema: str | None = None
    adopt: bool = False
    native: str | None = None
    truncates: bool = False
    at_once: str = "one transaction"
    readers: str | None = None
    takes: Callable[[Field, Field], bool] = lambda _held, _rows: False
    ddl: Callable[[TableChange], Sequence[str]] = lambda change: in_words(change.changes)
    notes: Callable[[TableChange], Sequence[str]] = lambda _change: ()

    @staticmethod
    def of(destination: Destination) -> DestinationTraits:
        """What this one has."""
        return DestinationTraits(**{"type": type(destination).__name__, **_had(destination, DestinationTraits)})


def _had(thing: object, traits: Any) -> dict[str, Any]:
    """The traits that the thing has, by name."""
    found = {one.name: getattr(thing, one.name, ...) for one in fields(traits)}
    return {name: value for name, value in found.items() if value is not ...}

"""The `table` source: what another headrace pipeline wrote, whole commits only.

It is read whole whenever its last commit is another one, whoever made it, and not at all when it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.errors import ConfigError, DataError
from headrace.frozen import frozen
from headrace.paths import Place

if TYPE_CHECKING:
    from headrace.contract import Contract
    from headrace.flow import Batch, Position, Range, Snapshot
    from headrace.protocols import Destination

__all__ = ["TableSource"]


@frozen(kw_only=True)
class TableSource:
    """The table of the pipeline called `of`, in the same project.

    In Python give its `destination` too; in JSON it is found by the name. `read`: ``new`` makes a run worth while
    when the table has a new commit; ``all`` is a look-up. `rename` maps columns to new names.
    """

    type: ClassVar[str] = "table"
    outward: ClassVar[frozenset[str]] = frozenset(("of", "read", "destination"))
    of: str
    read: Literal["new", "all"] = "new"
    rename: Mapping[str, str] = field(default_factory=dict)
    contract: Contract | None = None
    destination: Destination | None = field(default=None, metadata={"json": False})
    base: Path | None = None

    def batches(self, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
        """ONE batch: the whole table as of its last commit; `news.empty` where that was read before."""
        del snapshot
        from headrace.cursor.batches import Counted
        from headrace.flow import Batch, Frame, News, Retold, Superseded
        from headrace.schema import renamed

        if self.destination is None:
            raise ConfigError(f"there is no pipeline {self.of!r} to read a table of", hint="is it in this folder?")
        there = self.destination.inspect(self.of)
        if there.scan is None:
            raise DataError(f"pipeline {self.of!r} has written no table yet", hint=f"run {self.of!r} first")
        counted = Counted(there.scan())
        names = counted.lazy.collect_schema().names()
        new = dict(zip(names, renamed(names, self.rename), strict=True))
        lazy = counted.lazy.rename(new) if self.rename else counted.lazy
        known = {} if there.schema is None else there.schema.origins
        origins = {self.rename.get(c, c): origin for c, origin in known.items()}
        # the id too: a table that was made anew, or restored and written on, may be at the same number
        at = {"commit": there.number, "id": there.head}
        yield Batch(
            frame=Frame(lazy=lazy, origins=origins),
            news=News(empty=range.after == at, facts={"commit": there.number}),
            position=lambda: at,
            counts=counted.counts,
            rejects=lambda: Retold(superseded=(Superseded(source=name),)),
            files=tuple,
            complete=True,
        )

    def confirm(self, positions: Mapping[str, Position]) -> None:
        """Nothing waits for it."""

    def identity(self) -> Any:
        """The pipeline it reads of."""
        return {"type": self.type, "of": self.of}

    def places(self) -> Sequence[Place]:
        """The pipeline that it names, and where that one's table lies."""
        there = self.destination.place() if self.destination is not None else None
        return (Place(system="pipeline", where=self.of), *((there,) if there is not None else ()))

"""Whether the transforms have read their sources to the end.

A position says that all before it was read. Where a transform takes only some of the new rows (``head``, a LIMIT), the
others would lie behind a position that says so, and no later run would look for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import polars as pl

from headrace.errors import DataError
from headrace.flow import Frame
from headrace.stream import scan_generator
from headrace.stream.direct import Direct, direct, readable
from headrace.stream.drawing import drawn, passed

__all__ = ["Passes"]


@dataclass
class _Pass:
    """What the passes over one source's new rows came to: whether there was one, one to the end, one under a limit that
    left rows over.
    """

    frame: pl.LazyFrame
    begun: bool = False
    ended: bool = False
    limited: bool = False

    def elsewhere(self, found: Direct | None) -> Direct | None:
        """The same, watched."""
        if found is None:
            return None

        @contextmanager
        def reading() -> Iterator[None]:
            self.begun = True
            with found.reading():
                yield
            self.ended = True

        return replace(found, reading=reading)


@dataclass
class Passes:
    """The new rows of the sources, watched on their way into the transforms. `loaded` is how many rows came out."""

    loaded: int = 0
    _of: dict[str, _Pass] = field(default_factory=dict)

    def watched(self, name: str, frame: Frame) -> Frame:
        """The frame, that tells how far it is read."""
        one = self._of[name] = _Pass(frame.lazy)

        def read(
            columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
        ) -> Iterator[pl.DataFrame]:
            one.begun = True
            left = n_rows
            more = None if n_rows is None else n_rows + 1  # the one tells that there are more
            for batch in passed(frame.lazy, columns, predicate, more):
                if left is not None and batch.height > left:
                    one.limited = True
                    yield batch.head(left)
                    return
                left = None if left is None else left - batch.height
                yield batch
            one.ended = True

        watched = scan_generator(read, frame.lazy.collect_schema())
        return replace(frame, lazy=readable(watched, lambda: one.elsewhere(direct(frame.lazy))))

    def counted(self, watch: Callable[[int], None]) -> Callable[[int], None]:
        """`watch`, which is called with the number of rows that pass to the destination; they are counted."""

        def told(rows: int) -> None:
            self.loaded += rows
            watch(rows)

        return told

    def finish(self, *, stands_alone: bool) -> None:
        """See to it that all was read: what nobody asked for, since the result has no row (a join whose other side is
        empty) or since each increment `stands_alone`, is read here, for the position to be true.

        Raises DataError where rows would be lost.
        """
        for name, one in self._of.items():
            if not one.begun or one.ended:
                continue
            if (one.limited or self.loaded) and not stands_alone:
                raise DataError(
                    f"the transforms do not read source {name!r} to its end: no later run would load the rows after it",
                    hint="take the limit (head, LIMIT) out: a run loads all that is new; preview shows some rows",
                    details={"source": name},
                )
            for _ in drawn(one.frame):
                pass
            one.ended = True

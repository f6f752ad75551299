"""The batch of a source that is a table: all its rows at every run, or what lies after a cursor's last value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from headrace.flow import Batch, Counts, Frame, News, Position, Retold, Superseded
from headrace.stream import asked, scan_generator
from headrace.stream.drawing import height, passed

if TYPE_CHECKING:
    import polars as pl

    from headrace.cursor.tracking import Tracked

__all__ = ["Counted", "Parted", "everything", "since"]


def everything(lazy: pl.LazyFrame, *, name: str) -> Batch:
    """All rows, at every run; whether they have changed nobody knows."""
    counted = Counted(lazy)
    return Batch(
        frame=Frame(lazy=counted.lazy),
        news=News(empty=None),
        position=dict,
        counts=counted.counts,
        rejects=lambda: Retold(superseded=(Superseded(source=name),)),
        files=tuple,
        complete=True,
    )


def since(part: Tracked, whole: Tracked, *, news: News, state: str, name: str) -> Batch:
    """The rows of `part`, those after the last position; `whole` are all rows. `state` is kept in the position."""
    read = Parted(part, whole)

    def rejects() -> Retold:
        """Of the rows without a cursor's value; of the whole, everything was judged anew."""
        if read.whole_ended:
            return Retold(frames=whole.rejects, superseded=(Superseded(source=name),))
        return Retold(frames=part.rejects, superseded=(Superseded(source=name, stages=("cursor",)),))

    def position() -> Position:
        told = read.drained.position()
        return {**told, "state": state} if told else told

    return Batch(
        frame=Frame(lazy=read.part),
        news=news,
        position=position,
        counts=lambda: Counts(rows=read.drained.rows()),
        rejects=rejects,
        files=tuple,
        whole=Frame(lazy=read.whole),
        complete=False,
    )


class Parted:
    """The two readings by a cursor that a batch offers, as frames that say when they come to their end: `part`, what
    lies after the last position, and `whole`, all rows.
    """

    def __init__(self, part: Tracked, whole: Tracked) -> None:
        self._tracked = {"part": part, "whole": whole}
        self._came: set[str] = set()
        self.part, self.whole = (Counted(one.lazy, self._end(name)).lazy for name, one in self._tracked.items())

    def _end(self, name: str) -> Callable[[], None]:
        return lambda: self._came.add(name)

    @property
    def ended(self) -> bool:
        """Whether one of them has come to its end."""
        return bool(self._came)

    @property
    def whole_ended(self) -> bool:
        """Whether all rows were read."""
        return "whole" in self._came

    @property
    def drained(self) -> Tracked:
        """The one that tells of the batch: the part, unless the whole alone was read."""
        return self._tracked["whole" if self._came == {"whole"} else "part"]


class Counted:
    """A frame that counts its rows, whatever a filter that is pushed down leaves of them (see `flow.Counts`), and says
    when a pass has come to its end. A filter goes on to where rows are left unread for it only if the frame is known to
    have so many rows.
    """

    def __init__(self, frame: pl.LazyFrame, ended: Callable[[], None] = lambda: None) -> None:
        self._frame, self._ended = frame, ended
        self._height = height(frame)
        self._rows = 0
        self.lazy = scan_generator(self._read, frame.collect_schema())

    def counts(self) -> Counts:
        """The rows of the fullest pass that came to its end."""
        return Counts(rows=self._rows)

    def _read(
        self, columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        if predicate is None or self._height is not None:
            yield from self._pass(columns, predicate, n_rows)
            return
        needed = None if columns is None else list(dict.fromkeys((*columns, *predicate.meta.root_names())))
        yield from asked(self._pass(needed, None, None), columns, predicate, n_rows)

    def _pass(self, columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None) -> Iterator[pl.DataFrame]:
        count = 0
        for batch in passed(self._frame, columns, predicate, n_rows):
            count += batch.height
            yield batch
        if n_rows is None or count < n_rows:  # else the limit may have cut it
            self._rows = max(self._rows, count if self._height is None else self._height)
            self._ended()

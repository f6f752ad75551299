"""The batch of a source that is a table: all its rows at every run, or what lies after a cursor's last value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from headrace.flow import Batch, Counts, Frame, News, Position, Retold, Superseded
from headrace.stream import scan_generator
from headrace.stream.drawing import drawn

if TYPE_CHECKING:
    import polars as pl

    from headrace.cursor.tracking import Tracked

__all__ = ["everything", "since"]


def everything(lazy: pl.LazyFrame, *, name: str) -> Batch:
    """All rows, at every run; whether they have changed nobody knows."""
    counter = _Counter(lazy)
    return Batch(
        frame=Frame(lazy=counter.lazy),
        news=News(empty=None),
        position=dict,
        counts=lambda: Counts(rows=counter.rows),
        rejects=lambda: Retold(superseded=(Superseded(source=name),)),
        files=tuple,
        complete=True,
    )


def since(part: Tracked, whole: Tracked, *, news: News, state: str, name: str) -> Batch:
    """The rows of `part`, those after the last position; `whole` are all rows. `state` is kept in the position."""
    drained: set[str] = set()
    lazy = _Counter(part.lazy, lambda: drained.add("part")).lazy
    all_rows = _Counter(whole.lazy, lambda: drained.add("whole")).lazy

    def read() -> Tracked:
        return whole if drained == {"whole"} else part

    def rejects() -> Retold:
        """Of the rows without a cursor's value; of the whole, everything was judged anew."""
        if "whole" in drained:
            return Retold(frames=whole.rejects, superseded=(Superseded(source=name),))
        return Retold(frames=part.rejects, superseded=(Superseded(source=name, stages=("cursor",)),))

    def position() -> Position:
        told = read().position()
        return {**told, "state": state} if told else told

    return Batch(
        frame=Frame(lazy=lazy),
        news=news,
        position=position,
        counts=lambda: Counts(rows=read().rows()),
        rejects=rejects,
        files=tuple,
        whole=Frame(lazy=all_rows),
        complete=False,
    )


class _Counter:
    """A frame that counts the rows of its fullest pass, and says when a pass has come to its end."""

    def __init__(self, lazy: pl.LazyFrame, ended: Callable[[], None] = lambda: None) -> None:
        self.rows = 0
        self._lazy, self._ended = lazy, ended
        self.lazy = scan_generator(self._read, lazy.collect_schema())

    def _read(
        self, columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        count = 0
        frame = self._lazy
        left = n_rows
        needed = (
            None if columns is None else {*columns, *(predicate.meta.root_names() if predicate is not None else ())}
        )
        for batch in drawn(frame if needed is None else frame.select(sorted(needed))):
            count += batch.height
            rows = batch if predicate is None else batch.filter(predicate)
            rows = rows if columns is None else rows.select(columns)
            rows = rows if left is None else rows.head(left)
            left = None if left is None else left - rows.height
            yield rows
            if left == 0:  # cut, not ended
                return
        self.rows = max(self.rows, count)
        self._ended()

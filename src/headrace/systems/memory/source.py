"""The memory source: frames that are appended as time goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.errors import ConfigError
from headrace.flow import Batch, Counts, Frame, News, Position, Range, Retold, Snapshot, Superseded
from headrace.frozen import frozen
from headrace.paths import Place

if TYPE_CHECKING:
    import polars as pl

    from headrace.contract import Contract
    from headrace.cursor import Cursor, Latest

__all__ = ["MemorySource"]


@frozen(kw_only=True)
class MemorySource:
    """Rows from data frames. New is what stands after the rows already read: append frames to make news.

    `frames` is at least one frame (an empty one gives the schema); the list may grow between runs, and what
    was read must not change. A position is ``{"row": n}``, the number of rows read. `latest` (keys, by) says
    that a row supersedes an earlier one of the same keys: then `whole` holds the newest row of each key (of
    equal ones the last), and `former` those that the new rows supersede. Without it no row supersedes another.
    `name` is the identity: another name is another source.
    """

    type: ClassVar[str] = "memory"
    cuts: ClassVar[bool] = True
    outward: ClassVar[frozenset[str]] = frozenset(("frames", "read", "name"))
    frames: Sequence[pl.DataFrame]
    read: Literal["new", "all"] = "new"
    latest: Latest | None = None
    name: str | None = None
    contract: Contract | None = None
    cursor: Cursor | None = field(default=None, init=False)

    def batches(self, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:  # noqa: ARG002  # the protocol's
        """Rows after ``range.after``, as one batch, or cut between frames at about `batch_bytes`.

        Raises ConfigError when there are no frames, or fewer rows than were read.
        """
        if not self.frames:
            raise ConfigError(f"source {name!r} has no frames", hint="give an empty frame: it has a schema")
        frames = tuple(self.frames)  # what is appended while we read is news for the next run
        total = sum(frame.height for frame in frames)
        after = int((range.after or {}).get("row", 0))
        if after > total:
            raise ConfigError(
                f"source {name!r} has {total} rows, and {after} were read",
                hint="has the source been restored from a backup? run it with --full-refresh",
            )
        for until in _cuts(frames, after, range.batch_bytes):
            yield self._batch(frames, after, until, name)
            after = until

    def _batch(self, frames: Sequence[pl.DataFrame], after: int, until: int, name: str) -> Batch:
        told: set[Superseded] = set()

        def new() -> Iterator[pl.DataFrame]:
            yield from _between(frames, after, until)

        def whole() -> Iterator[pl.DataFrame]:
            yield from self._newest(frames, until)
            told.add(Superseded(source=name))

        def former() -> Iterator[pl.DataFrame]:
            yield from self._superseded(frames, after, until)

        rows = until - after
        size = sum(int(frame.estimated_size()) for frame in new())
        return Batch(
            frame=_frame(new, frames[0]),
            news=News(rows=rows, bytes=size, empty=rows == 0, facts={"rows_before": after}),
            position=lambda: {"row": until},
            counts=lambda: Counts(rows=rows, bytes=size),
            rejects=lambda: Retold(superseded=tuple(told)),
            files=lambda: (),
            whole=_frame(whole, frames[0]),
            former=_frame(former, frames[0]),
        )

    def _newest(self, frames: Sequence[pl.DataFrame], until: int) -> Iterator[pl.DataFrame]:
        import polars as pl

        rows = pl.concat([frames[0].clear(), *_between(frames, 0, until)])
        if self.latest is None:
            yield rows
            return
        by = [c for c in self.latest.by if c in rows.columns]
        ordered = rows.with_row_index("_headrace_at").sort([*by, "_headrace_at"], nulls_last=False)
        last = ordered.unique(self.latest.keys, keep="last", maintain_order=True)
        yield last.sort("_headrace_at").drop("_headrace_at")

    def _superseded(self, frames: Sequence[pl.DataFrame], after: int, until: int) -> Iterator[pl.DataFrame]:
        import polars as pl

        if self.latest is None:
            yield frames[0].clear()
            return
        keys = pl.concat([frames[0].clear(), *_between(frames, after, until)]).select(self.latest.keys).unique()
        for before in self._newest(frames, after):
            yield before.join(keys, on=list(self.latest.keys), how="semi", nulls_equal=True)

    def confirm(self, positions: Mapping[str, Position]) -> None:
        """Nothing to do: a frame does not go away."""

    def identity(self) -> Any:
        """``{"memory": name}``, None without a name."""
        return None if self.name is None else {"memory": self.name}

    def places(self) -> Sequence[Place]:
        """No pipeline writes it."""
        return ()


def _frame(rows: Any, like: pl.DataFrame) -> Frame:
    from headrace.stream import scan_batches

    return Frame(lazy=scan_batches(rows, like.schema))


def _between(frames: Sequence[pl.DataFrame], after: int, until: int) -> Iterator[pl.DataFrame]:
    """The rows numbered `after` to `until` (exclusive), frame by frame."""
    start = 0
    for frame in frames:
        low, high = max(after, start), min(until, start + frame.height)
        if low < high:
            yield frame.slice(low - start, high - low)
        start += frame.height


def _cuts(frames: Sequence[pl.DataFrame], after: int, batch_bytes: int | None) -> Iterator[int]:
    """Where batches end. The last one ends with the rows, and there is one where nothing is new too."""
    end, size, total = 0, 0, sum(frame.height for frame in frames)
    for frame in frames:
        end += frame.height
        if end > after:
            size += int(frame.estimated_size())
        if batch_bytes is not None and size >= batch_bytes and after < end < total:
            yield end
            size = 0
    yield total

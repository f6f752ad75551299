"""Reading the sources: which batches make one increment, and how long a source stays open."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from headrace.engine.decisions import Reading, refuse_renamed, refuse_was
from headrace.engine.increment import Context, Increment, increment
from headrace.engine.unseen import nothing, unseen
from headrace.flow import Batch, Range, Snapshot

if TYPE_CHECKING:
    from headrace.engine.bundle import Bundle
    from headrace.pipeline import Pipeline
    from headrace.protocols import Source

__all__ = ["increments", "opened"]


def opened(source: Source, range: Range, snapshot: Snapshot, name: str, until: ExitStack) -> Iterator[Batch]:
    """The source's batches, whose frames can be read for as long as `until` is open."""
    stream = source.batches(range, snapshot, name)
    until.callback(getattr(stream, "close", lambda: None))
    return iter(stream)


def increments(pipeline: Pipeline, snapshot: Snapshot, how: Reading, context: Context) -> Generator[Increment | Bundle]:
    """What is new since the snapshot, one increment for each commit to come; at least one, maybe empty.

    The target is inspected again before each further increment, once the one before it has been dealt with. The
    generator is the sources' lifetime: close it, and what they hold open is closed.

    Raises ConfigError for a source that the ledger may know by another name, and for a `was` that names none.
    """
    if pipeline.tables:
        from headrace.engine.bundle import bundles

        yield from bundles(pipeline, snapshot, how, context)
        return
    named = pipeline.named_sources
    refuse_was(pipeline, named)
    if not how.full_refresh:
        refuse_renamed(pipeline, snapshot, how.drivers)

    def read(name: str, until: ExitStack) -> Iterator[Batch]:
        after = None if how.full_refresh else snapshot.positions.get(name)
        cut = how.batch_bytes if name in how.drivers else None
        since = Snapshot() if how.full_refresh else snapshot
        text = how.as_text.get(name, frozenset())
        asked = Range(after=after, ties=how.ties, batch_bytes=cut, as_text=text, reader=pipeline.name)
        return opened(named[name], asked, since, name, until)

    with ExitStack() as reads:
        driving = {name: read(name, reads) for name in how.drivers}
        first = True
        while batches := {name: batch for name, stream in driving.items() if (batch := next(stream, None)) is not None}:
            if context.inspect is not None and not first:
                snapshot = context.inspect()
            with ExitStack() as looks:
                batches |= {name: next(read(name, looks)) for name in named if name not in batches}
                batches = {name: batches[name] for name in named}
                empties = how.full_refresh and first
                if unseen(how, batches):
                    yield nothing(pipeline, how, batches, context, empties=empties)
                else:
                    yield increment(pipeline, snapshot, how, batches, context, empties=empties)
            if len(driving) > 1:
                return  # several sources are read in step, and give one batch each
            first = False

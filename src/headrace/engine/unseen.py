"""A pipeline whose sources have no file yet: not even their columns are known, so that nothing can be bound to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.engine.increment import Context, Increment, increment
from headrace.flow import Batch, Snapshot
from headrace.traits import SourceTraits
from headrace.writes import Append

if TYPE_CHECKING:
    from headrace.engine.decisions import Reading
    from headrace.pipeline import Pipeline

__all__ = ["nothing", "unseen"]


def unseen(how: Reading, batches: Mapping[str, Batch]) -> bool:
    """Whether not even the columns are known of any source that drives. Where some are, what the others lack is told
    by what needs it.
    """
    return not any(batches[name].frame.lazy.collect_schema() for name in how.drivers)


def nothing(
    pipeline: Pipeline, how: Reading, batches: Mapping[str, Batch], context: Context, *, empties: bool
) -> Increment:
    """The empty increment of such a pipeline; a warning says what could not be checked. `empties`: see `increment`.

    It is that of one of the sources alone, appended as it is: there is nothing to transform, to judge or to key.
    """
    name = how.drivers[0]
    source: Any = pipeline.named_sources[name]
    if SourceTraits.of(source).contract is not None:
        source = replace(source, contract=None)
    bare = replace(pipeline, source=None, sources={name: source}, transforms=(), contract=None, write=Append())
    none = {n: replace(b, news=replace(b.news, empty=True)) for n, b in batches.items()}
    told = replace(none[name], complete=False)  # an append of what is read whole each time would be refused
    alone = replace(how, drivers=(name,), whole=False)
    made = increment(bare, Snapshot(), alone, {name: told}, context, empties=empties)
    names = ", ".join(map(repr, how.drivers))
    said = f"{names} has no rows and no columns yet: transforms, contract and keys cannot be checked"
    return replace(
        made,
        pipeline=pipeline,
        batches=none,
        drivers=how.drivers,
        change=replace(made.change, write=pipeline.write),
        said=(said, *made.said),
    )

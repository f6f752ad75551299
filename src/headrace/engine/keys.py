"""The write as it is once the sources are known: its keys, its order, the columns that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.contract import Versions
from headrace.errors import ConfigError
from headrace.traits import SourceTraits
from headrace.writes import Merge, Partitions, Write

if TYPE_CHECKING:
    import polars as pl

    from headrace.flow import Batch
    from headrace.pipeline import Pipeline
    from headrace.protocols import Source

__all__ = ["keyed", "require", "settled", "versions"]


def keyed(pipeline: Pipeline, drivers: Sequence[str], batches: Mapping[str, Batch]) -> Pipeline:
    """The pipeline with its merge's keys: the source's own, where none were given. Raises ConfigError."""
    write = pipeline.write
    if not isinstance(write, Merge) or write.keys:
        return pipeline
    if len(drivers) > 1 or not (keys := batches[drivers[0]].keys):
        raise ConfigError(
            "merge has no keys, and the source tells of none",
            hint='say "write": {"type": "merge", "keys": ["id"]}; or {"type": "replace"} where rows have no key',
        )
    return replace(pipeline, write=replace(write, keys=keys))


def settled(pipeline: Pipeline, columns: Sequence[str]) -> Write:
    """The write with `latest_by` settled: the source's cursor, where it is among the rows and none was given."""
    write = pipeline.write
    if isinstance(write, Merge) and not write.latest_by:
        sources = [SourceTraits.of(source) for source in pipeline.named_sources.values()]
        for one in sources:
            if one.latest is not None and one.read == "new":
                return replace(write, latest_by=one.latest.by)
        cursors = [one.cursor for one in sources if not one.current]
        found = tuple(c.column for c in cursors if c is not None and c.column in columns)
        if len(found) == 1:
            return replace(write, latest_by=found)
    return write


def versions(write: Write, columns: Sequence[str]) -> Versions | None:
    """Which rows of a merge are versions of one: its last one is read again with those that are new."""
    whole = isinstance(write, Merge) and {*write.keys, *write.latest_by} <= set(columns)
    return Versions(keys=write.keys, by=write.latest_by) if isinstance(write, Merge) and whole else None


def require(keys: Sequence[str], lazy: pl.LazyFrame, write: str) -> None:
    """Raises ConfigError unless the rows have the columns that the write names."""
    columns = lazy.collect_schema().names()
    for key in keys:
        if key not in columns:
            have = ", ".join(columns)
            raise ConfigError(f"{write} names the column {key!r}, and the rows have none", hint=f"they have: {have}")


def refuse_parts(write: Write, name: str, source: Source) -> None:
    """By a cursor new rows are read, and again those of its last value: a partition is whole only where it is that.

    Raises ConfigError.
    """
    cursor = SourceTraits.of(source).cursor
    if cursor is None or not isinstance(write, Partitions) or set(cursor.columns) <= set(write.by):
        return
    raise ConfigError(
        f"source {name!r}: by the cursor {', '.join(cursor.columns)} only a partition's new rows are read, and they"
        " would replace all of its rows",
        hint='use merge, or recompute by the same columns; or a cursor that is among "by"; or leave "cursor" out',
    )

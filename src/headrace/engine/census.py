"""Deletes by comparing: which rows of a source are asked for their keys, and the column that marks soft deletes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from headrace.errors import ConfigError
from headrace.flow import Batch, Census
from headrace.stream import FrameStream
from headrace.traits import SourceTraits
from headrace.writes import Merge

if TYPE_CHECKING:
    from headrace.contract import Contract
    from headrace.cursor import Deletes
    from headrace.pipeline import Pipeline

__all__ = ["MARK", "census", "marked", "refuse_deletes"]

MARK = "_deleted_at"
_MARKED = pl.Datetime("us", "UTC")


def refuse_deletes(pipeline: Pipeline) -> None:
    """Deletes are a merge's, and of one source. Raises ConfigError with the way out."""
    found = _deleting(pipeline)
    if not found:
        return
    if len(found) > 1:
        raise ConfigError(
            f"sources {', '.join(map(repr, found))} all have deletes: a row of the result has no one source",
            hint="keep the deletes of the source whose keys the merge has",
        )
    if not isinstance(pipeline.write, Merge):
        raise ConfigError(
            f"source {next(iter(found))!r} has deletes, and {pipeline.write.type} does not delete by key",
            hint='use merge; a history closes the keys that are gone with "close_absent", replace needs no deletes',
        )


def marked(pipeline: Pipeline, rows: pl.LazyFrame) -> pl.LazyFrame:
    """The rows with the column that says whether they are deleted, where that is how deletes are told: none of them is.

    Raises ConfigError where they have such a column.
    """
    if not any(deletes.as_ == "soft" for deletes in _deleting(pipeline).values()):
        return rows
    if MARK in rows.collect_schema():
        raise ConfigError(f"the rows have a column {MARK!r}, which soft deletes need for themselves", hint="rename it")
    return rows.with_columns(pl.lit(None, dtype=_MARKED).alias(MARK))


def census(
    pipeline: Pipeline,
    batches: Mapping[str, Batch],
    keys: tuple[str, ...],
    transformed: Callable[[Mapping[str, pl.LazyFrame]], pl.LazyFrame],
) -> Census | None:
    """All keys of the result, where a comparison is due: those that the transforms make of every row of the source.

    Rows that a contract rejects are among them: a key that cannot be loaded is not gone. The columns have the types
    that the contracts give them, as the table's; a key that cannot be one was never loaded.
    """
    for name, deletes in _deleting(pipeline).items():
        if (every := batches[name].census) is not None:
            frames = {n: (b.whole or b.frame).lazy for n, b in batches.items()} | {name: every.lazy}
            contracts = pipeline.contracts
            rows = transformed({n: _cast(contracts.get(n), frame) for n, frame in frames.items()})
            stream = partial(FrameStream, _cast(contracts.get(None), rows).select(keys).drop_nulls())
            return Census(keys=stream, max=deletes.max, mark=MARK if deletes.as_ == "soft" else None)
    return None


def _cast(contract: Contract | None, rows: pl.LazyFrame) -> pl.LazyFrame:
    """The rows with the contract's types; NULL where a value has none of them."""
    from headrace.contract.checks import bind

    return rows if contract is None else rows.with_columns(**bind(contract, rows.collect_schema()).casts)


def _deleting(pipeline: Pipeline) -> dict[str, Deletes]:
    named = {name: SourceTraits.of(source).deletes for name, source in pipeline.named_sources.items()}
    return {name: deletes for name, deletes in named.items() if deletes is not None}

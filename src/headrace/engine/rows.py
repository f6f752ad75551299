"""The sources' rows behind their contracts, and what the transforms make of them: no row is read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from headrace.contract.screen import Screen
from headrace.engine.census import marked
from headrace.engine.decisions import Reading
from headrace.engine.keys import settled, versions
from headrace.engine.passes import Passes
from headrace.errors import ConfigError
from headrace.flow import PLACE, Batch, Frame
from headrace.frozen import frozen
from headrace.traits import SourceTraits
from headrace.transform import Transformed, transform
from headrace.writes import Recompute

if TYPE_CHECKING:
    from headrace.contract import Contract
    from headrace.pipeline import Pipeline

__all__ = ["Replayed", "Rows", "bound", "source_screen"]


@frozen(kw_only=True)
class Replayed:
    """Quarantined rows on their second way: the `ids` that leave the quarantine with this commit, and `result`, the
    rows that re-enter at the result's contract (their schema, the transform's own, given), each with its place.
    """

    ids: tuple[str, ...]
    result: Callable[[pl.Schema], pl.LazyFrame | None]


@frozen
class Rows:
    """The sources' rows behind their contracts, and what the transforms make of them: `lazy`, with what a replay adds
    to it; `placed` is the same with the rows' places, where no transform has lost them. `everything` gives what the
    transforms make of other rows.
    """

    screens: Mapping[str, Screen]
    transformed: Transformed
    lazy: pl.LazyFrame
    placed: pl.LazyFrame | None
    origins: Mapping[str, str]
    everything: Callable[[Mapping[str, pl.LazyFrame]], pl.LazyFrame]

    @staticmethod
    def of(
        pipeline: Pipeline, how: Reading, batches: Mapping[str, Batch], replayed: Replayed | None, passes: Passes
    ) -> Rows:
        """As this pipeline reads them. Raises ConfigError, SchemaError, TransformError."""
        chosen = {n: _chosen(b, n, pipeline, how) for n, b in batches.items()}
        if pipeline.steps and not how.whole:  # what is read whole is read again by the next run
            chosen = {n: f if batches[n].complete else passes.watched(n, f) for n, f in chosen.items()}
        screens = {n: source_screen(pipeline, n, f) for n, f in chosen.items()}
        recomputes = isinstance(pipeline.write, Recompute)
        partial = frozenset(n for n, b in batches.items() if not b.complete and (recomputes or not how.whole))
        origins = {n: _untyped(_own(pipeline, n), f.origins) for n, f in chosen.items()}
        transformed = bound(pipeline, {n: s.lazy for n, s in screens.items()}, how.drivers, partial, origins)
        lazy = transformed.lazy
        more = None if replayed is None else replayed.result(lazy.collect_schema())
        if more is not None:
            lazy = pl.concat([lazy, more.drop(PLACE)])
        placed = _placed(pipeline, chosen, more)
        return Rows(
            screens,
            transformed,
            marked(pipeline, lazy),
            None if placed is None else marked(pipeline, placed),
            _untyped(pipeline.contract, {c: o.name for c, o in transformed.relation.origins.items()}),
            lambda frames: bound(pipeline, frames, how.drivers, frozenset()).lazy,
        )


def _chosen(batch: Batch, name: str, pipeline: Pipeline, how: Reading) -> Frame:
    """The frame that the transform sees: the new rows, or all where the write needs all."""
    if not how.whole or batch.complete:
        return batch.frame
    if batch.whole is None:
        raise ConfigError(
            f"source {name!r} cannot be read whole, and {pipeline.write.type} needs that",
            hint='take the "cursor" off the source, or use merge',
        )
    return batch.whole


def _untyped(contract: Contract | None, origins: Mapping[str, str]) -> dict[str, str]:
    """The origins that are left where a contract has given columns other types."""
    typed = {c for c, rules in contract.columns.items() if rules.type is not None} if contract else set()
    return {c: origin for c, origin in origins.items() if c not in typed}


def _placed(pipeline: Pipeline, chosen: Mapping[str, Frame], more: pl.LazyFrame | None) -> pl.LazyFrame | None:
    """The result's rows with their places, where they are just a source's: no transform has lost them."""
    ((name, frame), *others) = chosen.items()
    if others or pipeline.steps or pipeline.contract is None or _own(pipeline, name) is not None:
        return None
    if frame.placed is None:
        return None
    return (
        frame.placed if more is None else pl.concat([frame.placed, more.select(frame.placed.collect_schema().names())])
    )


def _own(pipeline: Pipeline, name: str) -> Contract | None:
    """A source's own contract."""
    return SourceTraits.of(pipeline.named_sources[name]).contract


def source_screen(pipeline: Pipeline, name: str, frame: Frame) -> Screen:
    """A source's rows behind the source's own contract."""
    contract = _own(pipeline, name)
    if contract is None:
        return Screen(None, frame.lazy, source=name)
    placed = frame.placed is not None
    columns = frame.lazy.collect_schema().names()
    return Screen(
        contract,
        frame.placed if frame.placed is not None else frame.lazy,
        source=name,
        place=PLACE if placed else None,
        versions=versions(settled(pipeline, columns), columns),
    )


def bound(
    pipeline: Pipeline,
    frames: Mapping[str, pl.LazyFrame],
    drivers: tuple[str, ...],
    partial: frozenset[str],
    origins: Mapping[str, Mapping[str, str]] | None = None,
) -> Transformed:
    """The transforms, bound to the frames; `partial` are those that are only what is new, `origins` their columns'."""
    previous = next(iter(frames)) if len(frames) == 1 else drivers[0] if len(drivers) == 1 else None
    return transform(
        pipeline.steps,
        frames,
        previous=previous,
        params=pipeline.params,
        base=pipeline.base,
        increments=partial,
        origins=origins,
    )

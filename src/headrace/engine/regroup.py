"""Which groups a recompute replaces: those that the new rows touch, where that is proven to be enough; else all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from headrace.flow import Batch, Frame, Snapshot
from headrace.sqltext import quoted
from headrace.stream import scan_batches
from headrace.stream.drawing import drawn

if TYPE_CHECKING:
    from headrace.contract import Contract
    from headrace.contract.screen import Screen
    from headrace.transform import Transformed

__all__ = ["Groups", "Screened", "reread", "why_all", "why_anew"]

Screened = Callable[[str, Frame], "Screen"]
"""A source's frame behind its contract: (name, frame) → screen."""


def why_anew(
    batches: Mapping[str, Batch], drivers: Sequence[str], snapshot: Snapshot, meaning: str, write: str
) -> str | None:
    """Why all must be written anew by a write that sees everything, though no driving source has news; None: it
    need not. `meaning` is the fingerprint of what the pipeline makes of its rows.
    """
    if snapshot.write is not None and write not in snapshot.write.split(", "):
        return f"the last commit was a {snapshot.write}"
    before = snapshot.record.get("transforms_fingerprint")
    if before is not None and before != meaning:
        return "the transforms, params or contract have changed since the last commit"
    changed = [n for n, b in batches.items() if n not in drivers and b.complete and b.news.empty is False]
    return f"{changed[0]!r} has changed since the last commit" if changed and snapshot.number else None


def why_all(
    batches: Mapping[str, Batch],
    drivers: Sequence[str],
    snapshot: Snapshot,
    transformed: Transformed,
    by: Sequence[str],
    again: Sequence[str],
    contracts: Mapping[str | None, Contract],
) -> str | None:
    """Why a recompute must replace all groups, in words; None where those that the new rows touch are enough."""
    if snapshot.schema is None:
        return "it is the first load"
    whole = [n for n in drivers if batches[n].complete]
    if whole:
        return f"{whole[0]!r} is read whole at every run"
    unknown = [n for n, b in batches.items() if n not in drivers and not b.news.empty]
    if unknown:
        return f"{unknown[0]!r} may have changed since the last commit"
    if again:
        return "files are read again, and nobody knows which groups their rows were in"
    judged = {n: c for n, c in contracts.items() if n is None or n in drivers}
    return _why_unique(judged, by) or transformed.why_all_groups(by)


def _why_unique(contracts: Mapping[str | None, Contract], by: Sequence[str]) -> str | None:
    """Values that must not repeat are looked for among the rows that are judged: among some groups only where rows of
    equal values are rows of one group.
    """
    for source, contract in contracts.items():
        if sets := [*((n,) for n, c in contract.columns.items() if c.unique), *contract.unique]:
            if source is not None:
                return f"the contract of {source!r} has columns that must be unique among all its rows"
            if apart := [columns for columns in sets if not set(by) <= set(columns)]:
                return f"{', '.join(apart[0])} must be unique among all groups"
    return None


def reread(batches: Mapping[str, Batch]) -> list[str]:
    """The files that are read again, since they have changed."""
    return [name for batch in batches.values() for name in batch.news.again]


class Groups:
    """The groups of the new rows, and of the rows that they supersede. `transformed` binds the transforms to frames."""

    def __init__(
        self,
        by: Sequence[str],
        batches: Mapping[str, Batch],
        drivers: Sequence[str],
        *,
        screened: Screened,
        transformed: Callable[[Mapping[str, pl.LazyFrame]], pl.LazyFrame],
    ) -> None:
        from headrace.transform.query import Query

        self.by = tuple(by)
        self.screens: list[Screen] = []
        self._found: pl.DataFrame | None = None
        parts = []
        superseding = any(batches[n].former is not None for n in drivers)
        for former in (False, True) if superseding else (False,):
            frames = {}
            for name, batch in batches.items():
                # a source without former rows lends its new ones: their groups are touched anyway
                frame = batch.former if former and batch.former is not None else batch.frame
                self.screens.append(screened(name, frame))
                frames[name] = self.screens[-1].lazy
            parts.append(transformed(frames).select(self.by))
        self._schema = parts[0].collect_schema()
        names = {f"part{i}": part for i, part in enumerate(parts)}
        columns = ", ".join(map(quoted, self.by))
        union = " UNION ".join(f"SELECT {columns} FROM {name}" for name in names)
        # DuckDB, since its hash table spills to disk: the groups of a first load may be many.
        self._query = Query(union if len(names) > 1 else f"SELECT DISTINCT {columns} FROM part0", names, {})

    def frame(self) -> pl.DataFrame:
        """The distinct `by` values, in the types of the rows; read once."""
        if self._found is None:
            self._found = self._query.lazy().collect().cast(self._schema)
        return self._found

    def only(self, lazy: pl.LazyFrame) -> pl.LazyFrame:
        """The rows of `lazy` that belong to the groups. Ranges are pushed down as far as Polars can push them."""
        schema = lazy.collect_schema()

        def batches() -> Iterator[pl.DataFrame]:
            groups = self.frame().cast({b: schema[b] for b in self.by})
            ranges = [
                # As literals of the column's own type: Python's have neither nanoseconds nor the year 10000.
                pl.col(b).is_between(pl.lit(groups[b].sort().head(1)).first(), pl.lit(groups[b].sort().tail(1)).first())
                for b in self.by
                if schema[b].is_temporal() and groups.height and groups[b].null_count() == 0
            ]
            rows = lazy.filter(*ranges) if ranges else lazy
            matched = rows.join(groups.lazy(), on=list(self.by), how="semi", nulls_equal=True)
            yield from drawn(matched)

        return scan_batches(batches, schema)

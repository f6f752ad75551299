"""One increment of a pipeline: what is new, transformed, screened and ready to be applied as one commit.

`run`, `plan`, `check` and `preview` all make increments and differ only in what they do with them: a dry run
that cannot lie. Making one reads no rows but the samples that schemas need.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from headrace.contract.screen import Screen
from headrace.engine.census import census
from headrace.engine.decisions import (
    Reading,
    fingerprint,
    key_columns,
    read_otherwise,
    refuse_another,
    refuse_mixing,
    refuse_sharing,
    refuse_unversioned,
)
from headrace.engine.deletions import deleting
from headrace.engine.keys import keyed, require, settled, versions
from headrace.engine.passes import Passes
from headrace.engine.regroup import Groups, reread, why_all, why_anew
from headrace.engine.rows import Replayed, Rows, bound, source_screen
from headrace.engine.sealing import Sealing
from headrace.errors import TransformError
from headrace.flow import PLACE, Batch, Commit, Position, Snapshot, TableChange
from headrace.frozen import frozen
from headrace.ledger import refuse_foreign
from headrace.schema import Schema, evolve
from headrace.stream import FrameStream, scan_batches
from headrace.stream.drawing import passed
from headrace.traits import DestinationTraits, SourceTraits
from headrace.transform import Transformed
from headrace.writes import Merge, Partitions, Recompute, Replace

if TYPE_CHECKING:
    from headrace.flow import ArrowStream
    from headrace.pipeline import Pipeline
    from headrace.writes import Write

__all__ = ["Context", "Increment", "increment"]

Watch = Callable[[int], None]
"""Called with the number of rows in each batch that passes to the destination; it may raise to stop."""


@frozen(kw_only=True)
class Context:
    """The run that increments are made in: its id, and who watches the rows. `inspect` says what the target holds once
    one of its commits has been dealt with (None: no further one is made than the first, as for a plan).
    """

    run: str
    inspect: Callable[[], Snapshot] | None = None
    watch: Watch = lambda _rows: None


@dataclass(kw_only=True)
class Increment:
    """What one commit is made of. `close` frees the spools; before that `commit` may be applied again and again.

    `rows` are what the transforms make of the batches, `screen` has them behind the contract. `said` is what they give
    cause to say.
    """

    pipeline: Pipeline
    batches: Mapping[str, Batch]
    drivers: tuple[str, ...]
    rows: Rows
    groups: Regrouped
    screen: Screen
    commit: Commit
    sealing: Sealing
    change: TableChange
    said: tuple[str, ...]

    @property
    def changes(self) -> tuple[TableChange, ...]:
        """How the table changes: as a bundle of many says it."""
        return (self.change,)

    @property
    def positions(self) -> Mapping[str, Position]:
        """Where its commit leaves the sources; true once that is applied."""
        return self.sealing.positions

    def blamed(self, error: BaseException) -> TransformError | None:
        """What broke off while rows were drawn, as the failure of a transform; None where it is none's."""
        return self.rows.transformed.blamed(error)

    @property
    def empty(self) -> bool:
        """There is nothing to do."""
        driving = [self.batches[name] for name in self.drivers]
        return self.groups.anew is None and all(b.news.empty and b.census is None for b in driving)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said of it."""
        if not (self.change.fresh and self.empty):
            return self.said
        names = ", ".join(map(repr, self.drivers))
        return (*self.said, f"{names} has no row to read: the full refresh leaves the table as it is")

    def close(self) -> None:
        """Free what the screens hold on disk."""
        for screen in (self.screen, *self.rows.screens.values(), *self.groups.screens):
            screen.close()


def increment(
    pipeline: Pipeline,
    snapshot: Snapshot,
    how: Reading,
    batches: Mapping[str, Batch],
    context: Context,
    *,
    empties: bool = False,
    replayed: Replayed | None = None,
) -> Increment:
    """Bind the batches to the pipeline: transforms, screens, schema changes, commit. Refuses what would be wrong.

    `empties`: this is the commit of a full refresh that empties the table, its first.
    """
    for name in () if how.full_refresh else how.drivers:
        if (identity := batches[name].identity) is not None:
            refuse_another(pipeline, name, snapshot.identities.get(name), identity)
    pipeline = keyed(pipeline, how.drivers, batches)
    passes, held = Passes(), None if empties else snapshot
    rows = Rows.of(pipeline, how, batches, replayed, passes)
    groups = _regrouped(pipeline, snapshot, how, batches, rows.transformed)
    said = _warnings(pipeline, snapshot, how, batches, rows.transformed)
    write = _write(pipeline, rows)
    screen = _screen(pipeline, held, rows, write, groups.found)
    change = _change(pipeline, held, how, batches, rows, screen, write, groups, passes.counted(context.watch))
    _refuse_target(pipeline, snapshot, change)
    sealed = Sealing(
        pipeline=pipeline,
        how=how,
        batches=batches,
        screens=rows.screens,
        screen=screen,
        change=change,
        keys=key_columns(write),
        replayed=None if replayed is None else replayed.ids,
        snapshot=snapshot,
        passes=passes,
    )
    return Increment(
        pipeline=pipeline,
        batches=batches,
        drivers=how.drivers,
        rows=rows,
        groups=groups,
        screen=screen,
        commit=_commit(pipeline, context.run, snapshot, change, sealed),
        sealing=sealed,
        change=change,
        said=said,
    )


@frozen
class Regrouped:
    """What a write that sees everything does over again.

    `anew` says why there is something to do though nothing is new in the sources that drive the pipeline, `rebuilt` why
    a recompute replaces all groups (None: only those that the new rows touch); `found` are the groups, where not all
    are.
    """

    anew: str | None = None
    rebuilt: str | None = None
    found: Groups | None = None

    @property
    def stream(self) -> Callable[[], ArrowStream] | None:
        """The groups, for the change."""
        found = self.found
        return None if found is None else (lambda: FrameStream(found.frame().lazy()))

    @property
    def screens(self) -> Sequence[Screen]:
        """The screens through which the groups are read."""
        return () if self.found is None else self.found.screens


def _regrouped(
    pipeline: Pipeline, snapshot: Snapshot, how: Reading, batches: Mapping[str, Batch], transformed: Transformed
) -> Regrouped:
    if not how.whole:
        return Regrouped()
    meaning = fingerprint(pipeline)["transforms"]
    changed = why_anew(batches, how.drivers, snapshot, meaning, pipeline.write.type)
    anew = "it is a replay" if how.anew else changed or read_otherwise(pipeline, snapshot)
    write = pipeline.write
    if not isinstance(write, Recompute):
        return Regrouped(anew)
    rebuilt = "of --full-refresh" if how.full_refresh else anew
    again = reread(batches)
    rebuilt = rebuilt or why_all(batches, how.drivers, snapshot, transformed, write.by, again, pipeline.contracts)
    return Regrouped(anew, rebuilt, None if rebuilt else _groups(pipeline, write, batches, how))


def _screen(pipeline: Pipeline, held: Snapshot | None, rows: Rows, write: Write, groups: Groups | None) -> Screen:
    """The result behind its contract; `held` is what the target keeps (None: nothing, it is emptied)."""
    lazy = rows.lazy if rows.placed is None else rows.placed
    keys = key_columns(write)
    return Screen(
        pipeline.contract,
        lazy if groups is None else groups.only(lazy),
        place=None if rows.placed is None else PLACE,
        keys=keys,
        required=() if isinstance(write, Recompute) else keys,
        existing=None if held is None else _existing(pipeline, held),
        versions=versions(write, lazy.collect_schema().names()),
    )


def _write(pipeline: Pipeline, rows: Rows) -> Write:
    """The write, as it is over these rows. Raises ConfigError for a column that it names and they do not have."""
    write = settled(pipeline, rows.lazy.collect_schema().names())
    require(write.keys if isinstance(write, Replace) else key_columns(write), rows.transformed.lazy, write.type)
    if isinstance(write, Merge):
        require(write.latest_by, rows.transformed.lazy, "latest_by")
    return write


def _change(  # each is one part of what the table becomes
    pipeline: Pipeline,
    held: Snapshot | None,
    how: Reading,
    batches: Mapping[str, Batch],
    rows: Rows,
    screen: Screen,
    write: Write,
    groups: Regrouped,
    watch: Watch,
) -> TableChange:
    """How the table changes; `held` as for `_screen`."""
    traits = DestinationTraits.of(pipeline.destination)
    fields = screen.schema.with_origins(rows.origins)
    target = None if held is None else held.schema
    schema, changes = evolve(target, fields, pipeline.on_schema_change, native=traits.native, takes=traits.takes)
    complete = how.whole or all(batches[n].complete for n in how.drivers)
    lazy, deletes = deleting(write, _watched(screen.lazy, watch))
    return TableChange(
        table=traits.table or pipeline.name,
        write=write,
        schema=schema,
        rows=lambda: FrameStream(lazy),
        changes=changes,
        groups=groups.stream or _replaced(write, screen.schema, reread(batches)),
        complete=complete or (held is None and how.batch_bytes is None),
        fresh=held is None,
        deletes=deletes,
        census=None if held is None else census(pipeline, batches, key_columns(write), rows.everything),
    )


def _refuse_target(pipeline: Pipeline, snapshot: Snapshot, change: TableChange) -> None:
    """Refuse what the destination would refuse too, but late: a table that others write, or whose rows are theirs; and
    one whose rows are a history's.
    """
    there, adopt = snapshot.schema is not None, DestinationTraits.of(pipeline.destination).adopt
    refuse_foreign(change.table, snapshot.others, pipeline.name, owned=snapshot.owned, there=there, adopt=adopt)
    refuse_sharing(pipeline, change, snapshot)
    refuse_unversioned(change, snapshot)


def _commit(pipeline: Pipeline, run: str, snapshot: Snapshot, change: TableChange, seal: Sealing) -> Commit:
    return Commit(
        id=secrets.token_hex(12),
        pipeline=pipeline.name,
        run=run,
        expected=snapshot.number,
        changes=(change,),
        seal=seal,
    )


def _groups(pipeline: Pipeline, write: Recompute, batches: Mapping[str, Batch], how: Reading) -> Groups:
    return Groups(
        write.by,
        batches,
        how.drivers,
        screened=lambda name, frame: source_screen(pipeline, name, frame),
        transformed=lambda frames: bound(pipeline, frames, how.drivers, frozenset()).lazy,
    )


def _replaced(write: Write, rows: Schema, files: Sequence[str]) -> Callable[[], ArrowStream] | None:
    """The partitions of files that are read again: they are replaced even where no row of them is left."""
    if not isinstance(write, Partitions) or not files:
        return None
    types = rows.polars()
    frame = pl.LazyFrame([pl.Series(b, list(files)).cast(types[b]) for b in write.by])
    return lambda: FrameStream(frame)


def _warnings(
    pipeline: Pipeline, snapshot: Snapshot, how: Reading, batches: Mapping[str, Batch], transformed: Transformed
) -> tuple[str, ...]:
    """What the transforms, the sources and the ledger give cause to say."""
    said = [*refuse_mixing(pipeline, batches, transformed), *(w for b in batches.values() for w in b.news.warnings)]
    if pipeline.write.type == "merge" and reread(batches):
        said.append("files are read again: rows that they no longer have stay in the table (a merge deletes nothing)")
    if how.full_refresh and how.batch_bytes is not None:
        said.append("--full-refresh with commit_every takes several commits: until the last one readers see a part")
    said += _uncut(pipeline, how, batches)
    before = None if how.full_refresh else snapshot.record.get("transforms_fingerprint")
    if before not in (None, fingerprint(pipeline)["transforms"]) and pipeline.write.type not in (
        "replace",
        "recompute",
    ):
        said.append(
            "the transforms, params or contract have changed since the last commit: rows loaded before stay as they "
            "are (--full-refresh loads them anew)"
        )
    elif not how.whole and not how.full_refresh and (otherwise := read_otherwise(pipeline, snapshot)):
        said.append(f"{otherwise}: rows loaded before stay as they are (--full-refresh loads them anew)")
    return tuple(said)


def _uncut(pipeline: Pipeline, how: Reading, batches: Mapping[str, Batch]) -> list[str]:
    """What `commit_every` cannot cut: a file, and a source that gives one batch."""
    if how.batch_bytes is None:
        return []
    whole = [n for n in how.drivers if not SourceTraits.of(pipeline.named_sources[n]).cuts]
    said = [f"commit_every does nothing for {n!r}: it is read in one batch, which is one commit" for n in whole]
    new = {n: batches[n].news.files for n in how.drivers if n not in whole}
    large = {n: max(files, key=lambda f: f.size) for n, files in new.items() if files}
    found = [f"file {f.name!r} of {n!r} ({f.size:,} bytes)" for n, f in large.items() if f.size > how.batch_bytes]
    return said + [f"commit_every: {what} is one commit; it is cut between files only" for what in found]


def _existing(pipeline: Pipeline, snapshot: Snapshot) -> Callable[[Sequence[str]], pl.LazyFrame] | None:
    """On append, uniqueness is judged against the target too: a column that it does not have yet is NULL there."""
    scan = snapshot.scan
    if pipeline.write.type != "append" or scan is None:
        return None

    def columns(names: Sequence[str]) -> pl.LazyFrame:
        rows = scan()
        there = rows.collect_schema()
        return rows.select(name if name in there else pl.lit(None).alias(name) for name in names)

    return columns


def _watched(lazy: pl.LazyFrame, watch: Watch) -> pl.LazyFrame:
    def batches() -> Iterator[pl.DataFrame]:
        with closing(passed(lazy)) as drawing:
            for batch in drawing:
                watch(batch.height)
                yield batch

    return scan_batches(batches, lazy.collect_schema())

"""Many tables of one source: read from one snapshot, each as a pipeline of its own, and applied as one commit."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.engine.decisions import Reading, fingerprint, reading, refuse_start, refuse_was
from headrace.engine.increment import Context, Increment, increment
from headrace.errors import ConfigError, HeadraceError, TransformError
from headrace.flow import Batch, Commit, Position, Range, Seal, Snapshot, TableChange
from headrace.frozen import frozen
from headrace.pipeline import Table
from headrace.traits import DestinationTraits, SourceTraits

if TYPE_CHECKING:
    from headrace.pipeline import Pipeline

__all__ = ["Bundle", "bundles"]

_PATTERN = re.compile(r"[*?\[]")


@frozen(kw_only=True)
class Bundle:
    """The increments of all tables, by the source's names of them, and the one commit of those that have news."""

    pipeline: Pipeline
    parts: Mapping[str, Increment]
    commit: Commit

    @property
    def empty(self) -> bool:
        """There is nothing to do."""
        return not self.commit.changes

    @property
    def batches(self) -> Mapping[str, Batch]:
        """What was read, by table."""
        return {name: batch for part in self.parts.values() for name, batch in part.batches.items()}

    @property
    def positions(self) -> Mapping[str, Position]:
        """Where its commit leaves the tables that have news; true once that is applied."""
        return {name: at for part in self.parts.values() if not part.empty for name, at in part.positions.items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What all of them give cause to say, once."""
        return tuple(dict.fromkeys(w for part in self.parts.values() for w in part.warnings))

    @property
    def changes(self) -> tuple[TableChange, ...]:
        """How the tables change."""
        return self.commit.changes

    def blamed(self, error: BaseException) -> TransformError | None:  # noqa: ARG002  # as an increment's
        """No transform: none is to blame."""
        return None

    def close(self) -> None:
        """Free what the screens hold on disk."""
        for part in self.parts.values():
            part.close()


def bundles(pipeline: Pipeline, snapshot: Snapshot, how: Reading, context: Context) -> Iterator[Bundle]:
    """What is new in all tables, one bundle for each commit to come; the iterator is the source's lifetime.

    The target is inspected again before each further bundle. Of a full refresh the first commit with rows of a table is
    the one that empties it.

    Raises ConfigError for a pattern that matches no table, tables that go to one name, and whatever one table alone
    would be refused for.
    """
    tables = _tables(pipeline)
    refuse_was(pipeline, tables)
    held = _held(snapshot, tables)
    # as `opening`: "from_target" counts for what is new
    known = dict.fromkeys(held, Snapshot()) if how.full_refresh else held
    for name, one in tables.items():
        if (hint := one.destination.supports(one.write.type)) is not None:
            raise ConfigError(f"table {name!r} cannot take the write {one.write.type!r}", hint=hint)
        with _told_of(name):
            refuse_start(one, held[name], full_refresh=how.full_refresh, discard_history=how.discard_history)
            if not how.full_refresh:
                _refuse_elsewhere(one, held[name], goes_on=name in snapshot.positions)
    hows = {
        name: replace(reading(one, full_refresh=how.full_refresh), as_text=how.as_text) for name, one in tables.items()
    }
    ranges = {name: _range(snapshot, name, hows[name], pipeline.name) for name in tables}
    sources = {name: one.named_sources[name] for name, one in tables.items()}
    source: Any = pipeline.source
    full = set(tables) if how.full_refresh else set()
    with closing(source.together(sources, ranges, known)) as read:
        for nth, batches in enumerate(read):
            if context.inspect is not None and nth:
                snapshot = context.inspect()
                held = _held(snapshot, tables)
            parts = {}
            for name, one in tables.items():
                with _told_of(name):
                    parts[name] = increment(
                        one, held[name], hows[name], {name: batches[name]}, context, empties=name in full
                    )
            full -= {name for name, part in parts.items() if not part.empty}
            yield Bundle(pipeline=pipeline, parts=parts, commit=_commit(pipeline, snapshot, parts, context.run))


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    """What is wrong with one table is said with its name."""
    try:
        yield
    except HeadraceError as error:
        if name not in error.message:
            error.message = f"table {name!r}: {error.message}"
        raise


def _range(snapshot: Snapshot, name: str, how: Reading, reader: str) -> Range:
    after = None if how.full_refresh else snapshot.positions.get(name)
    return Range(after=after, ties=how.ties, as_text=how.as_text.get(name, frozenset()), reader=reader)


def _tables(pipeline: Pipeline) -> dict[str, Pipeline]:
    """Each table as the pipeline that it would be alone, by the source's name of it."""
    source: Any = pipeline.source
    destination: Any = pipeline.destination
    common = {} if pipeline.defaults is None else pipeline.defaults.given
    found: dict[str, Table] = {}
    for pattern in sorted(pipeline.tables, key=lambda p: _PATTERN.search(p) is None):
        for name in source.matching(pattern):  # a name comes after the patterns: what stands by its own is meant by it
            found[name] = pipeline.tables[pattern]
    tables = {name: _alone(pipeline, source, destination, name, t, {**common, **t.given}) for name, t in found.items()}
    _refuse_one_name(tables)
    return tables


def _alone(
    pipeline: Pipeline, source: Any, destination: Any, name: str, table: Table, said: Mapping[str, Any]
) -> Pipeline:
    reads = {field: value for field, value in said.items() if field != "write"}
    contract = reads.get("contract", SourceTraits.of(source).contract)  # what no table says, the source does
    if contract is not None and contract.can("quarantine"):
        raise ConfigError(
            f"table {name!r}: a pipeline of many tables has no quarantine",
            hint='say "fail" or "drop", or give the table a pipeline of its own',
        )
    return replace(
        pipeline,
        source=None,
        sources={name: replace(source, table=name, **reads)},
        tables={},
        defaults=None,
        destination=destination.of(table.table or _bare(name)),
        write=said.get("write", pipeline.write),
    )


def _bare(name: str) -> str:
    """A table's name without its schema and without quotes."""
    found = re.search(r'"((?:[^"]|"")+)"$|[^."]+$', name)
    return name if found is None else found[1].replace('""', '"') if found[1] is not None else found[0]


def _refuse_one_name(tables: Mapping[str, Pipeline]) -> None:
    into: dict[str, str] = {}
    for name, one in tables.items():
        if (other := into.setdefault(_into(one).casefold(), name)) != name:
            raise ConfigError(
                f"tables {other!r} and {name!r} would both go into {_into(one)!r}",
                hint=f'name one of them: "{name}": {{"table": "…"}}',
            )


def _refuse_elsewhere(one: Pipeline, held: Snapshot, *, goes_on: bool) -> None:
    """A position speaks of the rows in one target: in another one those before it are missing, or are another table's.
    What is replaced by all there is each time may go anywhere. Ledgers of earlier versions do not tell the target.
    """
    before, now = held.record.get("into"), _into(one)
    if before is None or before == now or (not goes_on and one.write.type == "replace"):
        return
    raise ConfigError(
        f"it went into {before!r} so far, and would go on in {now!r}, which has not the rows loaded before",
        hint="put the target back, or load all tables anew with --full-refresh",
        details={"before": before, "now": now},
    )


def _into(one: Pipeline) -> str:
    return DestinationTraits.of(one.destination).table or ""


def _held(snapshot: Snapshot, tables: Mapping[str, Pipeline]) -> dict[str, Snapshot]:
    """Each table's own snapshot. What the last commit with news of it said of its making stands there by its name."""
    told = snapshot.record.get("tables", {})
    return {name: replace(snapshot.of(_into(one)), record=told.get(name, {})) for name, one in tables.items()}


def _commit(pipeline: Pipeline, snapshot: Snapshot, parts: Mapping[str, Increment], run: str) -> Commit:
    news = {name: part for name, part in parts.items() if not part.empty}
    return Commit(
        id=secrets.token_hex(12),
        pipeline=pipeline.name,
        run=run,
        expected=snapshot.number,
        changes=tuple(change for part in news.values() for change in part.commit.changes),
        seal=lambda: _sealed(
            pipeline,
            snapshot,
            {name: part.commit.seal() for name, part in news.items()},
            {name: _into(part.pipeline) for name, part in parts.items()},
        ),
    )


def _sealed(pipeline: Pipeline, snapshot: Snapshot, seals: Mapping[str, Seal], into: Mapping[str, str]) -> Seal:
    """What all tables' seals say, as one; `into` are the targets of all there are."""
    records = {name: seal.record for name, seal in seals.items()}
    prints = {n: {k: v for k, v in r.items() if k.endswith("_fingerprint")} for n, r in records.items()}
    told = {**snapshot.record.get("tables", {}), **prints}
    # a table without news says what it said: it has put nothing into another target, a full refresh of it neither
    told |= {name: {"into": target, **told[name]} for name, target in into.items() if name in told}
    counted = {k: sum(r[k] for r in records.values()) for k in ("rejected", "dropped")}
    emptied = {name for name, seal in seals.items() if seal.forget_files}
    added = {k: dict(sum((Counter(r[k]) for r in records.values()), Counter())) for k in ("rules", "warned")}
    return Seal(
        positions=_others(snapshot.positions, emptied)
        | {n: at for s in seals.values() for n, at in s.positions.items()},
        files={},
        identities=_others(snapshot.identities, emptied)
        | {n: it for s in seals.values() for n, it in s.identities.items()},
        forget_files=bool(emptied),
        record={
            "read": {name: read for r in records.values() for name, read in r["read"].items()},
            "bounds": {name: found for r in records.values() for name, found in r["bounds"].items()},
            "write": "tables",
            "writes": {name: r["write"] for name, r in records.items()},
            "schema_changes": [kind for r in records.values() for kind in r["schema_changes"]],
            "tables": told,
            **counted,
            **added,
            **{f"{k}_fingerprint": v for k, v in fingerprint(pipeline).items()},
            "versions": next(iter(records.values()))["versions"],
        },
    )


def _others(known: Mapping[str, Any], emptied: AbstractSet[str]) -> dict[str, Any]:
    """What is known of tables that are not `emptied` by this commit: it stays so where others are forgotten."""
    return {name: what for name, what in known.items() if name not in emptied}

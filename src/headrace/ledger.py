"""What the ledgers of databases have in common: what they know of a target, and what is refused because of it.

Each system keeps its ledger in SQL of its own; what follows from what stands there is decided here, once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from headrace.errors import ConfigError, ConflictError, DataError, SchemaError
from headrace.flow import FileStamp, Snapshot
from headrace.frozen import frozen
from headrace.logical import Type, widens
from headrace.schema import Field, Schema, WidenColumn
from headrace.writes import History, Replace

if TYPE_CHECKING:
    from headrace.flow import Census, Commit, Seal, TableChange

__all__ = [
    "VERSION",
    "Head",
    "Owned",
    "entries",
    "later",
    "own_fields",
    "refuse_census",
    "refuse_emptying",
    "refuse_foreign",
    "refuse_history",
    "refuse_newer",
    "refuse_null_key",
    "refuse_unready",
    "rejected_keys",
    "succeed",
    "widened",
]

Seen = Callable[[str, Iterable[str] | None], Mapping[str, FileStamp]]
"""As `Snapshot.seen`."""
VERSION = 1
"""Of the ledger's tables."""
_MOMENTS = ("date", "datetime")


@frozen
class Owned:
    """A table that headrace keeps: its logical schema, the pipelines that write it, each with the target of its ledger
    (the table, or the schema of many), and the columns that no row brings because the write adds them (`History`).
    """

    schema: Schema
    writers: Mapping[str, str]
    added: tuple[str, ...] = ()

    def written_by(self, pipeline: str, target: str) -> bool:
        """Whether this ledger tells of what the pipeline has loaded."""
        return self.writers.get(pipeline) == target

    def others(self, pipeline: str, target: str) -> frozenset[str]:
        """As `Held.others`."""
        return frozenset(name for name, into in self.writers.items() if (name, into) != (pipeline, target))


@frozen
class Head:
    """The last commits: `number`, `top` (its id) and `at` are those of the target's, whoever made it, the rest is of
    the pipeline's own.
    """

    number: int = 0
    top: str | None = None
    at: datetime | None = None
    positions: Mapping[str, Any] = field(default_factory=dict)
    identities: Mapping[str, Any] = field(default_factory=dict)
    write: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def moved(self, seal: Seal) -> tuple[dict[str, Any], dict[str, Any]]:
        """The positions and identities after a commit with this seal: those that it says, and, where it does not begin
        anew, those that it does not name.
        """
        if seal.forget_files:
            return dict(seal.positions), dict(seal.identities)
        return {**self.positions, **seal.positions}, {**self.identities, **seal.identities}

    def snapshot(self, seen: Seen, settled: tuple[frozenset[str], frozenset[str]]) -> Snapshot:
        """What it says of the pipeline and of the target's number; `settled` are the rejects that do not come back:
        those that were discarded, those that were loaded.
        """
        discarded, loaded = settled
        return Snapshot(
            number=self.number,
            head=self.top,
            record=self.record,
            positions=self.positions,
            identities=self.identities,
            write=self.write,
            seen=seen,
            discarded=discarded,
            loaded=loaded,
        )


def succeed(head: Head, commit: Commit) -> datetime:
    """The instant of the commit that follows `head`, later than its. Raises ConflictError for one that was made for
    another head.
    """
    if head.number != commit.expected:
        raise ConflictError(
            f"pipeline {commit.pipeline!r}: the target is at commit {head.number}, this run began at {commit.expected}",
            hint="another run has moved it; run again",
            details={"number": head.number, "expected": commit.expected},
        )
    return later(head.at)


def later(*than: datetime | None) -> datetime:
    """Now, and later than all of these: a clock that was set back must not turn the order of commits and runs."""
    return max([datetime.now(UTC), *(at + timedelta(microseconds=1) for at in than if at is not None)])


def refuse_newer(version: int | None, where: str) -> None:
    """Raises ConfigError where a newer headrace has written the ledger."""
    if version is not None and version > VERSION:
        raise ConfigError(
            f"the ledger in this {where} has version {version}, this headrace knows {VERSION}",
            hint="install a newer headrace",
        )


def refuse_foreign(  # each is one fact of the table
    table: object, others: Collection[str], pipeline: str, *, owned: bool, there: bool, adopt: bool
) -> None:
    """Refuse a table that is `there` and that headrace did not make, or that only `others` write (see `Held`), unless
    it is to be taken over. Raises ConfigError with the way out.
    """
    if adopt or owned:
        return
    if there and pipeline in others:
        raise ConfigError(
            f"table {table} was loaded by pipeline {pipeline!r} with another target, whose ledger is not this one's:"
            " all rows would be loaded again",
            hint="give the destination the table, or the schema, that it had; to load everything anew,"
            ' "adopt": true and --full-refresh',
        )
    if strangers := set(others) - {pipeline}:
        raise ConfigError(
            f"table {table} is written by pipeline {min(strangers)!r}",
            hint='load into another table, or say "adopt": true to let two pipelines write it: this one then loads'
            " all that its sources have",
        )
    if there:
        raise ConfigError(
            f"table {table} exists and headrace did not make it",
            hint='load into another table, or say "adopt": true to take it over',
        )


def refuse_unready(table: object, added: Iterable[Field], have: Collection[str]) -> None:
    """Refuse a table that has no column for what the write itself keeps: it was taken over, or another write made it.

    Raises SchemaError.
    """
    if missing := next((f for f in added if f.name not in have), None):
        raise SchemaError(
            f"table {table} has no column {missing.name!r}, which a history keeps beside the rows",
            hint=f"add it ({missing.type}) to the table, or load into a new one",
        )


def refuse_history(table: object, write: History, rows: Schema, schema: Schema) -> None:
    """Refuse rows that have a column which the history makes, and a `close_absent` that goes by another type than a
    commit's time. `schema` is the table's. Raises ConfigError.
    """
    for name in (write.valid_from, write.valid_to):
        if name in rows:
            raise ConfigError(
                f"table {table}: the rows have a column {name!r}, which the history makes",
                hint='rename it, or say "valid_from" and "valid_to"',
            )
    if write.close_absent and write.latest_by and schema[write.latest_by[0]].name not in _MOMENTS:
        raise ConfigError(
            f"table {table}: close_absent closes at a commit's time, and {write.latest_by[0]!r} is no such type",
            hint="choose a latest_by that is a date or a datetime, or none",
        )


def refuse_absent(table: object, what: str, names: Iterable[str], rows: Schema) -> None:
    """Raises ConfigError for a column that a write goes by (`what` for people) and that the rows do not have."""
    for name in names:
        if name not in rows:
            raise ConfigError(
                f"table {table}: {what} {name!r} is not a column of the rows",
                hint=f"the rows have {', '.join(rows.names)}",
            )


def refuse_nested(table: object, schema: Schema, names: Iterable[str]) -> None:
    """Raises ConfigError for a column that has no order, or no equality, that all systems agree on."""
    for name in names:
        if schema[name].name in ("list", "array", "struct", "json", "null"):
            raise ConfigError(
                f"table {table}: column {name!r} is {schema[name]}, and cannot be a key or latest_by",
                hint="choose a plain column",
            )


def refuse_null_key(table: object, key: str, count: int) -> None:
    """Raises DataError where rows have NULL in a key."""
    if count:
        raise DataError(
            f"table {table}: NULL in key {key!r} in {count} row{'s' if count > 1 else ''}",
            hint=f'quarantine them: "contract": {{"columns": {{"{key}": {{"nullable": false}}}}}}',
            details={"key": key, "rows": count},
        )


def refuse_census(table: object, census: Census, *, gone: int, living: int, known: int) -> None:
    """Raises DataError where more of the `living` rows would go than the census allows, or where it has no key at all.

    `gone` are those whose keys are not among its `known` ones.
    """
    if gone > census.max * living or (gone and not known):
        raise DataError(
            f"table {table}: the source has {gone:,} of its {living:,} rows no more, and at most {census.max:.0%}"
            " may go at once",
            hint='look at the source: is it whole? If it is, raise "max" in "deletes" for one run',
            details={"gone": gone, "rows": living},
        )


def refuse_emptying(target: str, change: TableChange, rows: int) -> None:
    """Refuse a replace by no rows at all, unless it is allowed. Asked after the seal, which may know why.

    Raises DataError.
    """
    if isinstance(change.write, Replace) and not rows and not change.write.allow_empty:
        raise DataError(
            f"{target}: there are no rows to replace it with",
            hint='look at the source; say "allow_empty": true if nothing is meant to be there',
        )


def newer(pairs: Sequence[tuple[str, str]]) -> str:
    """SQL: the left one of two rows is newer, column by column; NULL is the oldest. `pairs` is SQL for each column of
    `latest_by` in both rows.
    """
    test = "false"
    for a, b in reversed(pairs):
        greater = f"coalesce({a} > {b}, {a} IS NOT NULL AND {b} IS NULL)"
        test = f"({greater} OR ({a} IS NOT DISTINCT FROM {b} AND {test}))"
    return test


def rejected_keys(texts: Collection[str | None], width: int) -> set[tuple[str | None, ...]] | None:
    """The keys of so many columns of the rows in quarantine, from how they stand there (`schema.REJECTS`); None where
    one of them is not known.
    """
    found = [None if text is None else tuple(json.loads(text)) for text in texts]
    return None if None in found else {key for key in found if key is not None and len(key) == width}


def own_fields(change: TableChange) -> tuple[Field, ...]:
    """The columns that the write itself adds: a history's, of the type and origin of what it goes by."""
    if not isinstance(write := change.write, History):
        return ()
    if write.latest_by:
        by = next(f for f in change.schema if f.name == write.latest_by[0])
    else:
        by = Field("at", Type("datetime", ("us", "UTC")))
    return (replace(by, name=write.valid_from), replace(by, name=write.valid_to))


def widened(target: str, change: TableChange, known: Owned | None, added: Sequence[Field]) -> list[WidenColumn]:
    """How the columns that a history itself adds grow with the one that they are taken from. Raises SchemaError where
    that is another one, whose type would cut the moments of every version.
    """
    types = {f.name: f.type for f in known.schema} if known else {}
    steps = [WidenColumn(f.name, types[f.name], f.type) for f in added if types.get(f.name, f.type) != f.type]
    for step in steps:
        if not widens(step.old, step.new):
            by = next(iter(getattr(change.write, "latest_by", ())), "the commit's time")
            raise SchemaError(
                f"table {target}: column {step.name!r} is {step.old}, and {by} is {step.new}, which does not hold it",
                hint="go on by the same latest_by, or tell the history anew: --full-refresh --discard-history",
                details={"column": step.name},
            )
    return steps


def entries(
    commits: Iterable[tuple[datetime, Mapping[str, Any]]], runs: Iterable[tuple[datetime, Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Commits and runs with their instants, as `Ledger.history` gives them: newest first, a run above its commits."""
    ended = {facts["run"]: (at, {"at": at.astimezone(UTC).isoformat(), **facts, "kind": "run"}) for at, facts in runs}
    told = [(at, 1, 0, entry) for at, entry in ended.values()]
    for at, facts in commits:
        entry = {"kind": "commit", "at": at.astimezone(UTC).isoformat(), **facts}
        told.append((ended.get(facts["run"], (at,))[0], 0, facts["number"], entry))
    return [entry for *_, entry in sorted(told, key=lambda one: one[:3], reverse=True)]

"""A folder as a table: what it holds, and a commit's rows as files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from headrace import exact
from headrace.errors import ConfigError
from headrace.flow import Commit, Receipt, Snapshot, TableChange
from headrace.journal import Attempt, Journal, State, Written
from headrace.journal.sink import drain
from headrace.systems.parquet.parts import split
from headrace.systems.parquet.scan import scan_state
from headrace.systems.parquet.writing import Layout, check_types, write_rows
from headrace.writes import Append, Partitions, Replace

if TYPE_CHECKING:
    from headrace.protocols import Holder
    from headrace.systems.parquet import ParquetDestination

__all__ = ["apply", "hold", "inspect"]


def inspect(journal: Journal, pipeline: str, *, adopt: bool) -> Snapshot:
    """What the folder holds for `pipeline`."""
    state = journal.load()

    schema = state.schema

    def newest(column: str) -> str | None:
        return None if schema is None else exact.newest(scan_state(journal, state), column, schema)

    return journal.snapshot(
        pipeline,
        state,
        schema=schema,
        owned=_foreign(journal, state, pipeline, adopt=adopt) is None,
        scan=None if schema is None else partial(scan_state, journal, state),
        newest=newest,
    )


def apply(journal: Journal, commit: Commit, how: ParquetDestination) -> Receipt:
    """Apply the commit as the next entry of the log."""
    state = journal.load()
    if commit.id not in state.ids and (problem := _foreign(journal, state, commit.pipeline, adopt=how.adopt)):
        raise problem
    if len(commit.changes) > 1:
        raise ConfigError(f"{journal.where}: a Parquet folder is one table", hint="give each table its own folder")
    layout = Layout.of(how, commit)
    return journal.apply(commit, partial(_write, journal, commit.changes, layout))


def hold(journal: Journal, pipeline: str, holder: Holder, *, adopt: bool) -> AbstractContextManager[None]:
    """Hold the folder, unless it is somebody else's: then not even a lock is put there."""
    if (problem := _foreign(journal, journal.load(), pipeline, adopt=adopt)) is not None:
        raise problem
    return journal.hold(pipeline, holder)


def _foreign(journal: Journal, state: State, pipeline: str, *, adopt: bool) -> ConfigError | None:
    """What keeps `pipeline` from writing here, if anything does."""
    if state.number == 0 and any(p for p in journal.where.rglob("*.parquet") if journal.root not in p.parents):
        return ConfigError(
            f"{journal.where} holds Parquet files that headrace did not write",
            hint="choose an empty folder; to bring these files in, read them as a source",
        )
    others = sorted(set(state.accounts) - {pipeline})
    if others and pipeline not in state.accounts and not adopt:
        return ConfigError(
            f"{journal.where} is the table of pipeline {others[0]!r}",
            hint='choose another folder; or say "adopt": true if both are to write to it: this one then loads all that'
            " its sources have",
        )
    return None


def _write(journal: Journal, changes: Sequence[TableChange], layout: Layout, attempt: Attempt, state: State) -> Written:
    if not changes:
        return Written(added=(), removed=(), schema=state.schema, write=None, counts={})
    (change,) = changes
    check_types(change.schema)
    old = list(state.data)
    match change.write:
        case Append():
            with drain(change, journal.where) as rows:
                added, removed = write_rows(rows, attempt, layout, change, journal.where), []
        case Replace():
            with drain(change, journal.where) as rows:
                added, removed = write_rows(rows, attempt, layout, change, journal.where), old
        case Partitions(by=by):
            added, removed = split(journal, State() if change.fresh else state, attempt, layout, change, by)
        case other:
            raise ConfigError(f"{journal.where} cannot take the write {other.type!r}", hint="use a duckdb destination")
    removed = old if change.fresh else removed
    return Written(
        added=added,
        removed=removed,
        schema=change.schema,
        write=change.write.type,
        counts=_counts(added, removed, state),
    )


def _counts(added: Sequence[dict[str, Any]], removed: Sequence[str], state: State) -> Counter[str]:
    kept = sum(file.pop("kept", 0) for file in added)  # rows of rewritten files are neither new nor gone
    rows = sum(file["rows"] for file in added) - kept
    gone = sum(state.data[name]["rows"] for name in removed) - kept
    return Counter(rows=rows, inserted=rows, updated=0, deleted=gone)

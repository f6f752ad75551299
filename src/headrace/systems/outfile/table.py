"""One file as a table: what it holds, and a commit's rows in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from headrace import exact
from headrace.errors import ConfigError, UnavailableError
from headrace.flow import Commit, Receipt, Snapshot, TableChange
from headrace.journal import Attempt, Journal, State, Written
from headrace.journal.sink import Sink, drain
from headrace.stream import scan_generator
from headrace.stream.drawing import passed
from headrace.systems.outfile.formats import check_types, check_values, encode, scan
from headrace.writes import Replace

if TYPE_CHECKING:
    from headrace.protocols import Holder
    from headrace.systems.outfile import Format

__all__ = ["apply", "hold", "inspect"]


def inspect(journal: Journal, pipeline: str, format: Format) -> Snapshot:
    """What the file holds for `pipeline`."""
    state = journal.load()
    owned = _foreign(journal, state, pipeline) is None
    if not _there(journal, state):  # removed by hand, or never written: what was read counts as unread
        return Snapshot(number=state.number, head=state.last_id, owned=owned)

    def newest(column: str) -> str | None:
        schema = state.schema
        return None if schema is None else exact.newest(rows(), column, schema)

    rows = partial(_scan, journal, state, format)
    return journal.snapshot(pipeline, state, schema=state.schema, owned=owned, scan=rows, newest=newest)


def hold(journal: Journal, pipeline: str, holder: Holder) -> AbstractContextManager[None]:
    """Hold the file, unless it is somebody else's: then not even a lock is put beside it."""
    if (problem := _foreign(journal, journal.load(), pipeline)) is not None:
        raise problem
    return journal.hold(pipeline, holder)


def apply(journal: Journal, commit: Commit, format: Format) -> Receipt:
    """Apply the commit as the next entry of the log."""
    state = journal.load()
    if commit.id not in state.ids and (problem := _foreign(journal, state, commit.pipeline)):
        raise problem
    if len(commit.changes) > 1:
        raise ConfigError(f"{journal.where}: a file is one table", hint="give each table its own file")
    return journal.apply(commit, partial(_write, journal, commit.changes, format))


def _there(journal: Journal, state: State) -> bool:
    return any(journal.find(name) is not None for name in state.data)


def _foreign(journal: Journal, state: State, pipeline: str) -> ConfigError | None:
    """What keeps `pipeline` from writing here, if anything does."""
    if state.number == 0 and journal.where.exists():
        return ConfigError(
            f"{journal.where} is there already, and headrace did not write it",
            hint="choose another path, or remove the file",
        )
    others = sorted(set(state.accounts) - {pipeline})
    if others and pipeline not in state.accounts:
        return ConfigError(f"{journal.where} is the file of pipeline {others[0]!r}", hint="choose another path")
    return None


def _write(journal: Journal, changes: Sequence[TableChange], format: Format, attempt: Attempt, state: State) -> Written:
    if not changes:
        return Written(added=(), removed=(), schema=state.schema, write=None, counts={})
    (change,) = changes
    if not isinstance(change.write, Replace):
        raise ConfigError(
            f"{journal.where} cannot take the write {change.write.type!r}",
            hint="one file is written whole: use replace",
        )
    check_types(change.schema, format)
    name = f"{attempt.stem}-0"
    sink = Sink(attempt.staged(name), change.schema, encode(change.schema, format), where=journal.where)
    try:
        with drain(change, journal.where) as rows:
            for batch in rows:
                check_values(batch, change.schema, format)
                sink.put(batch)
        size = sink.close()
    except BaseException:
        sink.drop()
        raise
    return Written(
        added=[{"name": name, "rows": sink.rows, "bytes": size}],
        removed=list(state.data),
        schema=change.schema,
        write=change.write.type,
        counts={
            "rows": sink.rows,
            "inserted": sink.rows,
            "updated": 0,
            "deleted": sum(about["rows"] for about in state.data.values()),
        },
    )


def _scan(journal: Journal, state: State, format: Format) -> pl.LazyFrame:
    """The rows as of `state`, read anew each time; UnavailableError once the file has been replaced."""
    (name,) = state.data
    schema = state.schema
    if schema is None:
        raise AssertionError(journal.where)

    def batches(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        path = journal.find(name)
        if path is None or journal.load().number != state.number:
            raise UnavailableError(
                f"{journal.where}: another run has replaced the file that is read", hint="read it again"
            )
        yield from passed(scan(path, schema, format), columns, predicate, n_rows)

    return scan_generator(batches, schema.polars())

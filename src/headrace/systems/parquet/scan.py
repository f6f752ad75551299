"""Reading whole commits: the files that the log names, with the types that the log says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from headrace import disk
from headrace.errors import ConfigError, UnavailableError
from headrace.journal import Journal, State, lease
from headrace.schema import Schema
from headrace.stream import scan_generator
from headrace.stream.drawing import drawn, of_height

__all__ = ["scan_files", "scan_state", "scan_table"]

_ROUNDS = 4


def scan_table(journal: Journal) -> pl.LazyFrame:
    """The table as of the last commit."""
    pin = _Pin(journal)  # before the log is read, so that no file it names can go in between
    state = journal.load()
    if not state.schemas:
        raise ConfigError(
            f"{journal.where}: headrace keeps no table here", hint="is the path right? Has its pipeline run yet?"
        )
    return _scan(journal, state, state.data, pin)


def scan_state(journal: Journal, state: State) -> pl.LazyFrame:
    """The table as of `state`."""
    return _scan(journal, state, state.data, _Pin(journal))


def scan_files(journal: Journal, state: State, names: Sequence[str]) -> pl.LazyFrame:
    """The rows of some of the table's files, in the table's types."""
    return _scan(journal, state, {name: state.data[name] for name in names}, _Pin(journal))


class _Pin:
    """Keeps the files of a scan readable for as long as anything refers to it."""

    def __init__(self, journal: Journal) -> None:
        self._fd = lease(journal.root)

    def renew(self) -> None:
        """Called by each reading, so that the frame holds on to the pin."""

    def __del__(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


def _scan(journal: Journal, state: State, files: Mapping[str, Mapping[str, Any]], pin: _Pin) -> pl.LazyFrame:
    schemas = [Schema.from_json(schema) for schema in state.schemas]
    schema = schemas[-1].polars()
    runs = _runs(files)

    def frame() -> pl.LazyFrame:
        frames = [_typed([_path(journal, n) for n in names], schemas[at], schemas[-1]) for at, names in runs]
        return pl.concat(frames) if frames else pl.LazyFrame(schema=schema)

    def batches(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        pin.renew()
        passed = 0
        for last in (*[False] * (_ROUNDS - 1), True):
            rows = frame() if predicate is None else frame().filter(predicate)
            rows = rows if columns is None else rows.select(columns)
            rows = rows.slice(passed, None if n_rows is None else n_rows - passed)
            try:
                for batch in drawn(rows):
                    passed += batch.height
                    yield batch
            except FileNotFoundError:  # a file moved between our look and Polars' open: the same rows, elsewhere
                if last:
                    raise _moved(journal) from None
            else:
                return

    return of_height(scan_generator(batches, schema), sum(about["rows"] for about in files.values()))


def _runs(files: Mapping[str, Mapping[str, Any]]) -> list[tuple[int, list[str]]]:
    """The files in order, those with one schema together."""
    runs: list[tuple[int, list[str]]] = []
    for name, about in files.items():
        if about["rows"] == 0:
            continue
        if not runs or runs[-1][0] != about["schema"]:
            runs.append((about["schema"], []))
        runs[-1][1].append(name)
    return runs


def _path(journal: Journal, name: str) -> str:
    with disk.translated(journal.where):
        path = journal.find(name)
    if path is None:
        raise _moved(journal)
    return str(path)


def _typed(paths: Sequence[str], old: Schema, new: Schema) -> pl.LazyFrame:
    """Files that were written under `old`, as `new`: columns of then unknown names are null, narrower types widen."""
    rows = pl.scan_parquet(list(paths), schema=old.polars(), glob=False, hive_partitioning=False, cache=False)
    if old == new:
        return rows
    types = new.polars()
    return rows.select(
        pl.col(name).cast(types[name]) if name in old else pl.lit(None, dtype=types[name]).alias(name)
        for name in new.names
    )


def _moved(journal: Journal) -> UnavailableError:
    return UnavailableError(
        f"{journal.where}: the table has moved on, and files of the commit that is read are gone",
        hint="scan the table again; was a file removed by hand?",
    )

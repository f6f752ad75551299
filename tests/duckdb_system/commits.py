"""Commits made by hand, as the engine would make them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from headrace.engine.deletions import deleting
from headrace.flow import Commit, Receipt, Rejects, Seal, Snapshot, TableChange
from headrace.schema import Schema, SchemaPolicy, evolve
from headrace.stream import FrameStream
from headrace.systems.duckdb import DuckDBDestination
from headrace.writes import Append, Write

_numbers = itertools.count()
KEEP = SchemaPolicy(missing="keep")


def commit(
    target: DuckDBDestination,
    rows: pl.LazyFrame | pl.DataFrame | Mapping[str, Any] | None,
    write: Write | None = None,
    *,
    pipeline: str = "p",
    id: str | None = None,
    expected: int | None = None,
    complete: bool = False,
    groups: pl.DataFrame | None = None,
    seal: Callable[[], Seal] | None = None,
    **sealed: Any,
) -> Commit:
    snapshot: Snapshot = target.inspect(pipeline)
    changes: tuple[TableChange, ...] = ()
    if rows is not None:
        frame = (rows if isinstance(rows, pl.LazyFrame | pl.DataFrame) else pl.DataFrame(rows)).lazy()
        schema, steps = evolve(snapshot.schema, Schema.of_polars(frame.collect_schema()), KEEP)
        flagged, deletes = deleting(write or Append(), frame)
        changes = (
            TableChange(
                table=target.table,
                write=write or Append(),
                schema=schema,
                rows=lambda: FrameStream(flagged),
                changes=steps,
                complete=complete,
                deletes=deletes,
                groups=None if groups is None else lambda: FrameStream(groups.lazy()),
            ),
        )
    return Commit(
        id=id or f"commit-{next(_numbers)}",
        pipeline=pipeline,
        run="run-1",
        expected=snapshot.number if expected is None else expected,
        changes=changes,
        seal=seal or (lambda: Seal(**{"positions": {}, "files": {}, "record": {}, **sealed})),
    )


def load(target: DuckDBDestination, rows: Any, write: Write | None = None, **more: Any) -> Receipt:
    return target.apply(commit(target, rows, write, **more))


def rejects(*rows: Mapping[str, Any], **more: Any) -> Rejects:
    from headrace.schema import REJECTS

    blank = dict.fromkeys(REJECTS.names) | {"stage": "contract", "rules": []}
    frame = pl.DataFrame([blank | dict(r) for r in rows], schema=REJECTS.polars())
    return Rejects(rows=lambda: FrameStream(frame.lazy()), count=frame.height, **more)


def read(target: DuckDBDestination, pipeline: str = "p") -> pl.DataFrame:
    scan = target.inspect(pipeline).scan
    assert scan is not None
    return scan().collect()


def rows(target: DuckDBDestination, *by: str) -> list[dict[str, Any]]:
    frame = read(target)
    return frame.sort(list(by) or frame.columns).to_dicts()

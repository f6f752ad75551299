"""The pipelines that the model is compared with, over CSV files in a folder; also for a process that is killed.

Known by `write` and `destination`, both JSON, since the killed process builds its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import headrace as hr

__all__ = ["act", "effects", "go", "look", "number", "pipeline", "rejected", "seen"]

NAME = "modelled"
_TYPES = {"id": "int64", "moved": "int64", "g": "string", "v": "int64", "op": "string"}
_TOTALS = "SELECT g, sum(v)::BIGINT AS total FROM source GROUP BY g"
_WRITES: dict[str, hr.Write] = {
    "append": hr.Append(),
    "merge": hr.Merge(keys=("id",), latest_by=("moved",), delete_when="op = 'D'"),
    "partitions": hr.Partitions(by=("g",)),
    "history": hr.History(keys=("id",), latest_by=("moved",), track=("v",)),
    "recompute": hr.Recompute(by=("g",)),
}


def pipeline(folder: Path, write: str, destination: str, *, strict: bool = True) -> hr.Pipeline:
    """A pipeline that reads ``in/*.csv``. `destination`: ``duckdb``, ``parquet`` or a DSN; `strict`: `v` is not
    negative.
    """
    latest = hr.Latest(keys=("id",)) if write == "recompute" else None
    judged = "total" if write == "recompute" else "v"
    checked = {judged: hr.Column(min=0)} if strict else {}
    return hr.Pipeline(
        name=NAME,
        source=hr.FileSource(path="in/*.csv", base=folder, types=_TYPES, latest=latest, allow_missing=True),
        transforms=(hr.sql(_TOTALS),) if write == "recompute" else (),
        contract=hr.Contract(columns=checked, on_violation="quarantine"),
        destination=_destination(folder, destination),
        write=_WRITES[write],
        on_schema_change=hr.SchemaPolicy(missing="keep"),
        base=folder,
    )


def _destination(folder: Path, kind: str) -> Any:
    if kind == "duckdb":
        return hr.DuckDBDestination(path=str(folder / "w.duckdb"), table=NAME)
    if kind == "parquet":
        return hr.ParquetDestination(path=str(folder / "lake"))
    return hr.PostgresDestination(dsn=kind, table=f"public.{folder.name}")


def go(folder: Path, write: str, destination: str, verb: str) -> None:
    """One run, in a process that may be killed in it."""
    act(verb, pipeline(folder, write, destination, strict=verb != "replay"))


def seen(folder: Path, write: str, destination: str, verb: str) -> None:
    """Nothing: the model looks by itself."""


def act(verb: str, one: hr.Pipeline, **how: Any) -> hr.RunReport:
    """Run, refresh or replay."""
    if verb == "replay":
        return hr.replay(one)
    refreshed = verb == "refresh"
    return hr.run(one, full_refresh=refreshed, discard_history=refreshed, **how)


def effects(write: str, destination: str, verb: str) -> Sequence[tuple[Any, str]]:
    """What a destination does to the world, besides what it does to files."""
    if destination == "duckdb":
        import duckdb

        from headrace.systems.duckdb import connection

        return [(duckdb, "connect"), (connection, "_commit"), (connection, "_close")]
    if destination == "parquet":
        return []
    from headrace.systems.postgres import connection as session

    return [(session, "_commit")]


def number(one: hr.Pipeline) -> int:
    """The number of the target's last commit."""
    return one.destination.inspect(one.name).number


def look(one: hr.Pipeline, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The target's rows, sorted."""
    scan = one.destination.inspect(one.name).scan
    if scan is None:
        return []
    frame = scan().collect()
    return sorted((tuple(row.get(c) for c in columns) for row in frame.iter_rows(named=True)), key=repr)


def rejected(one: hr.Pipeline) -> list[tuple[Any, ...]]:
    """The quarantine: the place of each row, or its text where it has none."""
    rows = hr.rejects(one).iter_rows(named=True)
    return sorted(((r["file"], r["line"]) if r["file"] else (r["row"], None) for r in rows), key=repr)

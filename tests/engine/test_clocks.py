"""A clock that is set back turns nothing."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import headrace as hr
from headrace import ledger
from headrace.systems.memory import MemorySource


@pytest.mark.parametrize("kind", ["duckdb", "parquet"])
def test_commits_and_runs_are_told_in_the_order_in_which_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):  # noqa: ARG003  # as the real one is called
            return datetime(2031, 1, 1, tzinfo=UTC) - timedelta(days=len(made))

    monkeypatch.setattr(ledger, "datetime", Clock)
    destination = {
        "duckdb": hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t"),
        "parquet": hr.ParquetDestination(path=str(tmp_path / "t")),
    }[kind]
    made: list[str] = []
    for n in range(3):
        source = MemorySource(frames=[pl.DataFrame({"id": [m]}) for m in range(n + 1)])
        made.append(hr.run(hr.Pipeline(name="p", source=source, destination=destination, write=hr.Append())).run)
    told = destination.history("p")
    assert [(one["kind"], one["run"]) for one in told] == [(k, run) for run in made[::-1] for k in ("run", "commit")]
    assert len({one["at"] for one in told if one["kind"] == "commit"}) == 3


@pytest.mark.parametrize("kind", ["duckdb", "parquet", "file"])
def test_a_run_that_fails_before_the_first_commit_is_on_record(tmp_path: Path, kind: str) -> None:
    destination = {
        "duckdb": hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t"),
        "parquet": hr.ParquetDestination(path=str(tmp_path / "t")),
        "file": hr.FileDestination(path=str(tmp_path / "t.csv")),
    }[kind]

    def fails(rows: pl.LazyFrame) -> pl.LazyFrame:
        raise ValueError

    def run(*transforms: object) -> list[str]:
        pipeline = hr.Pipeline(
            name="p",
            source=MemorySource(frames=[pl.DataFrame({"id": [1]})]),
            transforms=transforms,  # type: ignore[arg-type]
            destination=destination,
            write=hr.Replace(),
        )
        with contextlib.suppress(hr.TransformError):
            hr.run(pipeline)
        return [one["status"] for one in destination.history("p") if one["kind"] == "run"]

    if kind != "duckdb":  # a database that is not there yet is not made for a record
        assert run(fails) == ["failed"]
        assert run(fails) == ["failed", "failed"]
    assert run()[0] == "loaded"
    assert run(fails)[0] == "failed"

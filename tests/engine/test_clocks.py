"""A clock that is set back turns nothing."""

from __future__ import annotations

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

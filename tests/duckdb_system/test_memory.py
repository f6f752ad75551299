"""A commit takes little memory, and more where it needs more."""

from __future__ import annotations

import os
from collections.abc import Iterator

import polars as pl
import pytest
from commits import commit, rows

import headrace as hr
from headrace.stream import scan_batches
from headrace.systems.duckdb import DuckDBDestination, connection, loading
from headrace.writes import Append, Merge, Replace, Write


def test_a_commit_that_the_usual_memory_is_too_little_for_begins_again_with_more(
    target: DuckDBDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []

    def batches() -> Iterator[pl.DataFrame]:
        passes.append(1)
        for at in range(30):
            yield pl.DataFrame({"id": [at], "text": [f"{at:02}" + os.urandom(500_000).hex()]})

    frame = scan_batches(batches, {"id": pl.Int64(), "text": pl.String()})
    with monkeypatch.context() as patch:
        patch.setattr(connection, "MEMORY_LIMIT_MB", 8)
        assert target.apply(commit(target, frame, Merge(keys=("id",)))).counts["inserted"] == 30
    assert [row["text"][:2] for row in rows(target, "id")] == [f"{at:02}" for at in range(30)]
    assert len(passes) == 2


def test_rows_that_pass_through_have_little_memory_and_the_file_then_its_usual(target: DuckDBDestination) -> None:
    limit = "SELECT current_setting('memory_limit')"
    assert connection.limits(stream=True)[:2] == [
        connection.STREAM_THREAD_MB * connection._threads(),
        connection.MEMORY_LIMIT_MB,
    ]
    assert connection.limits(stream=False)[0] == connection.MEMORY_LIMIT_MB
    target.apply(commit(target, {"id": [1]}, Append()))
    with connection.writing(target._file) as con:
        usual = con.execute(limit).fetchall()
        with connection.limited(con, 64):
            assert con.execute(limit).fetchall() == [("61.0 MiB",)]
        assert con.execute(limit).fetchall() == usual


def test_a_commit_whose_last_step_has_too_little_memory_begins_again_with_more(target: DuckDBDestination) -> None:
    """Each column has a block of its own until DuckDB's COMMIT writes them: only there is it too little."""
    frame = pl.DataFrame({f"c{n}": pl.int_range(4_000, eager=True) + n for n in range(1_000)}).lazy()
    assert target.apply(commit(target, frame, Append())).counts["inserted"] == 4_000
    assert target.inspect("p").scan().select(pl.len(), pl.col("c999").max()).collect().rows() == [(4_000, 4_998)]


@pytest.mark.parametrize(("write", "ordered"), [(Append(), False), (Replace(), False), (Merge(keys=("id",)), True)])
def test_only_rows_that_pass_through_lose_their_order(
    target: DuckDBDestination, monkeypatch: pytest.MonkeyPatch, write: Write, ordered: bool
) -> None:
    """For several threads' sake: in order one would insert them, with so little memory."""
    asked, run = [], loading.Load.run

    def watched(self: loading.Load, sql: str, *values: object) -> int:
        setting = self.connection.execute("SELECT current_setting('preserve_insertion_order')").fetchall()[0][0]
        if sql.startswith("INSERT INTO"):
            asked.append(setting)
        return run(self, sql, *values)

    monkeypatch.setattr(loading.Load, "run", watched)
    target.apply(commit(target, {"id": [1]}, write))
    assert asked == [ordered]
    with connection.writing(target._file) as con:
        assert con.execute("SELECT current_setting('preserve_insertion_order')").fetchall() == [(True,)]


def test_a_commit_that_cannot_let_go_of_its_memory_is_a_commit(target: DuckDBDestination, monkeypatch) -> None:
    """As after a delete among sixty million rows: the usual limit is too little for what DuckDB still holds of it."""
    with connection.writing(target._file) as con:
        con.execute("SET GLOBAL temp_directory = ''")
        with monkeypatch.context() as patch, connection.limited(con, 500):
            con.execute("CREATE TEMP TABLE held AS SELECT random() FROM range(10_000_000)")
            patch.setattr(connection, "limits", lambda **_: [8])
        assert con.execute("SELECT count(*) FROM held").fetchall() == [(10_000_000,)]


def test_a_source_in_the_same_file_keeps_the_order_of_its_rows(target: DuckDBDestination) -> None:
    """Of rows with one key a merge takes the last."""
    with connection.writing(target._file) as con:
        con.execute("CREATE TABLE src AS SELECT i % 300000 AS k, i // 300000 AS v FROM range(600000) r(i)")
    pipeline = hr.Pipeline(
        name="p",
        source=hr.DuckDBSource(path=str(target._file), table="src"),
        destination=hr.DuckDBDestination(path=str(target._file), table="held"),
        write=Merge(keys=("k",)),
    )
    hr.run(pipeline)
    with connection.reading(target._file) as con:
        assert con.execute("SELECT count(*), min(v) FROM held").fetchall() == [(300_000, 1)]


def test_staged_rows_keep_their_order(target: DuckDBDestination) -> None:
    """Up to a million of them: of rows that only pass through the order is lost, for several threads' sake."""
    frame = pl.DataFrame({"id": pl.int_range(400_000, eager=True)}).lazy()
    target.apply(commit(target, {"id": [-1]}, Merge(keys=("id",))))
    target.apply(commit(target, frame, Merge(keys=("id",))))
    with connection.reading(target._file) as con:
        found = con.execute(
            "SELECT bool_and(id > before) FROM (SELECT id, lag(id) OVER (ORDER BY rowid) AS before FROM t)"
        )
        assert found.fetchall() == [(True,)]

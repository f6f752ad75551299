"""A source that others write to while it is read: what a transform sees twice is the same both times, or it is said."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import duckdb
import pytest

import headrace as hr
from headrace.errors import UnavailableError
from headrace.flow import Range, Snapshot
from headrace.systems.duckdb import frames
from headrace.systems.sqlite import source as sqlite_source

TWICE = hr.sql("SELECT id, kind FROM source WHERE kind = 'a' UNION ALL SELECT id, kind FROM source WHERE kind = 'b'")
ONCE = hr.Retry(attempts=1)
FIRST = [(i, "ab"[i % 2]) for i in range(10)]


def pipeline(folder, source, write=None):
    target = hr.DuckDBDestination(path=str(folder / "w.duckdb"), table="t")
    return hr.Pipeline(
        name="p", source=source, destination=target, transforms=(TWICE,), write=write or hr.Merge(keys=("id",))
    )


def loaded(folder):
    with duckdb.connect(folder / "w.duckdb") as con:
        return con.execute("SELECT id, kind FROM t ORDER BY ALL").fetchall()


def after_first_pass(monkeypatch, write):
    """Let `write` happen when the first pass over an SQLite table has come to its end."""
    real, passes = sqlite_source._Table._read, []

    def read(self, *where):
        yield from real(self, *where)
        passes.append(1)
        if len(passes) == 1:
            write()

    monkeypatch.setattr(sqlite_source._Table, "_read", read)
    return passes


@pytest.mark.parametrize("write", [hr.Append(), hr.Merge(keys=("id",))], ids=["append", "merge"])
@pytest.mark.parametrize("more", [hr.SQLiteSource, None], ids=["table", "query"])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_rows_that_are_added_between_two_scans_are_the_next_runs(tmp_path, monkeypatch, mode, more, write):
    with closing(sqlite3.connect(tmp_path / "s.db", check_same_thread=False, timeout=1)) as con:
        con.execute(f"PRAGMA journal_mode = {mode}")
        con.execute("CREATE TABLE s (id INTEGER, kind TEXT)")
        con.executemany("INSERT INTO s VALUES (?, ?)", FIRST)
        con.commit()
        late = [(10, "a"), (11, "b"), (12, "a"), (9, "a")][: None if more else 3]  # a tie has a rowid, in a table

        def write_more():
            con.executemany("INSERT INTO s VALUES (?, ?)", late)
            con.commit()

        of = {"table": "s"} if more else {"query": "SELECT * FROM s"}
        it = pipeline(tmp_path, hr.SQLiteSource(path=str(tmp_path / "s.db"), cursor="id", **of), write)
        passes = after_first_pass(monkeypatch, write_more)
        hr.run(it, retry=ONCE)
        assert len(passes) > 1, "nothing is tried where the transform reads once"
        assert loaded(tmp_path) == FIRST
        hr.run(it, retry=ONCE)
        if write.type == "append":
            assert loaded(tmp_path) == sorted(FIRST + late)
        else:
            assert [i for i, _ in loaded(tmp_path)] == list(range(13))


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_rows_that_go_between_two_scans_are_said_where_nothing_keeps_them(tmp_path, monkeypatch, mode):
    with closing(sqlite3.connect(tmp_path / "s.db", check_same_thread=False)) as con:
        con.execute(f"PRAGMA journal_mode = {mode}")
        con.execute("CREATE TABLE s (id INTEGER, kind TEXT)")
        con.executemany("INSERT INTO s VALUES (?, ?)", FIRST)
        con.commit()

        def delete():
            con.execute("DELETE FROM s WHERE id < 4")
            con.commit()

        it = pipeline(tmp_path, hr.SQLiteSource(path=str(tmp_path / "s.db"), table="s", cursor="id"))
        passes = after_first_pass(monkeypatch, delete)
        if mode == "wal":  # one snapshot: what has gone since is still there
            hr.run(it, retry=ONCE)
            assert len(passes) > 1
            assert loaded(tmp_path) == FIRST
            return
        with pytest.raises(UnavailableError, match="written to while it was read"):
            hr.run(it, retry=ONCE)
        hr.run(it, retry=ONCE)
        assert loaded(tmp_path) == FIRST[4:]


def test_a_tie_that_is_added_to_a_duckdb_file_between_two_scans_is_said(tmp_path, monkeypatch):
    path = str(tmp_path / "s.duckdb")
    with duckdb.connect(path) as con:
        con.execute(
            "CREATE TABLE s AS SELECT i AS id, CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END AS kind FROM range(4) t(i)"
        )
        con.execute("ALTER TABLE s ADD COLUMN c INTEGER DEFAULT 1")
    real, passes = frames.reading, []
    added = f"import duckdb; duckdb.connect({path!r}).execute(\"INSERT INTO s VALUES (4, 'a', 1), (5, 'b', 1)\")"

    @contextmanager
    def reading(file):
        with real(file) as con:
            yield con
        passes.append(1)
        if len(passes) == 1:
            subprocess.run([sys.executable, "-c", added], check=True, timeout=30)

    monkeypatch.setattr(frames, "reading", reading)
    it = pipeline(tmp_path, hr.DuckDBSource(path=path, table="s", cursor="c"))
    with pytest.raises(UnavailableError, match="written to while it was read"):
        hr.run(it, retry=ONCE)
    hr.run(it, retry=ONCE)
    assert [i for i, _ in loaded(tmp_path)] == list(range(6))


def test_a_file_whose_rows_are_refused_by_one_pass_alone_is_no_moving_source(tmp_path):
    (tmp_path / "1.csv").write_text("id,n\n" + "1,1\n" * 15_000 + "1,x\n")
    source = hr.FileSource(path=str(tmp_path / "*.csv"), cursor="id")
    (batch,) = source.batches(Range(ties="again"), Snapshot(), "s")
    assert [batch.frame.lazy.select(c).collect().height for c in ("n", "id")] == [15_000, 15_001]

"""A cursor that starts from the target: it counts for what is new, and for nothing read from the beginning."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import duckdb
import pytest

import headrace as hr
from headrace.cursor import Cursor

START = Cursor(column="id", start="from_target")
GROUPS = hr.sql("SELECT g, sum(v)::BIGINT AS n, max(id) AS id FROM source GROUP BY g")


@pytest.fixture(params=["duckdb", "sqlite", "files"])
def kind(request):
    return request.param


class Taken:
    """A source with ids 0 to 9, and a table that was made elsewhere and has those up to 7."""

    def __init__(self, folder, kind):
        self.folder, self.kind = folder, kind
        self.put(range(10))
        with duckdb.connect(folder / "w.duckdb") as con:
            con.execute(
                "CREATE TABLE t AS SELECT i::BIGINT AS id, (i % 3)::BIGINT AS g, 1::BIGINT AS v FROM range(8) t(i)"
            )

    def put(self, ids):
        rows = [(i, i % 3, 1) for i in ids]
        if self.kind == "files":
            (self.folder / f"{rows[0][0]:03}.csv").write_text(
                "id,g,v\n" + "".join(f"{i},{g},{v}\n" for i, g, v in rows)
            )
            return
        with closing((sqlite3 if self.kind == "sqlite" else duckdb).connect(self.folder / "s.db")) as con:
            con.execute("CREATE TABLE IF NOT EXISTS t (id BIGINT, g BIGINT, v BIGINT)")
            con.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
            con.commit()

    def pipeline(self, write, *transforms):
        path = str(self.folder / "s.db")
        source = {
            "files": lambda: hr.FileSource(path=str(self.folder / "*.csv"), cursor=START),
            "sqlite": lambda: hr.SQLiteSource(path=path, table="t", cursor=START),
            "duckdb": lambda: hr.DuckDBSource(path=path, table="t", cursor=START),
        }[self.kind]()
        target = hr.DuckDBDestination(path=str(self.folder / "w.duckdb"), table="t", adopt=True)
        return hr.Pipeline(name="p", source=source, destination=target, write=write, transforms=transforms)

    def ids(self):
        with duckdb.connect(self.folder / "w.duckdb") as con:
            return [i for (i,) in con.execute("SELECT id FROM t ORDER BY id").fetchall()]

    def groups(self):
        with duckdb.connect(self.folder / "w.duckdb") as con:
            return con.execute("SELECT g, n FROM t ORDER BY g").fetchall()


@pytest.mark.parametrize("write", [hr.Append(), hr.Merge(keys=("id",))], ids=["append", "merge"])
def test_a_full_refresh_begins_at_the_beginning(tmp_path, kind, write):
    taken = Taken(tmp_path, kind)
    hr.run(taken.pipeline(write))
    assert taken.ids() == list(range(10))
    hr.run(taken.pipeline(write), full_refresh=True)
    assert taken.ids() == list(range(10))


def test_a_replace_holds_all_that_the_source_has(tmp_path, kind):
    taken = Taken(tmp_path, kind)
    hr.run(taken.pipeline(hr.Replace()))
    taken.put([10, 11])
    hr.run(taken.pipeline(hr.Replace()))
    assert taken.ids() == list(range(12))
    hr.run(taken.pipeline(hr.Replace()), full_refresh=True)
    assert taken.ids() == list(range(12))
    hr.replay(taken.pipeline(hr.Replace()))
    assert taken.ids() == list(range(12))


def test_a_recompute_makes_its_groups_of_all_rows(tmp_path, kind):
    taken = Taken(tmp_path, kind)
    with duckdb.connect(tmp_path / "w.duckdb") as con:
        con.execute("CREATE OR REPLACE TABLE t AS SELECT g, sum(v)::BIGINT AS n, max(id) AS id FROM t GROUP BY g")
    hr.run(taken.pipeline(hr.Recompute(by=("g",)), GROUPS))
    assert taken.groups() == [(0, 4), (1, 3), (2, 3)]
    taken.put([10, 11])
    hr.run(taken.pipeline(hr.Recompute(by=("g",)), GROUPS))
    assert taken.groups() == [(0, 4), (1, 4), (2, 4)]
    hr.run(taken.pipeline(hr.Recompute(by=("g",)), GROUPS), full_refresh=True)
    assert taken.groups() == [(0, 4), (1, 4), (2, 4)]

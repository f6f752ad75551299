"""Rows without a value of the cursor: read at every run, each a reject of its own until it is loaded."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import duckdb
import pytest

import headrace as hr

KEEP = hr.Contract(on_violation="quarantine")


class Nulls:
    """A table with two equal rows that have no value of the cursor."""

    def __init__(self, folder, kind):
        self.folder, self.kind = folder, {"sqlite": sqlite3, "duckdb": duckdb}[kind]
        self.source = {"sqlite": hr.SQLiteSource, "duckdb": hr.DuckDBSource}[kind]
        self.sql("CREATE TABLE t (c INTEGER, v TEXT)", "INSERT INTO t VALUES (1, 'a'), (NULL, 'x'), (NULL, 'x')")

    def sql(self, *statements):
        with closing(self.kind.connect(self.folder / "s.db")) as con:
            for statement in statements:
                con.execute(statement)
            con.commit()

    def pipeline(self, contract=KEEP, write=None):
        source = self.source(path=str(self.folder / "s.db"), table="t", cursor="c", contract=contract)
        target = hr.DuckDBDestination(path=str(self.folder / "w.duckdb"), table="t")
        return hr.Pipeline(name="p", source=source, destination=target, write=write or hr.Append())

    def texts(self):
        with duckdb.connect(self.folder / "w.duckdb") as con:
            return [v for (v,) in con.execute("SELECT v FROM t ORDER BY v").fetchall()]


@pytest.fixture(params=["sqlite", "duckdb"])
def nulls(request, tmp_path):
    return Nulls(tmp_path, request.param)


def test_equal_rows_without_a_value_are_rejects_of_their_own(nulls):
    hr.run(nulls.pipeline())
    one, two = sorted(hr.rejects(nulls.pipeline())["id"])
    assert two == f"{one}-2"
    nulls.sql("INSERT INTO t VALUES (2, 'b')")
    hr.run(nulls.pipeline())
    assert sorted(hr.rejects(nulls.pipeline())["id"]) == [one, two], "the same rows are the same rejects"


def test_what_was_loaded_stands_for_as_many_rows_as_were_loaded(nulls):
    hr.run(nulls.pipeline())
    hr.replay(nulls.pipeline())
    assert (nulls.texts(), hr.rejects(nulls.pipeline()).height) == (["a", "x", "x"], 0)
    nulls.sql("INSERT INTO t VALUES (2, 'b'), (NULL, 'x')")
    hr.run(nulls.pipeline())
    assert (nulls.texts(), hr.rejects(nulls.pipeline()).height) == (["a", "b", "x", "x"], 1)
    hr.replay(nulls.pipeline())
    assert nulls.texts() == ["a", "b", "x", "x", "x"]
    nulls.sql("INSERT INTO t VALUES (3, 'c')")
    hr.run(nulls.pipeline())
    assert (nulls.texts(), hr.rejects(nulls.pipeline()).height) == (["a", "b", "c", "x", "x", "x"], 0)


def test_a_row_of_a_database_that_is_refused_is_no_line_of_a_file(place):
    with closing(sqlite3.connect(place.folder / "s.db")) as con, con:
        con.execute("CREATE TABLE t (id INTEGER, ts INTEGER)")
        con.execute("INSERT INTO t VALUES (1, NULL)")
    source = hr.SQLiteSource(path=str(place.folder / "s.db"), table="t", cursor="ts")
    with pytest.raises(hr.ContractError, match=r"'source' has 1 row not to be loaded: .*null"):
        hr.run(place.pipeline(source=source))

"""A position says how far ONE column, of one table or query, has been read."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import duckdb
import polars as pl
import pytest

import headrace as hr
from headrace.cursor import Cursor, track
from headrace.errors import ConfigError, DataError


def run(folder, **source):
    kind = {"sqlite": hr.SQLiteSource, "duckdb": hr.DuckDBSource, "files": hr.FileSource}[source.pop("kind")]
    target = hr.DuckDBDestination(path=str(folder / "w.duckdb"), table="t")
    return hr.run(hr.Pipeline(name="p", source=kind(**source), destination=target, write=hr.Append()))


def rows(folder):
    with duckdb.connect(folder / "w.duckdb") as con:
        return con.execute("FROM t ORDER BY id").fetchall()


@pytest.mark.parametrize(("first", "then"), [("id", "rev"), ("rev", "id")])
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "files"])
def test_another_cursor_column_is_refused_by_name(tmp_path, kind, first, then):
    if kind == "files":
        (tmp_path / "1.csv").write_text("id,rev\n1,10\n2,20\n3,30\n")
        source = {"kind": kind, "path": str(tmp_path / "*.csv")}
    else:
        with closing((sqlite3 if kind == "sqlite" else duckdb).connect(tmp_path / "s.db")) as con:
            con.execute("CREATE TABLE s (id INTEGER, rev INTEGER)")
            con.execute("INSERT INTO s VALUES (1, 10), (2, 20), (3, 30)")
            con.commit()
        source = {"kind": kind, "path": str(tmp_path / "s.db"), "table": "s"}
    run(tmp_path, **source, cursor=first)
    with pytest.raises(DataError, match=f"was read by '{first}', and its cursor is '{then}' now"):
        run(tmp_path, **source, cursor=then)
    assert rows(tmp_path) == [(1, 10), (2, 20), (3, 30)]


@pytest.mark.parametrize("read", ["new", "all"])
def test_a_cursor_of_files_that_were_read_by_name_is_refused(tmp_path, read):
    """Their position knows none of its values, so that all rows would be new."""
    (tmp_path / "1.csv").write_text("id,rev\n1,10\n2,20\n")
    target = hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t")
    files = hr.FileSource(path=str(tmp_path / "*.csv"), read=read)
    hr.run(hr.Pipeline(name="p", source=files, destination=target, write=hr.Replace()))
    (tmp_path / "2.csv").write_text("id,rev\n3,30\n")
    by_cursor = {"kind": "files", "path": str(tmp_path / "*.csv"), "cursor": "id"}
    with pytest.raises(DataError, match="was read file by file, and its cursor is 'id' now") as refused:
        run(tmp_path, **by_cursor)
    assert "--full-refresh" in refused.value.hint
    assert rows(tmp_path) == [(1, 10), (2, 20)]


def test_a_cursor_that_has_met_no_row_yet_goes_on(tmp_path):
    (tmp_path / "1.csv").write_text("id,rev\n")
    by_cursor = {"kind": "files", "path": str(tmp_path / "*.csv"), "cursor": "id", "types": {"id": "int64"}}
    run(tmp_path, **by_cursor)
    (tmp_path / "2.csv").write_text("id,rev\n3,30\n")
    run(tmp_path, **by_cursor)
    assert rows(tmp_path) == [(3, 30)]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_another_query_is_another_source(tmp_path, kind):
    with closing((sqlite3 if kind == "sqlite" else duckdb).connect(tmp_path / "s.db")) as con:
        con.execute("CREATE TABLE a (id INTEGER)")
        con.execute("INSERT INTO a VALUES (1), (2)")
        con.commit()
    source = {"kind": kind, "path": str(tmp_path / "s.db"), "cursor": "id"}
    run(tmp_path, **source, query="SELECT id FROM a")
    with pytest.raises(ConfigError, match="is not the one that was read before"):
        run(tmp_path, **source, query="SELECT id + 1 AS id FROM a")
    assert rows(tmp_path) == [(1,), (2,)]


@pytest.mark.parametrize("ties", ["again", "once"])
def test_a_position_that_did_not_keep_its_column_goes_on(ties):
    def read(values, after=None):
        frame = pl.LazyFrame({"c": values})
        found = track(frame, Cursor(column="c"), after=after, ties=ties, source="in")
        return found.lazy.collect()["c"].to_list(), json.loads(json.dumps(found.position()))

    _, position = read([1, 2])
    assert position.pop("column") == "c"
    assert read([1, 2, 3], position)[0] == ([2, 3] if ties == "again" else [3])


@pytest.mark.parametrize("kind", [hr.SQLiteSource, hr.DuckDBSource])
def test_a_tables_identity_is_what_it_was(kind):
    assert set(kind(path="s.db", table="t").identity()) == {"type", "file", "table"}


@pytest.mark.parametrize("target", ["duckdb", "parquet", "memory"])
def test_a_full_refresh_forgets_how_far_a_source_without_rows_was_read(place, target):
    destination = hr.MemoryDestination() if target == "memory" else getattr(place, target)()
    sources = {name: hr.SQLiteSource(path=str(place.folder / f"{name}.db"), table="t", cursor="id") for name in "ab"}

    def execute(name, *statements):
        with closing(sqlite3.connect(place.folder / f"{name}.db")) as con:
            for statement in statements:
                con.execute(statement)
            con.commit()

    def loaded(*names):
        step = hr.sql(" UNION ALL ".join(f"FROM {name}" for name in names))
        pipeline = place.pipeline(
            sources={name: sources[name] for name in names},
            transforms=(step,),
            independent=True,
            destination=destination,
            write=hr.Append(),
        )
        return lambda **how: hr.run(pipeline, **how) and place.rows(pipeline, ["v", "id"])

    for name in "ab":
        execute(name, "CREATE TABLE t (id INTEGER, v TEXT)", f"INSERT INTO t VALUES (5, '{name}'), (6, '{name}')")
    assert len(loaded("a", "b")()) == 4
    execute("b", "DELETE FROM t")
    assert loaded("a", "b")(full_refresh=True) == [(5, "a"), (6, "a")]
    execute("b", "INSERT INTO t VALUES (1, 'b'), (2, 'b')")
    assert loaded("a", "b")() == [(5, "a"), (6, "a"), (1, "b"), (2, "b")]
    assert loaded("b")(full_refresh=True) == [(1, "b"), (2, "b")]
    assert len(loaded("a", "b")()) == 4


def named(folder, target, **sources):
    union = (hr.sql(" UNION ALL ".join(f"SELECT id FROM {name}" for name in sources)),)
    write = hr.Append()
    return hr.Pipeline(name="p", sources=sources, transforms=union, destination=target, write=write, independent=True)


@pytest.mark.parametrize("kind", ["duckdb", "parquet"])
def test_a_source_that_has_another_name_is_refused_and_not_loaded_again(tmp_path, kind):
    (tmp_path / "1.csv").write_text("id\n1\n2\n")
    duck = hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t")
    target = duck if kind == "duckdb" else hr.ParquetDestination(path=str(tmp_path / "lake"))
    files = hr.FileSource(path="*.csv", base=tmp_path)
    before = hr.Pipeline(name="p", source=files, destination=target, write=hr.Append())
    hr.run(before)
    now = named(tmp_path, target, orders=files)
    for verb in (hr.plan, hr.check, hr.run):
        with pytest.raises(ConfigError, match="'source', which was, is not there any more") as refused:
            verb(now)
        assert "call it 'source' as before" in refused.value.hint
    (tmp_path / "2.csv").write_text("id\n3\n")
    hr.run(named(tmp_path, target, source=files))
    assert target.inspect("p").scan().collect()["id"].sort().to_list() == [1, 2, 3]
    hr.run(now, full_refresh=True)
    assert hr.run(now).status == "nothing_new"
    assert target.inspect("p").scan().collect()["id"].sort().to_list() == [1, 2, 3]


def test_a_source_beside_the_others_is_new_and_so_is_one_once_another_has_long_gone(tmp_path):
    target = hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t")
    a, b, c = (hr.FileSource(path=f"{name}*.csv", base=tmp_path) for name in "abc")
    for number, name in enumerate("abc"):
        (tmp_path / f"{name}.csv").write_text(f"id\n{number}\n")
    hr.run(named(tmp_path, target, a=a))
    hr.run(named(tmp_path, target, a=a, b=b))
    assert rows(tmp_path) == [(0,), (1,)]
    (tmp_path / "a2.csv").write_text("id\n9\n")
    hr.run(named(tmp_path, target, a=a))
    with pytest.raises(ConfigError, match="'b', which was, is not there any more"):  # by what it reads
        hr.run(named(tmp_path, target, a=a, again=b))
    hr.run(named(tmp_path, target, a=a, c=c))
    assert rows(tmp_path) == [(0,), (1,), (2,), (9,)]


def test_an_earlier_name_of_the_pipeline_is_no_way_to_its_ledger_and_says_so(tmp_path):
    (tmp_path / "1.csv").write_text("id\n1\n")
    target = hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t")
    files = hr.FileSource(path="*.csv", base=tmp_path)
    hr.run(hr.Pipeline(name="old", source=files, destination=target, write=hr.Append()))
    renamed = hr.Pipeline(name="new", was="old", source=files, destination=target, write=hr.Append())
    for verb in (hr.plan, hr.check, hr.run):
        with pytest.raises(ConfigError, match="'old', which is none of its sources: source") as refused:
            verb(renamed)
        assert "give it the old one" in refused.value.hint
    with pytest.raises(ConfigError, match="is written by pipeline 'old'") as refused:
        hr.run(hr.Pipeline(name="new", source=files, destination=target, write=hr.Append()))
    assert "loads all that its sources have" in refused.value.hint

"""The source: everything after the last position, once, and as it is in the file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest
from commits import load, read

from headrace.cursor import Cursor
from headrace.errors import ConfigError, DataError, SchemaError
from headrace.flow import Range, Snapshot
from headrace.schema import Schema
from headrace.systems.duckdb import DuckDBDestination, DuckDBSource

NOTHING = Snapshot()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "src.duckdb"


def sql(file: Path, *statements: str) -> None:
    with duckdb.connect(file) as connection:
        for statement in statements:
            connection.execute(statement)


def source(file: Path, **more) -> DuckDBSource:
    return DuckDBSource(
        **{"path": file.name, "base": file.parent, **({} if "query" in more else {"table": "s"}), **more}
    )


def news(it: DuckDBSource, after=None, ties="again", snapshot=NOTHING):
    (batch,) = it.batches(Range(after=after, ties=ties), snapshot, "s")
    return batch


def drain(it: DuckDBSource, after=None, ties="again"):
    batch = news(it, after, ties)
    rows = batch.frame.lazy.collect()
    position = json.loads(json.dumps(dict(batch.position())))
    return rows, position, batch


def test_either_a_table_or_a_query():
    for wrong in ({}, {"table": "a", "query": "FROM a"}):
        with pytest.raises(ConfigError, match="either table or query"):
            DuckDBSource(path="x", **wrong)


def test_without_a_cursor_everything_is_read_at_every_run(file):
    sql(file, "CREATE TABLE s AS SELECT 1 AS a")
    rows, position, batch = drain(source(file))
    assert (rows.to_dicts(), position, batch.complete, batch.news.empty) == ([{"a": 1}], {}, True, None)
    assert batch.counts().rows == 1


@pytest.mark.parametrize(("first", "then", "new"), [("aB", "Cd", "d"), ("AZ", "b", "b"), ("a", "aA", "a")])
def test_a_cursor_under_a_collation_goes_by_the_bytes_of_its_texts(file, first, then, new):
    sql(file, "CREATE TABLE s (c VARCHAR COLLATE NOCASE)", *(f"INSERT INTO s VALUES ('{t}')" for t in first))
    rows, position, batch = drain(source(file, cursor="c"), ties="once")
    assert (sorted(rows["c"]), batch.news.rows, position["cursor"]) == (sorted(first), len(first), max(first))
    sql(file, *(f"INSERT INTO s VALUES ('{t}')" for t in then))
    rows, position, batch = drain(source(file, cursor="c"), position, ties="once")
    assert (list(rows["c"]), position["cursor"]) == (list(new), max(first + then))
    assert news(source(file, cursor="c"), position, "once").news.empty


@pytest.mark.parametrize("ties", ["again", "once"])
def test_reading_on_skips_nothing_and_reads_nothing_twice(file, ties):
    sql(
        file,
        "CREATE TABLE s (id INT, c TIMESTAMP)",
        "INSERT INTO s VALUES (1, '2024-01-01'), (2, '2024-01-02 00:00:00.000001')",
    )
    it = source(file, cursor="c")
    rows, position, batch = drain(it, ties=ties)
    assert (rows.height, batch.news.rows) == (2, 2)
    assert news(it, position, ties).news.empty
    sql(
        file,
        "INSERT INTO s VALUES (3, '2024-01-02 00:00:00.000001'), (4, '2024-01-02 00:00:00.000002'), (5, '2020-01-01')",
    )
    rows, position, batch = drain(it, position, ties)
    assert sorted(rows["id"]) == ([3, 4] if ties == "once" else [2, 3, 4])
    assert (batch.complete, batch.news.empty) == (False, False)
    assert news(it, position, ties).news.empty


def test_a_new_tie_alone_is_news(file):
    sql(file, "CREATE TABLE s AS SELECT 1 AS id, 7 AS c")
    it = source(file, cursor="c")
    _, position, _ = drain(it, ties="once")
    sql(file, "INSERT INTO s VALUES (2, 7)")
    rows, position, batch = drain(it, position, "once")
    assert (batch.news.empty, rows["id"].to_list()) == (False, [2])


def test_the_cursor_keeps_its_zone_and_its_microseconds(file):
    sql(file, "SET TimeZone = 'America/New_York'",
        "CREATE TABLE s AS SELECT TIMESTAMPTZ '2024-03-10 06:59:59.999999Z' AS c",
        "INSERT INTO s VALUES ('2024-03-10 07:00:00Z')")  # fmt: skip
    it = source(file, cursor=Cursor(column="c", start="2024-03-10T07:00:00Z"))
    rows, position, _ = drain(it)
    assert rows["c"].to_list() == [datetime(2024, 3, 10, 7, tzinfo=UTC)]
    assert position["cursor"] == "2024-03-10T07:00:00Z"


def test_rows_without_a_cursor_are_rejects_not_lost(file):
    sql(file, "CREATE TABLE s (id INT, c INT)", "INSERT INTO s VALUES (1, NULL), (2, NULL), (3, 1)")
    it = source(file, cursor="c")
    rows, position, batch = drain(it)
    assert rows["id"].to_list() == [3]
    assert pl.concat(batch.rejects()).height == 2
    assert news(it, position).news.empty
    sql(file, "INSERT INTO s VALUES (4, NULL)")
    assert not news(it, position).news.empty


def test_a_first_batch_whose_cursor_is_all_null_does_not_close_the_source(file):
    sql(file, "CREATE TABLE s (id INT, c INT)", "INSERT INTO s VALUES (1, NULL)")
    it = source(file, cursor="c")
    _, position, _ = drain(it)
    sql(file, "INSERT INTO s VALUES (2, 5)")
    assert drain(it, position)[0]["id"].to_list() == [2]


def test_rows_that_arrive_while_a_batch_is_open_are_the_next_runs(file):
    sql(file, "CREATE TABLE s AS SELECT 1 AS id, 1 AS c")
    it = source(file, cursor="c")
    batch = news(it)
    sql(file, "INSERT INTO s VALUES (2, 2)")
    assert batch.frame.lazy.collect()["id"].to_list() == [1]
    assert batch.whole.lazy.collect()["id"].to_list() == [1]
    assert drain(it, batch.position())[0]["id"].to_list() == [1, 2]


def test_whole_is_everything_up_to_the_same_point(file):
    sql(file, "CREATE TABLE s AS SELECT i AS id, i AS c FROM range(5) t(i)")
    batch = news(source(file, cursor="c"), {"cursor": "3", "type": "int64"})
    assert batch.frame.lazy.collect()["id"].to_list() == [3, 4]
    assert batch.whole.lazy.collect()["id"].to_list() == [0, 1, 2, 3, 4]
    assert batch.position()["cursor"] == "4"


def test_read_all_is_a_look_up(file):
    sql(file, "CREATE TABLE s AS SELECT 1 AS id, 1 AS c")
    batch = news(source(file, cursor="c", read="all"), {"cursor": "9", "type": "int32"})
    assert (batch.complete, batch.frame.lazy.collect().height) == (True, 1)


def test_a_rename_gives_the_name_that_all_else_uses(file):
    sql(file, 'CREATE TABLE s AS SELECT 1 AS id, 2 AS "old c"')
    rows, _, _ = drain(source(file, rename={"old c": "c"}, cursor="c"))
    assert rows.to_dicts() == [{"id": 1, "c": 2}]
    with pytest.raises(ConfigError, match="'nope'"):
        news(source(file, rename={"nope": "c"}))


@pytest.mark.parametrize(
    "more",
    [
        {"table": "nope"},
        {"query": "SELECT nope FROM s"},
        {"query": "DELETE FROM s"},
        {"query": "WITH x AS (DELETE FROM s RETURNING *) FROM x"},
        {"cursor": "nope"},
    ],
)
def test_what_does_not_bind_is_the_configs_fault(file, more):
    sql(file, "CREATE TABLE s AS SELECT 1 AS a")
    with pytest.raises(ConfigError):
        news(source(file, **more))
    with duckdb.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM s").fetchall() == [(1,)]


def test_a_missing_file_is_named_and_not_made(file):
    with pytest.raises(ConfigError, match="no such file"):
        news(source(file))
    assert not file.exists()


EXOTIC = """SELECT 170141183460469231731687303715884105727::HUGEINT AS huge, sum(i) AS total,
 INTERVAL '1 month 2 days 3.5 seconds' AS every, '12:00:00.5+05:30'::TIMETZ AS clock, '10101'::BIT AS bits,
 'EB0CCE38-2F7F-4A0D-8B5A-0F5D6C9B3F11'::UUID AS name, MAP([1, 2], ['a', NULL]) AS map, 'b'::ENUM('a', 'b') AS kind,
 [{'a': 1::HUGEINT, 'b': ['x']}] AS nested, TIMESTAMP_NS '2024-01-01 00:00:00.123456789' AS fine,
 '340282366920938463463374607431768211455'::UHUGEINT AS vast, [1.5, NULL]::DOUBLE[2] AS pair, '{"a": 1.0}'::JSON AS doc,
 'NaN'::DOUBLE AS nan, NULL AS none, '\\xFF\\x00'::BLOB AS raw, 0.1::DECIMAL(38, 37) AS small FROM range(3) t(i)"""


def test_every_type_is_exact_or_its_own_text(file):
    sql(file, "CREATE TABLE s (i INT)")
    (row,) = drain(source(file, query=EXOTIC))[0].to_dicts()
    schema = Schema.of_polars(news(source(file, query=EXOTIC)).frame.lazy.collect_schema())
    assert str(schema["kind"]) == "enum(a, b)"
    assert (row["huge"], row["total"]) == (2**127 - 1, 3)
    assert row["every"] == "1 month 2 days 00:00:03.5"
    assert (row["clock"], row["bits"]) == ("12:00:00.5+05:30", "10101")
    assert row["name"] == "eb0cce38-2f7f-4a0d-8b5a-0f5d6c9b3f11"
    assert row["map"] == [{"key": 1, "value": "a"}, {"key": 2, "value": None}]
    assert row["nested"] == [{"a": 1, "b": ["x"]}]
    assert row["vast"] == "340282366920938463463374607431768211455"
    assert (row["pair"], row["doc"], row["raw"]) == ([1.5, None], '{"a": 1.0}', b"\xff\x00")
    assert str(row["small"]) == "0.1" + "0" * 36


def test_a_query_may_end_with_a_comment(file):
    sql(file, "CREATE TABLE s AS SELECT 1 AS i")
    assert drain(source(file, query="SELECT i FROM s -- all"))[0]["i"].to_list() == [1]


@pytest.mark.parametrize("value", ["union_value(a := 1)", "[MAP([1], [2])]"])
def test_a_type_that_nothing_carries_exactly_is_refused_by_name(file, value):
    sql(file, "CREATE TABLE s (i INT)")
    with pytest.raises(SchemaError, match="'odd'"):
        news(source(file, query=f"SELECT {value} AS odd"))


def test_a_time_of_24_hours_is_refused_by_its_column_and_never_null(file):
    sql(file, "CREATE TABLE s AS SELECT TIME '24:00:00' AS t")
    with pytest.raises(DataError, match="column t holds 24:00:00"):
        drain(source(file))


def test_what_the_source_reads_the_destination_holds_unchanged(file, tmp_path):
    sql(file, "CREATE TABLE s (i INT)")
    rows = drain(source(file, query=EXOTIC))[0]
    target = DuckDBDestination(path="w.duckdb", table="t", base=tmp_path)
    load(target, rows)
    assert read(target).equals(rows, null_equal=True)


def test_the_file_may_be_the_destinations_own(tmp_path):
    raw = DuckDBDestination(path="w.duckdb", table="raw", base=tmp_path)
    load(raw, {"id": [1, 2], "c": [1, 2]})
    made = DuckDBDestination(path="w.duckdb", table="made", base=tmp_path)
    batch = news(DuckDBSource(path="w.duckdb", table="raw", cursor="c", base=tmp_path))
    load(made, batch.frame.lazy)
    assert read(made).height == 2


def test_columns_and_conditions_are_pushed_down(file):
    sql(file, "CREATE TABLE s AS SELECT 1 AS a, 2 AS b, 'x' AS c")
    lazy = news(source(file)).frame.lazy
    assert lazy.filter(pl.col("b") == 2).select("a").collect().to_dicts() == [{"a": 1}]
    assert lazy.select(pl.len()).collect().item() == 1
    assert lazy.join(lazy, on="a").collect().height == 1


def test_a_source_that_has_gone_back_is_an_error(file):
    sql(file, "CREATE TABLE s AS SELECT unnest([1, 9]) AS a")
    _, position, _ = drain(source(file, cursor="a"))
    sql(file, "UPDATE s SET a = 5 WHERE a = 9")
    with pytest.raises(DataError, match="read further in 'a'"):
        drain(source(file, cursor="a"), position)
    sql(file, "DELETE FROM s")
    assert drain(source(file, cursor="a"), position)[0].is_empty()  # an emptied table has nothing that could be missed


@pytest.mark.parametrize(("cursor", "other"), [("1", "v"), ("1", "r"), ("1.5::DOUBLE", "v")])
def test_equal_rows_that_change_alike_are_news(file, cursor, other):
    sql(file, f"CREATE TABLE s AS SELECT {cursor} AS a, unnest([2, 2]) AS v, 0 AS {other if other == 'r' else 'z'}")
    _, position, _ = drain(source(file, cursor="a"))
    assert news(source(file, cursor="a"), position).news.empty
    sql(file, "UPDATE s SET v = 3")
    assert not news(source(file, cursor="a"), position).news.empty


def test_a_rename_to_a_name_that_is_there_is_refused(file):
    sql(file, "CREATE TABLE s AS SELECT 1 AS a, 2 AS b")
    with pytest.raises(ConfigError, match="two columns would be called 'b'"):
        news(source(file, rename={"a": "b"}))


def test_columns_whose_names_differ_in_case_alone_are_told_apart_or_refused(file):
    sql(file, "CREATE TABLE s (i INT)")
    query = 'SELECT 1 AS id, 2 AS "ID"'
    rows, _, _ = drain(source(file, query=query, rename={"ID": "b_id"}, cursor="b_id"))
    assert rows.to_dicts() == [{"id": 1, "b_id": 2}]
    with pytest.raises(ConfigError, match="the columns 'id' and 'ID' differ in case alone"):
        news(source(file, query=query))
    with pytest.raises(ConfigError, match="two columns would be called 'id'"):
        news(source(file, query="SELECT 1 AS id, 2 AS id"))

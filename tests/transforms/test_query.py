"""What goes into SQL and what comes out of it is exact, or refused by name; what binds, runs."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import duckdb
import polars as pl
import pytest

import headrace as hr
from headrace.pipeline import SQLStep
from headrace.transform import syntax, transform
from headrace.transform.query import Query
from headrace.transform.syntax import binding

FRAME = pl.LazyFrame({"a": [1, 2], "b": ["x", "y"], "c": [2, 3]})


def answer(text: str, frame: pl.LazyFrame = FRAME, **params: object) -> pl.DataFrame:
    return Query(text, {"source": frame}, params).lazy().collect()


@pytest.mark.parametrize(
    "text",
    [
        "WITH x AS (SELECT a, upper(b) AS b FROM source) SELECT a FROM x",
        "WITH x AS MATERIALIZED (SELECT *, b || 'q' AS z FROM source) SELECT a FROM x",
        "SELECT a FROM (SELECT a, b FROM source)",
        "SELECT a FROM source WHERE b IS NOT NULL OR true",
        "SELECT a FROM source WHERE (c = 5 AND c = 3) OR a > 0",
        "SELECT s.a FROM source s LEFT JOIN (SELECT b, c FROM source WHERE false) t ON s.a = t.c",
        "SELECT COLUMNS('a') FROM source",
        "SELECT a FROM source ORDER BY b",
        "SELECT a FROM source -- a remark",
    ],
)
def test_a_column_that_is_named_but_not_needed_runs_too(text):
    assert answer(text).to_dict(as_series=False) == {"a": [1, 2]}


def test_a_query_of_which_no_row_can_come_runs():
    assert answer("SELECT b FROM source WHERE 1 = 0").to_dict(as_series=False) == {"b": []}


def test_only_the_columns_that_are_needed_are_read():
    assert Query("SELECT a FROM (SELECT * FROM source)", {"source": FRAME}, {}).scans["source"].columns == ("a",)


def test_a_name_that_a_plan_prints_in_another_way_is_read():
    frame = pl.LazyFrame({"two\nlines": [1], 'q"uote': [2], "x": [3]})
    text = 'SELECT "two\nlines" AS l, "q""uote" AS q FROM source WHERE "two\nlines" > 0'
    assert answer(text, frame).rows() == [(1, 2)]


def test_a_row_number_that_only_a_table_has_is_refused_when_it_is_bound():
    with pytest.raises(hr.ConfigError, match="rowid"):
        Query("SELECT a, rowid FROM source", {"source": FRAME}, {})


def test_a_frame_without_columns_is_refused_by_its_name():
    with pytest.raises(hr.ConfigError, match="'source', which has no columns"):
        Query("SELECT 1 AS a FROM source", {"source": pl.LazyFrame()}, {})


def test_a_name_that_is_defined_over_its_own_table_reads_the_table():
    assert answer("WITH source AS (SELECT a + 1 AS a FROM source) SELECT a FROM source")["a"].to_list() == [2, 3]


@pytest.mark.parametrize("names", [("a", "A"), ("a", "")])
def test_names_that_sql_cannot_say_are_refused_by_name(names):
    with pytest.raises(hr.ConfigError, match="SQL cannot say it"):
        Query("SELECT 1 AS x FROM source", {"source": pl.LazyFrame({n: [1] for n in names})}, {})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455"),
        ("'12:00:00+02'::TIMETZ", "12:00:00+02"),
        ("'101'::BIT", "101"),
        ("INTERVAL 1 DAY", "1 day"),
        ("123456789012345678901234567890123456789012::BIGNUM", "123456789012345678901234567890123456789012"),
        ("sum(a)", Decimal(3)),
        ("'a'::ENUM('b', 'a')", "a"),
        ("TIME '23:59:59.999999'", dt.time(23, 59, 59, 999999)),
        ("[1::HUGEINT, NULL]", [Decimal(1), None]),
        ("MAP {'k': 1}", [{"key": "k", "value": 1}]),
        ("NULL", None),
        ("99999999999999999999999999999999999999::HUGEINT", Decimal("9" * 38)),
    ],
)
def test_what_sql_gives_comes_out_exactly(expression, value):
    assert answer(f"SELECT {expression} AS v FROM source")["v"].to_list()[0] == value


@pytest.mark.parametrize("expression", ["('1' || repeat('0', 37 + a::INT))::HUGEINT", "'1' || repeat('0', 38)"])
def test_a_whole_number_beyond_38_digits_is_refused_by_its_column(expression):
    with pytest.raises(hr.TransformError, match="'h' holds more than 38 digits"):
        answer(f"SELECT ({expression})::HUGEINT AS h FROM source WHERE a = 1")


MIDNIGHT = (
    "TIME '24:00:00'",
    "[NULL, TIME '24:00:00']",
    "[TIME '24:00:00']::TIME[1]",
    "{'a': NULL, 'it''s': TIME '24:00:00'}",
    "[{'a': [TIME '24:00:00'], 'b': '24:00:00'}]",
    "MAP {'k': TIME '24:00:00'}",
)


def test_a_time_of_24_hours_is_refused_by_its_column_and_never_null():
    for value in MIDNIGHT:
        with pytest.raises(hr.TransformError, match="'t' holds 24:00:00"):
            answer(f"SELECT {value} AS t FROM source")
        (found,) = answer(f"SELECT {value.replace('24', '10')} AS t FROM source")["t"].head(1).to_list()
        assert "datetime.time(10, 0)" in repr(found)


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "12000-01-01", "0044-03-15 (BC)", "2024-01-02"])
def test_a_date_that_polars_does_not_know_is_compared_all_the_same(moment):
    days = pl.LazyFrame({"d": [dt.date(2024, 1, 1), dt.date(2024, 1, 3), None]})
    found = [Query(f"SELECT d FROM source WHERE d {how} DATE '{moment}'", {"source": days}, {}) for how in ("<", ">=")]
    counts = [query.lazy().collect().height for query in found]
    assert counts == ([1, 1] if moment == "2024-01-02" else [2, 0] if moment in ("infinity", "12000-01-01") else [0, 2])


def test_a_field_of_a_struct_is_no_column_of_that_name():
    rows = pl.LazyFrame({"id": [1, 2], "a.b": [5, 6], "a": [{"b": 1}, {"b": 2}]})
    for column, ids in (("source.a.b", [1]), ('"a.b"', [])):
        query = Query(f"SELECT id FROM source WHERE {column} = 1", {"source": rows}, {})
        assert query.lazy().collect()["id"].to_list() == ids


def test_a_type_that_nothing_carries_is_refused_by_its_column():
    with pytest.raises(hr.SchemaError, match="'u'"):
        Query("SELECT union_value(k := 1) AS u FROM source", {"source": FRAME}, {})


def test_every_value_of_a_frame_is_in_sql_what_it_was():
    wide = pl.Series("h", [2**126, -(2**126), None], dtype=pl.Int128)
    frame = pl.LazyFrame(
        {
            "h": wide,
            "n": pl.Series([None] * 3),
            "d": pl.Series([dt.timedelta(milliseconds=1500), None, None], dtype=pl.Duration("ms")),
            "l": pl.Series([[2**100], [], None], dtype=pl.List(pl.Int128)),
            "t": pl.Series([dt.time(1, 2, 3, 4), None, None]),
        }
    )
    found = answer("SELECT h::VARCHAR AS h, n, d, l[1]::VARCHAR AS l, t FROM source WHERE h > 5", frame)
    assert found.rows() == [(str(2**126), None, 1500, str(2**100), dt.time(1, 2, 3, 4))]


def test_errors_name_the_step_and_its_file_and_line(tmp_path):
    (tmp_path / "daily.sql").write_text("SELECT a,\n  nope\nFROM source")

    def bound(step):
        return transform((step,), {"source": FRAME}, previous="source", params={}, base=tmp_path)

    with pytest.raises(hr.ConfigError, match=r"step 'daily' \(daily.sql\).*nope.*line 2"):
        bound(SQLStep(sql_file="daily.sql"))
    with pytest.raises(hr.TransformError, match="step 'wrong' failed on a value"):
        bound(hr.sql("SELECT b::INT AS b FROM source", as_="wrong")).lazy.collect()
    with pytest.raises(hr.ConfigError, match=r"step 'bad'.*line 1, column"):
        bound(hr.sql("SELECT FROM WHERE", as_="bad"))


def test_a_query_is_bound_in_the_database_that_it_runs_in():
    frame = pl.LazyFrame({"a": [1, 2], "b": ["x", "y"], "c": ["memory", "memory"]})
    for text in (
        "SELECT a FROM t WHERE c = current_database()",
        "SELECT a FROM memory.main.t",
        "SELECT CASE WHEN current_database() = 'memory' THEN a ELSE 0 END AS a FROM t",
    ):
        assert Query(text, {"t": frame}, {}).lazy().collect().rows() == [(1,), (2,)]


def test_a_query_that_does_not_bind_leaves_nothing_to_the_next():
    with pytest.raises(hr.ConfigError, match="'gone'"):
        Query("SELECT gone FROM t", {"t": FRAME}, {})
    with pytest.raises(hr.ConfigError, match="'t'"):
        Query("SELECT a FROM t", {"source": FRAME}, {})
    with binding() as con:
        assert con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall() == []
    assert Query("SELECT a FROM t", {"t": FRAME.select("a")}, {}).lazy().collect().rows() == [(1,), (2,)]


def test_queries_of_several_threads_are_each_bound_to_their_own_frames():
    def bound(n: int) -> list[str]:
        return list(Query("SELECT * FROM t", {"t": pl.LazyFrame({f"c{n}": [n]})}, {}).schema)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(bound, range(40))) == [[f"c{n}"] for n in range(40)]


def test_a_constant_is_folded_in_utc_whatever_the_time_zone_of_the_process():
    code = """if True:
        from datetime import date
        import polars as pl
        from headrace.transform.query import Query
        frame = pl.LazyFrame({"d": [date(2026, 1, 1), date(2025, 12, 31)]})
        same = "SELECT d FROM t WHERE d = (TIMESTAMPTZ '2026-01-01 00:30:00+00')::DATE"
        assert Query(same, {"t": frame}, {}).lazy().collect().rows() == [(date(2026, 1, 1),)]"""
    zoned = {**os.environ, "TZ": "America/New_York"}
    assert subprocess.run([sys.executable, "-c", code], env=zoned, check=False).returncode == 0


def test_a_process_that_has_parsed_and_bound_a_query_may_fork():
    code = """if True:
        import os, sys
        from headrace.transform.syntax import Syntax, binding, functions
        def bind():
            with binding() as con:
                con.execute("CREATE TABLE t (a INT)")
                assert con.sql("SELECT sum(a) FROM t").types == ["HUGEINT"]
        Syntax.of("SELECT 1"), functions("median"), bind()
        if child := os.fork():
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        Syntax.of("SELECT 2"), bind()"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wide_rows_come_in_small_frames():
    """A hundred thousand rows of them would be gigabytes."""
    frame = pl.LazyFrame({"n": range(6_000)})
    query = Query("SELECT n, repeat('x', 10_000) AS text FROM t", {"t": frame}, {})
    sizes = [rows.estimated_size() for rows in query._stream()]
    assert sum(sizes) > 60_000_000
    assert max(sizes) < 25_000_000


def test_who_finds_the_binding_busy_binds_elsewhere_at_once():
    with ThreadPoolExecutor(1) as another, binding() as con:
        con.execute("CREATE TABLE t (mine INT)")
        bound = another.submit(Query, "SELECT * FROM t", {"t": FRAME}, {}).result(timeout=30)
    assert list(bound.schema) == ["a", "b", "c"]


def test_queries_one_after_the_other_are_bound_in_one_duckdb(monkeypatch):
    answer("SELECT a FROM source")
    monkeypatch.setattr(syntax, "_started", lambda: pytest.fail("to start one takes longer than to bind"))
    assert list(Query("SELECT b FROM t", {"t": FRAME}, {}).schema) == ["b"]


def test_a_process_that_forks_beside_a_thread_that_binds_waits_for_it():
    code = """if True:
        import os, sys, threading, time
        from headrace.transform import syntax
        def on(started):
            with syntax.binding() as con:
                con.execute("CREATE TABLE t (a INT)")
                started.set()
                time.sleep(0.5)
        threading.Thread(target=on, args=(started := threading.Event(),)).start()
        started.wait()
        if child := os.fork():
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or syntax._binding.locked())
        free = not syntax._binding.locked()
        with syntax.binding() as con:
            os._exit(not (free and con.execute("SHOW TABLES").fetchall() == []))"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("moment", ["current_date", "now()::DATE", "today()", "(ago(INTERVAL 1 DAY))::DATE"])
def test_no_rows_are_left_out_by_what_a_clock_says_when_a_query_is_bound(moment):
    frame = pl.LazyFrame({"d": [dt.date(2026, 1, 1)], "e": [1]})
    scan = Query(f"SELECT d FROM t WHERE d = {moment}", {"t": frame}, {}).scans["t"]
    assert (scan.columns, scan.predicate) == (("d",), None)
    assert Query("SELECT d FROM t WHERE d = DATE '2026-01-01'", {"t": frame}, {}).scans["t"].predicate is not None


def test_a_plain_query_does_not_ask_for_all_functions(monkeypatch):
    monkeypatch.setattr(syntax, "all_functions", lambda: pytest.fail("it takes longer than to bind"))
    assert answer("SELECT b, sum(a) AS n FROM source WHERE c > 1 GROUP BY b ORDER BY b").rows() == [("x", 1), ("y", 2)]


def test_no_rows_are_left_out_by_a_setting_of_where_a_query_is_bound():
    threads = duckdb.connect().execute("SELECT current_setting('threads')").fetchall()[0][0]
    frame = pl.LazyFrame({"a": range(1, threads + 2)})
    assert answer("SELECT a FROM source WHERE a = current_setting('threads')", frame).rows() == [(threads,)]
    assert Query("SELECT a FROM t WHERE a = current_setting('threads')", {"t": frame}, {}).scans["t"].predicate is None


def test_a_python_variable_is_no_table():
    local = FRAME.collect()
    with binding() as con, pytest.raises(duckdb.CatalogException, match="local"):
        con.sql("FROM local")
    assert local.height

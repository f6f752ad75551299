"""`hr.postgres`: transactions for people who only want to talk to PostgreSQL."""

# ruff: noqa: PT012  # what raises is the block, and the block is a transaction

from __future__ import annotations

import os
import re
import signal
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import psycopg
import pytest
from proxy import Fault, Proxy
from psycopg import sql
from server import until

import headrace as hr
from headrace.stream import scan_generator
from headrace.systems.postgres import client

EVENTS = (
    "CREATE TABLE events (id serial PRIMARY KEY, name varchar(100), value numeric(10,2), at timestamptz DEFAULT now())"
)
GONE = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'headrace client'"
BOTH = pl.DataFrame({"name": ["a\tb", None], "value": [Decimal("100.50"), Decimal("-0.01")]})


@pytest.fixture
def db(database):
    database.run(EVENTS)
    return database


def rows(database, query="SELECT name, value FROM events ORDER BY id"):
    return database.run(query)


def test_the_block_commits_what_was_done_in_it_and_rolls_all_of_it_back_after_an_exception(db):
    with hr.postgres.connect(db.dsn) as tx:
        assert tx.execute("INSERT INTO events (name, value) VALUES (%s, %s)", ("event1", 100.50)) == 1
        assert tx.insert(BOTH, "events") == 2
        assert tx.query("SELECT count(*) AS n FROM events").item() == 3
        assert rows(db) == []
    assert rows(db) == [("event1", Decimal("100.50")), ("a\tb", Decimal("100.50")), (None, Decimal("-0.01"))]
    with pytest.raises(ZeroDivisionError), hr.postgres.connect(db.dsn) as tx:
        tx.execute("DELETE FROM events")
        _ = 1 / 0
    assert len(rows(db)) == 3
    with pytest.raises(hr.ConfigError, match="come to its end"):
        tx.query("SELECT 1 AS a")


def test_values_are_parameters_and_names_are_identifiers_whatever_stands_in_them(db):
    nasty = "'; DROP TABLE events; --\\ %s \u20ac"
    with hr.postgres.connect(db.dsn) as tx:
        tx.execute("INSERT INTO events (name, value) VALUES (%(name)s, %(value)s)", {"name": nasty, "value": 1})
        assert tx.query("SELECT name FROM events WHERE name = %s -- the end;", [nasty]).rows() == [(nasty,)]
        assert tx.query("SELECT name FROM events WHERE name = ANY (%s);", [[nasty, "x"]]).height == 1
        made = sql.SQL("SELECT {} AS {} FROM {} WHERE name LIKE {}").format(
            sql.Identifier("name"), sql.Identifier('odd "name'), sql.Identifier("events"), sql.Literal("%DROP%")
        )
        assert tx.query(made).to_dict(as_series=False) == {'odd "name': [nasty]}
        assert tx.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier("events"))) == 1


def test_a_query_has_the_types_of_a_source_and_a_value_that_does_not_fit_is_told_by_its_column(db):
    query = """SELECT 7::int2 AS i, 1.10::numeric(9,2) AS n, 1e40::numeric AS wide, date '2024-02-29' AS d,
      timestamptz '2024-01-01 00:00:00.000001+02' AS z, ARRAY[1, NULL] AS a, '\\x00ff'::bytea AS b,
      interval '1 mon' AS v, NULL::text AS t, '' AS e"""
    with hr.postgres.connect(db.dsn) as tx:
        frame = tx.query(query)
        assert frame.row(0) == (
            7, Decimal("1.10"), "1" + 40 * "0", date(2024, 2, 29), datetime(2023, 12, 31, 22, 0, 0, 1, UTC), [1, None],
            b"\x00\xff", "1 mon", None, "",
        )  # fmt: skip
        assert frame.schema["i"] == pl.Int16
        assert tx.query("SELECT 1 AS a WHERE false").schema == {"a": pl.Int32}
        odd = "SELECT 'NaN'::numeric(5,2) AS n, date 'infinity' AS d, 1 AS i"
        assert tx.query(odd, types={"n": "string", "d": "string"}).row(0) == ("NaN", "infinity", 1)
    with pytest.raises(hr.ConfigError, match="no column 'x'"), hr.postgres.connect(db.dsn) as tx:
        tx.query(odd, types={"x": "string"})
    with pytest.raises(hr.UnheldError) as told, hr.postgres.connect(db.dsn) as tx:
        tx.query(odd)
    assert told.value.columns == {"n", "d"}
    assert 'types={"d": "string", "n": "string"}' in told.value.hint


def test_what_fails_ends_the_transaction_even_where_the_error_is_caught(db):
    with pytest.raises(hr.ConfigError, match="something failed before"), hr.postgres.connect(db.dsn) as tx:
        tx.execute("INSERT INTO events (name) VALUES ('x')")
        with pytest.raises(hr.ConfigError, match=r"line 2 of the statement.*column 'nmae'"):
            tx.query("SELECT\nnmae FROM events")
    with pytest.raises(hr.ConfigError, match="leave COMMIT"), hr.postgres.connect(db.dsn) as tx:
        tx.execute("SELECT 1; COMMIT")
    with pytest.raises(hr.ConfigError, match="something failed before"), hr.postgres.connect(db.dsn) as tx:
        with pytest.raises(ValueError, match="mine"):
            tx.insert(scan_generator(raising, {"name": pl.String}), "events")
        tx.query("SELECT 1 AS a")
    assert rows(db) == []


def raising(*_):
    yield pl.DataFrame({"name": ["x"]})
    raise ValueError("mine")


@pytest.mark.parametrize(
    ("statement", "params", "said"),
    [
        ("SELECT %s AS a", [], "parameters do not go together"),
        ("SELECT %s AS a", [object()], "parameters do not go together"),
        ("DELETE FROM events", None, "gives no rows"),
        ("SHOW timezone", None, "a query is a SELECT"),
        ("SELECT 1 AS a; SELECT 2 AS a", None, "no single well-formed"),
        ("SELECT 1 AS a, 2 AS a", None, "two columns 'a'"),
        ("SELECT * FROM evnets", None, "table 'evnets'"),
    ],
)
def test_a_query_that_is_none_is_the_callers_fault(db, statement, params, said):
    with pytest.raises(hr.ConfigError, match=said) as told, hr.postgres.connect(db.dsn) as tx:
        tx.query(statement, params)
    assert told.value.hint


def test_a_statement_that_changes_rows_is_a_query_where_it_returns_some(db):
    with hr.postgres.connect(db.dsn) as tx:
        assert tx.query("INSERT INTO events (name) VALUES ('a'), ('b') RETURNING id, name").rows() == [
            (1, "a"),
            (2, "b"),
        ]
        with_ = "WITH gone AS (DELETE FROM events WHERE id = %s RETURNING name) SELECT * FROM gone"
        assert tx.query(with_, [1]).rows() == [("a",)]
    assert rows(db) == [("b", None)]


def test_a_broken_constraint_and_a_value_out_of_range_are_named_without_the_value(db):
    taken = pl.DataFrame({"id": [1, 7654321, 1]})
    with pytest.raises(hr.DataError, match=r"events_pkey.*'id'") as told, hr.postgres.connect(db.dsn) as tx:
        tx.insert(taken, "events")
    assert "7654321" not in str(told.value)
    with pytest.raises(hr.DataError, match="column 'id'") as told, hr.postgres.connect(db.dsn) as tx:
        tx.insert(pl.DataFrame({"id": [98765432100]}), "public.events")
    assert "98765" not in str(told.value)
    assert rows(db) == []


NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001
HELD = """CREATE TABLE held (i int, s smallint, n numeric, m numeric(9,2), w numeric(50,3), t varchar(3), j jsonb,
  a int[], d date, z timestamptz, p timestamptz(0), g int GENERATED ALWAYS AS (i) STORED,
  k bigint GENERATED ALWAYS AS IDENTITY)"""


def test_columns_take_what_they_hold_exactly_and_refuse_the_rest_by_name(database):
    database.run(HELD)
    frame = pl.DataFrame(
        {"k": [5], "i": [1], "s": [2], "n": [Decimal("1.230")], "m": [7], "w": [Decimal("1.5")], "t": ["abc"],
         "j": [{"x": 1}], "a": [[1, None]], "d": ["-infinity"], "z": ["2024-01-01 00:00:00+02"]}
    )  # fmt: skip
    with hr.postgres.connect(database.dsn) as tx:
        assert tx.insert(frame, "held") == 1
        text = tx.query("SELECT (held.*)::text FROM held").item()
    assert text == """(1,2,1.230,7.00,1.500,abc,"{""x"": 1}","{1,NULL}",-infinity,"2023-12-31 22:00:00+00",,1,5)"""
    refused = {
        "i": 1.0, "n": 1.5, "m": Decimal("0.001"), "w": "1.0005", "p": "2024-01-01 00:00:00.6+00", "d": NAIVE,
        "z": NAIVE, "g": 1, "x": 1,
    }  # fmt: skip
    for name, value in refused.items():
        with pytest.raises(hr.SchemaError, match=f"column '{name}'"), hr.postgres.connect(database.dsn) as tx:
            tx.insert(pl.DataFrame({name: [value]}), "held")
    with pytest.raises(hr.DataError, match="column 't'"), hr.postgres.connect(database.dsn) as tx:
        tx.insert(pl.DataFrame({"t": ["abcd"]}), "held")
    assert database.run("SELECT count(*) FROM held") == [(1,)]


CHANGED = {
    "timestamp": ["2024-01-01 10:00:00+05", "2024-01-01T10:00Z", "2024-01-01 10:00 Europe/Berlin",
                  "2024-01-01 10:00:00.1234567"],
    "timestamptz": ["2024-01-01 00:00:00.1234567+00", "2024-01-01 10:00:00", "2024-01-01", "2024-01-01 10:00 PM",
                    "2024-01-01 10:00:00 Mon", "0044-03-15 10:00:00 BC"],
    "date": ["2024-01-01 23:59:59", "20240101T235959", "2024-01-01 235959", "2024-01-01+05", "2024-01-01 1 AM"],
    "time": ["12:00:00.1234567", "12:00:00+05", "2024-01-01 12:00"],
    "timetz": ["12:00:00.1234567+00", "12:00:00", "12:00 PM"],
    "zoned": ["2024-01-01 10:00:00"],
    "tstzrange": ["[2024-01-01 10:00,2024-01-01 11:00)", '["2024-01-01 10:00:00+00","2024-01-01 11:00:00")',
                  "(,2024-01-01)"],
    "tstzmultirange": ["{[2024-01-01 10:00,2024-01-01 11:00+00)}"],
    "interval": ["00:00:00.1234567", "1.5 microseconds", "0.0001 ms", "1.123 years", "1e-7 s", "P0.1234567D",
                 "PT0.1234567S"],
    "real": ["0.123456789", "16777217", "1.234567e-40", "9e9"],
    "float8": ["0.12345678901234567890", "9007199254740993", "1.23456789012345e-310", "1.0000000000000000001e0"],
    "point": ["(0.12345678901234567890,1)"],
    "date[]": ['{2024-01-01,"2024-01-01 10:00"}'],
    "interval[]": ['{"1 day 00:00:00.1234567"}'],
    "real[]": ["{1.5,0.123456789}"],
    "tsrange": ["[2024-01-01 00:00:00.1234567,)", '["2024-01-01 10:00+05",2024-02-01]'],
    "datemultirange": ["{[2024-01-01 23:59,2024-02-01]}"],
}  # fmt: skip
KEPT = {
    "timestamp": ["2024-01-01 10:00:00.123456", "2024-01-01T10:00", "0044-03-15 10:00:00 BC", "infinity", "12024-01-01",
                  "2024-01-01 10:00:00.1234560000"],
    "timestamptz": ["2024-01-01 10:00:00.123456+05:30", "2024-01-01 10:00:00+00", "2024-01-01T10:00:00Z", "-infinity",
                    "2024-01-01 10:00 Europe/Berlin", "2024-01-01 10:00:00-03:30", "0044-03-15 10:00:00+00 BC"],
    "date": ["2024-01-01", "0044-03-15 BC", "infinity", "2024-01-01 00:00:00", "20240101"],
    "time": ["24:00:00", "12:00", "12:00:00.5"],
    "timetz": ["12:00:00.123456+05:30", "12:00-03", "24:00:00-15:59:59"],
    "zoned": ["2024-01-01 10:00:00+02", "infinity"],
    "tstzrange": ['["2024-01-01 10:00:00+02",infinity)', "empty", "(,)", '(,"0044-03-15 10:00:00+00 BC"]'],
    "tstzmultirange": ['{["2024-01-01 10:00:00+02","2024-01-01 11:00:00Z"),[2024-02-01T00:00Z,)}', "{}"],
    "interval": ["1 year 2 mons -3 days -00:00:00.123456", "1 day", "P1Y2M3DT4H5M6.5S", "@ 1 minute ago", "1.5 hours",
                 "3 4:05:06", "1-2", "5 microseconds", "-1.5"],
    "real": ["0.1", "0.12345679", "16777216", "1e30", "NaN", "-Infinity", "1e-40", "-0", "3.4028235e+38",
             "6.9248064e+07"],
    "float8": ["0.1", "0.12345678901234568", "9007199254740992", "1e-310", "1.7976931348623157e+308", "5e-324", "1e22",
               "1180591620717411303424"],
    "point": ["(0.12345678901234568,1)"],
    "date[]": ["{2024-01-01,NULL}", "[2:2]={2024-01-01}"],
    "interval[]": ['{"1 day",01:00:00}'],
    "real[]": ["{1.5,NULL}"],
    "tsrange": ['["2024-01-01 00:00:00.123456","2024-02-01 00:00:00")', "empty", "(,infinity]"],
    "datemultirange": ["{[2024-01-01,2024-02-01),[2024-03-01,)}", "{}"],
    "text": ["0.12345678901234567890", "2024-01-01 10:00:00.1234567"],
    "numeric": ["0.12345678901234567890123456789012345678901"],
}  # fmt: skip


@pytest.mark.parametrize("held", KEPT)
def test_a_text_that_its_type_would_round_or_cut_is_refused_and_no_other_is(database, held):
    database.run(f"CREATE DOMAIN zoned AS timestamptz; CREATE TABLE t (id int PRIMARY KEY, v {held})")
    for text in CHANGED.get(held, ()):
        with pytest.raises(hr.DataError, match=r"'v'.* round or cut"), hr.postgres.connect(database.dsn) as tx:
            tx.insert(pl.DataFrame({"v": [None, text]}), "t")
    with hr.postgres.connect(database.dsn) as tx:
        for text in KEPT[held]:
            tx.insert(pl.DataFrame({"id": [0], "v": [text]}), "t")
            if held != "point":  # which has no equality
                assert tx.query(f"SELECT v IS NOT DISTINCT FROM '{text}' AS same FROM t").item(), text
            back = tx.query("DELETE FROM t RETURNING id, v::text AS v")
            tx.insert(back, "t")  # what the server has written goes in again
            tx.execute("DELETE FROM t")


@pytest.mark.parametrize("held", ["date", "timestamptz", "interval", "real"])
def test_a_list_of_texts_is_refused_where_an_item_would_be_rounded_or_cut(database, held):
    database.run(f"CREATE TABLE t (v {held}[])")
    with hr.postgres.connect(database.dsn) as tx:
        assert tx.insert(pl.DataFrame({"v": [[KEPT[held][0], None], [], None]}), "t") == 3
    with pytest.raises(hr.DataError, match=r"'v'.* round or cut"), hr.postgres.connect(database.dsn) as tx:
        tx.insert(pl.DataFrame({"v": [[KEPT[held][0]], [CHANGED[held][0]]]}), "t")


def test_any_frame_goes_in_and_a_table_is_found_as_the_search_path_has_it(db):
    lazy = BOTH.lazy().with_columns(pl.col("name").fill_null("lazy"))
    with hr.postgres.connect(db.dsn) as tx:
        tx.execute("CREATE SCHEMA mine; CREATE TABLE mine.events (name text); SET LOCAL search_path = mine, public")
        assert tx.insert(lazy.select("name"), "events") == 2
        assert tx.insert(BOTH.to_arrow().to_reader(), "public.events") == 2
        assert tx.insert(duckdb.sql("SELECT 'duck' AS name"), "public.events") == 1
        assert tx.insert(BOTH.clear(), "public.events") == 0
        tx.execute("CREATE TEMP TABLE own (name text)")
        assert tx.insert(BOTH.select("name"), "own") == 2
        assert tx.query("SELECT name FROM events ORDER BY 1").to_series().to_list() == ["a\tb", "lazy"]
    assert [r[0] for r in rows(db)] == ["a\tb", None, "duck"]
    for frame, table, said in [
        (BOTH, "evens", "did you mean"),
        ([1], "events", "no frame"),
        (BOTH.select(), "events", "no columns"),
    ]:
        with pytest.raises(hr.HeadraceError, match=said), hr.postgres.connect(db.dsn) as tx:
            tx.insert(frame, table)


KEYED = "CREATE TABLE t (id int, day date, n text, x int DEFAULT 7, PRIMARY KEY (id, day))"


def keyed(*, first: int = 1, **more):
    count = len(next(iter(more.values())))
    return pl.DataFrame({"id": range(first, first + count), "day": [date(2024, 1, 1)] * count, **more})


def test_an_upsert_writes_only_what_differs_and_leaves_the_other_columns_alone(database):
    database.run(KEYED)
    with hr.postgres.connect(database.dsn) as tx:
        assert tx.upsert(keyed(n=["a", None, "c"]), "t", keys=["id", "day"]) == 3
        tx.execute("UPDATE t SET x = 8")
    before = dict(database.run("SELECT id, xmin::text FROM t"))
    with hr.postgres.connect(database.dsn) as tx:
        assert tx.upsert(keyed(n=["a", None, "C", "d"]), "t", keys=["day", "id"]) == 2
        again = pl.concat([keyed(n=["e"], first=5), keyed(n=["f"], first=5)]).lazy()
        assert tx.upsert(again, "t", keys=["id", "day"]) == 1  # the last counts
        assert tx.upsert(keyed(x=[8]).drop("x"), "t", keys=["id", "day"]) == 0
    after = database.run("SELECT id, n, x FROM t ORDER BY id")
    assert after == [(1, "a", 8), (2, None, 8), (3, "C", 8), (4, "d", 7), (5, "f", 7)]
    assert [i for i, xmin in database.run("SELECT id, xmin::text FROM t") if before.get(i) != xmin] == [3, 4, 5]


def test_an_upsert_updates_a_key_that_is_equal_and_spelled_otherwise(database):
    database.run("CREATE TABLE t (k numeric PRIMARY KEY); INSERT INTO t VALUES (1.0), (2.0)")
    with hr.postgres.connect(database.dsn) as tx:
        assert tx.upsert(pl.DataFrame({"k": ["1.00", "2.0"]}), "t", keys="k") == 1
    assert database.run("SELECT k::text FROM t ORDER BY k") == [("1.00",), ("2.0",)]


def test_an_upsert_without_a_unique_index_or_with_null_in_a_key_is_refused_by_name(database):
    database.run(KEYED)
    cases = [
        (keyed(n=["a"]), "id", hr.ConfigError, r"no unique index on \(id\)"),
        (keyed(n=["a"]), "no", hr.ConfigError, "key 'no'"),
        (keyed(n=["a"]), (), hr.ConfigError, "key ''"),
        (keyed(n=["a"]).with_columns(day=None), ("id", "day"), hr.DataError, "NULL in key 'day' in 1 row"),
    ]
    for frame, keys, kind, said in cases:
        with pytest.raises(kind, match=said), hr.postgres.connect(database.dsn) as tx:
            tx.upsert(frame, "t", keys=keys)
    assert database.run("SELECT count(*) FROM t") == [(0,)]


def test_two_upserts_of_the_same_keys_at_once_leave_one_row_each(database):
    database.run(KEYED)
    waiting = threading.Barrier(2)
    failed: list[Exception] = []

    def write(ids: list[int], name: str) -> None:
        try:
            with hr.postgres.connect(database.dsn) as tx:
                waiting.wait(20)
                rows = pl.DataFrame({"id": ids, "day": [date(2024, 1, 1)] * 200, "n": [name] * 200})
                tx.upsert(rows, "t", keys=["id", "day"])
        except Exception as error:  # noqa: BLE001  # told below
            failed.append(error)

    threads = [
        threading.Thread(target=write, args=(list(range(200))[::way], name)) for way, name in ((1, "a"), (-1, "b"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    ((count, names),) = database.run("SELECT count(*), count(DISTINCT n) FROM t")
    assert (count, names) == (200, 1)


def test_a_pool_uses_its_connections_again_as_new_and_replaces_those_that_were_lost(db):
    with hr.postgres.Pool(db.dsn, size=2, timeout=0.05) as pool:
        with pool.connect() as tx:
            me = tx.query("SELECT pg_backend_pid() AS pid").item()
            tx.execute("SET search_path = pg_catalog; CREATE TEMP TABLE left_over (a int); SELECT pg_advisory_lock(7)")
        with pytest.raises(ZeroDivisionError), pool.connect() as tx:
            assert tx.query("SELECT pg_backend_pid() AS pid").item() == me
            assert tx.query("SELECT to_regclass('left_over')::text AS t").item() is None
            assert tx.query("SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory'").item() == 0
            tx.insert(BOTH, "events")
            _ = 1 / 0
        with (
            pool.connect(),
            pool.connect(),
            pytest.raises(hr.UnavailableError, match="all 2 connections"),
            pool.connect(),
        ):
            pytest.fail("there was a third")
        db.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'headrace client'")
        with pool.connect() as tx:
            assert tx.query("SELECT pg_backend_pid() AS pid").item() != me
            assert tx.query("SELECT count(*) AS n FROM events").item() == 0
    until(lambda: db.run(GONE) == [(0,)])
    forgotten = hr.postgres.Pool({**dsn(db), "options": "-c search_path=nowhere"})
    with forgotten.connect() as tx:
        theirs = "SELECT current_setting('search_path') AS a, current_setting('row_security') AS b"
        assert tx.query(theirs).row(0) == ("nowhere", "on")
    del forgotten, tx
    until(lambda: db.run(GONE) == [(0,)])
    with pytest.raises(hr.ConfigError, match="pool is closed"), pool.connect():
        pytest.fail("it is closed")
    with pytest.raises(hr.RejectedError), hr.postgres.Pool({**dsn(db), "user": "nobody_here"}).connect():
        pytest.fail("nobody is let in")


class Taken(list):
    """Is not empty when it is looked at, and is when one is taken: another thread was there in between."""

    def __bool__(self):
        return True


def test_a_connection_that_another_thread_took_first_is_no_error(db):
    with hr.postgres.Pool(db.dsn) as pool:
        pool._idle = Taken()
        with pool.connect() as made:
            assert made.query("SELECT 1 AS a").rows() == [(1,)]
        client._close(pool._idle, os.getpid())


def test_a_fork_does_not_speak_on_its_parents_connections(db):
    with hr.postgres.Pool(db.dsn) as pool:
        with pool.connect() as tx:
            mine = tx.query("SELECT pg_backend_pid() AS pid").item()
        child = os.fork()
        if not child:
            try:
                with pool.connect():
                    os._exit(1)
            except hr.ConfigError:
                pool.close()
                os._exit(0)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        with pool.connect() as tx:
            assert tx.query("SELECT pg_backend_pid() AS pid").item() == mine


def test_two_things_at_once_in_one_transaction_are_refused(db):
    with pytest.raises(hr.ConfigError, match="two things at once"), hr.postgres.connect(db.dsn) as tx:

        def read(*_):
            yield tx.query("SELECT name FROM events")

        tx.insert(scan_generator(read, {"name": pl.String}), "events")


def test_a_connection_lost_in_commit_is_not_tried_again(db):
    known = dsn(db)
    with Proxy("127.0.0.1", int(known["port"])) as proxy:
        through = {**known, "host": "127.0.0.1", "port": proxy.port}
        with pytest.raises(hr.HeadraceError, match="lost in COMMIT") as told, hr.postgres.connect(through) as tx:
            tx.insert(BOTH, "events")
            proxy.fault = Fault(to="server", after=proxy.passed["server"] + 1, how="lose")
    assert not isinstance(told.value, hr.UnavailableError)
    until(lambda: len(rows(db)) == 2)


def test_a_query_that_is_interrupted_ends_on_the_server(db):
    def interrupt() -> None:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        until(lambda: db.run(sleeping) == [(1,)])
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt), hr.postgres.connect(db.dsn) as tx:
            thread.start()
            tx.query("SELECT pg_sleep(60)::text AS a")
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    until(lambda: db.run(GONE) == [(0,)], seconds=5)


def dsn(database) -> dict[str, str]:
    return psycopg.conninfo.conninfo_to_dict(database.dsn)


def test_the_readmes_example_is_run(database):
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    found = re.search(r"<!-- example: postgres -->\n```python\n(.*?)```", readme, re.DOTALL)
    events = pl.DataFrame({"id": [1, 2, 3], "name": ["a", "b", "c"], "value": ["1", "101", "99.99"]})
    events = events.with_columns(pl.col("value").cast(pl.Decimal(10, 2)))
    names = {"hr": hr, "dsn": database.dsn, "events": events}
    names["corrections"] = events.tail(1).with_columns(value=pl.lit(Decimal("100.01"), pl.Decimal(10, 2)))
    exec(compile(found[1], "README.md", "exec"), names)  # noqa: S102  # our own README
    assert names["large"].rows() == [(2, "b", Decimal("101.00")), (3, "c", Decimal("100.01"))]

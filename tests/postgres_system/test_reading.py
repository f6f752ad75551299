"""How a read is done: in flat memory, by several connections of one snapshot, and no longer than it is wanted."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from reading import Reader, noted
from server import until

import headrace as hr
from headrace.errors import DataError, HeadraceError, UnavailableError
from headrace.flow import Range, Snapshot
from headrace.stream.drawing import drawn
from headrace.systems.postgres import parallel, selection, session

DRAINED = """
import resource, sys
import headrace as hr
from headrace.flow import Range, Snapshot
from headrace.stream.drawing import drawn

batches = hr.PostgresSource(dsn=sys.argv[1], query=sys.argv[2]).batches(Range(), Snapshot(), "s")
batch = next(batches)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(frame.height for frame in drawn(batch.frame.lazy))
batches.close()
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
BUSY = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'headrace s %' AND state = 'active'"


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("SELECT i, repeat(md5(i::text), 3200) AS x FROM generate_series(1, 1200) AS i", 1200),  # 100 kB each
        ("SELECT i, 'x' AS x FROM generate_series(1, 800000) AS i", 800_000),
    ],
)
def test_memory_does_not_grow_with_the_rows_nor_with_their_width(database, query, count):
    done = subprocess.run(
        [sys.executable, "-c", DRAINED, database.dsn, query], capture_output=True, text=True, check=True
    )
    rows, megabytes = map(int, done.stdout.split())
    assert rows == count
    assert megabytes < 100


@pytest.mark.parametrize("query", ["SELECT i, pg_sleep(0.001) IS NULL AS x FROM generate_series(1, 10000000) AS i"])
def test_a_read_that_is_broken_off_is_cancelled_on_the_server(database, query):
    source = hr.PostgresSource(dsn=database.dsn, query=query)
    batches = source.batches(Range(), Snapshot(), "s")
    drawing = drawn(next(batches).frame.lazy)
    from threading import Thread

    failed: list[BaseException] = []

    def draw() -> None:
        try:
            list(drawing)
        except HeadraceError as error:
            failed.append(error)

    thread = Thread(target=draw)
    thread.start()
    until(lambda: database.run(BUSY) == [(1,)])
    batches.close()
    until(lambda: database.run(BUSY) == [(0,)])
    thread.join(20)
    assert isinstance(failed[0], UnavailableError)


def test_a_query_that_a_destination_stops_draining_ends_on_the_server(database):
    source = hr.PostgresSource(
        dsn=database.dsn, query="SELECT a FROM generate_series(1, 9999) AS a, generate_series(1, 9999)"
    )
    with closing(source.batches(Range(), Snapshot(), "s")) as batches, closing(drawn(next(batches).frame.lazy)) as rows:
        next(rows)
        assert database.run(BUSY) == [(1,)]
    until(lambda: database.run(BUSY) == [(0,)])


def test_frames_are_read_at_once_and_see_one_snapshot(database):
    database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 200000)")
    source = hr.PostgresSource(dsn=database.dsn, table="t", cursor="id")
    with closing(source.batches(Range(), Snapshot(), "s")) as batches:
        batch = next(batches)
        with closing(drawn(batch.frame.lazy)) as one, closing(drawn(batch.whole.lazy)) as other:
            first, second = next(one).height, next(other).height
            database.run("DELETE FROM t; INSERT INTO t VALUES (0)")
            assert first + sum(f.height for f in one) == 200_000
            assert second + sum(f.height for f in other) == 200_000
        assert batch.counts().rows == 200_000


def test_where_no_snapshot_can_be_shared_one_connection_reads(database, monkeypatch):
    """As behind a pooler, or on a server that exports none."""

    def refused(keeper: psycopg.Connection) -> None:
        keeper.execute("ROLLBACK")
        keeper.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    monkeypatch.setattr(session, "_exported", refused)
    database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 50000)")
    source = hr.PostgresSource(dsn=database.dsn, table="t", cursor="id")
    with closing(source.batches(Range(), Snapshot(), "s")) as batches:
        batch = next(batches)
        assert batch.news.facts["connections"] == 1
        assert "one connection reads" in batch.news.facts["snapshot"]
        with closing(drawn(batch.frame.lazy)) as rows:
            next(rows)  # and no more
        database.run("DELETE FROM t")
        assert batch.whole.lazy.collect().height == 50_000
        assert batch.frame.lazy.head(7).collect().height == 7
        assert batch.frame.lazy.collect().height == 50_000
    reader = Reader(database, cursor="id")
    assert reader.read() == []


def test_a_large_table_is_read_by_several_connections_of_one_snapshot(database, monkeypatch):
    for statement in (
        "CREATE TABLE t (id int PRIMARY KEY, x text)",
        "INSERT INTO t SELECT i, repeat('x', 90) FROM generate_series(1, 50000) AS i",
        "ANALYZE t",
        "INSERT INTO t SELECT i, 'y' FROM generate_series(50001, 60000) AS i",
    ):
        database.run(statement)
    monkeypatch.setattr(selection, "LARGE_BYTES", 1 << 20)
    monkeypatch.setattr(selection, "connections", lambda: 3)
    parts = noted(monkeypatch)
    source = hr.PostgresSource(dsn=database.dsn, table="t", cursor="id")
    with closing(source.batches(Range(), Snapshot(), "s")) as batches:
        batch = next(batches)
        assert batch.news.facts["connections"] == 3
        with closing(drawn(batch.frame.lazy)) as rows:
            ids = next(rows)["id"].to_list()
            database.run("DELETE FROM t")
            ids += [i for frame in rows for i in frame["id"].to_list()]
        assert sorted(ids) == list(range(1, 60_001))
        assert len({part for part in parts if "ctid" in part}) == 3
        assert batch.counts().rows == 60_000
        assert batch.whole.lazy.select("id").collect().height == 60_000
        with closing(drawn(batch.frame.lazy)) as rows:
            next(rows)
    until(lambda: database.run(BUSY) == [(0,)])


def test_a_large_table_has_no_more_connections_than_its_container_has_cpus(cgroup):
    cgroup("0::/run\n", {"run/cpu.max": "200000 100000\n"})
    assert parallel.connections() == 2


@pytest.mark.parametrize("cursor", [None, "id"])
def test_a_table_that_is_truncated_and_filled_anew_is_never_read_empty(database, cursor):
    """TRUNCATE takes its rows from older snapshots too: the table is locked before the snapshot is taken."""
    database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    reader = Reader(database, cursor=cursor)
    with database.connect() as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN; TRUNCATE t; INSERT INTO t VALUES (2)")
        reading = pool.submit(reader.read)
        until(lambda: database.run("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'") != [])
        other.execute("COMMIT")
        assert reading.result() == [2]
    with closing(reader.source.batches(Range(), Snapshot(), "s")) as batches:
        batch = next(batches)
        with (
            database.connect(options="-c lock_timeout=200") as other,
            pytest.raises(psycopg.errors.LockNotAvailable),
        ):
            other.execute("TRUNCATE t")
        assert batch.frame.lazy.collect()["id"].to_list() == [2]


def test_all_sources_of_a_run_see_one_snapshot(database):
    """An order and what it is of are read together, or neither is."""
    database.run("CREATE TABLE a (id int); CREATE TABLE b (id int); INSERT INTO a VALUES (1)")
    one, other = (hr.PostgresSource(dsn=database.dsn, table=table) for table in "ab")
    with closing(one.batches(Range(reader="p"), Snapshot(), "a")) as first:
        batch = next(first)
        database.run("INSERT INTO a VALUES (2); INSERT INTO b VALUES (2)")
        with closing(other.batches(Range(reader="p"), Snapshot(), "b")) as second:
            assert next(second).frame.lazy.collect().height == 0
        with closing(other.batches(Range(reader="q"), Snapshot(), "b")) as second:
            assert next(second).frame.lazy.collect().height == 1
        assert batch.frame.lazy.collect()["id"].to_list() == [1]


EMPTYING = "TRUNCATE b; INSERT INTO b VALUES (3)"


@pytest.mark.parametrize(
    ("source", "statement"),
    [
        ({"table": "b"}, EMPTYING),
        ({"table": "seen"}, EMPTYING),
        ({"table": "whole"}, "TRUNCATE part; INSERT INTO part VALUES (3)"),
        ({"query": "SELECT seen.id FROM seen LEFT JOIN a USING (id)"}, EMPTYING),
        (
            {"query": "WITH x AS (SELECT * FROM b) SELECT * FROM x"},
            "DROP TABLE b CASCADE; CREATE TABLE b AS SELECT 3 AS id",
        ),
        ({"table": "made"}, "REFRESH MATERIALIZED VIEW made"),
        ({"query": "SELECT id FROM b"}, "DROP VIEW seen; ALTER TABLE b ALTER id TYPE bigint"),
    ],
)
def test_a_table_that_is_emptied_after_the_snapshot_is_refused_whatever_reads_it(database, source, statement):
    database.run(
        "CREATE TABLE a (id int); CREATE TABLE b (id int); INSERT INTO b VALUES (1); CREATE VIEW seen AS TABLE b;"
        "CREATE MATERIALIZED VIEW made AS SELECT 1 AS id;"
        "CREATE TABLE whole (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF whole DEFAULT"
    )
    first = hr.PostgresSource(dsn=database.dsn, table="a")
    other = hr.PostgresSource(dsn=database.dsn, **source)
    with closing(first.batches(Range(reader="p"), Snapshot(), "a")) as batches:
        next(batches)  # the snapshot is taken
        database.run(statement)  # and cannot see these rows, nor those that were there
        with pytest.raises(UnavailableError, match=r"(b|part|made) was truncated, rewritten or made after"):
            next(other.batches(Range(reader="p"), Snapshot(), "b"))
    with closing(other.batches(Range(reader="p"), Snapshot(), "b")) as second:
        assert next(second).frame.lazy.collect().height >= 1


def test_nobody_empties_a_table_of_a_query_while_it_is_read(database):
    database.run("CREATE TABLE b (id int); INSERT INTO b VALUES (1); CREATE VIEW seen AS TABLE b")
    source = hr.PostgresSource(dsn=database.dsn, query="SELECT * FROM seen")
    with closing(source.batches(Range(), Snapshot(), "b")) as batches:
        batch = next(batches)
        with (
            database.connect(options="-c lock_timeout=200") as other,
            pytest.raises(psycopg.errors.LockNotAvailable),
        ):
            other.execute("TRUNCATE b")
        assert batch.frame.lazy.collect().height == 1


SLOWED = """
import sys
sys.path.insert(0, sys.argv[1])
from proxy import Fault, Proxy
from psycopg.conninfo import conninfo_to_dict, make_conninfo
import headrace as hr
from headrace.systems.postgres.connection import connected
from headrace.systems.postgres.copying import _blocks

with Proxy("127.0.0.1", int(conninfo_to_dict(sys.argv[2])["port"])) as proxy:
    through = make_conninfo(sys.argv[2], host="127.0.0.1", port=proxy.port)
    with connected(through, name="p") as connection:
        for after in range(0, 140, 10):  # of the rows, and of what tells their end
            proxy.passed["client"], proxy.fault = 0, Fault(to="client", after=after, how="slow")
            print(sum(map(len, _blocks(connection, "COPY (SELECT i FROM generate_series(1, 9) i) TO STDOUT"))))
"""


def test_whatever_the_server_is_slow_to_say_other_threads_run(database):
    """The network is a thread of this process: it waits for ever for who waits for it with the interpreter's lock."""
    place = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", SLOWED, place, database.dsn], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == (["18"] * 14, "")


def test_a_reading_that_begins_while_its_snapshot_is_closed_is_ended(database):
    """Its query comes to the server after the first word that it be cancelled."""
    with session.opened(database.dsn, name="p") as opened, opened.worker() as connection:
        with ThreadPoolExecutor(1) as pool:
            closed = pool.submit(opened.close)
            until(lambda: opened._closed)
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT pg_sleep(0.05), pg_sleep(20)")
        closed.result()


def test_a_reading_of_a_snapshot_that_was_closed_says_so(database):
    with session.opened(database.dsn, name="p") as opened:
        pass
    with pytest.raises(UnavailableError, match="the reading was closed"), opened.worker():
        pass


@pytest.mark.parametrize("at", [1, 500, 99_999])
def test_rows_that_end_in_an_error_are_never_taken_for_all(database, at):
    query = f"SELECT a, 1 / (a - {at}) AS b FROM generate_series(1, 99999) AS a"
    with closing(hr.PostgresSource(dsn=database.dsn, query=query).batches(Range(), Snapshot(), "in")) as batches:
        frame = next(batches).frame.lazy
        with pytest.raises(DataError):
            frame.collect()

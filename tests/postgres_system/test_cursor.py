"""Cursors: compared by the server, in full precision; ties neither lost nor doubled, NULLs by policy."""

from __future__ import annotations

from contextlib import closing

import pytest
from reading import Reader

import headrace as hr
from headrace.cursor import Cursor
from headrace.errors import ConfigError, DataError
from headrace.flow import Range, Snapshot

IGNORE = {"late": "ignore"}


@pytest.mark.parametrize("ties", ["again", "once"])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int", ["-5", "7", "7", "2147483647"]),
        ("numeric", ["0.1", "1e30", "1e30", "123456789012345678901234567890123456789012345.000000001"]),
        ("float8", ["-0.1", "0.1", "0.1", "1e308"]),
        ("date", ["'0044-03-15 BC'", "'2024-01-01'", "'2024-01-01'", "'2024-01-02'"]),
        ("timestamp", ["'2024-01-01 00:00:00.000001'", "'2024-01-01 00:00:00.000002'"] * 2),
        ("timestamptz", ["'2024-10-27 02:30:00.000001+02'", "'2024-10-27 02:30:00.000001+01'"] * 2),
        ("uuid", [f"'019234ab-0000-7000-8000-00000000000{at}'" for at in "1fa"]),
        ("text", ["'a'", "'B'", "'ä'", "'b'"]),
        ("bytea", [r"'\x00'", r"'\xff'"]),
    ],
)
def test_a_cursor_of_every_type_is_read_on(database, kind, values, ties):
    """The server's order is what counts: of each prefix of the ordered rows the rest is what is new."""
    database.run(f"CREATE TABLE t (id serial, c {kind} NOT NULL); CREATE INDEX ON t (c)")
    for value in values:
        database.run(f"INSERT INTO t (c) VALUES ({value})")
    order = [i for (i,) in database.run("SELECT id FROM t ORDER BY c, id")]
    database.run("CREATE TABLE rest AS SELECT * FROM t; TRUNCATE t")
    reader = Reader(database, cursor=Cursor(column="c", **IGNORE), ties=ties, types={"c": "string"})
    seen: list[int] = []
    for at in order:
        database.run("INSERT INTO t SELECT * FROM rest WHERE id = %s", [at])
        new = reader.read()
        assert at in new
        assert new == [at] or ties == "again"
        seen += new
    assert set(seen) == set(order)
    reader.read()
    assert reader.batch.news.empty


@pytest.mark.parametrize("cursor", ["c", ("n", "c"), ("c", "n")])
def test_a_cursor_of_an_extensions_type_is_compared_as_it_is_sorted(database, cursor):
    """Without its schema in the search path citext's < is that of text: B would come before a."""
    database.run(
        "CREATE EXTENSION citext; CREATE DOMAIN word AS citext;"
        "CREATE TABLE t (id int, n int NOT NULL, c word NOT NULL); INSERT INTO t VALUES (1, 1, 'a'), (2, 1, 'B')"
    )
    reader = Reader(database, cursor=cursor, ties="once")
    assert reader.read() == [1, 2]
    database.run("INSERT INTO t VALUES (3, 1, 'C'), (4, 1, 'b'), (5, 1, 'c')")
    assert reader.read() == [3, 4, 5]
    assert reader.read() == []


def test_several_columns_are_one_cursor(database):
    database.run(
        "CREATE TABLE t (id int, a int NOT NULL, b text NOT NULL); CREATE INDEX ON t (a, b);"
        "INSERT INTO t VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'a')"
    )
    reader = Reader(database, cursor=("a", "b"), ties="once")
    assert reader.read() == [1, 2, 3]
    database.run("INSERT INTO t VALUES (4, 2, 'a'), (5, 2, 'b'), (6, 3, 'A')")
    assert reader.read() == [4, 5, 6]
    reader.source = hr.PostgresSource(dsn=database.dsn, table="t", cursor="a")
    with pytest.raises(DataError, match="was read by a integer, b text"):
        reader.read()


def test_a_cursor_that_has_grown_goes_on_and_one_that_has_changed_is_refused(database):
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, n numeric(5,1), f real, c char(3));"
        "INSERT INTO t VALUES (1, 1.5, 1.1, 'a'), (2, 2.5, 2.2, 'b')"
    )
    reader = Reader(database, cursor="id", ties="once")
    assert reader.read() == [1, 2]
    database.run(
        "ALTER TABLE t ALTER id TYPE bigint, ALTER n TYPE numeric(9,3), ALTER f TYPE float8, ALTER c TYPE char(5),"
        " ADD x text; INSERT INTO t VALUES (3, 1)"
    )
    assert reader.read() == [3]
    database.run("ALTER TABLE t ALTER id TYPE text")
    with pytest.raises(DataError, match="was read by id bigint, and its cursor is id text now"):
        reader.read()


@pytest.mark.parametrize(
    ("held", "value", "then", "known"),
    [
        ("json", '{"a":1}', "jsonb", False),
        ("numeric(5,2)", "1.25", "integer", False),
        ("timestamptz", "2024-01-31 10:00+00", "date", False),
        ("integer", "1", "numeric", True),
        ("text", "a", "varchar(9)", True),
    ],
)
def test_a_column_whose_values_are_other_texts_now_is_refused_by_name_and_no_row_is_read_twice(
    database, held, value, then, known
):
    database.run(f"CREATE TABLE t (id int PRIMARY KEY, p {held}); INSERT INTO t VALUES (1, '{value}')")
    reader = Reader(database, cursor="id", ties="once")
    assert reader.read() == [1]
    database.run(f"ALTER TABLE t ALTER p TYPE {then}; INSERT INTO t (id) VALUES (2)")
    if known:
        assert reader.read() == [2]
    else:
        with pytest.raises(ConfigError, match=f"'p' was .* and is {then} now"):
            reader.read()


def test_equal_rows_without_a_value_are_rejects_of_their_own(database):
    database.run("CREATE TABLE t (id int, c int); INSERT INTO t VALUES (1, NULL), (1, NULL), (2, NULL)")
    reader = Reader(database, cursor="c")
    reader.read()
    before = reader.ids
    assert sorted(id.partition("-")[2] for id in before) == ["", "", "2"]
    reader.read()
    assert reader.ids == before


def test_rows_without_a_value_go_by_the_policy(database):
    """All NULL at first: that ends nothing."""
    database.run("CREATE TABLE t (id int, c int); INSERT INTO t VALUES (1, NULL), (2, NULL)")
    refuse = Reader(database, cursor="c")
    skip = Reader(database, cursor=Cursor(column="c", nulls="skip"), ties="once")
    load = Reader(database, cursor=Cursor(column="c", nulls="load"), ties="once")
    again = Reader(database, cursor=Cursor(column="c", nulls="load"))
    assert (refuse.read(), refuse.rejects) == ([], 2)
    assert not refuse.batch.news.empty
    assert skip.read() == []
    assert "2 rows without a value of the cursor skipped" in " ".join(skip.batch.news.warnings)
    assert load.read() == [1, 2]
    assert again.read() == [1, 2]
    database.run("INSERT INTO t VALUES (3, 1), (4, NULL)")
    assert (refuse.read(), refuse.rejects) == ([3], 3)
    assert (skip.read(), load.read(), again.read()) == ([3], [3, 4], [1, 2, 3, 4])
    assert (load.read(), again.read()) == ([], [1, 2, 3, 4])
    assert load.batch.news.empty
    assert again.batch.news.empty


def test_not_a_number_is_no_value_of_a_cursor(database):
    database.run("CREATE TABLE t (id int, c numeric NOT NULL); INSERT INTO t VALUES (1, 'NaN'), (2, 1.5)")
    reader = Reader(database, cursor="c")
    assert (reader.read(), reader.rejects) == ([2], 1)
    database.run("INSERT INTO t VALUES (3, 2)")
    assert reader.read() == [2, 3]


@pytest.mark.parametrize(("kind", "value"), [("timestamp", "2024-01-31"), ("date", "2024-01-31"), ("real", "1.5")])
@pytest.mark.parametrize("reads", [{"table": "t"}, {"query": "SELECT * FROM t"}])
def test_a_cursor_at_infinity_is_refused_since_nothing_would_be_new_after_it(database, kind, value, reads):
    database.run(f"CREATE TABLE t (id int, c {kind}); INSERT INTO t VALUES (1, '{value}'), (2, 'infinity')")
    with pytest.raises(DataError, match="'c' is infinity") as told:
        Reader(database, cursor="c", **reads).read()
    left_out = told.value.hint.partition('"where": "')[2].removesuffix('"')
    query = {"query": f"SELECT * FROM t WHERE {left_out}"} if "query" in reads else {"where": left_out}
    assert Reader(database, cursor="c", **query).read() == [1]


def test_a_start_is_a_text_of_the_columns_type(database):
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, d date);"
        "INSERT INTO t SELECT i, '2024-01-01'::date + i FROM generate_series(1, 5) AS i"
    )
    reader = Reader(database, cursor=Cursor(column="d", start="2024-01-04"), ties="once")
    assert reader.read() == [3, 4, 5]
    with database.connect() as slow:  # what is looked for below stays above the start
        slow.execute("BEGIN; INSERT INTO t VALUES (9, '2024-01-05')")
        database.run("INSERT INTO t VALUES (10, '2024-02-01')")
        assert reader.read() == [10]
        slow.execute("INSERT INTO t VALUES (8, '2024-01-02'); COMMIT")
    assert reader.read() == [9]
    with pytest.raises(ConfigError, match="the start of cursor 'd' is no date"):
        Reader(database, cursor=Cursor(column="d", start="soon")).read()
    with pytest.raises(ConfigError, match=r"'p' \(point\) cannot be a cursor"):
        Reader(database, query="SELECT point '(1,2)' AS p", cursor="p").read()


def test_max_and_the_read_are_of_one_snapshot(database):
    """Rows that come between the question how far to read and the read itself are left for the next run."""
    database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    reader = Reader(database, cursor="id", ties="once")
    with closing(reader.source.batches(Range(ties="once"), Snapshot(), "s")) as batches:
        batch = next(batches)
        database.run("INSERT INTO t VALUES (3); DELETE FROM t WHERE id = 1")
        assert batch.frame.lazy.collect()["id"].to_list() == [1, 2]
        assert batch.whole.lazy.collect()["id"].to_list() == [1, 2]
        reader.position = batch.position()
    assert reader.read() == [3]


def test_a_days_last_rows_do_not_fall_between_two_reads_at_midnight(database):
    database.run("CREATE TABLE t (id int, at timestamp NOT NULL)")
    reader = Reader(database, cursor="at", ties="once")
    seen = []
    for at, when in enumerate(["23:59:59.999998", "23:59:59.999999", "24:00", "24:00", "24:00:00"]):
        database.run("INSERT INTO t VALUES (%s, date '2024-01-01' + %s::interval)", [at, when])
        seen += reader.read()
    assert seen == [0, 1, 2, 3, 4]


def test_commits_of_some_bytes_are_cut_along_the_cursor_from_one_snapshot(database, tmp_path):
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, c int NOT NULL, x text); CREATE INDEX ON t (c);"
        "INSERT INTO t SELECT i, i / 3, repeat('x', 90) FROM generate_series(1, 1000) AS i"
    )
    source = hr.PostgresSource(dsn=database.dsn, table="t", cursor="c")
    with closing(source.batches(Range(ties="once", batch_bytes=20_000), Snapshot(), "s")) as batches:
        first = next(batches)
        part = first.frame.lazy.collect()["id"].to_list()
        database.run("INSERT INTO t VALUES (2000, 1000, 'later')")
        parts = [part, *(b.frame.lazy.collect()["id"].to_list() for b in batches)]
    assert len(parts) > 3
    assert sorted(i for p in parts for i in p) == list(range(1, 1001))
    pipeline = hr.Pipeline(
        name="t",
        source=source,
        destination=hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t"),
        write=hr.Append(),
        commit_every="20KB",
    )
    report = hr.run(pipeline)
    assert len(report.commits) > 3
    assert sum(c.counts["rows"] for c in report.commits) == 1001
    assert hr.run(pipeline).status == "nothing_new"


@pytest.mark.parametrize(("how", "told"), [({"cursor": "id"}, 0), ({}, 1), ({"cursor": "id", "read": "all"}, 1)])
def test_plan_says_where_commit_every_cuts_nothing(database, tmp_path, how, told):
    database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)")
    pipeline = hr.Pipeline(
        name="t",
        source=hr.PostgresSource(dsn=database.dsn, table="t", **how),
        destination=hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t"),
        write=hr.Merge(),
        commit_every="100B",
    )
    assert len([w for w in hr.plan(pipeline).warnings if "commit_every does nothing for 'source'" in w]) == told
    assert (len(hr.run(pipeline).commits) == 1) == bool(told)


@pytest.mark.parametrize("name", ["x", "s", "n", "k0"])
def test_commits_of_some_bytes_are_cut_by_whole_rows_whatever_their_columns_are_called(database, name):
    database.run(
        f"CREATE TABLE t (id int PRIMARY KEY, {name} text, long text);"
        "INSERT INTO t SELECT i, 'y', repeat('z', 1000) FROM generate_series(1, 200) AS i"
    )
    source = hr.PostgresSource(dsn=database.dsn, table="t", cursor="id")
    with closing(source.batches(Range(batch_bytes=50_000), Snapshot(), "s")) as batches:
        assert len(list(batches)) == 5


def test_nothing_new_costs_the_server_no_scan_where_the_cursor_has_an_index(database):
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL, x text); CREATE INDEX ON t (at);"
        "INSERT INTO t SELECT i, now() - i * interval '1 minute', 'x' FROM generate_series(1, 5000) AS i; ANALYZE t"
    )
    for ties in ("again", "once"):
        reader = Reader(database, cursor="at", ties=ties)
        reader.read()
        database.run("SELECT pg_stat_force_next_flush()")
        before = database.run("SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables")[0]
        reader.read()
        assert reader.batch.news.empty
        database.run("SELECT pg_stat_force_next_flush()")
        after = database.run("SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables")[0]
        assert after[0] == before[0]
        assert after[1] - before[1] < 20
    database.run("DROP INDEX t_at_idx")
    reader.read()
    assert "no index on at" in " ".join(reader.batch.news.warnings)


PARTITIONED = """
CREATE TABLE v (id int, at timestamptz NOT NULL) PARTITION BY RANGE (id); CREATE INDEX ON v (at);
CREATE TABLE v1 PARTITION OF v FOR VALUES FROM (0) TO (3); CREATE TABLE v2 PARTITION OF v DEFAULT;
INSERT INTO v SELECT * FROM t
"""
FOREIGN = """
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', port '{port}', dbname '{name}');
CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'postgres');
CREATE FOREIGN TABLE v (id int, at timestamptz NOT NULL) SERVER far OPTIONS (table_name 't')
"""


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ("CREATE VIEW v AS SELECT * FROM t", "view"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM t", "materialized view"),
        (PARTITIONED, "partitioned table"),
        (FOREIGN, "foreign table"),
    ],
    ids=lambda v: v.partition(" ")[0],
)
def test_views_partitioned_and_foreign_tables_are_read_too(database, made, kind):
    from psycopg.conninfo import conninfo_to_dict

    told = conninfo_to_dict(database.dsn)
    if "postgres_fdw" in made and not database.run("SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        pytest.skip("this server has no postgres_fdw")
    database.run(
        "CREATE TABLE t (id int, at timestamptz NOT NULL);"
        "INSERT INTO t SELECT i, now() - i * interval '1 hour' FROM generate_series(1, 4) AS i;"
        + made.format(host=told.get("host"), port=told.get("port"), name=database.name)
    )
    reader = Reader(database, table="v", cursor="at", ties="once", where="id <> 4 -- and no more", columns=("id",))
    assert reader.read() == [1, 2, 3]
    assert reader.batch.news.facts["kind"] == kind
    assert ("row-level security" in reader.batch.news.facts.get("rows", "")) == (kind == "foreign table")
    assert reader.frame.columns == ["id"]
    assert reader.read() == []


NOT_VALID = """CREATE TABLE t (id int, at int); INSERT INTO t VALUES (1, NULL), (2, 5);
ALTER TABLE t ADD CONSTRAINT there NOT NULL at NOT VALID"""
HEIR = """CREATE TABLE t (id int, at int); CREATE TABLE heir () INHERITS (t); INSERT INTO heir VALUES (1, NULL), (2, 5);
ALTER TABLE ONLY t ADD CONSTRAINT there NOT NULL at NO INHERIT"""


@pytest.mark.parametrize("made", [NOT_VALID, HEIR], ids=["not valid", "not the heirs"])
def test_not_null_is_believed_only_where_the_server_has_looked_at_every_row(database, made):
    if database.run("SHOW server_version_num")[0][0] < "180000":
        pytest.skip("this server has no such constraints")
    database.run(made)
    assert Reader(database, cursor=Cursor(column="at", nulls="load"), ties="once").read() == [1, 2]


def test_an_append_whose_source_has_lost_a_column_is_told_the_way_out(database):
    database.run("CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t VALUES (1, 1)")
    reader = Reader(database, cursor="id", ties="once")
    reader.read()
    database.run("ALTER TABLE t DROP x")
    with pytest.raises(ConfigError, match="no column 'x' any more") as told:
        reader.read()
    assert "--full-refresh" in told.value.hint


def test_a_partition_on_another_server_tells_of_no_transactions(database):
    from psycopg.conninfo import conninfo_to_dict

    told = conninfo_to_dict(database.dsn)
    if not database.run("SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        pytest.skip("this server has no postgres_fdw")
    database.run(
        "CREATE TABLE t (id int, at timestamptz NOT NULL); INSERT INTO t VALUES (1, NOW()), (2, NOW());"
        + FOREIGN.format(host=told.get("host"), port=told.get("port"), name=database.name)
        + "; CREATE TABLE w (id int, at timestamptz NOT NULL) PARTITION BY RANGE (id);"
        " ALTER TABLE w ATTACH PARTITION v FOR VALUES FROM (0) TO (9)"
    )
    reader = Reader(database, table="w", cursor="at")
    assert reader.read() == [1, 2]
    assert reader.batch.news.facts["late"] == "ignore"
    assert "row-level security" in reader.batch.news.facts["rows"]
    with pytest.raises(ConfigError, match="does not tell which transactions"):
        Reader(database, table="w", cursor=Cursor(column="at", late="clock")).read()


def test_a_cursors_value_loses_neither_its_microseconds_nor_its_zone(database):
    """In the hour that comes twice, whatever zone the database is in."""
    database.run(
        f"ALTER DATABASE {database.name} SET timezone = 'America/New_York'; SET timezone = 'UTC';"
        "CREATE TABLE t (id int, at timestamptz NOT NULL); INSERT INTO t VALUES"
        " (1, '2024-11-03 01:30:00.000001-04'), (2, '2024-11-03 01:30:00.000001-05')"
    )
    reader = Reader(database, cursor="at", ties="once")
    assert reader.read() == [1, 2]
    assert reader.position["cursor"] == ["2024-11-03 06:30:00.000001+00"]
    database.run("INSERT INTO t VALUES (3, '2024-11-03 01:30:00.000001-05'), (4, '2024-11-03 01:30:00.000002-05')")
    assert reader.read() == [3, 4]


def test_ties_are_neither_lost_nor_doubled(database):
    """Rows of one time that are committed one after the other, equal ones too; too many for an append are refused."""
    database.run("CREATE TABLE t (id int, at date NOT NULL); INSERT INTO t VALUES (1, '2024-01-01'), (1, '2024-01-01')")
    once, again = Reader(database, cursor="at", ties="once"), Reader(database, cursor="at")
    assert (once.read(), again.read()) == ([1, 1], [1, 1])
    database.run("INSERT INTO t VALUES (1, '2024-01-01'), (2, '2024-01-01')")
    assert (once.read(), again.read()) == ([1, 2], [1, 1, 1, 2])
    again.ties = "once"
    with pytest.raises(ConfigError, match="was read for a merge"):
        again.read()
    database.run("INSERT INTO t SELECT i, '2024-01-02' FROM generate_series(1, 10001) AS i")
    with pytest.raises(DataError, match="more than 10,000 rows share the last value"):
        once.read()

"""A row that is committed after a read has passed it is not lost: two connections each."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from reading import Reader, noted
from server import Database, standby, until

import headrace as hr
from headrace.cursor import Cursor
from headrace.errors import ConfigError, DataError, RejectedError, UnavailableError
from headrace.flow import Range, Snapshot
from headrace.systems.postgres import intact, session

CLOCK = "CREATE TABLE t (id serial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now()); CREATE INDEX ON t (at);"
OLD = "INSERT INTO t (at) SELECT now() - interval '1 hour' * i FROM generate_series(3, 1, -1) AS i;"
SEQUENCE = "CREATE TABLE t (id serial PRIMARY KEY, x text); INSERT INTO t (x) VALUES ('a'), ('b');"
BEGIN = "BEGIN; SET LOCAL application_name = 'billing'"


def later(database, seconds=1.1):
    """The margin before now is left for the next read."""
    database.run(f"SELECT pg_sleep({seconds})")


@pytest.mark.parametrize("ties", ["again", "once"])
def test_a_late_commit_under_the_servers_clock_is_read_and_what_holds_back_is_named(database, ties):
    database.run(CLOCK + OLD)
    reader = Reader(database, cursor="at", ties=ties)
    with database.connect() as slow:
        slow.execute(BEGIN)
        slow.execute("INSERT INTO t (id) VALUES (50)")
        database.run("INSERT INTO t (id) VALUES (51)")  # later, and committed first
        later(database)
        assert reader.read() == [1, 2, 3]
        (warning,) = reader.batch.news.warnings
        assert "held back by pid" in warning
        assert "(billing), whose transaction is open since" in warning
        slow.execute("COMMIT")
    assert reader.read()[-2:] == [50, 51]
    assert reader.batch.news.warnings == ()
    assert reader.read() == ([] if ties == "once" else [51])
    assert reader.batch.news.empty


def test_no_clock_reads_by_a_timestamp_that_each_writer_has_in_its_own_zone(database):
    database.run("CREATE TABLE t (id int, at timestamp NOT NULL DEFAULT now()); CREATE INDEX ON t (at)")
    with pytest.raises(ConfigError, match="'at' is timestamp, which each session writes in its own time zone") as told:
        Reader(database, cursor=Cursor(column="at", late="clock")).read()
    assert '"late": "snapshot"' in told.value.hint
    reader, west = Reader(database, cursor="at"), "-c timezone=America/New_York"
    with database.connect(options=west) as quick, database.connect(options=west) as slow:
        quick.execute("INSERT INTO t VALUES (1)")
        slow.execute("BEGIN; INSERT INTO t VALUES (2)")
        quick.execute("INSERT INTO t VALUES (3)")
        assert reader.read() == [1, 3]
        slow.execute("COMMIT")
    assert 2 in reader.read()


def test_rows_that_are_dated_in_the_future_are_said_to_wait(database):
    database.run("CREATE TABLE t (id int, at timestamptz); CREATE INDEX ON t (at);")
    database.run(OLD.replace("(at) SELECT", "SELECT i,"))
    reader = Reader(database, cursor="at")
    reader.read()
    assert reader.batch.news.warnings == ()
    database.run("INSERT INTO t VALUES (4, 'infinity'), (5, now() + interval '3 days')")
    assert 4 not in reader.read()
    (warning,) = reader.batch.news.warnings
    assert "'at' lies in the future" in warning


def test_a_transaction_that_only_reads_a_source_holds_no_other_back(database):
    database.run(CLOCK + OLD)
    one, other = Reader(database, cursor="at"), Reader(database, cursor="at")
    held = one.source.batches(Range(), Snapshot(), "s")
    next(held)
    database.run("INSERT INTO t (id) VALUES (60)")
    later(database)
    assert other.read() == [1, 2, 3, 60]
    held.close()


@pytest.mark.parametrize("first", ["INSERT INTO t (id) VALUES (50)", "SELECT now()"])
def test_who_writes_holds_back_whatever_it_calls_itself(database, first):
    """A pipeline, or a program, may be named "meter reading"; and an application of anybody's as our readers are."""
    database.run(CLOCK + OLD)
    reader = Reader(database, cursor="at")
    assert reader.read() == [1, 2, 3]
    with hr.postgres.connect(database.dsn, name="meter reading") as db:
        db.execute(first)
        database.run("INSERT INTO t (id) VALUES (51)")
        later(database)
        assert reader.read() == [3]
        db.execute("INSERT INTO t (id, at) VALUES (52, now())")
    assert reader.read()[-2:] == [51, 52]
    with database.connect(application_name="headrace meter reading") as other:
        other.execute("BEGIN; INSERT INTO t (id) VALUES (60)")
        database.run("INSERT INTO t (id) VALUES (61)")
        later(database)
        assert 61 not in reader.read()
        other.execute("COMMIT")
    assert reader.read()[-2:] == [60, 61]


def test_a_prepared_transaction_holds_back_too(database):
    database.run(CLOCK + OLD)
    reader = Reader(database, cursor="at")
    assert reader.read() == [1, 2, 3]
    with database.connect() as other:
        other.execute("BEGIN; INSERT INTO t (id) VALUES (50); PREPARE TRANSACTION 'two-phase'")
    database.run("INSERT INTO t (id) VALUES (51)")
    later(database)
    with pytest.raises(UnavailableError, match="'two-phase'"):
        Reader(database, cursor="at").read()
    assert reader.read() == [3]
    assert "prepared transaction 'two-phase'" in reader.batch.news.warnings[0]
    database.run("COMMIT PREPARED 'two-phase'")
    assert reader.read() == [3, 50, 51]


@pytest.mark.parametrize("ties", ["again", "once"])
@pytest.mark.parametrize("begin", ["INSERT INTO t VALUES (10, 'late')", "SELECT 1", "SAVEPOINT s"])
def test_a_late_commit_of_a_sequences_number_is_read(database, ties, begin):
    """Also of a transaction that has no number of its own yet at the read, and of a subtransaction."""
    database.run(SEQUENCE)
    reader = Reader(database, cursor="id", ties=ties)
    with database.connect() as slow:
        slow.execute(BEGIN)
        slow.execute(begin)
        if begin == "SAVEPOINT s":
            slow.execute("SAVEPOINT s2; INSERT INTO t VALUES (9, 'early') ; ROLLBACK TO s2")
        database.run("INSERT INTO t VALUES (11, 'first')")
        assert reader.read() == [1, 2, 11]
        assert reader.batch.news.misses is not None
        if not begin.startswith("INSERT"):
            slow.execute("SAVEPOINT s3; INSERT INTO t VALUES (10, 'late'); RELEASE s3")
        slow.execute("COMMIT")
    assert reader.read() == ([10] if ties == "once" else [10, 11])
    assert reader.read() == ([] if ties == "once" else [11])
    assert reader.batch.news.empty


@pytest.mark.parametrize("ties", ["again", "once"])
def test_a_clock_that_follows_a_snapshot_looks_for_what_that_one_had_missed(database, ties):
    """The mode in the config has changed, or a subscription has gone: what was open at the last read is not lost."""
    database.run(CLOCK + OLD)
    reader = Reader(database, cursor=Cursor(column="at", late="snapshot"), ties=ties)
    with database.connect() as slow:
        slow.execute(BEGIN)
        slow.execute("INSERT INTO t (id) VALUES (50)")
        database.run("INSERT INTO t (id) VALUES (51)")
        assert reader.read() == [1, 2, 3, 51]
        reader.source = hr.PostgresSource(dsn=database.dsn, table="t", cursor="at")
        database.run("INSERT INTO t (id) VALUES (52)")
        later(database)
        assert 52 not in reader.read()  # the clock is held back below what the snapshot has reached
        slow.execute("COMMIT")
    later(database)
    assert reader.read() == ([50, 52] if ties == "once" else [50, 51, 52])
    assert reader.batch.news.facts["late"] == "clock"
    assert "snapshot" not in reader.position["late"]
    assert reader.read() == ([] if ties == "once" else [52])


def test_what_was_seen_among_what_is_suspect_is_not_read_again_by_an_append(database):
    database.run(SEQUENCE)
    reader = Reader(database, cursor="id", ties="once")
    with database.connect() as slow, database.connect() as slower:
        slower.execute("BEGIN; INSERT INTO t VALUES (20, 'slower')")
        database.run("INSERT INTO t VALUES (21, 'seen'), (22, 'seen')")  # after the oldest open one began
        slow.execute("BEGIN; INSERT INTO t VALUES (19, 'slow')")
        assert reader.read() == [1, 2, 21, 22]
        slow.execute("COMMIT")
        assert reader.read() == [19]
        assert reader.read() == []
        slower.execute("COMMIT")
    assert reader.read() == [20]
    assert reader.read() == []


def test_an_append_goes_on_however_much_is_written_while_a_transaction_is_open(database):
    """More rows than digests could be remembered of; only what was open at the read is suspect."""
    database.run(SEQUENCE)
    reader = Reader(database, cursor="id", ties="once")
    with database.connect() as slow:
        slow.execute(
            "BEGIN; INSERT INTO t VALUES (5, 'late'); SAVEPOINT s; INSERT INTO t VALUES (6, 'late'); RELEASE s"
        )
        database.run("INSERT INTO t SELECT i, 'x' FROM generate_series(100, 10200) AS i")
        assert len(reader.read()) == 2 + 10_101
        assert reader.position["late"]["seen"] == {}
        database.run("INSERT INTO t SELECT i, 'x' FROM generate_series(10201, 20300) AS i")
        slow.execute("INSERT INTO t VALUES (7, 'late')")
        assert len(reader.read()) == 10_100
        slow.execute("COMMIT")
    assert reader.read() == [5, 6, 7]
    assert reader.read() == []


@pytest.mark.parametrize("ties", ["again", "once"])
def test_a_subtransaction_that_ends_while_it_is_asked_after_is_read(database, monkeypatch, ties):
    database.run(SEQUENCE)
    reader = Reader(database, cursor="id", ties=ties)
    with database.connect() as slow:
        slow.execute("BEGIN; SELECT pg_current_xact_id(); SAVEPOINT s; INSERT INTO t VALUES (5, 'late'); RELEASE s")
        database.run("INSERT INTO t VALUES (20, 'seen'), (21, 'seen')")
        real = session.Session.unseen

        def ended(self):
            slow.execute("COMMIT")
            return real(self)

        monkeypatch.setattr(session.Session, "unseen", ended)
        assert reader.read() == [1, 2, 20, 21]
        monkeypatch.undo()
    assert reader.read() == ([5] if ties == "once" else [5, 20, 21])
    assert reader.read() == ([] if ties == "once" else [21])


def test_nothing_is_looked_for_below_where_nobody_else_was_open(database, monkeypatch):
    database.run(SEQUENCE)
    reader = Reader(database, cursor="id", ties="once")
    with closing(reader.source.batches(Range(ties="once"), Snapshot(), "s")) as batches:
        batch = next(batches)
        database.run("CREATE TABLE other (id int)")  # begun after the snapshot, and while rows are read
        batch.frame.lazy.collect()
        reader.position = batch.position()
    assert reader.position["late"]["unseen"] is None
    database.run("INSERT INTO t VALUES (30, 'x')")
    queries = noted(monkeypatch)
    reader.read()
    assert "age(xmin)" not in queries[-1]
    with database.connect() as slow:
        slow.execute("BEGIN; INSERT INTO t VALUES (20, 'late')")
        reader.read()
        slow.execute("COMMIT")
    reader.read()
    assert "age(xmin)" in queries[-1]


def test_a_server_that_has_gone_back_is_refused(database):
    database.run(SEQUENCE)
    reader = Reader(database, cursor="id")
    reader.read()
    reader.position = {**reader.position, "late": {**reader.position["late"], "snapshot": f"{2**40}:{2**40}:"}}
    with pytest.raises(DataError, match="gone back"):
        reader.read()


def test_a_view_is_read_with_a_lag_and_the_guarantee_says_so(database):
    database.run(SEQUENCE + "CREATE VIEW v AS SELECT * FROM t")
    plain = Reader(database, table="v", cursor="id")
    lagging = Reader(database, table="v", cursor=Cursor(column="id", lag="5"))
    behind = Reader(database, table="v", cursor=Cursor(column="id", lag="5"), ties="once")
    with database.connect() as slow:
        slow.execute("BEGIN; INSERT INTO t VALUES (10, 'late')")
        database.run("INSERT INTO t VALUES (11, 'first')")
        assert (plain.read(), lagging.read(), behind.read()) == ([1, 2, 11], [1, 2, 11], [1, 2])
        slow.execute("COMMIT")
    assert plain.read() == [11]  # and so 10 is lost, as it says:
    assert plain.batch.news.misses == "rows that are committed after others with a greater 'id'"
    assert lagging.read() == [10, 11]
    assert lagging.batch.news.misses.endswith("by more than 5")
    assert lagging.read() == [10, 11]
    assert lagging.batch.news.empty
    database.run("INSERT INTO t VALUES (20, 'end')")
    assert behind.read() == [10, 11]


def test_a_role_that_may_not_see_other_sessions_is_told(database):
    database.run(CLOCK + OLD + "GRANT SELECT ON t TO PUBLIC")
    role = f"{database.name}_reader"
    database.run(f"CREATE ROLE {role} LOGIN")
    try:
        with database.connect():
            reader = Reader(database, dsn=psycopg.conninfo.make_conninfo(database.dsn, user=role), cursor="at")
            assert reader.read() == [1, 2, 3]
        assert "GRANT pg_read_all_stats" in reader.batch.news.warnings[0]
        assert "sessions that this role may not see" in reader.batch.news.misses
    finally:
        database.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_server_that_does_not_track_its_sessions_is_told(database):
    database.run(CLOCK + OLD + f"ALTER DATABASE {database.name} SET track_activities = off")
    reader = Reader(database, cursor="at")
    with database.connect():
        assert reader.read() == [1, 2, 3]
    assert "track_activities is off" in reader.batch.news.warnings[0]


def test_a_table_that_a_subscription_fills_has_another_servers_clock(database):
    """Its rows are dated there, and applied here later: a read up to now would pass them."""
    database.run(CLOCK + OLD)
    with database.connect() as other:
        other.execute(
            "CREATE SUBSCRIPTION from_afar CONNECTION 'host=nowhere' PUBLICATION p"
            " WITH (connect = false, slot_name = NONE)"
        )
        other.execute("SET allow_system_table_mods = on")
        other.execute(
            "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)"
            " SELECT oid, 't'::regclass, 'r' FROM pg_subscription WHERE subname = 'from_afar'"
        )
        try:
            reader = Reader(database, cursor="at")
            assert reader.read() == [1, 2, 3]
            assert reader.batch.news.facts["late"] == "snapshot"
            other.execute("BEGIN; INSERT INTO t (id, at) VALUES (50, now() - interval '30 minutes')")
            database.run("INSERT INTO t (id) VALUES (51)")
            assert reader.read()[-1] == 51
            other.execute("COMMIT")
            assert reader.read() == [50, 51]
        finally:
            other.execute("DROP SUBSCRIPTION from_afar")


def test_who_is_open_is_asked_before_the_snapshot_is_taken(database, monkeypatch):
    """A commit between the two is in the snapshot, and beyond the horizon; the other way round it would be lost."""
    database.run(CLOCK + OLD)
    reader = Reader(database, cursor="at")
    with database.connect() as slow:
        slow.execute("BEGIN; INSERT INTO t (id) VALUES (50)")
        database.run("INSERT INTO t (id) VALUES (51)")
        later(database)
        asked = []
        for name in ("seen", "_exported"):
            real = getattr(session, name)

            def between(connection, real=real):
                asked.append(real)
                if len(asked) == 2:
                    slow.execute("COMMIT")
                return real(connection)

            monkeypatch.setattr(session, name, between)
        assert reader.read() == [1, 2, 3]
        monkeypatch.undo()
    assert reader.read() == [3, 50, 51]


def test_a_prepared_transaction_that_is_committed_just_after_the_snapshot_is_not_lost(database, monkeypatch):
    """Who is prepared is asked before the snapshot too: the view is of now, and not of the snapshot."""
    database.run(CLOCK + OLD)
    reader = Reader(database, cursor="at")
    assert reader.read() == [1, 2, 3]
    with database.connect() as other:
        other.execute("BEGIN; INSERT INTO t (id) VALUES (50); PREPARE TRANSACTION 'two-phase'")
    database.run("INSERT INTO t (id) VALUES (51)")
    later(database)
    real = session._exported

    def committed(connection):
        name = real(connection)
        database.run("COMMIT PREPARED 'two-phase'")
        return name

    monkeypatch.setattr(session, "_exported", committed)
    assert reader.read() == [3]
    monkeypatch.undo()
    assert reader.read() == [3, 50, 51]


def test_a_standby_is_read_and_cannot_tell_who_is_open(postgres, database):
    if postgres.binaries is None:
        pytest.skip("the server is not ours to copy")
    database.run(CLOCK + OLD)
    with standby(postgres) as follower:
        there = Database(follower, database.name, follower.to(database.name))
        reader = Reader(there, cursor="at")
        assert reader.read() == [1, 2, 3]
        assert reader.batch.news.misses == "rows that are committed after others with a greater 'at'"
        assert reader.batch.news.facts["late"] == "ignore"
        database.run("SET synchronous_commit = on; INSERT INTO t (id) VALUES (50)")
        until(lambda: there.run("SELECT count(*) FROM t") == [(4,)])
        assert reader.read() == [3, 50]
        for late in ("clock", "snapshot"):
            with pytest.raises(ConfigError, match="a standby does not tell"):
                Reader(there, cursor=Cursor(column="at", late=late)).read()
        with pytest.raises(ConfigError, match="no clock sets"):
            Reader(there, cursor=Cursor(column="id", late="clock")).read()
        target = hr.PostgresDestination(dsn=there.dsn, table="copy")
        source = hr.PostgresSource(dsn=there.dsn, table="t")
        with pytest.raises(RejectedError, match="a standby, or read-only"):
            hr.run(hr.Pipeline(name="p", source=source, destination=target, write=hr.Replace()))


WRITTEN_ANEW = ["ALTER TABLE t ALTER n TYPE bigint", "VACUUM FULL t", "UPDATE t SET n = n", "UPDATE t SET n = -n"]


def read_while_somebody_is_open(database, table):
    database.run(f"CREATE TABLE t ({table}); CREATE TABLE other (n int)")
    database.run("INSERT INTO t SELECT i, i FROM generate_series(1, 20) AS i WHERE i NOT IN (4, 7)")
    reader = Reader(database, cursor="id", ties="once")
    with database.connect() as late, database.connect() as open_yet, open_yet.transaction():
        open_yet.execute("INSERT INTO other VALUES (1)")
        late.execute("BEGIN; INSERT INTO t VALUES (4, 4)")
        assert len(reader.read()) == 18
        late.execute("INSERT INTO t VALUES (7, 7); COMMIT")
    return reader


@pytest.mark.parametrize("statement", WRITTEN_ANEW)
def test_by_a_primary_key_of_numbers_an_append_tells_what_was_committed_late_from_what_was_written_anew(
    database, statement
):
    reader = read_while_somebody_is_open(database, "id int PRIMARY KEY, n int")
    database.run(statement.replace("n = -n", "n = -n WHERE id < 20"))  # at the end itself what differs is new
    database.run("INSERT INTO t VALUES (21, 21)")
    assert reader.read() == [4, 7, 21]
    assert reader.read() == []


@pytest.mark.parametrize("statement", WRITTEN_ANEW)
def test_a_table_that_was_written_anew_is_not_appended_once_more(database, statement):
    """Nothing tells its rows from those that were committed late."""
    reader = read_while_somebody_is_open(database, "id int NOT NULL, n int")
    database.run(statement)
    database.run("INSERT INTO t VALUES (21, 21)")
    if statement.startswith("VACUUM"):  # which keeps the numbers of the transactions
        assert reader.read() == [4, 7, 21]
    else:
        with pytest.raises(DataError, match=r"public\.t: rows that were read have been changed, rewritten or deleted"):
            reader.read()


def test_what_was_updated_or_deleted_keeps_no_append_from_going_on_where_nothing_was_late(database):
    database.run("CREATE TABLE t (id int NOT NULL, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 50) AS i")
    reader = Reader(database, cursor="id", ties="once")
    with database.connect() as late:
        late.execute("BEGIN; INSERT INTO t VALUES (45, 0)")
        assert len(reader.read()) == 50
        late.execute("ROLLBACK")
    database.run("DELETE FROM t WHERE id = 44; INSERT INTO t VALUES (51, 51)")
    assert reader.read() == [51]
    with database.connect() as late:
        late.execute("BEGIN; INSERT INTO t VALUES (48, 0)")
        database.run("INSERT INTO t VALUES (52, 52)")
        assert reader.read() == [52]
        late.execute("COMMIT")
    database.run("DELETE FROM t WHERE id < 20")  # old rows go, near the end none is missing
    assert reader.read() == [48]


@pytest.mark.parametrize("key", ["PRIMARY KEY", "NOT NULL"])
def test_a_row_that_a_filter_takes_in_again_is_not_appended_once_more(database, key):
    database.run(
        f"CREATE TABLE t (id int {key}, here bool); INSERT INTO t SELECT i, true FROM generate_series(1, 9) AS i"
    )
    reader = Reader(database, cursor="id", ties="once", where="here")
    with database.connect() as other:
        other.execute("BEGIN; CREATE TABLE other (n int)")
        assert len(reader.read()) == 9
        for here in ("false", "true"):
            database.run(f"UPDATE t SET here = {here} WHERE id = 2")
            if here == "false" or key == "PRIMARY KEY":
                assert reader.read() == []
            else:
                with pytest.raises(DataError, match="have been changed"):
                    reader.read()


def test_an_append_that_follows_a_merge_is_refused_whoever_was_open(database):
    database.run(SEQUENCE)
    reader = Reader(database, cursor="id")
    with database.connect() as late:
        late.execute("BEGIN; INSERT INTO t VALUES (0, 'late')")
        assert reader.read() == [1, 2]
        late.execute("COMMIT")
    reader.ties = "once"
    with pytest.raises(ConfigError, match="was read for a merge"):
        reader.read()


@pytest.mark.parametrize("near", [5, 10_000])
def test_gaps_are_known_near_the_end_and_below_that_rows_are_counted(database, monkeypatch, near):
    monkeypatch.setattr(intact, "_NEAR", near)
    monkeypatch.setattr(intact, "_GAPS_MAX", near)
    database.run("CREATE TABLE t (id int PRIMARY KEY, n int)")
    database.run("INSERT INTO t SELECT i * 2, i FROM generate_series(1, 50) AS i")
    reader = Reader(database, cursor="id", ties="once")
    with database.connect() as late, database.connect() as open_yet:
        open_yet.execute("BEGIN; CREATE TABLE other (n int)")
        late.execute("BEGIN; INSERT INTO t VALUES (3, 0), (97, 0)")
        assert len(reader.read()) == 50
        late.execute("COMMIT")
        database.run("UPDATE t SET n = n WHERE id = 98; INSERT INTO t VALUES (101, 0)")
        assert reader.read() == [3, 97, 101]
        database.run("UPDATE t SET n = n WHERE id = 2; INSERT INTO t VALUES (102, 0)")
        if near == 5:
            with pytest.raises(DataError, match="have been changed"):
                reader.read()
        else:
            assert reader.read() == [102]

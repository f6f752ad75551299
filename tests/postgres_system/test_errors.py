from __future__ import annotations

import polars as pl
import psycopg
import pytest
from psycopg import errors

import headrace as hr
from headrace.errors import ConfigError, DataError, HeadraceError, RejectedError, UnavailableError
from headrace.systems.postgres.connection import connected, endpoint, transaction
from headrace.systems.postgres.errors import BY_STATE, translated

STATES = {state: kind for state, kind in errors._sqlcodes.items() if len(state) == 5}
CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]


def test_every_state_of_the_server_has_its_place():
    assert len(STATES) > 200
    assert [s for s in STATES if s not in BY_STATE and s[:2] not in BY_STATE] == []


@pytest.mark.parametrize("kind", [*CLASSES, psycopg.errors.ConnectionTimeout], ids=lambda c: c.__name__)
def test_every_exception_of_the_driver_is_headraces_and_its_text_is_not_passed_on(kind):
    if not issubclass(kind, psycopg.Error):
        pytest.skip("no error of a connection")
    with pytest.raises(HeadraceError) as told, translated("postgres shop"):
        raise kind("a secret value")
    assert "secret" not in str(told.value)
    assert "postgres shop" in told.value.message


def test_a_broken_constraint_is_named_with_its_columns_and_without_the_value(database):
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b int CHECK (b > 0), c text);"
        "CREATE UNIQUE INDEX by_c ON t (c, b); INSERT INTO t VALUES (1, 1, 1, 'secret')"
    )
    broken = {
        "INSERT INTO public.t VALUES (1, 1, 1, 'x')": ("t_pkey", "'id'"),
        "INSERT INTO public.t VALUES (2, NULL, 1, 'secret')": ("public.t", "'a'"),
        "INSERT INTO public.t VALUES (2, 1, -7654321, 'secret')": ("t_b_check", "'b'"),
        "INSERT INTO public.t VALUES (2, 1, 1, 'secret')": ("by_c", "'b', 'c'"),
    }
    with connected(database.dsn, name="p") as connection:
        for statement, (name, column) in broken.items():
            with pytest.raises(DataError) as told, transaction(connection):
                connection.execute(statement)
            assert name in told.value.message
            assert column in told.value.message
            assert "secret" not in str(told.value)
            assert "7654321" not in str(told.value)
    assert database.run("SELECT count(*) FROM t") == [(1,)]


@pytest.mark.parametrize(
    ("dsn", "kind"),
    [
        ({"dbname": "no_such_database"}, ConfigError),
        ({"user": "nobody_of_that_name"}, RejectedError),
        ({"host": "127.0.0.1", "port": 1}, UnavailableError),
        ({"host": "no-such-host.invalid"}, UnavailableError),
        ({"service": "no_such_service", "host": ""}, ConfigError),
    ],
)
def test_a_connection_that_does_not_come_about_says_what_to_do(database, dsn, kind):
    known = psycopg.conninfo.conninfo_to_dict(database.dsn)
    with pytest.raises(kind) as told, connected({**known, **dsn}, name="p"):
        pytest.fail("it came about")
    assert told.value.hint
    assert "connection was lost" not in told.value.message


@pytest.mark.parametrize("dsn", ["host=a nonsense", {"nonsense": "1"}, "postgresql://me:b4d@[::1/x"])
def test_a_dsn_that_cannot_be_read_is_the_configs_fault(dsn):
    with pytest.raises(ConfigError) as told, connected(dsn, name="p"):
        pytest.fail("it was read")
    assert "b4d" not in str(told.value)


def test_a_password_is_not_in_what_a_place_is_called():
    assert endpoint("postgresql://me:hidden@db.example:5433/shop") == "postgres shop at db.example:5433"
    for text in ("hid@den", "hid/den", "hi/d@den"):  # as it stands, where a URI wants %40 and %2F
        assert "den" not in endpoint(f"postgresql://me:{text}@db.example:5433/shop")


def test_what_is_not_as_a_statement_needs_it_is_not_tried_again(database):
    """Only a lock that is not given, and what somebody uses, are worth another try."""
    database.run(
        "CREATE TABLE t (id int, n text, PRIMARY KEY (id) DEFERRABLE);"
        "CREATE MATERIALIZED VIEW m AS SELECT id FROM t WITH NO DATA"
    )
    with pytest.raises(ConfigError, match="'m'") as told:
        hr.scan_postgres(database.dsn, table="m").collect()
    assert "REFRESH" in told.value.hint
    with pytest.raises(ConfigError, match="needs it"), hr.postgres.connect(database.dsn) as db:
        db.upsert(pl.DataFrame({"id": [1], "n": ["a"]}), "t", keys="id")
    quick = {"lock_timeout": "10ms"}
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE t")
        with (
            pytest.raises(UnavailableError, match="in the way"),
            connected(database.dsn, name="p", settings=quick) as mine,
        ):
            mine.execute("SELECT FROM public.t")


def test_a_connection_that_is_ended_by_the_server_is_unavailable(database):
    with (  # noqa: PT012  # the order is what is tested
        pytest.raises(UnavailableError),
        connected(database.dsn, name="p") as connection,
        transaction(connection),
    ):
        database.run("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        connection.execute("SELECT 1")


def test_the_session_says_who_it_is_and_keeps_text_exact(database):
    with connected(database.dsn, name="orders", settings={"statement_timeout": "5s"}) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchall()[0][0]
            for name in ("application_name", "timezone", "statement_timeout", "search_path", "intervalstyle")
        }
    assert shown == {
        "application_name": "headrace orders",
        "timezone": "UTC",
        "statement_timeout": "5s",
        "search_path": "pg_catalog",
        "intervalstyle": "postgres",
    }


def test_a_long_name_keeps_the_word_that_tells_readers_from_writers(database):
    shown = []
    for name, reads in (("ä" * 60, True), ("ä" * 60, False), ("the reading", False), ("x" * 46 + " reading", False)):
        with connected(database.dsn, name=name, reads=reads) as connection:
            shown.append(connection.execute("SHOW application_name").fetchall()[0][0])
    assert [s.endswith(" reading") for s in shown] == [True, False, False, False]
    assert shown[2] == "headrace the reading."


def test_what_is_interrupted_is_cancelled_on_the_server_and_rolled_back(database):
    database.run("CREATE TABLE t (id int)")
    with connected(database.dsn, name="p") as connection:
        with pytest.raises(KeyboardInterrupt), transaction(connection):  # noqa: PT012  # what is under way
            connection.execute("INSERT INTO public.t SELECT 1")
            connection.pgconn.send_query(b"SELECT pg_sleep(60)")
            raise KeyboardInterrupt
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    assert database.run("SELECT count(*) FROM t") == [(0,)]
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
    assert database.run(asleep) == [(0,)]

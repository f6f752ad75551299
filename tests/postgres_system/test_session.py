"""What a session of headrace has: no limit of the role's on how long it takes, and time-outs where it waits."""

from __future__ import annotations

import polars as pl
import psycopg
import pytest

import headrace as hr
from headrace.errors import ConfigError, UnavailableError
from headrace.systems.memory import MemorySource
from headrace.systems.postgres.connection import connected

LIMITS = ("statement_timeout", "transaction_timeout")
WAITS = ("connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")


@pytest.fixture
def limited(database):
    """A database whose own settings end what takes longer than a tenth of a second."""
    for limit in LIMITS:
        database.run(f"ALTER DATABASE {database.name} SET {limit} = '100ms'")
    return database


def shown(connection, *names):
    return [connection.execute(f"SHOW {name}").fetchone()[0] for name in names]


def test_a_databases_own_time_outs_end_no_read(limited, tmp_path):
    source = hr.PostgresSource(dsn=limited.dsn, query="SELECT 1 AS id, pg_sleep(0.3)::text AS slept")
    destination = hr.DuckDBDestination(path=tmp_path / "w.duckdb", table="t")
    run = hr.run(hr.Pipeline(name="t", source=source, destination=destination, write=hr.Replace()))
    assert run.counts["inserted"] == 1


def test_a_databases_own_time_outs_end_no_load(limited):
    slow = (
        "CREATE TABLE t (id bigint); CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END';"
        "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    limited.run(slow)
    source = MemorySource(frames=[pl.DataFrame({"id": [1]})])
    destination = hr.PostgresDestination(dsn=limited.dsn, table="t", adopt=True)
    hr.run(hr.Pipeline(name="t", source=source, destination=destination, write=hr.Append()))
    assert limited.run("SELECT id FROM t") == [(1,)]


def test_the_dsns_options_give_a_time_out(limited):
    dsn = f"{limited.dsn} options='-c statement_timeout=7s'"
    with connected(dsn, name="p") as connection:
        assert shown(connection, *LIMITS) == ["7s", "0"]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_time_out_that_was_given_is_named_with_what_to_do(database, limit):
    with (
        pytest.raises(UnavailableError, match=r"time-out|timeout") as told,
        connected(f"{database.dsn} options='-c {limit}=50ms'", name="p") as connection,
    ):
        connection.execute("SELECT pg_sleep(5)")
    assert "longer" in told.value.hint


def test_a_transaction_of_ones_own_has_the_roles_time_outs(limited):
    with hr.postgres.Pool(limited.dsn, size=1) as pool:
        for _ in range(2):
            with pool.connect() as db:
                assert db.query("SELECT current_setting('statement_timeout') AS s")["s"].to_list() == ["100ms"]


def test_an_older_server_has_no_time_out_of_a_transaction(older_postgres):
    with older_postgres.database() as database:
        database.run(f"ALTER DATABASE {database.name} SET statement_timeout = '100ms'")
        with connected(database.dsn, name="p") as connection:
            assert shown(connection, "statement_timeout") == ["0"]


def test_where_a_session_waits_it_has_time_outs(database):
    for setting in ("lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"):
        database.run(f"ALTER DATABASE {database.name} SET {setting} = '9s'")
    with connected(database.dsn, name="p") as connection:
        names = ("lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")
        assert shown(connection, *names) == ["1min", "15min", "0"]
        assert waits(connection) == {
            "connect_timeout": "10",
            "keepalives_idle": "30",
            "keepalives_interval": "10",
            "keepalives_count": "3",
            "tcp_user_timeout": "60000",
        }


def waits(connection):
    """How long libpq was told to wait for the network."""
    told = connection.info.get_parameters()
    return {name: told.get(name) for name in WAITS}


@pytest.fixture
def service(database, tmp_path, monkeypatch):
    """A service file with the database, and waits of its own."""
    known = psycopg.conninfo.conninfo_to_dict(database.dsn)
    lines = [f"{key}={value}" for key, value in known.items()]
    lines += [f"{key}={n}" for n, key in enumerate(WAITS, 71)]
    (tmp_path / "services.conf").write_text("\n".join(["[shop]", *lines, ""]))
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services.conf"))
    return {key: str(n) for n, key in enumerate(WAITS, 71)}


@pytest.mark.parametrize("by", ["dsn", "variable"])
def test_a_service_says_where_the_database_is_and_how_long_to_wait(database, service, monkeypatch, by):
    if by == "variable":
        monkeypatch.setenv("PGSERVICE", "shop")
    with connected({"service": "shop"} if by == "dsn" else None, name="p") as connection:
        assert connection.info.dbname == database.name
        assert waits(connection) == service
        assert connection.info.get_parameters()["application_name"] == "headrace p"
    with connected("service=shop connect_timeout=5", name="p") as connection:
        assert waits(connection) == {**service, "connect_timeout": "5"}


def test_the_pg_variables_say_where_the_database_is_and_how_long_to_wait(database, monkeypatch):
    known = psycopg.conninfo.conninfo_to_dict(database.dsn)
    for key, name in {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}.items():
        if key in known:
            monkeypatch.setenv(name, str(known[key]))
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "88")
    with connected(None, name="p") as connection:
        assert connection.info.dbname == database.name
        assert waits(connection)["connect_timeout"] == "88"


def test_a_service_that_does_not_exist_is_told_as_that(service):
    with pytest.raises(ConfigError, match="there is no such service"), connected({"service": "none"}, name="p"):
        pass

"""Whatever the server or its disk does in the middle of a load, its rows are there once."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import polars as pl
import pytest

import headrace as hr
from headrace.errors import DataError, RejectedError, UnavailableError
from headrace.systems.memory import MemorySource
from headrace.systems.postgres.connection import connected

ROWS = pl.DataFrame({"id": range(3000), "n": ["x" * 100] * 3000})
PATIENT = hr.Retry(attempts=4, wait_initial=0.01)


def pipeline(dsn: str, rows: pl.DataFrame = ROWS, **more) -> hr.Pipeline:
    destination = hr.PostgresDestination(dsn=dsn, table="t", **more)
    return hr.Pipeline(name="t", source=MemorySource(frames=[rows]), destination=destination, write=hr.Append())


def loaded_once(database) -> bool:
    return database.run("SELECT count(*), count(DISTINCT id) FROM t") == [(ROWS.height, ROWS.height)]


def test_a_backend_that_is_ended_in_mid_load_is_tried_again(database, monkeypatch):
    from headrace.systems.postgres import loading

    encoded, ended = loading.encoded, []

    def once(*given, **named):
        for block in encoded(*given, **named):
            yield block
            if not ended:
                ended.append(True)
                copying = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY %'"
                assert database.run(copying) == [(True,)]

    monkeypatch.setattr(loading, "encoded", once)
    hr.run(pipeline(database.dsn), retry=PATIENT)
    assert loaded_once(database)


def test_an_error_in_the_first_row_of_a_long_load_is_the_one_that_is_told(database):
    database.run("CREATE TABLE t (id bigint, n text CHECK (length(n) < 5))")
    rows = pl.concat([ROWS.with_columns(n=pl.lit("y" * 500))] * 30)
    with pytest.raises(DataError, match="t_n_check"):
        hr.run(pipeline(database.dsn, rows, adopt=True))
    assert database.run("SELECT count(*) FROM t") == [(0,)]


def test_a_constraint_that_is_deferred_until_commit_is_told_too(database):
    database.run(
        "CREATE TABLE t (id bigint, n text, UNIQUE (id) DEFERRABLE INITIALLY DEFERRED); INSERT INTO t VALUES (5, 'a')"
    )
    with pytest.raises(DataError, match=r"t_id_key.*'id'"):
        hr.run(pipeline(database.dsn, adopt=True))
    assert database.run("SELECT count(*) FROM t") == [(1,)]


def test_a_table_that_somebody_has_locked_is_waited_for_and_then_unavailable(database, monkeypatch):
    from headrace.systems.postgres import connection

    monkeypatch.setitem(connection._SESSION, "lock_timeout", "50ms")
    monkeypatch.setattr("headrace.systems.postgres.locks.LOCK_WAIT", "50ms")
    hr.run(pipeline(database.dsn))
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(UnavailableError, match="in the way"):
            hr.run(pipeline(database.dsn, pl.concat([ROWS, ROWS])), retry=hr.Retry(attempts=1))
        other.execute("ROLLBACK")
    assert loaded_once(database)


def test_a_full_disk_is_told_and_nothing_is_kept(postgres, database):
    if postgres.folder is None:
        pytest.skip("a server that runs elsewhere")
    disk = Path(tempfile.mkdtemp(prefix="headrace-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0777", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        shutil.chown(disk, "nobody")
        database.run(f"CREATE TABLESPACE small LOCATION '{disk}'")
        database.run("CREATE TABLE t (id bigint, n text) TABLESPACE small")
        with pytest.raises(RejectedError, match="disk is full"):
            hr.run(pipeline(database.dsn, pl.concat([ROWS] * 10), adopt=True))
        assert database.run("SELECT count(*) FROM t") == [(0,)]
        database.run("DROP TABLE t")
        database.run("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
        shutil.rmtree(disk, ignore_errors=True)


def test_a_killed_clients_query_does_not_keep_its_locks(database):
    with connected(database.dsn, name="p") as connection:
        ((check,),) = connection.execute("SHOW client_connection_check_interval").fetchall()
    assert check == "10s"

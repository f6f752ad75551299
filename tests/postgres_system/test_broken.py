"""Whatever the server or its disk does in the middle of a load, its rows are there once."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import polars as pl
import pytest
from server import until

import headrace as hr
from headrace.errors import DataError, RejectedError, UnavailableError
from headrace.systems.memory import MemorySource
from headrace.systems.postgres.connection import connected

ROWS = pl.DataFrame({"id": range(3000), "n": ["x" * 100] * 3000})
PATIENT = hr.Retry(attempts=4, wait_initial=0.01)


def pipeline(dsn: str, rows: pl.DataFrame = ROWS, *, name: str = "t", **more) -> hr.Pipeline:
    destination = hr.PostgresDestination(dsn=dsn, table="t", **more)
    return hr.Pipeline(name=name, source=MemorySource(frames=[rows]), destination=destination, write=hr.Append())


def loaded_once(database) -> bool:
    return database.run("SELECT count(*), count(DISTINCT id) FROM t") == [(ROWS.height, ROWS.height)]


def test_a_backend_that_is_ended_in_mid_load_is_tried_again(database, monkeypatch):
    from headrace.systems.postgres import loading

    encoded, ended = loading.packed, []

    def once(*given, **named):
        for block in encoded(*given, **named):
            yield block
            if not ended:
                ended.append(True)
                copying = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY %'"
                assert database.run(copying) == [(True,)]

    monkeypatch.setattr(loading, "packed", once)
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

    assert "lock_timeout" in connection._SESSION
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


def test_a_commit_waits_for_another_one_of_the_table(database):
    from headrace.systems.postgres.connection import transaction
    from headrace.systems.postgres.locks import lock

    loading = threading.Thread(target=lambda: hr.run(pipeline(database.dsn)))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with connected(database.dsn, name="p") as connection:
        with transaction(connection):
            lock(connection, "public.t")
            loading.start()
            until(lambda: database.run(waiting) == [(1,)])
            assert database.run("SELECT to_regclass('public.t')") == [(None,)]
        loading.join()
    assert loaded_once(database)


def test_readers_do_not_wait_while_rows_come_for_a_table_that_changes_shape(database, monkeypatch):
    from headrace.systems.postgres import loading

    hr.run(pipeline(database.dsn))
    encoded, seen = loading.packed, []

    def watched(*given, **named):
        for block in encoded(*given, **named):
            yield block
            seen.extend(database.run("SET lock_timeout = '2s'; SELECT count(*) FROM public.t"))

    monkeypatch.setattr(loading, "packed", watched)
    more = ROWS.with_columns(pl.col("id") + 5000, more=pl.lit(1, dtype=pl.Int64))
    hr.run(pipeline(database.dsn, more, adopt=True, name="more"))
    assert set(seen) == {(ROWS.height,)}
    assert database.run("SELECT count(*), count(more) FROM t") == [(2 * ROWS.height, ROWS.height)]


def test_no_more_is_sent_than_a_slow_server_takes(database, monkeypatch):
    """libpq would keep all of it in memory."""
    from headrace.systems.postgres import loading

    database.run(
        "CREATE TABLE t (id bigint, n text); CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF NEW.id = 0 THEN PERFORM pg_sleep(0.3); END IF; RETURN NEW; END';"
        "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    copied, waiting = loading.copied, []

    def watched(connection, statement, blocks):
        def each():
            for block in blocks:
                yield block
                waiting.append(connection.pgconn.flush())

        return copied(connection, statement, each())

    monkeypatch.setattr(loading, "copied", watched)
    hr.run(pipeline(database.dsn, ROWS.with_columns(n=pl.lit("x" * 1000)), adopt=True))
    assert len(waiting) > 2
    assert not any(waiting)
    assert loaded_once(database)


def test_what_a_stream_raises_is_not_told_to_the_servers_log(postgres, database, monkeypatch):
    if postgres.folder is None:
        pytest.skip("a server that runs elsewhere")
    from headrace.systems.postgres import loading

    def fails(*_given, **_named):
        raise ValueError("a secret value")
        yield

    monkeypatch.setattr(loading, "packed", fails)
    with pytest.raises(ValueError, match="a secret value"):
        hr.run(pipeline(database.dsn))
    log = (postgres.folder / "log").read_text("utf-8", "replace")
    assert "COPY from stdin failed" in log
    assert "a secret value" not in log


def test_a_rejected_line_with_a_nul_in_it_is_kept_as_it_is(database, tmp_path):
    (tmp_path / "1.csv").write_bytes(b"id,n\n1,a\nx\0y,b,c\n")
    contract = hr.Contract(on_violation="quarantine")
    rejecting = hr.Pipeline(
        name="t",
        source=hr.FileSource(path="*.csv", base=tmp_path, contract=contract),
        destination=hr.PostgresDestination(dsn=database.dsn, table="t"),
        write=hr.Append(),
    )
    hr.run(rejecting)
    assert hr.rejects(rejecting)["row"].to_list() == ["x\0y,b,c"]
    assert database.run('SELECT "row" FROM _headrace.rejects') == [("x\N{SYMBOL FOR NULL}y,b,c",)]
    assert database.run("SELECT id, n FROM t") == [(1, "a")]


def test_text_is_newer_by_its_code_points_whatever_the_columns_collation_is(older_postgres):
    with older_postgres.database() as database:
        check_order(database)


def check_order(database):
    if not database.run("SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu'"):
        pytest.skip("this server has no ICU")
    database.run('CREATE TABLE t (id bigint, at text COLLATE "und-x-icu", n text)')
    merge = {
        "destination": hr.PostgresDestination(dsn=database.dsn, table="t", adopt=True),
        "write": hr.Merge(keys=("id",), latest_by=("at",)),
    }
    for at in ("a", "B"):  # B before a, in code points; after it, in ICU
        rows = pl.DataFrame({"id": [1], "at": [at], "n": [at]})
        hr.run(hr.Pipeline(name=f"p{at}", source=MemorySource(frames=[rows]), **merge))
    assert database.run("SELECT at FROM t") == [("a",)]

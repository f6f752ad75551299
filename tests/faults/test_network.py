"""Whatever the network does, and whenever: a run ends as the calm run does, by its own retries or by the next run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from proxy import Fault, Proxy
from psycopg.conninfo import conninfo_to_dict
from server import Database, running

import headrace as hr
from headrace.errors import UnavailableError

ROWS = 300
HOW = ("cut", "reset", "half", "lose", "stall", "slow")
PATIENT = hr.Retry(attempts=4, wait_initial=0.01, wait_max=0.05, jitter=0)


@pytest.fixture
def network(database: Database) -> Iterator[Proxy]:
    known = conninfo_to_dict(database.dsn)
    with Proxy("127.0.0.1", int(known["port"])) as proxy:
        yield proxy


def through(database: Database, proxy: Proxy) -> str:
    known = conninfo_to_dict(database.dsn)
    return f"host=127.0.0.1 port={proxy.port} dbname={known['dbname']} user={known['user']}"


def source(database: Database) -> None:
    database.run(
        f"CREATE TABLE orders AS SELECT i AS id, repeat('x', 50) || i AS text FROM generate_series(1, {ROWS}) AS i;"
        "ALTER TABLE orders ADD PRIMARY KEY (id)"
    )


def reading(dsn: str, folder: Path, name: str) -> hr.Pipeline:
    return hr.Pipeline(
        name="orders",
        source=hr.PostgresSource(dsn=dsn, table="orders", cursor="id"),
        destination=hr.DuckDBDestination(path=str(folder / f"{name}.duckdb"), table="orders"),
        write=hr.Append(),
    )


def writing(dsn: str, _folder: Path, name: str) -> hr.Pipeline:
    frame = pl.DataFrame({"id": range(1, ROWS + 1)}).with_columns(text="x" * 50 + pl.col("id").cast(pl.String))
    return hr.Pipeline(
        name="orders",
        source=hr.MemorySource(frames=[frame]),
        destination=hr.PostgresDestination(dsn=dsn, table=f"t_{name}"),
        write=hr.Append(),
    )


def merging(dsn: str, folder: Path, name: str) -> hr.Pipeline:
    """With repeated keys, and with rows that are rejected."""
    ids = pl.DataFrame({"id": [i % (ROWS - 50) for i in range(ROWS)]})
    frame = ids.with_columns(text="y" * 50 + pl.col("id").cast(pl.String))
    contract = hr.Contract(columns={"id": hr.Column(min=10)}, on_violation="quarantine")
    return replace(
        writing(dsn, folder, name),
        source=hr.MemorySource(frames=[frame]),
        write=hr.Merge(keys=("id",)),
        contract=contract,
    )


def copying(dsn: str, folder: Path, name: str) -> hr.Pipeline:
    """Out of the server and into it again."""
    return replace(reading(dsn, folder, name), destination=hr.PostgresDestination(dsn=dsn, table=f"t_{name}"))


def held(pipeline: hr.Pipeline) -> tuple[int, list[Any], list[Any]]:
    """The number of the last commit, the rows, and the rejected ones."""
    snapshot = pipeline.destination.inspect("orders")
    assert snapshot.scan is not None
    rejects = pipeline.destination.rejects("orders").select("row", "rules")
    return snapshot.number, sorted(snapshot.scan().collect().rows()), sorted(rejects["row"].to_list(), key=str)


def spread(total: int, *, full: bool) -> list[tuple[int, Any]]:
    """Some of so many bytes, the first, the last, and between, with what happens there."""
    if full:
        return [(after, how) for after in (*range(0, total - 200, total // 16), total - 200) for how in HOW]
    places = [*range(0, total - 200, total // 5), total - 200]  # runs differ by some bytes
    return [(after, HOW[n % len(HOW)]) for n, after in enumerate(places)]


@pytest.mark.parametrize(
    "make", [reading, writing, *(pytest.param(one, marks=pytest.mark.full) for one in (merging, copying))]
)
@pytest.mark.parametrize("to", ["server", "client"])
def test_a_network_that_breaks_at_any_byte_loses_nothing_and_doubles_nothing(
    database: Database,
    network: Proxy,
    tmp_path: Path,
    full: bool,
    record_property: Any,
    make: Callable[..., hr.Pipeline],
    to: Any,
) -> None:
    source(database)
    dsn = through(database, network)
    hr.run(make(dsn, tmp_path, "first"), retry=PATIENT)  # it makes the ledger
    network.passed = {"server": 0, "client": 0}
    hr.run(make(dsn, tmp_path, "calm"), retry=PATIENT)
    calm, total = held(make(database.dsn, tmp_path, "calm")), network.passed[to]
    cases = spread(total, full=full)
    for n, (after, how) in enumerate(cases):
        network.passed, network.struck = {"server": 0, "client": 0}, 0
        network.fault = Fault(to=to, after=after, how=how)
        pipeline = make(dsn, tmp_path, f"{to}_{n}")
        try:
            hr.run(pipeline, retry=PATIENT)
        except UnavailableError:
            hr.run(pipeline, retry=PATIENT)
        network.fault = None
        assert network.struck == 1, f"{how} to the {to} after {after} of {total} bytes never came about"
        assert held(make(database.dsn, tmp_path, f"{to}_{n}")) == calm, f"{how} to the {to} after {after} bytes"
    record_property("cases", len(cases))


def test_the_answer_to_commit_is_lost_and_the_ledger_knows(
    database: Database, network: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_lost_answer(database, network, tmp_path, monkeypatch)


def check_lost_answer(database: Database, network: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has loaded its rows, and says so; they are there once."""
    from headrace.systems.postgres import connection

    hr.run(writing(database.dsn, tmp_path, "first"))  # it makes the ledger, in a transaction of its own
    calm, lost = connection._commit, []

    def commit(of: psycopg.Connection) -> None:
        if not lost:
            lost.append(network.passed["server"])
            network.fault = Fault(to="server", after=network.passed["server"], how="lose")
        calm(of)

    monkeypatch.setattr(connection, "_commit", commit)
    pipeline = writing(through(database, network), tmp_path, "lost")
    report = hr.run(pipeline, retry=PATIENT)
    assert network.struck == 1
    assert report.status == "loaded"
    number, rows, _ = held(writing(database.dsn, tmp_path, "lost"))
    assert (number, len(rows)) == (1, ROWS)


def test_a_backend_that_is_ended_loses_nothing(database: Database, tmp_path: Path) -> None:
    ended: list[int] = []
    killing = hr.python(lambda source: source.map_batches(lambda rows: _ending(database, ended, rows)), rows=True)
    pipeline = writing(database.dsn, tmp_path, "ended")
    report = hr.run(replace(pipeline, transforms=(killing,)), retry=PATIENT)
    assert ended
    assert report.status == "loaded"
    assert len(held(pipeline)[1]) == ROWS


def _ending(database: Database, ended: list[int], rows: pl.DataFrame) -> pl.DataFrame:
    """End every other backend of the database, once."""
    if not ended:
        found = database.run(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        ended.extend(pid for pid, _ in found)
    return rows


@pytest.mark.full
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("make", [reading, writing])
def test_a_server_that_is_started_again_in_mid_run_loses_nothing(
    tmp_path: Path, make: Callable[..., hr.Pipeline], how: signal.Signals
) -> None:
    """In order, or as if it had crashed."""
    # a server ends with the thread that has started it, so that must not be one of Polars'
    with ThreadPoolExecutor(1) as starter, running() as server, server.database() as database:
        if server.folder is None:
            pytest.skip("a server that runs elsewhere cannot be stopped")
        source(database)
        database.run("CHECKPOINT")  # this server's commits do not wait for the disk
        again: list[signal.Signals] = []

        def restarting(rows: pl.DataFrame) -> pl.DataFrame:
            if not again:
                again.append(how)
                starter.submit(server.restart, how).result()
            return rows

        pipeline = make(database.dsn, tmp_path, "again")
        step = hr.python(lambda source: source.map_batches(restarting), rows=True)
        report = hr.run(replace(pipeline, transforms=(step,)), retry=replace(PATIENT, attempts=20, wait_max=0.5))
        assert (again, report.status) == ([how], "loaded")
        number, rows, _ = held(pipeline)
        assert (number, len(rows)) == (1, ROWS)

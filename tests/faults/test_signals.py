"""Ctrl-C and SIGTERM, at any time: the command ends within two seconds, no server is busy with it any more, the exit
code says which signal it was, there is no traceback, and the next run carries on to where the calm run ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from outcome import outcome
from scenario import Scenario
from server import until

import headrace as hr

if TYPE_CHECKING:
    from server import Database, Server

SIGNALS = ((signal.SIGINT, 130), (signal.SIGTERM, 143))
SECONDS = 2.0
LATE = 3.0
"""A machine that is busy with other tests may not get to it at once."""

Databases = Callable[["Database | None"], "Database"]


@dataclass(frozen=True)
class Ended:
    """How a command ended that had a signal. `sent`: it had not ended before."""

    code: int
    err: str
    seconds: float
    sent: bool


def listens(pid: int) -> bool:
    """Whether the process has handlers of its own: before that Python itself is starting, and ends as Python does."""
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/status").open() as file:
        for line in file:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def signalled(process: subprocess.Popen[str], number: int, *, after: float = 0.0, when: Callable[[], bool]) -> Ended:
    """Send a signal so many seconds after `when`, and wait for the end."""
    try:
        until(lambda: process.poll() is not None or when(), 60)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        sent, began = process.poll() is None, time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return Ended(process.returncode, err, time.monotonic() - began, sent)


def check(ended: Ended, code: int, where: str) -> None:
    """What is promised of the end."""
    assert ended.code in ((code,) if "interrupted: " in ended.err else (0,)), f"{where}: {ended.code}\n{ended.err}"
    assert "Traceback" not in ended.err, f"{where}\n{ended.err}"
    assert "Error" not in ended.err, f"{where}\n{ended.err}"
    assert ended.seconds < SECONDS + LATE, f"{where}: it took {ended.seconds:.1f} s"


@pytest.mark.parametrize(
    ("source", "write", "destination"),
    [
        ("csv", "merge", "duckdb"),
        ("csv", "partitions", "parquet"),
        pytest.param("postgres", "merge", "postgres", marks=pytest.mark.full),
        pytest.param("csv", "replace", "file", marks=pytest.mark.full),
        pytest.param("postgres", "append", "duckdb", marks=pytest.mark.full),
        pytest.param("sqlite", "history", "postgres", marks=pytest.mark.full),
        pytest.param("duckdb", "append", "parquet", marks=pytest.mark.full),
    ],
)
def test_a_signal_at_any_instant_ends_a_run_and_the_next_one_carries_on(
    tmp_path: Path, full: bool, databases: Databases, record_property: Any, source: str, write: str, destination: str
) -> None:
    scenario = Scenario(source, write, destination)
    database = databases(None) if scenario.needs_database else None
    laid = scenario.laid(tmp_path / "calm", database)
    laid.advance()
    struck = laid.copied(tmp_path / "struck", None if database is None else databases(database))
    began = time.monotonic()
    assert laid.run().returncode == 0
    whole = time.monotonic() - began
    instants = 24 if full else 2
    took = []
    for n in range(instants):
        number, code = SIGNALS[n % 2]
        process = struck.start()
        after = whole * (n + 1) / (instants + 1)
        ended = signalled(process, number, after=after, when=lambda: listens(process.pid))  # noqa: B023
        check(ended, code, f"{scenario}: {signal.Signals(number).name} {after:.2f} s of {whole:.2f} into the run")
        took.append(ended.seconds)
    done = struck.run()
    assert done.returncode == 0, done.stderr
    assert outcome(struck) == outcome(laid)
    assert sorted(took)[instants // 2] < SECONDS
    record_property("cases", instants)


def laid_out(folder: Path, *pipelines: dict[str, Any]) -> None:
    for one in pipelines:
        (folder / f"{one['name']}.json").write_text(json.dumps({"write": "append", **one}))


def started(folder: Path, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "headrace", "run", "."]
    given = {**os.environ, "PYTHONWARNINGS": "error", **env}
    return subprocess.Popen(command, cwd=folder, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def busy(database: Database) -> bool:
    """Whether a query that sleeps is under way for headrace."""
    found = database.run(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        " AND application_name LIKE 'headrace%'"
    )
    return bool(found[0][0])


def logged(server: Server) -> str:
    return "" if server.folder is None else (server.folder / "log").read_text("utf-8", "replace")


SLOW_SOURCE = {"type": "postgres", "dsn": {"env": "DSN"}, "query": "SELECT 1::bigint AS id, pg_sleep(60)::text AS s"}
SLOW_TRIGGER = (
    "CREATE TABLE t (id bigint); CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';"
    "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow()"
)


def slow(folder: Path, side: str) -> dict[str, Any]:
    (folder / "in.csv").write_text("id\n1\n")
    if side == "source":
        here = {"type": "duckdb", "path": "w.db", "table": "t"}
        return {"name": "slow", "source": SLOW_SOURCE, "destination": here, "write": "replace"}
    there = {"type": "postgres", "dsn": {"env": "DSN"}, "table": "t", "adopt": True}
    return {"name": "slow", "source": {"type": "files", "path": "in.csv"}, "destination": there}


@pytest.mark.parametrize(
    ("side", "alone", "number"),
    [
        ("source", True, 0),
        ("target", False, 1),
        pytest.param("source", False, 1, marks=pytest.mark.full),
        pytest.param("source", False, 0, marks=pytest.mark.full),
        pytest.param("target", True, 0, marks=pytest.mark.full),
        pytest.param("target", True, 1, marks=pytest.mark.full),
    ],
)
def test_a_signal_cancels_what_the_server_is_busy_with(
    tmp_path: Path, postgres: Server, database: Database, side: str, alone: bool, number: int
) -> None:
    """Alone: in the main thread; else one of two pipelines, in a thread of its own."""
    before = len(logged(postgres))
    if side == "target":
        database.run(SLOW_TRIGGER)
    laid_out(tmp_path, slow(tmp_path, side))
    if not alone:
        other = {"type": "duckdb", "path": "other.db", "table": "t"}
        laid_out(tmp_path, {"name": "other", "source": {"type": "files", "path": "in.csv"}, "destination": other})
    process = started(tmp_path, DSN=database.dsn)
    ended = signalled(process, SIGNALS[number][0], when=lambda: busy(database))
    still = busy(database)
    check(ended, SIGNALS[number][1], "slow")
    assert "interrupted: " in ended.err
    assert not still, "the server is still busy with it"
    if postgres.folder is not None:  # else it would have found out in the end that its client has gone
        until(lambda: "canceling statement due to user request" in logged(postgres)[before:])
    if side == "target":
        assert database.run("SELECT count(*) FROM t") == [(0,)]


FOLDER = (
    {"name": "a", "destination": {"type": "duckdb", "path": "w.db", "table": "t"}},
    {"name": "b", "destination": {"type": "parquet", "path": "lake"}},
    {"name": "c", "destination": {"type": "file", "path": "out.csv"}, "write": "replace"},
    {"name": "d", "destination": {"type": "duckdb", "path": "v.db", "table": "t"}, "after": ["a"]},
)


def tables(folder: Path) -> list[list[tuple[Any, ...]]]:
    found = []
    for one in FOLDER:
        scan = hr.load(folder / f"{one['name']}.json").destination.inspect(one["name"]).scan
        found.append([] if scan is None else sorted(scan().collect().rows()))
    return found


def on_record(folder: Path, said: str) -> tuple[int, int]:
    """Of how many runs it was said that they began, and how many of these stand in a ledger."""
    begun = re.findall(r"(\w): run (\S+) started", said)
    kept = {e["run"] for name, run in begun for e in hr.history(hr.load(folder / f"{name}.json")) if e["run"] == run}
    return len(begun), len(kept)


def test_a_signal_ends_all_runs_of_a_folder_and_each_is_on_record(
    tmp_path: Path, full: bool, record_property: Any
) -> None:
    for name in ("calm", "struck"):
        folder = tmp_path / name
        folder.mkdir()
        source = {"source": {"type": "files", "path": "in.csv"}}
        laid_out(folder, *({**one, **source} for one in FOLDER))
        (folder / "in.csv").write_text("id,v\n" + "".join(f"{n},{n * 7}\n" for n in range(200_000 if full else 1000)))
    began = time.monotonic()
    calm = started(tmp_path / "calm")
    _, err = calm.communicate(timeout=120)
    assert calm.returncode == 0, err
    whole, folder = time.monotonic() - began, tmp_path / "struck"
    instants = 16 if full else 2
    begun = kept = 0
    for n in range(instants):
        number, code = SIGNALS[n % 2]
        process = started(folder)
        after = whole * (n + 1) / (instants + 1)
        ended = signalled(process, number, after=after, when=lambda: listens(process.pid))  # noqa: B023
        check(ended, code, f"{signal.Signals(number).name} {after:.2f} s of {whole:.2f} into the runs")
        told = on_record(folder, ended.err)
        begun, kept = begun + told[0], kept + told[1]
    assert kept > 0.7 * begun or not begun, f"of {begun} runs that began {kept} are on record"
    again = started(folder)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert tables(folder) == tables(tmp_path / "calm")
    record_property("cases", instants)

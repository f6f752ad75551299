"""Clocks that are set forward and back, between runs and within one, nights in which an hour is missing or comes twice,
leap days, and runs of one pipeline in several time zones: rows and ledger are those of the calm run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from outcome import outcome
from scenario import STAGES, WRITES, Laid, Scenario

from headrace.config import load

if TYPE_CHECKING:
    from server import Database

Databases = Callable[["Database | None"], "Database"]

CLOCKS = (
    ("+1826d", "-1826d", "+0"),  # five years ahead, then behind
    ("@2024-03-31 01:59:59 i3600.0", "@2024-10-27 02:59:59 i-1800.0", "+0"),  # jumps each time that it is asked
    ("@2024-02-29 23:59:59.9", "@2024-02-28 23:59:59.9", "@1970-01-01 00:00:01"),
)
"""What the clock says at each of three runs, as libfaketime writes it."""


def faketime() -> Path:
    """The library that lies about the time; without it the clock is left alone, and the suite says so."""
    found = next(Path("/usr").glob("lib*/**/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        pytest.skip("clocks that jump: libfaketime is not installed")
    return found


def at(clock: str) -> dict[str, str]:
    """The environment of a process with another clock. Its monotonic one runs on, as the kernel's does.

    The thread with which Polars' allocator tidies up would ask a clock that jumps for ever, and when the process ends
    find libfaketime gone: a crash that is theirs alone.
    """
    lies = {"LD_PRELOAD": str(faketime()), "FAKETIME": clock, "NO_FAKE_STAT": "1"}
    lies |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}
    return {**lies, "_RJEM_MALLOC_CONF": "background_thread:false"}


@pytest.mark.parametrize(
    ("scenario", "clocks"),
    [
        pytest.param(one, clocks, id=f"{one}-{n}", marks=[] if (str(one), n) in short else [pytest.mark.full])
        for short in [{("csv-append-parquet", 0)}]
        for n, clocks in enumerate(CLOCKS)
        for one in (
            Scenario("csv", "append", "parquet"),
            Scenario("csv", "merge", "duckdb"),
            Scenario("postgres", "merge", "postgres"),
            Scenario("sqlite", "history", "postgres"),
            Scenario("csv", "replace", "file"),
        )
    ],
)
def test_a_clock_that_is_set_changes_nothing_and_keeps_the_order_of_commits_and_runs(
    tmp_path: Path, full: bool, databases: Databases, record_property: Any, scenario: Scenario, clocks: tuple[str, ...]
) -> None:
    two = [databases(None) if scenario.needs_database else None for _ in range(2)]
    calm, struck = (scenario.laid(tmp_path / name, one) for name, one in zip(("calm", "struck"), two, strict=True))
    for clock in clocks[: len(STAGES) if full else 2]:
        for laid, lies in ((calm, {}), (struck, at(clock))):
            laid.advance()
            done = laid.run(**lies)
            assert done.returncode == 0, done.stderr
    assert outcome(struck) == outcome(calm)
    told = entries(struck)
    kinds = [(one["kind"], one.get("number")) for one in told]
    assert kinds == [(one["kind"], one.get("number")) for one in entries(calm)]
    for kind in ("commit", "run"):
        instants = [datetime.fromisoformat(one["at"]) for one in told if one["kind"] == kind]
        assert instants == sorted(instants, reverse=True)
    record_property("cases", len(clocks))


def entries(laid: Laid) -> list[Any]:
    with patch.dict(os.environ, laid.env):
        pipeline = load(laid.pipeline)
        return list(pipeline.destination.history(pipeline.name))


ROWS = (
    ("1", "2024-03-31T01:59:59", "2024-03-31T01:30:00+01:00", "2024-03-31", "before an hour is missing in Berlin"),
    ("2", "2024-03-31T02:30:00", "2024-03-31T03:30:00+02:00", "2024-03-31", "within the hour that is missing"),
    ("3", "2024-10-27T02:30:00", "2024-10-27T02:30:00+02:00", "2024-10-27", "the hour that comes twice"),
    ("4", "2024-10-27T02:30:00", "2024-10-27T02:30:00+01:00", "2024-10-27", "and again"),
    ("5", "2024-02-29T23:59:59.999999", "2024-02-29T23:59:59.999999-05:00", "2024-02-29", "a leap day"),
    ("6", "2023-12-31T23:59:59", "2023-12-31T23:59:59+05:45", "2023-12-31", "the last day of a year in Nepal"),
    ("7", "2024-11-03T01:30:00", "2024-11-03T01:30:00-04:00", "2024-11-03", "the hour that comes twice in New York"),
)
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Europe/Berlin", "Pacific/Apia", "XYZ-13:45")
SQL = (
    "SELECT *, date_trunc('day', instant) AS started, instant::DATE AS utc_day, local + INTERVAL 1 DAY AS later,"
    " datediff('second', local, later) AS lasted FROM clean"
)
PYTHON = """
import polars as pl

def clean(source):
    return source.with_columns(hour=pl.col("instant").dt.hour(), day=pl.col("local").dt.date())
"""


@pytest.mark.parametrize(
    ("destination", "write"),
    [
        ("duckdb", "merge"),
        pytest.param("postgres", "merge", marks=pytest.mark.full),
        pytest.param("parquet", "append", marks=pytest.mark.full),
        pytest.param("duckdb", "partitions", marks=pytest.mark.full),
    ],
)
def test_runs_in_several_time_zones_leave_the_same_as_runs_in_one(
    tmp_path: Path, databases: Databases, full: bool, record_property: Any, destination: str, write: str
) -> None:
    ends = []
    zones = ZONES if full else ZONES[1:3]
    for name, chosen in (("calm", ["UTC"] * len(zones)), ("struck", zones)):
        database = databases(None) if destination == "postgres" else None
        if database is not None:
            database.run(f"ALTER DATABASE {database.name} SET timezone = 'America/New_York'")
        more = {
            "transforms": [{"python": "transforms.py:clean", "as": "clean"}, {"sql": SQL}],
            "write": {**WRITES[write], **({"by": ["utc_day"]} if write == "partitions" else {})},
        }
        more["write"].pop("delete_when", None)
        if write == "merge":
            more["write"]["latest_by"] = ["instant"]
        types = {"local": "datetime(us)", "instant": "datetime(us, UTC)", "day": "date"}
        source = {"type": "files", "path": "in/*.csv", "types": types}
        laid = Scenario("csv", write, destination).laid(tmp_path / name, database, source=source, contract=None, **more)
        (laid.folder / "transforms.py").write_text(PYTHON)
        (laid.folder / "in").mkdir()
        for n, zone in enumerate(chosen):
            lines = "".join(f"{n}{','.join(row)}\n" for row in ROWS)
            (laid.folder / f"in/{n}.csv").write_text(f"id,local,instant,day,text\n{lines}")
            done = laid.run(arguments=(), TZ=zone)
            assert done.returncode == 0, done.stderr
        ends.append(outcome(laid))
    for end in ends:
        del end["seen"]
    assert ends[0] == ends[1]
    columns, *rows = ends[0]["rows"]
    by_id = {row[columns.index("id")]: dict(zip(columns, row, strict=True)) for row in rows}
    told, last = ("instant", "utc_day", "lasted"), len(zones) - 1  # partitions hold what came last
    assert [by_id[f"{last}3"][name] for name in told] == ["2024-10-27T00:30:00Z", "2024-10-27", "86400"]
    assert [by_id[f"{last}5"][name] for name in told] == ["2024-03-01T04:59:59.999999Z", "2024-03-01", "86400"]
    record_property("cases", len(zones))

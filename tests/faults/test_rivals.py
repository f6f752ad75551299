"""Runs at the same time: 2, 5 and 20 of one pipeline, several pipelines into one target, readers during commits."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from outcome import outcome
from rivalry import Command, together
from scenario import DESTINATIONS, Laid, Scenario

import headrace as hr

if TYPE_CHECKING:
    from server import Database

Databases = Callable[["Database | None"], "Database"]

CONFLICT, UNAVAILABLE = 5, 4


def check_rivals(calm: Laid, struck: Laid, count: int, *, broken: str | None = None) -> None:
    """So many runs at once, and one more: as one calm run. Whoever finds another at work says which process that is."""
    words = ("run", str(struck.pipeline))
    ended = together([Command(struck.folder, words, struck.env, broken)] * count)
    pids = [str(one.pid) for one in ended]
    for one in ended:
        assert one.code in (0, CONFLICT), one.err
        assert "Traceback" not in one.err
        if one.code == CONFLICT:
            assert any(f"PID {pid}" in one.err for pid in pids), f"it does not say who is running: {one.err}"
    assert any(one.code == 0 for one in ended), "none of them has done it"
    assert struck.run().returncode == 0
    assert outcome(struck) == outcome(calm)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(Scenario(*names), id="-".join(names), marks=[] if short else [pytest.mark.full])
        for *names, short in (
            ("csv", "append", "duckdb", True),
            ("csv", "append", "parquet", True),
            ("postgres", "append", "postgres", False),
            ("csv", "merge", "postgres", False),
            ("csv", "replace", "file", False),
            ("csv", "partitions", "parquet", False),
        )
    ],
)
def test_runs_of_one_pipeline_at_once_are_as_one(
    tmp_path: Path, databases: Databases, full: bool, record_property: Any, scenario: Scenario
) -> None:
    calm, *struck = (
        scenario.laid(tmp_path / name, databases(None) if scenario.needs_database else None)
        for name in ("calm", *(("2", "5", "20") if full else ("5",)))
    )
    calm.advance()
    assert calm.run().returncode == 0
    for laid in struck:
        laid.advance()
        check_rivals(calm, laid, int(laid.folder.name))
    record_property("cases", len(struck))


@pytest.mark.parametrize(
    "destination", ["parquet", *(pytest.param(one, marks=pytest.mark.full) for one in ("duckdb", "postgres"))]
)
def test_several_pipelines_into_one_target_at_once_all_come_through(
    tmp_path: Path, databases: Databases, full: bool, record_property: Any, destination: str
) -> None:
    """Each waits for its turn."""
    count = 8 if full else 3
    env = {"TARGET_DSN": databases(None).dsn} if destination == "postgres" else {}
    for n in range(count):
        (tmp_path / f"{n}.csv").write_text("id\n" + "".join(f"{n * 100 + i}\n" for i in range(100)))
        source, there = {"type": "files", "path": f"{n}.csv"}, {**DESTINATIONS[destination], "adopt": True}
        document = {"name": f"p{n}", "source": source, "destination": there, "write": "append"}
        (tmp_path / f"{n}.json").write_text(json.dumps(document))
    ended = together([Command(tmp_path, ("run", f"{n}.json", "--wait", "5m"), env) for n in range(count)])
    assert [(one.code, "Traceback" in one.err) for one in ended] == [(0, False)] * count, ended
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        pipelines = [hr.load(tmp_path / f"{n}.json") for n in range(count)]
        snapshot = pipelines[0].destination.inspect("p0")
        assert snapshot.scan is not None
        assert snapshot.number == count
        assert sorted(snapshot.scan().collect()["id"]) == list(range(count * 100))
        numbers = [one["number"] for p in pipelines for one in p.destination.history(p.name) if one["kind"] == "commit"]
    assert sorted(numbers) == list(range(1, count + 1))
    record_property("cases", count)


# Readers

ROWS = 400
Read = Callable[[], Iterator[int]]


@contextmanager
def reading(read: Callable[[], list[int]]) -> Iterator[list[list[int]]]:
    """Read again and again meanwhile, in a thread: gives all that was seen, `v` of each row."""
    seen: list[list[int]] = []
    failed: list[BaseException] = []
    done = threading.Event()

    def again() -> None:
        try:
            while not done.is_set():
                seen.append(read())
        except BaseException as error:  # noqa: BLE001  # it is raised in the test's thread
            failed.append(error)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
    if failed:
        raise failed[0]


def reader(destination: str, folder: Path, database: Database | None) -> Callable[[], list[int]]:
    """Reads the target as somebody else would; nothing while there is no table, or while the file is locked."""
    import duckdb

    target = folder / "target"

    def of_duckdb() -> list[int]:
        try:
            with duckdb.connect(str(target / "w.duckdb"), read_only=True) as connection:
                return [v for (v,) in connection.execute("SELECT v FROM items").fetchall()]
        except (duckdb.IOException, duckdb.CatalogException):
            return []

    def of_parquet() -> list[int]:
        try:
            return hr.scan_table(target / "items").collect()["v"].to_list()
        except hr.ConfigError:
            return []

    def of_file() -> list[int]:
        file = target / "items.csv"
        return pl.read_csv(file)["v"].to_list() if file.exists() else []

    def of_postgres() -> list[int]:
        assert database is not None
        there = database.run("SELECT to_regclass('target.items')")[0][0] is not None
        return [v for (v,) in database.run("SELECT v FROM target.items")] if there else []

    return {"duckdb": of_duckdb, "parquet": of_parquet, "file": of_file, "postgres": of_postgres}[destination]


@pytest.mark.parametrize(
    ("destination", "write"),
    [
        ("parquet", "replace"),
        ("file", "replace"),
        pytest.param("duckdb", "replace", marks=pytest.mark.full),
        pytest.param("duckdb", "merge", marks=pytest.mark.full),
        pytest.param("parquet", "append", marks=pytest.mark.full),
        pytest.param("parquet", "partitions", marks=pytest.mark.full),
        pytest.param("postgres", "replace", marks=pytest.mark.full),
        pytest.param("postgres", "merge", marks=pytest.mark.full),
        pytest.param("postgres", "partitions", marks=pytest.mark.full),
        pytest.param("postgres", "append", marks=pytest.mark.full),
    ],
)
def test_readers_during_commits_never_see_half_of_one(
    tmp_path: Path, databases: Databases, full: bool, record_property: Any, destination: str, write: str
) -> None:
    """Each commit brings `ROWS` rows of one number `v`: in the place of the former ones, or beside them."""
    database = databases(None) if destination == "postgres" else None
    how = {"type": write, **({"keys": ["id"]} if write == "merge" else {"by": ["p"]} if write == "partitions" else {})}
    more = {"source": {"type": "files", "path": "in/*.csv"}, "write": how, "contract": None}
    laid = Scenario("csv", "replace", destination).laid(tmp_path, database, **more)
    (laid.folder / "in").mkdir()
    commits = 12 if full else 3
    with reading(reader(destination, tmp_path, database)) as seen:
        for n in range(commits):
            for old in (laid.folder / "in").iterdir() if write == "replace" else ():
                old.unlink()
            rows = "".join(f"{i},{i % 3},{n}\n" for i in range(ROWS))
            (laid.folder / f"in/{n}.csv").write_text(f"id,p,v\n{rows}")
            words = (
                ("run", str(laid.pipeline), "--full-refresh")
                if write == "replace" and n
                else ("run", str(laid.pipeline))
            )
            (ended,) = together([Command(laid.folder, words, laid.env)])
            while ended.code == UNAVAILABLE and destination == "duckdb":  # the reader has the file open
                (ended,) = together([Command(laid.folder, words, laid.env)])
            assert ended.code == 0, ended.err
    whole = [sorted(values) for values in seen if values]
    assert whole, "nothing was seen of it"
    for values in whole:
        last = values[-1]
        numbers = range(last + 1) if write == "append" else [last]
        assert values == [n for n in numbers for _ in range(ROWS)]
    record_property("cases", len(whole))


@pytest.mark.parametrize(
    ("destination", "write", "words"),
    [
        ("parquet", "append", "by glob may see one arriving"),
        ("file", "replace", "sees the old one or the new one"),
        ("duckdb", "merge", "whole"),
    ],
)
def test_a_plan_says_where_readers_may_see_a_commit_arrive(
    tmp_path: Path, destination: str, write: str, words: str
) -> None:
    laid = Scenario("csv", write, destination).laid(tmp_path)
    laid.advance()
    assert words in hr.plan(hr.load(laid.pipeline)).because

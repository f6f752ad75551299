"""What plan says of a run is what the run does."""

from __future__ import annotations

import importlib
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import duckdb
import polars as pl
import pytest

import headrace as hr
from headrace.engine.passes import Passes
from headrace.errors import UnavailableError
from headrace.flow import Frame
from headrace.stream import scan_batches
from headrace.stream.drawing import drawn
from headrace.testing.faults import FailAfterApply


@pytest.mark.parametrize(
    ("write", "promise"),
    [
        (hr.Append(), "each row is loaded exactly once"),
        (hr.Merge(keys=("id",)), "each key holds its last read row"),
        (hr.Merge(keys=("id",), latest_by=("at",)), "each key holds its newest row"),
        (hr.Replace(), "the table is always one whole read"),
        (hr.Partitions(by=("id",)), "each partition is always one whole batch"),
        (hr.History(keys=("id",), latest_by=("at",)), "each version of a key is kept once"),
        (hr.Recompute(by=("id",)), "each group is what a full run would give"),
    ],
    ids=lambda it: getattr(it, "type", ""),
)
def test_the_guarantee_follows_from_the_write(place, write, promise):
    place.write("1.csv", "id,at\n1,1\n")
    plan = hr.plan(place.pipeline(write=write))
    assert plan.guarantee == promise
    assert "committed together with the rows" in plan.because


def test_the_plan_says_what_readers_see_while_a_commit_is_made(place):
    place.write("1.csv", "id,at\n1,1\n")
    lake = hr.ParquetDestination(path="lake", base=place.folder)
    assert (
        "who reads by glob may see one arriving" in hr.plan(place.pipeline(destination=lake, write=hr.Append())).because
    )
    assert "readers see whole commits" in hr.plan(place.pipeline()).because


@pytest.mark.parametrize("kind", ["files", "duckdb", "sqlite"])
def test_a_cursor_says_what_it_will_not_see(place, kind):
    import sqlite3

    import duckdb

    path = place.folder / "s.db"
    if kind != "files":
        with (sqlite3.connect if kind == "sqlite" else duckdb.connect)(path) as con:
            con.execute("CREATE TABLE t (id INTEGER, seen INTEGER)")
            con.execute("INSERT INTO t VALUES (1, 1)")
    place.write("1.csv", "id,seen\n1,1\n")
    source = {
        "files": lambda: hr.FileSource(path="in/*.csv", base=place.folder, cursor="seen"),
        "duckdb": lambda: hr.DuckDBSource(path=str(path), table="t", cursor="seen"),
        "sqlite": lambda: hr.SQLiteSource(path=str(path), table="t", cursor="seen"),
    }[kind]()
    plan = hr.plan(place.pipeline(source=source, write=hr.Append()))
    assert plan.guarantee.startswith("each row is loaded exactly once; but not seen: source: ")
    assert "'seen'" in plan.guarantee


def test_a_replace_reads_what_was_read_before_too(place):
    place.write("1.csv", "id\n1\n")
    pipeline = place.pipeline(write=hr.Replace())
    hr.run(pipeline)
    place.write("2.csv", "id\n2\n")
    assert hr.plan(pipeline).sources["source"]["reads"] == "what is new, and with it all that was read before"


@pytest.mark.parametrize(
    "write",
    [hr.Partitions(by=("id",)), hr.Replace(), hr.Recompute(by=("id",)), hr.History(keys=("id",), close_absent=True)],
    ids=lambda it: it.type,
)
def test_what_must_be_one_commit_is_not_cut(place, write):
    place.write("1.csv", "id\n1\n")
    with pytest.raises(hr.ConfigError, match="commit_every"):
        hr.plan(place.pipeline(write=write, commit_every="1KB"))


def test_sources_that_are_read_in_step_are_not_cut(place):
    place.write("1.csv", "id\n1\n")
    files = hr.FileSource(path="in/*.csv", base=place.folder)
    union = hr.sql("SELECT * FROM a UNION ALL SELECT * FROM b")
    with pytest.raises(hr.ConfigError, match="in step"):
        hr.plan(
            place.pipeline(sources={"a": files, "b": files}, transforms=(union,), commit_every="1KB", independent=True)
        )


def test_a_full_refresh_in_several_commits_is_told(place):
    place.write("1.csv", "id\n1\n")
    pipeline = place.pipeline(commit_every="1KB")
    hr.run(pipeline)
    assert any("several commits" in w for w in hr.plan(pipeline, full_refresh=True).warnings)
    assert hr.plan(pipeline).warnings == ()


class Told(hr.MemorySource):
    """Remembers what was confirmed to it; `refusing` makes it fail."""

    heard: ClassVar[list] = []
    refusing: ClassVar[bool] = False

    def confirm(self, positions):
        if type(self).refusing:
            raise UnavailableError("the slot does not answer")
        type(self).heard.append(dict(positions))


@pytest.fixture
def told():
    Told.heard, Told.refusing = [], False
    return Told(frames=[pl.DataFrame({"id": [1, 2]})])


def test_a_source_is_told_once_its_position_is_durable_and_again_at_the_next_start(place, told):
    pipeline = place.pipeline(source=told)
    hr.plan(pipeline)
    assert Told.heard == []
    hr.run(pipeline)
    assert Told.heard == [{"source": {"row": 2}}]
    assert hr.run(pipeline).status == "nothing_new"
    assert Told.heard == [{"source": {"row": 2}}] * 2


def test_a_source_is_told_once_after_each_commit_and_after_one_whose_answer_was_lost(place, told):
    source = replace(told, frames=[pl.DataFrame({"id": [n]}) for n in range(3)])
    pipeline = place.pipeline(source=source, destination=FailAfterApply(place.duckdb(), at=2), commit_every=1)
    patient = hr.Retry(attempts=2, wait_initial=0.01, wait_max=0.01)
    assert len(hr.run(pipeline, retry=patient).commits) == 3
    assert Told.heard == [{"source": {"row": n}} for n in (1, 2, 3)]


def test_each_source_is_told_its_own_position_of_a_look_up_too(place, told):
    new = hr.MemorySource(frames=[pl.DataFrame({"id": [1]})])
    both = hr.sql("SELECT new.id FROM new JOIN kinds USING (id)")
    sources = {"new": new, "kinds": replace(told, read="all")}
    hr.run(place.pipeline(sources=sources, transforms=(both,), write=hr.Replace()))
    assert Told.heard == [{"kinds": {"row": 2}}]


def test_a_source_that_cannot_be_told_is_a_warning(place, told):
    Told.refusing = True
    pipeline = place.pipeline(source=told)
    for status in ("loaded", "nothing_new"):
        report = hr.run(pipeline)
        assert report.status == status
        assert any("the slot does not answer" in w for w in report.warnings)


@dataclass(frozen=True, kw_only=True)
class Held(hr.MemorySource):
    """Can be read only while its iterator is open, as a source that holds a snapshot."""

    read: str = "new"

    def batches(self, range, snapshot, name):
        with held(hr.MemorySource.batches(self, range, snapshot, name)) as batches:
            for batch in batches:
                yield replace(batch, complete=self.read == "all")


@contextmanager
def held(batches):
    is_open = [True]

    def guarded(frame):
        def rows():
            assert is_open[0], "read after the source was closed"
            yield frame.lazy.collect()

        from headrace.stream import scan_batches

        return replace(frame, lazy=scan_batches(rows, frame.lazy.collect_schema()))

    yield (replace(b, frame=guarded(b.frame), whole=guarded(b.whole)) for b in batches)
    is_open[0] = False


@pytest.mark.parametrize("write", [hr.Merge(keys=("id",)), hr.Replace()], ids=lambda it: it.type)
def test_a_source_stays_open_until_its_rows_are_in_the_target(place, write):
    names = Held(frames=[pl.DataFrame({"id": [1, 2], "name": ["a", "b"]})], read="all")
    sources = {"rows": Held(frames=[pl.DataFrame({"id": [1, 2]})]), "names": names}
    joined = hr.sql("SELECT id, name FROM rows JOIN names USING (id)")
    pipeline = place.pipeline(sources=sources, transforms=(joined,), write=write)
    assert hr.preview(pipeline).height == 2
    hr.run(pipeline)
    assert place.rows(pipeline) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("rows", [False, True])
def test_a_limit_over_new_rows_is_refused(place, rows):
    place.write("1.csv", "id\n1\n2\n")

    def first(source: pl.LazyFrame) -> pl.LazyFrame:
        return source.filter(pl.col("id") > 0).sort("id").head(1)

    with pytest.raises(hr.ConfigError, match="'first' uses slice"):
        hr.plan(place.pipeline(transforms=(hr.python(first, rows=rows),)))
    assert hr.plan(place.pipeline(transforms=(first,), write=hr.Replace())).status == "load"


@pytest.mark.parametrize("files", [{}, {"cursor": "id"}])
def test_rows_behind_a_limit_that_no_plan_shows_are_not_lost(place, files):
    place.write("1.csv", "id\n1\n2\n")
    first = lambda source: source.head(1).collect().lazy()  # noqa: E731
    with pytest.raises(hr.DataError, match="not read source 'source' to its end"):
        hr.run(place.pipeline(files=files, transforms=(first,)))
    hr.run(place.pipeline(files=files))
    assert place.rows(place.pipeline()) == [(1,), (2,)]


def test_a_limit_that_leaves_no_row_over_and_one_beside_a_whole_reading_lose_nothing(place):
    place.write("1.csv", "id\n1\n2\n")
    hr.run(place.pipeline(files={"cursor": "id"}, transforms=(lambda source: source.head(2).collect().lazy(),)))
    place.write("2.csv", "id\n3\n4\n")
    both = lambda source: pl.concat([source.head(1).collect().lazy(), source])  # noqa: E731
    hr.run(place.pipeline(files={"cursor": "id"}, transforms=(both,)))
    assert place.rows(place.pipeline()) == [(1,), (2,), (3,), (4,)]
    assert hr.run(place.pipeline(files={"cursor": "id"})).status == "nothing_new"


def test_rows_that_a_join_with_nothing_leaves_unread_are_read_for_the_position_to_be_true():
    passes, read = Passes(), []

    def rows():
        for n in range(50):
            yield pl.DataFrame({"id": [n]})
        read.append("to the end")

    frame = passes.watched("orders", Frame(lazy=scan_batches(rows, {"id": pl.Int64()})))
    with closing(drawn(frame.lazy)) as drawing:  # as an engine does that knows the result to be empty
        next(drawing)
    assert not read
    passes.finish(stands_alone=False)
    assert read


def test_progress_counts_on_over_the_commits_of_a_run(place, monkeypatch):
    monkeypatch.setattr(importlib.import_module("headrace.engine.running"), "_PROGRESS_EVERY", -1)
    for n in (1, 2, 3):
        place.write(f"{n}.csv", f"id\n{n}\n")
    heard = []
    hr.run(place.pipeline(commit_every=1), observers=[heard.append])
    told = [(e.rows, e.files, e.files_total, e.bytes) for e in heard if type(e).__name__ == "Progress"]
    assert [one[0] for one in told] == [1, 2, 3]
    assert [one[2] for one in told] == [1, 2, 3]
    assert told == sorted(told)
    assert told[-1][3] >= 10


@pytest.mark.parametrize(
    ("contract", "told"),
    [
        (hr.Contract(), "of the contract fail is of each commit alone"),
        (hr.Contract(on_violation="drop", max_rejects=1, max_rows=9), "max_rejects, max_rows are of each commit alone"),
        (hr.Contract(on_violation="quarantine"), None),
    ],
)
def test_plan_says_what_of_a_contract_holds_for_each_commit_alone(place, contract, told):
    place.write("1.csv", "id\n1\n")
    for every in (None, "1KB"):
        warnings = hr.plan(place.pipeline(contract=contract, commit_every=every)).warnings
        assert [bool(told and told in w) for w in warnings] == ([True] if told and every else [])


def test_a_file_that_commit_every_cannot_cut_is_told(place):
    place.write("1.csv", "id\n" + "1\n" * 100)
    place.write("2.csv", "id\n2\n")
    plan = hr.plan(place.pipeline(commit_every=50))
    assert [w for w in plan.warnings if "'1.csv'" in w and "is one commit" in w]
    assert not hr.plan(place.pipeline(commit_every=500)).warnings


@pytest.mark.parametrize(
    ("error", "said"), [(KeyboardInterrupt(), "interrupted"), (ZeroDivisionError(), "ZeroDivisionError")]
)
def test_a_run_that_is_broken_off_stands_in_the_history(place, error, said):
    place.write("1.csv", "id\n1\n")

    def breaks(event):
        if type(event).__name__ == "CommitApplied":
            raise error

    with pytest.raises(type(error)):
        hr.run(place.pipeline(), observers=[breaks])
    run = hr.history(place.pipeline())[0]
    assert (run["kind"], run["status"]) == ("run", "failed")
    assert said in run["error"]["message"]


@pytest.mark.parametrize("write", [hr.Replace(), hr.Recompute(by=("city",))])
def test_a_look_up_that_cannot_tell_its_change_is_said_to_wait_for_news(place, write):
    place.write("1.csv", "id,code\n1,U\n")
    with duckdb.connect(str(place.folder / "s.duckdb")) as connection:
        connection.execute("CREATE TABLE cities AS SELECT 'U' AS code, 'Ulm' AS city")
    sources = {
        "orders": hr.FileSource(path="in/*.csv", base=place.folder),
        "cities": hr.DuckDBSource(path=str(place.folder / "s.duckdb"), table="cities", read="all"),
    }
    joined = (hr.sql("SELECT city, count(*) AS n FROM orders JOIN cities USING (code) GROUP BY city"),)
    pipeline = place.pipeline(sources=sources, transforms=joined, write=write)
    hr.run(pipeline)
    with duckdb.connect(str(place.folder / "s.duckdb")) as connection:
        connection.execute("UPDATE cities SET city = 'Kiel'")
    assert hr.plan(pipeline).status == "nothing_new"
    assert "but not seen: cities: a change of it, before other sources have news" in hr.plan(pipeline).guarantee
    place.write("2.csv", "id,code\n2,U\n")
    hr.run(pipeline)
    assert place.rows(pipeline, "city") == [("Kiel", 2)]

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import headrace as hr
from headrace.paths import Place
from headrace.project import Project
from headrace.report import RunReport


def pipeline(name, reads, writes, after=()):
    """`reads` and `writes`: a files pattern or a folder, ``table:name``, or ``db:file/table``."""
    kind, _, rest = reads.partition(":")
    file, _, table = rest.partition("/")
    source = {
        "table": lambda: hr.TableSource(of=rest),
        "db": lambda: hr.DuckDBSource(path=file, table=table),
        "query": lambda: hr.DuckDBSource(path=file, query=table),
    }.get(kind, lambda: hr.FileSource(path=reads))()
    kind, _, rest = writes.partition(":")
    file, _, table = rest.partition("/")
    destination = (
        hr.DuckDBDestination(path=file, table=table)
        if kind == "db"
        else hr.FileDestination(path=writes)
        if Path(writes).suffix
        else hr.ParquetDestination(path=writes)
    )
    return hr.Pipeline(name=name, source=source, destination=destination, after=after)


def order(*pipelines):
    return [one.name for one in Project.of(pipelines).pipelines]


def loaded(one):
    return RunReport(pipeline=one.name, run="r", status="loaded")


@pytest.mark.parametrize(
    ("reads", "writes"),
    [
        ("table:first", "db:w.duckdb/first"),
        ("db:w.duckdb/orders", "db:w.duckdb/orders"),
        ("db:w.duckdb/main.orders", "db:w.duckdb/orders"),
        ("query:w.duckdb/SELECT * FROM Orders o", "db:w.duckdb/orders"),
        ("lake/orders/*.parquet", "lake/orders"),
        ("lake/**/*.parquet", "lake/orders"),
        ("lake/*/day=1/*.parquet", "lake/orders"),
        ("lake/orders", "lake/orders"),
        ("lake", "lake/orders"),
        ("out/*.csv", "out/orders.csv"),
        ("out/../out/orders.csv", "out/orders.csv"),
        ('query:w.duckdb/SELECT * FROM "main"."orders"', "db:w.duckdb/orders"),
        ("query:w.duckdb/SELECT * FROM w.sales.orders", "db:w.duckdb/sales.orders"),
    ],
)
def test_who_reads_what_another_writes_runs_after_it(reads, writes):
    assert order(pipeline("second", reads, "db:z.duckdb/z"), pipeline("first", "in.csv", writes)) == ["first", "second"]


@pytest.mark.parametrize(
    ("reads", "writes"),
    [
        ("table:other", "db:w.duckdb/first"),
        ("db:w.duckdb/orders", "db:v.duckdb/orders"),
        ("db:w.duckdb/orders", "db:w.duckdb/orders_old"),
        ("query:w.duckdb/SELECT * FROM orders_old", "db:w.duckdb/orders"),
        ("lake/customers/*.parquet", "lake/orders"),
        ("lake/*.parquet", "lake2"),
        ("out/*.parquet", "out/orders.csv"),
        ("out/orders", "out/orders.csv"),
    ],
)
def test_who_reads_something_else_keeps_its_place(reads, writes):
    assert order(pipeline("b", reads, "db:z.duckdb/z"), pipeline("a", "in.csv", writes)) == ["b", "a"]


def test_after_orders_what_nothing_else_does():
    pipelines = [pipeline("b", "b.csv", "x", after=("a", "elsewhere")), pipeline("a", "a.csv", "y")]
    assert order(*pipelines) == ["a", "b"]


def test_a_circle_is_refused_and_named():
    with pytest.raises(hr.ConfigError) as caught:
        order(
            pipeline("a", "b/*.parquet", "a"),
            pipeline("b", "c/*.parquet", "b"),
            pipeline("c", "a/*.parquet", "c"),
            pipeline("d", "a/*.parquet", "d"),
        )
    assert caught.value.details["cycle"] == ["a", "b", "c", "a"]
    assert "a -> b -> c -> a" in caught.value.message


def test_what_depends_on_a_failure_is_skipped_and_the_others_go_on():
    project = Project.of(
        [
            pipeline("c", "b/*.parquet", "c"),
            pipeline("b", "a/*.parquet", "b"),
            pipeline("a", "in.csv", "a"),
            pipeline("other", "in.csv", "other"),
        ]
    )

    def run(one):
        return RunReport.failed("a", hr.DataError("no")) if one.name == "a" else loaded(one)

    reports = project.run(run)
    assert [(one.pipeline, one.status) for one in reports] == [
        ("a", "failed"),
        ("b", "skipped"),
        ("c", "skipped"),
        ("other", "loaded"),
    ]
    assert reports[1].warnings == ("a failed",)
    assert reports[2].warnings == ("b skipped",)


def at_most(count, *pipelines):
    """Run them; it is a failure when more run at once."""
    free = threading.Semaphore(count)

    def run(one):
        assert free.acquire(blocking=False)
        threading.Event().wait(0.01)
        free.release()
        return loaded(one)

    assert len(Project.of(pipelines).run(run)) == len(pipelines)


def side_by_side(*pipelines):
    """Run them; it is a failure when they do not run at once."""
    all = threading.Barrier(len(pipelines), timeout=30)

    def run(one):
        all.wait()
        return loaded(one)

    assert len(Project.of(pipelines).run(run)) == len(pipelines)


@pytest.fixture(autouse=True)
def processors(cgroup):
    cgroup("", {})


def test_independent_pipelines_run_side_by_side():
    side_by_side(pipeline("a", "a.csv", "a"), pipeline("b", "b.csv", "b"))


def test_in_a_container_no_more_run_at_once_than_it_has_cpus(cgroup):
    cgroup("0::/run\n", {"run/cpu.max": "200000 100000\n"})
    at_most(2, *(pipeline(name, f"{name}.csv", name) for name in "abcdef"))


def test_two_that_use_one_duckdb_file_do_not_run_at_once():
    at_most(1, *(pipeline(name, f"{name}.csv", f"db:w.duckdb/{name}") for name in "abcd"))


def test_a_table_source_of_a_duckdb_file_counts_as_that_file():
    there = hr.DuckDBDestination(path="w.duckdb", table="elsewhere")
    reader = replace(pipeline("a", "a.csv", "a"), source=hr.TableSource(of="elsewhere", destination=there))
    at_most(1, reader, pipeline("b", "b.csv", "db:w.duckdb/b"))
    side_by_side(reader, pipeline("b", "b.csv", "db:v.duckdb/b"))


@dataclass(frozen=True, kw_only=True)
class Server(hr.MemoryDestination):
    """A system that nobody here has heard of."""

    dsn: str

    def place(self):
        system, _, name = self.dsn.rpartition("/")
        return Place(system="server", where=system, name=name, exclusive="once" in system)


@dataclass(frozen=True, kw_only=True)
class ServerSource(hr.MemorySource):
    dsn: str

    def places(self):
        return [Server(dsn=self.dsn).place()]


def test_a_system_of_ones_own_is_ordered_and_kept_apart_by_the_places_it_tells():
    first = replace(pipeline("first", "in.csv", "x"), destination=Server(dsn="pg://host/orders"))
    second = replace(pipeline("second", "in.csv", "y"), source=ServerSource(frames=[], dsn="pg://host/orders"))
    other = replace(second, name="other", source=ServerSource(frames=[], dsn="pg://host/customers"))
    assert order(second, other, first) == ["other", "first", "second"]
    side_by_side(other, first)
    once = [
        replace(other, name=n, source=ServerSource(frames=[], dsn=f"once://host/{n}"), destination=Server(dsn=n))
        for n in "ab"
    ]
    at_most(1, *once)


def test_a_defect_in_one_run_ends_the_project_loudly():
    def run(one):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Project.of([pipeline("a", "a.csv", "a"), pipeline("b", "b.csv", "b")]).run(run)

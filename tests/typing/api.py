"""Never run: type-checked, so that the types of the public API have tests too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import polars as pl
from psycopg.sql import SQL, Identifier

import headrace as hr
from headrace.breaker import State
from headrace.flow import Batch, Commit, Position, Range, Receipt, Snapshot
from headrace.protocols import Destination, Source
from headrace.report import RunReport as Report
from headrace.retry import RetryDetails
from headrace.testing import BreakStream, DestinationSuite, FailAfterApply, Reject, SourceSuite

# -- retry and breaker: what they wrap keeps its type


@hr.Retry(attempts=3, on=(ConnectionError,))
def fetch(url: str, *, timeout: float = 1.0) -> bytes:
    return url.encode()


assert_type(fetch("a", timeout=2.0), bytes)
fetch(1)  # type: ignore[arg-type]
fetch("a", timeuot=2.0)  # type: ignore[call-arg]

assert_type(hr.Retry().call(fetch, "a", timeout=2.0), bytes)
hr.Retry().call(fetch, 1)  # type: ignore[arg-type]
hr.Retry(on=[OSError])  # type: ignore[arg-type]
hr.Retry(3)  # type: ignore[call-arg]
hr.Retry().attempts = 4  # type: ignore[misc]


@hr.CircuitBreaker(name="warehouse")
async def ask(question: str) -> int:
    return len(question)


async def main() -> None:
    assert_type(await ask("a"), int)
    async for attempt in hr.Retry():
        with attempt:
            assert_type(attempt.number, int)


for each in hr.Retry(timeout=60.0):
    with each:
        assert_type(each.number, int)

breaker = hr.CircuitBreaker(failures=3, reset_timeout=30.0, on=(TimeoutError,))
with breaker:
    assert_type(breaker.state, State)
assert_type(breaker.call(fetch, "a"), bytes)


def told(details: RetryDetails) -> None:
    assert_type(details.wait, float)


hr.Retry(on_retry=told)

# -- a pipeline


def clean(orders: pl.LazyFrame, *, since: str) -> pl.LazyFrame:
    return orders.filter(pl.col("day") >= since)


pipeline = hr.Pipeline(
    name="orders",
    source=hr.MemorySource(frames=[pl.DataFrame({"id": [1]})]),
    transforms=(clean, hr.sql("SELECT * FROM previous")),
    params={"since": "2024-01-01"},
    contract=hr.Contract(columns={"id": hr.Column(type="int64", nullable=False)}, on_violation="quarantine"),
    destination=hr.MemoryDestination(table="orders"),
    write=hr.Merge(keys=("id",), latest_by=("at",)),
)
hr.Pipeline(name="x", destination="warehouse.duckdb")  # type: ignore[arg-type]
hr.Contract(on_violation="ignore")  # type: ignore[arg-type]
assert_type(hr.run(pipeline), Report)

error = hr.UnavailableError("not now", hint="later")
assert_type(error.hint, str)
assert_type(error.to_dict(), dict[str, Any])

# -- every system is what the protocols say

source: Source = hr.MemorySource(frames=[pl.DataFrame()])
destination: Destination = hr.MemoryDestination()
duckdb: Destination = hr.DuckDBDestination(path="w.duckdb", table="orders")
parquet: Destination = hr.ParquetDestination(path="lake/orders")
wrapped: Destination = Reject(destination, at=2)
wrapped = FailAfterApply(wrapped)
wrapped = BreakStream(wrapped, after_rows=10)


def read_on(snapshot: Snapshot, position: Position | None) -> Iterator[Batch]:
    return source.batches(Range(after=position), snapshot, "orders")


def apply(commit: Commit) -> Receipt:
    return destination.apply(commit)


class MySuite(DestinationSuite):
    def destination(self, folder: Path) -> Destination:
        return hr.DuckDBDestination(path=str(folder / "x.duckdb"), table="t")


class MySourceSuite(SourceSuite):
    def source(self, folder: Path) -> Source:  # noqa: ARG002  # the suite's
        return hr.MemorySource(frames=[])

    def grow(self, folder: Path, ids: range) -> None: ...


# -- PostgreSQL

postgres: Source = hr.PostgresSource(dsn={"host": "db", "port": 5433}, table="public.orders", cursor=("at", "id"))
hr.PostgresSource(table="t", cursor=hr.Cursor(column="at", late="snapshot", lag="10 minutes", nulls="load"))
hr.PostgresSource(table="t", cursor=hr.Cursor(column="at", late="soon"))  # type: ignore[arg-type]
assert_type(hr.scan_postgres(None, "public.orders"), pl.LazyFrame)

with hr.postgres.connect({"service": "shop"}) as db:
    assert_type(db.query("SELECT %s AS a", [1], types={"a": "string"}), pl.DataFrame)
    assert_type(db.execute(SQL("DELETE FROM {}").format(Identifier("t")), {"a": 1}), int)
    assert_type(db.insert(pl.LazyFrame(), "t"), int)
    assert_type(db.upsert(pl.DataFrame().to_arrow(), "t", keys=["id"]), int)
    db.query(1)  # type: ignore[arg-type]
    db.insert([{"id": 1}], "t")  # type: ignore[arg-type]
with hr.postgres.Pool("host=db", size=2) as pool, pool.connect() as pooled:
    assert_type(pooled, hr.postgres.Transaction)

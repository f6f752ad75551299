"""What is pushed down into SQL gives the rows that Polars would have kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from server import Database

import headrace as hr
from headrace.errors import ConfigError, UnheldError
from headrace.systems.postgres.pushdown import condition
from headrace.systems.postgres.selection import bound
from headrace.systems.postgres.session import opened

MADE = """
CREATE TABLE t (i int, b bigint, n numeric(9,2), d date, at timestamp, z timestamptz, y bool, s text, c char(3),
  f float8, u name, "odd ""name" int);
INSERT INTO t SELECT i, i * 1000000000::bigint, i / 3.0, date '2024-01-01' + i, timestamp '2024-01-01' + i * interval
  '1 day 0.000001s', timestamptz '2024-01-01 00:00+00' + i * interval '1 hour', i % 2 = 0, 's' || i % 3, 'c' || i % 3,
  CASE i % 5 WHEN 0 THEN 'NaN' ELSE i::float8 END, chr(97 + i % 26), i FROM generate_series(-20, 20) AS i;
INSERT INTO t (s) VALUES (NULL);
"""
ID, S = pl.col("i"), pl.col("s")
WHOLE = [
    ID > 5,
    pl.lit(5) <= ID,
    (ID > -3) & (pl.col("b") <= 4_000_000_000),
    (ID < -10) | (ID == 7) | pl.col("y"),
    ~pl.col("y"),
    pl.col("y") == True,  # noqa: E712
    ~((ID > 0) | pl.col("n").is_null()),
    ID.is_between(2, 5, closed="left"),
    pl.col("n") >= Decimal("1.67"),
    pl.col("d") != date(2024, 1, 5),
    pl.col("at") == datetime(2024, 1, 4, 0, 0, 0, 3),  # noqa: DTZ001
    pl.col("z") > datetime(2024, 1, 1, 3, tzinfo=UTC),
    (S == "s1") | (S != "s-1"),
    S.is_null(),
    pl.col('odd "name') == 3,
]
PART = [
    (ID > 5) & (pl.col("f") > 7),
    (S > "s1") & ID.is_not_null(),
    (ID > 0) & (pl.col("c") == "c1"),
    (ID < 9) & (ID % 2 == 1),
]
NONE = [
    pl.col("f") > 3, S < "s2", pl.col("u") == "a", S.str.starts_with("s"), ID.is_in([1, 2]), ID + 1 > 3,
    (ID > 3) | (pl.col("f") > 7), pl.col("c") == "c1 ", pl.col("z").dt.hour() == 3,
    pl.col("i").map_batches(lambda s: s > 3, return_dtype=pl.Boolean),
]  # fmt: skip


@pytest.fixture(scope="module")
def rows(postgres) -> Iterator[Database]:
    with postgres.database(MADE) as made:
        yield made


def test_predicates_columns_and_limits_give_the_rows_that_polars_would_keep(rows):
    lazy = hr.scan_postgres(rows.dsn, "public.t")
    whole = lazy.collect()
    for predicate in (*WHOLE, *PART, *NONE):
        assert lazy.filter(predicate).collect().sort("i").equals(whole.filter(predicate).sort("i")), predicate
    assert lazy.filter(ID > 3).select("s").collect().height == 17
    assert lazy.select("n", "i").collect().equals(whole.select("n", "i"))
    assert lazy.head(3).collect().height == 3
    assert lazy.filter(pl.col("f") > 3).head(4).collect().height == 4
    assert lazy.select(pl.len()).collect().item() == 42


def test_what_is_the_same_to_the_server_is_pushed_and_nothing_else(rows):
    with opened(rows.dsn, name="t") as session:
        selection = bound(session, hr.PostgresSource(dsn=rows.dsn, table="t"), "t", frozenset())
        columns = {c.name: c for c in selection.columns}
        seen: list[pl.Expr] = []

        def pushed(predicate: pl.Expr):
            from headrace.stream import scan_generator

            def generate(_columns, predicate, _rows, _size):
                seen.append(predicate)
                yield pl.DataFrame(schema=selection.schema.polars())

            scan_generator(generate, selection.schema.polars()).filter(predicate).collect()
            return condition(seen[-1], columns, selection.names)

        for predicate in WHOLE:
            assert pushed(predicate).whole, predicate
        for predicate in PART:
            found = pushed(predicate)
            assert found.sql is not None, predicate
            assert not found.whole, predicate
        for predicate in NONE[:-1]:
            assert pushed(predicate).sql is None, predicate
        columns["s"] = replace(columns["s"], bytewise=False)
        assert pushed(pl.col("s") == "s1").sql is None


def test_a_value_that_does_not_fit_a_scanned_column_is_told_and_read_as_text(rows):
    query = "SELECT date 'infinity' AS d, E'\\ufeffx' AS bom"
    with pytest.raises(UnheldError):
        hr.scan_postgres(rows.dsn, query=query).collect()
    lazy = hr.scan_postgres(rows.dsn, query=query, types={"d": "string"})
    assert lazy.collect().rows() == [("infinity", "\ufeffx")]
    assert hr.scan_postgres(rows.dsn, query="SELECT E'\\ufeffx' AS bom;").collect().item() == "\ufeffx"
    with pytest.raises(ConfigError, match="two columns 'a'"):
        hr.scan_postgres(rows.dsn, query="SELECT 1 AS a, 2 AS a")

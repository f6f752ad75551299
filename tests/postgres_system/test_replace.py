"""A replace into PostgreSQL: what its keys are held to, and what empties the table."""

from __future__ import annotations

import polars as pl
import pytest

import headrace as hr
from headrace.errors import ConfigError, DataError
from headrace.systems.memory import MemorySource


def pipeline(database, rows: dict, **how) -> hr.Pipeline:
    return hr.Pipeline(
        name="t",
        source=MemorySource(frames=[pl.DataFrame(rows)]),
        destination=hr.PostgresDestination(dsn=database.dsn, table="t"),
        write=hr.Replace(**how),
    )


@pytest.mark.parametrize("full_refresh", [False, True])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"id": [1, 1], "v": ["a", "b"]}, "more than once"),
        ({"id": [1, None], "v": ["a", "b"]}, "NULL in key 'id' in 1 row"),
    ],
)
def test_keys_are_unique_and_never_null_in_the_first_load_and_in_a_full_refresh(database, rows, said, full_refresh):
    if full_refresh:
        hr.run(pipeline(database, {"id": [1], "v": ["a"]}, keys=("id",)))
    with pytest.raises(DataError, match=said):
        hr.run(pipeline(database, rows, keys=("id",)), full_refresh=full_refresh)
    there = database.run("SELECT to_regclass('t') IS NOT NULL") == [(True,)]
    assert there == full_refresh
    assert not there or database.run("SELECT id, v FROM t") == [(1, "a")]


def test_a_key_that_is_no_column_is_refused_by_plan(database):
    with pytest.raises(ConfigError, match=r"replace names the column 'nope'"):
        hr.plan(pipeline(database, {"id": [1]}, keys=("nope",)))

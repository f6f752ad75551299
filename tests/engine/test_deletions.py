"""Which rows of a merge delete their key is told by a column, before any destination sees them."""

from __future__ import annotations

import polars as pl
import pytest

import headrace as hr
from headrace.engine.deletions import deleting
from headrace.errors import ConfigError, DataError
from headrace.systems.memory import MemoryDestination

GONE = hr.Merge(keys=("id",), delete_when="op = 'D'")


def test_a_row_for_which_it_is_true_deletes_and_a_null_deletes_nothing() -> None:
    frame = pl.DataFrame({"id": [1, 2, 3], "op": ["D", None, "I"]})
    rows, deletes = deleting(GONE, frame.lazy())
    assert deletes is not None
    assert rows.collect_schema() == {**frame.schema, deletes: pl.Boolean()}
    assert rows.collect()[deletes].to_list() == [True, False, False]
    assert rows.drop(deletes).collect().equals(frame)


@pytest.mark.parametrize("write", [hr.Merge(keys=("id",)), hr.Append()])
def test_where_nothing_is_said_of_it_rows_are_as_they_are(write: hr.Merge | hr.Append) -> None:
    frame = pl.LazyFrame({"id": [1]})
    assert deleting(write, frame) == (frame, None)


def test_the_column_is_none_of_the_rows() -> None:
    taken = deleting(GONE, pl.LazyFrame({"id": [1], "op": ["D"]}))[1]
    frame = pl.LazyFrame({"id": [1], "op": ["D"], taken: ["mine"]})
    rows, deletes = deleting(GONE, frame)
    assert rows.collect().row(0, named=True) == {"id": 1, "op": "D", taken: "mine", deletes: True}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("opp = 'D'", "opp"),
        ("nonsense(", "delete_when"),
        ("count(*) > 1", "looks at several rows"),
        ("id IN (SELECT 1)", "looks at several rows"),
    ],
)
def test_an_expression_that_does_not_fit_the_rows_is_refused_before_any_is_read(place, expression, said):
    place.write("1.csv", "id,op\n1,I\n")
    pipeline = place.pipeline(write=hr.Merge(keys=("id",), delete_when=expression))
    for verb in (hr.check, hr.plan, hr.run):
        with pytest.raises(ConfigError, match="delete_when") as caught:
            verb(pipeline)
        assert said in caught.value.message
    assert pipeline.destination.inspect("orders").number == 0


@pytest.mark.parametrize("system", ["duckdb", "memory"])
def test_the_expression_is_of_the_rows_and_not_of_the_table(place, system):
    """DuckDB took the table's types, and others the rows'."""
    destination = place.duckdb() if system == "duckdb" else MemoryDestination()
    write = hr.Merge(keys=("id",), delete_when="typeof(amount) = 'INTEGER'")

    def pipeline(type: str) -> hr.Pipeline:
        step = hr.sql(f"SELECT id, amount::{type} AS amount FROM source")
        return place.pipeline(destination=destination, transforms=(step,), write=write)

    place.write("1.csv", "id,amount\n1,1\n2,2\n")
    hr.run(pipeline("BIGINT"))
    place.write("2.csv", "id,amount\n2,5\n")
    assert hr.run(pipeline("INTEGER")).counts["deleted"] == 1
    assert place.rows(pipeline("INTEGER")) == [(1, 1)]


def test_an_expression_that_fails_on_a_value_loads_nothing_and_does_not_say_the_value(place):
    place.write("1.csv", "id,text\n1,secret\n")
    pipeline = place.pipeline(write=hr.Merge(keys=("id",), delete_when="text::INTEGER > 0"))
    with pytest.raises(DataError, match="delete_when failed on a value") as caught:
        hr.run(pipeline)
    assert "secret" not in str(caught.value)
    assert pipeline.destination.inspect("orders").number == 0

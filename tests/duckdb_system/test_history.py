"""History: versions that do not depend on how their rows came."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import duckdb
import polars as pl
import pytest
from commits import load, read, rejects
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import ConfigError, DataError, SchemaError
from headrace.systems.duckdb import DuckDBDestination
from headrace.writes import History, Merge

BY_AT = History(keys=("id",), latest_by=("at",))


def versions(target, *columns: str) -> list[tuple]:
    return (
        read(target)
        .sort("id", "valid_from", nulls_last=False)
        .select(columns or ("id", "v", "valid_from", "valid_to"))
        .rows()
    )


def test_each_change_makes_a_version_with_half_open_bounds(target):
    load(target, {"id": [1, 1, 2], "at": [10, 20, 10], "v": ["a", "b", "x"]}, BY_AT)
    load(target, {"id": [1], "at": [30], "v": ["c"]}, BY_AT)
    assert versions(target) == [(1, "a", 10, 20), (1, "b", 20, 30), (1, "c", 30, None), (2, "x", 10, None)]
    assert target.inspect("p").schema.names == ("id", "at", "v"), "the columns that the rows bring"


def test_a_row_that_repeats_the_version_before_makes_none(target):
    load(target, {"id": [1, 1], "at": [10, 20], "v": ["a", "a"]}, BY_AT)
    load(target, {"id": [1], "at": [30], "v": ["a"]}, BY_AT)
    assert versions(target) == [(1, "a", 10, None)]


ZEROS = {
    "flat": lambda v: v,
    "small": lambda v: v.cast(pl.Float32),
    "list": lambda v: v.reshape((-1, 1)).arr.to_list(),
    "struct": lambda v: pl.DataFrame({"x": v}).to_struct(),
}


@pytest.mark.parametrize("kind", ZEROS)
def test_a_zero_keeps_its_sign(target, kind):
    values = ZEROS[kind](pl.Series("v", [-0.0]))
    load(target, pl.DataFrame({"id": [1], "at": [1], "v": values}), BY_AT)
    assert "-0.0" in read(target).write_json()


@pytest.mark.parametrize("kind", ZEROS)
def test_zeros_of_two_signs_are_two_versions_and_nan_is_one(target, kind):
    values = pl.Series("v", [0.0, -0.0, float("nan"), -float("nan"), None, None])
    load(target, pl.DataFrame({"id": 1, "at": range(6), "v": ZEROS[kind](values)}), BY_AT)
    assert [at for (at,) in versions(target, "at")] == [0, 1, 2, 4]
    load(target, pl.DataFrame({"id": 1, "at": [9], "v": ZEROS[kind](values)[4:5]}), BY_AT)
    assert len(versions(target, "at")) == 4


@pytest.mark.parametrize(
    ("held", "one", "other"),
    [("INTERVAL", "30 days", "1 month"), ("VARCHAR COLLATE NOCASE", "a", "A")],
)
def test_values_that_an_adopted_column_takes_for_equal_are_versions(target, held, one, other):
    with duckdb.connect(str(target._file)) as connection:
        connection.execute(f'CREATE TABLE t (id BIGINT, "at" BIGINT, v {held}, valid_from BIGINT, valid_to BIGINT)')
        connection.execute(f"INSERT INTO t VALUES (1, 1, '{one}', 1, NULL)")
    adopted = replace(target, adopt=True)
    load(adopted, pl.DataFrame({"id": 1, "at": [1, 2, 3], "v": [one, other, other]}), BY_AT)
    with duckdb.connect(str(target._file)) as connection:
        told = connection.execute("SELECT v::VARCHAR, valid_from, valid_to FROM t ORDER BY 2").fetchall()
    assert told == [(one, 1, 2), (other, 2, None)]


def test_a_late_version_goes_in_between_and_wakes_the_repeats_it_parts(target):
    load(target, {"id": [1, 1], "at": [10, 30], "v": ["a", "a"]}, BY_AT)
    load(target, {"id": [1], "at": [20], "v": ["b"]}, BY_AT)
    assert versions(target) == [(1, "a", 10, 20), (1, "b", 20, 30), (1, "a", 30, None)]
    load(target, {"id": [1], "at": [20], "v": ["a"]}, BY_AT)
    assert versions(target) == [(1, "a", 10, None)], "of one moment the last read counts"


def test_only_tracked_columns_make_a_version(target):
    write = History(keys=("id",), latest_by=("at",), track=("v",))
    load(target, {"id": [1, 1], "at": [1, 2], "v": ["a", "a"], "seen": [5, 6]}, write)
    assert versions(target, "v", "seen") == [("a", 5)]


def test_without_latest_by_the_commit_time_counts_and_the_last_read_of_a_commit(target):
    write = History(keys=("id",))
    load(target, {"id": [1, 1], "v": ["a", "b"]}, write)
    load(target, {"id": [1], "v": ["b"]}, write)
    load(target, {"id": [1], "v": ["c"]}, write)
    (one, two) = versions(target)
    assert (one[1], two[1], one[3] == two[2], two[3]) == ("b", "c", True, None)


def test_a_null_key_is_a_violation(target):
    with pytest.raises(DataError, match="NULL in key 'id'"):
        load(target, {"id": [None, 1], "at": [1, 1]}, BY_AT)


def test_a_column_that_the_history_makes_may_not_come_with_the_rows(target):
    with pytest.raises(ConfigError, match="valid_to"):
        load(target, {"id": [1], "at": [1], "valid_to": [1]}, BY_AT)


def test_new_and_wider_columns_reach_what_is_remembered(target):
    load(target, {"id": [1, 1], "at": pl.Series([1, 3], dtype=pl.Int32), "v": ["a", "a"]}, BY_AT)
    load(target, {"id": [1], "at": [2], "v": ["b"], "w": [1]}, BY_AT)
    assert versions(target, "v", "w", "valid_from") == [("a", None, 1), ("b", 1, 2), ("a", None, 3)]


CLOSING = History(keys=("id",), latest_by=("day",), close_absent=True)


def day(n: int) -> date:
    return date(2024, 1, n)


def test_absence_closes_a_key_only_when_the_read_was_complete(target):
    load(target, {"id": [1, 2], "day": [day(1)] * 2, "v": ["a", "b"]}, CLOSING, complete=True)
    load(target, {"id": [1], "day": [day(2)], "v": ["c"]}, CLOSING)
    assert sum(v[3] is None for v in versions(target)) == 2
    receipt = load(target, {"id": [1], "day": [day(2)], "v": ["c"]}, CLOSING, complete=True)
    assert {v[0] for v in versions(target) if v[3] is None} == {1}
    assert receipt.counts["deleted"] == 1


@pytest.mark.parametrize("newer", [True, False])
def test_a_key_that_returns_comes_back_as_a_version_of_its_own(target, newer):
    both = {"id": [1, 2], "day": [day(1)] * 2, "v": ["a", "b"]}
    load(target, both, CLOSING, complete=True)
    load(target, {"id": [1], "day": [day(1)], "v": ["a"]}, CLOSING, complete=True)
    if newer:
        both["day"][1] = date(2999, 1, 1)
    for _ in range(2):
        load(target, both, CLOSING, complete=True)
        assert {v[0] for v in versions(target) if v[3] is None} == {1, 2}
    if newer:
        assert versions(target, "id", "v")[1:] == [(2, "b"), (2, "b")]


def test_a_rejected_key_counts_as_present(target):
    load(target, {"id": [1, 2], "day": [day(1)] * 2, "v": ["a", "b"]}, CLOSING, complete=True)
    bad = rejects({"id": "r", "key": '["2"]'})
    load(target, {"id": [1], "day": [day(1)], "v": ["a"]}, CLOSING, complete=True, rejects=bad)
    assert all(v[3] is None for v in versions(target))
    unknown = rejects({"id": "r2"}, resolved=("r",))
    load(target, {"id": [1], "day": [day(1)], "v": ["a"]}, CLOSING, complete=True, rejects=unknown)
    assert all(v[3] is None for v in versions(target)), "a rejected row without a known key may be any key's"
    load(target, {"id": [1], "day": [day(1)], "v": ["a"]}, CLOSING, complete=True, rejects=rejects(resolved=("r2",)))
    assert {v[0] for v in versions(target) if v[3] is None} == {1}


ROW = st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 4)), st.sampled_from("ab"))


@given(data=st.lists(ROW, max_size=10), cuts=st.lists(st.integers(0, 10), max_size=3))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_versions_do_not_depend_on_how_the_rows_were_split(tmp_path_factory, data, cuts):
    folder = tmp_path_factory.mktemp("split")
    frame = pl.DataFrame(data, schema={"id": pl.Int64, "at": pl.Int64, "v": pl.String}, orient="row")
    whole = DuckDBDestination(path="whole.duckdb", table="t", base=folder)
    split = DuckDBDestination(path="split.duckdb", table="t", base=folder)
    load(whole, frame, BY_AT)
    at = sorted({0, *(c for c in cuts if c < frame.height)})
    for start, end in zip(at, [*at[1:], frame.height], strict=True):
        load(split, frame[start:end], BY_AT)
    assert versions(split) == versions(whole)


def test_a_table_of_another_write_is_refused_by_the_column_that_a_history_lacks(target):
    rows = {"id": [1], "since": [day(1)], "v": ["a"]}
    load(target, rows, Merge(keys=("id",)))
    with pytest.raises(SchemaError, match="has no column 'valid_from'"):  # no conflict: it would be one for ever
        load(target, rows, History(keys=("id",), latest_by=("since",)))


def test_a_table_that_was_taken_over_without_the_historys_columns_is_refused_by_name(target):
    with duckdb.connect(str(target._file)) as connection:
        connection.execute("CREATE TABLE t (id BIGINT, since DATE, v VARCHAR)")
    write = History(keys=("id",), latest_by=("since",))
    with pytest.raises(SchemaError, match="has no column 'valid_from'") as caught:
        load(replace(target, adopt=True), {"id": [1], "since": [day(1)], "v": ["a"]}, write)
    assert "date" in caught.value.hint

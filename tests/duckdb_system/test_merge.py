"""Merge: ties, late and repeated rows, NULL keys, deletions, partial rows."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import polars as pl
import pytest
from commits import load, rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import DataError, SchemaError
from headrace.systems.duckdb import DuckDBDestination
from headrace.writes import Append, Merge

BY_ID = Merge(keys=("id",), latest_by=("at",))


def test_repeated_keys_in_one_batch_leave_the_newest(target):
    receipt = load(target, {"id": [1, 1, 2], "at": [2, 1, 1], "v": ["new", "old", "x"]}, BY_ID)
    assert rows(target) == [{"id": 1, "at": 2, "v": "new"}, {"id": 2, "at": 1, "v": "x"}]
    assert receipt.counts == {"rows": 3, "inserted": 2, "rejected": 0}


def test_of_equal_rows_the_last_read_wins(target):
    load(target, {"id": [1, 1], "at": [1, 1], "v": ["a", "b"]}, BY_ID)
    assert rows(target)[0]["v"] == "b"
    load(target, {"id": [1], "at": [1], "v": ["c"]}, BY_ID)
    assert rows(target)[0]["v"] == "c"


def test_a_late_older_row_never_overwrites_a_newer_one(target):
    load(target, {"id": [1], "at": [5], "v": ["new"]}, BY_ID)
    receipt = load(target, {"id": [1, 2], "at": [4, 4], "v": ["old", "x"]}, BY_ID)
    assert rows(target) == [{"id": 1, "at": 5, "v": "new"}, {"id": 2, "at": 4, "v": "x"}]
    assert (receipt.counts["inserted"], receipt.counts["updated"]) == (1, 0)


def test_null_is_the_oldest(target):
    load(target, {"id": [1, 1, 2], "at": [None, 1, None], "v": ["a", "b", "c"]}, BY_ID)
    load(target, {"id": [1, 2], "at": [None, 0], "v": ["late", "d"]}, BY_ID)
    assert [r["v"] for r in rows(target)] == ["b", "d"]


def test_latest_by_several_columns_compares_them_in_turn(target):
    write = Merge(keys=("id",), latest_by=("day", "seq"))
    load(target, {"id": [1, 1], "day": [1, 1], "seq": [2, 9], "v": ["a", "b"]}, write)
    load(target, {"id": [1, 1], "day": [1, 0], "seq": [8, 99], "v": ["late", "later"]}, write)
    assert rows(target)[0]["v"] == "b"


def test_without_an_order_the_last_read_wins(target):
    write = Merge(keys=("id",))
    load(target, {"id": [1, 2, 1], "v": ["a", "x", "b"]}, write)
    receipt = load(target, {"id": [1, 3], "v": ["c", "y"]}, write)
    assert [r["v"] for r in rows(target)] == ["c", "x", "y"]
    assert (receipt.counts["inserted"], receipt.counts["updated"]) == (1, 1)


@pytest.mark.parametrize("table_is_empty", [True, False])
def test_a_null_in_a_key_is_a_violation_and_nothing_is_loaded(target, table_is_empty):
    if not table_is_empty:
        load(target, {"id": [1], "b": [1]}, Merge(keys=("id", "b")))
    with pytest.raises(DataError, match="NULL in key 'b' in 2 rows"):
        load(target, {"id": [1, 2, 3], "b": [1, None, None]}, Merge(keys=("id", "b")))
    assert target.inspect("p").number == int(not table_is_empty)


def test_columns_missing_from_the_rows_keep_their_values(target):
    load(target, {"id": [1, 2], "v": ["a", "b"], "w": [1, 2]}, Merge(keys=("id",)))
    load(target, {"w": [10, 30], "id": [1, 3]}, Merge(keys=("id",)))
    assert rows(target) == [
        {"id": 1, "v": "a", "w": 10},
        {"id": 2, "v": "b", "w": 2},
        {"id": 3, "v": None, "w": 30},
    ]


def test_a_deletion_is_remembered_so_that_an_older_row_does_not_come_back(target):
    write = Merge(keys=("id",), latest_by=("at",), delete_when="op = 'D'")
    load(target, {"id": [1, 2], "at": [1, 1], "op": ["I", "I"]}, write)
    receipt = load(target, {"id": [1], "at": [3], "op": ["D"]}, write)
    assert receipt.counts["deleted"] == 1
    load(target, {"id": [1], "at": [2], "op": ["U"]}, write)
    assert [r["id"] for r in rows(target)] == [2]
    load(target, {"id": [1], "at": [4], "op": ["I"]}, write)
    assert [r["id"] for r in rows(target)] == [1, 2]
    load(target, {"id": [1], "at": [3], "op": ["D"]}, write)
    assert [r["id"] for r in rows(target)] == [1, 2], "a late deletion deletes nothing"


def test_a_deletion_of_a_key_never_seen_is_remembered_too(target):
    write = Merge(keys=("id",), latest_by=("at",), delete_when="op = 'D'")
    load(target, {"id": [1], "at": [3], "op": ["D"]}, write)
    load(target, {"id": [1], "at": [2], "op": ["I"]}, write)
    assert rows(target) == []


def test_a_delete_and_an_insert_of_one_compound_key_in_one_batch(target):
    write = Merge(keys=("a", "b"), latest_by=("at",), delete_when="gone")
    load(target, {"a": [1], "b": [1], "at": [1], "gone": [False]}, write)
    load(target, {"a": [1, 1], "b": [1, 1], "at": [2, 3], "gone": [True, False]}, write)
    assert [r["at"] for r in rows(target)] == [3]
    load(target, {"a": [1, 1], "b": [1, 1], "at": [5, 4], "gone": [True, False]}, write)
    assert rows(target) == []


def test_an_adopted_table_with_a_key_twice_is_refused(target):
    load(target, {"id": [1, 1], "v": [1, 2]}, Append())
    with pytest.raises(DataError, match="more than once"):
        load(target, {"id": [1], "v": [3]}, Merge(keys=("id",)))


def test_reordered_columns_never_swap(target):
    load(target, {"id": [1], "a": ["a"], "b": ["b"]}, Merge(keys=("id",)))
    for write in (Merge(keys=("id",)), Append()):
        load(target, {"b": ["B"], "id": [1], "a": ["A"]}, write)
    assert all((r["a"], r["b"]) == ("A", "B") for r in rows(target))


ROW = st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(0, 3)), st.integers(0, 99), st.booleans())


@given(data=st.lists(ROW, max_size=12), cuts=st.lists(st.integers(0, 12), max_size=3))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("delete_when", [None, "gone"])
def test_any_split_into_increments_gives_the_table_of_one_load(tmp_path_factory, data, cuts, delete_when):
    write = Merge(keys=("id",), latest_by=("at",), delete_when=delete_when)
    folder = tmp_path_factory.mktemp("split")
    schema = {"id": pl.Int64, "at": pl.Int64, "v": pl.Int64, "gone": pl.Boolean}
    frame = pl.DataFrame(data, schema=schema, orient="row")
    whole = DuckDBDestination(path="whole.duckdb", table="t", base=folder)
    split = DuckDBDestination(path="split.duckdb", table="t", base=folder)
    load(whole, frame, write)
    at = sorted({0, *(c for c in cuts if c < frame.height)})
    for start, end in zip(at, [*at[1:], frame.height], strict=True):
        load(split, frame[start:end], write)
    assert rows(split) == rows(whole)


def test_deletes_in_pieces_delete_all_and_nothing_else(target, monkeypatch):
    monkeypatch.setattr("headrace.systems.duckdb.loading._PIECE_ROWS", 3)
    first = pl.DataFrame({"id": [n * 7 % 20 for n in range(20)] * 2, "at": [1] * 20 + [2] * 20, "v": range(40)})
    load(target, first, BY_ID)
    assert [r["v"] for r in rows(target)] == first[20:].sort("id")["v"].to_list()
    receipt = load(target, {"id": list(range(19, 4, -1)), "at": [3] * 10 + [0] * 5, "v": [-1] * 15}, BY_ID)
    assert receipt.counts["updated"] == 10
    assert [r["v"] == -1 for r in rows(target)] == [n > 9 for n in range(20)]


def made(target: DuckDBDestination, columns: str) -> DuckDBDestination:
    """A table that somebody else has made and headrace takes over."""
    with duckdb.connect(target._file) as connection:
        connection.execute(f"CREATE TABLE t ({columns})")
        connection.execute("INSERT INTO t (id, v) VALUES (1, 1)")
    return replace(target, adopt=True)


@pytest.mark.parametrize("default", ["DEFAULT 'ours'", "NOT NULL DEFAULT 'ours'"])
@pytest.mark.parametrize("write", [BY_ID, Merge(keys=("id",))])
def test_a_new_key_gets_the_defaults_and_an_old_one_keeps_its_values(target, default, write):
    """NULL was written in their place."""
    adopted = made(target, f'id BIGINT, "at" BIGINT, v BIGINT, src VARCHAR {default}')
    with duckdb.connect(target._file) as connection:
        connection.execute("UPDATE t SET src = 'theirs'")
    load(adopted, {"id": [1, 2], "at": [5, 5], "v": [10, 20]}, write)
    load(adopted, {"id": [2, 3], "at": [6, 6], "v": [21, 30]}, write)
    assert [(r["id"], r["v"], r["src"]) for r in rows(adopted)] == [(1, 10, "theirs"), (2, 21, "ours"), (3, 30, "ours")]


def test_a_generated_column_is_never_written(target):
    adopted = made(target, "id BIGINT, v BIGINT, twice BIGINT GENERATED ALWAYS AS (v * 2) VIRTUAL, src VARCHAR")
    load(adopted, {"id": [1, 2], "v": [5, 6]}, Merge(keys=("id",)))
    load(adopted, {"id": [2, 3], "v": [7, 8]}, Merge(keys=("id",)))
    assert [(r["id"], r["v"], r["twice"]) for r in rows(adopted)] == [(1, 5, 10), (2, 7, 14), (3, 8, 16)]


def test_a_table_with_a_column_called_as_the_one_that_tells_deletions_is_refused_by_its_name(target):
    adopted = made(target, "id BIGINT, v BIGINT, _Headrace_Deleted BOOLEAN")
    with pytest.raises(SchemaError, match="'_Headrace_Deleted'"):
        load(adopted, {"id": [1], "v": [2]}, Merge(keys=("id",), delete_when="v > 1"))

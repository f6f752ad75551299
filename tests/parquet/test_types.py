"""Any rows of any supported type come back as they were."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loads import load
from polars.testing.parametric import dataframes

from headrace.errors import SchemaError
from headrace.schema import AddColumn, Schema
from headrace.stream.drawing import height
from headrace.systems.parquet import ParquetDestination, scan_table

SCALARS: list[Any] = [
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64),
    *(pl.Boolean, pl.String, pl.Binary, pl.Date, pl.Time, pl.Null, pl.Categorical(), pl.Enum(["a", "ü", ""])),
    *(pl.Decimal(38, 9), pl.Decimal(5, 0)),
    *(pl.Datetime(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "UTC", "Europe/Berlin")),
    *(pl.Duration(unit) for unit in ("ms", "us", "ns")),
]
NESTED: list[Any] = [
    pl.List(pl.Datetime("ns", "Asia/Kolkata")),
    pl.Array(pl.Float32, 3),
    pl.Struct({"a": pl.Int64, "b": pl.List(pl.Enum(["x", "y"]))}),
    pl.List(pl.Array(pl.Int8, 2)),
]


@pytest.mark.parametrize("dtype", [*SCALARS, *NESTED], ids=str)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_rows_of_any_type_come_back_as_they_were(dtype: Any, data: st.DataObject) -> None:
    frame = data.draw(dataframes(cols=2, allowed_dtypes=[dtype], max_size=8, allow_null=True))
    with tempfile.TemporaryDirectory() as folder:
        table = ParquetDestination(path=folder)
        load(table, frame[:3])
        load(table, frame[3:])
        found = scan_table(folder).collect()
    assert found.schema == frame.schema
    assert found.equals(frame, null_equal=True)


@pytest.mark.parametrize(
    "dtype", [pl.Int128(), pl.List(pl.Int128()), pl.Struct({"a": pl.Struct([])}), pl.Array(pl.Int8, 0)], ids=str
)
def test_what_parquet_cannot_hold_is_refused_by_name(tmp_path: Path, dtype: pl.DataType) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    with pytest.raises(SchemaError, match="'big'"):
        load(table, pl.DataFrame({"big": pl.Series([None], dtype=dtype)}))
    assert table.inspect("p").number == 0
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "readers"] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pl.Int8(), pl.Int64()),
        (pl.UInt32(), pl.Int64()),
        (pl.Int32(), pl.Float64()),
        (pl.Float32(), pl.Float64()),
        (pl.Int16(), pl.Decimal(12, 2)),
        (pl.Decimal(5, 1), pl.Decimal(12, 3)),
        (pl.Enum(["1"]), pl.Enum(["0", "1"])),
        (pl.Enum(["1"]), pl.String()),
        (pl.Categorical(), pl.String()),
        (pl.Null(), pl.Date()),
        (pl.List(pl.Int8()), pl.List(pl.Int64())),
    ],
    ids=str,
)
def test_old_rows_are_read_in_the_type_that_the_column_has_grown_to(
    tmp_path: Path, old: pl.DataType, new: pl.DataType
) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    value = (
        None
        if old == pl.Null()
        else ["1"]
        if old in (pl.Categorical(), pl.Enum(["1"]))
        else [[1]]
        if old.is_nested()
        else [1]
    )
    rows = pl.DataFrame({"v": pl.Series(value or [None], dtype=old)})
    load(table, rows)
    load(table, pl.DataFrame({"v": pl.Series([None], dtype=new)}))
    found = scan_table(tmp_path / "t").collect()
    assert found.schema == {"v": new}
    assert found["v"].to_list() == [*rows["v"].cast(new).to_list(), None]


def test_a_narrower_batch_widens_and_a_missing_column_is_null(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    load(table, pl.DataFrame({"a": [1], "b": ["x"]}))
    load(table, pl.DataFrame({"a": pl.Series([2], dtype=pl.Int8)}))
    load(table, pl.DataFrame({"c": [True], "a": [3]}))
    assert scan_table(tmp_path / "t").collect().rows() == [(1, "x", None), (2, None, None), (3, None, True)]
    files = [pq.read_schema(file).names for file in sorted((tmp_path / "t").glob("*.parquet"))]
    assert files == [["a", "b"], ["a", "b"], ["a", "b", "c"]]


def test_json_stays_json_in_the_ledger(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    load(table, pl.DataFrame({"j": ['{"a": 1}']}), schema=Schema.of({"j": "json"}))
    assert table.inspect("p").schema == Schema.of({"j": "json"})
    assert scan_table(tmp_path / "t").collect().rows() == [('{"a": 1}',)]


def test_rows_that_do_not_fit_the_table_are_refused(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    load(table, pl.DataFrame({"a": [1]}))
    with pytest.raises(SchemaError, match="column 'a' is string, the table holds int64"):
        load(table, pl.DataFrame({"b": [1]}), schema=Schema.of({"a": "int64"}), rows=lambda: pl.DataFrame({"a": ["1"]}))
    assert AddColumn is not None
    assert scan_table(tmp_path / "t").collect().rows() == [(1,)]


def test_filters_and_columns_are_pushed_into_the_files(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    load(table, pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]}))
    frame = scan_table(tmp_path / "t")
    assert frame.filter(pl.col("a") > 1).select("b").head(1).collect().rows() == [("y",)]
    assert frame.join(frame, on="a").select(pl.len()).collect().item() == 3
    assert height(frame) == 3


def test_files_say_who_wrote_them_and_have_sound_row_groups(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path, row_group_bytes="80KB", file_bytes="400KB")
    receipt = load(table, pl.select(n=pl.int_range(200_000)).lazy())
    files = sorted((tmp_path / "t").glob("*.parquet"))
    about = [pq.ParquetFile(file).metadata for file in files]
    assert len(files) > 1
    assert sum(a.num_rows for a in about) == 200_000
    groups = [a.row_group(n) for a in about for n in range(a.num_row_groups)]
    assert max(g.num_rows for g in groups) <= 20_000
    assert {g.column(0).compression for g in groups} == {"ZSTD"}
    assert all(g.column(0).statistics.has_min_max for g in groups)
    assert about[0].metadata[b"headrace.pipeline"] == b"p"
    assert about[0].metadata[b"headrace.run"] == b"r"
    assert about[0].metadata[b"headrace.commit"] == receipt.id.encode()
    assert scan_table(tmp_path / "t").collect()["n"].equals(pl.int_range(200_000, eager=True).alias("n"))

"""Partitions: the touched ones are replaced, whatever their values are, whoever wrote them."""

# ruff: noqa: DTZ001  # naive datetimes are a type of their own
from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import load

from headrace.errors import DataError, SchemaError
from headrace.logical import Type
from headrace.stream import scan_batches
from headrace.systems.parquet import ParquetDestination, parts, scan_table
from headrace.systems.parquet.parts import folder_of
from headrace.writes import Append, Partitions

AWKWARD = [
    None,
    "",
    "/",
    "..",
    "a=b",
    "100%",
    "%2F",
    "ü/日本",
    "__HIVE_DEFAULT_PARTITION__",
    " ",
    "a\nb",
    "\x00",
    "*?[]",
    "A",
    "a",
]


def _rows(table: Path) -> list[tuple[Any, ...]]:
    return sorted(scan_table(table).collect().rows(), key=str)


def test_awkward_texts_are_partitions_of_their_own(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    by = Partitions(by=("k",))
    load(table, pl.DataFrame({"k": AWKWARD, "v": range(len(AWKWARD))}), by)
    assert len(list((tmp_path / "t").rglob("*.parquet"))) == len(AWKWARD)
    for n, value in enumerate(AWKWARD):
        receipt = load(table, pl.DataFrame({"k": [value], "v": [-n]}, schema={"k": pl.String, "v": pl.Int64}), by)
        assert receipt.counts["deleted"] == 1
    assert _rows(tmp_path / "t") == sorted(zip(AWKWARD, (-n for n in range(len(AWKWARD))), strict=True), key=str)
    assert all(tmp_path / "t" in p.resolve().parents for p in (tmp_path / "t").rglob("*.parquet"))


@pytest.mark.parametrize(
    "values",
    [
        [0.0, -1.5, float("nan"), float("inf"), None],
        [dt.date(1, 1, 1), dt.date(2024, 2, 29), None],
        [dt.datetime(2024, 1, 1, 0, 0, 0, 1), dt.datetime(2024, 1, 1), None],
        [dt.time(0), dt.time(23, 59, 59, 999999), None],
        [dt.timedelta(microseconds=1), dt.timedelta(days=-1), None],
        [Decimal("0.10"), Decimal("0.1") * 3, None],
        [True, False, None],
    ],
    ids=lambda values: type(values[0]).__name__,
)
def test_scalars_of_any_kind_are_partitions(tmp_path: Path, values: list[Any]) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    frame = pl.DataFrame({"k": values})
    load(table, frame, Partitions(by=("k",)))
    load(table, frame, Partitions(by=("k",)))
    assert scan_table(tmp_path / "t").collect().height == len(values)


def test_times_within_one_second_are_partitions_of_their_own(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    by = Partitions(by=("k",))
    times = [dt.time(9), dt.time(9, 0, 0, 100_000), dt.time(9, 0, 0, 200_000)]
    load(table, pl.DataFrame({"k": times, "v": [0, 1, 2]}), by)
    load(table, pl.DataFrame({"k": [dt.time(9, 0, 0, 300_000), dt.time(9, 0, 0, 100_000)], "v": [3, 10]}), by)
    assert sorted(v for _, v in _rows(tmp_path / "t")) == [0, 2, 3, 10]
    folders = sorted(p.name for p in (tmp_path / "t").iterdir() if p.name != "_headrace")
    assert folders == ["k=09%3A00%3A00", "k=09%3A00%3A00.100", "k=09%3A00%3A00.200", "k=09%3A00%3A00.300"]


def test_a_partition_of_a_whole_second_from_before_loses_only_the_times_that_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    by = Partitions(by=("k",))
    times = [dt.time(9), dt.time(9, 0, 0, 100_000), dt.time(9, 0, 0, 200_000), dt.time(10)]
    with monkeypatch.context() as before:
        before.setattr(parts, "key_text", lambda expr, _type: expr.cast(pl.String))
        before.setattr(parts, "_has_times", lambda *_: False)
        load(table, pl.DataFrame({"k": times, "v": [0, 1, 2, 3]}), by)
    load(table, pl.DataFrame({"k": times[1:2], "v": [10]}), by)
    assert sorted(v for _, v in _rows(tmp_path / "t")) == [0, 2, 3, 10]
    receipt = load(table, pl.DataFrame({"k": [times[0], times[3]], "v": [20, 30]}), by)
    assert (receipt.counts["inserted"], receipt.counts["deleted"]) == (2, 2)
    assert sorted(v for _, v in _rows(tmp_path / "t")) == [2, 10, 20, 30]


FAR = [pl.Date(), *(pl.Datetime(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "Asia/Tokyo"))]


@pytest.mark.parametrize("type", FAR, ids=str)
def test_days_that_no_calendar_writes_are_partitions(tmp_path: Path, type: pl.DataType) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    by = Partitions(by=("k",))
    most = 2**31 - 1 if type == pl.Date else 2**63 - 1
    keys = pl.Series([most, most - 1, -most, 0, None], dtype=pl.Int32 if type == pl.Date else pl.Int64).cast(type)
    load(table, pl.DataFrame({"k": keys, "v": range(5)}), by)
    assert len(list((tmp_path / "t").rglob("*.parquet"))) == 5
    assert load(table, pl.DataFrame({"k": keys[:2], "v": [10, 11]}), by).counts["deleted"] == 2
    load(table, pl.DataFrame({"k": keys, "v": range(5)}), Append())
    assert load(table, pl.DataFrame({"k": keys, "v": range(5)}), by).counts["deleted"] == 10


@pytest.mark.parametrize("type", [pl.Date(), *(pl.Datetime(u) for u in ("ms", "us", "ns"))])
def test_usual_days_keep_their_text(type: pl.DataType) -> None:
    days = [-96_465_292, -719_163, -1, 0, 19_753, 2_932_897, 95_026_236]
    if type != pl.Date:
        each = 86_400_000
        ticks = pl.Series([n * each + 123 for n in (days[2:5] if type == pl.Datetime("ns") else days)])
        values = ticks.cast(pl.Datetime("ms")).dt.cast_time_unit(type.time_unit)  # type: ignore[attr-defined]
    else:
        values = pl.Series(days, dtype=pl.Int32).cast(pl.Date)
    text = values.to_frame("k").select(parts.key_text(pl.col("k"), Type.of_polars(values.dtype))).to_series()
    assert text.to_list() == values.cast(pl.String).to_list()


def test_the_two_zeros_are_one_partition(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    load(table, pl.DataFrame({"k": [0.0, 1.0]}), Partitions(by=("k",)))
    load(table, pl.DataFrame({"k": [-0.0, 1.0]}), Partitions(by=("k",)))
    assert scan_table(tmp_path / "t").collect().height == 2


def test_two_instants_of_one_repeated_local_hour_are_two_partitions(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    utc = pl.Series([dt.datetime(2024, 10, 27, 0, 30), dt.datetime(2024, 10, 27, 1, 30)]).dt.replace_time_zone("UTC")
    load(table, pl.DataFrame({"k": utc.dt.convert_time_zone("Europe/Berlin")}), Partitions(by=("k",)))
    assert len(list((tmp_path / "t").rglob("*.parquet"))) == 2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 1)), max_size=4), max_size=4))
def test_appended_and_partitioned_rows_mix(batches: list[list[tuple[str | None, int]]]) -> None:
    import tempfile

    held: list[tuple[str | None, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        table = ParquetDestination(path=folder)
        load(table, pl.DataFrame(schema={"k": pl.String, "v": pl.Int64}))
        for n, rows in enumerate(batches):
            frame = pl.DataFrame(rows, schema={"k": pl.String, "v": pl.Int64}, orient="row")
            write = Append() if n % 2 == 0 else Partitions(by=("k",) if n % 4 == 1 else ("k", "v"))
            before = len(held)
            if isinstance(write, Partitions):
                keys = {(k, v)[: len(write.by)] for k, v in rows}
                held = [row for row in held if row[: len(write.by)] not in keys]
            gone = before - len(held)
            held += rows
            receipt = load(table, frame, write)
            assert (receipt.counts["inserted"], receipt.counts["deleted"]) == (len(rows), gone)
            assert _rows(Path(folder)) == sorted(held, key=str)


def test_hive_readers_see_the_partitions(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    load(table, pl.DataFrame({"day": [dt.date(2024, 1, 31), None], "v": [1, 2]}), Partitions(by=("day",)))
    files = f"{tmp_path}/t/**/*.parquet"
    with duckdb.connect() as con:
        found = con.sql(f"SELECT v, day IS NULL FROM read_parquet('{files}', hive_partitioning=true) ORDER BY v")
        assert found.fetchall() == [(1, False), (2, True)]
    assert pl.scan_parquet(files).collect().sort("v").rows() == [(dt.date(2024, 1, 31), 1), (None, 2)]


def test_an_emptied_partition_leaves_no_folder(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    load(table, pl.DataFrame({"a": [1], "b": [1]}), Partitions(by=("a", "b")))
    load(table, pl.DataFrame({"a": [1], "b": [2]}), Partitions(by=("a",)))
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == ["_headrace", "a=1"]
    assert [p.suffix for p in (tmp_path / "t" / "a=1").iterdir()] == [".parquet"]


def test_many_partitions_stay_within_the_buffer(tmp_path: Path) -> None:
    table = ParquetDestination(path="t", base=tmp_path, file_bytes="200KB")
    frame = pl.select(k=pl.int_range(50_000) % 40, v=pl.int_range(50_000))
    pieces = scan_batches(lambda: frame.iter_slices(5_000), frame.schema)
    load(table, pieces, Partitions(by=("k",)))
    assert scan_table(tmp_path / "t").collect().sort("v").equals(frame)
    assert len(list((tmp_path / "t").rglob("*.parquet"))) > 40


@pytest.mark.parametrize("value", [[1], b"x", {"a": 1}, None])
def test_what_is_no_scalar_is_refused(tmp_path: Path, value: Any) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    with pytest.raises(SchemaError, match="one cannot partition by it"):
        load(table, pl.DataFrame({"k": [value]}), Partitions(by=("k",)))


def test_a_value_too_long_for_a_folder_is_refused_without_being_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too long") as caught:
        folder_of(["k"], ("secret" * 50,))
    assert "secret" not in str(caught.value)
    assert len(folder_of(["k"], ("x" * 253,))) == 255


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (pl.Series([Decimal("1.5"), None, Decimal(2)], dtype=pl.Decimal(8, 1)), pl.Decimal(9, 2)),
        (pl.Series([40, None, 2], dtype=pl.Int32), pl.Float64),
        (pl.Series([0.1, None, 2], dtype=pl.Float32), pl.Float64),
        (pl.Series([40, None, 2], dtype=pl.Int32), pl.Int64),
    ],
    ids=["decimal", "integer to float", "float", "integer"],
)
@pytest.mark.parametrize("split", [True, False], ids=["split before", "appended before"])
def test_a_partition_is_the_same_when_its_column_has_been_widened(
    tmp_path: Path, before: pl.Series, after: pl.DataType, split: bool
) -> None:
    table = ParquetDestination(path="t", base=tmp_path)
    by = Partitions(by=("k",))
    load(table, pl.DataFrame({"k": before, "v": [1, 2, 3]}), by if split else Append())
    load(table, pl.DataFrame({"k": before[:2].cast(after), "v": [10, 20]}), by)
    assert sorted(v for _, v in _rows(tmp_path / "t")) == [3, 10, 20]
    load(table, pl.DataFrame({"k": before.cast(after), "v": [100, 200, 300]}), by)
    assert sorted(v for _, v in _rows(tmp_path / "t")) == [100, 200, 300]

"""A single file: what stands in it, exactly; replaced in one step; what a format cannot hold is refused."""

# ruff: noqa: PTH208, DTZ001  # names alone are compared; naive datetimes are a type of their own
from __future__ import annotations

import datetime as dt
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing.parametric import dataframes

sys.path.insert(0, str(Path(__file__).parents[1] / "parquet"))

from loads import load

from headrace import disk
from headrace.errors import ConfigError, DataError, SchemaError
from headrace.flow import Range, Snapshot
from headrace.journal import settle
from headrace.systems.files import FileSource
from headrace.systems.outfile import FileDestination
from headrace.writes import Append, Replace

SCALARS: list[Any] = [
    *(pl.Int8, pl.Int64, pl.UInt64, pl.Float32, pl.Float64, pl.Boolean, pl.String, pl.Date, pl.Time, pl.Null),
    *(pl.Categorical(), pl.Enum(["a", "ü", ""]), pl.Decimal(38, 9)),
    *(pl.Datetime(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "UTC", "Europe/Berlin")),
    *(pl.Duration(unit) for unit in ("ms", "us", "ns")),
]
REPLACE = Replace(allow_empty=True)


@pytest.mark.parametrize("format", ["csv", "tsv", "ndjson", "ipc"])
@pytest.mark.parametrize("dtype", SCALARS, ids=str)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_rows_come_back_as_they_were(format: str, dtype: Any, data: st.DataObject) -> None:
    if format == "ndjson" and dtype in (pl.Float32, pl.Float64):
        return  # NaN is refused: see below
    if isinstance(dtype, pl.Datetime) or dtype == pl.Date:  # years that text holds in four digits
        low = dt.date(1700, 1, 1) if dtype == pl.Date else dt.datetime(1700, 1, 1)
        high = dt.date(2200, 1, 1) if dtype == pl.Date else dt.datetime(2200, 1, 1)
        values = st.dates(low, high) if dtype == pl.Date else st.datetimes(low, high)
        drawn = data.draw(st.lists(st.none() | values, max_size=8))
        naive = pl.Date if dtype == pl.Date else pl.Datetime("us")
        column = pl.Series("col0", drawn, dtype=naive)
        if dtype != pl.Date and dtype.time_zone is not None:
            column = column.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
        frame = pl.DataFrame({"col0": column.cast(dtype), "col1": column.cast(dtype)})
    else:
        frame = data.draw(dataframes(cols=2, allowed_dtypes=[dtype], max_size=8, allow_null=True))
    with tempfile.TemporaryDirectory() as folder:
        file = FileDestination(path="out", format=format, base=Path(folder))  # type: ignore[arg-type]
        load(file, frame, REPLACE)
        scan = file.inspect("p").scan
        assert scan is not None
        found = scan().collect()
    assert found.schema == frame.schema
    assert found.equals(frame, null_equal=True)


@pytest.mark.parametrize("values", [[None], ["", None, "a"], [None, None], ["\n", "\r", '"', ",", " "]])
def test_one_column_of_text_comes_back(tmp_path: Path, values: list[str | None]) -> None:
    file = FileDestination(path="out.csv", base=tmp_path)
    frame = pl.DataFrame({"s": values}, schema={"s": pl.String})
    load(file, frame, Replace())
    scan = file.inspect("p").scan
    assert scan is not None
    assert scan().collect().equals(frame, null_equal=True)


def test_csv_is_written_as_headrace_reads_it(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "s": ["", None, 'say "x"', "a,b\nc"],
            "f": [0.1, float("nan"), float("-inf"), 1e300],
            "t": [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), None, None, None],
        }
    )
    load(FileDestination(path="out.csv", base=tmp_path), frame, Replace())
    text = (tmp_path / "out.csv").read_text()
    assert text.splitlines()[0] == "s,f,t"
    assert text.splitlines()[1].startswith('"",0.1,2024-01-01')
    assert text.splitlines()[2] == ",NaN,"
    source = FileSource(path="out.csv", base=tmp_path, read="all", types={"t": "datetime(us, UTC)", "f": "float64"})
    (batch,) = source.batches(Range(), Snapshot(), "s")
    assert batch.frame.lazy.collect().select(frame.columns).equals(frame, null_equal=True)
    assert list(batch.rejects()) == []


@pytest.mark.parametrize(
    ("format", "dtype"),
    [
        ("csv", pl.List(pl.Int8())),
        ("csv", pl.Struct({"a": pl.Int8()})),
        ("csv", pl.Array(pl.Int8(), 2)),
        ("tsv", pl.Binary()),
        ("ndjson", pl.Binary()),
        ("ndjson", pl.List(pl.Datetime("us", "UTC"))),
        ("ndjson", pl.Struct({"a": pl.Binary()})),
        ("ipc", pl.Int128()),
        ("csv", pl.Int128()),
    ],
    ids=str,
)
def test_what_a_format_cannot_hold_is_refused_by_name(tmp_path: Path, format: str, dtype: pl.DataType) -> None:
    file = FileDestination(path="out", format=format, base=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="'odd'"):
        load(file, pl.DataFrame({"odd": pl.Series([None], dtype=dtype)}), Replace())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"odd": [1.0, float("nan")]}),
        pl.DataFrame({"odd": [[1.0], [float("inf")], None]}),
        pl.DataFrame({"odd": [{"a": [float("-inf")]}]}),
    ],
    ids=str,
)
def test_json_has_no_nan_and_it_does_not_become_null(tmp_path: Path, frame: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="column 'odd' holds NaN or an infinity"):
        load(FileDestination(path="out.ndjson", base=tmp_path), frame, Replace())
    assert not (tmp_path / "out.ndjson").exists()


def test_nested_rows_come_back_from_ndjson(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [[1, None], None, []], "s": [{"x": 1.5, "y": ["ü"]}, None, {"x": None, "y": None}]})
    file = FileDestination(path="out.jsonl", base=tmp_path)
    load(file, frame, Replace())
    scan = file.inspect("p").scan
    assert scan is not None
    assert scan().collect().equals(frame, null_equal=True)


def test_the_commit_is_read_before_the_file_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FileDestination(path="out.csv", base=tmp_path)
    load(file, pl.DataFrame({"v": [1]}), Replace())
    monkeypatch.setattr(settle, "_publish", lambda *_: disk.sync_folder(tmp_path / "gone"))
    load(file, pl.DataFrame({"v": [2]}), Replace())
    monkeypatch.undo()
    scan = file.inspect("p").scan
    assert scan is not None
    assert scan().collect()["v"].to_list() == [2]
    assert (tmp_path / "out.csv").read_text() == "v\n1\n"
    with file.hold("p", type("Run", (), {"run": "next"})()):
        assert (tmp_path / "out.csv").read_text() == "v\n2\n"


def test_a_file_removed_by_hand_is_written_again(tmp_path: Path) -> None:
    file = FileDestination(path="out.csv", base=tmp_path)
    load(file, pl.DataFrame({"v": [1]}), Replace())
    (tmp_path / "out.csv").unlink()
    snapshot = file.inspect("p")
    assert (snapshot.number, snapshot.schema, dict(snapshot.positions)) == (1, None, {})
    load(file, pl.DataFrame({"w": [2]}), Replace())
    assert (tmp_path / "out.csv").read_text() == "w\n2\n"


def test_a_file_that_headrace_did_not_write_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("theirs\n")
    file = FileDestination(path="out.csv", base=tmp_path)
    assert not file.inspect("p").owned
    with pytest.raises(ConfigError, match="did not write"):
        load(file, pl.DataFrame({"v": [1]}), Replace())
    assert (tmp_path / "out.csv").read_text() == "theirs\n"
    assert os.listdir(tmp_path) == ["out.csv"]


def test_an_empty_replace_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    file = FileDestination(path="out.csv", base=tmp_path)
    load(file, pl.DataFrame({"v": [1]}), Replace())
    with pytest.raises(DataError, match="no rows"):
        load(file, pl.DataFrame({"v": [1]}).clear(), Replace())
    assert (tmp_path / "out.csv").read_text() == "v\n1\n"
    load(file, pl.DataFrame({"v": [1]}).clear(), REPLACE)
    assert (tmp_path / "out.csv").read_text() == "v\n"


def test_other_writes_are_refused_with_what_to_use(tmp_path: Path) -> None:
    file = FileDestination(path="out.csv", base=tmp_path)
    assert file.supports("replace") is None
    assert all("replace" in (file.supports(w) or "") for w in ("append", "partitions", "merge"))
    with pytest.raises(ConfigError):
        load(file, pl.DataFrame({"v": [1]}), Append())


def test_a_path_that_says_no_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="extension"):
        FileDestination(path="out.txt")
    assert FileDestination(path="out.txt", format="csv").format == "csv"

"""What a source's own system knows of a column goes with it; what a type cannot hold is read again as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.errors import SchemaError, UnheldError
from headrace.flow import Batch, News, Range, Snapshot
from headrace.stream import scan_batches

DAYS = {"id": "postgres bigint", "day": "postgres date"}


@dataclass(frozen=True, kw_only=True)
class Dated:
    """A source of ids and days; the one called ``infinity`` is no date."""

    days: list[list[str]]
    type: str = "dated"
    read: str = "all"
    asked: list[frozenset[str]] = field(default_factory=list)

    def batches(self, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
        self.asked.append(range.as_text)
        frames = [pl.DataFrame({"id": [i], "day": d}) for i, day in enumerate(self.days) for d in day]
        kind = pl.String() if "day" in range.as_text else pl.Date()

        def rows() -> Iterator[pl.DataFrame]:
            for frame in frames:
                if kind == pl.Date() and frame["day"][0] == "infinity":
                    raise UnheldError("'day' holds what no date is", source=name, columns=["day"])
                yield frame.with_columns(pl.col("day").str.to_date() if kind == pl.Date() else pl.col("day"))

        lazy = scan_batches(rows, {"id": pl.Int64(), "day": kind})
        (batch,) = hr.MemorySource(frames=[pl.DataFrame({"id": [0]})]).batches(range, snapshot, name)
        yield replace(
            batch,
            frame=replace(batch.frame, lazy=lazy, origins=DAYS),
            news=News(empty=None),
            complete=True,
        )

    def confirm(self, positions: Any) -> None: ...

    def identity(self) -> Any:
        return None

    def places(self) -> list[Any]:
        return []


def pipeline(folder: Path, *days: str, **more: Any) -> hr.Pipeline:
    parts: dict[str, Any] = {
        "name": "dated",
        "source": Dated(days=[list(days)]),
        "destination": hr.DuckDBDestination(path=str(folder / "w.duckdb"), table="t"),
        "write": hr.Replace(),
    }
    return hr.Pipeline(**{**parts, **more})


def test_a_value_that_its_type_cannot_hold_makes_the_column_text_in_a_new_table(tmp_path: Path) -> None:
    one = pipeline(tmp_path, "2024-01-31", "infinity")
    report = hr.run(one)
    snapshot = one.destination.inspect("dated")
    assert snapshot.scan is not None
    assert snapshot.scan().collect()["day"].to_list() == ["2024-01-31", "infinity"]
    assert one.source.asked == [frozenset(), frozenset({"day"})]
    assert "'day' holds what no date is; read as text" in report.warnings[0]
    assert [c.number for c in report.commits] == [1]


def test_a_value_that_its_type_cannot_hold_is_refused_by_a_table_of_that_type(tmp_path: Path) -> None:
    hr.run(pipeline(tmp_path, "2024-01-31", write=hr.Merge(keys=("id",))))
    with pytest.raises(SchemaError, match=r"column .day. is string \(postgres date\), the table holds date"):
        hr.run(pipeline(tmp_path, "infinity", write=hr.Merge(keys=("id",))))


def test_a_column_that_became_text_is_text_again_in_a_full_refresh_alone(tmp_path: Path) -> None:
    """A replay that rebuilds all is a run, and refused by the column's name as a run is."""
    some = hr.Contract(columns={"id": hr.Column(min=1)}, on_violation="quarantine")
    one = pipeline(tmp_path, source=Dated(days=[["2024-01-31"], ["infinity"]]), contract=some)
    hr.run(one)
    assert hr.rejects(one).height == 1
    for verb in (hr.run, hr.replay):
        with pytest.raises(SchemaError, match="column 'day' is date"):
            verb(one)
    report = hr.run(one, full_refresh=True)
    assert report.status == "loaded"
    assert "'day' holds what no date is; read as text" in report.warnings[0]


def test_a_preview_shows_a_value_that_its_type_cannot_hold(tmp_path: Path) -> None:
    assert hr.preview(pipeline(tmp_path, "infinity"))["day"].to_list() == ["infinity"]
    sources = {"a": Dated(days=[["infinity"]]), "b": Dated(days=[["infinity"]])}
    query = hr.sql("SELECT a.day AS x, b.day AS y FROM a JOIN b USING (id)")
    two = pipeline(tmp_path, source=None, sources=sources, transforms=(query,))
    assert hr.preview(two).rows() == [("infinity", "infinity")]


def test_a_source_that_cannot_read_a_column_as_text_either_fails_by_its_name(tmp_path: Path) -> None:
    stubborn = pipeline(tmp_path, "infinity")
    object.__setattr__(
        stubborn.source,
        "batches",
        lambda r, s, n: Dated.batches(stubborn.source, replace(r, as_text=frozenset()), s, n),
    )
    with pytest.raises(UnheldError):
        hr.run(stubborn)


def test_origins_are_kept_with_the_table_and_told_by_it(tmp_path: Path) -> None:
    one = pipeline(tmp_path, "2024-01-31")
    hr.run(one)
    schema = one.destination.inspect("dated").schema
    assert schema is not None
    assert schema.origins == DAYS
    lake = hr.ParquetDestination(path=str(tmp_path / "lake"))
    told = hr.TableSource(of="dated", destination=one.destination, rename={"day": "on"})
    again = hr.Pipeline(name="again", source=told, destination=lake, write=hr.Replace())
    hr.run(again)
    renamed = {"id": "postgres bigint", "on": "postgres date"}
    found = lake.inspect("again").schema
    assert found is not None
    assert found.origins == renamed
    (file,) = (tmp_path / "lake").glob("*.parquet")
    assert json.loads(pq.read_metadata(file).metadata[b"headrace.origins"]) == renamed


@pytest.mark.parametrize(
    "more",
    [
        {"transforms": (hr.sql("SELECT id, day + 1 AS day FROM source"),)},
        {"contract": hr.Contract(columns={"day": hr.Column(type="datetime(us)"), "id": hr.Column(type="int64")})},
    ],
)
def test_what_a_transform_or_a_contract_makes_of_a_column_has_no_origin(tmp_path: Path, more: dict[str, Any]) -> None:
    one = pipeline(tmp_path, "2024-01-31", **more)
    hr.run(one)
    schema = one.destination.inspect("dated").schema
    assert schema is not None
    assert "day" not in schema.origins


def test_what_a_transform_only_passes_on_keeps_its_origin_unless_the_sources_contract_has_typed_it(
    tmp_path: Path,
) -> None:
    steps = (hr.sql("SELECT id AS key, day FROM source"), hr.python(lambda rows: rows.filter(pl.col("key") < 9)))
    one = pipeline(tmp_path, "2024-01-31", transforms=steps)
    object.__setattr__(one.source, "contract", hr.Contract(columns={"day": hr.Column(type="date")}))
    hr.run(one)
    schema = one.destination.inspect("dated").schema
    assert schema is not None
    assert schema.origins == {"key": "postgres bigint"}

"""Two pipelines that write one table: neither takes the other's rows away, and readers see what both have written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import headrace as hr
from headrace.systems.memory import MemoryDestination, MemorySource


def pipeline(name: str, destination: object, ids: list[int], write: hr.Write | None = None) -> hr.Pipeline:
    source = MemorySource(frames=[pl.DataFrame({"id": ids})], name=name)
    return hr.Pipeline(name=name, source=source, destination=destination, write=write or hr.Append())


def ids(pipeline: hr.Pipeline) -> list[int]:
    scan = pipeline.destination.inspect(pipeline.name).scan
    assert scan is not None
    return sorted(scan().collect()["id"])


@pytest.fixture(params=["duckdb", "parquet", "memory"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    match request.param:
        case "duckdb":
            return hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t", adopt=True)
        case "parquet":
            return hr.ParquetDestination(path=str(tmp_path / "lake"), adopt=True)
    return MemoryDestination(adopt=True)


def test_a_load_that_would_take_another_pipelines_rows_away_is_refused_in_the_plan_too(shared):
    a, b = pipeline("a", shared, [1]), pipeline("b", shared, [2])
    hr.run(a)
    hr.run(b)
    replacing = pipeline("b", shared, [3], hr.Replace())
    for load, fresh in ((a, True), (b, True), (replacing, False)):
        for verb in (hr.plan, hr.run):
            with pytest.raises(hr.ConfigError, match=r"would take away what '[ab]' loaded") as refused:
                verb(load, full_refresh=fresh)
            assert "table of its own" in refused.value.hint
    assert ids(a) == [1, 2]
    assert hr.run(a).status == "nothing_new"


@pytest.mark.parametrize("write", [hr.Partitions(by=("day",)), hr.Recompute(by=("day",))], ids=lambda write: write.type)
def test_a_part_that_would_be_replaced_may_hold_another_pipelines_rows(place, write):
    """Before the others, or after them; also where only the groups that new rows touch are replaced."""
    adopted = place.duckdb(adopt=True)
    place.write("1.csv", "day,v\n1,a\n2,b\n")
    mine = place.pipeline(destination=adopted, write=write)
    hr.run(mine)
    other = MemorySource(frames=[pl.DataFrame({"day": [1], "v": ["other"]})])
    hr.run(place.pipeline(name="other", source=other, destination=adopted, write=hr.Append()))
    place.write("2.csv", "day,v\n1,c\n")
    late = place.pipeline(name="late", destination=adopted, write=write)
    for one, others in ((mine, "'other'"), (late, "'orders', 'other'")):
        for verb in (hr.plan, hr.run):
            with pytest.raises(hr.ConfigError, match=f"this {write.type} would take away what {others} loaded"):
                verb(one)
    assert place.rows(mine, ["day", "v"]) == [(1, "a"), (1, "other"), (2, "b")]


def test_a_table_removed_by_hand_begins_anew_for_all_its_pipelines(tmp_path):
    """The way out of the refusal."""
    target = hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t", adopt=True)
    a, b = pipeline("a", target, [1]), pipeline("b", target, [2])
    hr.run(a)
    hr.run(b)
    with duckdb.connect(tmp_path / "w.duckdb") as connection:
        connection.execute("DROP TABLE t")
    hr.run(a, full_refresh=True)
    assert ids(a) == [1]
    hr.run(b)
    assert ids(a) == [1, 2]


def test_a_table_source_reads_again_whoever_has_written_the_table(shared, tmp_path):
    a, b = pipeline("a", shared, [1]), pipeline("b", shared, [2])
    reader = hr.Pipeline(
        name="c",
        source=hr.TableSource(of="a", destination=shared),
        destination=MemoryDestination(),
        write=hr.Replace(),
    )
    hr.run(a)
    hr.run(reader)
    assert hr.run(reader).status == "nothing_new"
    hr.run(b)
    assert hr.run(reader).status == "loaded"
    assert ids(reader) == [1, 2]


def test_the_rows_read_of_a_table_are_those_before_a_filter_that_is_pushed_down(shared):
    hr.run(pipeline("a", shared, [1, 2, 3]))
    reader = hr.Pipeline(
        name="c",
        source=hr.TableSource(of="a", destination=shared),
        transforms=(hr.sql("SELECT id FROM source WHERE id > 2"),),
        destination=MemoryDestination(),
        write=hr.Recompute(by=("id",)),
    )
    assert hr.run(reader).commits[0].read["source"]["rows"] == 3
    assert ids(reader) == [3]
    none = replace(reader, transforms=(hr.sql("SELECT id FROM source WHERE id > 9"),))
    assert hr.run(none).commits[0].read["source"]["rows"] == 3  # a source that is empty would be refused
    assert ids(none) == []


def test_a_table_that_was_made_anew_is_read_again(tmp_path):
    """Its last commit has the same number, and is another one."""
    out = MemoryDestination()
    for folder, rows in (("one", [1, 2]), ("two", [7, 8])):
        target = hr.DuckDBDestination(path=str(tmp_path / f"{folder}.duckdb"), table="t")
        hr.run(pipeline("a", target, rows))
        reader = hr.Pipeline(
            name="c", source=hr.TableSource(of="a", destination=target), destination=out, write=hr.Replace()
        )
        assert hr.run(reader).status == "loaded"
        assert ids(reader) == rows


@pytest.mark.parametrize(("rename", "said"), [({"nam": "x"}, "did you mean 'name'"), ({"name": "id"}, "called 'id'")])
def test_a_rename_that_does_not_fit_the_table_is_refused(place, rename, said):
    place.write("1.csv", "id,name\n1,a\n")
    first = place.pipeline()
    hr.run(first)
    source = hr.TableSource(of="orders", destination=first.destination, rename=rename)
    with pytest.raises(hr.ConfigError, match=said):
        hr.run(place.pipeline(name="b", source=source, destination=place.duckdb("b"), write=hr.Replace()))


@pytest.mark.parametrize("look", [hr.plan, hr.check])
def test_a_plan_refuses_what_a_run_would_not_take_over(place: Any, look: Callable[[hr.Pipeline], Any]) -> None:
    place.write("1.csv", "id,v\n1,a\n")
    with duckdb.connect(str(place.folder / "w.duckdb")) as connection:
        connection.execute("CREATE TABLE orders (id BIGINT, v VARCHAR)")
    with pytest.raises(hr.ConfigError, match="headrace did not make it") as planned:
        look(place.pipeline())
    with pytest.raises(hr.ConfigError) as ran:
        hr.run(place.pipeline())
    assert (planned.value.message, planned.value.hint) == (ran.value.message, ran.value.hint)
    look(place.pipeline(destination=place.duckdb(adopt=True)))
    hr.run(place.pipeline(destination=place.duckdb(adopt=True)))
    with pytest.raises(hr.ConfigError, match="is written by pipeline 'orders'"):
        look(place.pipeline(name="other"))

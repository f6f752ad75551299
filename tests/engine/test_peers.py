"""What users of other tools have reported, as tests: each is somebody's real issue, named as in the list of them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest

import headrace as hr


def test_an_increment_with_no_new_rows_does_not_truncate_the_target(place):
    place.write("1.csv", "id,v\n1,a\n")
    for write in (hr.Replace(), hr.Merge(keys=("id",)), hr.Partitions(by=("id",)), hr.Recompute(by=("id",))):
        pipeline = place.pipeline(write=write, destination=place.duckdb(write.type), name=write.type)
        assert hr.run(pipeline).status == "loaded"
        assert hr.run(pipeline).status == "nothing_new"
        assert place.rows(pipeline) == [(1, "a")]


def test_a_replace_that_fails_leaves_the_table_as_it_was(place):
    place.write("1.csv", "id,v\n1,a\n")
    pipeline = place.pipeline(write=hr.Replace())
    hr.run(pipeline)
    place.write("2.csv", "id,v\n2,b\n3\n")
    with pytest.raises(hr.ContractError, match=r"2\.csv:3"):
        hr.run(pipeline)
    assert place.rows(pipeline) == [(1, "a")]


def test_a_replace_by_nothing_is_refused_unless_it_is_allowed(place):
    file = place.write("1.csv", "id,v\n1,a\n")
    pipeline = place.pipeline(write=hr.Replace(), files={"read": "all"})
    hr.run(pipeline)
    file.write_text("id,v\n")
    with pytest.raises(hr.DataError):
        hr.run(pipeline)
    assert place.rows(pipeline) == [(1, "a")]
    hr.run(place.pipeline(write=hr.Replace(allow_empty=True), files={"read": "all", "types": {"id": "int64"}}))
    assert place.rows(pipeline) == []


def test_two_runs_of_one_pipeline_at_once_neither_lose_nor_double_rows(place):
    place.write("1.csv", "id,v\n" + "".join(f"{i},x\n" for i in range(20_000)))
    pipeline = place.pipeline(write=hr.Append())
    ended: list[object] = []

    def one() -> None:
        try:
            ended.append(hr.run(pipeline).status)
        except hr.ConflictError as error:
            ended.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "loaded" in ended
    conflicts = [e for e in ended if isinstance(e, hr.ConflictError)]
    for conflict in conflicts:
        for word in ("PID", "since"):
            assert word in str(conflict)
    assert len(place.rows(pipeline)) == 20_000


def test_a_second_run_waits_for_the_first(place):
    place.write("1.csv", "id,v\n1,a\n")
    pipeline = place.pipeline(write=hr.Append())
    inside, leave = threading.Event(), threading.Event()

    class Slow:
        run = "first"

    def hold() -> None:
        with pipeline.destination.hold("orders", Slow()):
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(20)
    with pytest.raises(hr.ConflictError):
        hr.run(pipeline)
    timer = threading.Timer(0.3, leave.set)
    timer.start()
    assert hr.run(pipeline, wait=20).status == "loaded"
    thread.join()
    timer.join()


def test_a_first_batch_whose_cursor_is_all_null_does_not_close_the_source(place):
    files = {"cursor": "at", "types": {"at": "datetime(us)"}}
    pipeline = place.pipeline(files=files, contract=hr.Contract(on_violation="quarantine"))
    place.write("1.csv", "id,at\n1,\n")
    hr.run(pipeline)
    place.write("2.csv", "id,at\n2,2024-01-01T00:00:00\n")
    assert hr.run(pipeline).status == "loaded"
    assert [row[0] for row in place.rows(pipeline)] == [2]


def test_rows_with_a_null_cursor_are_never_lost_silently(place):
    place.write("1.csv", "id,at\n1,2024-01-01T00:00:00\n2,\n")
    with pytest.raises(hr.ContractError, match=r"1\.csv:3 \(cursor"):
        hr.run(place.pipeline(files={"cursor": "at"}))
    kept = place.pipeline(files={"cursor": "at"}, contract=hr.Contract(on_violation="quarantine"))
    hr.run(kept)
    assert [row[0] for row in place.rows(kept)] == [1]
    assert hr.rejects(kept).height == 1


@pytest.mark.parametrize("write", [hr.Append(), hr.Merge(keys=("id",))])
def test_ties_of_the_cursor_are_neither_lost_nor_doubled(place, write):
    pipeline = place.pipeline(files={"cursor": "at"}, write=write)
    place.write("1.csv", "id,at\n1,2024-01-01T00:00:00.000001Z\n2,2024-01-01T00:00:00.000002Z\n")
    hr.run(pipeline)
    place.write("2.csv", "id,at\n3,2024-01-01T00:00:00.000002Z\n")
    hr.run(pipeline)
    hr.run(pipeline)
    assert [row[0] for row in place.rows(pipeline)] == [1, 2, 3]


def test_the_cursor_keeps_its_microseconds_and_its_zone(place):
    texts = ["2024-03-31T00:59:59.999999Z", "2024-03-31T01:00:00.000000Z", "2024-03-31T01:00:00.000001Z"]
    pipeline = place.pipeline(files={"cursor": "at", "types": {"at": "datetime(us, Europe/Berlin)"}}, write=hr.Append())
    for n, text in enumerate(texts):
        place.write(f"{n}.csv", f"id,at\n{n},{text}\n")
        hr.run(pipeline)
    rows = place.frame(pipeline)
    assert rows["id"].to_list() == [0, 1, 2]
    assert rows["at"].dt.convert_time_zone("UTC").to_list() == [datetime.fromisoformat(t) for t in texts]


def test_rows_at_midnight_fall_into_no_gap(place):
    pipeline = place.pipeline(files={"cursor": "at"}, write=hr.Append())
    for n, at in enumerate(("2023-12-31T23:59:59.999999", "2024-01-01T00:00:00", "2024-01-01T00:00:00.000001")):
        place.write(f"{n}.csv", f"id,at\n{n},{at}\n")
        hr.run(pipeline)
    assert [row[0] for row in place.rows(pipeline)] == [0, 1, 2]


def test_the_greatest_cursor_and_the_rows_come_from_one_snapshot(place):
    """Rows that are committed while the source is being read are of the next run, not of none."""
    path = place.folder / "source.duckdb"
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE t AS SELECT 1::BIGINT AS id, 1::BIGINT AS moved")
    pipeline = place.pipeline(source=hr.DuckDBSource(path=str(path), table="t", cursor="moved"), write=hr.Append())
    for n in range(2, 6):
        hr.run(pipeline)
        with duckdb.connect(path) as con:
            con.execute("INSERT INTO t VALUES (?, ?)", [n, n // 2])
    hr.run(pipeline)
    assert 1 in [row[0] for row in place.rows(pipeline)]
    assert len(place.rows(pipeline)) == len({row[0] for row in place.rows(pipeline)})


def test_a_decimals_point_does_not_move_and_special_floats_stay(place):
    place.write("1.csv", "id,d,f\n1,0.01,NaN\n2,-12345678901234567890123456789012.123456,inf\n3,1E-6,-inf\n")
    types = {"d": "decimal(38,6)", "f": "float64"}
    for destination in (place.duckdb(), place.parquet()):
        pipeline = place.pipeline(files={"types": types}, destination=destination, write=hr.Append())
        hr.run(pipeline)
        frame = place.frame(pipeline)
        assert frame["d"].to_list() == [
            Decimal("0.010000"), Decimal("-12345678901234567890123456789012.123456"), Decimal("0.000001")
        ]  # fmt: skip
        assert [str(v) for v in frame["f"]] == ["nan", "inf", "-inf"]


def test_a_delete_and_an_insert_of_one_compound_key_in_one_batch(place):
    write = hr.Merge(keys=("a", "b"), latest_by=("at",), delete_when="op = 'D'")
    pipeline = place.pipeline(write=write)
    place.write("1.csv", "a,b,at,op\n1,x,1,I\n1,y,1,I\n")
    hr.run(pipeline)
    place.write("2.csv", "a,b,at,op\n1,x,2,D\n1,x,3,I\n1,y,3,I\n1,y,4,D\n")
    hr.run(pipeline)
    assert place.rows(pipeline, "a") == [(1, "x", 3, "I")]


def test_huge_row_groups_are_not_written(place):
    import pyarrow.parquet as pq

    place.write("1.csv", "id,v\n" + "".join(f"{i},{'x' * 50}\n" for i in range(60_000)))
    pipeline = place.pipeline(
        destination=hr.ParquetDestination(path=str(place.folder / "lake"), row_group_bytes="1MB"), write=hr.Append()
    )
    hr.run(pipeline)
    groups = [
        pq.ParquetFile(file).metadata.row_group(n).total_byte_size
        for file in (place.folder / "lake").glob("*.parquet")
        for n in range(pq.ParquetFile(file).metadata.num_row_groups)
    ]
    assert len(groups) > 1


def test_ragged_rows_duplicate_headers_and_a_schema_that_widens_in_mid_file(place):
    place.write("1.csv", "id,v\n1,a\n2\n")
    with pytest.raises(hr.ContractError, match=r"1\.csv:3 \(too few fields"):
        hr.run(place.pipeline())
    (place.folder / "in" / "1.csv").write_text("id,v,v\n1,a,b\n")
    with pytest.raises(hr.HeadraceError, match="'v'"):
        hr.run(place.pipeline())
    (place.folder / "in" / "1.csv").write_text("id,v\n" + "1,1\n" * 5 + "2,1.5\n")
    with pytest.raises(hr.ContractError, match=r"1\.csv:7 \(v: not exactly int64"):
        hr.run(place.pipeline(files={"infer": 3}))
    pipeline = place.pipeline(files={"infer": "all"})
    hr.run(pipeline)
    assert place.rows(pipeline) == [(1, 1.0), (2, 1.5)]


def test_in_a_history_a_row_that_was_deleted_and_inserted_again_comes_back(place):
    write = hr.History(keys=("id",), latest_by=("at",), close_absent=True)
    pipeline = place.pipeline(write=write, files={"read": "all", "types": {"at": "datetime(us)"}})
    file = place.write("1.csv", "id,v,at\n1,a,2024-01-01\n2,b,2024-01-01\n".replace("-01\n", "-01T00:00:00\n"))
    hr.run(pipeline)
    file.write_text("id,v,at\n1,a,2024-01-01T00:00:00\n")
    hr.run(pipeline)
    file.write_text("id,v,at\n1,a,2024-01-01T00:00:00\n2,b,2024-02-01T00:00:00\n")
    hr.run(pipeline)
    frame = place.frame(pipeline, ["id", "valid_from"])
    two = frame.filter(pl.col("id") == 2)
    assert two.height == 2
    assert two["valid_to"].null_count() == 1


def test_a_failure_late_in_a_run_does_not_throw_the_hours_before_it_away(place):
    for n in range(4):
        place.write(f"{n}.csv", f"id,v\n{n},{'broken' if n == 3 else n}\n")
    pipeline = place.pipeline(write=hr.Append(), commit_every=1, files={"types": {"v": "int64"}})
    with pytest.raises(hr.ContractError):
        hr.run(pipeline)
    assert place.rows(pipeline) == [(0, 0), (1, 1), (2, 2)]
    (place.folder / "in" / "3.csv").write_text("id,v\n3,3\n")
    hr.run(pipeline)
    assert place.rows(pipeline) == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_an_orchestrator_can_tell_what_was_loaded(place, command):
    import json

    place.write("1.csv", "id,v\n1,a\n2,b\n")
    (place.folder / "orders.json").write_text(
        '{"name": "orders", "source": {"type": "files", "path": "in/*.csv"},'
        ' "destination": {"type": "duckdb", "path": "w.duckdb", "table": "orders"}, "write": "append"}'
    )
    code, out, _ = command("run", place.folder / "orders.json", "--json")
    assert code == 0
    (run,) = json.loads(out)["runs"]
    assert (run["status"], run["counts"]["rows"]) == ("loaded", 2)
    code, out, _ = command("run", place.folder / "orders.json", "--json")
    assert json.loads(out)["runs"][0]["status"] == "nothing_new"


def test_an_older_row_that_comes_late_does_not_overwrite_a_newer_one(place):
    pipeline = place.pipeline(write=hr.Merge(keys=("id",), latest_by=("at",)))
    place.write("1.csv", "id,v,at\n1,new,2\n")
    hr.run(pipeline)
    place.write("2.csv", "id,v,at\n1,late,1\n")
    hr.run(pipeline)
    assert place.rows(pipeline) == [(1, "new", 2)]


def test_a_run_says_nothing_of_the_zone_of_this_machine(place, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    place.write("1.csv", "id,at\n1,2024-07-01T12:00:00Z\n")
    pipeline = place.pipeline()
    hr.run(pipeline)
    assert place.frame(pipeline)["at"].to_list() == [datetime(2024, 7, 1, 12, tzinfo=UTC)]


def test_nothing_is_left_beside_the_target(place):
    place.write("1.csv", "id,v\n1,a\n")
    hr.run(place.pipeline())
    assert sorted(p.name for p in Path(place.folder).iterdir()) == ["in", "w.duckdb"]


@pytest.mark.parametrize("first", [False, True])
def test_a_header_alone_fits_the_columns_that_there_are(place, first):
    source = hr.FileSource(path="in/1.csv", base=place.folder, read="all")
    pipeline = place.pipeline(source=source, write=hr.Replace(allow_empty=True))
    texts = ["id,v\n", "id,v\n1,1.5\n"][:: 1 if first else -1]
    for text in texts:
        place.write("1.csv", text)
        hr.run(pipeline)
    assert place.rows(pipeline) == ([(1, 1.5)] if first else [])
    assert [str(t) for t in place.frame(pipeline).dtypes] == ["Int64", "Float64"]


@pytest.mark.parametrize("first", [False, True])
def test_a_header_alone_among_new_files_is_no_type(place, first):
    pipeline = place.pipeline(write=hr.Append())
    for text in ["id,v\n", "id,v\n1,1.5\n"][:: 1 if first else -1]:
        place.write(f"{len(list((place.folder / 'in').iterdir()))}.csv", text)
        hr.run(pipeline)
    assert place.rows(pipeline) == [(1, 1.5)]

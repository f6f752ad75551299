"""What stays in quarantine and what leaves it, as sources are read on: a rejected row is never nowhere."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest

import headrace as hr
from headrace.cli.tables import history_text
from headrace.engine import quarantine

KEPT = hr.Contract(columns={"v": hr.Column(min=0)}, on_violation="quarantine")
LINES = "c,g,v\n1,a,1\n2,a,x\n,a,7\n3,b,-3\n4,b,4\n"


def by_cursor(place, write, **changes):
    files = {"cursor": "c", "types": {"v": "int64"}, "contract": KEPT}
    return place.pipeline(write=write, files=files, **changes)


def held(pipeline):
    return sorted((r["stage"], r["line"]) for r in hr.rejects(pipeline).to_dicts())


ALL = [("contract", 5), ("cursor", 4), ("parse", 3)]


@pytest.mark.parametrize("write", [hr.Append(), hr.Merge(keys=("c",))])
def test_rejects_below_the_cursor_stay_when_their_file_grows(place, write):
    pipeline = by_cursor(place, write)
    place.write("1.csv", LINES)
    hr.run(pipeline)
    assert held(pipeline) == ALL
    place.write("1.csv", LINES + "5,b,5\n")
    hr.run(pipeline)
    assert held(pipeline) == ALL
    place.write("1.csv", LINES.replace("x", "2").replace("\n,a", "\n0,a") + "5,b,5\n6,b,6\n")
    hr.run(pipeline)
    assert held(pipeline) == [("contract", 5)]  # a line that reads now, and a cursor that is there, are told anew


@pytest.mark.parametrize(
    ("write", "step"),
    [
        (hr.Recompute(by=("g",)), hr.sql("SELECT g, sum(v)::BIGINT AS s FROM source GROUP BY g")),
        (hr.Replace(), hr.sql("SELECT * FROM source")),
    ],
)
def test_what_is_read_whole_by_a_cursor_tells_all_its_rejects_anew(place, write, step):
    pipeline = by_cursor(place, write, transforms=(step,))
    place.write("1.csv", LINES)
    hr.run(pipeline)
    place.write("2.csv", "c,g,v\n6,b,6\n")
    report = hr.run(pipeline)
    assert report.status == "loaded"
    assert held(pipeline) == ALL


def test_rejects_of_the_result_go_when_all_files_are_read_again(place):
    pipeline = place.pipeline(files={"changed": "reread"}, contract=KEPT)
    place.write("1.csv", "id,v\n1,-5\n2,5\n")
    hr.run(pipeline)
    assert hr.rejects(pipeline).height == 1
    place.write("1.csv", "id,v\n2,6\n")
    hr.run(pipeline)
    assert hr.rejects(pipeline).is_empty()


def test_rejects_of_the_result_stay_when_other_files_are_not_read_again(place):
    pipeline = place.pipeline(files={"changed": "reread"}, contract=KEPT)
    place.write("1.csv", "id,v\n1,-5\n2,5\n")
    place.write("2.csv", "id,v\n3,-5\n")
    hr.run(pipeline)
    place.write("1.csv", "id,v\n2,6\n")
    hr.run(pipeline)
    assert hr.rejects(pipeline)["key"].sort().to_list() == ['["1"]', '["3"]']  # nobody can tell which file has them


def test_rejects_of_the_result_stay_from_one_commit_of_a_run_to_the_next(place):
    pipeline = place.pipeline(contract=KEPT, commit_every="1B")
    for n in (1, 2, 3):
        place.write(f"{n}.csv", f"id,v\n{n},-5\n")
    hr.run(pipeline)
    assert hr.rejects(pipeline).height == 3


@pytest.mark.parametrize("refresh", [False, True])
def test_a_reject_that_a_replay_has_appended_does_not_come_back(place, refresh, tmp_path):
    pipeline = place.pipeline(
        write=hr.Append(),
        files={"cursor": "c", "types": {"v": "int64"}, "contract": hr.Contract(on_violation="quarantine")},
    )
    place.write("1.csv", "c,v\n1,1\n,2\n3,x\n")
    hr.run(pipeline)
    from headrace.engine.quarantine import export

    fixed = tmp_path / "fixed.csv"
    export(hr.rejects(pipeline)).with_columns(raw=pl.col("raw").replace("3,x", "3,3")).write_csv(fixed)
    hr.replay(pipeline, fixed=fixed)
    assert place.rows(pipeline, "v") == [(1, 1), (None, 2), (3, 3)]
    place.write("1.csv", "c,v\n1,1\n,2\n3,x\n5,5\n")
    hr.run(pipeline, full_refresh=refresh)
    # an emptied table has lost what was replayed: then they are rejects again
    assert hr.rejects(pipeline).height == (2 if refresh else 0)
    hr.replay(pipeline)
    assert place.rows(pipeline, "v").count((None, 2)) == 1


def test_a_reject_that_fails_its_replay_keeps_its_place_and_comes_back(place):
    pipeline = place.pipeline(write=hr.Append(), files={"types": {"v": "int64"}, "contract": KEPT})
    place.write("1.csv", "id,v\n1,-1\n2,x\n")
    hr.run(pipeline)
    before = hr.rejects(pipeline).sort("id")
    hr.replay(pipeline)
    assert hr.rejects(pipeline).sort("id").equals(before)
    assert not pipeline.destination.inspect("orders").loaded


@pytest.mark.parametrize("where", ["source", "result"])
def test_an_update_of_the_row_at_the_cursors_end_breaks_no_unique_key(place, where):
    unique = hr.Contract(columns={"id": hr.Column(unique=True)})
    files = {"cursor": "u", **({"contract": unique} if where == "source" else {})}
    pipeline = place.pipeline(files=files, contract=unique if where == "result" else None)
    place.write("1.csv", "id,u\n1,1\n2,2\n")
    hr.run(pipeline)
    place.write("2.csv", "id,u\n2,3\n")
    hr.run(pipeline)
    assert place.rows(pipeline) == [(1, 1), (2, 3)]
    place.write("3.csv", "id,u\n4,4\n4,4\n")  # two rows of one version: which of them is meant?
    with pytest.raises(hr.ContractError, match="unique"):
        hr.run(pipeline)


STEP = hr.sql("SELECT id, v FROM source")


@pytest.fixture(params=["duckdb", "parquet"])
def log(place, request):
    """Appends without keys, of which a row may come twice: its rejects have no place, since a step has lost it."""
    destination = getattr(place, request.param)()
    return place.pipeline(transforms=(STEP,), contract=KEPT, destination=destination, write=hr.Append())


def test_an_equal_row_of_a_later_append_is_a_reject_of_its_own(place, log):
    place.write("1.csv", "id,v\n1,-5\n1,-5\n")
    hr.run(log)
    place.write("2.csv", "id,v\n1,-5\n")
    assert hr.run(log).counts["rejected"] == 1
    assert hr.rejects(log)["id"].n_unique() == 3
    relaxed = dataclasses.replace(log, contract=None)
    hr.replay(relaxed)
    assert place.rows(log) == [(1, -5)] * 3
    place.write("3.csv", "id,v\n1,-5\n")
    hr.run(log)  # it is not the row that has been loaded
    assert hr.rejects(log).height == 1
    hr.discard(log, reason="test")
    place.write("4.csv", "id,v\n1,-5\n")
    hr.run(log)  # nor the one that was given up
    assert hr.rejects(log).height == 1


def test_one_of_equal_rejects_that_is_taken_again_is_the_reject_that_it_was(place, log):
    place.write("1.csv", "id,v\n1,-5\n1,-5\n")
    hr.run(log)
    before = hr.rejects(log)["id"].sort().to_list()
    file = place.folder / "fixed.csv"
    for id in before:
        file.write_text(f"id,row.id,v\n{id},1,-5\n")
        assert hr.replay(log, fixed=file).status == "nothing_new"
        assert hr.rejects(log)["id"].sort().to_list() == before
    file.write_text(f"id,row.id,v\n{before[1]},1,-6\n")
    hr.replay(log, fixed=file)
    assert place.rows(log) == []
    assert hr.rejects(log)["row"].sort().to_list() == ['{"id": "1", "v": "-5"}', '{"id": "1", "v": "-6"}']


@pytest.mark.parametrize("action", ["fail", "quarantine", "drop"])
@pytest.mark.parametrize("target", ["duckdb", "parquet"])
def test_a_full_refresh_is_not_judged_by_the_rows_that_go(place, target, action):
    once = hr.Contract(columns={"id": hr.Column(unique=True)}, on_violation=action)
    pipeline = place.pipeline(contract=once, destination=getattr(place, target)(), write=hr.Append())
    place.write("1.csv", "id,v\n1,1\n2,2\n")
    hr.run(pipeline)
    hr.run(pipeline, full_refresh=True)
    assert place.rows(pipeline) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("target", ["duckdb", "parquet"])
def test_a_new_column_may_be_unique(place, target):
    pipeline = place.pipeline(destination=getattr(place, target)(), write=hr.Append())
    place.write("1.csv", "id,v\n1,1\n")
    hr.run(pipeline)
    once = hr.Contract(unique=(("v", "code"),), columns={"code": hr.Column(unique=True)}, on_violation="quarantine")
    pipeline = dataclasses.replace(pipeline, contract=once)
    place.write("2.csv", "id,v,code\n2,1,a\n3,1,b\n")
    hr.run(pipeline)
    place.write("3.csv", "id,v,code\n4,1,b\n5,2,c\n")
    hr.run(pipeline)
    assert place.frame(pipeline)["id"].to_list() == [1, 2, 3, 5]
    assert hr.rejects(pipeline)["row"].str.json_path_match("$.id").to_list() == ["4"]


def test_dropped_rows_are_counted_in_the_report_the_events_and_the_history(place):
    place.write("a.csv", "id,v\n1,5\n2,-1\n3,-2\n")
    contract = hr.Contract(rules={"positive": "v > 0"}, on_violation="drop")
    seen = []
    pipeline = place.pipeline(contract=contract)
    report = hr.run(pipeline, observers=[seen.append])
    assert report.counts["dropped"] == 2
    assert "2 dropped" in str(report)
    assert [e.dropped for e in seen if type(e).__name__ == "CommitApplied"] == [2]
    assert "dropped" in history_text(hr.history(pipeline))


def moved(place):
    """A folder's files with a rejected line and a rejected row, and the pipeline with paths of a folder above it."""
    (place.folder / "in/x").mkdir()
    place.write("x/1.csv", "id,v\n1,1\n2,-5\n3,x\n")
    types = {"types": {"v": "int64"}}
    before = hr.FileSource(path="in/x/*.csv", base=place.folder, **types)
    hr.run(place.pipeline(source=before, contract=KEPT, write=hr.Append()))
    after = hr.FileSource(path="in/*/*.csv", base=place.folder, **types)
    loose = hr.Contract(on_violation="quarantine")
    return place.pipeline(source=after, contract=loose, write=hr.Append(), was="source")


def test_a_replay_leaves_files_the_names_that_they_have_though_their_paths_have_changed(place):
    """The position says from where they are named, seen from the paths of its own time: both stay, or both move."""
    pipeline = moved(place)
    assert hr.replay(pipeline).status == "loaded"
    assert hr.run(pipeline).status == "nothing_new"
    assert place.rows(pipeline) == [(1, 1), (2, -5)]


def test_a_mended_line_finds_its_file_though_its_path_has_changed(place, tmp_path):
    pipeline = moved(place)
    fixed = tmp_path / "fixed.csv"
    lines = quarantine.export(hr.rejects(pipeline)).filter(pl.col("stage") == "parse")
    lines.with_columns(raw=pl.lit("3,3")).write_csv(fixed)
    assert quarantine.replay(pipeline, fixed=fixed).status == "loaded"
    assert place.rows(pipeline) == [(1, 1), (3, 3)]

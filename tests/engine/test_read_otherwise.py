"""What a row of a source is may change in the config: writes that see everything then write all anew."""

from __future__ import annotations

import pytest

import headrace as hr
from headrace.engine import sealing

SUM = hr.sql("SELECT city, count(*) AS n FROM source GROUP BY city")
BY_CITY = hr.Recompute(by=("city",))


def groups(pipeline):
    return hr.plan(pipeline).to_dict()["write"]["groups"]


OTHERWISE = {
    "nulls": ({}, {"nulls": ("9",)}),
    "types": ({}, {"types": {"v": "float64"}}),
    "rename": ({}, {"rename": {"v": "w", "w": "v"}}),
    "skip_rows": ({}, {"skip_rows": 1, "header": ("id", "city", "v", "w")}),
    "latest": ({"latest": hr.Latest(keys=("id",))}, {"latest": hr.Latest(keys=("id",), by=("v",))}),
}


@pytest.mark.parametrize("write", [BY_CITY, hr.Replace()])
@pytest.mark.parametrize("case", OTHERWISE)
def test_all_is_written_anew_where_a_source_is_read_otherwise(place, write, case):
    """Else the groups of the next new file alone would be right."""
    place.write("1.csv", "id,city,v,w\n1,Ulm,9,1\n1,Ulm,1,2\n2,Bonn,9,3\n2,Bonn,1,4\n")
    newest = hr.sql("SELECT city, max(v)::VARCHAR AS v, count(v) AS n FROM source GROUP BY city")
    before, after = (place.pipeline(transforms=(newest,), write=write, files=files) for files in OTHERWISE[case])
    hr.run(before)
    assert hr.run(before).status == "nothing_new"
    assert hr.plan(after).status == "load"
    hr.run(after)
    parts = {"transforms": (newest,), "write": write, "files": OTHERWISE[case][1]}
    wanted = place.pipeline(name="full", destination=place.duckdb("full"), **parts)
    hr.run(wanted)
    assert place.rows(after, "city") == place.rows(wanted, "city")
    assert hr.run(after).status == "nothing_new"


def test_where_and_when_a_source_is_read_changes_no_row(place):
    place.write("1.csv", "id,city\n1,Ulm\n")
    hr.run(place.pipeline(transforms=(SUM,), write=BY_CITY))
    more = {"allow_missing": True, "changed": "reread"}
    assert hr.plan(place.pipeline(transforms=(SUM,), write=BY_CITY, files=more)).status == "nothing_new"


def test_a_ledger_that_does_not_tell_how_its_sources_were_read_goes_on(place, monkeypatch):
    place.write("1.csv", "id,city\n1,Ulm\n")
    pipeline = place.pipeline(transforms=(SUM,), write=BY_CITY, files={"nulls": ("x",)})
    with monkeypatch.context() as earlier:
        whole = sealing.fingerprint
        told = ("config", "transforms")
        earlier.setattr(sealing, "fingerprint", lambda one: {k: v for k, v in whole(one).items() if k in told})
        hr.run(pipeline)
    assert hr.run(pipeline).status == "nothing_new"
    place.write("2.csv", "id,city\n2,Bonn\n")
    assert groups(pipeline) == "those that the new rows touch"
    hr.run(pipeline)
    assert "how 'source' is read" in groups(place.pipeline(transforms=(SUM,), write=BY_CITY))


def test_a_merge_says_that_its_source_is_read_otherwise(place):
    place.write("1.csv", "id,v\n1,1\n")
    hr.run(place.pipeline())
    changed = place.pipeline(files={"nulls": ("1",)})
    assert any("how 'source' is read has changed" in w for w in hr.plan(changed).warnings)

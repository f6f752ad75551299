"""A history's versions are nowhere else: nothing takes them away, or for rows of its own, unless that is meant."""

from __future__ import annotations

import duckdb
import pytest

import headrace as hr

VERSIONS = hr.History(keys=("id",))


def test_a_full_refresh_of_a_history_that_was_taken_over_wants_to_be_meant(place):
    place.write("1.csv", "id,v\n1,newest\n")
    with duckdb.connect(place.folder / "w.duckdb") as con:
        con.execute("CREATE TABLE orders (id BIGINT, v VARCHAR, valid_from TIMESTAMPTZ, valid_to TIMESTAMPTZ)")
        con.execute("INSERT INTO orders VALUES (1, 'old', '2000-01-01', '2010-01-01'), (1, 'new', '2010-01-01', NULL)")
    taken = place.pipeline(write=VERSIONS, destination=place.duckdb(adopt=True))
    assert any("--discard-history" in warning for warning in hr.plan(taken, full_refresh=True).warnings)
    with pytest.raises(hr.ConfigError, match="would lose the versions"):
        hr.run(taken, full_refresh=True)
    assert len(place.rows(taken)) == 2


@pytest.mark.parametrize("target", ["duckdb", "memory"])
@pytest.mark.parametrize("write", [hr.Merge(keys=("id",)), hr.Append(), hr.Replace()], ids=lambda write: write.type)
def test_another_write_neither_takes_a_historys_versions_for_rows_nor_loses_them(place, write, target):
    destination = hr.MemoryDestination() if target == "memory" else place.duckdb()
    versions, other = (place.pipeline(write=one, destination=destination) for one in (VERSIONS, write))
    for v in "ab":
        place.write(f"{v}.csv", f"id,v\n1,{v}\n")
        hr.run(versions)
    place.write("c.csv", "id,v\n1,c\n")
    for verb in (hr.plan, hr.check, hr.run):
        with pytest.raises(hr.ConfigError, match=f"versions that a history keeps, and {write.type} would") as refused:
            verb(other)
    assert "--full-refresh --discard-history" in refused.value.hint
    with pytest.raises(hr.ConfigError, match="would lose the versions"):
        hr.run(other, full_refresh=True)
    assert any("--discard-history" in warning for warning in hr.plan(other, full_refresh=True).warnings)
    hr.run(versions)
    assert sorted(v for _, v, *_ in place.rows(versions)) == ["a", "b", "c"]
    hr.run(other, full_refresh=True, discard_history=True)
    place.write("d.csv", "id,v\n1,d\n")
    hr.run(other)
    assert place.frame(other)["v"].to_list()[-1] == "d"


def test_a_history_whose_table_has_gone_has_no_versions_to_lose(place):
    place.write("1.csv", "id,v\n1,a\n")
    pipeline = place.pipeline(write=VERSIONS)
    hr.run(pipeline)
    with duckdb.connect(place.folder / "w.duckdb") as con:
        con.execute("DROP TABLE orders")
    hr.run(pipeline, full_refresh=True)
    assert len(place.rows(pipeline)) == 1

"""A recompute is what a full run gives, whatever became of the rows and the look-ups since."""

from __future__ import annotations

import sqlite3

import duckdb
import polars as pl
import pytest

import headrace as hr

SUM = hr.sql("SELECT city, count(*) AS n FROM source GROUP BY city")
BY_CITY = hr.Recompute(by=("city",))


def full(pipeline, place):
    """What a full run gives, in a target of its own."""
    anew = hr.Pipeline(
        **{f: getattr(pipeline, f) for f in pipeline.__dataclass_fields__ if f not in ("destination", "name")},
        name=pipeline.name,
        destination=hr.DuckDBDestination(path=str(place.folder / "full.duckdb"), table="t"),
    )
    hr.run(anew, full_refresh=True)
    return anew.destination.inspect(anew.name).scan().collect()


def agrees(pipeline, place, by):
    found = pipeline.destination.inspect(pipeline.name).scan().collect().sort(by)
    assert found.equals(full(pipeline, place).sort(by))
    return found


def groups(pipeline):
    return hr.plan(pipeline).to_dict()["write"]["groups"]


def test_rows_of_a_merged_table_that_move_or_go_leave_their_groups(place):
    place.write("1.csv", "id,city,ts,op\n1,Ulm,1,I\n2,Bonn,1,I\n3,Bonn,1,I\n")
    upstream = place.pipeline(write=hr.Merge(keys=("id",), latest_by=("ts",), delete_when="op = 'D'"))
    of = hr.TableSource(of="orders", destination=upstream.destination)
    sums = place.pipeline(name="sums", source=of, transforms=(SUM,), destination=place.duckdb("sums"), write=BY_CITY)
    hr.run(upstream)
    hr.run(sums)
    place.write("2.csv", "id,city,ts,op\n1,Kiel,2,U\n2,Bonn,2,D\n3,Bonn,2,D\n")
    hr.run(upstream)
    assert "read whole" in groups(sums)
    hr.run(sums)
    assert place.rows(sums, "city") == [("Kiel", 1)]
    assert hr.run(sums).status == "nothing_new"


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_rows_of_a_table_that_is_read_whole_may_move(place, kind):
    path = place.folder / "s.db"
    statements = ["CREATE TABLE t (id INTEGER, city TEXT)", "INSERT INTO t VALUES (1, 'Ulm'), (2, 'Bonn')"]

    def execute(*statements):
        with (sqlite3.connect if kind == "sqlite" else duckdb.connect)(path) as con:
            for statement in statements:
                con.execute(statement)

    execute(*statements)
    source = (hr.SQLiteSource if kind == "sqlite" else hr.DuckDBSource)(path=str(path), table="t")
    sums = place.pipeline(source=source, transforms=(SUM,), write=BY_CITY)
    hr.run(sums)
    execute("UPDATE t SET city = 'Kiel' WHERE id = 1")
    hr.run(sums)
    assert agrees(sums, place, "city").rows() == [("Bonn", 1), ("Kiel", 1)]
    execute("DELETE FROM t")
    with pytest.raises(hr.DataError, match="empty"):
        hr.run(sums)
    assert place.rows(sums, "city") == [("Bonn", 1), ("Kiel", 1)]


def test_a_look_up_that_changes_moves_rows_that_were_read_before(place):
    place.write("1.csv", "id,code\n1,U\n2,B\n")
    cities = place.folder / "cities.csv"
    cities.write_text("code,city\nU,Ulm\nB,Bonn\n")
    joined = hr.sql("SELECT city, count(*) AS n FROM orders JOIN cities USING (code) GROUP BY city")
    sources = {
        "orders": hr.FileSource(path="in/*.csv", base=place.folder),
        "cities": hr.FileSource(path="cities.csv", base=place.folder, read="all"),
    }
    sums = place.pipeline(sources=sources, transforms=(joined,), write=BY_CITY)
    hr.run(sums)
    assert hr.run(sums).status == "nothing_new"
    cities.write_text("code,city\nU,Kiel\nB,Bonn\n")
    assert "cities" in groups(sums)
    hr.run(sums)
    assert agrees(sums, place, "city").rows() == [("Bonn", 1), ("Kiel", 1)]
    assert hr.run(sums).status == "nothing_new"


@pytest.mark.parametrize("write", [BY_CITY, hr.Replace()])
def test_changed_transforms_are_applied_to_all_rows(place, write):
    place.write("1.csv", "id,city\n1,Ulm\n2,Bonn\n")
    before = place.pipeline(transforms=(SUM,), write=write)
    hr.run(before)
    assert hr.run(before).status == "nothing_new"
    after = place.pipeline(
        transforms=(hr.sql("SELECT upper(city) AS city, count(*) AS n FROM source GROUP BY ALL"),), write=write
    )
    assert hr.plan(after).status == "load"
    hr.run(after)
    assert place.rows(after, "city") == [("BONN", 1), ("ULM", 1)]
    assert hr.run(after).status == "nothing_new"


def test_changed_transforms_of_a_merge_are_told(place):
    place.write("1.csv", "id,v\n1,1\n")
    hr.run(place.pipeline())
    changed = place.pipeline(transforms=(hr.sql("SELECT id, v + 1 AS v FROM source"),))
    assert any("have changed" in w for w in hr.plan(changed).warnings)
    place.write("2.csv", "id,v\n2,2\n")
    assert any("have changed" in w for w in hr.run(changed).warnings)
    assert hr.plan(changed).warnings == ()


def test_a_file_read_again_leaves_no_group_behind(place):
    place.write("1.csv", "id,city\n1,Ulm\n2,Bonn\n")
    place.write("2.csv", "id,city\n3,Kiel\n")
    sums = place.pipeline(transforms=(SUM,), write=BY_CITY, files={"changed": "reread"})
    hr.run(sums)
    place.write("1.csv", "id,city\n2,Bonn\n")
    assert "read again" in groups(sums)
    hr.run(sums)
    assert agrees(sums, place, "city").rows() == [("Bonn", 1), ("Kiel", 1)]


def test_only_the_groups_that_are_touched_are_replaced(place):
    place.write("1.csv", "id,city\n1,Ulm\n2,Bonn\n")
    sums = place.pipeline(transforms=(SUM,), write=BY_CITY)
    assert "first load" in groups(sums)
    hr.run(sums)
    place.write("2.csv", "id,city\n3,Bonn\n")
    assert groups(sums) == "those that the new rows touch"
    report = hr.run(sums)
    assert report.counts["deleted"] == 1
    assert agrees(sums, place, "city").rows() == [("Bonn", 2), ("Ulm", 1)]


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([3_723_000_004_001, 18_000_000_000_002]).cast(pl.Time),
        pl.Series([-80_000_000, 80_000_000], dtype=pl.Int32).cast(pl.Date),
        pl.Series([1, 2], dtype=pl.Int64).cast(pl.Datetime("ns")),
        pl.Series([1_700_000_000_001, 1_720_000_000_002]).cast(pl.Datetime("ms", "UTC")),
        pl.Series([1_700_000_000_001, 1_720_000_000_002]).cast(pl.Datetime("us", "Europe/Berlin")),
        pl.Series([None, None], dtype=pl.Int64),
    ],
    ids=["time ns", "date beyond 9999", "datetime ns", "datetime ms UTC", "datetime Berlin", "null"],
)
def test_groups_are_moments_to_the_last_tick(place, values):
    frames = [pl.DataFrame({"g": values, "n": [1, 2]})]
    sums = place.pipeline(source=hr.MemorySource(frames=frames), write=hr.Recompute(by=("g",)))
    hr.run(sums)
    frames.append(pl.DataFrame({"g": values.head(1), "n": [3]}))
    hr.run(sums)
    assert sorted(place.frame(sums, "n")["n"]) == [1, 2, 3]
    agrees(sums, place, "n")


@pytest.mark.parametrize("target", ["duckdb", "parquet"])
@pytest.mark.parametrize("content", ["id,v\n", "id,v\n1,-1\n"], ids=["empty", "all rejected"])
def test_the_partition_of_a_file_read_again_is_replaced_though_no_row_is_left(place, target, content):
    place.write("1.csv", "id,v\n1,1\n")
    place.write("2.csv", "id,v\n2,2\n")
    pipeline = place.pipeline(
        files={"changed": "reread", "add_columns": {"_file": "file"}, "types": {"id": "int64", "v": "int64"}},
        contract=hr.Contract(columns={"v": hr.Column(min=0)}, on_violation="quarantine"),
        destination=getattr(place, target)(),
        write=hr.Partitions(by=("_file",)),
    )
    hr.run(pipeline)
    place.write("1.csv", content)
    hr.run(pipeline)
    assert place.frame(pipeline)["id"].to_list() == [2]


def test_a_merge_of_files_read_again_says_that_it_deletes_nothing(place):
    place.write("1.csv", "id,v\n1,1\n2,2\n")
    pipeline = place.pipeline(files={"changed": "reread"})
    assert hr.run(pipeline).warnings == ()
    place.write("1.csv", "id,v\n2,3\n")
    assert any("deletes nothing" in w for w in hr.plan(pipeline).warnings)


def test_a_file_that_grows_under_a_cursor_is_not_read_again(place):
    place.write("1.csv", "id,v\n1,1\n")
    pipeline = place.pipeline(files={"cursor": "id", "changed": "refuse"})
    hr.run(pipeline)
    place.write("1.csv", "id,v\n1,1\n2,2\n")
    assert hr.plan(pipeline).warnings == ()
    sums = place.pipeline(
        name="sums", files={"cursor": "id"}, destination=place.duckdb("sums"), write=hr.Recompute(by=("id",))
    )
    hr.run(sums)
    place.write("1.csv", "id,v\n1,1\n2,2\n3,3\n")
    assert groups(sums) == "those that the new rows touch"


@pytest.mark.parametrize("files", [{"cursor": "id"}, {"read": "all"}], ids=["cursor", "all"])
def test_only_a_file_that_has_changed_is_read_again(place, files):
    place.write("1.csv", "id,v\n1,1\n")
    pipeline = place.pipeline(files={**files, "changed": "reread"})
    hr.run(pipeline)
    place.write("2.csv", "id,v\n2,2\n")
    assert hr.plan(pipeline).warnings == ()
    place.write("1.csv", "id,v\n1,1\n3,3\n")
    assert any("read again" in w for w in hr.plan(pipeline).warnings)


def test_a_recompute_by_a_cursor_replaces_all_groups_only_where_a_file_has_changed(place):
    place.write("1.csv", "id,city\n1,Ulm\n2,Bonn\n")
    sums = place.pipeline(transforms=(SUM,), write=BY_CITY, files={"cursor": "id", "changed": "reread"})
    hr.run(sums)
    place.write("2.csv", "id,city\n3,Bonn\n")
    assert groups(sums) == "those that the new rows touch"
    place.write("1.csv", "id,city\n1,Kiel\n2,Bonn\n")
    assert "read again" in groups(sums)
    hr.run(sums)
    assert agrees(sums, place, "city").rows() == [("Bonn", 2), ("Kiel", 1)]


@pytest.mark.parametrize("former", ["a", "b"])
def test_a_row_leaves_its_group_though_another_source_knows_no_former_rows(place, former):
    for name in "ab":
        (place.folder / name).mkdir()
        (place.folder / name / "1.csv").write_text(f"id,city,n\n{name}1,Ulm,10\n{name}2,Bonn,1\n")
    latest = hr.Latest(keys=("id",), by=("file",))
    both = hr.sql("SELECT city, sum(n) AS n FROM (FROM a UNION ALL FROM b) GROUP BY city")
    sources = {
        name: hr.FileSource(path=f"{name}/*.csv", base=place.folder, latest=latest if name == former else None)
        for name in "ab"
    }
    sums = place.pipeline(sources=sources, transforms=(both,), write=BY_CITY)
    hr.run(sums)
    (place.folder / former / "2.csv").write_text(f"id,city,n\n{former}1,Kiel,10\n")
    assert groups(sums) == "those that the new rows touch"
    hr.run(sums)
    assert agrees(sums, place, "city").rows() == [("Bonn", 2), ("Kiel", 10), ("Ulm", 10)]


UNIQUE = hr.Contract(columns={"id": hr.Column(unique=True)}, on_violation="quarantine")


def test_a_value_that_must_not_repeat_is_looked_for_in_all_groups(place):
    place.write("1.csv", "id,city\n1,Ulm\n2,Bonn\n")
    rows = place.pipeline(contract=UNIQUE, write=BY_CITY)
    hr.run(rows)
    place.write("2.csv", "id,city\n1,Kiel\n")
    assert "id must be unique" in groups(rows)
    hr.run(rows)
    assert agrees(rows, place, "city").rows() == [(2, "Bonn")]


def test_a_value_that_must_not_repeat_in_a_source_is_looked_for_in_all_of_it(place):
    place.write("1.csv", "id,city\n1,Ulm\n2,Bonn\n")
    sums = place.pipeline(files={"contract": UNIQUE}, transforms=(SUM,), write=BY_CITY)
    hr.run(sums)
    place.write("2.csv", "id,city\n1,Kiel\n")
    assert "unique" in groups(sums)
    hr.run(sums)
    assert agrees(sums, place, "city").rows() == [("Bonn", 1)]


def test_a_value_that_must_not_repeat_within_a_group_is_looked_for_there(place):
    place.write("1.csv", "id,city\n1,Ulm\n2,Bonn\n")
    rows = place.pipeline(contract=hr.Contract(unique=(("id", "city"),)), write=BY_CITY)
    hr.run(rows)
    place.write("2.csv", "id,city\n3,Kiel\n")
    assert groups(rows) == "those that the new rows touch"


def test_the_group_that_a_changed_row_was_in_is_promised_only_where_it_is_known(place):
    place.write("1.csv", "id,city,ts\n1,Ulm,1\n")
    told = "source: that a changed row is no more in the group that it was in"
    assert told in hr.plan(place.pipeline(files={"cursor": "ts"}, transforms=(SUM,), write=BY_CITY)).guarantee
    assert "not seen" not in hr.plan(place.pipeline(transforms=(SUM,), write=BY_CITY)).guarantee


@pytest.mark.parametrize("before", [hr.Append(), hr.Merge(keys=("id",))])
@pytest.mark.parametrize("now", [hr.Replace(), hr.Recompute(by=("id",))])
def test_a_write_that_sees_everything_begins_with_everything(place, before, now):
    """What another write has made of the rows is not what it promises."""
    place.write("1.csv", "id,v\n1,1\n1,2\n")
    hr.run(place.pipeline(write=before))
    after = place.pipeline(write=now)
    assert hr.plan(after).status == "load"
    hr.run(after)
    assert place.rows(after, ["id", "v"]) == [(1, 1), (1, 2)]
    assert hr.run(after).status == "nothing_new"


DOUBTED = {
    "HAVING on an alias": ("g", "SELECT g, sum(v) AS v FROM source GROUP BY g HAVING v > 10"),
    "DISTINCT ON an alias": (
        "h",
        "SELECT DISTINCT ON (g) v AS g, g AS h FROM (SELECT * FROM source ORDER BY id DESC)",
    ),
    "unnest of what a group gave": (
        "g",
        "SELECT g, unnest(list(v ORDER BY id)[2:]) AS later FROM source GROUP BY g",
    ),
    "unnest of what a window gave": (
        "g",
        "SELECT g, unnest(CASE WHEN sum(v) OVER (PARTITION BY g) > 10 THEN [v] END) AS u FROM source",
    ),
    "a key under a collation": (
        "g",
        "SELECT g COLLATE nocase AS g, count(*) n FROM source GROUP BY g COLLATE nocase",
    ),
    "a distinct value under a collation": ("g", "SELECT DISTINCT g COLLATE nocase AS g FROM source"),
    "a key that is an interval": (
        "i",
        "SELECT CASE id WHEN 1 THEN to_days(30) ELSE to_months(1) END AS i, count(*) AS n FROM source GROUP BY i",
    ),
    "a join with unnest": (
        "g",
        "SELECT g, v, u FROM (SELECT g, v, sum(v) OVER (PARTITION BY g) s FROM source) t, unnest([s][:s - 10]) q(u)",
    ),
}


def running(source: pl.LazyFrame) -> pl.LazyFrame:
    return source.with_columns(s=pl.col("v").cumulative_eval(pl.element().sum()))


def coded(source: pl.LazyFrame) -> pl.LazyFrame:
    return source.with_columns(c=pl.col("g").cast(pl.Categorical).to_physical())


@pytest.mark.parametrize("function", [running, coded])
def test_python_that_looks_at_other_rows_replaces_all_groups_and_an_append_says_so(place, function):
    place.write("1.csv", "id,g,v\n1,b,8\n")
    pipeline = place.pipeline(transforms=(hr.python(function),), write=hr.Recompute(by=("g",)))
    hr.run(pipeline)
    place.write("2.csv", "id,g,v\n2,a,5\n")
    assert groups(pipeline).startswith("all, because")
    hr.run(pipeline)
    agrees(pipeline, place, "id")
    assert any("only what is new" in w for w in hr.plan(place.pipeline(transforms=pipeline.transforms)).warnings)


@pytest.mark.parametrize("case", DOUBTED)
def test_groups_that_rows_of_others_decide_are_all_replaced(place, case):
    by, query = DOUBTED[case]
    place.write("1.csv", "id,g,v\n1,a,8\n2,b,20\n")
    pipeline = place.pipeline(transforms=(hr.sql(query),), write=hr.Recompute(by=(by,)))
    hr.run(pipeline)
    place.write("2.csv", "id,g,v\n3,a,5\n4,A,21\n")
    assert groups(pipeline).startswith("all, because")
    hr.run(pipeline)
    agrees(pipeline, place, pl.all())


def looked_up(place, query, joined, write):
    (place.folder / "rates.csv").write_text("city,rate\nUlm,1\nBonn,2\n")
    sources = {
        "orders": hr.FileSource(path="in/*.csv", base=place.folder),
        "rates": hr.FileSource(path="rates.csv", base=place.folder, read="all"),
    }
    return place.pipeline(sources=sources, transforms=(hr.sql(query, as_="rated"), hr.sql(joined)), write=write)


def test_a_look_up_that_is_another_at_every_run_is_one_for_all_groups(place):
    place.write("1.csv", "id,city\n1,Ulm\n2,Bonn\n")
    joined = "SELECT city, count(*) AS n, max(t) AS t FROM orders JOIN rated USING (city) GROUP BY city"
    sums = looked_up(place, "SELECT city, now() AS t FROM rates", joined, BY_CITY)
    hr.run(sums)
    place.write("2.csv", "id,city\n3,Ulm\n")
    assert groups(sums) == "all, because a step uses now()"
    hr.run(sums)
    assert place.frame(sums, "city")["t"].n_unique() == 1


def test_an_append_takes_nothing_random_from_a_look_up(place):
    place.write("1.csv", "id,city\n1,Ulm\n2,Bonn\n")
    joined = "SELECT orders.*, r FROM orders JOIN rated USING (city)"
    with pytest.raises(hr.ConfigError, match=r"random\(\)"):
        hr.plan(looked_up(place, "SELECT city, random() AS r FROM rates", joined, hr.Append()))
    hr.plan(looked_up(place, "SELECT city, now() AS r FROM rates", joined, hr.Append()))


def test_a_float_is_one_group_though_it_is_written_in_two_ways(place):
    frames = [pl.DataFrame({"g": [0.0, float("nan"), 1.0], "n": [1, 2, 3]})]
    summed = hr.sql("SELECT g, sum(n) AS n FROM source GROUP BY g")
    sums = place.pipeline(source=hr.MemorySource(frames=frames), transforms=(summed,), write=hr.Recompute(by=("g",)))
    hr.run(sums)
    frames.append(pl.DataFrame({"g": [-0.0, -float("nan")], "n": [10, 20]}))
    assert groups(sums) == "those that the new rows touch"
    hr.run(sums)
    assert sorted(place.frame(sums, "n")["n"]) == [3, 11, 22]

"""What is refused before a row is read, and what `plan`, `check` and `preview` say without writing."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

import headrace as hr
from headrace.engine.decisions import fingerprint


@pytest.fixture
def orders(place):
    place.write("1.csv", "id,g,v\n1,a,1\n2,b,2\n")
    return place


def both(place, **changes):
    """Two sources of the same files, both read incrementally unless told."""
    one = hr.FileSource(path="in/*.csv", base=place.folder)
    return place.pipeline(sources={"one": one, "two": one}, **changes)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT g, count(*) AS n FROM source GROUP BY g",
        "SELECT DISTINCT g FROM source",
        "SELECT *, row_number() OVER (ORDER BY id) AS n FROM source",
        "SELECT * FROM source LIMIT 1",
        "SELECT g FROM source EXCEPT SELECT 'a'",
        "WITH x AS (SELECT max(id) AS id FROM source) SELECT * FROM x",
    ],
)
def test_sql_that_mixes_rows_over_an_increment_is_refused(orders, query):
    with pytest.raises(hr.ConfigError, match="only what is new"):
        hr.plan(orders.pipeline(transforms=(hr.sql(query),), write=hr.Append()))
    assert hr.plan(orders.pipeline(transforms=(hr.sql(query),), write=hr.Replace())).status == "load"


def test_mixing_in_python_is_warned_of(orders):
    def grouped(source: pl.LazyFrame) -> pl.LazyFrame:
        return source.group_by("g").len()

    plan = hr.plan(orders.pipeline(transforms=(grouped,), write=hr.Append()))
    assert any("grouped" in warning for warning in plan.warnings)


def test_a_step_over_a_look_up_alone_may_mix_rows(orders):
    (orders.folder / "names.csv").write_text("g,name\na,A\na,B\n")
    names = hr.FileSource(path="names.csv", base=orders.folder, read="all")
    pipeline = orders.pipeline(
        sources={"orders": hr.FileSource(path="in/*.csv", base=orders.folder), "names": names},
        transforms=(
            hr.sql("SELECT g, min(name) AS name FROM names GROUP BY g", as_="first"),
            hr.sql('SELECT orders.*, name FROM orders LEFT JOIN "first" USING (g)'),
        ),
    )
    hr.run(pipeline)
    assert orders.rows(pipeline) == [(1, "a", 1, "A"), (2, "b", 2, None)]


def test_several_incremental_sources_are_refused_unless_they_never_meet(orders):
    union = (hr.sql("SELECT * FROM one UNION ALL SELECT * FROM two"),)
    with pytest.raises(hr.ConfigError, match="one, two"):
        hr.plan(both(orders, transforms=union, write=hr.Append()))
    pipeline = both(orders, transforms=union, write=hr.Append(), independent=True)
    hr.run(pipeline)
    assert len(orders.rows(pipeline)) == 4


def test_appending_what_is_read_whole_is_refused(orders):
    with pytest.raises(hr.ConfigError, match="again at each run"):
        hr.plan(orders.pipeline(files={"read": "all"}, write=hr.Append()))


def test_commit_every_wants_steps_that_look_at_each_row_alone(orders):
    def summed(source: pl.LazyFrame) -> pl.LazyFrame:
        return source.with_columns(pl.col("v").cum_sum())

    def doubled(source: pl.LazyFrame) -> pl.LazyFrame:
        return source.with_columns(pl.col("v") * 2)

    with pytest.raises(hr.ConfigError, match=r"cum_sum(.|\n)*rows"):
        hr.plan(orders.pipeline(transforms=(summed,), commit_every="1GB"))
    assert hr.plan(orders.pipeline(transforms=(hr.python(summed, rows=True),), commit_every="1GB")).status == "load"
    assert hr.plan(orders.pipeline(transforms=(doubled,), commit_every="1GB")).status == "load"


def test_an_append_of_rows_that_are_not_new_is_refused(orders):
    (orders.folder / "names.csv").write_text("g,name\na,A\n")
    sources = {
        "orders": hr.FileSource(path="in/*.csv", base=orders.folder),
        "names": hr.FileSource(path="names.csv", base=orders.folder, read="all"),
    }
    for query in ("SELECT * FROM names", "SELECT g FROM orders UNION ALL SELECT g FROM names"):
        with pytest.raises(hr.ConfigError, match=r"at each run|not new"):
            hr.plan(orders.pipeline(sources=sources, transforms=(hr.sql(query),), write=hr.Append()))


def test_a_file_that_is_read_again_needs_a_write_that_replaces_its_rows(orders):
    with pytest.raises(hr.ConfigError, match="reread"):
        hr.plan(orders.pipeline(files={"changed": "reread"}, write=hr.Append()))
    hr.plan(orders.pipeline(files={"changed": "reread"}))


@pytest.mark.parametrize("more", [{}, {"changed": "reread"}])
def test_partitions_under_a_cursor_are_refused_where_its_new_rows_are_a_part_of_one(orders, more):
    files = {"add_columns": {"_file": "file"}, **more}
    by_file = hr.Partitions(by=("_file",))
    hr.plan(orders.pipeline(files=files, write=by_file))
    for verb in (hr.plan, hr.check, hr.run):
        with pytest.raises(
            hr.ConfigError, match=r"source 'source': by the cursor id only a partition's new rows"
        ) as told:
            verb(orders.pipeline(files={**files, "cursor": "id"}, write=by_file))
        assert 'leave "cursor" out' in told.value.hint


def test_a_partition_by_the_cursor_is_read_again_whole(orders):
    def days(name, *rows):
        orders.write(name, "id,g\n" + "".join(f"{id},{g}\n" for id, g in rows))

    for file in (orders.folder / "in").iterdir():
        file.unlink()
    pipeline = orders.pipeline(files={"cursor": "g"}, write=hr.Partitions(by=("g",)))
    days("1.csv", (1, 1), (2, 1), (3, 2), (4, 2))
    hr.run(pipeline)
    days("2.csv", (5, 2), (6, 3))
    hr.run(pipeline)
    assert orders.rows(pipeline) == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3)]


def test_another_source_under_the_same_name_is_refused(orders):
    hr.run(orders.pipeline())
    (orders.folder / "other").mkdir()
    (orders.folder / "other" / "1.csv").write_text("id,g,v\n9,z,9\n")
    other = hr.FileSource(path="other/*.csv", base=orders.folder)
    with pytest.raises(hr.ConfigError, match="not the one that was read before"):
        hr.run(orders.pipeline(source=other))


def test_a_key_that_the_rows_do_not_have_is_named(orders):
    with pytest.raises(hr.ConfigError, match="'nr'"):
        hr.plan(orders.pipeline(write=hr.Merge(keys=("nr",))))


def test_a_plan_says_the_schema_change_and_writes_nothing(orders):
    pipeline = orders.pipeline()
    plan = hr.plan(pipeline)
    assert plan.status == "load"
    assert "CREATE TABLE" in plan.changes[0]
    assert not (orders.folder / "w.duckdb").exists()
    hr.run(pipeline)
    orders.write("2.csv", "id,g,v,w\n3,c,3,x\n")
    (change,) = hr.plan(pipeline).changes
    assert '"w"' in change
    assert hr.plan(pipeline).sources["source"]["files"] == ["2.csv"]


def test_a_check_reads_no_data_and_finds_a_wrong_contract(orders):
    contract = hr.Contract(columns={"price": hr.Column(type="float64")})
    with pytest.raises(hr.HeadraceError, match="'price'"):
        hr.check(orders.pipeline(contract=contract))
    assert hr.check(orders.pipeline()).schema[0] == {"name": "id", "type": "int64"}


def test_a_preview_shows_any_step_and_writes_nothing(orders):
    wide = hr.sql("SELECT *, v * 2 AS w FROM source", as_="wide")
    pipeline = orders.pipeline(transforms=(wide, hr.sql("SELECT w FROM wide")), write=hr.Append())
    assert hr.preview(pipeline, step="source")["v"].to_list() == [1, 2]
    assert hr.preview(pipeline, step="wide").columns == ["id", "g", "v", "w"]
    with pytest.raises(hr.ConfigError, match="wide"):
        hr.preview(pipeline, step="wied")
    assert not (orders.folder / "w.duckdb").exists()


def test_a_full_refresh_begins_the_table_anew(orders):
    pipeline = orders.pipeline(write=hr.Append())
    hr.run(pipeline)
    orders.write("1.csv", "id,g,v\n7,q,7\n")
    report = hr.run(pipeline, full_refresh=True)
    assert report.status == "loaded"
    assert orders.rows(pipeline) == [(7, "q", 7)]
    assert hr.run(pipeline).status == "nothing_new"


@pytest.mark.parametrize(
    "write",
    [hr.Append(), hr.Merge(keys=("id",)), hr.Replace(), hr.Recompute(by=("g",)), hr.History(keys=("id",))],
    ids=lambda write: write.type,
)
def test_a_run_finds_nothing_new_while_there_is_no_file_yet(orders, write):
    more = {
        "transforms": (hr.sql("SELECT id, g, v FROM source"),),
        "contract": hr.Contract(columns={"id": hr.Column(min=0)}),
    }
    pipeline = orders.pipeline(write=write, files={"allow_missing": True}, **more)
    held = {file.name: file.read_text() for file in (orders.folder / "in").iterdir()}
    for name in held:
        (orders.folder / "in" / name).unlink()
    for report in (hr.run(pipeline), hr.plan(pipeline), hr.check(pipeline)):
        assert report.warnings == (
            "'source' has no rows and no columns yet: transforms, contract and keys cannot be checked",
        )
    assert (hr.run(pipeline).status, hr.plan(pipeline).status) == ("nothing_new", "nothing_new")
    for name, text in held.items():
        orders.write(name, text)
    assert hr.run(pipeline).status == "loaded"
    assert orders.rows(pipeline)


@pytest.mark.parametrize("types", [{}, {"id": "int64"}])
@pytest.mark.parametrize("why", [{"allow_missing": True}, {"settle": "1h"}])
def test_a_cursor_finds_nothing_new_while_there_is_no_file_yet(orders, why, types):
    pipeline = orders.pipeline(files={"cursor": "v", "types": types, **why})
    held = {file: file.read_text() for file in (orders.folder / "in").iterdir()}
    for file in held:
        if "allow_missing" in why:
            file.unlink()
    assert [verb(pipeline).status for verb in (hr.run, hr.plan)] == ["nothing_new"] * 2
    assert hr.check(pipeline).warnings
    for file, text in held.items():
        file.write_text(text)
        os.utime(file, (0, 0))
    assert hr.run(pipeline).status == "loaded"
    assert orders.rows(pipeline)


def test_files_that_are_missing_hide_nothing_else_that_is_to_be_done(orders):
    def step(a, b, *, factor):
        return pl.concat([a, b], how="diagonal_relaxed").with_columns(pl.col("v") * factor)

    (orders.folder / "none").mkdir()
    sources = {
        "a": hr.FileSource(path="none/*.csv", base=orders.folder, allow_missing=True),
        "b": hr.FileSource(path="in/*.csv", base=orders.folder),
    }

    def pipeline(factor):
        return orders.pipeline(sources=sources, transforms=(step,), write=hr.Replace(), params={"factor": factor})

    assert hr.run(pipeline(1)).status == "loaded"
    assert hr.run(pipeline(10)).status == "loaded"
    assert max(row[2] for row in orders.rows(pipeline(10))) == 20


def test_a_source_read_whole_finds_nothing_new_while_there_is_no_file_yet(orders):
    own = hr.Contract(columns={"id": hr.Column(min=0)})
    source = hr.FileSource(path="none*.csv", base=orders.folder, allow_missing=True, read="all", contract=own)
    pipeline = orders.pipeline(source=source)
    for write in (hr.Merge(keys=("id",)), hr.Replace()):
        assert hr.run(replace(pipeline, write=write)).status == "nothing_new"
        assert hr.plan(replace(pipeline, write=write)).write["type"] == write.type


def test_a_plan_names_all_sources_while_there_is_no_file_yet(orders):
    two = {n: hr.FileSource(path=f"none/{n}*.csv", base=orders.folder, allow_missing=True) for n in ("a", "b")}
    steps = (hr.sql("SELECT a.id FROM a JOIN b USING (id)"),)
    plan = hr.plan(orders.pipeline(sources=two, transforms=steps, independent=True))
    assert (plan.status, list(plan.sources)) == ("nothing_new", ["a", "b"])


def test_a_full_refresh_that_finds_nothing_to_read_says_that_the_table_stays(orders):
    pipeline = orders.pipeline(files={"allow_missing": True})
    hr.run(pipeline)
    before = orders.rows(pipeline)
    for file in (orders.folder / "in").iterdir():
        file.unlink()
    assert not hr.run(pipeline).warnings
    for report in (hr.plan(pipeline, full_refresh=True), hr.run(pipeline, full_refresh=True)):
        assert "'source' has no row to read: the full refresh leaves the table as it is" in report.warnings
    assert orders.rows(pipeline) == before


def test_a_full_refresh_of_a_history_wants_to_be_meant(orders):
    pipeline = orders.pipeline(write=hr.History(keys=("id",)))
    assert not hr.plan(pipeline, full_refresh=True).warnings
    hr.run(pipeline)
    with pytest.raises(hr.ConfigError, match="history"):
        hr.run(pipeline, full_refresh=True)
    assert any("--discard-history" in warning for warning in hr.plan(pipeline, full_refresh=True).warnings)
    hr.run(pipeline, full_refresh=True, discard_history=True)


def test_a_transform_that_fails_names_its_place_and_keeps_its_cause(orders):
    def wrong(source: pl.LazyFrame) -> pl.LazyFrame:
        raise KeyError("a secret value")

    with pytest.raises(hr.TransformError, match=rf"wrong.*{Path(__file__).name}:\d+") as caught:
        hr.run(orders.pipeline(transforms=(wrong,)))
    assert isinstance(caught.value.__cause__, KeyError)
    assert "secret" not in str(caught.value)


def test_parameters_choose_frames_and_params(orders):
    def chosen(source: pl.LazyFrame, *, least: int, most: int = 9) -> pl.LazyFrame:
        return source.filter(pl.col("v").is_between(least, most))

    pipeline = orders.pipeline(transforms=(chosen,), params={"least": 2, "unused": 0})
    hr.run(pipeline)
    assert orders.rows(pipeline) == [(2, "b", 2)]
    with pytest.raises(hr.ConfigError, match="least"):
        hr.plan(orders.pipeline(transforms=(chosen,)))


def test_a_timeout_stops_between_batches_and_keeps_nothing(orders):
    with pytest.raises(hr.UnavailableError, match="timeout"):
        hr.run(orders.pipeline(), timeout=1e-6)
    assert orders.pipeline().destination.inspect("orders").number == 0


LATEST = hr.Latest(keys=("id",), by=("u",))


@pytest.mark.parametrize("write", [hr.Append(), hr.Partitions(by=("id",)), hr.History(keys=("id",))])
def test_latest_is_refused_where_the_write_cannot_honour_it(place, write):
    place.write("1.csv", "id,u\n1,1\n")
    with pytest.raises(hr.ConfigError, match="latest"):
        hr.plan(place.pipeline(write=write, files={"latest": LATEST}))


@pytest.mark.parametrize(
    ("latest", "write"),
    [
        (hr.Latest(keys=("id",)), hr.Merge(keys=("id",))),
        (hr.Latest(keys=("u",), by=("u",)), hr.Merge(keys=("id",))),
        (LATEST, hr.Merge(keys=("id",), latest_by=("id",))),
    ],
)
def test_a_merge_that_would_choose_another_row_than_latest_is_refused(place, latest, write):
    place.write("1.csv", "id,u\n1,1\n")
    with pytest.raises(hr.ConfigError, match="latest"):
        hr.plan(place.pipeline(write=write, files={"latest": latest}))


@pytest.mark.parametrize("latest_by", [(), ("u",)])
def test_a_merge_takes_the_latest_row_of_a_key(place, latest_by):
    pipeline = place.pipeline(write=hr.Merge(keys=("id",), latest_by=latest_by), files={"latest": LATEST})
    place.write("1.csv", "id,u\n1,9\n1,3\n")
    hr.run(pipeline)
    place.write("2.csv", "id,u\n1,5\n")
    hr.run(pipeline)
    assert place.rows(pipeline) == [(1, 9)]


def test_a_value_that_breaks_a_python_transform_is_the_transforms_failure_and_not_shown(orders):
    def strict(source: pl.LazyFrame) -> pl.LazyFrame:
        return source.with_columns(pl.col("g").cast(pl.Int64))

    def mapped(source: pl.LazyFrame) -> pl.LazyFrame:
        return source.map_batches(broken)

    def broken(rows: pl.DataFrame) -> pl.DataFrame:
        raise KeyError(rows["g"][0])

    with pytest.raises(hr.TransformError, match=r"'strict'(.|\n)*column 'g'") as caught:
        hr.run(orders.pipeline(transforms=(strict,)))
    assert "[" not in str(caught.value)
    with pytest.raises(hr.TransformError, match=rf"'mapped' failed at .*{Path(__file__).name}:\d+"):
        hr.run(orders.pipeline(transforms=(mapped,)))
    with pytest.raises(hr.TransformError, match="'strict'"):
        hr.preview(orders.pipeline(transforms=(strict,)))


def test_a_transform_that_fails_shows_its_own_traceback_when_asked(orders, command):
    (orders.folder / "t.py").write_text("def wrong(source):\n    raise ValueError('the words of its author')\n")
    (orders.folder / "p.json").write_text(
        '{"name": "p", "source": {"type": "files", "path": "in/*.csv"}, "transforms": [{"python": "t.py:wrong"}], '
        '"destination": {"type": "duckdb", "path": "w.duckdb", "table": "t"}, "write": "append"}'
    )
    code, out, err = command("run", orders.folder / "p.json")
    assert (code, out) == (1, "")
    assert "t.py:2" in err
    assert "ValueError" in err
    assert "author" not in err
    code, _, err = command("run", "-v", orders.folder / "p.json")
    assert code == 1
    assert 'raise ValueError("' in err or "raise ValueError('" in err
    assert "ValueError: the words of its author" in err
    assert str(Path(hr.__file__).parent) not in err


def test_latest_without_keys_is_refused_before_any_row_is_read():
    with pytest.raises(hr.ConfigError, match='"latest" without keys'):
        hr.Latest(keys=())


@pytest.mark.parametrize(
    ("make", "words", "said"),
    [
        (hr.Partitions, {"by": ()}, 'partitions: "by" names no column'),
        (hr.Recompute, {"by": ()}, 'recompute: "by" names no column'),
        (hr.History, {"keys": ()}, 'history: "keys" names no column'),
        (hr.History, {"keys": ("id",), "valid_from": ""}, "must be two names"),
        (hr.History, {"keys": ("id",), "valid_from": "x", "valid_to": "x"}, "must be two names"),
        (hr.Merge, {"keys": ("id",), "delete_when": " "}, '"delete_when" is empty'),
        (hr.Replace, {"keys": ("id",), "truncate": True}, '"keys" and "truncate" exclude each other'),
        (hr.Contract, {"unique": ((),)}, "unique names no column"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_row_is_read(make, words, said):
    with pytest.raises(hr.ConfigError, match=said):
        make(**words)


def test_a_column_without_a_name_is_refused_as_that(tmp_path):
    pipeline = hr.Pipeline(
        name="p",
        source=hr.MemorySource(frames=[pl.DataFrame({"": [1], "v": [2]})]),
        destination=hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t"),
    )
    with pytest.raises(hr.SchemaError, match="a column has no name"):
        hr.run(pipeline)


@pytest.mark.parametrize("where", ["contract", "files"])
def test_a_history_that_closes_what_is_absent_may_not_drop_rows(orders, where):
    """A dropped row's key would pass for one that the source has no more."""
    rows = hr.Contract(columns={"v": hr.Column(min=0, on_violation="drop")})
    changes = {"contract": rows} if where == "contract" else {"files": {"contract": rows, "read": "all"}}
    write = hr.History(keys=("id",), close_absent=True)
    with pytest.raises(hr.ConfigError, match="rows that the contract drops"):
        hr.plan(orders.pipeline(write=write, **changes))
    assert hr.plan(orders.pipeline(write=hr.History(keys=("id",)), **changes)).status == "load"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (dt.date(2024, 1, 1), dt.date(2025, 1, 1)),
        (dt.timedelta(1), dt.timedelta(2)),
        (Decimal("1.5"), Decimal("1.6")),
        (b"a", b"b"),
        (frozenset("a"), frozenset("b")),
        (pl.col("v") > 1, pl.col("v") > 2),
        (len, str),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_parameter_or_a_rule_is_its_change_is_seen(orders, before, after):
    def told(value):
        return fingerprint(orders.pipeline(params={"p": value}))["transforms"]

    assert told(before) == told(before)
    assert told(before) != told(after)

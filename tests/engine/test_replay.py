"""Quarantined rows on their second way."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import duckdb
import polars as pl
import pytest

import headrace as hr
from headrace.engine import quarantine

QUARANTINE = hr.Contract(columns={"v": hr.Column(type="int64", min=0)}, on_violation="quarantine")


@pytest.fixture
def held(place):
    """A pipeline with one good row, one that breaks the contract, one that is no number and one that is cut short."""
    place.write("1.csv", "id,v\n1,5\n2,-5\n3,five\n4\n")
    pipeline = place.pipeline(contract=QUARANTINE, files={"types": {"id": "int64", "v": "int64"}})
    hr.run(pipeline)
    assert hr.rejects(pipeline)["stage"].sort().to_list() == ["contract", "parse", "parse"]
    return pipeline


def relaxed(place, **changes):
    parts = {"contract": hr.Contract(on_violation="quarantine"), "files": {"types": {"id": "int64", "v": "int64"}}}
    return place.pipeline(**{**parts, **changes})


def test_what_passes_now_is_loaded_and_what_fails_again_stays(place, held):
    report = hr.replay(relaxed(place))
    assert report.status == "loaded"
    assert place.rows(held) == [(1, 5), (2, -5)]
    assert sorted(r["line"] for r in hr.rejects(held).to_dicts()) == [4, 5]


def test_a_replay_does_not_move_the_position(place, held):
    before = held.destination.inspect("orders").positions
    hr.replay(relaxed(place))
    after = held.destination.inspect("orders")
    assert after.positions == before
    place.write("2.csv", "id,v\n9,9\n")
    hr.run(held)
    assert (9, 9) in place.rows(held)


def test_a_replay_of_nothing_is_nothing_new(place):
    place.write("1.csv", "id,v\n1,5\n")
    pipeline = place.pipeline()
    hr.run(pipeline)
    assert hr.replay(pipeline).status == "nothing_new"


def test_mended_rows_come_in_by_file(place, held, tmp_path, command):
    config = place.folder / "orders.json"
    config.write_text(
        '{"name": "orders", "source": {"type": "files", "path": "in/*.csv", "types": {"id": "int64", "v": "int64"}},'
        ' "contract": {"columns": {"v": {"type": "int64", "min": 0}}, "on_violation": "quarantine"},'
        ' "destination": {"type": "duckdb", "path": "w.duckdb", "table": "orders"},'
        ' "write": {"type": "merge", "keys": ["id"]}}'
    )
    bad = place.folder / "bad.csv"
    assert command("rejects", config, "--export", bad)[0] == 0
    with bad.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["raw"] = {"3,five": "3,55", "4": "4,44"}.get(row["raw"], row["raw"])
        row["v"] = row["v"].replace("-", "")
    fixed = place.folder / "fixed.csv"
    with fixed.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    code, _, err = command("replay", config, "--from", fixed)
    assert code == 0, err
    assert place.rows(held) == [(1, 5), (2, 5), (3, 55), (4, 44)]
    assert hr.rejects(held).is_empty()


def test_discarded_rows_leave_the_quarantine_with_a_reason(place, held):
    hr.discard(held, reason="the sensor was off")
    assert hr.rejects(held).is_empty()
    assert place.rows(held) == [(1, 5)]
    newest = next(h for h in hr.history(held) if h["kind"] == "commit")
    assert newest["record"]["reason"] == "the sensor was off"
    assert newest["record"]["discarded"] == 3


@pytest.mark.parametrize(
    ("write", "refresh"), [(hr.Recompute(by=("id",)), False), (hr.Replace(), False), (hr.Merge(keys=("id",)), True)]
)
def test_discarded_rows_stay_away_when_everything_is_read_again(place, write, refresh):
    place.write("1.csv", "id,v\n1,5\n2,-5\n3,five\n")
    held = place.pipeline(write=write, contract=QUARANTINE, files={"types": {"id": "int64", "v": "int64"}})
    hr.run(held)
    assert hr.rejects(held).height == 2
    hr.discard(held, reason="the sensor was off")
    place.write("2.csv", "id,v\n2,-6\n")
    hr.run(held, full_refresh=refresh)
    assert [r["row"] for r in hr.rejects(held).to_dicts()] == ['{"id": "2", "v": "-6"}']
    assert next(h for h in hr.history(held) if h["kind"] == "commit")["record"]["rejected"] == 1


def test_a_newer_good_row_of_the_same_key_settles_a_reject(place, held):
    place.write("2.csv", "id,v\n2,6\n")
    hr.run(held)
    assert sorted(r["line"] for r in hr.rejects(held).to_dicts()) == [4, 5]


def test_a_file_that_names_an_unknown_reject_is_refused(place, held, tmp_path):
    fixed = tmp_path / "fixed.csv"
    fixed.write_text("id,raw\nnobody,1\n")
    with pytest.raises(hr.DataError, match=r"fixed\.csv:2"):
        hr.replay(held, fixed=fixed)


def test_a_recompute_replays_by_reading_everything_again(place):
    place.write("1.csv", "id,v\n1,5\n2,-5\n")
    strict = place.pipeline(
        write=hr.Recompute(by=("id",)), contract=QUARANTINE, files={"latest": hr.Latest(keys=("id",))}
    )
    hr.run(strict)
    assert place.rows(strict) == [(1, 5)]
    loose = place.pipeline(write=hr.Recompute(by=("id",)), files={"latest": hr.Latest(keys=("id",))})
    hr.replay(loose)
    assert place.rows(strict) == [(1, 5), (2, -5)]
    assert hr.rejects(strict).is_empty()


def by_id(place, write=None, **changes):
    """A pipeline that rebuilds from everything, with one reject of two rows."""
    place.write("1.csv", "id,v\n1,5\n2,-5\n")
    return place.pipeline(**{"write": write or hr.Recompute(by=("id",)), "contract": QUARANTINE, **changes})


REBUILDING = pytest.mark.parametrize("write", [hr.Recompute(by=("id",)), hr.Replace()])


@REBUILDING
def test_a_replay_from_everything_is_refused_where_a_file_has_gone(place, write):
    """It was a full refresh without a question: the rows of the file went with it."""
    hr.run(strict := by_id(place, write))
    place.write("2.csv", "id,v\n3,6\n")
    hr.run(strict)
    (place.folder / "in" / "1.csv").unlink()
    with pytest.raises(hr.DataError, match="has gone"):
        hr.replay(strict)
    assert place.rows(strict) == [(1, 5), (3, 6)]
    assert hr.rejects(strict).height == 1


@REBUILDING
def test_a_replay_from_everything_does_not_empty_the_table(place, write):
    hr.run(strict := by_id(place, write))
    place.write("1.csv", "id,v\n")
    with pytest.raises(hr.HeadraceError):
        hr.replay(strict)
    assert place.rows(strict) == [(1, 5)]


def test_a_replay_from_everything_is_refused_from_another_source(place):
    hr.run(strict := by_id(place))
    (place.folder / "other").mkdir()
    (place.folder / "other" / "1.csv").write_text("id,v\n9,9\n")
    other = hr.FileSource(path="other/*.csv", base=place.folder)
    with pytest.raises(hr.ConfigError, match="not the one that was read"):
        hr.replay(replace(strict, source=other))
    assert place.rows(strict) == [(1, 5)]


@REBUILDING
def test_a_replay_from_everything_of_nothing_is_nothing_new(place, write):
    hr.run(loose := by_id(place, write, contract=None))
    before = len(hr.history(loose))
    assert hr.replay(loose).status == "nothing_new"
    assert [e["kind"] for e in hr.history(loose)[:-before]] in ([], ["run"])


@REBUILDING
def test_a_replay_rebuilds_all_though_nothing_has_changed(place, write):
    """The look-up that its rules go by may be another one since: nobody else would look at the rejected rows again."""
    hr.run(strict := by_id(place, write))
    with duckdb.connect(str(place.folder / "w.duckdb")) as connection:
        connection.execute("DELETE FROM orders")
    assert hr.replay(strict).status == "loaded"
    assert place.rows(strict) == [(1, 5)]
    assert hr.rejects(strict).height == 1


def exported(pipeline, folder, **columns):
    """The pipeline's rejects as an edited export."""
    file = folder / "fixed.csv"
    quarantine.export(hr.rejects(pipeline)).with_columns(**columns).write_csv(file)
    return file


RENAMED = hr.sql("SELECT id, v AS w FROM source")


@pytest.mark.parametrize("where", ["result", "source"])
def test_a_replay_keeps_the_columns_that_the_newest_file_lacks(place, tmp_path, where):
    """That file is not loaded yet, and says nothing of the rows in quarantine."""
    place.write("1.csv", "id,v,extra\n1,5,a\n2,-5,b\n3,five,c\n")
    files = {"types": {"id": "int64", "v": "int64"}}

    def pipeline(contract):
        parts = {"contract": contract} if where == "result" else {}
        of = {**files, **({} if parts else {"contract": contract})}
        return place.pipeline(files=of, on_schema_change=hr.SchemaPolicy(missing="keep"), **parts)

    hr.run(pipeline(QUARANTINE))
    place.write("2.csv", "id,v\n9,9\n")
    assert hr.replay(pipeline(QUARANTINE)).status == "nothing_new"
    loose = pipeline(hr.Contract(on_violation="quarantine"))
    text = pl.col("raw")
    assert hr.replay(loose, fixed=exported(loose, tmp_path, raw=text.str.replace("five", "55"))).status == "loaded"
    assert place.frame(loose).sort("id").select("id", "v", "extra").rows() == [(1, 5, "a"), (2, -5, "b"), (3, 55, "c")]
    hr.run(loose)
    assert (9, 9, None) in place.frame(loose).select("id", "v", "extra").rows()


def test_a_reject_whose_column_has_gone_is_refused_by_name_until_it_is_mended(place, tmp_path):
    place.write("1.csv", "id,v\n1,-1\n2,2\n")
    before = place.pipeline(write=hr.Append(), contract=QUARANTINE)
    hr.run(before)
    after = place.pipeline(write=hr.Append(), transforms=(RENAMED,), on_schema_change=hr.SchemaPolicy(missing="keep"))
    with pytest.raises(hr.DataError, match="'v'") as caught:
        hr.replay(after)
    assert "-1" not in str(caught.value)
    assert hr.rejects(before).height == 1
    hr.replay(after, fixed=exported(before, tmp_path, w=pl.col("v"), v=pl.lit(None)))
    assert place.frame(before).select("id", "w").rows() == [(1, -1), (2, None)]
    assert hr.rejects(before).is_empty()


@pytest.mark.parametrize(
    ("raw", "v", "said"),
    [
        ("3,five", "3", "column 'v' is filled"),
        ("", "", "raw. is empty"),
        ("3,six", "", "cannot be read as it was mended"),
        ("", "3", "column 'v' is filled"),
    ],
)
def test_a_line_is_mended_in_its_raw_text_alone_and_the_text_is_never_lost(place, held, tmp_path, raw, v, said):
    before = hr.rejects(held)
    unread = pl.col("line") == 4
    fixed = exported(
        held,
        tmp_path,
        raw=pl.when(unread).then(pl.lit(raw or None)).otherwise("raw"),
        v=pl.when(unread).then(pl.lit(v or None)).otherwise("v"),
    )
    with pytest.raises(hr.DataError, match=said):
        hr.replay(held, fixed=fixed)
    assert hr.rejects(held).equals(before)


def test_a_row_that_could_be_read_is_mended_in_its_columns_alone(place, held, tmp_path):
    fixed = exported(held, tmp_path, raw=pl.lit("2,5"))
    with pytest.raises(hr.DataError, match="raw is filled"):
        hr.replay(held, fixed=fixed)


def test_a_reject_that_stands_twice_in_the_file_is_refused(place, held, tmp_path):
    fixed = exported(held, tmp_path)
    fixed.write_text(fixed.read_text() + fixed.read_text().partition("\n")[2])
    with pytest.raises(hr.DataError, match="twice"):
        hr.replay(held, fixed=fixed)


def test_an_exotic_line_break_in_a_text_survives_its_export(place, tmp_path):
    place.write("1.csv", 'id,v\n1,a\u2028b\n2,"c\r\nd"\n')
    held = place.pipeline(contract=hr.Contract(columns={"v": hr.Column(pattern="e")}, on_violation="quarantine"))
    hr.run(held)
    loose = place.pipeline(contract=hr.Contract(on_violation="quarantine"))
    hr.replay(loose, fixed=exported(held, tmp_path))
    assert place.rows(held) == [(1, "a\u2028b"), (2, "c\r\nd")]


@pytest.fixture
def texts(place):
    """Rejects whose texts are NULL, empty and of some length; gives the pipeline, and one that takes them."""
    frame = pl.DataFrame({"id": [1, 2, 3, 4], "text": [None, "", "old", "long"]})

    def made(**bounds):
        contract = hr.Contract(columns={"id": hr.Column(type="int64", **bounds)}, on_violation="quarantine")
        source = hr.MemorySource(frames=[frame], contract=contract)
        return replace(place.pipeline(), source=source, write=hr.Merge(keys=("id",)))

    hr.run(made(max=0))
    return made(max=0), made()


def test_a_long_text_is_mended_and_the_limit_of_csv_is_as_it_was(texts, place, tmp_path):
    held, loose = texts
    fixed = exported(held, tmp_path)
    fixed.write_text(fixed.read_text().replace(",long", "," + "x" * 200_000))
    hr.replay(loose, fixed=fixed)
    assert [(id, len(text or "")) for id, text in place.rows(held)] == [(1, 0), (2, 0), (3, 3), (4, 200_000)]
    assert csv.field_size_limit() == 131_072


def test_a_file_that_begins_with_a_mark_of_its_order_is_read(texts, place, tmp_path):
    """As Excel saves it."""
    held, loose = texts
    fixed = exported(held, tmp_path)
    fixed.write_bytes(b"\xef\xbb\xbf" + fixed.read_bytes())
    hr.replay(loose, fixed=fixed)
    assert len(place.rows(held)) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t, [None, "", "old"]),
        (lambda t: t.replace(",old", ',""'), [None, "", ""]),
        (lambda t: t.replace(",old", ","), [None, "", None]),
        (lambda t: t.replace(",old", ',"a ""b"", \rc"'), [None, "", 'a "b", \rc']),
        (lambda t: t.replace('""', ""), [None, "", "old"]),
        (lambda t: rewritten(t, quoting=csv.QUOTE_ALL), [None, "", "old"]),
        (lambda t: rewritten(t, lineterminator="\r"), [None, "", "old"]),
        (lambda t: t.removesuffix("\n"), [None, "", "old"]),
    ],
    ids=["untouched", "emptied", "no text", "odd", "quotes dropped", "quotes everywhere", "old Mac", "cut"],
)
def test_an_empty_text_is_quoted_and_null_is_not(texts, place, tmp_path, change, said):
    """But for what tools do to cells that nobody has touched: they drop quotes, or write them everywhere."""
    held, loose = texts
    fixed = exported(held, tmp_path)
    with fixed.open(newline="") as file:
        text = change(file.read())
    fixed.write_text(text, newline="")
    hr.replay(loose, fixed=fixed)
    assert [text for _, text in place.rows(held)][:3] == said


def rewritten(text, **how):
    """The CSV as Python would write it."""
    file = io.StringIO()
    csv.writer(file, **how).writerows(csv.reader(io.StringIO(text)))
    return file.getvalue()


@pytest.mark.parametrize("torn", ['"a"b', '"a', 'a,b,"c""'])
def test_a_file_that_is_no_csv_is_refused(held, tmp_path, torn):
    fixed = exported(held, tmp_path)
    fixed.write_text(fixed.read_text() + torn)
    with pytest.raises(hr.DataError, match="is not the CSV"):
        hr.replay(held, fixed=fixed)


class Unreadable(hr.MemorySource):
    """Has a row that could not be read, and no way to read it again."""

    def batches(self, range, snapshot, name):
        from dataclasses import replace

        from headrace.flow import Retold
        from headrace.schema import REJECTS

        row = dict.fromkeys(REJECTS.names) | {"id": "r1", "stage": "parse", "source": name, "rules": ["torn"]}
        frame = pl.DataFrame([row], schema=REJECTS.polars())
        for batch in hr.MemorySource.batches(self, range, snapshot, name):
            yield replace(batch, rejects=lambda: Retold(frames=lambda: iter([frame])))


def test_a_source_that_cannot_read_a_line_again_says_so(place):
    source = Unreadable(frames=[pl.DataFrame({"id": [1], "v": [1]})])
    pipeline = place.pipeline(source=source, contract=hr.Contract(on_violation="quarantine"))
    hr.run(pipeline)
    with pytest.raises(hr.ConfigError, match="cannot read single lines again"):
        hr.replay(pipeline)
    assert hr.rejects(pipeline).height == 1


def test_a_line_of_a_file_that_has_gone_is_not_read_by_the_header_of_another(place, tmp_path):
    place.write("1.csv", "id,name,n\na,bob,1\nb,eve,x\n")
    place.write("2.csv", "name,id,n\nzed,c,3\n")
    files = {"types": {"id": "string", "name": "string", "n": "int64"}}
    pipeline = place.pipeline(files=files, contract=hr.Contract(on_violation="quarantine"), write=hr.Append())
    hr.run(pipeline)
    fixed = tmp_path / "fixed.csv"
    quarantine.export(hr.rejects(pipeline)).with_columns(raw=pl.lit("b,eve,7")).write_csv(fixed)
    file = place.folder / "in/1.csv"
    aside = file.rename(tmp_path / "aside")
    with pytest.raises(hr.DataError, match=r"'1\.csv' has gone, and with it the header"):
        quarantine.replay(pipeline, fixed=fixed)
    aside.rename(file)
    quarantine.replay(pipeline, fixed=fixed)
    assert place.rows(pipeline) == [("a", "bob", 1), ("b", "eve", 7), ("c", "zed", 3)]


class Keyed(hr.MemorySource):
    """Tells its own keys, and an identity that takes an open source to know."""

    def batches(self, range, snapshot, name):
        for batch in super().batches(range, snapshot, name):
            yield replace(batch, keys=("id",), identity={"memory": "in", "opened": "yes"})


def test_a_replay_goes_by_the_sources_own_keys_and_keeps_what_it_told_of_itself(place):
    frames = [pl.DataFrame({"id": [1, 2], "v": [5, -5]})]
    parts = {"source": Keyed(name="in", frames=frames), "write": hr.Merge()}
    hr.run(place.pipeline(contract=QUARANTINE, **parts))
    loose = place.pipeline(contract=hr.Contract(on_violation="quarantine"), **parts)
    assert hr.replay(loose).status == "loaded"
    assert place.rows(loose) == [(1, 5), (2, -5)]
    assert loose.destination.inspect("orders").identities["source"] == {"memory": "in", "opened": "yes"}


def test_a_reject_is_the_same_whatever_the_order_of_its_columns_and_with_a_column_that_came_later(place):
    """The types that were inferred stand in another order than the file's; the file that comes later is wider."""
    place.write("1.csv", "id,v,note\n1,-5,x\n2,-6,y\n")
    held = place.pipeline(contract=QUARANTINE, files={"types": {"v": "int64"}})
    hr.run(held)
    assert hr.replay(held).status == "nothing_new"
    hr.discard(held, reason="the sensor was off")
    place.write("2.csv", "id,v,note,more\n3,-7,z,1\n")
    hr.run(held, full_refresh=True)
    assert [r["file"] for r in hr.rejects(held).to_dicts()] == ["2.csv"]


@pytest.mark.parametrize("judges", ["source", "result"])
@pytest.mark.parametrize("bound", [{"max_reject_share": 0.05}, {"min_rows": 50}], ids=lambda b: next(iter(b)))
def test_a_replay_is_no_load_of_its_own_for_ceilings_and_bounds(place, tmp_path, bound, judges):
    """They are shares and numbers of a run's rows."""
    place.write("1.csv", "id,v\n" + "".join(f"{i},{i}\n" for i in range(100)) + "201,-1\n202,-2\n")
    contract = hr.Contract(columns={"v": hr.Column(min=0)}, on_violation="quarantine", **bound)
    pipeline = place.pipeline(**({"files": {"contract": contract}} if judges == "source" else {"contract": contract}))
    hr.run(pipeline)
    unchanged = hr.replay(pipeline)
    assert (unchanged.status, "nothing was changed" in str(unchanged.warnings)) == ("nothing_new", True)
    mended = pl.when(pl.col("v") == "-1").then(pl.lit("1")).otherwise("v")
    assert hr.replay(pipeline, fixed=exported(pipeline, tmp_path, v=mended)).status == "loaded"
    assert (201, 1) in place.rows(pipeline)
    assert hr.rejects(pipeline).height == 1
    failing = replace(contract, on_violation="fail")
    with pytest.raises(hr.ContractError, match="break the contract"):
        hr.replay(place.pipeline(**({"files": {"contract": failing}} if judges == "source" else {"contract": failing})))


def test_a_reject_without_a_column_that_transforms_make_since_is_refused_by_name_until_it_is_mended(place, tmp_path):
    """It would be NULL. A column that came with a later file is NULL in the row's own file."""
    place.write("1.csv", "id,v\n1,1\n2,-5\n")
    before = place.pipeline(transforms=(hr.sql("SELECT *, NULL::INT AS none FROM source"),), contract=QUARANTINE)
    hr.run(before)
    place.write("2.csv", "id,v,extra\n3,10,x\n")
    more = hr.sql("SELECT *, NULL::INT AS none, v * 2 AS double FROM source")
    after = place.pipeline(transforms=(more,), contract=hr.Contract(on_violation="quarantine"))
    hr.run(after)
    with pytest.raises(hr.DataError, match="quarantined rows have no column 'double'") as refused:
        hr.replay(after)
    assert "--export" in refused.value.hint
    hr.replay(after, fixed=exported(after, tmp_path, double=pl.lit("-10")))
    assert place.frame(after).filter(pl.col("id") == 2).select("v", "double", "none", "extra").rows() == [
        (-5, -10, None, None)
    ]

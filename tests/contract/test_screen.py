import json
import tempfile
from datetime import date

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contract import Column, Contract
from headrace.contract.screen import Screen
from headrace.contract.verdict import Verdict
from headrace.errors import ContractError, SchemaError, UnavailableError
from headrace.exact import from_text
from headrace.schema import REJECTS, Schema
from headrace.stream import FrameStream, reraise, scan_batches

PLACE = ("_file", "_line")
ROWS = pl.DataFrame(
    {
        "_file": ["a.csv", "a.csv", "b.csv", "b.csv"],
        "_line": [2, 3, 2, 3],
        "id": ["1", "x", "3", None],
        "day": ["2020-01-01", "2020-01-02", None, "2020-01-04"],
    }
)


def contract(action="quarantine", **more):
    return Contract(columns={"id": Column(type="int64"), "day": Column(type="date")}, on_violation=action, **more)


def screened(given_contract, frame=ROWS, **options):
    return Screen(given_contract, frame.lazy(), **({"place": PLACE} if "_file" in frame.columns else {}), **options)


def drained(screen):
    with screen:
        good = screen.lazy.collect()
        return good, pl.concat([pl.DataFrame(schema=REJECTS.polars()), *screen.rejects()]), screen.counts()


def test_good_rows_have_the_contracts_types_and_no_place():
    screen = screened(contract(), keys=("id",))
    assert screen.schema == Schema.of({"id": "int64", "day": "date"})
    good, rejects, counts = drained(screen)
    assert good.rows() == [(1, date(2020, 1, 1)), (3, None)]
    assert (counts.rows, counts.good, counts.rejected) == (4, 2, 2)
    assert counts.by_rule == {"id: not int64": 1, "id: null": 1}
    assert rejects.drop("id").rows() == [
        ("contract", None, "a.csv", 3, ["id: not int64"], '{"id": "x", "day": "2020-01-02"}', None),
        ("contract", None, "b.csv", 3, ["id: null"], '{"id": null, "day": "2020-01-04"}', None),
    ]


def test_a_reject_carries_its_key_as_the_target_would_hold_it():
    frame = pl.DataFrame({"id": ["+1", "2"], "a": [-1, -1]})
    strict = Contract(columns={"id": Column(type="int64"), "a": Column(min=0)}, on_violation="quarantine")
    _, rejects, _ = drained(screened(strict, frame, keys=("id", "a")))
    assert sorted(rejects["key"]) == ['["1", "-1"]', '["2", "-1"]']


def test_a_float32_in_a_reject_is_spelled_as_the_number_that_it_is():
    """As 0.1 it would be another one, once the column has grown to float64."""
    frame = pl.DataFrame(
        {"id": [0.1], "l": [[0.1]], "a": [-1]}, schema_overrides={"id": pl.Float32, "l": pl.List(pl.Float32)}
    )
    _, rejects, _ = drained(
        screened(Contract(columns={"a": Column(min=0)}, on_violation="quarantine"), frame, keys=("id",))
    )
    assert rejects["key"].to_list() == ['["0.10000000149011612"]']
    row = json.loads(rejects["row"].item())
    assert row == {"id": "0.10000000149011612", "l": '["0.10000000149011612"]', "a": "-1"}


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.none() | st.floats(), st.none() | st.datetimes(), st.none() | st.binary(max_size=4)), max_size=6
    )
)
def test_a_rejects_row_is_the_rejected_row_exactly(rows):
    frame = pl.DataFrame(rows, schema={"f": pl.Float64, "t": pl.Datetime("ns"), "b": pl.Binary}, orient="row")
    _, rejects, _ = drained(screened(Contract(rules={"never": "false"}, on_violation="quarantine"), frame))
    texts = pl.DataFrame([json.loads(r) for r in rejects["row"]], schema=dict.fromkeys(frame.columns, pl.String))
    schema = Schema.of_polars(frame.schema)
    back = texts.select(from_text(pl.col(f.name), f.type).alias(f.name) for f in schema)
    assert sorted(map(repr, back.rows())) == sorted(map(repr, frame.rows()))


def test_equal_rows_at_an_equal_place_have_ids_of_their_own_that_no_order_changes():
    frame = pl.DataFrame({"a": [1, 1, 2, 1]})
    never = Contract(rules={"never": "false"}, on_violation="quarantine")
    ids = set(drained(screened(never, frame))[1]["id"])
    assert len(ids) == 4
    assert set(drained(screened(never, frame.reverse()))[1]["id"]) == ids
    assert not ids & set(drained(screened(never, frame, source="other"))[1]["id"])


@pytest.mark.parametrize(
    ("action", "rejected", "dropped", "failed", "warned"),
    [("quarantine", 1, 0, 0, {}), ("drop", 0, 1, 0, {}), ("fail", 0, 0, 1, {}), ("warn", 0, 0, 0, {"r": 1})],
)
def test_on_violation_says_what_becomes_of_a_row(action, rejected, dropped, failed, warned):
    frame = pl.DataFrame({"a": [1, -1]})
    good, _, counts = drained(screened(Contract(rules={"r": "a > 0"}, on_violation=action), frame))
    assert good.height == (2 if action == "warn" else 1)
    assert (counts.rejected, counts.dropped, counts.failed, counts.warned) == (rejected, dropped, failed, warned)


def test_the_gravest_of_the_broken_rules_decides():
    column = {"a": Column(min=0, on_violation="drop"), "b": Column(min=0, on_violation="quarantine")}
    frame = pl.DataFrame({"a": [-1, -1, 1], "b": [1, -1, -1]})
    _, rejects, counts = drained(screened(Contract(columns=column), frame))
    assert (counts.dropped, counts.rejected) == (1, 2)
    assert rejects.sort("row")["rules"].to_list() == [["a: min", "b: min"], ["b: min"]]


def test_a_failed_screen_counts_by_rule_names_the_places_and_no_value():
    with screened(contract("fail"), source="orders", keys=("id",)) as screen:
        screen.lazy.collect()
        with pytest.raises(ContractError) as caught:
            screen.judge()
    assert "source 'orders': 2 of 4 rows break the contract" in caught.value.message
    assert "id: not int64 1" in caught.value.message
    assert "first at a.csv:3, b.csv:3" in caught.value.message
    assert "x" not in caught.value.message.replace("id: not int64", "")
    assert caught.value.details["by_rule"] == {"id: not int64": 1, "id: null": 1}


@pytest.mark.parametrize(
    ("ceiling", "fails"),
    [
        ({"max_rejects": 1}, True),
        ({"max_rejects": 2}, False),
        ({"max_reject_share": 0.4}, True),
        ({"max_reject_share": 0.5}, False),
    ],
)
@pytest.mark.parametrize("action", ["quarantine", "drop"])
def test_too_many_rejects_fail_the_run(ceiling, fails, action):
    with screened(contract(action, **ceiling), keys=("id",)) as screen:
        screen.lazy.collect()
        if fails:
            with pytest.raises(ContractError, match=r"2 .*rejected"):
                screen.judge()
        else:
            screen.judge()


def test_lines_that_could_not_be_read_weigh_in_the_ceilings():
    allowed = Contract(max_reject_share=0.1)
    with Screen(None, ROWS.lazy()) as screen:
        screen.count_parsed(1, allowed, rows=9)
        screen.judge()
        screen.count_parsed(2, allowed, rows=9)
        with pytest.raises(ContractError, match=r"2 of 11 rows were rejected \(18.18%\).*malformed 2"):
            screen.judge()


@pytest.mark.parametrize(
    ("bounds", "fails"), [({"min_rows": 3}, True), ({"max_rows": 1}, True), ({"min_rows": 2, "max_rows": 2}, False)]
)
def test_the_number_of_good_rows_is_bounded(bounds, fails):
    with screened(contract(**bounds), keys=("id",)) as screen:
        screen.lazy.collect()
        if fails:
            with pytest.raises(ContractError, match="good rows"):
                screen.judge()
        else:
            screen.judge()


def test_draining_twice_does_not_count_twice():
    with screened(contract()) as screen:
        for _ in range(3):
            screen.lazy.collect()
        assert (screen.counts().rows, screen.counts().rejected) == (4, 1)
        assert sum(r.height for r in screen.rejects()) == 1


def test_rows_that_nobody_asked_for_are_judged_all_the_same():
    with screened(contract("fail")) as screen:
        assert screen.lazy.head(1).collect().height == 1
        assert not screen.drained
        with pytest.raises(ContractError, match="1 of 4 rows"):
            screen.judge()


def test_what_a_transform_filters_out_is_judged_all_the_same():
    with screened(contract()) as screen:
        assert screen.lazy.filter(pl.col("id") == 3).select("day").collect().height == 1
        assert screen.lazy.select(pl.len()).collect().item() == 3
        assert screen.counts().rejected == 1


def test_a_null_merge_key_is_a_violation_without_a_contract():
    with Screen(None, pl.LazyFrame({"id": [1, None]}), keys=("id",)) as screen:
        assert screen.lazy.collect()["id"].to_list() == [1]
        with pytest.raises(ContractError, match="id: null 1"):
            screen.judge()


def test_keys_that_are_not_required_may_be_null():
    with Screen(None, pl.LazyFrame({"id": [1, None]}), keys=("id",), required=()) as screen:
        assert screen.lazy.collect().height == 2
        screen.judge()


def test_without_anything_to_check_the_frame_is_handed_on():
    frame = pl.LazyFrame({"id": [1]})
    with Screen(None, frame) as screen:
        assert screen.lazy is frame
        screen.judge()


def test_unique_looks_into_the_target_too():
    unique = Contract(columns={"id": Column(type="int64", unique=True)}, on_violation="quarantine")
    rows = pl.LazyFrame({"id": ["1", "2", "3", "3", None]})
    target = pl.LazyFrame({"id": [2, 2, 9, None]}, schema={"id": pl.Int32})
    with Screen(unique, rows, existing=target.select) as screen:
        assert screen.lazy.collect()["id"].to_list() == [1, None]
        assert screen.counts().by_rule == {"id: unique": 3}


def test_unique_spans_batches():
    frames = [pl.DataFrame({"id": [n, n + 1]}) for n in range(5)]
    rows = scan_batches(lambda: iter(frames), {"id": pl.Int64()})
    with Screen(Contract(unique=(("id",),), on_violation="quarantine"), rows) as screen:
        assert screen.lazy.collect()["id"].to_list() == [0, 5]


def test_a_screen_drained_by_duckdb_over_a_transform_gives_the_same():
    with screened(contract()) as screen, duckdb.connect() as con:
        con.register("rows", FrameStream(screen.lazy))
        assert con.sql("SELECT a.id FROM rows a JOIN rows b USING (id) ORDER BY 1").fetchall() == [(1,), (3,)]
        assert (screen.counts().rows, screen.counts().rejected) == (4, 1)


def test_what_breaks_the_source_comes_out_as_it_was():
    def rows():
        yield ROWS
        raise UnavailableError("the file changed", hint="again")

    frame = scan_batches(rows, ROWS.schema)
    with Screen(contract(unique=(("day",),)), frame, place=PLACE) as screen:
        with pytest.raises(UnavailableError, match="the file changed"):
            screen.lazy.collect()
        with duckdb.connect() as con:
            con.register("rows", FrameStream(screen.lazy))
            with pytest.raises(UnavailableError, match="the file changed"), reraise():
                con.sql("SELECT count(*) FROM rows").fetchall()
        assert not screen.drained


def test_a_hopeless_run_stops_early():
    reached = []

    def rows():
        for n in range(40):
            reached.append(n)
            yield pl.DataFrame({"a": pl.repeat(-1, 100_000, eager=True, dtype=pl.Int64)})

    screen = Screen(Contract(columns={"a": Column(min=0)}), scan_batches(rows, {"a": pl.Int64()}))
    with screen, pytest.raises(ContractError, match="more than 1,000,000 of the first"):
        screen.lazy.collect()
    assert len(reached) < 40


def test_nothing_is_left_on_disk_after_close(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with screened(contract(), keys=("id",)) as screen:
        screen.lazy.collect()
        assert list(screen.rejects())
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_rows_may_have_a_column_called_rules():
    frame = pl.DataFrame({"a": [1, -1], "rules": ["x", "y"]})
    contract = Contract(columns={"a": Column(min=0)}, on_violation="quarantine")
    good, rejects, _ = drained(screened(contract, frame))
    assert good["rules"].to_list() == ["x"]
    assert [(r["rules"], json.loads(r["row"])["rules"]) for r in rejects.to_dicts()] == [(["a: min"], "y")]
    with pytest.raises(SchemaError, match="'rules'"):
        contract.split(frame)


@pytest.mark.parametrize("every", [2, 50, 5_000])
def test_bad_rows_are_taken_out_however_many_and_wherever_they_are(every):
    frames = [pl.DataFrame({"n": range(at, at + 1_000)}) for at in range(0, 20_000, 1_000)]
    strict = Contract(rules={"whole": pl.col("n") % every != 0}, on_violation="quarantine")
    screen = Screen(strict, scan_batches(lambda: iter(frames), {"n": pl.Int64()}))
    good, rejects, _ = drained(screen)
    assert good["n"].to_list() == [n for n in range(20_000) if n % every]
    assert rejects.height == 20_000 // every


def test_whoever_looks_at_a_few_rows_reads_few():
    """Frames are judged together, and each of an API is a request."""
    read = []

    def pages():
        for page in range(1_000):
            read.append(page)
            yield pl.DataFrame({"n": [page]})

    strict = Contract(columns={"n": Column(min=0)}, on_violation="quarantine")
    with Screen(strict, scan_batches(pages, {"n": pl.Int64()})) as screen:
        assert screen.lazy.head(3).collect()["n"].to_list() == [0, 1, 2]
    assert len(read) < 20


def test_small_frames_are_judged_together():
    """A query for each would cost more than all of their rows, and one row in an Arrow batch as much as thousands."""
    frames = [pl.DataFrame({"n": range(n, n + 10)}) for n in range(0, 6_000, 10)]
    strict = Contract(rules={"whole": "n % 1000 <> 999"}, on_violation="quarantine")
    with Screen(strict, scan_batches(lambda: iter(frames), {"n": pl.Int64()})) as screen:
        batches = list(pa.RecordBatchReader.from_stream(FrameStream(screen.lazy)))
    assert sum(one.num_rows for one in batches) == 5_994
    assert len(batches) < 20


def test_no_more_than_some_hundred_frames_are_held():
    """A frame of one row takes a thousand times the row."""
    frames = [pl.DataFrame({"n": [n]}) for n in range(3_000)]
    verdict = Verdict(Contract(columns={"n": Column(min=0)}), scan_batches(lambda: iter(frames), {"n": pl.Int64()}))
    heights = [judge.good.height for judge in verdict.judged()]
    assert sum(heights) == 3_000
    assert max(heights) <= 256

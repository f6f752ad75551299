from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.cursor import Cursor, track
from headrace.cursor.batches import Counted
from headrace.errors import ConfigError, DataError
from headrace.flow import Range, Snapshot
from headrace.stream import asked, scan_generator
from headrace.stream.drawing import of_height
from headrace.systems.files import FileSource


def run(frame, after=None, ties="again", start=None, newest=lambda _c: None, column="c"):
    found = track(frame.lazy(), Cursor(column=column, start=start), after=after, ties=ties, source="in", newest=newest)
    rows = found.lazy.collect()
    return rows, found.position(), [r for f in found.rejects() for r in f.to_dicts()]


@pytest.mark.parametrize(
    ("values", "text", "dtype"),
    [
        ([1, 2**60], str(2**60), pl.Int64),
        ([0.1, 0.30000000000000004], "0.30000000000000004", pl.Float64),
        ([Decimal("1.10"), Decimal("1.20")], "1.20", pl.Decimal(12, 2)),
        (["a", "é"], "é", pl.String),
        (
            [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 0, 0, 0, 123457, tzinfo=UTC)],
            "2024-01-01T00:00:00.123457Z",
            pl.Datetime("us", "UTC"),
        ),
        ([datetime(2024, 1, 1), datetime(2024, 1, 2)], "2024-01-02T00:00:00", pl.Datetime("us")),  # noqa: DTZ001  # no zone is the point
    ],
)
def test_the_position_keeps_every_digit(values, text, dtype):
    frame = pl.DataFrame({"c": pl.Series(values, dtype=dtype), "v": [1, 2]})
    rows, position, _ = run(frame)
    assert rows.height == 2
    assert position["cursor"].replace(".000000", "") == text
    again, same, _ = run(frame, after=position)
    assert again["c"].to_list() == values[1:]
    assert same["cursor"] == position["cursor"]


def test_nanoseconds_are_not_lost():
    series = pl.Series([1, 2], dtype=pl.Int64).cast(pl.Datetime("ns"))
    frame = pl.DataFrame({"c": series})
    _, position, _ = run(frame)
    assert run(frame, after=position)[0].height == 1


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab") | st.none()), max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3),
)
def test_appending_by_cursor_neither_loses_nor_doubles_ties(rows, cuts):
    rows = sorted(rows, key=lambda r: r[0])
    position, loaded = None, []
    for cut in [*sorted(cuts), len(rows)]:
        frame = pl.DataFrame(rows[:cut], schema={"c": pl.Int64, "v": pl.String}, orient="row")
        new, position, _ = run(frame, after=position, ties="once")
        loaded += new.rows()
    assert sorted(loaded, key=str) == sorted(rows, key=str)


def test_a_merge_reads_ties_again():
    frame = pl.DataFrame({"c": [1, 2, 2], "v": [1, 2, 3]})
    _, position, _ = run(frame)
    assert run(frame, after=position)[0]["v"].to_list() == [2, 3]
    with pytest.raises(ConfigError, match="has been read for a merge"):
        run(frame, after=position, ties="once")


def test_a_column_that_comes_later_does_not_double_ties():
    _, position, _ = run(pl.DataFrame({"c": [1], "v": [1]}), ties="once")
    wider = pl.DataFrame({"c": [1, 1], "v": [1, 1], "w": [None, "new"]})
    assert run(wider, after=position, ties="once")[0].rows() == [(1, 1, "new")]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (pl.Int32(), pl.Float64()),
        (pl.Float32(), pl.Float64()),
        (pl.Decimal(10, 2), pl.Decimal(12, 3)),
        (pl.Int64(), pl.Decimal(38, 2)),
    ],
)
@pytest.mark.parametrize("column", ["c", "v"])
def test_a_wider_type_makes_no_new_row_of_one_that_was_read(was, now, column):
    before = pl.DataFrame({"c": [1, 2, 2], "v": [1, 2, -0]}).with_columns(pl.col(column).cast(was))
    if was == pl.Float32():
        before = before.with_columns((pl.col(column) + 0.1).cast(was))
    position = run(before, ties="once")[1]
    after = before.with_columns(pl.col(column).cast(now))
    rows, position, _ = run(pl.concat([after, after[1:2]]), position, ties="once")
    assert rows.rows() == [after.row(1)]  # a row that is there once more is a new one
    assert run(after, position, ties="once")[0].is_empty()


def test_a_type_whose_values_cannot_be_compared_is_refused():
    position = run(pl.DataFrame({"c": [1], "v": [1]}), ties="once")[1]
    for frame in (pl.DataFrame({"c": [1], "v": ["1"]}), pl.DataFrame({"c": [1]})):
        with pytest.raises(DataError, match="column 'v' was int64"):
            run(frame, position, ties="once")


def test_a_column_that_comes_with_a_default_makes_no_new_rows_of_old_ones():
    position = run(pl.DataFrame({"c": [1, 2], "v": [1, 2]}), ties="once")[1]
    wider = pl.DataFrame({"c": [1, 2, 3], "v": [1, 2, 3], "w": [7, 7, 3]})
    rows, position, _ = run(wider, position, ties="once")
    assert rows.rows() == [(3, 3, 3)]
    assert run(wider, position, ties="once")[0].is_empty()


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_two_rows_like_an_old_one_that_with_a_value_in_a_new_column_is_the_new_one(order):
    position = run(pl.DataFrame({"c": [1], "v": [1]}), ties="once")[1]
    wider = pl.DataFrame({"c": [1, 1], "v": [1, 1], "w": [None, "new"]})[order]
    assert run(wider, position, ties="once")[0].rows() == [(1, 1, "new")]


@pytest.mark.parametrize("word", ["file", "line", "modified"])
def test_a_rows_place_is_no_part_of_it(tmp_path, word):
    source = FileSource(path="*.csv", base=tmp_path, cursor="c", add_columns={"_at": word})
    (tmp_path / "b.csv").write_text("c\n1\n2\n")
    batch = next(source.batches(Range(ties="once"), Snapshot(), "in"))
    batch.frame.lazy.collect()
    (tmp_path / "b.csv").unlink()
    (tmp_path / "c.csv").write_text("c\n0\n1\n2\n3\n")
    again = next(source.batches(Range(after=batch.position(), ties="once"), Snapshot(), "in"))
    assert again.frame.lazy.collect()["c"].to_list() == [3]


@pytest.mark.parametrize("dtype", [pl.Date(), pl.Datetime("us"), pl.Datetime("ms", "UTC")])
def test_a_cursor_beyond_the_year_9999_is_read_on(dtype):
    unit = 1 if dtype == pl.Date() else 86_400_000_000
    ticks = pl.Series([2_932_897, 2_932_898]) * unit
    frame = pl.DataFrame({"c": ticks.cast(pl.Int32 if unit == 1 else pl.Int64).cast(dtype), "v": [1, 2]})
    position = run(frame.head(1), ties="once")[1]
    assert run(frame, position, ties="once")[0]["v"].to_list() == [2]


def test_rows_without_a_cursor_are_rejects():
    frame = pl.DataFrame({"c": [None, 2.0, float("nan")], "v": ["x", "y", None]})
    rows, position, rejects = run(frame)
    assert rows.rows() == [(2.0, "y")]
    assert [(r["stage"], r["rules"], r["row"]) for r in rejects] == [
        ("cursor", ["cursor column is null"], '{"c": null, "v": "x"}'),
        ("cursor", ["cursor column is null"], '{"c": "NaN", "v": null}'),
    ]
    assert position["cursor"] == "2.0"


def test_a_batch_of_nulls_leaves_the_position_as_it_was():
    nulls = pl.DataFrame({"c": [None], "v": [1]}, schema={"c": pl.Int64, "v": pl.Int64})
    assert run(nulls)[1] == {}
    _, position, _ = run(pl.DataFrame({"c": [5], "v": [1]}))
    rows, after, rejects = run(nulls, after=position)
    assert (rows.height, dict(after), len(rejects)) == (0, position, 1)
    assert run(pl.DataFrame({"c": [4, 6], "v": [1, 2]}), after=after)[0]["c"].to_list() == [6]


def test_the_first_run_begins_at_the_start_or_at_the_targets_newest():
    frame = pl.DataFrame({"c": [1, 2, 3]})
    assert run(frame, start="2")[0]["c"].to_list() == [2, 3]
    assert run(frame, start="from_target", newest=lambda _c: "2")[0]["c"].to_list() == [2, 3]
    assert run(frame, start="from_target", newest=lambda _c: "2", ties="once")[0]["c"].to_list() == [3]
    assert run(frame, start="from_target")[0].height == 3
    with pytest.raises(ConfigError, match="is no int64"):
        run(frame, start="x")
    with pytest.raises(ConfigError) as caught:
        run(frame.rename({"c": "updated"}), column="update")
    assert caught.value.hint == "did you mean 'updated'?"


def test_too_many_ties_point_to_merge():
    frame = pl.DataFrame({"c": [1] * 10_001})
    with pytest.raises(DataError) as caught:
        run(frame, ties="once")
    assert "merge" in caught.value.hint
    assert run(frame, ties="again")[0].height == 10_001


def test_another_type_is_refused():
    _, position, _ = run(pl.DataFrame({"c": [1]}))
    with pytest.raises(DataError, match="was int64 and is string now"):
        run(pl.DataFrame({"c": ["1"]}), after=position)


def test_only_what_is_asked_for_is_read():
    seen = []

    def generator(columns, predicate, _n_rows, _size):
        seen.append((columns, str(predicate)))
        rows = pl.DataFrame({"c": [1, 2], "v": [1, 2], "w": [1, 2]})
        yield (rows if predicate is None else rows.filter(predicate)).select(columns or rows.columns)

    frame = scan_generator(generator, {"c": pl.Int64(), "v": pl.Int64(), "w": pl.Int64()})
    found = track(frame, Cursor(column="c"), after={"cursor": "2", "type": "int64"}, ties="again", source="in")
    assert found.lazy.select("v").collect()["v"].to_list() == [2]
    assert sorted(seen[0][0]) == ["c", "v"]
    assert "2" in seen[0][1]
    assert found.position()["cursor"] == "2"


def test_files_are_read_by_a_cursor(tmp_path):
    source = FileSource(path="*.csv", base=tmp_path, cursor="at")
    (tmp_path / "a.csv").write_text("id,at\n1,2024-01-01T00:00:00Z\n2,2024-01-01T00:00:00.000001Z\nbad\n3,\n")
    (first,) = source.batches(Range(ties="once"), Snapshot(), "in")
    assert first.frame.lazy.collect()["id"].to_list() == [1, 2]
    assert sorted(r for f in first.rejects() for r in f["line"]) == [4, 5]
    stamps = {f.name: f for f in first.files()}
    position = first.position()
    (tmp_path / "b.csv").write_text("id,at\n4,2024-01-01T00:00:00.000001Z\n0,2023-01-01T00:00:00Z\n5,\n")
    later = Snapshot(seen=lambda _name, _names: stamps)
    (second,) = source.batches(Range(after=position, ties="once"), later, "in")
    assert second.frame.placed.collect().rows()[0][:3] == ("b.csv", 2, 4)
    assert second.counts().rows == 1
    assert [(r["file"], r["line"]) for f in second.rejects() for r in f.to_dicts()] == [("b.csv", 4)]
    assert [f.name for f in second.files()] == ["b.csv"]
    assert not second.news.empty
    assert second.whole.lazy.collect()["id"].to_list() == [1, 2, 4, 0]
    stamps |= {f.name: f for f in second.files()}
    (third,) = source.batches(Range(after=second.position(), ties="once"), later, "in")
    assert third.news.empty


def test_the_whole_that_was_drained_alone_leads_the_position(tmp_path):
    (tmp_path / "a.csv").write_text("id,at\n1,1\n2,7\n")
    source = FileSource(path="*.csv", base=tmp_path, cursor="at")
    (one,) = source.batches(Range(after={"cursor": "7", "type": "int64", "boundary": None}), Snapshot(), "in")
    assert one.whole.lazy.collect().height == 2
    assert one.position()["cursor"] == "7"
    assert one.counts().rows == 2


@pytest.mark.parametrize("values", ["28/01/2024", "true"])
@pytest.mark.parametrize("start", [None, "2012-06-01"])
def test_a_cursor_whose_type_was_only_guessed_as_text_is_refused_until_it_is_declared(tmp_path, values, start):
    (tmp_path / "a.csv").write_text(f"c,v\n{values},1\n")
    cursor = Cursor(column="c", start=start)
    with pytest.raises(ConfigError, match="'c' was taken for a") as caught:
        next(FileSource(path="*.csv", base=tmp_path, cursor=cursor).batches(Range(), Snapshot(), "in"))
    assert '"types": {"c":' in caught.value.hint
    declared = FileSource(path="*.csv", base=tmp_path, cursor=cursor, types={"c": "string"})
    assert next(declared.batches(Range(), Snapshot(), "in")).frame.lazy.collect().height == 1


def test_a_cursor_that_is_no_column_is_told_the_files_own(tmp_path):
    (tmp_path / "a.csv").write_text("id,at\n1,2\n")
    source = FileSource(path="a.csv", base=tmp_path, cursor="nope")
    with pytest.raises(ConfigError, match=r"it has id, at$"):
        list(source.batches(Range(), Snapshot(), "in"))


@pytest.mark.parametrize("known", [False, True])
def test_a_filter_goes_on_to_where_rows_are_read_only_if_their_number_is_known(known):
    pushed, ends = [], []

    def read(columns, predicate, n_rows, _size):
        pushed.append(predicate is not None)
        rows = pl.DataFrame({"v": [1, 2, 3], "w": [1, 2, 3]})
        return asked(iter((rows[:2], rows[2:])), columns, predicate, n_rows)

    frame = scan_generator(read, {"v": pl.Int64(), "w": pl.Int64()})
    counted = Counted(of_height(frame, 3) if known else frame, lambda: ends.append(1))
    assert counted.lazy.head(2).collect().height == 2
    assert (counted.counts().rows, ends) == (0, [])  # what a limit cuts is no whole pass
    assert counted.lazy.filter(pl.col("w") > 2).select("v").collect()["v"].to_list() == [3]
    assert (counted.counts().rows, ends, pushed) == (3, [1], [False, known])

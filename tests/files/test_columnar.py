# ruff: noqa: DTZ001  # naive datetimes are a type of their own
import os
import sys
from datetime import datetime

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from headrace.cursor import Latest
from headrace.errors import ConfigError, DataError, SchemaError
from headrace.flow import Range, Snapshot
from headrace.systems.files import FileSource


def batch(folder, path="*", **words):
    (one,) = FileSource(path=path, base=folder, **words).batches(Range(), Snapshot(), "in")
    return one


def rejects(one):
    return [r for f in one.rejects() for r in f.to_dicts()]


def test_parquet_columns_are_unioned_widened_and_pushed_down(tmp_path):
    small = pl.DataFrame({"id": [1, 2], "x": ["a", "b"]}, schema={"id": pl.Int32, "x": pl.String})
    small.write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"y": [1.5], "id": [2**40]}).write_parquet(tmp_path / "b.parquet")
    one = batch(tmp_path, rename={"x": "name"})
    assert one.news.rows == 3
    assert one.frame.lazy.collect().rows() == [(1, "a", None), (2, "b", None), (2**40, None, 1.5)]
    assert one.counts().rows == 3
    found = one.frame.placed.filter(pl.col("id") > 1).select("_headrace_line", "name").collect()
    assert found.rows() == [(2, "b"), (1, None)]
    assert one.frame.lazy.head(1).collect().height == 1
    assert one.frame.lazy.select(pl.len()).collect().item() == 3


def test_types_that_do_not_meet_are_refused_by_file_and_column(tmp_path):
    pl.DataFrame({"v": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"v": ["x"]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match=r"'b\.parquet': column 'v' is string, in earlier files it is int64"):
        batch(tmp_path)
    assert batch(tmp_path, types={"v": "string"}).frame.lazy.collect()["v"].to_list() == ["1", "x"]


def test_a_declared_type_is_cast_exactly_or_rejected(tmp_path):
    pl.DataFrame({"v": [1.0, 1.5, None], "k": ["a", "b", "c"]}).write_parquet(tmp_path / "a.parquet")
    one = batch(tmp_path, types={"v": "int64"})
    assert one.frame.lazy.collect().rows() == [(1, "a"), (None, "c")]
    (reject,) = rejects(one)
    assert (reject["file"], reject["line"], reject["rules"]) == ("a.parquet", 2, ["v: not exactly int64"])


@pytest.mark.parametrize("format", ["parquet", "ipc", "stream"])
def test_a_file_that_is_cut_off_is_named(tmp_path, format):
    frame = pl.DataFrame({"a": list(range(1000))})
    path = tmp_path / ("a.parquet" if format == "parquet" else "a.arrow")
    {"parquet": frame.write_parquet, "ipc": frame.write_ipc, "stream": frame.write_ipc_stream}[format](path)
    assert batch(tmp_path).frame.lazy.collect().equals(frame)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=f"{path.name!r} is no whole"):
        batch(tmp_path)


def test_an_ipc_stream_is_read_some_megabytes_at_a_time(tmp_path, monkeypatch):
    values = range(2**70, 2**70 + 2_000_000)
    frame = pl.DataFrame(
        {"n": pl.Series(values, dtype=pl.Int128), "c": pl.Series(["a", "b"] * 1_000_000, dtype=pl.Categorical)}
    )
    frame.write_ipc_stream(tmp_path / "a.arrow")
    sizes, plain = [], pl.read_ipc_stream
    monkeypatch.setattr(pl, "read_ipc_stream", lambda data: (sizes.append(len(data)), plain(data))[1])
    assert batch(tmp_path).frame.lazy.collect().equals(frame)
    assert max(sizes) < 16_000_000 < sum(sizes)


def test_a_broken_footer_is_named_without_the_drivers_words(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + b"\x00" * 50 + b"\x10\x00\x00\x00PAR1")
    with pytest.raises(DataError, match=r"'a\.parquet' is no whole parquet file"):
        batch(tmp_path)


def test_a_file_that_is_broken_in_its_middle_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": [str(n * 7919) for n in range(1000)]}).write_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + b"\xff" * 200 + whole[260:])
    with pytest.raises(DataError, match=r"'a\.parquet' is no whole parquet file"):
        list(batch(tmp_path).frame.lazy.collect())


def test_hive_and_added_columns_stand_beside_typed_ones(tmp_path):
    (tmp_path / "y=2024").mkdir()
    pl.DataFrame({"a": [5, 6]}).write_parquet(tmp_path / "y=2024" / "a.parquet")
    one = batch(tmp_path, path="**/*.parquet", add_columns={"f": "file", "l": "line"})
    assert one.frame.lazy.collect().rows(named=True)[1] == {"a": 6, "y": 2024, "f": "y=2024/a.parquet", "l": 2}
    assert one.frame.lazy.filter(pl.col("y") == 2023).collect().is_empty()


def test_an_excel_sheet_is_read_by_name(tmp_path):
    pl.DataFrame({"id": [1, 2], "t": ["a", None], "v": [1.5, 2.5]}).write_excel(tmp_path / "b.xlsx", worksheet="data")
    rows = batch(tmp_path, sheet="data").frame.lazy.collect()
    assert rows.select("t", "v").rows() == [("a", 1.5), (None, 2.5)]
    with pytest.raises(ConfigError, match="no sheet 'dat'"):
        batch(tmp_path, sheet="dat")


def workbook(path, rows, top=0, left=0):
    """A workbook of these rows, below `top` rows and right of `left` columns; a text that begins with = is a formula,
    which gives an error here.
    """
    import xlsxwriter

    with xlsxwriter.Workbook(path) as book:
        page = book.add_worksheet()
        for y, row in enumerate(rows, top):
            for x, value in enumerate(row, left):
                if str(value).startswith("="):
                    page.write_formula(y, x, value, value="#DIV/0!")
                elif value and isinstance(value, str):
                    page.write_string(y, x, value)
                else:
                    page.write(y, x, value)


def test_a_cell_that_holds_an_error_is_named_and_is_no_null(tmp_path):
    workbook(tmp_path / "b.xlsx", [["a title"], ["id", "v"], [1, 2.5], [2, "=1/0"]])
    with pytest.raises(DataError, match=r"'b\.xlsx': cell B4 holds an error"):
        batch(tmp_path, skip_rows=1)


@pytest.mark.parametrize("words", [{}, {"skip_rows": 3}, {"header": ["a", "b"], "skip_rows": 4}])
def test_places_in_a_sheet_are_counted_from_its_first_cell(tmp_path, words):
    workbook(tmp_path / "b.xlsx", [["a", "b"], [1, 1], [1, "=1/0"]], top=3, left=2)
    with pytest.raises(DataError, match=r"cell D6 holds an error") as caught:
        batch(tmp_path, **words)
    assert caught.value.details == {"file": "b.xlsx", "row": 6, "column": 4}
    workbook(tmp_path / "b.xlsx", [["a", "b"], [1, 1], [None, None], [1.5, 2]], top=3, left=2)
    one = batch(tmp_path, types={"a": "int64"}, add_columns={"at": "line"}, **words)
    assert one.frame.lazy.collect().rows() == [(1, 1.0, 5), (None, None, 6)]
    assert [r["line"] for r in rejects(one)] == [7]
    assert one.frame.placed.select("_headrace_line").collect().to_series().to_list() == [5, 6]


def test_a_header_below_blank_rows_is_checked_too(tmp_path):
    workbook(tmp_path / "b.xlsx", [["a", "a"], [1, 2]], top=2)
    with pytest.raises(DataError, match="its header repeats 'a'"):
        batch(tmp_path)
    workbook(tmp_path / "b.xlsx", [["a", None], [1, 2]], top=2, left=3)
    with pytest.raises(DataError, match="does not name column E"):
        batch(tmp_path)


def test_a_sheet_shorter_than_the_lines_to_skip_is_not_taken_for_an_empty_one(tmp_path):
    workbook(tmp_path / "a.xlsx", [["a title"], ["a"], [1]])
    workbook(tmp_path / "b.xlsx", [["a"], [1]])
    with pytest.raises(DataError, match=r"b\.xlsx"):
        batch(tmp_path, skip_rows=3)


@pytest.mark.parametrize("words", [{}, {"skip_rows": 1}, {"header": ["a"]}])
def test_a_title_far_from_the_table_is_no_part_of_it(tmp_path, words):
    workbook(tmp_path / "b.xlsx", [["x", "x"] if words.get("skip_rows") else [], [None, None, "b"], [None, None, 5]])
    found = batch(tmp_path, **words).frame.lazy.collect()
    assert found.rows() == ([("b",), ("5",)] if "header" in words else [(5.0,)])


def test_true_among_numbers_of_a_sheet_is_no_1(tmp_path):
    workbook(tmp_path / "b.xlsx", [["id", "v"], [1.5, 1], [True, 2]])
    assert batch(tmp_path).frame.lazy.collect().rows() == [("1.5", 1.0), ("true", 2.0)]


def test_numbers_among_texts_of_a_sheet_keep_all_their_digits(tmp_path):
    numbers = [1e-10, 2e-10, 3.14159265358979, -1.5e-12, 123456.123456789, 0.1, 1234, -5, 0, 10**15]
    texts = ["007", "1e-10", "0.10", "+5", " 1", "1_000", "inf", "nan", "3.14159265358979", "1234.0", "x", "0"]
    rows = [[n, n] for n in numbers] + [[True, True]] + [[t, None] for t in texts] + [[1.25e300, 1.25e300]]
    workbook(tmp_path / "b.xlsx", [["v", "w"], *rows])
    found = batch(tmp_path).frame.lazy.collect()
    for name, others in (("v", texts), ("w", [None] * len(texts))):
        *values, large = found[name].to_list()
        assert values == [*map(repr, numbers), "true", *others]
        assert float(large) == 1.25e300


@pytest.mark.parametrize("words", [{}, {"rename": {"code": "c"}}, {"header": ["code", "n"], "skip_rows": 1}])
@pytest.mark.parametrize("type", ["string", "categorical", "enum(1234, 1e-10, -5.25, x)"])
def test_a_number_of_a_sheet_has_one_text_whatever_its_neighbours(tmp_path, type, words):
    numbers = [1234, 1e-10, -5.25]
    workbook(tmp_path / "b.xlsx", [["code", "n"], *([n, n] for n in numbers)])
    alone = batch(tmp_path, types={"code": type}, **words).frame.lazy.collect()
    assert [*alone.to_series(0)] == ["1234", "1e-10", "-5.25"]
    assert alone["n"].to_list() == numbers
    workbook(tmp_path / "b.xlsx", [["code", "n"], *([n, n] for n in numbers), ["x", 1]])
    mixed = batch(tmp_path, types={"code": type}, **words).frame.lazy.collect()
    assert [*mixed.to_series(0)] == ["1234", "1e-10", "-5.25", "x"]


def test_the_header_of_a_sheet_names_each_column_once(tmp_path, caplog):
    workbook(tmp_path / "b.xlsx", [["a", None, "b"], [1, None, 2]])
    assert batch(tmp_path).frame.lazy.collect().rows(named=True) == [{"a": 1.0, "b": 2.0}]
    assert not caplog.records
    workbook(tmp_path / "b.xlsx", [["a", None, "b"], [1, 5, 2]])
    with pytest.raises(DataError, match="does not name column B"):
        batch(tmp_path)
    workbook(tmp_path / "b.xlsx", [["a", "c", "a"], [1, 5, 2]])
    with pytest.raises(DataError, match="its header repeats 'a'") as caught:
        batch(tmp_path)
    assert '"skip_rows": 1' in caught.value.hint
    given = batch(tmp_path, header=["a", "c", "d"], skip_rows=1)
    assert given.frame.lazy.collect().rows(named=True) == [{"a": 1.0, "c": 5.0, "d": 2.0}]


def test_a_footer_longer_than_the_sheet_leaves_no_row(tmp_path):
    workbook(tmp_path / "b.xlsx", [["a"], [1], [2], [3]])
    assert batch(tmp_path, skip_footer=1).frame.lazy.collect()["a"].to_list() == [1, 2]
    assert batch(tmp_path, skip_footer=5).frame.lazy.collect().height == 0


def test_excel_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "b.xlsx").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(ConfigError) as caught:
        batch(tmp_path)
    assert "headrace[excel]" in caught.value.hint


@pytest.mark.parametrize("kind", ["decimal256(50, 2)", "timestamp with an offset"])
def test_a_type_that_nothing_reads_is_refused_by_file(tmp_path, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq

    dtype = pa.decimal256(50, 2) if kind.startswith("decimal") else pa.timestamp("us", tz="+05:30")
    pq.write_table(pa.table({"v": pa.array([None], dtype)}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet"):
        batch(tmp_path).frame.lazy.collect()


def test_a_name_of_headraces_own_is_refused(tmp_path):
    pl.DataFrame({"_headrace_line": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="_headrace_line"):
        batch(tmp_path)
    assert batch(tmp_path, rename={"_headrace_line": "line"}).frame.lazy.collect().rows() == [(1,)]


def test_a_latest_key_of_128_bits_is_refused_by_name(tmp_path):
    pl.DataFrame({"k": [1]}, schema={"k": pl.Int128}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="'k'"):
        batch(tmp_path, read="all", latest=Latest(keys=("k",))).frame.lazy.collect()


def test_a_file_that_vanishes_before_its_rows_are_counted_is_not_a_bug(tmp_path):
    from types import SimpleNamespace

    from headrace.errors import UnavailableError
    from headrace.systems.files.columnar import ColumnarReader
    from headrace.systems.files.paths import File

    path = tmp_path / "a.parquet"
    gone = File(str(path), "a.parquet", 1, 1)
    with pytest.raises(UnavailableError, match="has gone"):
        ColumnarReader.rows(SimpleNamespace(format="parquet"), gone)


def test_a_file_that_vanishes_between_two_of_its_pieces_is_not_called_broken(tmp_path, monkeypatch):
    from headrace.errors import UnavailableError
    from headrace.stream.drawing import drawn
    from headrace.systems.files import columnar

    monkeypatch.setattr(columnar, "_PIECE_BYTES", 1)
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": range(400)}).write_parquet(path, row_group_size=10)
    (batch,) = FileSource(path=path.name, base=tmp_path).batches(Range(), Snapshot(), "in")
    drawing = drawn(batch.frame.lazy)
    next(drawing)
    path.unlink()
    with pytest.raises(UnavailableError, match="has gone"):
        list(drawing)


@pytest.mark.parametrize("format", ["parquet", "ipc", "excel"])
def test_a_file_that_cannot_be_opened_is_no_bug(tmp_path, format):
    from headrace.errors import RejectedError, UnavailableError
    from headrace.systems.files.columnar import ColumnarReader
    from headrace.systems.files.paths import File

    for name, error in (("gone", UnavailableError), (".", RejectedError)):
        with pytest.raises(error, match=f"'{name}'" if name == "gone" else "cannot be read"):
            ColumnarReader(FileSource(path="x"), format).schema(File(str(tmp_path / name), name, 1, 1))


@pytest.mark.parametrize("column", ["v", "several", "parts", "v.at"])
def test_a_time_of_int96_beyond_polars_nanoseconds_is_refused_by_name(tmp_path, column):
    """As Spark writes the year 9999. Polars makes another time of it, without a word."""
    far, near = datetime(9999, 12, 31), datetime(2020, 1, 1, 12, 0, 0, 1)
    for name, time in (("far", far), ("near", near)):
        us = pa.timestamp("us")
        columns = {
            "id": pa.array([1, 2]),
            "v": pa.array([time, None], us),
            "v.at": pa.array([time, None], us),
            "several": pa.array([[near, time], None], pa.list_(us)),
            "parts": pa.array([{"t": time, "n": 1}, None], pa.struct([("t", us), ("n", pa.int64())])),
        }
        (tmp_path / name).mkdir()
        pq.write_table(
            pa.table({"id": columns["id"], column: columns[column]}), tmp_path / name / "a.parquet",
            use_deprecated_int96_timestamps=True, store_schema=False,
        )  # fmt: skip
    one = batch(tmp_path / "far")
    with pytest.raises(DataError, match=rf"'a\.parquet': column '{column}' holds times before 1677 or after 2262"):
        one.frame.lazy.collect()
    assert one.frame.lazy.select("id").collect()["id"].to_list() == [1, 2], "nobody asked for it"
    kept = batch(tmp_path / "near").frame.lazy.collect()
    assert kept.equals(pl.read_parquet(tmp_path / "near" / "a.parquet"))
    assert kept.height == 2


def test_two_columns_of_one_name_are_told_as_that(tmp_path):
    columns = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["v", "v"])
    pq.write_table(columns, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"'a\.parquet' has two columns 'v'"):
        batch(tmp_path)


@pytest.mark.parametrize(
    ("time", "refused"),
    [
        (datetime(2262, 4, 11, 23, 47, 15, 999_999), False),
        (datetime(2262, 4, 11, 23, 47, 16, 900_000), True),
        (datetime(1677, 9, 22), False),
        (datetime(1677, 9, 21, 0, 12, 44), True),
    ],
)
def test_the_last_times_that_nanoseconds_hold_are_exact(tmp_path, time, refused):
    columns = pa.table({"v": pa.array([time], pa.timestamp("us"))})
    pq.write_table(columns, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True, store_schema=False)
    one = batch(tmp_path)
    if refused:
        with pytest.raises(DataError, match="before 1677 or after 2262"):
            one.frame.lazy.collect()
    else:
        assert one.frame.lazy.collect()["v"].cast(pl.Datetime("us")).to_list() == [time]


def test_what_pyarrow_does_not_know_beside_nanoseconds_is_read(tmp_path):
    rows = pl.DataFrame({"t": [1], "n": [2**100]}, schema={"t": pl.Datetime("ns"), "n": pl.Int128})
    rows.write_parquet(tmp_path / "a.parquet")
    assert batch(tmp_path).frame.lazy.collect().equals(rows)


def old_times(path, times, **more):
    """A Parquet file as Spark writes it, with a column `v` of INT96."""
    columns = {"v": pa.array(times, pa.timestamp("us")), **more}
    pq.write_table(
        pa.table(columns), path, use_deprecated_int96_timestamps=True, store_schema=False, use_dictionary=False,
        compression="none",
    )  # fmt: skip


def test_a_time_far_down_in_the_file_is_refused_unless_nobody_gets_there(tmp_path):
    near, far = datetime(2020, 1, 1), datetime(9999, 12, 31)
    old_times(tmp_path / "a.parquet", [near] * 150_000 + [far])
    one = batch(tmp_path)
    with pytest.raises(DataError, match="before 1677 or after 2262"):
        one.frame.lazy.collect()
    assert one.frame.lazy.head(2).collect()["v"].to_list() == [near, near]


def test_rows_that_are_rejected_do_not_count_for_what_is_looked_at(tmp_path):
    """Of the first hundred thousand rows none is left: the one that is asked for is the last."""
    near, far, count = datetime(2020, 1, 1), datetime(9999, 12, 31), 150_000
    old_times(tmp_path / "a.parquet", [near] * count + [far], n=pa.array(["x"] * count + ["1"]))
    with pytest.raises(DataError, match="before 1677 or after 2262"):
        batch(tmp_path, types={"n": "int64"}).frame.lazy.head(1).collect()


def clock(unit="us", bad=None, count=1):
    """Times of a day, the last of which may be none, in an Arrow array."""
    whole = pa.int32() if unit in ("s", "ms") else pa.int64()
    type = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    return pa.array([5, None] * count + ([] if bad is None else [bad]), whole).view(type)


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(
    ("unit", "bad"),
    [("ms", 86_400_000), ("ms", -1), ("us", 86_400_000_000), ("us", 2**62), ("us", -1), ("ns", 86_400 * 10**9)],
)
def test_a_time_that_is_none_of_a_day_is_refused_by_column(tmp_path, unit, bad, statistics):
    times = clock(unit, bad)
    held = {
        "plain": times,
        "listed": pa.ListArray.from_arrays([0, 1, 1, 3], times),
        "part": pa.StructArray.from_arrays([times, pa.array(["a", "b", "c"])], ["at", "name"]),
        "coded": times.dictionary_encode(),
    }
    for name, values in held.items():
        table = pa.table({"n": [1, 2, 3], name: values})
        pq.write_table(table, tmp_path / "a.parquet", write_statistics=statistics)
        one = batch(tmp_path)
        with pytest.raises(DataError, match=f"'a.parquet': column '{name}' holds what is no value of its type"):
            one.frame.lazy.collect()
        assert one.frame.lazy.select("n").collect()["n"].to_list() == [1, 2, 3]


@pytest.mark.parametrize("statistics", [True, False])
def test_times_of_a_day_are_read_as_they_are(tmp_path, statistics):
    times = pl.Series([0, 86_400 * 10**9 - 1_000, None]).cast(pl.Time)
    rows = pl.DataFrame({"t": times, "l": [[t] for t in times], "none": pl.Series([None] * 3, dtype=pl.Time)})
    pq.write_table(rows.to_arrow(), tmp_path / "a.parquet", write_statistics=statistics)
    assert batch(tmp_path).frame.lazy.collect().equals(rows)


@pytest.mark.parametrize("statistics", [True, False])
def test_the_midnight_at_the_end_of_a_day_as_duckdb_writes_it_is_refused_unless_nobody_gets_there(tmp_path, statistics):
    good, bad = clock(count=1_000), clock(bad=86_400_000_000)
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema({"t": good.type}), write_statistics=statistics) as out:
        for values in (good, bad):
            out.write_table(pa.table({"t": values}))
    one = batch(tmp_path)
    with pytest.raises(DataError, match="column 't'"):
        one.frame.lazy.collect()
    assert one.frame.lazy.head(2).collect().height == 2
    duckdb.sql("SELECT TIME '24:00:00' AS t").write_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(DataError, match="column 't'"):
        batch(tmp_path).frame.lazy.collect()


def test_only_times_are_looked_at_and_only_where_statistics_do_not_tell(tmp_path, monkeypatch):
    seen = []
    read = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda self, **how: (seen.append(how), read(self, **how))[1])
    rows = {"n": [1, 2], "t": clock(), "s": pa.StructArray.from_arrays([clock(), clock()], ["at", "t"])}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    assert batch(tmp_path).frame.lazy.collect().height == 2
    assert seen == []
    pq.write_table(pa.table(rows), tmp_path / "a.parquet", write_statistics=["n", "t", "s.t"])
    assert batch(tmp_path).frame.lazy.collect().height == 2
    assert seen == [{"row_groups": [0], "columns": ["s.at"]}]
    monkeypatch.setattr(pq, "ParquetFile", None)
    assert batch(tmp_path).frame.lazy.select("n").collect().height == 2


def test_a_damaged_column_of_int96_is_read_or_told_as_that(tmp_path):
    """PyArrow, which proves it, minds some damage that Polars does not."""
    path = tmp_path / "a.parquet"
    old_times(path, [datetime(2020, 1, 1)] * 1_000)
    one, whole, stamp = batch(tmp_path), path.read_bytes(), path.stat()
    refused = 0
    for at in range(4, 64):  # the page's header, and its first values
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        try:
            one.frame.lazy.collect()
        except DataError:
            refused += 1
    assert refused

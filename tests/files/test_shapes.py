"""What Polars' own parser reads where the shapes allow it, against the way of texts, which is tested elsewhere."""

from unittest import mock

import polars as pl
import polars.testing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.cursor import TextType
from headrace.flow import Range, Snapshot
from headrace.systems.files import FileSource, scan
from headrace.systems.files.csv import _Parser

TYPES = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float64", "date", "bool", "decimal(5,2)", "decimal(38,10)", "decimal(4,0)", "decimal(2,2)"),
)
ODD = ("", "007", "-0", "+1", "-0.0", "1.", ".5", "1e5", "NA", "nan", "inf", "0000-01-01", "2024-02-30", "tRue", " 1")
LONG = ("127", "128", "-129", "65535", "99999999999999999999", "18446744073709551615", "0.1234567890123456", "1.005")
TIMES = ("Nan", "@5d", "2024-01-02", "2024-01-02 11", "2024-01-02T11:00")
MORE = ("99999999999.123", "12345678.1234567", "9007199254740993", "1e999", "2023-02-29", "9999-12-31", "True", "false")
numbers = st.integers(-(10**19), 10**19).map(str) | st.decimals(-(10**6), 10**6, places=4).map(lambda d: f"{d:f}")
dates = st.dates().map(str) | st.from_regex(r"\A[0-2][0-9]{3}-[0-1][0-9]-[0-3][0-9]\Z", fullmatch=True)
texts = st.sampled_from(ODD + LONG + TIMES + MORE) | numbers | dates | st.integers(-200, 200).map(str)


def read(folder, columns=None, **words):
    """The rows with file and line (or some columns), and the rejects."""
    (one,) = FileSource(path="*", base=folder, **words).batches(Range(), Snapshot(), "in")
    rows = (one.frame.placed if columns is None else one.frame.lazy.select(columns)).collect()
    return rows, [reject for frame in one.rejects() for reject in frame.rows(named=True)]


def ways(folder, **words):
    """The same files read with shapes and without: rows with their place, and rejects."""
    with mock.patch.object(_Parser, "shaped", return_value=None):
        careful = read(folder, **words)
    return read(folder, **words), careful


def same(one, other):
    assert one[1] == other[1]
    pl.testing.assert_frame_equal(one[0], other[0], check_exact=True)
    for name in (n for n, t in one[0].schema.items() if t == pl.Float64):  # a zero's sign is part of it
        assert one[0][name].cast(pl.String).to_list() == other[0][name].cast(pl.String).to_list()


@settings(max_examples=400, deadline=None)
@given(
    type=st.sampled_from(TYPES),
    column=st.lists(texts, min_size=1, max_size=5),
    quoted=st.booleans(),
    words=st.sampled_from([{}, {"nulls": ("NA", "0")}, {"decimal": ","}]),
    alone=st.booleans(),
)
def test_both_ways_read_the_same_values_and_refuse_the_same_rows(tmp_path_factory, type, column, quoted, words, alone):
    folder = tmp_path_factory.mktemp("in")
    fields = [f'"{t}"' if quoted else t for t in column]
    (folder / "x.csv").write_text("a\n" + "".join(f"{f}\n" if alone else f"{f};x\n" for f in fields))
    if not alone:
        (folder / "x.csv").write_text("a;b\n" + "".join(f"{f};x\n" for f in fields))
    same(*ways(folder, types={"a": type}, delimiter=";", **words))


def one_each(folder, texts):
    """A file, and so a piece, of each text."""
    for n, text in enumerate(texts):
        (folder / f"{n}.csv").write_text(f"a;b\n{text};x\n")


@pytest.mark.parametrize("type", TYPES)
def test_both_ways_read_each_odd_text_the_same(tmp_path, type):
    one_each(tmp_path, ODD + LONG + TIMES + MORE)
    same(*ways(tmp_path, types={"a": type}, delimiter=";"))


@pytest.mark.parametrize("type", ["int64", "float64", "decimal(5,2)", "date", "bool"])
@pytest.mark.parametrize(
    "words",
    [{"nulls": ("0", "1.5", "2024-01-01", "true")}, {"decimal": ","}, {"true": ("0",), "false": ("true",)}],
    ids=["nulls", "decimal", "bools"],
)
def test_what_the_reading_says_of_texts_holds_both_ways(tmp_path, type, words):
    one_each(tmp_path, ("0", "1.5", "2024-01-01", "true", "1,5"))
    how = {k: words[k] for k in ("true", "false") if k in words}
    types = {"a": TextType(type=type, **how) if how else type}
    rest = {k: v for k, v in words.items() if k not in how}
    same(*ways(tmp_path, types=types, delimiter=";", **rest))


@pytest.mark.parametrize("first", ["12", "1.5", "2024-01-01", "true", "2024-01-01T10:00"])
def test_both_ways_read_the_same_after_an_inferred_type(tmp_path, first):
    odd = [text for text in ODD + LONG + TIMES + MORE for _ in range(2)]
    (tmp_path / "x.csv").write_text("a;b\n" + f"{first};x\n" * 3 + "".join(f"{t};x\n" for t in odd))
    same(*ways(tmp_path, infer=3, delimiter=";", block=4))


@pytest.mark.parametrize("columns", [None, ["a"]])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7-x\n-5-x\n8-y\n", {"delimiter": "-"}),
        ("7.x\n1.5.x\n8.y\n", {"delimiter": ".", "types": {"a": "decimal(5,2)"}}),
        ("1.5.2\n1.5.2\n", {"delimiter": ".", "types": {"a": "float64", "b": "float64"}}),
        ("2020-01-02-x\n", {"delimiter": "-", "types": {"a": "date"}}),
        ("22,3\n11,3\n", {"quote": "1", "types": {"a": "int64", "b": "int64"}}),
        ("22,3\n100,3\n2,30011\n5,5\n", {"quote": "0", "types": {"a": "int64", "b": "int64"}}),
        ("true,1\nfalse,2\n", {"quote": "e", "types": {"a": "bool"}}),
        ("trueetrue\n", {"delimiter": "e", "types": {"a": "bool", "b": "bool"}}),
    ],
)
def test_a_mark_that_a_number_may_hold_is_a_mark_both_ways(tmp_path, text, words, columns):
    (tmp_path / "x.csv").write_text(text)
    same(*ways(tmp_path, columns=columns, **{"header": ("a", "b"), "infer": 1, "delimiter": ",", **words}))


@settings(max_examples=200, deadline=None)
@given(column=st.lists(texts, min_size=1, max_size=5), sample=st.integers(1, 3))
def test_both_ways_read_the_same_where_types_are_inferred(tmp_path_factory, column, sample):
    folder = tmp_path_factory.mktemp("in")
    (folder / "x.csv").write_text("a;b\n" + "".join(f"{t};x\n" for t in column))
    same(*ways(folder, infer=sample, delimiter=";", block=16))


def shaped(monkeypatch, folder, types):
    """How many pieces came as values, how many as texts."""
    counts = {True: 0, False: 0}
    original = scan.convert

    def seen(piece, *args, **words):
        counts[any(dtype != pl.String for dtype in piece.frame.dtypes)] += 1
        return original(piece, *args, **words)

    monkeypatch.setattr(scan, "convert", seen)
    rows, rejects = read(folder, types=types, delimiter=",", block=64)
    return counts, rows, rejects


def test_plain_numbers_and_dates_come_as_values(tmp_path, monkeypatch):
    lines = [f'{n},"{n}",{n}.25,{n}.50,2024-02-{n % 29 + 1:02},text {n},true' for n in range(40)]
    (tmp_path / "x.csv").write_text("i,q,f,d,day,s,b\n" + "\n".join(lines) + "\n")
    counts, rows, rejects = shaped(monkeypatch, tmp_path, {"d": "decimal(9,2)"})
    assert counts[False] == 0
    assert counts[True] > 1
    assert (rows.height, rejects) == (40, [])


@pytest.mark.parametrize("bad", ["1.005", "2024-02-30", "12345", "x"])
def test_a_piece_with_one_other_text_goes_the_careful_way_alone(tmp_path, monkeypatch, bad):
    lines = [f"{n},{n}.25,2024-01-01" for n in range(40)]
    lines[20] = {"1.005": f"20,{bad},2024-01-01", "2024-02-30": f"20,1.25,{bad}"}.get(bad, f"{bad},1.25,2024-01-01")
    (tmp_path / "x.csv").write_text("i,d,day\n" + "\n".join(lines) + "\n")
    types = {"i": "int8", "d": "decimal(9,2)", "day": "date"}
    counts, rows, rejects = shaped(monkeypatch, tmp_path, types)
    assert counts[False] == 1
    assert counts[True] > 1
    assert rows["i"].to_list() == [n for n in range(40) if n != 20]
    assert [r["line"] for r in rejects] == [22]

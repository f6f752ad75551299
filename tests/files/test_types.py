from datetime import UTC, date, datetime

import polars as pl
import pytest

from headrace.cursor import TextType
from headrace.errors import ConfigError
from headrace.flow import Range, Snapshot
from headrace.systems.files import FileSource


def batch(folder, text, after=None, **words):
    (folder / "x.csv").write_text(text)
    (one,) = FileSource(path="x.csv", base=folder, **words).batches(Range(after=after), Snapshot(), "in")
    return one


def rejects(one):
    return [r for f in one.rejects() for r in f.to_dicts()]


@pytest.mark.parametrize(
    ("texts", "type"),
    [
        (["1", "-20", "0"], "int64"),
        (["007", "1"], "string"),
        (["+1"], "string"),
        (["-0"], "float64"),
        (["-0", "1"], "float64"),
        (["12345678901234567890"], "string"),
        (["12.50", "3", "-0.1"], "float64"),
        (["0.30000000000000004"], "float64"),
        (["1.0", "9007199254740993"], "string"),
        (["1.0", "9007199254740992", "1234567890123456", "-10000000000000000", "1.2345678901234567"], "float64"),
        (["5.188912636955312e-05", "1.2345678901234567E+20", "0.000012345678901234500"], "float64"),
        (["0.12345678901234567890123"], "string"),
        (["1.23456789012345678e-05"], "string"),
        (["1e400"], "string"),
        (["true", "FALSE"], "bool"),
        (["2024-02-29"], "date"),
        (["2023-02-29"], "string"),
        (["2024-01-01T10:00:00", "2024-01-01 10:00:00.123456"], "datetime(us)"),
        (["2024-01-01T10:00:00Z", "2024-01-01T10:00:00.5+02:00"], "datetime(us, UTC)"),
        (["2024-01-01T10:00:00Z", "2024-01-01T10:00:00"], "string"),
        (["", ""], "string"),
        (["nan"], "string"),
        ([" 1"], "string"),
        (["1_0"], "string"),
    ],
)
def test_types_are_inferred_strictly(tmp_path, texts, type):
    one = batch(tmp_path, "k,v\n" + "".join(f"x,{t}\n" for t in texts))
    assert one.news.facts["inferred"]["v"] == type
    assert one.frame.lazy.collect().height == len(texts)
    assert rejects(one) == []


def test_a_later_value_that_contradicts_the_inference_is_a_reject_that_says_so(tmp_path):
    one = batch(tmp_path, "n,f\n1,1.5\n2,2\n007,3\nx,4\n5,12345678901234567890\n", infer=2)
    assert one.news.facts["sample_rows"] == 2
    assert one.frame.lazy.collect().rows() == [(1, 1.5), (2, 2.0)]
    found = rejects(one)
    assert [(r["line"], r["row"]) for r in found] == [(4, "007,3"), (5, "x,4"), (6, "5,12345678901234567890")]
    assert "n: not exactly int64, which was inferred from the first 2 rows" in found[0]["rules"][0]
    assert '"types": {"n": "string"}' in found[0]["rules"][0]
    everything = batch(tmp_path, (tmp_path / "x.csv").read_text(), infer="all")
    assert everything.news.facts["inferred"] == {"n": "string", "f": "string"}


@pytest.mark.parametrize(
    ("sample", "others"),
    [
        ("1.5", ["Nan", "INF", "-inf", "+1.5"]),
        ("2024-01-01T10:00:00", ["2024-01-02", "2024-01-02 11", "@1704103200000000us"]),
        ("2024-01-01T10:00Z", ["2024-01-02 11Z", "2024-01-02T11+02:00", "2024-01-02T11-0200"]),
        ("2024-01-01", ["@5d", "2024-01-02T00:00"]),
        ("true", ["1", "yes"]),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_a_text_that_no_guess_takes_is_no_other_value_of_the_guessed_type(tmp_path, sample, others, later):
    one = batch(tmp_path, f"k,v\nx,{sample}\n", infer=1)
    assert one.frame.lazy.collect().height == 1
    rows = "".join(f"x,{text}\n" for text in (sample, *others))
    then = batch(tmp_path, f"k,v\n{rows}", **({"after": one.position()} if later else {"infer": 1}))
    assert then.frame.lazy.collect().height == 1
    assert [r["row"] for r in rejects(then)] == [f"x,{text}" for text in others]
    assert "v: not exactly" in rejects(then)[0]["rules"][0]


def test_declared_types_are_judged_even_where_no_one_reads_them(tmp_path):
    one = batch(tmp_path, "id,d\n1,31/01/2024\n2,32/01/2024\n", types={"d": TextType(type="date", format="%d/%m/%Y")})
    assert one.frame.lazy.select("id").collect()["id"].to_list() == [1]
    (reject,) = rejects(one)
    assert reject["rules"] == ["d: not exactly date"]
    assert reject["row"] == "2,32/01/2024"
    assert one.frame.lazy.collect()["d"].to_list() == [date(2024, 1, 31)]


def test_bools_decimals_and_nulls_are_read_as_they_are_declared(tmp_path):
    one = batch(
        tmp_path,
        "a;m;z\nY;1.234,50;NA\nN;0,1;x\nN;0,123;\n",
        types={"a": TextType(type="bool", true=("Y",), false=("N",)), "m": "decimal(12,2)", "z": "string"},
        decimal=",",
        nulls=("NA",),
    )
    assert [str(v) for v in one.frame.lazy.collect()["m"]] == ["0.10"]
    assert [r["line"] for r in rejects(one)] == [2, 4]
    assert one.frame.lazy.select("a", "z").collect().rows() == [(False, "x")]


def test_a_comma_is_a_decimal_point_when_told(tmp_path):
    one = batch(tmp_path, "v\n1,50\n-2,25\n", decimal=",", delimiter=";")
    assert one.frame.lazy.collect()["v"].to_list() == [1.5, -2.25]


def test_texts_that_mean_null_are_null_before_they_are_judged(tmp_path):
    one = batch(tmp_path, "v,t\n1,NA\n-,x\n3,-\n", nulls=("NA", "-"))
    assert one.frame.lazy.collect().rows() == [(1, None), (None, "x"), (3, None)]
    assert rejects(one) == []


def test_an_empty_quoted_text_is_no_null(tmp_path):
    one = batch(tmp_path, 'n,t\n1,""\n"",x\n', types={"n": "int64", "t": "string"})
    assert one.frame.lazy.collect().rows() == [(1, "")]
    assert rejects(one)[0]["line"] == 3


def test_what_was_inferred_once_holds_for_the_runs_that_follow(tmp_path):
    first = batch(tmp_path, "zip\n007\n")
    first.frame.lazy.collect()
    second = batch(tmp_path, "zip\n123\n", after=first.position())
    assert second.frame.lazy.collect()["zip"].to_list() == ["123"]
    third = batch(tmp_path, "zip\n123\n", after={"files": 1, "types": {"zip": "date"}})
    assert third.frame.lazy.collect().is_empty()
    assert "inferred by an earlier run" in rejects(third)[0]["rules"][0]


def test_added_columns_say_where_a_row_comes_from(tmp_path):
    one = batch(tmp_path, 'a\n"x\ny"\nz\n', add_columns={"f": "file", "l": "line", "m": "modified"})
    rows = one.frame.lazy.collect()
    assert rows.select("f", "l").rows() == [("x.csv", 2), ("x.csv", 4)]
    assert rows.schema["m"] == pl.Datetime("us", "UTC")
    assert abs((rows["m"][0] - datetime.now(UTC)).total_seconds()) < 3600


def test_columns_are_renamed_and_then_known_by_the_new_name(tmp_path):
    one = batch(tmp_path, "cust_id,b\n01,2\n", rename={"cust_id": "customer"}, types={"customer": "string"})
    assert one.frame.lazy.collect().rows(named=True) == [{"customer": "01", "b": 2}]


@pytest.mark.parametrize(
    "words", [{"types": {"idd": "int64"}}, {"rename": {"idd": "x"}}, {"add_columns": {"id": "file"}}]
)
def test_a_column_that_no_file_has_is_refused(tmp_path, words):
    with pytest.raises(ConfigError):
        batch(tmp_path, "id,b\n1,2\n", **words)


def test_the_near_miss_of_a_type_is_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        batch(tmp_path, "updated_at,b\n1,2\n", types={"updatedat": "string"})
    assert caught.value.hint == "did you mean 'updated_at'?"


def test_the_plan_says_which_row_made_a_column_text(tmp_path):
    rows = ["1.5,7,x,2024-01-01", "2.25,,y,", "0.12345678901234567,8,z,28/01/2024", "3,007,7,2024-01-01"]
    facts = batch(tmp_path, "f,n,s,d\n" + "\n".join(rows) + "\n").news.facts
    assert facts["text_because"] == {
        "f": "row 3 of the sample is not exactly float64",
        "n": "row 4 of the sample is not exactly int64",
        "d": "row 3 of the sample is not exactly date",
    }


@pytest.mark.parametrize("words", [{"true": ("1", "y"), "false": ("1",)}, {"decimal": ";"}])
def test_a_way_to_read_texts_that_has_two_meanings_or_none_is_refused(words):
    with pytest.raises(ConfigError):
        TextType(type="bool", **words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"type": "date", "format": "%"}, "cannot be read"),
        ({"type": "int64", "format": "%d"}, "makes no sense for int64"),
        ({"type": "datetime", "format": "%Y %z"}, "has an offset"),
    ],
)
def test_a_format_that_cannot_work_is_refused_where_it_stands(words, said):
    with pytest.raises(ConfigError, match=said):
        TextType(**words)

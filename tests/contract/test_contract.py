from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contract import Column, Contract, Rule
from headrace.errors import ConfigError, ContractError, SchemaError


def broken(column, items, **rules):
    """The rules that each item breaks, under a contract on one column."""
    frame = items if isinstance(items, pl.Series) else pl.Series(items)
    frame = frame.alias(column).to_frame().with_row_index("i")
    good, rejects = Contract(columns={column: Column(**rules)}).split(frame)
    found = dict(rejects.select("i", "rules").iter_rows())
    assert sorted([*found, *good["i"]]) == list(range(frame.height))
    return [found.get(i, []) for i in range(frame.height)]


def test_a_value_that_its_type_cannot_hold_is_rejected_as_it_came():
    frame = pl.DataFrame({"id": ["1", "x", None, "2.0"]})
    good, rejects = Contract(columns={"id": Column(type="int64")}).split(frame)
    assert good.equals(pl.DataFrame({"id": [1, None]}))
    assert rejects.rows() == [("x", ["id: not int64"]), ("2.0", ["id: not int64"])]


def test_a_null_breaks_nullable_and_nothing_else():
    rules = {"type": "int8", "min": 1, "max": 2, "one_of": (1, 2), "unique": True}
    assert broken("a", ["1", None, None], **rules) == [[], [], []]
    assert broken("a", ["1", None, "x"], **rules, nullable=False) == [[], ["a: nullable"], ["a: not int8"]]


@pytest.mark.parametrize(
    ("items", "rules", "bad"),
    [
        ([1, 2, 3, 4], {"min": 2, "max": 3}, {0: "a: min", 3: "a: max"}),
        ([1, 2], {"min": 1.5}, {0: "a: min"}),
        ([1, 2], {"max": 10**30}, {}),
        ([1, 2], {"min": 2**70}, {0: "a: min", 1: "a: min"}),
        (["ab", "abc", "é"], {"length": (2, 2)}, {1: "a: length", 2: "a: length"}),
        (["ab", ""], {"length": (1, None)}, {1: "a: length"}),
        ([[1], [], [1, 2]], {"length": (1, 1)}, {1: "a: length", 2: "a: length"}),
        ([b"ab", b"abc"], {"length": (None, 2)}, {1: "a: length"}),
        (["AB", "xAB", "AB\n"], {"pattern": "[A-Z]+"}, {1: "a: pattern", 2: "a: pattern"}),
        (["a", "b"], {"pattern": "a|x"}, {1: "a: pattern"}),
        (["EWR", "XXX"], {"one_of": ("EWR", "JFK")}, {1: "a: one_of"}),
        ([1.5, 2.5], {"one_of": (1.5,)}, {1: "a: one_of"}),
        (["2020-01-01", "2019-12-31"], {"type": "date", "min": "2020-01-01"}, {1: "a: min"}),
        ([date(2020, 1, 1), date(2019, 1, 1)], {"min": date(2020, 1, 1)}, {1: "a: min"}),
        (["1.10", "1.11"], {"type": "decimal(12,2)", "max": "1.10"}, {1: "a: max"}),
        ([Decimal("1.10"), Decimal("1.11")], {"max": 1.1}, {1: "a: max"}),
        (
            ["2020-01-01T00:00:00Z"],
            {"type": "datetime(us, UTC)", "min": datetime(2020, 1, 2, tzinfo=UTC)},
            {0: "a: min"},
        ),
        ([1, 2, 2, None, None], {"unique": True}, {1: "a: unique", 2: "a: unique"}),
    ],
)
def test_each_rule_rejects_just_the_rows_that_break_it(items, rules, bad):
    assert broken("a", items, **rules) == [[bad[i]] if i in bad else [] for i in range(len(items))]


def test_a_row_carries_all_the_rules_that_it_breaks():
    frame = pl.DataFrame({"id": [None, 1], "price": [-1, 5]})
    contract = Contract(
        columns={"id": Column(nullable=False), "price": Column(min=0)},
        rules={"sql": "price > 0", "polars": pl.col("price") > 0, "rule": Rule(check="id > 0")},
    )
    _, rejects = contract.split(frame)
    assert rejects["rules"].to_list() == [["id: nullable", "price: min", "sql", "polars"]]


def test_a_rule_is_broken_only_when_false():
    frame = pl.DataFrame({"a": [1, -1, None]})
    for rule in ("a > 0", pl.col("a") > 0):
        good, rejects = Contract(rules={"positive": rule}).split(frame)
        assert (good["a"].to_list(), rejects["a"].to_list()) == ([1, None], [-1])


def test_rules_see_the_types_of_the_contract():
    frame = pl.DataFrame({"Day": ["2020-01-01", "2021-01-01"]})
    contract = Contract(columns={"Day": Column(type="date")}, rules={"year": "year(day) = 2020"})
    good, _ = contract.split(frame)
    assert good["Day"].to_list() == [date(2020, 1, 1)]


def test_sql_rules_read_columns_of_every_type():
    frame = pl.DataFrame(
        {"a": [1, -1], "n": [None, None], "c": ["x", "y"], "e": ["p", "p"]},
        schema={"a": pl.Int128, "n": pl.Null, "c": pl.Categorical, "e": pl.Enum(["p"])},
    )
    rule = "a > 0 AND n IS NULL AND c IN ('x', 'y') AND e = 'p'"
    assert Contract(rules={"r": rule}).split(frame)[0].height == 1


def test_unique_over_several_columns_rejects_all_copies():
    frame = pl.DataFrame({"a": [1, 1, 1, None], "b": ["x", "x", "y", "x"]})
    good, rejects = Contract(unique=(("a", "b"),)).split(frame)
    assert rejects["rules"].to_list() == [["unique(a, b)"]] * 2
    assert good.height == 2


@pytest.mark.parametrize("dtype", [pl.Time, pl.Datetime("ns"), pl.Duration("ns")])
def test_values_a_nanosecond_apart_are_not_copies(dtype):
    assert broken("a", pl.Series([1, 2, 2]).cast(dtype), unique=True) == [[], ["a: unique"], ["a: unique"]]


def test_a_rule_that_only_warns_lets_the_row_through():
    contract = Contract(columns={"a": Column(min=0, on_violation="warn")})
    good, rejects = contract.split(pl.DataFrame({"a": [-1]}))
    assert (good.height, rejects.height) == (1, 0)
    contract.check(pl.DataFrame({"a": [-1]}))


def test_what_cannot_be_loaded_cannot_be_warned_of():
    contract = Contract(columns={"a": Column(type="int64")}, on_violation="warn")
    good, rejects = contract.split(pl.DataFrame({"a": ["x"]}))
    assert (good.height, rejects["rules"].to_list()) == (0, [["a: not int64"]])


def test_lazy_frames_give_lazy_frames_that_can_be_read_twice():
    contract = Contract(columns={"a": Column(type="int64", unique=True)}, rules={"r": "a <> 9"})
    good, rejects = contract.split(pl.LazyFrame({"a": ["1", "2", "2", "x", "9"], "b": [1, 2, 3, 4, 5]}))
    for _ in range(2):
        assert good.select("a").collect()["a"].to_list() == [1]
        assert good.select(pl.len()).collect().item() == 1
        assert rejects.filter(pl.col("b") > 2).select("a").collect()["a"].to_list() == ["2", "x", "9"]
    assert good.collect_schema() == {"a": pl.Int64, "b": pl.Int64}
    assert rejects.collect_schema() == {"a": pl.String, "b": pl.Int64, "rules": pl.List(pl.String)}


def test_an_empty_frame_is_good():
    contract = Contract(columns={"a": Column(type="date", unique=True, min="2020-01-01")}, rules={"r": "a IS NOT NULL"})
    good, rejects = contract.split(pl.DataFrame(schema={"a": pl.String}))
    assert (good.schema, good.height, rejects.height) == ({"a": pl.Date}, 0, 0)
    lazy_good, lazy_rejects = contract.split(pl.LazyFrame(schema={"a": pl.String}))
    assert (lazy_good.collect().schema, lazy_rejects.collect().height) == ({"a": pl.Date}, 0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(-3, 3), st.none() | st.sampled_from(["a", "b", "cc"])), max_size=12))
def test_good_and_rejects_are_all_rows_and_no_row_twice(rows):
    frame = pl.DataFrame(rows, schema={"n": pl.Int64, "s": pl.String}, orient="row").with_row_index("i")
    contract = Contract(
        columns={"n": Column(min=-2, nullable=False), "s": Column(length=(1, 1))},
        unique=(("n", "s"),),
        rules={"r": "n < 3 OR s = 'a'"},
    )
    good, rejects = contract.split(frame)
    bad = rejects["i"].to_list()
    assert sorted([*good["i"], *bad]) == list(range(frame.height))
    for i, n, s in frame.iter_rows():
        passes_rule = (n is None or n < 3) or s in (None, "a")
        repeats = n is not None and s is not None and rows.count((n, s)) > 1
        kept = n is not None and n >= -2 and (s is None or len(s) == 1) and not repeats and passes_rule
        assert (i not in bad) == kept


def test_check_counts_by_rule_and_says_no_value():
    frame = pl.DataFrame({"id": [1, None, None], "name": ["secret", "secret2", "x"]})
    contract = Contract(columns={"id": Column(nullable=False), "name": Column(length=(None, 3))})
    with pytest.raises(ContractError) as caught:
        contract.check(frame)
    assert "2 of 3 rows break the contract" not in caught.value.message
    assert "3 of 3 rows break the contract: id: nullable 2, name: length 2" in caught.value.message
    assert "secret" not in str(caught.value)
    assert caught.value.details["by_rule"] == {"id: nullable": 2, "name: length": 2}


@pytest.mark.parametrize(("bounds", "rows"), [({"min_rows": 2}, 1), ({"max_rows": 2}, 3)])
def test_check_bounds_the_number_of_rows(bounds, rows):
    with pytest.raises(ContractError, match="good rows"):
        Contract(**bounds).check(pl.DataFrame({"a": [1] * rows}))
    Contract(**bounds).check(pl.DataFrame({"a": [1] * 2}))


def test_a_missing_column_is_a_schema_error_with_a_near_miss():
    with pytest.raises(SchemaError, match="column 'prize'") as caught:
        Contract(columns={"prize": Column()}).split(pl.DataFrame({"price": [1]}))
    assert caught.value.hint == "did you mean 'price'?"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("prize > 0", "did you mean 'price'?"),
        ("price >", "DuckDB's dialect"),
        ("price + 1", "write a comparison"),
        ("sum(price) > 0", "a rule sees one row"),
        ("price > (SELECT 1)", "a rule sees one row"),
        ("price IN (SELECT price FROM row)", "a rule sees one row"),
        ("row_number() OVER () > 1", "a rule sees one row"),
        ("nonsense(price) > 0", "DuckDB's dialect"),
        (pl.col("prize") > 0, "did you mean 'price'?"),
        (pl.col("price") + 1, "write a comparison"),
        (pl.col("price") > pl.col("price").mean(), "a rule sees one row"),
        (pl.col("price").shift() > 0, "a rule sees one row"),
        (pl.col("price").is_duplicated(), "a rule sees one row"),
        (pl.col("price").sum().over("name") > 0, "a rule sees one row"),
        (pl.col("name") > 0, "frame.select"),
    ],
)
def test_a_rule_that_does_not_fit_is_named_before_any_row_is_read(rule, said):
    def rows(*_):
        raise AssertionError

    schema = {"price": pl.Int64(), "name": pl.String()}
    frame = pl.io.plugins.register_io_source(rows, schema=schema)
    with pytest.raises(ConfigError, match="rule 'mine'") as caught:
        Contract(rules={"mine": rule}).split(frame)
    assert said in caught.value.hint


@pytest.mark.parametrize("rule", ['"QTY" > 0', "qty > 0", "greatest(*COLUMNS(*)) > 0"])
def test_a_rule_over_names_that_differ_in_case_alone_is_refused(rule):
    rows = pl.DataFrame({"qty": [1, -1], "id": [1, 2], "QTY": [-5, 5]})
    with pytest.raises(ConfigError, match="rule 'r' reads one of the columns 'qty' and 'QTY'"):
        Contract(rules={"r": rule}).split(rows)
    good, _ = Contract(rules={"r": "id > 1"}).split(rows)  # it reads neither
    assert good.rows() == [(-1, 2, 5)]
    with pytest.raises(ConfigError, match="reads column 'QTY_1'"):  # DuckDB's own name for one of them
        Contract(rules={"r": '"QTY_1" > 0'}).split(rows)


def test_a_rule_that_makes_rows_of_its_own_is_refused():
    with pytest.raises(ConfigError, match="'r' makes rows of its own"):
        Contract(rules={"r": "unnest([a > 0, a > 1])"}).split(pl.DataFrame({"a": [1]}))


@pytest.mark.parametrize("rule", ["a::INTEGER > 0", pl.col("a").cast(pl.Int64) > 0])
def test_a_rule_that_fails_on_a_value_does_not_say_the_value(rule):
    with pytest.raises(ContractError, match="failed on a value") as caught:
        Contract(rules={"r": rule}).split(pl.DataFrame({"a": ["secret"]}))
    assert "secret" not in str(caught.value)
    assert "a NULL passes" in caught.value.hint


def test_an_sql_rule_reaches_no_file():
    with pytest.raises(ConfigError):
        Contract(rules={"r": "a IN (SELECT a FROM 'x.csv')"}).split(pl.DataFrame({"a": [1]}))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Contract(on_violation="quarantined"),
        lambda: Column(on_violation="no"),
        lambda: Column(type="int6"),
        lambda: Column(one_of=()),
        lambda: Column(length=(3, 1)),
        lambda: Contract(unique=("a", "b")),
        lambda: Contract(max_reject_share=5),
    ],
)
def test_a_contract_that_makes_no_sense_is_refused_when_it_is_written(make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.hint


@pytest.mark.parametrize(
    "rules",
    [
        {"min": "x"},
        {"min": "1.5"},
        {"one_of": (1, "x")},
        {"type": "date", "min": "2020-02-30"},
        {"type": "datetime(us, UTC)", "max": "2020-01-01"},
        {"type": "decimal(4,2)", "max": "1.234"},
        {"pattern": "("},
        {"pattern": "a)|(b"},
        {"type": "int64", "min": 1e300},
        {"type": "int128", "max": -(2**127) - 1},
        {"type": "bool", "min": True},
        {"type": "int64", "length": (1, 2)},
        {"type": "int64", "pattern": "1"},
    ],
)
def test_a_bound_that_does_not_fit_the_column_is_refused_by_name(rules):
    column = pl.Series("a", [1] if "type" not in rules and "pattern" not in rules else ["1"])
    with pytest.raises(ConfigError, match="column 'a'"):
        Contract(columns={"a": Column(**rules)}).split(column.to_frame())


def test_an_sql_rule_sees_every_whole_number_as_it_is():
    rows = pl.DataFrame({"n": pl.Series([2**126, 5], dtype=pl.Int128)})
    contract = Contract(rules={"small": "n < 10"}, on_violation="quarantine")
    good, rejects = contract.split(rows)
    assert good.lazy().collect()["n"].to_list() == [5]
    assert rejects.lazy().collect().height == 1

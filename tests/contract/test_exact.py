# ruff: noqa: DTZ001 - naive datetimes are among the values
import importlib.util
import math
import struct
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.errors import ConfigError, SchemaError
from headrace.exact import cast, from_text, to_text
from headrace.logical import parse_type, widens

_spec = importlib.util.spec_from_file_location("contract_values", Path(__file__).with_name("values.py"))
values = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(values)


def read(texts, type, **options):
    frame = pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)})
    made = frame.select(from_text(pl.col("t"), parse_type(type), **options))["t"]
    assert made.dtype == parse_type(type).polars()
    return made


def turn(column, old, new):
    made = column.to_frame("v").select(cast(pl.col("v"), parse_type(old), parse_type(new)))["v"]
    assert made.dtype == parse_type(new).polars()
    return made


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_what_to_text_writes_from_text_reads_back(data):
    type = data.draw(values.types)
    column = values.column(type, data.draw(st.lists(st.none() | values.values(type), max_size=4)))
    texts = column.to_frame("v").select(to_text(pl.col("v"), type))["v"]
    assert texts.is_null().to_list() == column.is_null().to_list()
    assert texts.to_frame("v").select(from_text(pl.col("v"), type))["v"].equals(column, check_dtypes=True)


def test_the_ends_of_every_time_types_range_survive():
    for type in ("datetime(ms)", "datetime(us)", "datetime(ns)", "duration(ms)", "duration(ns)", "datetime(ns, UTC)"):
        ends = [-(2**63), -(2**63) + 1, -9_223_372_036_000_000_001, -9_223_372_036_000_000_000, -1, 0, 2**63 - 1]
        column = values.column(parse_type(type), ends)
        texts = column.to_frame("v").select(to_text(pl.col("v"), parse_type(type)))["v"]
        assert read(texts.to_list(), type).to_physical().to_list() == ends


@pytest.mark.parametrize(
    ("type", "one", "beyond"),
    [("date", "@5d", "@2932897d"), ("datetime(us)", "@1704103200000000us", "@253402300800000000us")],
)
def test_ticks_are_read_where_they_are_written_alone(type, one, beyond):
    assert read([one, beyond], type).is_null().to_list() == [True, False]


def test_a_negative_zero_keeps_its_sign():
    assert math.copysign(1, read(["-0.0"], "float64")[0]) == -1


numerals = st.one_of(
    st.from_regex(r"[+-]?[0-9]{0,42}\.?[0-9]{0,42}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.text("0123456789+-.eE_ ,x", max_size=8),
)
plain = st.from_regex(r"\A[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z").map(lambda s: s.rstrip("\n"))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(numerals | plain, min_size=1, max_size=6),
    st.sampled_from(["decimal(12,2)", "decimal(38,0)", "decimal(5,5)"]),
)
@example(["1.555", "1.5"], "decimal(12,2)")
@example(["1e-3", "1e2"], "decimal(12,2)")
@example([".001E-80", "1"], "decimal(38,0)")
@example(["0." + "0" * 90 + "1"], "decimal(38,0)")
def test_a_decimal_is_the_number_that_the_text_writes_or_null(texts, type):
    for text, made in zip(texts, read(texts, type), strict=True):
        if made is not None:
            assert made == Decimal(text)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["decimal(12,2)", "decimal(38,0)", "decimal(38,38)", "decimal(5,5)"]))
def test_every_decimal_that_fits_is_read(data, type):
    precision, scale = parse_type(type).args
    count = data.draw(st.integers(-(10**precision) + 1, 10**precision - 1))
    with localcontext(prec=60):
        number = Decimal(count).scaleb(-scale)
    assert read([f"{number:f}"], type)[0] == number


@settings(max_examples=80, deadline=None)
@given(st.lists(numerals, min_size=1, max_size=6), st.sampled_from(["float32", "float64"]))
def test_a_float_is_the_nearest_one_and_neither_overflows_nor_vanishes(texts, type):
    for text, made in zip(texts, read(texts, type), strict=True):
        if made is None:
            continue
        exact = Decimal(text)
        assert math.isfinite(made)
        assert (made == 0) == (exact == 0)
        nearest = float(text)
        if type == "float64":
            assert made == nearest
        else:
            assert abs(made - nearest) <= abs(struct.unpack("f", struct.pack("f", nearest))[0] - nearest)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(numerals | st.integers(-(2**130), 2**130).map(str), min_size=1, max_size=6),
    st.sampled_from(list(values.INTEGERS)[:9]),
)
def test_an_integer_is_the_number_that_the_text_writes_or_null(texts, type):
    if type == "uint128":
        return
    for text, made in zip(texts, read(texts, type), strict=True):
        if made is not None:
            assert made == int(text)
            assert text == text.strip()
            assert "_" not in text


@pytest.mark.parametrize("text", [" 1", "1 ", "1_0", "1.0", "1e2", "", "+", "0x1", "٣", "9223372036854775808"])
def test_text_that_is_no_integer_is_refused(text):
    assert read([text], "int64").to_list() == [None]


@pytest.mark.parametrize("text", ["1e400", "-1e400", "1e-400", " 1", "1_0", "", "1,5", "0x1p3"])
def test_text_that_no_float_holds_is_refused(text):
    assert read(["1.5", text], "float64").to_list() == [1.5, None]


def test_a_decimal_with_an_exponent_or_many_zeros_is_read_where_it_is_exact():
    texts = ["1e2", "1.5E-1", "1e-3", "1e10", "0e999999999", "1." + "0" * 60, "1e999999999", "1e-999999999", "e1", "1e"]
    assert read(texts, "decimal(12,2)").to_list() == [
        Decimal(100), Decimal("0.15"), None, None, Decimal(0), Decimal(1), None, None, None, None,
    ]  # fmt: skip


def test_infinities_and_nan_are_floats():
    made = read(["inf", "Infinity", "-inf", "-Infinity", "nan", "NaN"], "float64").to_list()
    assert made[:4] == [math.inf, math.inf, -math.inf, -math.inf]
    assert all(math.isnan(m) for m in made[4:])


@pytest.mark.parametrize("type", ["float64", "decimal(12,2)"])
def test_a_decimal_comma_is_no_thousands_separator(type):
    made = read(["1,5", "1.5", "1.500,5", "1,5,5", "2"], type, decimal=",")
    assert made.cast(pl.Float64).to_list() == [1.5, None, None, None, 2.0]


def test_a_third_decimal_is_refused_unless_it_is_zero():
    assert read(["2.257", "2.250", "2.25"], "decimal(12,2)").to_list() == [None, Decimal("2.25"), Decimal("2.25")]


iso_times = st.one_of(
    st.datetimes().map(lambda d: d.isoformat()),
    st.datetimes().map(lambda d: d.isoformat(sep=" ")),
    st.datetimes(timezones=st.timezones()).map(lambda d: d.isoformat()),
    st.from_regex(
        r"20[0-9]{2}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{1,10})?"
        r"(Z|\+0[0-9]:?[0-6]0)?",
        fullmatch=True,
    ),
    st.text("0123456789-:T. Z+", max_size=12),
)  # fmt: skip


def oracle(text):
    """Python's own reading, with sub-seconds of any length, in nanoseconds since 1970; None where it has none."""
    whole, _, rest = text.partition(".")
    digits = ""
    while rest[:1].isdigit():
        digits, rest = digits + rest[0], rest[1:]
    try:
        parsed = datetime.fromisoformat(whole + rest)
    except ValueError:
        return None
    epoch = datetime(1970, 1, 1, tzinfo=parsed.tzinfo and UTC)
    return (parsed - epoch) // timedelta(seconds=1) * 10**9 + int(digits[:9].ljust(9, "0"))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(iso_times, min_size=1, max_size=5),
    st.sampled_from(["ms", "us", "ns"]),
    st.sampled_from([None, "UTC", "Europe/Paris"]),
)
def test_a_datetime_is_the_instant_that_the_text_writes_or_null(texts, unit, zone):
    made = read(texts, f"datetime({unit})" if zone is None else f"datetime({unit}, {zone})")
    for text, count in zip(texts, made.to_physical(), strict=True):
        if count is not None:
            assert count * {"ms": 10**6, "us": 10**3, "ns": 1}[unit] == oracle(text)
            assert (zone is not None) == (text.endswith("Z") or "+" in text or text.count("-") > 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.datetimes(), min_size=1, max_size=5))
def test_every_python_datetime_is_read(moments):
    assert read([m.isoformat() for m in moments], "datetime(us)").to_list() == moments


@pytest.mark.parametrize(
    ("type", "text"),
    [
        ("datetime(us)", "2020-01-01T00:00:00Z"),
        ("datetime(us)", "2020-01-01T00:00:60"),
        ("datetime(us)", "2020-01-01T24:00:00"),
        ("datetime(us)", "2020-01-01T00:00:00.1234567"),
        ("datetime(us)", " 2020-01-01"),
        ("datetime(ns)", "2300-01-01"),
        ("datetime(us, UTC)", "2020-01-01T00:00:00"),
        ("datetime(us, UTC)", "2020-01-01"),
        ("date", "2020-02-30"),
        ("date", "2020-01-01T00:00:00"),
        ("date", "2020-01-01 "),
        ("time", "24:00:00"),
        ("time", "23:59:60"),
        ("time", "10:00Z"),
    ],
)
def test_a_moment_that_the_type_cannot_hold_is_refused(type, text):
    assert read([text], type).null_count() == 1


def test_whether_a_value_is_read_does_not_depend_on_its_neighbours():
    for type, good in [
        ("datetime(us)", "2020-01-01T10"),
        ("decimal(12,2)", "1e1"),
        ("decimal(12,2)", "+1."),
        ("time", "10:00"),
        ("date", "2020-01-01"),
    ]:
        assert read([good], type).null_count() == 0
        assert read([good, "nonsense", good], type).is_null().to_list() == [False, True, False]


def test_formats_are_strict():
    assert read(["03/02/2020", "31/02/2020", " 03/02/2020", "3/2/2020"], "date", format="%d/%m/%Y").to_list() == [
        date(2020, 2, 3), None, None, date(2020, 2, 3),
    ]  # fmt: skip
    seconds = read(["2020-01-01 00:00:60", "2020-01-01 00:00:59"], "datetime(us)", format="%Y-%m-%d %H:%M:%S")
    assert seconds.to_list() == [None, datetime(2020, 1, 1, 0, 0, 59)]


def test_a_date_format_with_a_time_wants_midnight():
    assert read(["01/02/2020 00:00", "01/02/2020 10:30"], "date", format="%d/%m/%Y %H:%M").to_list() == [
        date(2020, 2, 1), None,
    ]  # fmt: skip


def test_pythons_fraction_in_a_format_is_a_fraction():
    assert read(["10:00:00.5"], "time", format="%H:%M:%S.%f").to_list() == [time(10, 0, 0, 500_000)]
    made = read(["2020-01-01 10:00:00.5", "2020-01-01 10:00:00.1234567"], "datetime(us)", format="%Y-%m-%d %H:%M:%S.%f")
    assert made.to_list() == [datetime(2020, 1, 1, 10, 0, 0, 500_000), None]


def test_nanoseconds_do_not_wrap_around_in_a_format():
    assert read(["2300-01-01 00:00"], "datetime(ns)", format="%Y-%m-%d %H:%M").null_count() == 1


def test_a_format_without_an_offset_is_local_time_in_the_types_zone():
    made = read(
        ["2020-01-01 02:30", "2020-03-29 02:30", "2020-10-25 02:30"],
        "datetime(us, Europe/Paris)",
        format="%Y-%m-%d %H:%M",
    )
    assert made.dt.convert_time_zone("UTC").to_list() == [datetime(2020, 1, 1, 1, 30, tzinfo=UTC), None, None]


@pytest.mark.parametrize(
    ("type", "format"), [("date", "%Q"), ("date", "day"), ("int64", "%d"), ("datetime(us)", "%Y %z"), ("date", "%f")]
)
def test_a_format_that_cannot_work_is_refused_before_any_row(type, format):
    with pytest.raises(ConfigError):
        from_text(pl.col("t"), parse_type(type), format=format)


def test_bools_are_the_given_texts():
    assert read(["true", "FALSE", "1", "Y"], "bool").to_list() == [True, False, None, None]
    assert read(["Y", "N", "true", "y"], "bool", true=("Y",), false=("N",)).to_list() == [True, False, None, None]


def test_json_is_kept_as_it_is_written():
    texts = ['{"a":  1.10}', "[1,", "null", "NaN", '"x"', "1 2", None]
    assert read(texts, "json").to_list() == ['{"a":  1.10}', None, "null", None, '"x"', None, None]


def test_a_nested_value_with_one_item_that_does_not_fit_is_refused_whole():
    assert read(["[1, 2]", "[1, 2.5]", '["3", null]', "[]", "null", "[true]"], "list(int64)").to_list() == [
        [1, 2], None, [3, None], [], None, None,
    ]  # fmt: skip
    assert read(['{"a": 1, "a": 2}', '[{"a": 1, "a": 1}]'], "struct(a: int8)").to_list() == [None, None]
    assert read(['[{"a": 1, "a": 2}]'], "list(struct(a: int8))").to_list() == [None]
    assert read(['{"a": 1}', '{"a": 300}', '{"b": 1}', "{}"], "struct(a: int8)").to_list() == [
        {"a": 1}, None, None, {"a": None},
    ]  # fmt: skip


def test_a_number_in_json_loses_no_digit():
    assert read(["[1.10, 12345678901234567890.12]"], "list(decimal(38,2))").to_list() == [
        [Decimal("1.10"), Decimal("12345678901234567890.12")]
    ]


numbers = [
    *list(values.INTEGERS)[:4],
    "int128",
    "uint8",
    "uint64",
    "float32",
    "float64",
    "decimal(12,2)",
    "decimal(38,0)",
    "decimal(38,10)",
]


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(numbers), st.sampled_from(numbers))
def test_a_cast_number_is_the_same_number_or_null(data, old, new):
    items = data.draw(
        st.lists(values.values(parse_type(old)) | st.integers(-200, 200).map(lambda i: fitting(old, i)), max_size=5)
    )
    column = values.column(parse_type(old), items)
    for before, after in zip(column, turn(column, old, new), strict=True):
        if after is None:
            continue
        if isinstance(before, float) and math.isnan(before):
            assert math.isnan(after)
        elif {old[:5], new[:5]} == {"float", "decim"}:
            narrow = old if old.startswith("float") else new
            shortest = [
                Decimal(str(v)) if isinstance(v, Decimal) else Decimal(shortest_text(v, narrow))
                for v in (before, after)
            ]
            assert shortest[0] == shortest[1]
        else:
            assert before == after


def shortest_text(number, type):
    return pl.Series([number], dtype=parse_type(type).polars()).cast(pl.String)[0]


def fitting(type, number):
    if type.startswith("uint"):
        return abs(number)
    if type == "int8":
        return max(-128, min(127, number))
    return float(number) if type.startswith("float") else Decimal(number) if type.startswith("decimal") else number


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_value_of_a_type_is_exact_in_a_wider_one(data):
    old = data.draw(st.sampled_from(numbers))
    new = data.draw(st.sampled_from([n for n in numbers if widens(parse_type(old), parse_type(n))]))
    column = values.column(parse_type(old), data.draw(st.lists(values.values(parse_type(old)), max_size=5)))
    there = turn(column, old, new)
    assert there.null_count() == 0
    assert turn(there, new, old).equals(column)


@pytest.mark.parametrize(
    ("old", "new", "items", "expected"),
    [
        ("float64", "int64", [3.0, 3.5, 2.0**63, math.nan], [3, None, None, None]),
        ("int64", "float64", [2**53, 2**53 + 1], [2.0**53, None]),
        ("float64", "decimal(12,2)", [0.1, 0.125, math.inf], [Decimal("0.10"), None, None]),
        ("decimal(12,4)", "decimal(12,2)", [Decimal("1.25"), Decimal("1.255")], [Decimal("1.25"), None]),
        ("int64", "bool", [0, 1, 2], [False, True, None]),
        ("bool", "int8", [True, False], [1, 0]),
        ("date", "datetime(us)", [0], [datetime(1970, 1, 1)]),
        ("datetime(us)", "date", [0, 1], [date(1970, 1, 1), None]),
        ("list(int64)", "list(int8)", [[1, None], [300], []], [[1, None], None, []]),
        ("list(int64)", "array(int8, 2)", [[1, 2], [1], [1, 300]], [[1, 2], None, None]),
        ("struct(a: int64, b: string)", "struct(b: string, a: int8)", [{"a": 1, "b": "x"}, {"a": 300, "b": "x"}],
         [{"b": "x", "a": 1}, None]),
        ("enum(a, b)", "enum(b)", ["a", "b"], [None, "b"]),
        ("categorical", "enum(b)", ["a", "b"], [None, "b"]),
        ("string", "int64", ["1", "1.5"], [1, None]),
        ("int64", "string", [1], ["1"]),
    ],
)  # fmt: skip
def test_a_cast_is_exact_or_null(old, new, items, expected):
    column = values.column(parse_type(old), [*items, None])
    assert turn(column, old, new).to_list() == [*expected, None]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**6), 10**6).map(lambda i: i * 1000), max_size=5),
    st.sampled_from(["ms", "us", "ns"]),
    st.sampled_from(["ms", "us", "ns"]),
    st.sampled_from(["datetime({})", "duration({})", "datetime({}, UTC)"]),
)
def test_counts_of_time_change_their_unit_exactly_or_not_at_all(counts, old, new, shape):
    per = {"ms": 10**6, "us": 10**3, "ns": 1}
    column = values.column(parse_type(shape.format(old)), counts)
    for before, after in zip(counts, turn(column, shape.format(old), shape.format(new)).to_physical(), strict=True):
        exact, rest = divmod(before * per[old], per[new])
        assert after == (exact if not rest and -(2**63) <= exact < 2**63 else None)


def test_another_zone_is_the_same_instant():
    column = values.column(parse_type("datetime(us, UTC)"), [0])
    made = turn(column, "datetime(us, UTC)", "datetime(ms, Europe/Paris)")
    assert made.to_physical().to_list() == [0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("datetime(us)", "datetime(us, UTC)"),
        ("datetime(us, UTC)", "datetime(us)"),
        ("date", "datetime(us, UTC)"),
        ("datetime(us, UTC)", "date"),
        ("binary", "int64"),
        ("int64", "date"),
        ("bool", "float64"),
        ("list(int64)", "list(date)"),
        ("struct(a: int64)", "struct(b: int64)"),
        ("time", "datetime(us)"),
    ],
)
def test_a_pair_that_means_nothing_is_refused_by_name(old, new):
    with pytest.raises(SchemaError) as caught:
        cast(pl.col("v"), parse_type(old), parse_type(new))
    assert "cannot become" in caught.value.message


def test_nothing_but_a_number_is_read_as_decimal():
    with pytest.raises(InvalidOperation):
        Decimal("1x")
    assert read(["1x", "nan", "inf", "NaN", "--1"], "decimal(12,2)").null_count() == 5


@pytest.mark.parametrize("type", ["null", "string", "int64", "date", "decimal(5,2)", "bool", "json"])
def test_a_converted_column_keeps_its_name_and_its_height(type):
    texts = pl.DataFrame({"a": ["x", None, "y"], "b": [None, None, None]}, schema={"a": pl.String, "b": pl.String})
    for column in "ab":
        made = texts.select(from_text(pl.col(column), parse_type(type)))
        assert (made.columns, made.height) == ([column], 3)
        back = made.select(to_text(pl.col(column), parse_type(type)))
        assert (back.columns, back.height, back.dtypes) == ([column], 3, [pl.String])
        cast_ = made.select(cast(pl.col(column), parse_type(type), parse_type("string")))
        assert (cast_.columns, cast_.height) == ([column], 3)

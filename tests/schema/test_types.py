import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigError, SchemaError
from headrace.logical import Type, parse_type, widens
from headrace.schema import Schema

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
plain = st.sampled_from(
    ["int8", "int128", "uint64", "float32", "bool", "string", "binary", "date", "time", "json", "categorical", "null"]
).map(Type)
units = st.sampled_from(["ms", "us", "ns"])
scaled = st.integers(1, 38).flatmap(lambda p: st.tuples(st.just(p), st.integers(0, p)))
leaves = st.one_of(
    plain,
    scaled.map(lambda args: Type("decimal", args)),
    st.tuples(units, st.sampled_from([None, "UTC", "Europe/Paris"])).map(lambda args: Type("datetime", args)),
    units.map(lambda u: Type("duration", (u,))),
    st.lists(names, min_size=1, max_size=3, unique=True).map(lambda values: Type("enum", tuple(values))),
)
types = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda t: Type("list", (t,))),
        st.tuples(inner, st.integers(0, 400)).map(lambda args: Type("array", args)),
        st.dictionaries(names, inner, min_size=1, max_size=3).map(lambda d: Type("struct", tuple(d.items()))),
    ),
    max_leaves=4,
)


@given(types)
def test_a_type_is_read_back_from_its_text(type):
    assert parse_type(str(type)) == type


def has(type, name):
    return name in str(type)


@given(types)
def test_a_type_comes_back_from_polars(type):
    back = Type.of_polars(type.polars())
    assert back == type or has(type, "json")  # Polars has no JSON: it is text there


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Int64", "int64"),
        (" decimal( 12 , 2 ) ", "decimal(12,2)"),
        ("datetime", "datetime(us)"),
        ("duration", "duration(us)"),
        ("datetime(ns,Europe/Paris)", "datetime(ns, Europe/Paris)"),
        ("boolean", "bool"),
        ('struct("a b": int64, c: list(string))', 'struct("a b": int64, c: list(string))'),
        ('enum("a,b", ")")', 'enum("a,b", ")")'),
    ],
)
def test_types_are_written_as_polars_and_arrow_name_them(text, meant):
    assert str(parse_type(text)) == meant


@pytest.mark.parametrize(
    "text",
    [
        "", "int6", "decimal(39,0)", "decimal(2,3)", "decimal(12)", "decimal(²,1)", "datetime(s)", "list()",
        "list(a, b)",        "datetime(us, Mars/Phobos)", "enum(a, a)", "struct(a: int8, a: int8)", "list(int64",
        "int64 x", "array(int8, -1)",
        "duration(h)", "struct(a)", 'enum("a)',
    ],
)  # fmt: skip
def test_a_text_that_is_no_type_is_a_config_error_with_a_hint(text):
    with pytest.raises(ConfigError) as caught:
        parse_type(text)
    assert caught.value.hint


def test_a_near_miss_is_named():
    with pytest.raises(ConfigError, match="unknown type 'int6'") as caught:
        parse_type("int6")
    assert caught.value.hint == "did you mean 'int64'?"


@pytest.mark.parametrize("dtype", [pl.Object(), pl.Struct({}), pl.Enum([]), pl.List(pl.Object())])
def test_a_polars_type_that_no_engine_holds_is_refused_with_its_column(dtype):
    with pytest.raises(SchemaError, match="column 'x'"):
        Schema.of_polars({"x": dtype})


def test_a_schema_survives_json():
    schema = Schema.of({"a": "int64", "b c": 'struct("x y": enum("1", b))'})
    assert Schema.from_json(schema.to_json()) == schema


def test_a_missing_column_is_a_key_error():
    with pytest.raises(KeyError):
        Schema.of({"a": "int64"})["b"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int32", "int64"), ("uint32", "int64"), ("int32", "float64"),
        ("float32", "float64"), ("int64", "decimal(21,2)"),
        ("decimal(12,2)", "decimal(14,3)"), ("null", "date"), ("enum(a)", "enum(b, a)"), ("enum(a)", "string"),
        ("list(int8)", "list(int16)"), ("array(int8, 2)", "array(int16, 2)"), ("struct(a: int8)", "struct(a: int16)"),
    ],
)  # fmt: skip
def test_types_widen_where_every_value_stays_exact(old, new):
    assert widens(parse_type(old), parse_type(new))
    assert not widens(parse_type(new), parse_type(old))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int64", "float64"), ("int32", "float32"), ("uint64", "int64"),
        ("int64", "decimal(20,2)"), ("string", "json"),
        ("decimal(12,2)", "decimal(12,3)"), ("date", "datetime(us)"), ("datetime(us)", "datetime(ns)"),
        ("int8", "string"),
        ("datetime(us)", "datetime(us, UTC)"), ("array(int8, 2)", "array(int16, 3)"), ("decimal(1,0)", "float64"),
        ("struct(a: int8)", "struct(b: int16)"), ("bool", "int8"), ("categorical", "enum(a)"),
    ],
)  # fmt: skip
def test_types_do_not_widen_where_a_value_could_change(old, new):
    assert not widens(parse_type(old), parse_type(new))


@given(types, types, types)
def test_widening_is_transitive(a, b, c):
    if widens(a, b) and widens(b, c):
        assert widens(a, c)

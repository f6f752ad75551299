"""Any rows of any supported type come back as they were: rows -> apply -> scan."""

from __future__ import annotations

import polars as pl
import pytest
from commits import load, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import SchemaError
from headrace.logical import parse_type
from headrace.schema import Schema
from headrace.systems.duckdb import DuckDBDestination
from headrace.writes import Append, Merge, Replace


def _ints(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


# DuckDB keeps the ends of its ranges for its infinities
_TICKS = {"ms": 2**63 // 1000 - 1, "us": 2**63 - 2, "ns": 2**63 - 2}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
PLAIN: dict[str, st.SearchStrategy] = {
    **{f"int{b}": _ints(b) for b in (8, 16, 32, 64, 128)},
    **{f"uint{b}": _ints(b, signed=False) for b in (8, 16, 32, 64)},
    "float32": st.floats(width=32),
    "float64": st.floats(),
    "bool": st.booleans(),
    "string": TEXT,
    "binary": st.binary(max_size=5),
    "date": st.integers(-2_000_000, 2_900_000),
    "time": st.integers(0, 86_400 * 10**9 - 1),
    "categorical": TEXT,
    'enum(a, b, "c d")': st.sampled_from(["a", "b", "c d"]),
    "decimal(38,18)": st.decimals(-(10**18), 10**18, allow_nan=False, allow_infinity=False, places=18),
    "decimal(5,2)": st.decimals(-999, 999, allow_nan=False, allow_infinity=False, places=2),
    "null": st.none(),
    **{f"datetime({u})": st.integers(-_TICKS[u], _TICKS[u]) for u in ("us", "ns")},
    "datetime(ms)": st.integers(-_TICKS["ms"], _TICKS["ms"]),
    **{f"datetime({u}, Europe/Paris)": st.integers(-(2**50), 2**50) for u in ("ms", "us", "ns")},
    **{f"duration({u})": _ints(64) for u in ("ms", "us", "ns")},
    "json": st.sampled_from(["1", '{"a":  1.00, "a": 2}', "null", '"x"']),
}
NESTED = {
    "list(null)": st.lists(st.none(), max_size=2),
    "array(struct(n: null, l: list(null)), 1)": st.lists(
        st.fixed_dictionaries({"n": st.none(), "l": st.lists(st.none(), max_size=2)}), min_size=1, max_size=1
    ),
    "list(int128)": st.lists(st.one_of(st.none(), _ints(128)), max_size=3),
    "list(list(duration(us)))": st.lists(st.lists(_ints(64), max_size=2), max_size=2),
    "array(float32, 2)": st.lists(st.floats(width=32), min_size=2, max_size=2),
    'struct(a: int64, "b c": list(string), d: time)': st.fixed_dictionaries(
        {"a": _ints(64), "b c": st.lists(TEXT, max_size=2), "d": PLAIN["time"]}
    ),
    "list(struct(e: enum(x, y), z: datetime(us, UTC)))": st.lists(
        st.fixed_dictionaries({"e": st.sampled_from(["x", "y"]), "z": st.integers(-(2**50), 2**50)}), max_size=2
    ),
}
_PHYSICAL = {"date": pl.Int32, "time": pl.Int64, "datetime": pl.Int64, "duration": pl.Int64}


def series(name: str, type: str, values: list) -> pl.Series:
    """From integers where Python's own values would lose something."""
    logical = parse_type(type)
    made = pl.Series(name, values, dtype=_made_of(logical), strict=True)
    return made.cast(logical.polars())


def _made_of(logical) -> pl.DataType:
    match logical.name, logical.args:
        case name, _ if name in _PHYSICAL:
            return _PHYSICAL[name]
        case "list", (inner,):
            return pl.List(_made_of(inner))
        case "array", (inner, width):
            return pl.Array(_made_of(inner), width)
        case "struct", fields:
            return pl.Struct([pl.Field(n, _made_of(t)) for n, t in fields])
        case "null", _:
            return pl.Null
    return logical.polars()


@pytest.mark.parametrize("type", [*PLAIN, *NESTED])
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_come_back_as_they_were(tmp_path_factory, type, data):
    values = data.draw(st.lists(st.one_of(st.none(), (PLAIN | NESTED)[type]), min_size=1, max_size=8))
    frame = series("v", type, values).to_frame().with_row_index("n")
    target = DuckDBDestination(path="w.duckdb", table="t", base=tmp_path_factory.mktemp("types"))
    load(target, frame)
    target_schema = target.inspect("p").schema
    assert target_schema == Schema.of_polars(frame.schema)
    came = read(target).sort("n")
    assert came.schema == frame.schema
    assert came.equals(frame, null_equal=True)


ALL = pl.DataFrame([series(t, t, [None, None]) for t in [*PLAIN, *NESTED]]).with_columns(k=pl.Series([1, 2]))


@pytest.mark.parametrize("write", [Append(), Replace(), Merge(keys=("k",))], ids=lambda w: w.type)
def test_every_write_takes_every_type(target, write):
    load(target, ALL, write)
    load(target, ALL, write)
    assert read(target).unique("k").sort("k").equals(ALL, null_equal=True)


@pytest.mark.parametrize("type", [*PLAIN, *NESTED])
def test_a_column_of_nulls_widens_to_anything(target, type):
    load(target, {"n": [1], "v": pl.Series([None], dtype=pl.Null)})
    rows = pl.DataFrame([pl.Series("n", [2]), series("v", type, [None])])
    load(target, rows)
    assert target.inspect("p").schema == Schema.of_polars(rows.schema)


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("int8", "int128", 5),
        ("uint32", "int64", 2**32 - 1),
        ("int32", "float64", 7),
        ("int16", "decimal(7,2)", 9),
        ("decimal(5,2)", "decimal(9,4)", None),
        ("enum(a, b)", "string", "a"),
        ("categorical", "string", "a"),
        ("enum(a)", "enum(a, b)", "a"),
        ("list(int8)", "list(int64)", [1]),
        ("list(null)", "list(struct(a: int64))", [None]),
    ],
)
def test_a_column_widens_and_its_old_values_stay(target, old, new, value):
    load(target, pl.DataFrame([series("v", old, [value])]))
    load(target, pl.DataFrame([series("v", new, [None])]))
    came = read(target)
    assert str(Schema.of_polars(came.schema)["v"]) == str(parse_type(new))
    assert came["v"].to_list()[0] == series("v", old, [value]).cast(parse_type(new).polars()).to_list()[0]


def test_narrower_rows_go_into_a_wider_column(target):
    load(target, {"v": pl.Series([2**40])})
    load(target, {"v": pl.Series([1], dtype=pl.Int8)})
    assert read(target)["v"].sort().to_list() == [1, 2**40]


def test_a_struct_of_no_fields_is_refused_by_name(target):
    with pytest.raises(SchemaError, match="'v'"):
        load(target, {"v": pl.Series([{}], dtype=pl.Struct([]))})


def test_columns_that_differ_in_case_alone_are_refused_by_name(target):
    with pytest.raises(SchemaError, match="'id' and 'ID'"):
        load(target, {"id": [1], "ID": [2]})
    load(target, {"id": [1]})
    with pytest.raises(SchemaError, match="'id' and 'Id'"):
        load(target, {"id": [1], "Id": [2]})


def test_any_column_name_is_only_a_name(target):
    names = ['a"b', "select", "%s;--", "", " ", "é", "x.y", "#", "_headrace_rows"]
    frame = pl.DataFrame({n: [i] for i, n in enumerate(names) if n}).with_columns(id=1)
    load(target, frame, Merge(keys=("id",)))
    load(target, frame, Merge(keys=("id", 'a"b')))
    assert read(target).equals(frame)

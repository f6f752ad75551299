"""Types and values of them, for Hypothesis: columns of every type, over the whole range of each."""

import json
from decimal import Decimal

import polars as pl
from hypothesis import strategies as st

from headrace.logical import Type, parse_type

PLAIN = (
    "int8", "int16", "int32", "int64", "int128", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "bool",
    "string", "binary", "date", "time", "json", "categorical", 'enum(a, b, "c d")', "decimal(12,2)", "decimal(38,0)",
    "decimal(38,38)", "decimal(1,1)", "datetime(ms)", "datetime(us)", "datetime(ns)", "datetime(us, UTC)",
    "datetime(ns, Europe/Paris)", "datetime(ms, America/New_York)", "duration(ms)", "duration(us)", "duration(ns)",
)  # fmt: skip
NESTED = (
    "list(int64)", "list(string)", "list(float64)", "list(datetime(ns, UTC))", "array(decimal(6,3), 2)", "list(json)",
    'struct(a: int64, "b c": date)', "list(struct(x: list(bool), y: enum(p, q)))", "array(array(int8, 2), 1)",
    "struct(s: struct(t: list(binary)))", "list(list(duration(us)))",
)  # fmt: skip
INTEGERS = {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64, 128)}

types = st.sampled_from(PLAIN + NESTED).map(parse_type)
text = st.text(st.characters(codec="utf-8"), max_size=8)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | text, lambda d: st.lists(d, max_size=2), max_leaves=4
)


def bounds(name: str) -> tuple[int, int]:
    """The least and the greatest integer of an integer type."""
    bits = INTEGERS[name]
    return (0, 2**bits - 1) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def values(type: Type) -> st.SearchStrategy:  # noqa: C901, PLR0911
    """One value of `type` as `column` takes it: times and dates by their counts."""
    match type.name:
        case name if name in INTEGERS:
            return st.integers(*bounds(name))
        case "float32" | "float64":
            return st.floats(width=int(type.name[5:]))
        case "decimal":
            precision, scale = type.args
            return st.integers(-(10**precision) + 1, 10**precision - 1).map(lambda i: Decimal(f"{i}e-{scale}"))
        case "bool":
            return st.booleans()
        case "string" | "categorical":
            return text
        case "json":
            return documents.map(json.dumps)
        case "binary":
            return st.binary(max_size=6)
        case "date":
            return st.integers(-(2**31), 2**31 - 1) | st.integers(-719_162, 2_932_896)
        case "time":
            return st.integers(0, 86_400 * 10**9 - 1)
        case "datetime" | "duration":
            near = 10 ** {"ms": 14, "us": 17, "ns": 18}[type.args[0]]
            return st.integers(-(2**63), 2**63 - 1) | st.integers(-near, near)
        case "enum":
            return st.sampled_from(type.args)
    return nested(type)


def nested(type: Type) -> st.SearchStrategy:
    match type.name:
        case "list":
            return st.lists(st.none() | values(type.args[0]), max_size=3)
        case "array":
            return st.lists(st.none() | values(type.args[0]), min_size=type.args[1], max_size=type.args[1])
        case "struct":
            return st.fixed_dictionaries({n: st.none() | values(t) for n, t in type.args})
    raise AssertionError(type)


def column(type: Type, items: list) -> pl.Series:
    """The items as a column of `type`."""
    return pl.Series("v", items, dtype=physical(type)).cast(type.polars())


def physical(type: Type) -> pl.DataType:
    """What Python's integers can be put into without a detour over Python's narrower dates."""
    match type.name:
        case "date":
            return pl.Int32()
        case "time" | "datetime" | "duration":
            return pl.Int64()
        case "list":
            return pl.List(physical(type.args[0]))
        case "array":
            return pl.Array(physical(type.args[0]), type.args[1])
        case "struct":
            return pl.Struct([pl.Field(n, physical(t)) for n, t in type.args])
    return type.polars()

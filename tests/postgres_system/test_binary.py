"""COPY's binary form means what its text means."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal

import polars as pl
import psycopg
import pytest

from headrace.errors import DataError
from headrace.schema import Schema
from headrace.systems.postgres.binary import has_form, packed
from headrace.systems.postgres.encoding import Column, encoded, physical
from headrace.systems.postgres.loading import copied


def at(*parts: int) -> datetime:
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001  # a timestamp without time zone


NINES = "9" * 38
VALUES = {
    "b": ("bool", [True, False, True]),
    "i2": ("int16", [-(2**15), 2**15 - 1, 258]),
    "u1": ("uint8", [0, 255, 7]),
    "i4": ("int32", [-(2**31), 2**31 - 1, 1]),
    "u4": ("uint32", [0, 2**32 - 1, 2**31]),
    "i8": ("int64", [-(2**63), 2**63 - 1, -1]),
    "small": ("int64", [0, 1, 2**31 - 1]),
    "f4": ("float32", [float("-inf"), 0.1, -0.0]),
    "f8": ("float64", [float("nan"), 1e308, 5e-324]),
    "positive": ("decimal(15,2)", [Decimal("0.01"), Decimal("104949.50"), Decimal("0.00")]),
    "signed": ("decimal(15,2)", [Decimal("-9999999999999.99"), Decimal("9999999999999.99"), Decimal("-0.01")]),
    "whole": ("decimal(9,0)", [Decimal(-10_000), Decimal(9_999), Decimal(0)]),
    "fine": ("decimal(38,37)", [Decimal((1, (9, *[0] * 36, 1), -37)), Decimal("0.1"), Decimal(1)]),
    "tiny": ("decimal(5,5)", [Decimal("0.00001"), Decimal("-0.10000"), Decimal("0.99999")]),
    "large": ("decimal(38,0)", [Decimal(NINES), Decimal("-" + NINES), Decimal(10**34)]),
    "t": ("string", ["", "\\N\t\n", "äß" * 300]),
    "y": ("binary", [b"", b"\0\xff", b"\\x00"]),
    "d": ("date", [date(1, 1, 1), date(9999, 12, 31), date(1999, 12, 31)]),
    "ts": ("datetime(us)", [at(1, 1, 1), at(9999, 12, 31, 23, 59, 59, 999999), at(2000, 1, 1)]),
    "ms": ("datetime(ms)", [at(1969, 12, 31, 23, 59, 59, 999000), at(2024, 2, 29), at(1, 1, 1)]),
    "ns": ("datetime(ns)", [at(1969, 12, 31, 23, 59, 59, 999999), at(2024, 2, 29), at(2000, 1, 1)]),
    "h": ("time", [time(0), time(23, 59, 59, 999999), time(12)]),
}
TYPES = Schema.of({name: type for name, (type, _) in VALUES.items()})
WHOLE = pl.DataFrame({name: values for name, (_, values) in VALUES.items()}, schema=TYPES.polars())
WITH_NULLS = pl.concat([WHOLE.select(pl.when(pl.int_range(3) != at % 3).then(pl.all())) for at in range(3)])
COLUMNS = {f.name: (f.type, Column(f.name, physical(f), f.type)) for f in TYPES}


@pytest.mark.parametrize("rows", [WHOLE, WITH_NULLS, WHOLE.clear(), pl.concat([WHOLE, WITH_NULLS] * 50)])
def test_each_value_is_the_same_as_by_text(database, rows):
    assert has_form(COLUMNS)
    made = ", ".join(f"{name} {column.held}" for name, (_, column) in COLUMNS.items())
    with psycopg.connect(database.dsn) as connection:
        connection.execute(f"CREATE TEMP TABLE texts (n bigint, {made}); CREATE TEMP TABLE forms (LIKE texts)")
        parts = list(rows.iter_slices(7))
        into = "COPY {} FROM STDIN"
        copied(connection, into.format("texts"), encoded(iter(parts), COLUMNS, ordinal=True))
        binary = packed(iter(parts), COLUMNS, ordinal=True)
        assert copied(connection, into.format("forms") + " (FORMAT binary)", binary) == (rows.height, rows.height)
        told = [connection.execute(f"SELECT {t}::text FROM {t} ORDER BY n").fetchall() for t in ("texts", "forms")]
    assert told[0] == told[1]
    assert len(told[0]) == rows.height


def test_a_type_without_a_sure_form_goes_as_text():
    for type, held in (
        ("json", "jsonb"), ("string", "uuid"), ("string", "character(3)"), ("string", "character varying(3)[]"),
        ("decimal(9,3)", "numeric(9,2)"), ("decimal(9,2)", "numeric(8,2)"), ("decimal(9,2)", "double precision"),
        ("int64", "integer"), ("int64", "numeric(20,0)"), ("datetime(us)", "timestamp(3) without time zone"),
        ("datetime(us)", "timestamp with time zone"), ("list(int32)", "integer[]"), ("string", "a_domain"),
    ):  # fmt: skip
        (field,) = Schema.of({"c": type})
        assert not has_form({**COLUMNS, "c": (field.type, Column("c", held, field.type))}), (type, held)


@pytest.mark.parametrize(
    ("held", "type", "value", "said"),
    [
        ("text", "string", "a\0b", "NUL"),
        ("character varying(2)", "string", "ab ", "more than the 2 characters"),
        ("time without time zone", "time", 1, "nanoseconds"),
        ("timestamp without time zone", "datetime(ns)", 1, "nanoseconds"),
        ("date", "date", 95_026_237, "beyond the years"),
    ],
)
def test_what_the_type_cannot_hold_is_refused_by_its_columns_name(held, type, value, said):
    (field,) = Schema.of({"c": type})
    rows = pl.DataFrame({"c": pl.Series([value]).cast(field.type.polars())})
    with pytest.raises(DataError, match=f"'c'.*{said}"):
        list(packed(iter([rows]), {"c": (field.type, Column("c", held, field.type))}, ordinal=False))

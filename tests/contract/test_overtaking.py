"""Which rows in quarantine a good row takes the place of: what is not known to be older stays."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest

from headrace.contract.overtaking import KEY, Good, overtaken
from headrace.logical import parse_type
from headrace.schema import Field, Schema


def left(type: str, good: object, texts: list[str | None], *, versions: bool = False) -> list[str | None]:
    """Of rejects with these texts in ``seq`` those that stay, beside a good row of their key."""
    seq = Schema((Field("seq", parse_type(type)),))
    rows = pl.DataFrame({KEY: ['["1"]'], "seq": pl.Series([good], dtype=seq["seq"].polars())})
    bodies = [json.dumps({"seq": text}) for text in texts]
    waiting = pl.DataFrame({"id": [str(n) for n in range(len(texts))], "key": '["1"]', "row": bodies})
    gone = overtaken(waiting, Good(rows=rows, types=(parse_type("int64"),), latest_by=seq, versions=versions))
    return [text for n, text in enumerate(texts) if str(n) not in gone]


@pytest.mark.parametrize(
    ("type", "good", "newer", "older"),
    [
        ("int64", 2, "3.0", "1.0"),  # a float, as JSON has them
        ("int64", 2, "3.00", "1.00"),  # a decimal
        ("int64", 2 * 10**10, "3e10", "1e10"),
        ("int8", 0, "true", "false"),
        ("bool", False, "1", "0"),
        ("decimal(20,2)", Decimal("2e10"), "3e10", "1e10"),
        ("date", date(2024, 1, 2), "2024-01-03T00:00:00", "2024-01-01T00:00:00"),
        ("datetime(us)", datetime(2024, 1, 2), "2024-01-03", "2024-01-01"),  # noqa: DTZ001  # naive on purpose
        ("datetime(ms, UTC)", datetime(2024, 1, 2, tzinfo=UTC), "2024-01-03T00:00:00Z", "2024-01-01T00:00:00Z"),
    ],
)
def test_a_reject_is_compared_as_its_column_would_be_after_the_cast(type, good, newer, older):
    assert left(type, good, [newer, older, None]) == [newer]


@pytest.mark.parametrize("versions", [True, False])
def test_what_cannot_be_compared_stays(versions):
    """It may be newer than the good row, and nobody could replay it once it has gone."""
    assert left("int64", 2, ["3.5", "soon", "99999999999999999999"], versions=versions) == [
        "3.5",
        "soon",
        "99999999999999999999",
    ]
    assert left("int64", None, ["soon"], versions=versions) == ["soon"]


def test_a_row_without_the_column_of_the_order_stays():
    """The order has been another one since."""
    seq = Schema((Field("seq", parse_type("int64")),))
    rows = pl.DataFrame({KEY: ['["1"]'], "seq": [2]})
    waiting = pl.DataFrame({"id": ["0"], "key": ['["1"]'], "row": ['{"at": "3"}']})
    assert overtaken(waiting, Good(rows=rows, types=(parse_type("int64"),), latest_by=seq, versions=False)) == []

"""Types are guessed for all columns together, and each is what it would be alone."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import exact
from headrace.schema import Type
from headrace.systems.files.infer import _CANDIDATES, Guesses
from headrace.systems.files.layout import Column, strict

WORDS = (
    *(
        "0",
        "-0",
        "7",
        "-12",
        "007",
        "+7",
        "9007199254740993",
        "999999999999999",
        "99999999999999999999",
        "1.50",
        "-0.0",
    ),
    *(
        "0.1234567890123456789",
        "1e5",
        "1E400",
        "1e-400",
        "1.7976931348623157e308",
        "NaN",
        "inf",
        "true",
        "FALSE",
        "falſe",
    ),
    *("2024-02-29", "2023-02-29", "2024-01-01T10:00", "2024-01-01 10:00:00.5", "2024-01-01T10:00Z", "x", "", "1,5"),
)
TEXTS = st.lists(st.none() | st.sampled_from(WORDS), max_size=6)


def alone(texts: list[str | None]) -> Type:
    """By the definition: the first type of whose values every text is exactly one."""
    there = pl.DataFrame({"t": texts}, schema={"t": pl.String}).drop_nulls()
    for type, pattern in _CANDIDATES if there.height else ():
        made = strict(there, there.select(exact.from_text(pl.col("t"), type)), Column("t", type))
        if there["t"].str.contains(f"^(?:{pattern})$").all() and not made["t"].null_count():
            return type
    return Type("string")


@settings(deadline=None, max_examples=200)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(0, 6))
def test_columns_that_are_looked_at_together_are_what_each_is_alone(columns, cut):
    guesses = Guesses([f"c{n}" for n in range(len(columns))])
    for n, texts in enumerate(columns):  # each in two pieces, and not as many rows as the others
        for piece in (texts[:cut], texts[cut:]):
            guesses.feed(pl.DataFrame({f"c{n}": piece}, schema={f"c{n}": pl.String}))
            if cut % 2:
                guesses.found()
    found = guesses.found()
    assert [found[f"c{n}"].type for n in range(len(columns))] == [alone(texts) for texts in columns]
    assert [found[f"c{n}"].rows for n in range(len(columns))] == [len(texts) for texts in columns]


@pytest.mark.parametrize("short", ["999999999999999", "-99999999999999", "0.0000000000001", "-1.234567890123", "-0"])
def test_a_short_number_is_taken_without_a_look_at_its_value_since_it_is_exact(short, monkeypatch):
    monkeypatch.setattr(Guesses, "_fits", lambda *_: pytest.fail("it costs a conversion of each column"))
    guesses = Guesses(["t"])
    guesses.feed(pl.DataFrame({"t": [short, None]}))
    assert guesses.found()["t"].type == alone([short])


def test_many_columns_are_looked_at_in_a_few_steps(monkeypatch):
    steps = []
    select = pl.DataFrame.select
    monkeypatch.setattr(pl.DataFrame, "select", lambda *a, **k: steps.append(1) or select(*a, **k))
    guesses = Guesses([f"c{n}" for n in range(300)])
    guesses.feed(pl.DataFrame({f"c{n}": ["x", "1"] if n % 2 else ["1", "2"] for n in range(300)}))
    assert {g.type.name for g in guesses.found().values()} == {"int64", "string"}
    assert len(steps) <= 2

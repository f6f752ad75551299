"""Names and texts come back from every engine of SQL as they were, whatever stands in them."""

from __future__ import annotations

import sqlite3

import duckdb
import pytest

from headrace.sqltext import literal, quoted

AWKWARD = ["a", "A b", '"', "'", '""', "''", "a.b", "--", "\\", "\n", "é", ";"]


@pytest.mark.parametrize("text", AWKWARD)
def test_names_and_texts_are_what_they_were(text: str) -> None:
    query = f"SELECT {literal(text)} AS {quoted(text)}"
    with duckdb.connect() as con:
        found = con.sql(query)
        assert (found.columns, found.fetchall()) == ([text], [(text,)])
    con = sqlite3.connect(":memory:")
    found = con.execute(query)
    assert (found.description[0][0], found.fetchall()) == (text, [(text,)])
    con.close()


def test_several_names_are_a_path() -> None:
    assert quoted("s", 't"') == '"s"."t"""'

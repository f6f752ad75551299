"""SQLite: declared types made true, and nothing skipped or read twice."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from headrace.errors import ConfigError, DataError, SchemaError, UnavailableError
from headrace.flow import Range, Snapshot
from headrace.systems.sqlite import SQLiteSource


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "s.sqlite"


def sql(file: Path, script: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)


def news(file: Path, after=None, ties="again", **more):
    it = SQLiteSource(**{"path": file.name, "base": file.parent, **({} if "query" in more else {"table": "s"}), **more})
    (batch,) = it.batches(Range(after=after, ties=ties), Snapshot(), "s")
    return batch


def test_declared_types_are_what_comes(file):
    sql(
        file,
        """CREATE TABLE s (i INTEGER, f REAL, t VARCHAR(9), b BLOB, y BOOLEAN, d DATE, at DATETIME, n DECIMAL(6,2),
        j JSON);
        INSERT INTO s VALUES (9223372036854775807, 0.1, 'é', x'00ff', 1, '2024-02-29', '2024-01-01 10:00:00.000001',
        1.10, '{"a": 1}'), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (1, 2, '', x'', 0, '0001-01-01', '2024-01-01', 7, 'null');""",
    )
    batch = news(file)
    rows = batch.frame.lazy.collect()
    assert rows.schema == {
        "i": pl.Int64, "f": pl.Float64, "t": pl.String, "b": pl.Binary, "y": pl.Boolean, "d": pl.Date,
        "at": pl.Datetime("us"), "n": pl.Decimal(6, 2), "j": pl.String,
    }  # fmt: skip
    assert rows.row(0) == (
        2**63 - 1, 0.1, "é", b"\x00\xff", True, date(2024, 2, 29), datetime(2024, 1, 1, 10, 0, 0, 1),  # noqa: DTZ001  # it has none
        Decimal("1.10"),
        '{"a": 1}',
    )  # fmt: skip
    assert rows.row(1) == (None,) * 9
    assert batch.counts().rows == 3


def drained(batch):
    batch.frame.lazy.collect()
    return dict(batch.position())


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("INTEGER", "'abc'"), ("INTEGER", "1.5"), ("TEXT", "x'ff'"), ("BLOB", "'x'"), ("BOOLEAN", "2"), ("REAL", "'x'"),
        ("DATE", "'2024-02-30'"), ("DATE", "20240101"), ("DATETIME", "'soon'"), ("DECIMAL(4,2)", "1.234"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_named_by_column_and_rowid(file, declared, value):
    sql(file, f"CREATE TABLE s (k INTEGER PRIMARY KEY, v {declared}); INSERT INTO s VALUES (7, NULL), (8, {value});")
    with pytest.raises(DataError, match=r"'v' holds no .* at rowid 8") as told:
        news(file, rename={"k": "id"}).frame.lazy.collect()
    assert told.value.details["column"] == "v"


def test_an_integer_that_no_float_holds_is_refused(file):
    sql(file, "CREATE TABLE s (i INTEGER); INSERT INTO s VALUES (9007199254740993), (NULL);")
    with pytest.raises(DataError, match="'x' holds no float64 at row 1"):
        news(file, query="SELECT i AS x FROM s UNION ALL SELECT 0.5").frame.lazy.collect()


def test_columns_without_a_declared_type_have_that_of_their_values(file):
    sql(file, "CREATE TABLE s (i INTEGER); INSERT INTO s VALUES (1), (2);")
    lazy = news(file, query="SELECT i + 1 AS a, 'x' AS b, i * 0.5 AS c, NULL AS d, i FROM s;").frame.lazy
    assert lazy.collect().rows() == [(2, "x", 0.5, None, 1), (3, "x", 1.0, None, 2)]
    with pytest.raises(SchemaError, match="'m'"):
        news(file, query="SELECT CASE i WHEN 1 THEN 'x' ELSE 1 END AS m FROM s")


@pytest.mark.parametrize("ties", ["again", "once"])
def test_reading_on_skips_nothing_and_reads_nothing_twice(file, ties):
    sql(
        file,
        "CREATE TABLE s (id INTEGER, c DATETIME);INSERT INTO s VALUES (1, '2024-01-01'), (2, '2024-01-02'), (3, NULL);",
    )
    batch = news(file, ties=ties, cursor="c")
    assert batch.frame.lazy.collect()["id"].to_list() == [1, 2]
    assert pl.concat(batch.rejects()).height == 1
    position = batch.position()
    assert news(file, position, ties, cursor="c").news.empty
    sql(file, "INSERT INTO s VALUES (4, '2024-01-02')")
    batch = news(file, position, ties, cursor="c")
    assert not batch.news.empty
    assert batch.frame.lazy.collect()["id"].to_list() == ([4] if ties == "once" else [2, 4])


def test_whole_is_everything_and_leads_as_far(file):
    sql(file, "CREATE TABLE s (id INTEGER, c INTEGER); INSERT INTO s VALUES (1, 1), (2, 2), (3, NULL)")
    position = drained(news(file, cursor="c"))
    sql(file, "INSERT INTO s VALUES (4, 3)")
    batch = news(file, position, cursor="c")
    assert batch.whole.lazy.collect()["id"].to_list() == [1, 2, 4]
    assert batch.position()["cursor"] == "3"
    assert pl.concat(batch.rejects()).height == 1


def test_rows_below_the_cursor_are_not_fetched_and_what_is_not_of_its_type_is(file):
    sql(file, "CREATE TABLE s (v INTEGER, c INTEGER); INSERT INTO s VALUES (1, 1), (2, 20)")
    position = drained(news(file, cursor="c"))
    sql(file, "UPDATE s SET v = 'bad' WHERE c = 1; INSERT INTO s VALUES (3, 100)")
    assert news(file, position, cursor="c").frame.lazy.collect()["v"].to_list() == [2, 3]
    sql(file, "INSERT INTO s VALUES (4, 0.5)")
    with pytest.raises(DataError, match="'c' holds no int64"):
        news(file, position, cursor="c").frame.lazy.collect()


@pytest.mark.parametrize("misread", [47812908.68293963, 1.528149169337846e-302])
def test_a_float_is_compared_as_the_value_that_it_is(file, misread):
    sql(file, "CREATE TABLE s (id INTEGER, c REAL)")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("INSERT INTO s VALUES (1, ?)", [misread])
        connection.commit()
    position = drained(news(file, cursor="c"))
    assert news(file, position, cursor="c").frame.lazy.collect()["id"].to_list() == [1]


@pytest.mark.parametrize(
    ("declared", "values", "lower"),
    [
        ("INTEGER", "(9), (10)", "5"),
        ("REAL", "(9.5), (10.5)", "5"),
        ("TEXT COLLATE NOCASE", "('B'), ('a')", "'A'"),
        ("DATE", "('2024-01-02')", "'2023-12-31'"),
        ("DATETIME", "('2024-01-01 10:00:00'), ('2024-01-01T09:00:00')", "'2024-01-01T08:00'"),
    ],
)
def test_a_source_that_has_gone_back_is_an_error(file, declared, values, lower):
    sql(file, f"CREATE TABLE s (c {declared}); INSERT INTO s VALUES {values}")
    position = drained(news(file, cursor="c"))
    assert news(file, position, cursor="c").news.empty
    sql(file, f"DELETE FROM s; INSERT INTO s VALUES ({lower})")
    with pytest.raises(DataError, match="read further in 'c'"):
        news(file, position, cursor="c")
    sql(file, "DELETE FROM s")
    assert news(file, position, cursor="c").frame.lazy.collect().is_empty()


def test_two_columns_of_one_name_are_refused(file):
    sql(file, "CREATE TABLE s (a INTEGER, b INTEGER)")
    with pytest.raises(ConfigError, match="two columns would be called"):
        news(file, rename={"a": "b"})


def test_a_table_or_a_column_that_is_not_there_is_named_with_the_one_that_was_meant(file):
    sql(file, "CREATE TABLE invoice (id INTEGER); CREATE VIEW customers AS SELECT * FROM invoice")
    for wrong, said in (
        ({"table": "Invoce"}, "no table 'Invoce'\n  hint: did you mean 'invoice'"),
        ({"table": "xyz"}, "no table 'xyz'\n  hint: there are: customers, invoice"),
        ({"query": "SELECT nope FROM invoice"}, "no column 'nope'"),
    ):
        with pytest.raises(ConfigError, match=said):
            news(file, **wrong)


def test_what_cannot_be_read_is_named(file):
    with pytest.raises(ConfigError, match="no such file"):
        news(file)
    file.write_text("this is no database, and long enough to be looked at" * 100)
    with pytest.raises(ConfigError, match="not an SQLite database"):
        news(file)
    file.unlink()
    sql(
        file,
        "CREATE TABLE s (i INTEGER); CREATE TABLE w (k TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO w VALUES ('a');",
    )
    for wrong in (
        {"table": "nope"},
        {"query": "SELECT nope FROM s"},
        {"query": "DELETE FROM s"},
        {"rename": {"x": "y"}},
    ):
        with pytest.raises(ConfigError):
            news(file, **wrong)
    assert news(file, table="w").frame.lazy.collect().rows() == [("a",)]
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError):
            news(file)


def test_a_journal_that_a_killed_writer_left_is_named(file):
    sql(file, "CREATE TABLE s (id INTEGER PRIMARY KEY, v TEXT)")
    with closing(sqlite3.connect(file)) as connection:
        connection.executemany("INSERT INTO s (v) VALUES (?)", [("x" * 500,)] * 2000)
        connection.commit()
    killed = f"""
import os, sqlite3
connection = sqlite3.connect({str(file)!r})
connection.execute("PRAGMA cache_size = 5")
connection.execute("UPDATE s SET v = 'y' || v")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", killed], check=False, timeout=30)
    with pytest.raises(UnavailableError, match="a writer was killed") as caught:
        news(file, cursor="id")
    assert "PRAGMA user_version" in str(caught.value.hint)
    sql(file, "PRAGMA user_version")
    assert set(news(file, cursor="id").frame.lazy.collect()["v"]) == {"x" * 500}

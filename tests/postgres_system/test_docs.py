"""What docs/postgres.md shows is what can be run."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

import headrace as hr

PAGE = (Path(__file__).parents[2] / "docs" / "postgres.md").read_text("utf-8")
DOCUMENTS = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", DOCUMENTS, ids=lambda text: text.split('"')[3])
def test_every_document_of_the_page_is_a_pipeline(text, tmp_path, monkeypatch):
    for name in re.findall(r'"env": "(\w+)"', text):
        monkeypatch.setenv(name, "host=db.example.org")
    (tmp_path / "p.json").write_text(text)
    assert isinstance(hr.load(tmp_path / "p.json"), hr.Pipeline)


def test_the_page_has_documents_and_its_python_runs(database):
    assert len(DOCUMENTS) == 5
    database.run(
        "CREATE TABLE events (id int, name text, at timestamptz); CREATE SCHEMA archive;"
        "CREATE TABLE archive.events (LIKE events); INSERT INTO archive.events VALUES (0, 'old', '2019-01-01');"
        "INSERT INTO events SELECT i, 'n', '2024-01-01' FROM generate_series(1, 3) AS i"
    )
    found = re.search(r"<!-- example: postgres -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"hr": hr, "dsn": database.dsn}
    exec(compile(found[1], "docs/postgres.md", "exec"), names)  # noqa: S102  # our own page
    assert names["moved"].schema == {"id": pl.Int32, "name": pl.String, "at": pl.Datetime("us", "UTC")}
    assert database.run("SELECT id FROM archive.events ORDER BY 1") == [(1,), (2,)]


def test_the_types_of_the_page_are_those_that_are_read(database):
    shown = {
        "int16": "1::smallint", "int32": "1", "int64": "1::bigint", "uint32": "1::oid", "float32": "1::real",
        "float64": "1::float8", "decimal(9, 2)": "1::numeric(9,2)", "bool": "true", "binary": "''::bytea",
        "date": "now()::date", "datetime(us)": "now()::timestamp", "datetime(us, UTC)": "now()", "time": "now()::time",
        "list": "ARRAY[1]", "string": "now()::timetz", "json": "'1'::jsonb",
    }  # fmt: skip
    with hr.postgres.connect(database.dsn) as db:
        frame = db.query("SELECT " + ", ".join(f'{value} AS "{name}"' for name, value in shown.items()))
    expected = {
        "int16": pl.Int16, "int32": pl.Int32, "int64": pl.Int64, "uint32": pl.UInt32, "float32": pl.Float32,
        "float64": pl.Float64, "decimal(9, 2)": pl.Decimal(9, 2), "bool": pl.Boolean, "binary": pl.Binary,
        "date": pl.Date, "datetime(us)": pl.Datetime("us"), "datetime(us, UTC)": pl.Datetime("us", "UTC"),
        "time": pl.Time, "list": pl.List(pl.Int32), "string": pl.String, "json": pl.String,
    }  # fmt: skip
    assert frame.schema == expected

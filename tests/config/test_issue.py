import importlib.util
import json
import re
from pathlib import Path

import polars as pl
import pytest

import headrace as hr
from headrace.config import decode, encode, load
from headrace.pipeline import SQLStep

issue_spec = importlib.util.spec_from_file_location("issue", __file__.replace("test_issue", "issue"))
issue = importlib.util.module_from_spec(issue_spec)
issue_spec.loader.exec_module(issue)


def test_the_demos_json_is_the_same_words_in_python(tmp_path):
    base = issue.lay(tmp_path)
    assert load(base / "daily_delay.json") == hr.Pipeline(
        name="daily_delay",
        base=base,
        sources={
            "flights": hr.FileSource(
                base=base,
                path="data/flights/*.csv",
                latest=hr.Latest(keys=("day", "carrier", "flight", "origin", "sched_dep"), by=("file", "line")),
                contract=hr.Contract(
                    columns={"dep_delay": hr.Column(type="float64", min=-120)}, on_violation="quarantine"
                ),
            ),
            "airports": hr.FileSource(base=base, path="data/airports.csv", read="all"),
        },
        transforms=(hr.python("transforms.py:clean", as_="clean"), SQLStep(sql_file="daily_delay.sql")),
        params={"since": "2013-01-01"},
        contract=hr.Contract(
            columns={
                "origin": hr.Column(type="string", nullable=False, one_of=("EWR", "JFK", "LGA")),
                "day": hr.Column(type="date", nullable=False),
            },
            rules={"has_flights": "flights > 0"},
            on_violation="quarantine",
            max_reject_share=0.05,
        ),
        destination=hr.DuckDBDestination(base=base, path="warehouse.duckdb", table="daily_delay"),
        write=hr.Recompute(by=("origin", "carrier", "day")),
    )


def orders(base, path):
    return hr.Pipeline(
        name="orders",
        base=base,
        source=hr.FileSource(
            base=base,
            path=("in/orders_*.csv",),
            cursor=hr.Cursor(column="updated_at", start="2024-01-01T00:00:00Z"),
            types={
                "day": hr.TextType(type="date", format="%d/%m/%Y"),
                "active": hr.TextType(type="bool", true=("Y",), false=("N",)),
                "zip": "string",
            },
            skip_rows=2,
            skip_footer=1,
            settle="5m",
            add_columns={"_file": "file", "_line": "line"},
            rename={"cust_id": "customer_id"},
        ),
        destination=hr.DuckDBDestination(base=base, path=path, table="orders"),
        write=hr.Merge(keys=("id",), latest_by=("updated_at",)),
        on_schema_change=hr.SchemaPolicy(add="evolve", widen="evolve", missing="refuse"),
    )


def test_the_second_document_is_the_same_words_in_python(tmp_path):
    base = issue.lay(tmp_path)
    assert load(base / "orders.json") == orders(base, "w.duckdb")
    assert load(base / "orders.json", profile="dev") == orders(base, "dev.duckdb")


def test_the_documents_survive_encoding(tmp_path):
    base = issue.lay(tmp_path)
    for name in ("daily_delay", "orders"):
        pipeline = load(base / f"{name}.json")
        assert decode(encode(pipeline), base=base) == pipeline


PYTHON_EXAMPLE = {
    "name": "orders",
    "source": {"type": "files", "path": "orders/*.csv", "cursor": {"column": "updated_at"}},
    "transforms": [
        {"python": "transforms.py:clean"},
        {"sql": "SELECT *, value * 1.2 AS gross FROM previous"},
    ],
    "params": {"since": "2024-01-01"},
    "contract": {"columns": {"id": {"type": "int64", "nullable": False}}, "on_violation": "quarantine"},
    "destination": {"type": "duckdb", "path": "warehouse.duckdb", "table": "orders"},
    "write": {"type": "merge", "keys": ["id"]},
}


def words_of(pipeline):
    """The pipeline as JSON, its function under the name that a project would give it."""
    encoded = encode(pipeline)
    step = encoded["transforms"][0]
    assert step["python"].endswith(":clean")
    step["python"] = "transforms.py:clean"
    if encoded["source"]["cursor"] == "updated_at":
        encoded["source"]["cursor"] = {"column": "updated_at"}
    return encoded


def clean(orders: pl.LazyFrame, *, since: str) -> pl.LazyFrame:
    return orders.filter(pl.col("value").is_not_null())


def test_the_python_example_says_the_same_words_as_json():
    pipeline = hr.Pipeline(
        name="orders",
        source=hr.FileSource(path="orders/*.csv", cursor="updated_at"),
        transforms=(clean, hr.sql("SELECT *, value * 1.2 AS gross FROM previous")),
        params={"since": "2024-01-01"},
        contract=hr.Contract(columns={"id": hr.Column(type="int64", nullable=False)}, on_violation="quarantine"),
        destination=hr.DuckDBDestination(path="warehouse.duckdb", table="orders"),
        write=hr.Merge(keys=("id",)),
    )
    assert words_of(pipeline) == PYTHON_EXAMPLE


README = (Path(__file__).parents[2] / "README.md").read_text()


def example(name):
    return re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", README, re.DOTALL)[1]


@pytest.mark.parametrize(
    ("name", "text"), [("daily_delay", issue.DAILY_DELAY), ("orders", issue.ORDERS), ("headrace.json", issue.SETTINGS)]
)
def test_the_readme_shows_the_documents_that_are_tested_here(name, text):
    assert json.loads(example(name)) == json.loads(text)


def test_the_readmes_python_says_the_same_words_as_json():
    given, _, _ = example("python").partition("report = hr.run(")
    names: dict = {"__name__": "readme"}
    exec(compile(given, "README.md", "exec"), names)  # noqa: S102 - our own README
    assert words_of(names["pipeline"]) == PYTHON_EXAMPLE

"""`plan` and `check` of a project: each pipeline by itself, in the order in which they would run."""

import json

import pytest


@pytest.fixture
def project(orders):
    """Beside `orders`: one that reads its table, one that reads that one's."""

    def lay(name, of):
        document = {
            "name": name,
            "source": {"type": "table", "of": of},
            "destination": {"type": "duckdb", "path": "w.duckdb", "table": name},
            "write": "replace",
        }
        (orders / f"{name}.json").write_text(json.dumps(document))

    lay("daily", "orders")
    lay("a_yearly", "daily")
    return orders


@pytest.mark.parametrize(("command", "key"), [("plan", "plans"), ("check", "checks")])
def test_what_reads_a_table_that_is_still_to_be_written_is_not_known_yet_and_stops_nobody(
    headrace, project, command, key
):
    done = headrace(command, ".")
    assert done.code == 0
    assert "gross int64" in done.out or "orders: ok, 3 columns" in done.out
    assert "daily: not known before orders has run" in done.out
    assert "a_yearly: not known before daily has run" in done.out
    found = headrace(command, ".", "--json").json[key]
    assert [(one["pipeline"], one.get("before")) for one in found] == [
        ("orders", None),
        ("daily", ["orders"]),
        ("a_yearly", ["daily"]),
    ]


@pytest.mark.parametrize(("command", "key"), [("plan", "plans"), ("check", "checks")])
def test_one_that_is_refused_is_named_and_does_not_hide_the_others(headrace, project, command, key):
    headrace("run", ".")
    (project / "transforms.py").write_text("def clean(orders, *, factor):\n    return orders.select('no_such')\n")
    done = headrace(command, ".")
    assert done.code == 1
    assert "error: orders: " in done.err
    assert "daily" in done.out
    assert "a_yearly" in done.out
    refused, *others = headrace(command, ".", "--json").json[key]
    assert (refused["status"], refused["error"]["type"]) == ("refused", "TransformError")
    assert all("error" not in one for one in others)


def test_a_plan_says_that_another_run_comes_before_it(headrace, project):
    headrace("run", ".")
    assert "as things are now" not in headrace("plan", ".").out
    (project / "orders_2.csv").write_text("id,value\n4,1\n")
    assert "daily -> " in (said := headrace("plan", ".").out)
    assert "as things are now: orders would run first, and change what this one reads" in said


def test_a_plan_reads_as_words(headrace, orders):
    (orders / "orders.csv").write_text("id,value,day\n1,10,2024-01-01\n")
    source = {"type": "files", "path": "orders*.csv", "cursor": "day"}
    document = {**json.loads((orders / "orders.json").read_text()), "sources": {"orders": source}}
    (orders / "orders.json").write_text(json.dumps(document))
    first = headrace("plan", "orders.json").out
    assert "bounds: day from the beginning on" in first
    assert "guarantee: each key holds its newest row" in first, "the cursor settles which row is the newest"
    headrace("run", "orders.json")
    second = headrace("plan", "orders.json").out
    assert "bounds: day from 2024-01-01 on" in second
    assert "None" not in first + second
    assert "True" not in first + second

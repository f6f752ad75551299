"""Many tables of one database: one snapshot, one commit; deletes found by comparing keys."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest
from server import Database

import headrace as hr
from headrace.cli import main
from headrace.config import load
from headrace.engine.decisions import reading
from headrace.engine.increment import Context
from headrace.engine.opening import increments
from headrace.errors import ConfigError
from headrace.flow import Range, Snapshot

SHOP = """
{"name": "shop",
 "source": {"type": "postgres", "dsn": {"env": "SHOP_DSN"}},
 "destination": {"type": "duckdb", "path": "warehouse.duckdb", "schema": "shop"},
 "defaults": {"cursor": "updated_at", "write": {"type": "merge"}},
 "tables": {"public.orders": {}, "public.order_items": {"cursor": null, "write": {"type": "replace"}},
            "public.ref_*": {}}}
"""
ORDERS = """
{"name": "orders",
 "source": {"connection": "shop", "table": "public.orders", "cursor": "updated_at",
            "deletes": {"by": "compare", "every": "1d", "max": 0.05}},
 "destination": {"type": "duckdb", "path": "warehouse.duckdb", "table": "orders"},
 "write": {"type": "merge", "keys": ["id"]}}
"""
PUBLISH = """
{"name": "publish",
 "source": {"type": "table", "of": "orders"},
 "destination": {"type": "postgres", "dsn": {"env": "SHOP_DSN"}, "table": "reports.orders"},
 "write": {"type": "replace", "keys": ["id"]}}
"""


def test_one_table_that_becomes_many_is_refused_until_it_is_loaded_anew(database: Database) -> None:
    database.run("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 10)")
    source, cursor = hr.PostgresSource(dsn=database.dsn, table="orders", cursor="id"), hr.Table(cursor="id")
    into = hr.PostgresDestination(dsn=database.dsn, table="w.orders")
    hr.run(hr.Pipeline(name="shop", source=source, destination=into, write=hr.Append()))

    def many(**more: bool) -> hr.Pipeline:
        schema = hr.PostgresDestination(dsn=database.dsn, schema="w", **more)
        every = hr.PostgresSource(dsn=database.dsn)
        tables = {"orders": hr.Table()}
        return hr.Pipeline(name="shop", source=every, destination=schema, defaults=cursor, tables=tables)

    for verb in (hr.plan, hr.run):
        with pytest.raises(ConfigError, match="was loaded by pipeline 'shop' with another target"):
            verb(many())
    hr.run(many(adopt=True), full_refresh=True)
    assert hr.run(many()).status == "nothing_new"
    assert database.run("SELECT count(*) FROM w.orders") == [(10,)]


@pytest.fixture
def shop(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("SHOP_DSN", database.dsn)
    for name in ("orders", "order_items", "ref_a", 'ref_"b.c'):
        quoted = '"' + name.replace('"', '""') + '"'
        database.run(
            f"CREATE TABLE {quoted} (id int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now(), text text);"
            f"INSERT INTO {quoted} SELECT i, now() - interval '1 hour', 'x' FROM generate_series(1, 40) AS i"
        )
    database.run(
        "CREATE TABLE parts (id int, k int) PARTITION BY LIST (k); CREATE TABLE ref_part PARTITION OF parts DEFAULT"
    )
    shared = {"connections": {"shop": {"type": "postgres", "dsn": {"env": "SHOP_DSN"}}}}
    (tmp_path / "headrace.json").write_text(json.dumps(shared))
    return database


def pipeline(folder: Path, text: str) -> hr.Pipeline:
    file = folder / "pipeline.json"
    file.write_text(text)
    return load(file)


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_many_tables_are_one_commit_by_their_primary_keys(shop: Database, tmp_path: Path) -> None:
    one = pipeline(tmp_path, SHOP)
    report = hr.run(one)
    assert [c.number for c in report.commits] == [1]
    assert report.counts["inserted"] == 160
    tables = "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'shop' ORDER BY 1"
    assert [n for (n,) in rows(tmp_path, tables)] == ["order_items", "orders", 'ref_"b.c', "ref_a"]
    shop.run("UPDATE orders SET text = 'new', updated_at = now() - interval '1 minute' WHERE id = 3")
    shop.run("DELETE FROM order_items WHERE id > 10")
    again = hr.run(one)
    assert again.counts["updated"] >= 1
    assert rows(tmp_path, "SELECT text FROM shop.orders WHERE id = 3") == [("new",)]
    assert rows(tmp_path, "SELECT count(*) FROM shop.order_items") == [(10,)]


def test_a_table_that_stands_by_its_name_is_no_patterns_and_what_is_wrong_with_one_is_said_of_it(
    shop: Database, tmp_path: Path
) -> None:
    replaced = '"orders": {"cursor": null, "write": {"type": "replace"}}, "public.o*": {}'
    text = SHOP.replace(SHOP[SHOP.index('"public.orders"') : SHOP.rindex("}}")], replaced)
    told = hr.plan(pipeline(tmp_path, text)).sources
    assert [name for name, facts in told.items() if facts["write"]["type"] == "replace"] == ["public.orders"]
    shop.run("ALTER TABLE ref_a DROP CONSTRAINT ref_a_pkey")
    with pytest.raises(ConfigError, match=r"table 'public\.ref_a': merge has no keys"):
        hr.plan(pipeline(tmp_path, SHOP))


def test_all_tables_are_of_one_snapshot(shop: Database) -> None:
    sources = {name: hr.PostgresSource(dsn=shop.dsn, table=name) for name in ("public.orders", "public.ref_a")}
    ranges, snapshots = dict.fromkeys(sources, Range()), dict.fromkeys(sources, Snapshot())
    reading = hr.PostgresSource(dsn=shop.dsn).together(sources, ranges, snapshots)
    batches = next(reading)
    first = batches["public.orders"].frame.lazy.collect().height
    shop.run("INSERT INTO orders VALUES (99); INSERT INTO ref_a VALUES (99)")
    assert (first, batches["public.ref_a"].frame.lazy.collect().height) == (40, 40)
    reading.close()  # type: ignore[attr-defined]  # a generator


def test_a_pattern_that_matches_nothing_and_a_table_that_is_meant_are_named(shop: Database) -> None:
    source = hr.PostgresSource(dsn=shop.dsn)
    with pytest.raises(ConfigError, match=r"no table matches 'public\.nothing_\*'"):
        source.matching("public.nothing_*")
    with pytest.raises(ConfigError, match=r"no table public.ordrs") as caught:
        source.matching("public.ordrs")
    assert "public.orders" in caught.value.hint
    assert source.matching("ref_*") == ['public."ref_""b.c"', "public.ref_a"]


def test_deleted_rows_are_found_when_it_is_time(shop: Database, tmp_path: Path) -> None:
    one = pipeline(tmp_path, ORDERS)
    hr.run(one)
    shop.run("DELETE FROM orders WHERE id IN (5, 6)")
    assert hr.run(one).counts.get("deleted", 0) == 0
    now = pipeline(tmp_path, ORDERS.replace('"1d"', '"0s"'))
    assert hr.run(now).counts["deleted"] == 2
    shop.run("DELETE FROM orders")
    with pytest.raises(hr.DataError, match="38 of its 38 rows no more"):
        hr.run(now)
    assert rows(tmp_path, "SELECT count(*) FROM orders") == [(38,)]


def test_a_census_reads_only_the_keys(shop: Database, tmp_path: Path) -> None:
    one = pipeline(tmp_path, ORDERS.replace('"1d"', '"0s"'))
    hr.run(one)

    every = increments(one, one.destination.inspect("orders"), reading(one, full_refresh=False), Context(run="test"))
    census = next(every).changes[0].census
    assert census is not None
    plan = census.keys().lazy().explain()  # type: ignore[attr-defined]  # a FrameStream
    assert "PROJECT 1/3" in plan or "1/3 COLUMNS" in plan, plan
    every.close()


def test_a_table_is_published_with_what_is_absent_deleted(shop: Database, tmp_path: Path) -> None:
    (tmp_path / "orders.json").write_text(ORDERS)
    (tmp_path / "publish.json").write_text(PUBLISH)

    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["run", str(tmp_path)])
        assert ended.value.code == 0
    assert shop.run("SELECT count(*), min(text) FROM reports.orders") == [(40, "x")]
    typed = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'reports.orders'::regclass"
    assert shop.run(f"{typed} AND attname = 'updated_at'") == [("timestamp with time zone",)]
    shop.run("DELETE FROM orders WHERE id = 7")
    shop.run("UPDATE orders SET text = 'y', updated_at = now() - interval '1 minute' WHERE id = 8")
    (tmp_path / "orders.json").write_text(ORDERS.replace('"1d"', '"0s"'))
    with pytest.raises(SystemExit):
        main(["run", str(tmp_path)])
    assert shop.run("SELECT count(*), max(text) FROM reports.orders") == [(39, "y")]


def test_a_load_in_several_commits_compares_the_keys_once(shop: Database, tmp_path: Path) -> None:
    often = ORDERS.replace('"1d"', '"0s"').replace('"name": "orders",', '"name": "orders", "commit_every": 200,')
    hr.run(one := pipeline(tmp_path, often))
    shop.run("UPDATE orders SET updated_at = now() - interval '1 minute' * (41 - id); DELETE FROM orders WHERE id = 9")
    every = increments(one, one.destination.inspect("orders"), reading(one, full_refresh=False), Context(run="test"))
    assert [made.changes[0].census is not None for made in every][:3] == [True, False, False]
    assert hr.run(one).counts["deleted"] == 1
    positions = one.destination.inspect("orders").positions["source"]
    assert positions["compared"]

"""Rows that a source has deleted are found by comparing keys, when it is time, and only where that can be believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

import headrace as hr
from headrace.errors import ConfigError, DataError


def source(folder: Path, sql: str) -> None:
    with duckdb.connect(str(folder / "shop.duckdb")) as connection:
        connection.execute(sql)


def pipeline(folder: Path, *, deletes: hr.Deletes | None = None, **more: Any) -> hr.Pipeline:
    parts: dict[str, Any] = {
        "name": "orders",
        "source": hr.DuckDBSource(
            path="shop.duckdb", table="orders", cursor="updated", deletes=deletes or hr.Deletes(max=0.5), base=folder
        ),
        "destination": hr.DuckDBDestination(path="w.duckdb", table="orders", base=folder),
        "write": hr.Merge(keys=("id",)),
    }
    return hr.Pipeline(**{**parts, **more})


def ids(one: hr.Pipeline, where: str = "true") -> list[int]:
    scan = one.destination.inspect(one.name).scan
    assert scan is not None
    return sorted(scan().sql(f"SELECT id FROM self WHERE {where}").collect()["id"])


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    source(tmp_path, "CREATE TABLE orders AS SELECT i AS id, 1 AS updated, 'x' AS text FROM range(1, 11) t(i)")
    return tmp_path


def test_a_deleted_row_goes_though_nothing_else_is_new(shop: Path) -> None:
    hr.run(one := pipeline(shop))
    source(shop, "DELETE FROM orders WHERE id IN (3, 4)")
    assert hr.plan(one).write["deletes"] == "rows whose keys the source has no more, at most 50% of them"
    report = hr.run(one)
    assert report.counts["deleted"] == 2
    assert ids(one) == [1, 2, 5, 6, 7, 8, 9, 10]


def test_keys_are_compared_through_the_transforms(shop: Path) -> None:
    doubled = hr.sql("SELECT id * 2 AS id, updated FROM source WHERE text = 'x'")
    hr.run(one := pipeline(shop, transforms=(doubled,)))
    source(shop, "DELETE FROM orders WHERE id = 3; UPDATE orders SET text = 'y' WHERE id = 5")
    hr.run(one)
    assert ids(one) == [2, 4, 8, 12, 14, 16, 18, 20]


def test_a_row_that_the_contract_rejects_is_not_gone(shop: Path) -> None:
    contract = hr.Contract(columns={"text": hr.Column(one_of=("x",))}, on_violation="quarantine")
    hr.run(one := pipeline(shop, contract=contract))
    source(shop, "UPDATE orders SET text = 'bad', updated = 2 WHERE id = 3")
    hr.run(one)
    assert ids(one) == list(range(1, 11))


def test_an_empty_source_is_refused_and_nothing_has_changed(shop: Path) -> None:
    hr.run(one := pipeline(shop, deletes=hr.Deletes(max=1)))
    source(shop, "DELETE FROM orders")
    with pytest.raises(DataError, match="the source has 10 of its 10 rows no more"):
        hr.run(one)
    assert ids(one) == list(range(1, 11))


def test_too_many_deletes_are_refused_with_the_way_out(shop: Path) -> None:
    hr.run(one := pipeline(shop, deletes=hr.Deletes(max=0.2)))
    source(shop, "DELETE FROM orders WHERE id > 7")
    with pytest.raises(DataError, match="3 of its 10 rows no more, and at most 20% may go at once") as caught:
        hr.run(one)
    assert '"max"' in caught.value.hint


def test_keys_are_compared_as_often_as_every_says(shop: Path) -> None:
    hr.run(one := pipeline(shop, deletes=hr.Deletes(every="1d", max=0.5)))
    source(shop, "DELETE FROM orders WHERE id = 3")
    hr.run(one)
    assert ids(one) == list(range(1, 11))
    now = pipeline(shop, deletes=hr.Deletes(every="0s", max=0.5))
    assert hr.run(now).counts["deleted"] == 1
    assert ids(one) == [1, 2, 4, 5, 6, 7, 8, 9, 10]


def test_a_soft_delete_marks_the_row_until_it_is_back(shop: Path) -> None:
    hr.run(one := pipeline(shop, deletes=hr.Deletes(max=0.5, as_="soft")))
    source(shop, "CREATE TABLE kept AS FROM orders WHERE id = 3; DELETE FROM orders WHERE id IN (3, 4)")
    hr.run(one)
    assert ids(one, "_deleted_at IS NOT NULL") == [3, 4]
    source(shop, "INSERT INTO orders FROM kept")
    hr.run(one)
    assert ids(one, "_deleted_at IS NOT NULL") == [4]
    assert len(ids(one)) == 10


@pytest.mark.parametrize("write", [hr.Append(), hr.Replace(), hr.History(keys=("id",))])
def test_deletes_are_refused_where_the_write_cannot_carry_them_out(shop: Path, write: Any) -> None:
    with pytest.raises(ConfigError, match="has deletes") as caught:
        hr.check(pipeline(shop, write=write))
    assert caught.value.hint


def test_a_merge_without_keys_asks_for_them_where_the_source_has_none(shop: Path) -> None:
    with pytest.raises(ConfigError, match="merge has no keys"):
        hr.check(pipeline(shop, write=hr.Merge()))


@pytest.mark.parametrize("judges", ["source", "result"])
def test_keys_are_compared_in_the_types_that_a_contract_gives_them(tmp_path: Path, judges: str) -> None:
    source(tmp_path, "CREATE TABLE orders AS SELECT i::VARCHAR AS id, 1 AS updated FROM range(1, 11) t(i)")
    source(tmp_path, "INSERT INTO orders VALUES ('none', 1)")
    typed = hr.Contract(columns={"id": hr.Column(type="int64")}, on_violation="quarantine")
    one = pipeline(tmp_path)
    assert one.source is not None
    one = (
        replace(one, source=replace(one.source, contract=typed)) if judges == "source" else replace(one, contract=typed)
    )
    hr.run(one)
    source(tmp_path, "DELETE FROM orders WHERE id = '3'")
    assert hr.run(one).counts["deleted"] == 1
    assert ids(one) == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert hr.rejects(one)["key"].to_list() == [None]


def test_a_replay_deletes_nothing(shop: Path) -> None:
    """Of a look-up that has deletes only the keys that the replayed rows have were found."""
    source(shop, "CREATE TABLE lines AS SELECT id, id - 1 AS v FROM orders")
    source(shop, "UPDATE orders SET text = text || id")

    def joined(low: int) -> hr.Pipeline:
        customers = hr.DuckDBSource(
            path="shop.duckdb", table="orders", read="all", deletes=hr.Deletes(max=1.0), base=shop
        )
        return pipeline(
            shop,
            source=None,
            sources={
                "lines": hr.DuckDBSource(path="shop.duckdb", table="lines", cursor="id", base=shop),
                "orders": customers,
            },
            transforms=(hr.sql("SELECT lines.*, text FROM lines JOIN orders USING (id)"),),
            contract=hr.Contract(columns={"v": hr.Column(min=low)}, on_violation="quarantine"),
        )

    hr.run(joined(1))
    assert ids(joined(1)) == list(range(2, 11))
    hr.replay(joined(0))
    assert ids(joined(0)) == list(range(1, 11))

"""Many tables of one source: one snapshot, one commit, each read and written in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import duckdb
import pytest

import headrace as hr
from headrace.errors import ConfigError, ConflictError, ContractError, HeadraceError, RejectedError
from headrace.flow import Batch, Range, Snapshot
from headrace.testing.faults import FailAfterApply


@dataclass(frozen=True, kw_only=True)
class Shop(hr.DuckDBSource):
    """A DuckDB file as a source of many tables; `broken` is one that cannot be read to its end."""

    table: str | None = "main.none"
    broken: str | None = None

    def matching(self, pattern: str) -> Sequence[str]:
        with duckdb.connect(str(Path(self.base or ".") / self.path), read_only=True) as connection:
            rows = connection.execute("SELECT 'main.' || table_name FROM duckdb_tables() ORDER BY 1").fetchall()
        if not (found := [name for (name,) in rows if fnmatchcase(name, pattern)]):
            raise ConfigError(f"no table matches {pattern!r}")
        return found

    def together(
        self, sources: Mapping[str, hr.DuckDBSource], ranges: Mapping[str, Range], snapshots: Mapping[str, Snapshot]
    ) -> Iterator[Mapping[str, Batch]]:
        with ExitStack() as stack:
            found = {}
            for name, source in sources.items():
                stream = source.batches(ranges[name], snapshots[name], name)
                stack.callback(stream.close)  # type: ignore[attr-defined]  # a generator
                found[name] = next(stream)
            yield found


@dataclass(frozen=True, kw_only=True)
class Following(Shop):
    """It reads on from its first batches, once they are dealt with and `meanwhile` has been run."""

    meanwhile: Callable[[], None] = lambda: None

    def together(
        self, sources: Mapping[str, hr.DuckDBSource], ranges: Mapping[str, Range], snapshots: Mapping[str, Snapshot]
    ) -> Iterator[Mapping[str, Batch]]:
        with closing(super().together(sources, ranges, snapshots)) as read:
            yield (first := next(read))
        self.meanwhile()
        further = {name: replace(one, after=first[name].position() or one.after) for name, one in ranges.items()}
        yield from super().together(sources, further, snapshots)


@dataclass(frozen=True, kw_only=True)
class Unsure(Shop):
    """It cannot tell that there is no row before it is read."""

    def together(self, *given: Any) -> Iterator[Mapping[str, Batch]]:
        with closing(super().together(*given)) as read:
            for found in read:
                yield {name: replace(one, news=replace(one.news, empty=False)) for name, one in found.items()}


def source(folder: Path, sql: str) -> None:
    with duckdb.connect(str(folder / "shop.duckdb")) as connection:
        connection.execute(sql)


def sourced(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "shop.duckdb")) as connection:
        return connection.execute(sql).fetchall()


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def pipeline(folder: Path, **more: Any) -> hr.Pipeline:
    parts: dict[str, Any] = {
        "name": "shop",
        "source": Shop(path="shop.duckdb", base=folder),
        "destination": hr.DuckDBDestination(path="w.duckdb", schema="shop", base=folder),
        "defaults": hr.Table(cursor="updated", write=hr.Merge(keys=("id",))),
        "tables": {
            "main.orders": hr.Table(),
            "main.items": hr.Table(cursor=None, write=hr.Replace(), table="order_items"),
            "main.ref_*": hr.Table(),
        },
    }
    return hr.Pipeline(**{**parts, **more})


def following(folder: Path, meanwhile: Callable[[], None]) -> Following:
    return Following(path="shop.duckdb", base=folder, meanwhile=meanwhile)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for name in ("orders", "items", "ref_a", "ref_b", "others"):
        source(tmp_path, f"CREATE TABLE {name} AS SELECT i AS id, 1 AS updated, '{name}' AS text FROM range(3) t(i)")
    return tmp_path


def test_all_tables_are_loaded_in_one_commit(shop: Path) -> None:
    report = hr.run(pipeline(shop))
    assert [c.number for c in report.commits] == [1]
    names = [n for (n,) in rows(shop, "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'shop' ORDER BY 1")]
    assert names == ["order_items", "orders", "ref_a", "ref_b"]
    assert report.counts["inserted"] == 12
    assert [e["write"] for e in hr.history(pipeline(shop)) if e["kind"] == "commit"] == ["merge, replace"]
    assert set(report.commits[0].read) == {"main.orders", "main.items", "main.ref_a", "main.ref_b"}


def test_each_table_goes_on_from_its_own_position(shop: Path) -> None:
    hr.run(one := pipeline(shop))
    source(shop, "UPDATE orders SET text = 'new', updated = 2 WHERE id = 1; DELETE FROM items WHERE id = 0")
    report = hr.run(one)
    assert {name: r["rows"] for name, r in report.commits[0].read.items()} == {"main.orders": 3, "main.items": 2}
    assert rows(shop, "SELECT text FROM shop.orders WHERE id = 1") == [("new",)]
    assert rows(shop, "SELECT count(*) FROM shop.order_items") == [(2,)]
    snapshot = one.destination.inspect("shop")
    assert set(snapshot.positions) == {"main.orders", "main.ref_a", "main.ref_b"}
    assert not report.warnings


def test_the_source_is_told_of_all_tables_without_news_too(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps the log of changes for all of them may let go of it only as far as the last of them has come."""
    heard: list[Mapping[str, Any]] = []
    monkeypatch.setattr(Shop, "confirm", lambda _source, positions: heard.append(dict(positions)))
    one = pipeline(shop, tables={"main.orders": hr.Table(), "main.ref_a": hr.Table()})
    hr.run(one)
    first = one.destination.inspect("shop").positions
    source(shop, "UPDATE orders SET updated = 2 WHERE id = 1")
    hr.run(one)
    second = one.destination.inspect("shop").positions
    assert first.keys() == second.keys() == {"main.orders", "main.ref_a"}
    assert (first["main.orders"] != second["main.orders"], first["main.ref_a"]) == (True, second["main.ref_a"])
    assert heard == [first, first, second]


def test_a_failure_of_one_table_leaves_all_as_they_were(shop: Path) -> None:
    hr.run(pipeline(shop))
    source(shop, "UPDATE orders SET text = 'new', updated = 2; UPDATE ref_b SET text = 'bad', updated = 2")
    strict = hr.Contract(columns={"text": hr.Column(one_of=("ref_b",))})
    tables = {"main.orders": hr.Table(), "main.ref_b": hr.Table(contract=strict)}
    with pytest.raises(ContractError):
        hr.run(pipeline(shop, tables=tables))
    assert rows(shop, "SELECT DISTINCT text FROM shop.orders") == [("orders",)]


def test_a_lost_answer_is_settled_and_nothing_is_doubled(shop: Path) -> None:
    tables = {"main.orders": hr.Table(), "main.ref_*": hr.Table()}
    one = pipeline(shop, defaults=hr.Table(cursor="updated", write=hr.Append()), tables=tables)
    lossy = FailAfterApply(one.destination)
    object.__setattr__(one, "destination", lossy)
    hr.run(one)
    assert rows(shop, "SELECT count(*) FROM shop.orders") == [(3,)]
    assert rows(shop, "SELECT count(*) FROM _headrace.commits") == [(1,)]


def test_a_plan_tells_each_table_and_the_one_commit(shop: Path) -> None:
    plan = hr.plan(pipeline(shop))
    assert plan.write == {"type": "tables", "count": 4}
    assert plan.sources["main.items"]["into"] == "shop.order_items"
    assert plan.sources["main.items"]["write"]["type"] == "replace"
    assert len(plan.changes) == 4
    assert "one commit" in plan.because
    assert not (shop / "w.duckdb").exists()
    assert "shop.ref_a" in str(plan)
    assert "columns:" not in str(plan)
    assert hr.check(pipeline(shop)).changes == plan.changes
    assert hr.preview(pipeline(shop), step="main.ref_a")["text"].to_list() == ["ref_a"] * 3


def test_what_was_read_in_between_is_a_conflict(shop: Path) -> None:
    one = pipeline(shop)
    hr.run(one)
    source(shop, "UPDATE orders SET updated = 2")
    snapshot = one.destination.inspect("shop")
    from headrace.engine.decisions import reading
    from headrace.engine.increment import Context
    from headrace.engine.opening import increments

    (bundle,) = increments(one, snapshot, reading(one, full_refresh=False), Context(run="late"))
    hr.run(one)
    with pytest.raises(ConflictError):
        one.destination.apply(bundle.commit)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tables": {"main.nothing": hr.Table()}}, "no table matches 'main.nothing'"),
        ({"tables": {"main.orders": hr.Table(), "main.ref_*": hr.Table(table="orders")}}, "would both go into"),
        ({"tables": {"main.orders": hr.Table(cursor="updatd")}}, "no column 'updatd'"),
        *(
            ({"tables": {"main.orders": hr.Table(contract=contract)}}, "has no quarantine")
            for contract in (
                hr.Contract(on_violation="quarantine"),
                hr.Contract(columns={"id": hr.Column(max=1, on_violation="quarantine")}),
                hr.Contract(rules={"low": hr.Rule(check="id < 1", on_violation="quarantine")}),
            )
        ),
        ({"transforms": (hr.sql("SELECT 1"),)}, "are of one table, and it has many"),
        ({"tables": {}}, "schema for many tables, and it loads one"),
        ({"destination": hr.DuckDBDestination(path="w.duckdb", table="t")}, "has no schema for them"),
        ({"source": hr.FileSource(path="*.csv")}, "its source has no tables"),
    ],
)
def test_what_cannot_be_is_refused_by_name(shop: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(HeadraceError, match=said) as caught:
        hr.run(pipeline(shop, **more))
    assert caught.value.hint or "matches" in said
    assert (
        not (shop / "w.duckdb").exists() or rows(shop, "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'shop'") == []
    )


def test_a_quarantine_that_the_source_brings_is_refused_unless_the_tables_say_otherwise(shop: Path) -> None:
    strict = hr.Contract(columns={"id": hr.Column(max=1)}, on_violation="quarantine")
    bounded = Shop(path="shop.duckdb", base=shop, contract=strict)
    with pytest.raises(ConfigError, match=r"'main\.orders': a pipeline of many tables has no quarantine"):
        hr.run(pipeline(shop, source=bounded, tables={"main.orders": hr.Table()}))
    assert rows(shop, "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'shop'") == []
    hr.run(pipeline(shop, source=bounded, tables={"main.orders": hr.Table(contract=None)}))
    assert rows(shop, "SELECT count(*) FROM shop.orders") == [(3,)]


def test_a_table_that_would_go_on_in_another_target_is_refused_by_name(shop: Path) -> None:
    """Its position is of the rows in the old one: the new one would get what came since, or another table's rows."""
    hr.run(pipeline(shop, tables={"main.orders": hr.Table(), "main.ref_a": hr.Table()}))
    source(shop, "INSERT INTO orders VALUES (9, 9, 'new')")
    renamed = {"main.orders": hr.Table(table="orders_v2"), "main.ref_a": hr.Table()}
    swapped = {"main.orders": hr.Table(table="ref_a"), "main.ref_a": hr.Table(table="orders")}
    for tables in (renamed, swapped):
        for verb in (hr.plan, hr.run):
            with pytest.raises(ConfigError, match=r"'main\.orders': it went into 'shop\.orders' so far") as caught:
                verb(pipeline(shop, tables=tables))
            assert "--full-refresh" in caught.value.hint
    hr.run(pipeline(shop, tables={"main.orders": hr.Table(), "main.ref_a": hr.Table()}))
    assert rows(shop, "SELECT count(*) FROM shop.orders") == [(4,)]
    assert rows(shop, "SELECT DISTINCT text FROM shop.ref_a") == [("ref_a",)]


def test_a_full_refresh_takes_a_table_to_another_target(shop: Path) -> None:
    hr.run(pipeline(shop, tables={"main.orders": hr.Table(), "main.ref_a": hr.Table()}))
    swapped = {"main.orders": hr.Table(table="ref_a"), "main.ref_a": hr.Table(table="orders")}
    hr.run(pipeline(shop, tables=swapped), full_refresh=True)
    assert rows(shop, "SELECT text FROM shop.ref_a") == [("orders",)] * 3
    source(shop, "INSERT INTO orders VALUES (9, 9, 'new')")
    hr.run(pipeline(shop, tables=swapped))
    assert rows(shop, "SELECT count(*) FROM shop.ref_a") == [(4,)]
    assert rows(shop, "SELECT DISTINCT text FROM shop.orders") == [("ref_a",)]


def test_a_full_refresh_that_finds_no_row_leaves_a_table_where_it_was(shop: Path) -> None:
    """Its old rows stay in the target, which another table must not go on in."""
    hr.run(pipeline(shop, tables={"main.orders": hr.Table(), "main.ref_a": hr.Table()}))
    source(shop, "DELETE FROM ref_a")
    moved = {"main.orders": hr.Table(), "main.ref_a": hr.Table(table="ref_2")}
    report = hr.run(pipeline(shop, tables=moved), full_refresh=True)
    assert report.warnings == ("'main.ref_a' has no row to read: the full refresh leaves the table as it is",)
    source(shop, "INSERT INTO ref_a VALUES (9, 9, 'new')")
    with pytest.raises(ConfigError, match="so far"):
        hr.run(pipeline(shop, tables=moved))


def alone(folder: Path, **more: Any) -> hr.Pipeline:
    """The pipeline of one of the tables, into the same target."""
    one = hr.DuckDBSource(path="shop.duckdb", table="orders", cursor="updated", base=folder)
    target = hr.DuckDBDestination(path="w.duckdb", table="shop.orders", base=folder, **more)
    return hr.Pipeline(name="shop", source=one, destination=target, write=hr.Append())


def test_one_table_that_becomes_many_or_many_that_become_one_are_refused_and_not_loaded_again(shop: Path) -> None:
    many = {"tables": {"main.orders": hr.Table()}, "defaults": hr.Table(cursor="updated", write=hr.Append())}
    for first, then in ((alone(shop), pipeline(shop, **many)), (pipeline(shop, **many), alone(shop))):
        hr.run(first)
        source(shop, "INSERT INTO orders VALUES (9, 9, 'new')")
        for verb in (hr.plan, hr.run):
            with pytest.raises(ConfigError, match="loaded by pipeline 'shop' with another target") as caught:
                verb(then)
            assert "that it had" in caught.value.hint
        hr.run(first)
        ((kept,),) = rows(shop, "SELECT count(*) FROM shop.orders")
        ((there,),) = sourced(shop, "SELECT count(*) FROM orders")
        assert kept == there
        (shop / "w.duckdb").unlink()


def test_a_full_refresh_takes_the_table_of_one_over_to_many(shop: Path) -> None:
    hr.run(alone(shop))
    more = {"tables": {"main.orders": hr.Table()}, "defaults": hr.Table(cursor="updated", write=hr.Append())}
    adopting = hr.DuckDBDestination(path="w.duckdb", schema="shop", base=shop, adopt=True)
    hr.run(pipeline(shop, destination=adopting, **more), full_refresh=True)
    assert hr.run(pipeline(shop, **more)).status == "nothing_new"
    assert rows(shop, "SELECT count(*) FROM shop.orders") == [(3,)]
    with pytest.raises(ConfigError, match="with another target"):
        hr.run(alone(shop))


def test_what_is_read_whole_each_time_may_go_elsewhere(shop: Path) -> None:
    hr.run(pipeline(shop))
    tables = {"main.items": hr.Table(cursor=None, write=hr.Replace(), table="items")}
    hr.run(pipeline(shop, tables=tables))
    assert rows(shop, "SELECT count(*) FROM shop.items") == [(3,)]


def test_a_target_that_an_older_ledger_does_not_name_is_kept_from_the_next_commit_on(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.engine import bundle

    sealed = bundle._sealed

    def older(*given: Any) -> Any:
        seal = sealed(*given)
        for told in seal.record["tables"].values():
            told.pop("into")
        return seal

    tables = {"main.orders": hr.Table(), "main.ref_a": hr.Table()}
    with monkeypatch.context() as patched:
        patched.setattr(bundle, "_sealed", older)
        hr.run(pipeline(shop, tables=tables))
    source(shop, "INSERT INTO ref_a VALUES (9, 9, 'new')")
    hr.run(pipeline(shop, tables=tables))
    with pytest.raises(ConfigError, match="so far"):
        hr.run(pipeline(shop, tables={"main.orders": hr.Table(table="orders_v2"), "main.ref_a": hr.Table()}))


def test_a_full_refresh_loads_all_tables_anew(shop: Path) -> None:
    hr.run(one := pipeline(shop))
    source(shop, "DELETE FROM orders WHERE id = 2")
    hr.run(one, full_refresh=True)
    assert rows(shop, "SELECT count(*) FROM shop.orders") == [(2,)]


def test_a_full_refresh_of_a_history_among_the_tables_is_refused_unless_it_is_meant(shop: Path) -> None:
    tables = {"main.orders": hr.Table(write=hr.History(keys=("id",))), "main.ref_a": hr.Table()}
    hr.run(one := pipeline(shop, tables=tables))
    source(shop, "UPDATE orders SET text = 'new', updated = 2")
    hr.run(one)
    with pytest.raises(ConfigError, match="would lose the versions"):
        hr.run(one, full_refresh=True)
    plan = hr.plan(one, full_refresh=True)
    assert "--discard-history" in str(plan)
    assert plan.status == "load"
    assert "--discard-history" not in str(hr.plan(one))
    assert rows(shop, "SELECT count(*) FROM shop.orders") == [(6,)]
    hr.run(one, full_refresh=True, discard_history=True)
    assert rows(shop, "SELECT count(*) FROM shop.orders") == [(3,)]


def test_a_table_says_only_what_is_its_own() -> None:
    assert hr.Table(cursor=None, table="t").given == {"cursor": None}
    assert replace(hr.Table(), where="x > 1").given == {"where": "x > 1"}


def test_a_full_refresh_forgets_how_far_an_emptied_table_was_read_and_no_other(shop: Path) -> None:
    tables = {n: hr.Table(cursor="id", write=hr.Append()) for n in ("main.orders", "main.items")}
    both = pipeline(shop, tables=tables)
    hr.run(both)
    known = both.destination.inspect("shop")
    source(shop, "DELETE FROM orders")
    orders = Unsure(path="shop.duckdb", base=shop)
    hr.run(pipeline(shop, source=orders, tables={"main.orders": tables["main.orders"]}), full_refresh=True)
    after = both.destination.inspect("shop")
    assert rows(shop, "SELECT count(*) FROM shop.orders") == [(0,)]
    assert after.positions == {"main.items": known.positions["main.items"]}
    assert after.identities["main.items"] == known.identities["main.items"]


def test_a_full_refresh_begins_at_the_beginning_of_each_table(shop: Path) -> None:
    """What the target holds is where rows that are new begin, and what a refresh takes away."""
    start = hr.Cursor(column="updated", start="from_target")
    one = pipeline(shop, defaults=hr.Table(cursor=start, write=hr.Merge(keys=("id",))))
    source(shop, "UPDATE orders SET updated = 2 WHERE id = 1")
    hr.run(one)
    hr.run(one, full_refresh=True)
    assert rows(shop, "SELECT count(*) FROM shop.orders") == [(3,)]


def test_writes_that_differ_from_table_to_table_are_no_change_of_write(shop: Path) -> None:
    tables = {"main.orders": hr.Table(), "main.ref_a": hr.Table(write=hr.Replace())}
    one = pipeline(shop, tables=tables)
    hr.run(one)
    assert hr.run(one).status == "nothing_new"


def test_each_commit_of_one_read_goes_on_from_the_one_before(shop: Path) -> None:
    """Its number, the table and the ledger are as that one has left them."""
    late = "ALTER TABLE orders ADD COLUMN more INTEGER; INSERT INTO orders VALUES (7, 2, 'late', 5)"
    report = hr.run(pipeline(shop, source=following(shop, lambda: source(shop, late))))
    assert [c.number for c in report.commits] == [1, 2]
    assert rows(shop, "SELECT count(*), sum(more) FROM shop.orders") == [(4, 5)]


def test_a_read_that_dies_between_two_commits_keeps_the_first_and_loses_and_doubles_nothing(shop: Path) -> None:
    def dies() -> None:
        source(shop, "INSERT INTO orders VALUES (7, 2, 'late')")
        raise RejectedError("no more of it")

    parts = {
        "tables": {"main.orders": hr.Table(), "main.ref_a": hr.Table()},
        "defaults": hr.Table(cursor="updated", write=hr.Append()),
    }
    with pytest.raises(RejectedError):
        hr.run(pipeline(shop, source=following(shop, dies), **parts))
    assert rows(shop, "SELECT count(*) FROM shop.orders") == [(3,)]
    late = "INSERT INTO orders VALUES (8, 3, 'later')"
    report = hr.run(pipeline(shop, source=following(shop, lambda: source(shop, late)), **parts))
    assert [c.number for c in report.commits] == [2, 3]
    assert rows(shop, "SELECT count(*), count(DISTINCT id) FROM shop.orders") == [(5, 5)]
    assert rows(shop, "SELECT count(*) FROM shop.ref_a") == [(3,)]


def test_a_full_refresh_in_several_commits_empties_each_table_once(shop: Path) -> None:
    """And what is missing from a later one is not gone from the source."""
    source(shop, "UPDATE orders SET updated = id")
    tables = {"main.orders": hr.Table(write=hr.History(keys=("id",), close_absent=True)), "main.ref_a": hr.Table()}
    hr.run(pipeline(shop, tables=tables))
    source(shop, "DELETE FROM ref_a")
    late = "INSERT INTO orders VALUES (7, 7, 'late'); INSERT INTO ref_a VALUES (9, 9, 'new')"
    one = pipeline(shop, source=following(shop, lambda: source(shop, late)), tables=tables)
    report = hr.run(one, full_refresh=True, discard_history=True)
    assert [c.number for c in report.commits] == [2, 3]
    assert rows(shop, "SELECT id FROM shop.orders WHERE valid_to IS NULL ORDER BY 1") == [(0,), (1,), (2,), (7,)]
    assert rows(shop, "SELECT id FROM shop.ref_a") == [(9,)]

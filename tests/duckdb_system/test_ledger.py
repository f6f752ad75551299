"""The ledger and the rows move together, or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import duckdb
import polars as pl
import pytest
from commits import commit, load, read, rejects, rows

import headrace as hr
from headrace import disk
from headrace.errors import ConfigError, ConflictError, DataError, RejectedError, UnavailableError
from headrace.flow import FileStamp, Range, Seal, Snapshot, Superseded
from headrace.stream import scan_batches
from headrace.systems.duckdb import DuckDBDestination, DuckDBSource, connection, quarantine
from headrace.writes import Append, History, Merge, Partitions, Recompute, Replace


def left_over(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {"w.duckdb"}


def sql(target: DuckDBDestination, *statements: str) -> None:
    with duckdb.connect(target._file) as connection:
        for statement in statements:
            connection.execute(statement)


def test_inspecting_a_missing_file_creates_nothing(target, tmp_path):
    snapshot = target.inspect("p")
    assert (snapshot.number, snapshot.schema, snapshot.scan, snapshot.owned) == (0, None, None, True)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_made_by_the_first_commit_and_by_nothing_else(tmp_path):
    target = DuckDBDestination(path="new/w.duckdb", table="t", base=tmp_path)
    assert target.inspect("p").number == 0
    target.record({"pipeline": "p", "status": "failed"})
    assert list(tmp_path.iterdir()) == []
    load(target, {"a": [1]})
    assert rows(target) == [{"a": 1}]


def test_a_commit_is_found_again_by_the_next_run(target):
    stamps = (FileStamp(name="a.csv", size=1, version="1"), FileStamp(name="b.csv", size=2, version="2"))
    load(target, {"a": [1]}, positions={"s": {"n": 1}, "r": {"n": 9}}, files={"s": stamps}, identities={"s": "me"})
    load(target, {"a": [2]}, positions={"s": {"n": 2}}, files={"s": stamps[:1]}, record={"x": 1}, id="second")
    snapshot = target.inspect("p")
    assert (snapshot.number, snapshot.head, snapshot.write) == (2, "second", "append")
    assert snapshot.positions == {"s": {"n": 2}, "r": {"n": 9}}
    assert snapshot.identities == {"s": "me"}
    assert snapshot.seen("s", None) == {s.name: s for s in stamps}
    assert snapshot.seen("s", ["b.csv", "c.csv"]) == {"b.csv": stamps[1]}
    assert snapshot.newest("a") == "2"
    load(target, {"a": [3]}, files={"s": stamps[1:]}, forget_files=True)
    assert set(target.inspect("p").seen("s", None)) == {"b.csv"}
    assert (target.inspect("other").number, target.inspect("other").write) == (3, None)


def test_a_lost_answer_does_not_double_rows(target):
    change = commit(target, {"a": [1]}, record={"n": 1})
    first, second = target.apply(change), target.apply(change)
    assert (first.repeated, second.repeated) == (False, True)
    assert replace(second, repeated=False) == first
    assert rows(target) == [{"a": 1}]


def test_a_stale_expected_number_is_a_conflict_and_changes_nothing(target):
    stale = commit(target, {"a": [1]})
    load(target, {"a": [2]})
    with pytest.raises(ConflictError, match="commit 1"):
        target.apply(stale)
    assert rows(target) == [{"a": 2}]


class BrokenError(Exception):
    pass


def broken_frame() -> pl.LazyFrame:
    def batches():
        yield pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})
        raise BrokenError("as it was")

    return scan_batches(batches, {"a": pl.Int64, "b": pl.String})


@pytest.mark.parametrize(
    "write",
    [Append(), Replace(), Merge(keys=("a",)), Partitions(by=("a",)), Recompute(by=("a",))],
    ids=lambda w: w.type,
)
def test_an_error_in_the_stream_comes_out_as_it_was_and_leaves_nothing(target, tmp_path, write):
    load(target, {"a": [1], "b": ["old"]})
    groups = pl.DataFrame({"a": [1]}) if write.type == "recompute" else None
    with pytest.raises(BrokenError, match="as it was"):
        load(target, broken_frame(), write, groups=groups)
    assert rows(target) == [{"a": 1, "b": "old"}]
    assert (target.inspect("p").number, left_over(tmp_path)) == (1, set())


def test_an_error_in_seal_comes_out_as_it_was_and_leaves_nothing(target):
    def seal() -> Seal:
        raise BrokenError

    with pytest.raises(BrokenError):
        load(target, {"a": [1], "new": [2]}, seal=seal)
    assert target.inspect("p").schema is None


def test_a_users_exception_is_not_taken_for_its_cause(target):
    def seal() -> Seal:
        try:
            raise UnavailableError("earlier")  # noqa: TRY301  # as a user would
        except UnavailableError as error:
            raise BrokenError("itself") from error

    with pytest.raises(BrokenError, match="itself"):
        load(target, {"a": [1]}, seal=seal)


def test_a_headrace_error_in_the_stream_keeps_its_class(target):
    def batches():
        raise UnavailableError("the file is still changing")
        yield

    with pytest.raises(UnavailableError, match="still changing"):
        load(target, scan_batches(batches, {"a": pl.Int64}))


def test_a_table_that_headrace_did_not_make_is_refused_and_can_be_adopted(target):
    sql(target, "CREATE TABLE t (a BIGINT PRIMARY KEY, b VARCHAR DEFAULT 'x')", "INSERT INTO t VALUES (1, 'mine')")
    assert target.inspect("p").owned is False
    with pytest.raises(ConfigError, match="did not make it") as refused:
        load(target, {"a": [2], "b": ["new"]})
    assert "adopt" in refused.value.hint
    adopted = replace(target, adopt=True)
    load(adopted, {"a": [1, 2], "b": ["updated", "new"]}, Merge(keys=("a",)))
    assert rows(target) == [{"a": 1, "b": "updated"}, {"a": 2, "b": "new"}]
    assert target.inspect("p").owned is True
    load(target, {"a": [5], "b": [None], "c": [True]}, Replace())
    sql(target, "INSERT INTO t (a) VALUES (6)")
    assert rows(target)[1] == {"a": 6, "b": "x", "c": None}, "what hangs on the table is still there"


def test_what_people_have_said_about_a_table_outlives_a_replace(target):
    load(target, {"a": [1]})
    sql(target, "COMMENT ON TABLE t IS 'ours'")
    load(target, {"a": [2], "b": [2]}, Replace())
    assert rows(target) == [{"a": 2, "b": 2}]
    with duckdb.connect(target._file) as connection:
        comment = connection.execute("SELECT comment FROM duckdb_tables() WHERE table_name = 't'").fetchall()
    assert comment == [("ours",)]


def test_another_pipelines_table_is_refused_and_can_be_shared(target):
    load(target, {"a": [1]}, pipeline="first")
    with pytest.raises(ConfigError, match="'first'"):
        load(target, {"a": [2]}, pipeline="second")
    load(replace(target, adopt=True), {"a": [2]}, pipeline="second")
    load(target, {"a": [3]}, pipeline="second")
    load(target, {"a": [4]}, pipeline="first")
    assert [r["a"] for r in rows(target)] == [1, 2, 3, 4]


def test_a_column_of_an_adopted_table_that_would_round_is_refused(target):
    sql(target, 'CREATE TABLE t ("at" TIME)')
    adopted = replace(target, adopt=True)
    load(adopted, pl.DataFrame({"at": pl.Series([1_000], dtype=pl.Int64).cast(pl.Time)}))
    with pytest.raises(DataError):
        load(adopted, pl.DataFrame({"at": pl.Series([1_001], dtype=pl.Int64).cast(pl.Time)}))


def test_a_table_that_is_gone_is_not_quietly_begun_anew(target):
    load(target, {"a": [1]})
    sql(target, "DROP TABLE t")
    with pytest.raises(ConfigError, match="is gone") as gone:
        load(target, {"a": [2]})
    assert "--full-refresh" in gone.value.hint
    load(target, {"a": [1, 2]}, complete=True)
    assert len(rows(target)) == 2


def test_a_view_of_that_name_is_refused(target):
    sql(target, "CREATE VIEW t AS SELECT 1 AS a")
    with pytest.raises(ConfigError, match="is a view"):
        target.inspect("p")


def test_a_table_in_a_schema_of_its_own(tmp_path):
    target = DuckDBDestination(path="w.duckdb", table='Sales."my.orders"', base=tmp_path)
    load(target, {"a": [1]})
    load(replace(target, table='sales."MY.orders"'), {"a": [2]}, Merge(keys=("a",)))
    assert [r["a"] for r in rows(target)] == [1, 2]
    for name in ("_headrace.t", "a.b.c", "", "a.", '"'):
        with pytest.raises(ConfigError):
            replace(target, table=name).inspect("p")


@pytest.mark.parametrize(
    "write",
    [
        Append(),
        Replace(),
        Replace(keys=("a",)),
        Merge(keys=("a",), latest_by=("b",)),
        History(keys=("a",)),
        Partitions(by=("a",)),
        Recompute(by=("a",)),
    ],
    ids=lambda write: f"{write.type}-{getattr(write, 'keys', '')}",
)
def test_a_schema_may_have_the_name_of_the_file(tmp_path, write):
    target = DuckDBDestination(path="Shop.duckdb", table="shop.orders", base=tmp_path)
    elsewhere = DuckDBDestination(path="w.duckdb", table="shop.orders", base=tmp_path)
    for place in (target, elsewhere):
        for step in ({"a": [1, 2], "b": [1, 1]}, {"a": [2, 3], "b": [2, 2], "c": ["new", None]}):
            groups = pl.DataFrame({"a": step["a"]}) if isinstance(write, Recompute) else None
            load(place, step, write, groups=groups)
    told = [read(place).drop("valid_from", "valid_to", strict=False).sort(pl.all()) for place in (target, elsewhere)]
    assert told[0].rows() == told[1].rows()
    load(replace(target, table="shop.another"), {"a": [1]}, pipeline="another")
    (batch,) = DuckDBSource(path="Shop.duckdb", table="shop.orders", base=tmp_path).batches(Range(), Snapshot(), "s")
    assert batch.frame.lazy.collect().height == told[0].height > 0
    with pytest.raises(ConfigError, match="headrace's own schema"):
        DuckDBDestination(path="_headrace.db", table="orders")


def test_tables_that_are_two_to_duckdb_are_two_to_the_ledger(target):
    """Case is ASCII's alone (É is not é, and ß not ss), and a point in a name is no point between names."""
    names = ("é", "É", "straße", "strasse", "İ", '"a.b".c', 'a."b.c"')
    for n, name in enumerate(names):
        load(replace(target, table=name), {"a": [n], "é": [1], "É": [2]}, pipeline=name)
    assert [read(replace(target, table=name), name)["a"].to_list() for name in names] == [[n] for n in range(7)]


def test_a_ledger_of_a_newer_version_is_refused_by_name(target):
    load(target, {"a": [1]})
    sql(target, "UPDATE _headrace.ledger SET version = 99")
    for call in (lambda: target.inspect("p"), lambda: target.record({"pipeline": "p"})):
        with pytest.raises(ConfigError, match="version 99"):
            call()


def test_replace_is_refused_when_it_would_empty_the_table(target):
    load(target, {"a": [1]})
    empty = pl.DataFrame(schema={"a": pl.Int64})
    with pytest.raises(DataError, match="no rows"):
        load(target, empty, Replace())
    assert rows(target) == [{"a": 1}]
    receipt = load(target, empty, Replace(allow_empty=True))
    assert (rows(target), receipt.counts["deleted"]) == ([], 1)


def test_partitions_replaces_those_the_batch_touches_null_too(target):
    load(target, {"day": [1, 1, 2, None], "v": [1, 2, 3, 4]})
    receipt = load(target, {"v": [9, 8], "day": [1, None]}, Partitions(by=("day",)))
    assert sorted(rows(target), key=lambda r: r["v"]) == [
        {"day": 2, "v": 3}, {"day": None, "v": 8}, {"day": 1, "v": 9},
    ]  # fmt: skip
    assert (receipt.counts["deleted"], receipt.counts["inserted"]) == (3, 2)


def test_recompute_replaces_the_groups_and_nothing_else(target):
    load(target, {"g": ["a", "a", None, "c"], "v": [1, 2, 3, 4]})
    groups = pl.DataFrame({"g": ["a", None, "new"]})
    load(target, {"g": [None, "new", "c"], "v": [30, 50, 99]}, Recompute(by=("g",)), groups=groups)
    assert sorted((r["v"], r["g"]) for r in rows(target)) == [(4, "c"), (30, None), (50, "new")]


def test_a_fresh_change_begins_empty_and_may_change_types(target):
    write = Merge(keys=("a",), latest_by=("at",), delete_when="gone")
    load(target, {"a": [1], "at": [9], "gone": [True]}, write)
    nothing_there = DuckDBDestination(path="none", table="t", base=target.base)
    first = commit(nothing_there, {"a": ["1"], "at": [1], "gone": [False]}, write)
    target.apply(replace(first, changes=(replace(first.changes[0], fresh=True),), expected=1))
    assert rows(target) == [{"a": "1", "at": 1, "gone": False}]


def refresh(target, rows: dict, write=None) -> None:
    """As a full refresh does it: the commit of an empty target, marked as fresh."""
    nothing_there = DuckDBDestination(path="none", table="t", base=target.base)
    first = commit(nothing_there, rows, write or Merge(keys=("id",)))
    number = target.inspect("p").number
    target.apply(replace(first, changes=(replace(first.changes[0], fresh=True),), expected=number))


def test_a_full_refresh_leaves_an_adopted_table_its_constraints_indexes_and_columns(target):
    """It was dropped and made anew: nothing was left of what its owner had said."""
    made = "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT NOT NULL, note VARCHAR DEFAULT 'n')"
    sql(target, made, "CREATE INDEX by_v ON t (v)", "INSERT INTO t VALUES (9, 9, 'mine')")
    adopted = replace(target, adopt=True)
    refresh(adopted, {"id": [1], "v": [5]})
    refresh(adopted, {"id": [1], "v": [6], "more": ["x"]})
    assert rows(adopted) == [{"id": 1, "v": 6, "note": "n", "more": "x"}]
    with duckdb.connect(target._file) as connection:
        ((definition, indexes),) = connection.sql(
            "SELECT sql, index_count FROM duckdb_tables() WHERE table_name = 't'"
        ).fetchall()
    assert (indexes > 0, "PRIMARY KEY" in definition, "NOT NULL" in definition) == (True, True, True)


def test_a_full_refresh_changes_the_columns_of_an_adopted_table_where_it_can_and_says_where_not(target):
    sql(target, "CREATE TABLE t (id DOUBLE PRIMARY KEY, v VARCHAR, w BIGINT, note VARCHAR DEFAULT 'n')")
    adopted = replace(target, adopt=True)
    refresh(adopted, {"id": pl.Series([1], dtype=pl.Int32), "v": [1], "w": [2]})
    refresh(adopted, {"id": pl.Series([1], dtype=pl.Int32), "v": [1]})
    assert rows(adopted) == [{"id": 1.0, "v": 1, "note": "n"}]  # what only rows had brought goes with them
    with pytest.raises(ConfigError, match=r"cannot change shape: .*'id'") as caught:
        refresh(adopted, {"id": ["one"], "v": [1]})
    assert caught.value.hint
    assert rows(adopted) == [{"id": 1.0, "v": 1, "note": "n"}]


def test_runs_and_commits_are_told_newest_first(target):
    target.record({"pipeline": "p", "run": "r1", "status": "failed"})
    load(target, {"a": [1]}, record={"rows": 1})
    target.record({"pipeline": "p", "run": "r2", "status": "loaded"})
    target.record({"pipeline": "other", "run": "r3", "status": "loaded"})
    told = target.history("p")
    assert [(e["kind"], e.get("run")) for e in told] == [("run", "r2"), ("commit", "run-1"), ("run", "r1")]
    assert told[1]["record"] == {"rows": 1}


def test_rejects_enter_and_leave_with_commits(target):
    def ids() -> list[str]:
        return sorted(target.rejects("p")["id"])

    merge = Merge(keys=("k", "d"))
    old = [
        {"id": "1", "key": '["7", "2024-01-01"]'},
        {"id": "2", "key": '[null, "x"]', "file": "a.csv", "line": 3},
        {"id": "3", "file": "b.csv", "rules": ["r1", "r2"], "source": "s"},
        {"id": "4"},
    ]
    row = pl.DataFrame({"k": [1], "d": [None], "v": ["a"]}).with_columns(d=pl.date(2024, 1, 1))
    receipt = load(target, row, merge, rejects=rejects(*old))
    assert (ids(), receipt.counts["rejected"]) == (["1", "2", "3", "4"], 4)
    assert target.rejects("p").filter(id="3")["rules"].to_list() == [["r1", "r2"]]
    load(
        target,
        row.with_columns(k=pl.lit(7)),
        merge,
        rejects=rejects(keys=("k", "d"), superseded=(Superseded(source="s", files=("b.csv",)),)),
    )
    assert ids() == ["2", "4"]
    load(target, None, rejects=rejects({"id": "5", "source": "s"}, resolved=("2",)))
    load(target, None, rejects=rejects({"id": "4"}))
    assert ids() == ["4", "5"]
    load(target, None, rejects=rejects(superseded=(Superseded(source="s"),)))
    assert ids() == ["4"]
    load(target, None, rejects=rejects({"id": "6"}, replace_all=True))
    assert ids() == ["6"]
    assert target.rejects("other").is_empty()


def test_good_keys_are_compared_as_their_exact_texts_some_at_a_time(target, monkeypatch):
    monkeypatch.setattr(quarantine, "_PIECE_ROWS", 2)
    held = [{"id": str(n), "key": json.dumps([text])} for n, text in enumerate(("0.0", "-0.0", "1.0", "2.0"))]
    load(target, {"k": [9.0]}, Merge(keys=("k",)), rejects=rejects(*held))
    load(target, {"k": [5.0, 0.0, 4.0, -0.0, 2.0]}, Merge(keys=("k",)), rejects=rejects(keys=("k",)))
    assert target.rejects("p")["key"].to_list() == ['["1.0"]']


@pytest.mark.parametrize("write", [Append(), Replace(), Partitions(by=("a",))], ids=lambda w: w.type)
def test_a_good_row_of_the_same_key_supersedes_a_reject_in_every_write(target, write):
    load(target, {"a": [1]}, rejects=rejects({"id": "1", "key": '["5"]'}, {"id": "2", "key": '["6"]'}))
    load(target, {"a": [5]}, write, rejects=rejects(keys=("a",)))
    assert target.rejects("p")["id"].to_list() == ["2"]


def test_a_scan_sees_whole_commits_and_can_be_collected_again(target):
    load(target, {"a": [1, 2], "b": ["x", None]})
    scan = target.inspect("p").scan()
    assert scan.filter(pl.col("b").is_null()).select("a").collect().to_dicts() == [{"a": 2}]
    load(target, {"a": [3], "b": ["y"], "later": [1]})
    assert scan.select(pl.len()).collect().item() == 3
    assert scan.collect().columns == ["a", "b"]
    assert scan.head(1).collect().height == 1


def test_the_target_can_be_read_while_it_is_being_written(target):
    load(target, {"a": [1, 2]})
    scan = target.inspect("p").scan()
    load(target, scan.with_columns(a=pl.col("a") + 10))
    assert [r["a"] for r in rows(target)] == [1, 2, 11, 12]


def test_threads_of_one_process_may_write_one_file(tmp_path):
    targets = [DuckDBDestination(path="w.duckdb", table=f"t{i}", base=tmp_path) for i in range(4)]
    failed = []

    def work(target: DuckDBDestination) -> None:
        try:
            for n in range(2):
                load(target, {"a": [n]})
                read(target)
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in targets]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert failed == []
    assert [len(rows(t)) for t in targets] == [2] * 4


def test_a_file_that_another_process_has_open_is_unavailable_and_names_it(target):
    load(target, {"a": [1]})
    script = (
        f"import duckdb, sys; c = duckdb.connect({str(target._file)!r}); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(UnavailableError, match=f"PID {other.pid}") as busy:
            target.inspect("p")
        assert busy.value.details == {"pid": other.pid}
        other.communicate(b"")
    assert target.inspect("p").number == 1


def test_a_run_opens_the_file_once_to_look_and_once_to_write_and_leaves_it_closed(target, tmp_path, monkeypatch):
    opened, open_file = [], connection._open
    monkeypatch.setattr(connection, "_open", lambda real, **how: opened.append(how) or open_file(real, **how))
    pipeline = hr.Pipeline(name="p", source=hr.FileSource(path=str(tmp_path / "*.csv")), destination=target)
    for name in ("1.csv", "2.csv"):
        (tmp_path / name).write_text("a\n1\n")
        opened.clear()
        hr.run(pipeline)
        duckdb.connect(target._file, read_only=True).close()  # refused while this process has it open to write
    assert opened == [{"writable": False}, {"writable": True}]


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_commit_leaves_open_is_closed_with_the_run_or_by_its_failure(target, fails):
    with target.hold("p", SimpleNamespace(run="r")):
        load(target, {"a": [1]})
        assert connection._instances
        if fails:
            with pytest.raises(ConflictError):
                target.apply(replace(commit(target, {"a": [2]}, Append()), expected=7))
            assert not connection._instances
    assert not connection._instances
    load(target, {"a": [2]})
    assert not connection._instances


def test_a_connection_of_the_users_own_in_this_process_does_not_matter_for_reading(target):
    load(target, {"a": [1]})
    with duckdb.connect(target._file):
        assert len(rows(target)) == 1
        load(target, {"a": [2]})
    with duckdb.connect(target._file, read_only=True):
        assert len(rows(target)) == 2
        with pytest.raises(UnavailableError, match="other settings"):
            load(target, {"a": [2]})


def test_a_commit_that_is_in_the_log_alone_has_a_log_whose_name_lasts(target, tmp_path, monkeypatch):
    load(target, {"a": [1]})
    with duckdb.connect(tmp_path / "w.duckdb"):  # so that nothing is moved into the file
        synced = []
        monkeypatch.setattr(disk, "sync_folder", lambda folder: synced.append((folder / "w.duckdb.wal").exists()))
        load(target, {"a": [2]})
    assert synced == [True]


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path):
    path = tmp_path / "w.duckdb"
    path.write_text("mine")
    target = DuckDBDestination(path="w.duckdb", table="t", base=tmp_path)
    for call in (lambda: target.inspect("p"), lambda: target.record({"pipeline": "p"})):
        with pytest.raises(ConfigError, match="not a DuckDB database"):
            call()
    assert path.read_text() == "mine"


@pytest.mark.parametrize("size", [0, 4096, 8192])
def test_a_file_whose_maker_died_before_it_was_a_database_is_begun_anew(size, target, tmp_path):
    duckdb.connect(tmp_path / "whole.duckdb").close()
    (tmp_path / "w.duckdb").write_bytes((tmp_path / "whole.duckdb").read_bytes()[:size])
    assert target.inspect("p").number == 0
    assert target.history("p") == []
    assert target.rejects("p").height == 0
    load(target, {"a": [1]})
    assert rows(target) == [{"a": 1}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a Linux device")
def test_a_disk_that_cannot_be_written_is_rejected(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(RejectedError):
        DuckDBDestination(path="w.duckdb", table="t", base=tmp_path).record({"pipeline": "p"})


KILLED = """
import sys, os, signal
sys.path.insert(0, {tests!r})
import polars as pl
from commits import load
from headrace.stream import scan_batches
from headrace.systems.duckdb import DuckDBDestination
from headrace.writes import Merge
from pathlib import Path
target = DuckDBDestination(path="w.duckdb", table="t", base=Path({folder!r}))
def batches():
    for n in range(40):
        if {when!r} == "stream" and n == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        yield pl.DataFrame({{"a": range(n * 20_000, n * 20_000 + 20_000), "v": ["x" * 50] * 20_000}})
def seal():
    os.kill(os.getpid(), signal.SIGKILL)
load(target, scan_batches(batches, {{"a": pl.Int64, "v": pl.String}}), Merge(keys=("a",)), seal=seal)
"""


@pytest.mark.parametrize("when", ["stream", "seal"])
def test_a_run_that_is_killed_leaves_the_target_as_it_was(target, tmp_path, when):
    load(target, {"a": [1], "v": ["old"]})
    tests = str(Path(__file__).parent)
    script = KILLED.format(tests=tests, folder=str(tmp_path), when=when)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    killed = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert rows(target) == [{"a": 1, "v": "old"}]
    load(target, {"a": [2], "v": ["new"]})
    assert [r["a"] for r in rows(target)] == [1, 2]
    assert left_over(tmp_path) == set()

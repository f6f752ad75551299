"""What readers and rivals see: whole commits, by scan_table; at worst one commit arriving, by glob."""

# ruff: noqa: PTH208  # names alone are compared
from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
import types
from pathlib import Path

import polars as pl
import pytest
from loads import commit, load

from headrace import disk
from headrace.errors import ConfigError, ConflictError, DataError, HeadraceError, RejectedError, UnavailableError
from headrace.flow import Seal
from headrace.journal import settle
from headrace.stream import FrameStream, scan_batches
from headrace.systems.parquet import ParquetDestination, scan_table
from headrace.writes import Append, Merge, Partitions, Replace


@pytest.fixture
def table(tmp_path: Path) -> ParquetDestination:
    return ParquetDestination(path="t", base=tmp_path)


def _visible(folder: Path) -> int:
    files = list(folder.rglob("*.parquet"))
    return sum(pl.read_parquet(file, glob=False).height for file in files)


def test_a_frame_stays_at_its_commit_while_the_table_is_replaced(table: ParquetDestination, tmp_path: Path) -> None:
    load(table, pl.DataFrame({"v": [1, 2]}))
    frame = scan_table(tmp_path / "t")
    load(table, pl.DataFrame({"v": [3]}), Replace())
    load(table, pl.DataFrame({"v": [4]}), Replace())
    assert frame.collect()["v"].to_list() == [1, 2]
    assert frame.collect()["v"].to_list() == [1, 2]
    assert scan_table(tmp_path / "t").collect()["v"].to_list() == [4]
    assert _visible(tmp_path / "t") == 1
    del frame
    load(table, pl.DataFrame({"v": [5]}), Replace())
    assert list((tmp_path / "t" / "_headrace" / "retired").iterdir()) == []


def test_a_file_that_moves_while_it_is_read_is_found_again(
    table: ParquetDestination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(table, pl.DataFrame({"v": [1, 2]}))
    frame = scan_table(tmp_path / "t")
    real = pl.scan_parquet

    def scan(*args: object, **kwargs: object) -> pl.LazyFrame:
        found = real(*args, **kwargs)  # type: ignore[arg-type]
        monkeypatch.undo()
        load(table, pl.DataFrame({"v": [3]}), Replace())
        return found

    monkeypatch.setattr(pl, "scan_parquet", scan)
    assert frame.collect()["v"].to_list() == [1, 2]


def test_a_file_removed_by_hand_is_said(table: ParquetDestination, tmp_path: Path) -> None:
    load(table, pl.DataFrame({"v": [1, 2]}))
    for file in (tmp_path / "t").glob("*.parquet"):
        file.unlink()
    with pytest.raises(UnavailableError, match="are gone"):
        scan_table(tmp_path / "t").collect()


def test_readers_during_replaces_see_whole_commits(table: ParquetDestination, tmp_path: Path) -> None:
    load(table, pl.DataFrame({"v": [0] * 10}))
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            values = scan_table(tmp_path / "t").collect()["v"].to_list()
            if len(values) != 10 or len(set(values)) != 1:
                wrong.append(values)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for n in range(1, 15):
            load(table, pl.DataFrame({"v": [n] * 10}), Replace())
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_glob_never_shows_rows_that_are_not_committed(table: ParquetDestination, tmp_path: Path) -> None:
    load(table, pl.DataFrame({"v": [1]}))
    seen: list[int] = []

    def batches():
        for n in range(3):
            yield pl.DataFrame({"v": [n]})
            seen.append(_visible(tmp_path / "t"))
        raise KeyError("mine")

    rows = scan_batches(batches, {"v": pl.Int64()})
    with pytest.raises(KeyError, match="mine"):
        load(table, rows, rows=lambda: FrameStream(rows))
    assert set(seen) == {1}
    assert _visible(tmp_path / "t") == 1
    assert os.listdir(tmp_path / "t" / "_headrace" / "staged") == []


def test_a_commit_is_read_before_its_files_have_their_places(
    table: ParquetDestination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(table, pl.DataFrame({"v": [1]}))
    monkeypatch.setattr(settle, "_publish", lambda *_: disk.sync_folder(tmp_path / "gone"))
    receipt = load(table, pl.DataFrame({"v": [2]}), Replace())
    monkeypatch.undo()
    assert receipt.number == 2
    assert scan_table(tmp_path / "t").collect()["v"].to_list() == [2]
    assert [pl.read_parquet(f)["v"].to_list() for f in (tmp_path / "t").glob("*.parquet")] == [[1]]
    with table.hold("p", type("Run", (), {"run": "next"})()):  # the next run finishes it
        assert [pl.read_parquet(f)["v"].to_list() for f in (tmp_path / "t").glob("*.parquet")] == [[2]]


def _race(folder: str, n: int, ready: object, out: object) -> None:
    table = ParquetDestination(path=folder)
    mine = commit(table, pl.DataFrame({"v": [n]}), expected=1)
    ready.wait()  # type: ignore[attr-defined]
    try:
        out.put(("won", table.apply(mine).number))  # type: ignore[attr-defined]
    except ConflictError:
        out.put(("lost", 0))  # type: ignore[attr-defined]
    except HeadraceError as error:
        out.put((repr(error), 0))  # type: ignore[attr-defined]


def test_of_racing_processes_one_wins_and_nothing_of_the_others_is_left(
    table: ParquetDestination, tmp_path: Path
) -> None:
    load(table, pl.DataFrame({"v": [0]}))
    context = multiprocessing.get_context("spawn")
    ready, out = context.Barrier(3), context.Queue()
    racers = [context.Process(target=_race, args=(str(tmp_path / "t"), n, ready, out)) for n in (1, 2, 3)]
    for racer in racers:
        racer.start()
    answers = sorted(out.get(timeout=120) for _ in racers)
    for racer in racers:
        racer.join()
    assert answers == [("lost", 0), ("lost", 0), ("won", 2)]
    assert scan_table(tmp_path / "t").collect().height == 2
    assert _visible(tmp_path / "t") == 2
    assert os.listdir(tmp_path / "t" / "_headrace" / "staged") == []


def test_a_rival_who_commits_in_the_midst_wins(table: ParquetDestination, tmp_path: Path) -> None:
    load(table, pl.DataFrame({"v": [0]}))

    def rival() -> Seal:
        load(table, pl.DataFrame({"v": [1]}), expected=1)
        return Seal(positions={}, files={}, record={})

    with pytest.raises(ConflictError):
        load(table, pl.DataFrame({"v": [2]}), seal=rival)
    assert scan_table(tmp_path / "t").collect()["v"].to_list() == [0, 1]
    assert os.listdir(tmp_path / "t" / "_headrace" / "staged") == []


def test_who_commits_while_another_one_clears_up_is_not_taken_for_dead(
    table: ParquetDestination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(table, pl.DataFrame({"v": [1]}))
    journal = table._journal
    before = journal.load()
    monkeypatch.setattr(settle, "_publish", lambda *_: disk.sync_folder(tmp_path / "gone"))
    load(table, pl.DataFrame({"v": [2]}))  # committed, its lock is free, its files not yet in their places
    monkeypatch.undo()
    monkeypatch.setattr(journal, "load", lambda: before)
    settle.finish(journal)  # whoever looked just before the commit
    assert scan_table(tmp_path / "t").collect()["v"].to_list() == [1, 2]


def test_a_rival_still_writing_does_not_keep_the_winners_files_from_their_places(
    table: ParquetDestination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(table, pl.DataFrame({"v": [0]}))
    tokens = iter(["00000000", "11111111"])  # the rival's folder is the first that the winner comes by
    monkeypatch.setattr("headrace.journal.log.secrets", types.SimpleNamespace(token_hex=lambda _: next(tokens)))
    staged = tmp_path / "t" / "_headrace" / "staged"
    cleared, real = [], disk.remove_tree

    def clear(folder: Path) -> None:
        cleared.append(folder.name)
        real(folder)

    def rival() -> Seal:
        monkeypatch.setattr(disk, "remove_tree", clear)
        load(table, pl.DataFrame({"v": [1]}), expected=1)
        assert cleared == ["0000000002-11111111"]
        assert os.listdir(staged) == ["0000000002-00000000"]
        return Seal(positions={}, files={}, record={})

    with pytest.raises(ConflictError):
        load(table, pl.DataFrame({"v": [2]}), seal=rival)
    assert _visible(tmp_path / "t") == 2
    assert os.listdir(staged) == []


def test_a_folder_of_somebody_elses_files_is_refused(table: ParquetDestination, tmp_path: Path) -> None:
    (tmp_path / "t" / "deep").mkdir(parents=True)
    pl.DataFrame({"v": [1]}).write_parquet(tmp_path / "t" / "deep" / "theirs.parquet")
    assert not table.inspect("p").owned
    with pytest.raises(ConfigError, match="did not write") as caught:
        load(table, pl.DataFrame({"v": [1]}))
    assert caught.value.hint
    with pytest.raises(ConfigError, match="did not write"), table.hold("p", type("Run", (), {"run": "r"})()):
        pytest.fail("held")
    assert os.listdir(tmp_path / "t") == ["deep"]


def test_a_second_pipeline_needs_adopt(table: ParquetDestination, tmp_path: Path) -> None:
    load(table, pl.DataFrame({"v": [1]}))
    with pytest.raises(ConfigError, match="the table of pipeline 'p'"):
        load(table, pl.DataFrame({"v": [2]}), pipeline="other")
    both = ParquetDestination(path="t", base=tmp_path, adopt=True)
    load(both, pl.DataFrame({"v": [2]}), pipeline="other")
    assert scan_table(tmp_path / "t").collect()["v"].to_list() == [1, 2]
    assert (both.inspect("p").number, both.inspect("other").number) == (2, 2)


def test_writes_that_need_a_table_format_are_refused_with_what_to_use(table: ParquetDestination) -> None:
    assert all("duckdb" in (table.supports(write) or "") for write in ("merge", "history", "recompute"))
    assert [table.supports(write) for write in ("append", "replace", "partitions")] == [None] * 3
    with pytest.raises(ConfigError):
        load(table, pl.DataFrame({"v": [1]}), Merge(keys=("v",)))


def test_an_empty_replace_is_refused_unless_it_is_allowed(table: ParquetDestination, tmp_path: Path) -> None:
    load(table, pl.DataFrame({"v": [1]}))
    with pytest.raises(DataError, match="no rows"):
        load(table, pl.DataFrame({"v": [1]}).clear(), Replace())
    assert scan_table(tmp_path / "t").collect().height == 1
    load(table, pl.DataFrame({"v": [1]}).clear(), Replace(allow_empty=True))
    assert scan_table(tmp_path / "t").collect().schema == {"v": pl.Int64}
    assert _visible(tmp_path / "t") == 0


def test_where_there_is_no_table_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="headrace keeps no table here"):
        scan_table(tmp_path)


def test_many_commits_are_read_from_few_files(table: ParquetDestination, tmp_path: Path) -> None:
    for n in range(70):
        load(table, pl.DataFrame({"v": [n]}), Append() if n % 10 else Replace())
    log = tmp_path / "t" / "_headrace"
    assert sorted(os.listdir(log / "checkpoints")) == ["0000000032.json", "0000000064.json"]
    for n in range(1, 60):
        (log / f"{n:010}.json").write_text("not read any more")
    assert scan_table(tmp_path / "t").collect()["v"].to_list() == list(range(60, 70))
    assert table.inspect("p").number == 70


def test_a_log_with_a_hole_is_not_guessed_at(table: ParquetDestination, tmp_path: Path) -> None:
    for n in range(3):
        load(table, pl.DataFrame({"v": [n]}))
    (tmp_path / "t" / "_headrace" / "0000000002.json").unlink()
    with pytest.raises(RejectedError, match="commit 2 is missing"):
        table.inspect("p")


@pytest.fixture
def small_disk(tmp_path: Path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("write", [Append(), Replace(), Partitions(by=("k",))], ids=lambda write: write.type)
def test_a_full_disk_is_said_and_changes_nothing(small_disk: Path, write: Append | Replace | Partitions) -> None:
    table = ParquetDestination(path="t", base=small_disk, compression="uncompressed", file_bytes="1MB")
    load(table, pl.DataFrame({"k": [1], "v": [0.5]}), write)
    many = pl.select(k=pl.int_range(500_000) % 3).with_columns(v=pl.int_range(pl.len()).sqrt())
    with pytest.raises(RejectedError, match="the disk is full") as caught:
        load(table, many, write)
    assert "make room" in caught.value.hint
    assert scan_table(small_disk / "t").collect().height == 1
    assert os.listdir(small_disk / "t" / "_headrace" / "staged") == []
    assert load(table, pl.DataFrame({"k": [2], "v": [0.5]}), write).number == 2

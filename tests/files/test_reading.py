import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

import headrace as hr
from headrace.cursor import Latest
from headrace.errors import ConfigError, DataError, RejectedError, SchemaError, UnavailableError
from headrace.flow import Range, Snapshot
from headrace.protocols import Source
from headrace.schema import REJECTS
from headrace.stream import spilling
from headrace.systems.files import FileSource
from headrace.systems.files.infer import Guesses
from headrace.systems.files.paths import File, common, find
from headrace.systems.files.scan import Reading
from headrace.systems.files.survey import survey


def listed(patterns, base=None):
    return find(patterns, base, format=None, allow_missing=False, root=common(patterns, base))


class Ledger:
    """What a destination would remember of one source."""

    def __init__(self, source):
        self.source, self.position, self.stamps = source, None, {}

    def batches(self, **words):
        snapshot = Snapshot(seen=lambda _name, _names: dict(self.stamps))
        return self.source.batches(Range(after=self.position, **words), snapshot, "in")

    def commit(self, batch):
        rows = batch.frame.lazy.collect()
        self.stamps |= {f.name: f for f in batch.files()}
        self.position = batch.position()
        return rows

    def run(self):
        (batch,) = self.batches()
        return self.commit(batch)


def write(folder, name, text, *, age=0.0):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    at = time.time() - age
    os.utime(path, (at, at))
    return path


def test_many_small_files_are_not_compared_with_each_other_nor_looked_at_one_by_one(tmp_path, monkeypatch):
    for n in range(60):
        write(tmp_path, f"{n}.csv", f"a,b\n{n},x\n")
    asked = {"equal": 0, "looks": 0}
    equal, judge = File.__eq__, Guesses._judge

    def counted(kind, what):
        def call(*args):
            asked[kind] += 1
            return what(*args)

        return call

    monkeypatch.setattr(File, "__eq__", counted("equal", equal))
    monkeypatch.setattr(Guesses, "_judge", counted("looks", judge))
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path))
    assert ledger.run().height == 60
    assert asked["equal"] < 60
    assert asked["looks"] < 3


def test_a_column_costs_the_same_in_a_wide_file(tmp_path, monkeypatch):
    widths = []
    select = pl.DataFrame.select
    monkeypatch.setattr(pl.DataFrame, "select", lambda *a, **k: widths.append(a[0].width) or select(*a, **k))
    names = [f"c{n}" for n in range(300)]
    write(tmp_path, "x.csv", "\n".join([",".join(names), ",".join(["1"] * 300), ",".join(["-"] * 300)]))
    (batch,) = Ledger(FileSource(path="x.csv", base=tmp_path, nulls=("-",))).batches()
    assert batch.frame.lazy.collect().row(0) == (1,) * 300
    assert sum(widths) < 20 * len(names)


def test_a_file_source_is_a_source():
    assert isinstance(FileSource(path="x"), Source)
    assert FileSource(path=["a", "b"]).identity() == {"type": "files", "path": ["a", "b"]}


def test_each_file_is_read_once_in_the_order_of_names(tmp_path):
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path))
    for n in (10, 9, 1):
        write(tmp_path, f"f{n}.csv", f"a\n{n}\n")
    assert ledger.run()["a"].to_list() == [1, 9, 10]
    (nothing,) = ledger.batches()
    assert nothing.news.empty
    assert nothing.frame.lazy.collect_schema().names() == ["a"]
    assert ledger.commit(nothing).is_empty()
    write(tmp_path, "f2.csv", "a\n2\n")
    assert ledger.run()["a"].to_list() == [2]
    assert ledger.position["files"] == 4


def test_a_renamed_file_is_new_and_a_deleted_one_is_nothing(tmp_path):
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path))
    write(tmp_path, "a.csv", "a\n1\n")
    path = write(tmp_path, "b.csv", "a\n2\n")
    ledger.run()
    path.rename(tmp_path / "c.csv")
    assert ledger.run()["a"].to_list() == [2]


def test_a_seen_file_that_has_changed_is_refused_or_read_again(tmp_path):
    write(tmp_path, "a.csv", "a\n1\n", age=10)
    write(tmp_path, "b.csv", "a\n2\n", age=10)
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path))
    ledger.run()
    write(tmp_path, "a.csv", "a\n3\n")
    with pytest.raises(DataError, match=r"'a\.csv' has changed"):
        ledger.run()
    ledger.source = FileSource(path="*.csv", base=tmp_path, changed="reread")
    assert ledger.run()["a"].to_list() == [3]
    assert ledger.run().is_empty()


def test_a_file_that_changes_while_it_is_read_is_unavailable(tmp_path):
    write(tmp_path, "a.csv", "a\n" + "1\n" * 1000, age=10)
    source = FileSource(path="*.csv", base=tmp_path, block=100)
    (batch,) = Ledger(source).batches()
    write(tmp_path, "a.csv", "a\n" + "2\n" * 1000)
    with pytest.raises(UnavailableError, match=r"'a\.csv' changes while it is read"):
        batch.frame.lazy.collect()
    files = listed(source.patterns, tmp_path)
    passes = Reading(source, survey(source, files, {}), files, "in")._read(None, None, None, None)
    assert next(passes)["a"][0] == 2
    write(tmp_path, "a.csv", "a\n" + "3\n" * 1001)
    with pytest.raises(UnavailableError, match=r"'a\.csv' changes while it is read"):
        list(passes)


def test_a_young_file_is_not_new_yet(tmp_path):
    write(tmp_path, "a.csv", "a\n1\n", age=600)
    write(tmp_path, "b.csv", "a\n2\n")
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path, settle="5m"))
    assert ledger.run()["a"].to_list() == [1]
    os.utime(tmp_path / "b.csv", (time.time() - 400, time.time() - 400))
    assert ledger.run()["a"].to_list() == [2]
    with pytest.raises(ConfigError, match="settle"):
        Ledger(FileSource(path="*.csv", base=tmp_path, settle="soon")).run()


def test_read_all_reads_everything_at_every_run(tmp_path):
    write(tmp_path, "a.csv", "a\n1\n")
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path, read="all"))
    for empty in (False, True):
        (batch,) = ledger.batches()
        assert ledger.commit(batch)["a"].to_list() == [1]
        assert batch.news.empty is empty
        assert batch.complete
        assert batch.position().keys() == {"version"}


def test_a_long_load_is_cut_between_files(tmp_path):
    for n in range(5):
        write(tmp_path, f"{n}.csv", f"a\n{n}\n")
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path))
    parts = []
    for batch in ledger.batches(batch_bytes=8):
        parts.append(ledger.commit(batch)["a"].to_list())
        assert batch.whole.lazy.collect().height == sum(map(len, parts))
        assert not batch.complete
    assert parts == [[0, 1], [2, 3], [4]]
    assert ledger.position["files"] == 5


def test_counts_and_rejects_tell_of_a_whole_pass_once(tmp_path):
    write(tmp_path, "a.csv", "a,b\n1,2\nbad\n3,4\n")
    (batch,) = Ledger(FileSource(path="*.csv", base=tmp_path)).batches()
    assert batch.frame.lazy.head(1).collect().height == 1
    assert batch.counts().rows == 0
    assert list(batch.rejects()) == []
    for _ in range(2):
        batch.frame.lazy.collect()
        (rejects,) = batch.rejects()
        assert rejects.schema == REJECTS.polars()
        assert rejects.height == 1
        assert (batch.counts().rows, batch.counts().files, batch.counts().bytes) == (3, 1, 16)


def test_counts_tell_how_far_a_pass_has_come(tmp_path):
    rows = "1,2\n" * 1_000
    for name in "ab":
        write(tmp_path, f"{name}.csv", "a,b\n" + rows)
    (batch,) = Ledger(FileSource(path="*.csv", base=tmp_path, block=1_000)).batches()
    seen = []
    batch.frame.lazy.map_batches(lambda f: seen.append(batch.counts()) or f, streamable=True).collect()
    told = {c.bytes for c in seen}
    assert any(0 < size < 8_008 for size in told), told
    assert batch.counts().bytes == 8_008


def test_whole_is_everything_and_tells_the_counts_where_it_is_what_was_drained(tmp_path):
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path))
    write(tmp_path, "a.csv", "a\n1\n")
    ledger.run()
    write(tmp_path, "b.csv", "a,b\n2,x\nbad\n")
    (batch,) = ledger.batches()
    assert batch.whole.lazy.collect().rows() == [(1, None), (2, "x")]
    assert batch.counts().rows == 3
    assert sum(f.height for f in batch.rejects()) == 1
    batch.frame.lazy.collect()
    assert batch.counts().rows == 2


def test_where_the_whole_was_drained_the_rejects_are_those_of_all_files(tmp_path):
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path))
    write(tmp_path, "a.csv", "a,b\n1,2\nbad\n")
    ledger.run()
    write(tmp_path, "b.csv", "a,b\n2,x\nworse\n")
    (batch,) = ledger.batches()
    batch.frame.lazy.select("a").collect()
    assert [(r["file"], r["row"]) for f in batch.rejects() for r in f.to_dicts()] == [("b.csv", "worse")]
    batch.whole.lazy.collect()
    found = [(r["file"], r["row"]) for f in batch.rejects() for r in f.to_dicts()]
    assert found == [("a.csv", "bad"), ("b.csv", "2,x"), ("b.csv", "worse")]


def test_whole_needs_the_files_that_were_read(tmp_path):
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path))
    path = write(tmp_path, "a.csv", "a\n1\n")
    write(tmp_path, "b.csv", "a\n2\n")
    ledger.run()
    path.unlink()
    write(tmp_path, "c.csv", "a\n3\n")
    (batch,) = ledger.batches()
    assert batch.frame.lazy.collect()["a"].to_list() == [3]
    with pytest.raises(DataError, match=r"'a\.csv' was read and has gone"):
        batch.whole.lazy.collect()
    ledger.source = FileSource(path="*.csv", base=tmp_path, latest=Latest(keys=("a",)))
    with pytest.raises(DataError, match="has gone"):
        ledger.run()


@pytest.mark.parametrize("types", [{}, {"v": "int64"}])
def test_a_later_row_that_cannot_be_read_supersedes_nothing(tmp_path, types):
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path, latest=Latest(keys=("id",)), types=types))
    write(tmp_path, "1.csv", "id,v\n1,10\n2,20\n")
    ledger.run()
    write(tmp_path, "2.csv", "id,v\n1,abc\n2,21\n")
    (batch,) = ledger.batches()
    assert batch.whole.lazy.collect().sort("id").rows() == [(1, 10), (2, 21)]
    assert batch.whole.lazy.select("id").collect().height == 2


@pytest.mark.parametrize("by", [("file", "line"), ("v",)])
def test_the_latest_row_of_a_key_counts_and_the_former_ones_are_known(tmp_path, by):
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path, latest=Latest(keys=("k",), by=by)))
    write(tmp_path, "1.csv", "k,v\na,1\nb,2\na,3\n,9\n,8\n")
    (first,) = ledger.batches()
    assert sorted(first.whole.lazy.collect().rows(), key=str) == [("a", 3), ("b", 2), (None, 8), (None, 9)]
    assert first.former.lazy.collect().is_empty()
    ledger.commit(first)
    write(tmp_path, "2.csv", "v,k\n0,b\n4,c\n")
    (second,) = ledger.batches()
    assert second.frame.lazy.collect().rows() == [("b", 0), ("c", 4)] or second.frame.lazy.collect().height == 2
    assert second.former.lazy.select("k", "v").collect().rows() == [("b", 2)]
    whole = second.whole.lazy.filter(pl.col("k") == "b").select("v").collect()
    assert whole["v"].to_list() == [0 if by[0] == "file" else 2]
    assert second.whole.placed.collect().columns[:2] == ["_headrace_file", "_headrace_line"]


@pytest.mark.parametrize(
    ("latest", "values"),
    [
        (Latest(keys=("id", "ID")), ["x", "z"]),
        (Latest(keys=("id",), by=("at", "AT")), ["y"]),
    ],
)
def test_columns_of_latest_may_differ_in_case_alone(tmp_path, latest, values):
    write(tmp_path, "1.csv", "id,ID,at,AT,v\n1,1,1,2,w\n1,1,1,3,x\n1,2,2,2,y\n1,2,2,1,z\n")
    (batch,) = Ledger(FileSource(path="*.csv", base=tmp_path, latest=latest)).batches()
    assert batch.whole.lazy.collect()["v"].to_list() == values


def test_hive_folders_are_columns(tmp_path):
    write(tmp_path, "day=2024-01-01/region=n%2Fa/x.csv", "a\n1\n")
    write(tmp_path, "day=2024-01-02/region=__HIVE_DEFAULT_PARTITION__/x.csv", "a\n2\n")
    write(tmp_path, "day=2024-01-02/_unfinished.csv", "a\n3\n")
    (batch,) = Ledger(FileSource(path="**/*.csv", base=tmp_path)).batches()
    rows = batch.frame.lazy.collect()
    assert rows.select("a", pl.col("day").cast(pl.String), "region").rows() == [
        (1, "2024-01-01", "n/a"),
        (2, "2024-01-02", None),
    ]
    assert rows.schema["day"] == pl.Date
    (plain,) = Ledger(FileSource(path="**/*.csv", base=tmp_path, hive=False)).batches()
    assert plain.frame.lazy.collect_schema().names() == ["a"]


@pytest.mark.parametrize("folder", ["007", "+7"])
def test_a_later_hive_folder_loses_no_more_of_its_name_than_a_field_of_its_text(tmp_path, folder):
    write(tmp_path, "code=7/a.csv", "x\n1\n")
    ledger = Ledger(FileSource(path="**/*.csv", base=tmp_path))
    assert ledger.run()["code"].to_list() == [7]
    write(tmp_path, f"code={folder}/b.csv", "x\n2\n")
    with pytest.raises(SchemaError, match=r"b\.csv': the folder's 'code' is not exactly int64") as told:
        ledger.run()
    assert '"types": {"code": "string"}' in told.value.hint
    write(tmp_path, f"code={folder}/c.csv", "x\n3\n")
    (declared,) = FileSource(path="**/[bc].csv", base=tmp_path, types={"code": "int64"}).batches(
        Range(), Snapshot(), "in"
    )
    assert declared.frame.lazy.collect()["code"].to_list() == [7, 7]


def test_a_hive_folder_that_nobody_has_escaped_is_as_it_stands(tmp_path):
    for name in ("p=50%AB", "p=50%AC", "p=%C3%A9", "p=100%"):
        write(tmp_path, f"{name}/x.csv", "a\n1\n")
    (batch,) = Ledger(FileSource(path="**/*.csv", base=tmp_path)).batches()
    assert sorted(batch.frame.lazy.collect()["p"]) == ["100%", "50%AB", "50%AC", "é"]


def test_a_folder_is_all_its_files_but_hidden_ones(tmp_path):
    for name in ("in/a.csv", "in/sub/b.csv", "in/.c.csv", "in/_tmp/d.csv", "in/notes.md"):
        write(tmp_path, name, "a\n1\n")
    (batch,) = Ledger(FileSource(path="in", base=tmp_path)).batches()
    assert [f.name for f in batch.news.files] == ["a.csv", "sub/b.csv"]


@pytest.mark.parametrize("pattern", ["*.csv", "./*.csv", "in/../*.csv"])
def test_a_pattern_means_files_and_neither_hidden_ones_nor_folders_nor_links_to_nowhere(tmp_path, monkeypatch, pattern):
    for name in ("1.csv", ".2.csv", "_3.csv", "in/4.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a\n1\n")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    assert [f.name for f in listed([pattern])] == ["1.csv"]


def test_names_are_relative_to_the_fixed_part_so_a_folder_may_move(tmp_path):
    write(tmp_path, "x/in/2024/a.csv", "a\n1\n")
    (one,) = Ledger(FileSource(path="x/in/*/*.csv", base=tmp_path)).batches()
    assert one.news.files[0].name == "2024/a.csv"
    write(tmp_path, "x/out/2024/a.csv", "a\n1\n")
    (two,) = Ledger(FileSource(path=("x/in/*/*.csv", "x/out/*/*.csv"), base=tmp_path)).batches()
    assert [f.name for f in two.news.files] == ["in/2024/a.csv", "out/2024/a.csv"]


def test_a_path_that_matches_nothing_names_what_is_near(tmp_path):
    write(tmp_path, "orders/a.csv", "a\n1\n")
    with pytest.raises(ConfigError) as caught:
        Ledger(FileSource(path="order/*.csv", base=tmp_path)).run()
    assert "orders" in caught.value.hint
    (batch,) = Ledger(FileSource(path="order/*.csv", base=tmp_path, allow_missing=True)).batches()
    assert batch.news.empty
    assert batch.frame.lazy.collect().is_empty()


def test_quarantined_lines_go_through_the_same_parser(tmp_path):
    write(tmp_path, "a.csv", "id,v\n1,x\nbad\n3,z\n")
    source = FileSource(path="*.csv", base=tmp_path, types={"id": "int64"})
    (batch,) = Ledger(source).batches()
    batch.frame.lazy.collect()
    (rejects,) = batch.rejects()
    texts = rejects.select("file", "line", "row")
    again = source.reparse(texts, name="in")
    assert again.frame.lazy.collect().is_empty()
    (still,) = again.rejects()
    assert still.equals(rejects)
    mended = source.reparse(texts.with_columns(row=pl.lit('2,"y\n!"')))
    assert mended.frame.lazy.collect().rows() == [(2, "y\n!")]
    assert list(mended.rejects()) == []


def test_a_file_name_that_is_not_utf_8_is_refused(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"a\xff.csv")).write_text("a\n1\n")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(DataError, match=r"a\\xff\.csv"):
        Ledger(FileSource(path="*.csv", base=tmp_path)).run()


def test_what_is_read_whole_has_the_latest_rows_alone(tmp_path):
    write(tmp_path, "a.csv", "id,v\n1,1\n2,2\n")
    write(tmp_path, "b.csv", "id,v\n1,3\n")
    ledger = Ledger(FileSource(path="*.csv", base=tmp_path, read="all", latest=Latest(keys=("id",))))
    (batch,) = ledger.batches()
    assert batch.frame.lazy.collect().sort("id").rows() == [(1, 3), (2, 2)]
    assert batch.frame.placed.collect()["_headrace_file"].to_list() == ["a.csv", "b.csv"]


def test_too_little_room_for_finding_the_latest_rows_is_told_as_that(tmp_path, monkeypatch):
    monkeypatch.setattr(spilling, "_MEMORY_LIMIT", "2MB")
    write(tmp_path, "a.csv", "id\n" + "".join(f"{n}\n" for n in range(200_000)))
    (batch,) = Ledger(FileSource(path="*.csv", base=tmp_path, read="all", latest=Latest(keys=("id",)))).batches()
    with pytest.raises(RejectedError, match="finding the latest rows ran out of memory or of temporary disk"):
        batch.frame.lazy.collect()


@pytest.mark.parametrize("word", ["file", "line"])
def test_a_word_of_latest_that_is_a_column_too_is_refused(tmp_path, word):
    write(tmp_path, "a.csv", f"id,{word}\n1,1\n")
    latest = Latest(keys=("id",), by=(word,))
    (batch,) = Ledger(FileSource(path="*.csv", base=tmp_path, rename={word: "x"}, latest=latest)).batches()
    assert batch.whole.lazy.collect().rows() == [(1, 1)]
    with pytest.raises(ConfigError, match="a column of the files too"):
        next(FileSource(path="*.csv", base=tmp_path, read="all", latest=latest).batches(Range(), Snapshot(), "in"))


def test_a_path_that_cannot_be_looked_at_is_no_bug(tmp_path):
    source = FileSource(path=f"{'x' * 300}/*.csv", base=tmp_path)
    with pytest.raises(RejectedError, match="cannot be looked at"):
        list(source.batches(Range(), Snapshot(), "in"))


@pytest.mark.parametrize("path", ["part", "part/*/*.csv", "part/**/*.csv", "part/**"])
def test_a_folder_that_may_not_be_looked_into_is_refused_and_its_files_not_missed(path):
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        base = Path(name)
        base.chmod(0o755)
        for part in ("a", "b", "_hidden"):
            (base / "part" / part).mkdir(parents=True)
            (base / "part" / part / "x.csv").write_text("v\n1\n")

        def found(closed: str) -> list[str]:
            (base / "part" / closed).chmod(0)
            os.seteuid(65534 if me == 0 else me)  # to root nothing is closed
            try:
                return [file.name for file in listed([path], base)]
            finally:
                os.seteuid(me)
                (base / "part" / closed).chmod(0o755)

        assert len(found("_hidden")) == 2
        with pytest.raises(RejectedError, match="cannot be looked at"):
            found("b")


def test_a_first_batch_says_that_latest_names_no_column(tmp_path):
    """Not the run alone, which asks for the latest rows: a plan and a check read none."""
    (tmp_path / "a.csv").write_text("id,v\n1,2\n")
    with pytest.raises(ConfigError, match=r'"latest" names a column \'seen\' that no file has'):
        next(Ledger(FileSource(path="*.csv", base=tmp_path, latest=Latest(keys=("id",), by=("seen",)))).batches())


def test_latest_of_no_file_yet_is_nothing_new(tmp_path):
    source = FileSource(path="*.csv", base=tmp_path, allow_missing=True, latest=Latest(keys=("id",)))
    assert next(Ledger(source).batches()).news.empty


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("in/a/*.csv", ["in/a/*.csv", "in/b/*.csv"], "../b/2.csv"),
        (["in/a/*.csv", "in/b/*.csv"], "in/b/*.csv", "b/2.csv"),
        ("in/**/*.csv", "in/a/../b/*.csv", "b/2.csv"),
    ],
)
@pytest.mark.parametrize("cursor", [None, "id"])
def test_files_keep_their_names_when_the_paths_change(tmp_path, before, after, named, cursor):
    """They would count as new ones: every row would be loaded once more."""
    for name in "ab":
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "1.csv").write_text(f"id,v\n{ord(name)},1\n")

    def rows(path, **more):
        made = hr.Pipeline(
            name="p",
            source=hr.FileSource(path=path, base=tmp_path, cursor=cursor, add_columns={"file": "file"}),
            destination=hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t"),
            write=hr.Append(),
            **more,
        )
        hr.run(made)
        return sorted(made.destination.inspect("p").scan().collect().rows())

    first = rows(before)
    (tmp_path / "in" / "b" / "2.csv").write_text("id,v\n200,2\n")
    moved = rows(after, was="source")
    assert [row for row in moved if row in first] == first
    assert (200, 2, named) in moved
    assert len(moved) == 3
    assert rows(after) == moved
    (tmp_path / "in" / "b" / "3.csv").write_text("id,v\n300,3\n")
    assert rows(after) == [*moved, (300, 3, named.replace("2.csv", "3.csv"))]


@pytest.mark.parametrize(("name", "text"), [("x.csv", "a,b\n1,x\n"), ("x.ndjson", '{"a": 1, "b": "x"}\n')])
def test_a_small_file_is_read_without_a_thread_of_its_own(tmp_path, monkeypatch, name, text):
    def refused(*_args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refused)
    (tmp_path / name).write_text(text)
    (batch,) = FileSource(path=name, base=tmp_path).batches(Range(), Snapshot(), "in")
    assert batch.frame.lazy.collect().rows() == [(1, "x")]
    (tmp_path / name).write_text(text + text.splitlines(keepends=True)[-1] * 400_000)
    with pytest.raises(AssertionError):  # many blocks have threads
        next(FileSource(path=name, base=tmp_path).batches(Range(), Snapshot(), "in")).frame.lazy.collect()

"""The ledger: what a destination remembers, and who holds it."""

# ruff: noqa: S101, D102, PLR2004  # these are tests, and their names say the promise

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from headrace.errors import ConfigError, ConflictError, DataError, SchemaError
from headrace.exact import from_text
from headrace.flow import FileStamp, Seal, Superseded
from headrace.logical import parse_type
from headrace.testing.destination.subject import FIRST, SECOND, STEPS, Run, Subject, only
from headrace.testing.scripts import PIPELINE, SOURCE, WRITES, Step, commit_of, holds, play, reject

if TYPE_CHECKING:
    from headrace.writes import Write

__all__ = ["Remembering"]

OTHER = "another"
NEWEST = {
    "int64": ("-9", "10"),
    "uint64": ("1", "18446744073709551615"),
    "float64": ("0.1", "NaN"),
    "decimal(38,10)": ("9.1000000000", "10.0000000001"),
    "bool": ("false", "true"),
    "string": ("a", "é"),
    "binary": ("00ff", "ff"),
    "date": ("0001-01-01", "9999-12-31"),
    "time": ("03:04:05", "03:04:05.500"),
    "datetime(ms)": ("2024-01-02T03:04:05", "2024-01-02T03:04:05.123"),
    "datetime(us)": ("2024-01-02T03:04:05", "2024-01-02T03:04:05.123456"),
    "datetime(ns)": ("2024-01-02T03:04:05", "2024-01-02T03:04:05.123456789"),
    "datetime(us, UTC)": ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05.123456Z"),
    "enum(b, a)": ("b", "a"),
    "categorical": ("a", "b"),
}
"""For each type two values as exact texts, the lesser first."""


class Remembering(Subject):
    """Files seen, rejects, history, holders."""

    def test_files_are_seen_under_their_stamps(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        stamps = [FileStamp(name=f"a/{n}.csv", size=n, version=f"v{n}") for n in range(3)]
        destination.apply(commit_of(destination, FIRST, usual, files=stamps[:2]))
        changed = FileStamp(name="a/1.csv", size=11, version="w")
        destination.apply(commit_of(destination, SECOND, usual, files=[changed, stamps[2]]))
        seen = self.destination(tmp_path).inspect(PIPELINE).seen
        assert dict(seen(SOURCE, None)) == {"a/0.csv": stamps[0], "a/1.csv": changed, "a/2.csv": stamps[2]}
        assert dict(seen(SOURCE, ["a/1.csv", "b.csv"])) == {"a/1.csv": changed}
        assert dict(seen("another", None)) == {}

    @only("history")
    def test_a_table_says_whether_it_holds_versions(self, tmp_path: Path, write: str) -> None:
        """Where the write is another one now, nothing else tells that they may be lost."""
        destination = self.destination(tmp_path)
        destination.apply(commit_of(destination, FIRST, WRITES[write]))
        assert self.destination(tmp_path).inspect(PIPELINE).versions
        destination.apply(commit_of(destination, replace(SECOND, fresh=True), WRITES["append"]))
        assert not self.destination(tmp_path).inspect(PIPELINE).versions

    def test_a_commit_that_forgets_leaves_what_its_seal_says_and_nothing_else(
        self, tmp_path: Path, usual: Write
    ) -> None:
        """Else a full refresh would read on, in a source that had no row just then, from what is no more there."""
        destination = self.destination(tmp_path)
        stamps = [FileStamp(name=f"{n}.csv", size=n, version="v") for n in range(2)]
        destination.apply(commit_of(destination, FIRST, usual, position=1, files=stamps[:1]))
        anew = commit_of(destination, replace(FIRST, fresh=True), usual)
        seal = Seal(positions={OTHER: {"n": 2}}, identities={}, files={OTHER: stamps[1:]}, record={}, forget_files=True)
        destination.apply(replace(anew, seal=lambda: seal))
        after = self.destination(tmp_path).inspect(PIPELINE)
        assert (dict(after.positions), dict(after.identities)) == ({OTHER: {"n": 2}}, {})
        assert (dict(after.seen(SOURCE, None)), set(after.seen(OTHER, None))) == ({}, {"1.csv"})

    @pytest.mark.parametrize("type", list(NEWEST))
    def test_newest_is_the_exact_text_of_the_greatest_value(self, tmp_path: Path, usual: Write, type: str) -> None:
        lesser, greatest = NEWEST[type]
        destination = self.destination(tmp_path)
        values = pl.DataFrame({"v": [lesser, greatest, None]}).select(from_text(pl.col("v"), parse_type(type)))["v"]
        assert values.null_count() == 1
        try:
            destination.apply(commit_of(destination, replace(FIRST, more={"v": values}), usual))
        except (SchemaError, DataError) as error:
            pytest.skip(f"it cannot hold them: {error.message}")
        newest = destination.inspect(PIPELINE).newest
        assert newest("v") == greatest
        with pytest.raises(ConfigError, match="'missing'"):
            newest("missing")

    def test_rejects_are_kept_with_the_commit(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        rows = [reject("r1", key='["1"]'), reject("r2", file="a.csv")]
        receipt = destination.apply(commit_of(destination, Step(rows=FIRST.rows, rejects=rows), usual))
        assert receipt.counts["rejected"] == 2
        kept = self.destination(tmp_path).rejects(PIPELINE).sort("id").to_dicts()
        assert kept == rows

    @pytest.mark.parametrize(
        ("settled", "left"),
        [
            ({}, ["k2", "k9", "new", "plain", "read", "read-too"]),
            ({"resolved": ("k9", "unknown")}, ["k2", "new", "plain", "read", "read-too"]),
            ({"loaded": ("k9", "unknown")}, ["k2", "new", "plain", "read", "read-too"]),
            ({"superseded": (Superseded(source=SOURCE, files=("a.csv",)),)}, ["k2", "k9", "new", "plain", "read-too"]),
            ({"superseded": (Superseded(source=SOURCE),)}, ["new", "plain"]),
            ({"superseded": (Superseded(source=None),)}, ["k2", "k9", "new", "read", "read-too"]),
            ({"superseded": (Superseded(source=SOURCE, stages=("parse", "cursor")),)}, ["k2", "k9", "new", "plain"]),
            ({"superseded": (Superseded(source="another"),)}, ["k2", "k9", "new", "plain", "read", "read-too"]),
            ({"replace_all": True}, ["new"]),
        ],
    )
    def test_rejects_leave_when_they_are_settled(
        self, tmp_path: Path, usual: Write, settled: dict[str, Any], left: Sequence[str]
    ) -> None:
        destination = self.destination(tmp_path)
        earlier = [
            reject("k2", key='["2"]'),
            reject("k9", key='["9"]'),
            reject("read", file="a.csv"),
            reject("read-too", file="b.csv"),
            {**reject("plain"), "source": None},
        ]
        new = [reject("new", key='["2"]', file="a.csv")]
        destination.apply(commit_of(destination, Step(rows=FIRST.rows, rejects=earlier), usual))
        step = Step(rows=SECOND.rows, rejects=new)
        destination.apply(commit_of(destination, step, usual, settled=settled))
        assert holds(destination).rejects == left

    @only("merge", "history", "recompute")
    def test_a_good_row_takes_the_place_of_its_keys_rejects(self, tmp_path: Path, write: str) -> None:
        """Of a recompute, the rows of its group."""
        destination = self.destination(tmp_path)
        name, key = ("part", "b") if write == "recompute" else ("id", "2")
        row = json.dumps({"id": "2", "part": "b", "at": "3"})  # a history's very version
        mine = {"key": json.dumps([key]), "row": row}
        earlier = [reject("mine", **mine), reject("another's", key='["9"]', row=row), reject("nobody's", row=row)]
        destination.apply(commit_of(destination, Step(rows=FIRST.rows, rejects=earlier), WRITES[write]))
        step = Step(rows=SECOND.rows, rejects=[reject("new", **mine)])
        destination.apply(commit_of(destination, step, WRITES[write], settled={"keys": (name,)}))
        assert holds(destination).rejects == ["another's", "new", "nobody's"]

    def test_discarded_rejects_leave_and_are_remembered(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        rows = [reject("r1"), reject("r2"), reject("r3")]
        destination.apply(commit_of(destination, Step(rows=FIRST.rows, rejects=rows), usual))
        assert destination.inspect(PIPELINE).discarded == frozenset()
        for n, gone in enumerate([("r1",), ("r2", "unknown")]):
            step = Step(rows=FIRST.rows, fresh=n == 1)
            destination.apply(commit_of(destination, step, usual, settled={"discarded": gone}))
        assert holds(destination).rejects == ["r3"]
        assert self.destination(tmp_path).inspect(PIPELINE).discarded == {"r1", "r2", "unknown"}
        assert destination.inspect("another").discarded == frozenset()

    def test_loaded_rejects_are_remembered_until_all_is_replaced(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        step = Step(rows=FIRST.rows, rejects=[reject("r1")])
        destination.apply(commit_of(destination, step, usual))
        found = []
        for settled in ({"loaded": ("r1",)}, {"discarded": ("r2",)}, {"replace_all": True}):
            destination.apply(commit_of(destination, FIRST, usual, settled=settled))
            found.append(self.destination(tmp_path).inspect(PIPELINE))
        assert [s.loaded for s in found] == [{"r1"}, {"r1"}, frozenset()]
        assert [s.discarded for s in found] == [frozenset(), {"r2"}, {"r2"}]

    def test_a_row_rejected_again_is_one_reject(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        for _ in range(2):
            destination.apply(commit_of(destination, Step(rows=FIRST.rows, rejects=[reject("r1")]), usual))
        assert holds(destination).rejects == ["r1"]

    def test_history_is_newest_first_with_commits_and_runs(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        play(destination, STEPS[:2], usual)
        destination.record({"pipeline": PIPELINE, "run": "failed", "status": "failed"})
        entries = self.destination(tmp_path).history(PIPELINE)
        assert [e["kind"] for e in entries] == ["run", "commit", "commit"]
        assert [e["number"] for e in entries[1:]] == [2, 1]
        assert entries[0]["status"] == "failed"
        assert entries[1]["record"] == {"rows": 3}
        assert entries[1]["positions"] == {SOURCE: {"step": 2}}
        assert list(destination.history("another")) == []

    def test_record_keeps_failed_and_empty_runs_and_is_no_commit(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        destination.record({"pipeline": PIPELINE, "run": "first", "status": "failed"})
        assert (destination.inspect(PIPELINE).number, destination.inspect(PIPELINE).scan) == (0, None)
        destination.apply(commit_of(destination, FIRST, usual))
        before = holds(destination)
        for run in ("failed", "nothing_new"):
            destination.record({"pipeline": PIPELINE, "run": run, "status": run, "warnings": ["a", "b"]})
        told = self.destination(tmp_path).history(PIPELINE)
        assert [(e["kind"], e.get("status")) for e in told[:3]] == [
            ("run", "nothing_new"),
            ("run", "failed"),
            ("commit", None),
        ]
        assert told[0]["warnings"] == ["a", "b"]
        assert list(destination.history("another")) == []
        assert holds(destination) == before

    def test_a_held_target_names_its_holder(self, tmp_path: Path) -> None:
        destination = self.destination(tmp_path)
        with destination.hold(PIPELINE, Run("first")):
            with pytest.raises(ConflictError) as caught, self.destination(tmp_path).hold(PIPELINE, Run("second")):
                pytest.fail("held twice")
            assert {"host", "pid", "run", "since"} <= caught.value.details.keys()
            assert caught.value.details["run"] == "first"
            assert "first" in caught.value.message
        with destination.hold(PIPELINE, Run("third")):
            pass

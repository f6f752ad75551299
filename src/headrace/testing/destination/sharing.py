"""Two pipelines and one target: what is the target's, and what is each pipeline's own."""

# ruff: noqa: S101, D102, PLR2004  # these are tests, and their names say the promise

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from headrace.errors import ConfigError, ConflictError
from headrace.flow import FileStamp
from headrace.testing.destination.subject import FIRST, SECOND, Run, Subject
from headrace.testing.scripts import PIPELINE, SOURCE, Step, commit_of, holds, reject

if TYPE_CHECKING:
    from headrace.protocols import Destination
    from headrace.writes import Write

__all__ = ["Sharing"]

OTHER = "another"


class Sharing(Subject):
    """`number`, `expected`, `schema` and the run lock are the target's; positions, files and rejects a pipeline's."""

    def other(self, folder: Path) -> Destination:
        """The target for a second pipeline; skips the test where a table is one pipeline's."""
        if (other := self.shared(folder)) is None:
            pytest.skip("a table is one pipeline's here")
        return other

    def test_a_table_of_another_pipeline_is_refused_with_a_way_out(self, tmp_path: Path, usual: Write) -> None:
        destination = self.destination(tmp_path)
        destination.apply(commit_of(destination, FIRST, usual))
        before = holds(destination)
        with pytest.raises(ConfigError, match=PIPELINE) as refused:
            destination.apply(commit_of(destination, SECOND, usual, pipeline=OTHER))
        assert refused.value.hint
        assert holds(destination) == before
        assert destination.inspect(OTHER).others == {PIPELINE}

    def test_number_schema_and_rows_are_the_targets_and_the_rest_is_the_pipelines(
        self, tmp_path: Path, usual: Write
    ) -> None:
        first, second = self.destination(tmp_path), self.other(tmp_path)
        stamp = FileStamp(name="1.csv", size=1, version="1")
        rejected = replace(FIRST, rejects=[reject("r1")])
        mine = commit_of(first, rejected, usual, position=7, files=[stamp], settled={"discarded": ("r0",)})
        first.apply(mine)
        seen = second.inspect(OTHER)
        assert (seen.number, seen.head, seen.others) == (1, mine.id, frozenset({PIPELINE}))
        assert seen.schema == first.inspect(PIPELINE).schema
        assert seen.newest("id") == "3"
        assert (seen.write, dict(seen.record)) == (None, {})
        assert (dict(seen.positions), dict(seen.identities), seen.discarded) == ({}, {}, frozenset())
        assert dict(seen.seen(SOURCE, None)) == {}
        assert second.rejects(OTHER).height == 0

        theirs = commit_of(second, replace(SECOND, wide=True), usual, position=9, pipeline=OTHER)
        assert second.apply(theirs).number == 2
        now = self.destination(tmp_path).inspect(PIPELINE)
        assert (now.number, now.head, now.others) == (2, theirs.id, frozenset({OTHER}))
        assert now.schema is not None
        assert "extra" in now.schema
        assert dict(now.positions) == {SOURCE: {"step": 7}}
        assert now.discarded == {"r0"}
        assert dict(now.seen(SOURCE, None)) == {"1.csv": stamp}
        assert holds(first).rejects == ["r1"]
        assert [e["id"] for e in first.history(PIPELINE)] == [mine.id]
        assert [e["id"] for e in second.history(OTHER)] == [theirs.id]
        assert second.inspect(OTHER).positions == {SOURCE: {"step": 9}}

    def test_a_commit_of_another_pipeline_makes_expected_stale(self, tmp_path: Path, usual: Write) -> None:
        """Else the schema of the stale commit would take the place of the newer one."""
        first, second = self.destination(tmp_path), self.other(tmp_path)
        first.apply(commit_of(first, FIRST, usual))
        second.apply(commit_of(second, FIRST, usual, pipeline=OTHER))
        stale = commit_of(second, SECOND, usual, pipeline=OTHER)
        kind = pl.Series(["u", "v", "u"], dtype=pl.Categorical)
        first.apply(commit_of(first, Step(rows=FIRST.rows, more={"kind": kind}), usual))
        before = holds(first)
        with pytest.raises(ConflictError):
            second.apply(stale)
        assert holds(first) == before
        assert first.inspect(PIPELINE).schema == second.inspect(OTHER).schema

    def test_a_run_holds_the_target_against_the_runs_of_other_pipelines(self, tmp_path: Path) -> None:
        first, second = self.destination(tmp_path), self.other(tmp_path)
        with first.hold(PIPELINE, Run("first")):
            with pytest.raises(ConflictError) as caught, second.hold(OTHER, Run("second")):
                pytest.fail("held twice")
            assert caught.value.details["run"] == "first"
        with second.hold(OTHER, Run("second")):
            pass

"""The machine that does to a pipeline what the world does, and asks the model after each step."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import kinds
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from models import MODELS

import headrace as hr
from headrace.testing import BreakStream, FailAfterApply, HoldCommit, Reject, kill

__all__ = ["FAULTS", "NO_WAIT", "Files"]

_ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 4),
        st.sampled_from("ab"),
        st.sampled_from([0, 1, 2, 3, -1, "x"]),
        st.sampled_from("IIID"),
        st.sampled_from("ef"),
    ),
    max_size=4,
)
FAULTS = {"none": None, "no": Reject, "broken": BreakStream, "lost": FailAfterApply, "held": HoldCommit}
_COLUMNS = ("id", "moved", "g", "v", "op", "extra")
NO_WAIT = {"wait_initial": 0.0, "wait_max": 0.0, "jitter": 0.0}


class Files(RuleBasedStateMachine):
    """Files come in, runs come and go: `write` and `destination` say of what kind (see `kinds`)."""

    write = "merge"
    destination = "duckdb"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="modelled_"))
        (self.folder / "in").mkdir()
        self.model: Any = MODELS[self.write]()
        self.files: dict[str, tuple[bool, list[dict[str, Any]]]] = {}
        self.unread: list[str] = []
        self.rejects: dict[Any, dict[str, Any]] = {}
        self.given_up: set[Any] = set()
        self.loaded: set[Any] = set()
        self.number = 0
        self.wide = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def pipeline(self, *, strict: bool = True, destination: Any = None) -> hr.Pipeline:
        from dataclasses import replace

        made = kinds.pipeline(self.folder, self.write, self.destination, strict=strict)
        return made if destination is None else replace(made, destination=destination(made.destination))

    # ---- what the source does

    @rule(rows=_ROWS)
    def a_file_comes(self, rows: list[tuple[Any, ...]]) -> None:
        """New rows, rows of known keys, late ones, repeated keys, bad values, bad lines, moves to another group."""
        name = f"{len(self.files):03}.csv"
        names = _COLUMNS if self.wide else _COLUMNS[:-1]
        text = "\n".join([",".join(names), *(",".join(map(str, r[: len(names)])) for r in rows), ""])
        (self.folder / "in" / name).write_text(text)
        told = [dict(zip(names, row, strict=False), at=(name, line)) for line, row in enumerate(rows, start=2)]
        self.files[name] = (self.wide, told)
        self.unread.append(name)

    @rule()
    def files_get_a_column_more_or_lose_it(self) -> None:
        """Those that come from now on."""
        self.wide = not self.wide

    # ---- what is run

    @rule(fault=st.sampled_from(sorted(FAULTS)), again=st.booleans(), verb=st.sampled_from(["run", "run", "refresh"]))
    def it_runs(self, fault: str, again: bool, verb: str) -> None:
        """In this process, with a fault, and with or without a second attempt."""
        self._run(verb, fault, attempts=2 if again else 1)

    @rule(at=st.integers(1, 40), moment=st.sampled_from(["before", "after"]), verb=st.sampled_from(["run", "refresh"]))
    def it_is_killed(self, at: int, moment: str, verb: str) -> None:
        """In a process of its own, at one of its effects, if it has so many: then wholly done, or not at all."""
        if verb == "refresh" and not self.files:
            return
        asked = {
            "script": f"{kinds.__file__}:go",
            "look": f"{kinds.__file__}:seen",
            "effects": f"{kinds.__file__}:effects",
            "prepare": None,
            "arguments": {"write": self.write, "destination": self.destination, "verb": verb},
        }
        answer = kill._server().run(asked, self.folder, kill=at, moment=moment)
        assert answer["ended"] or answer["killed"], answer["error"]
        now = kinds.number(self.pipeline())
        assert now in (self.number, self.number + 1)
        if now > self.number:
            self._committed(verb)
        assert answer["killed"] or not self.unread

    @precondition(lambda self: self.write in ("append", "merge", "history") and self.rejects)
    @rule()
    def the_contract_is_relaxed_for_a_replay(self) -> None:
        """What broke the contract is loaded now, what could not be read stays."""
        again = {at: r for at, r in sorted(self.rejects.items()) if r["v"] != "x"}
        hr.replay(self.pipeline(strict=False))
        if again:
            self.number += 1
            self._load(list(again.values()))
            for at in again:
                self.rejects.pop(at, None)
                self.loaded.add(at)

    @precondition(lambda self: self.write in ("append", "merge", "history") and self.rejects)
    @rule()
    def rejects_are_replayed_as_they_are(self) -> None:
        """Nothing changes by that, and no commit is made."""
        assert hr.replay(self.pipeline()).status == "nothing_new"

    @precondition(lambda self: self.rejects)
    @rule()
    def rejects_are_given_up(self) -> None:
        """For good."""
        hr.discard(self.pipeline(), reason="a test")
        self.number += 1
        self.given_up |= set(self.rejects)
        self.rejects = {}

    # ---- what must hold

    @invariant()
    def the_target_holds_what_the_model_says(self) -> None:
        one = self.pipeline()
        assert kinds.number(one) == self.number
        assert kinds.look(one, self.model.columns) == self.model.table()
        assert kinds.rejected(one) == sorted(self.rejects, key=repr)

    def _run(self, verb: str, fault: str, *, attempts: int) -> None:
        if verb == "refresh" and not self.files:
            return
        kind = FAULTS[fault]
        one = self.pipeline(destination=kind)
        retry = hr.Retry(attempts=attempts, **NO_WAIT)
        new = verb == "refresh" or bool(self.unread)
        try:
            kinds.act(verb, one, retry=retry)
        except hr.UnavailableError:
            assert new
            assert kind is not None
            assert attempts == 1
        else:
            assert not new or kind is None or attempts == 2
        if new and fault == "held" and attempts == 1:
            with contextlib.suppress(hr.ConflictError):  # the system is still committing when the next run comes
                kinds.act("run", one, retry=retry)
            one.destination.settle(one.name, "of nobody")  # that run may have had nothing to do, and waited for nobody
        if new and (attempts == 2 or fault in ("none", "lost", "held")):
            self._committed(verb)

    def _committed(self, verb: str) -> None:
        """What was new is in, in one commit."""
        self.number += 1
        names = sorted(self.files) if verb == "refresh" else self.unread
        if verb == "refresh":
            self.model, self.rejects, self.loaded = MODELS[self.write](), {}, set()
        wide = any(self.files[n][0] for n in names)
        rows = [{**({"extra": None} if wide else {}), **r} for n in names for r in self.files[n][1]]
        bad = {r["at"]: r for r in rows if r["v"] == "x" or (r["v"] == -1 and self.write != "recompute")}
        self.unread = [n for n in self.unread if n not in names]
        self._load([r for r in rows if r["at"] not in bad])
        self.rejects |= {at: r for at, r in bad.items() if at not in self.given_up | self.loaded}

    def _load(self, good: list[dict[str, Any]]) -> None:
        """These rows were good; rejects of their keys that are not newer (history: of their versions) are settled,
        those of groups are told anew.
        """
        self.model.load(good)
        kept = {at: r for at, r in self.rejects.items() if r["v"] == "x" or (self.model.keys and not any(
            g["id"] == r["id"] and (g["moved"] == r["moved"] if self.write == "history" else g["moved"] >= r["moved"])
            for g in good
        ))}  # fmt: skip
        if self.write == "recompute":
            sums = {(f'{{"g": "{g}", "total": "{v}"}}', None): v for g, v in self.model.totals().items() if v < 0}
            kept |= {at: {"v": v} for at, v in sums.items() if at not in self.given_up}
        elif not self.model.keys:
            kept = self.rejects
        self.rejects = kept

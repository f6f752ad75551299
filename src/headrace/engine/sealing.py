"""The end of a commit: what is known only once all rows are drained.

The position, the counts and the contract's verdict must be in the same transaction as the rows, so the destination
asks for them between the last row and COMMIT; what is raised here rolls everything back.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.contract import Contract
from headrace.contract.screen import Screen
from headrace.engine.decisions import Reading, fingerprint
from headrace.engine.passes import Passes
from headrace.errors import ContractError, DataError
from headrace.flow import Batch, Position, Rejects, Seal, Snapshot, Superseded, TableChange
from headrace.frozen import frozen
from headrace.schema import REJECTS
from headrace.stream import FrameStream, scan_batches
from headrace.traits import SourceTraits

if TYPE_CHECKING:
    from headrace.pipeline import Pipeline

__all__ = ["Sealing", "UnchangedError"]

_SHOWN = 5
_CONTENT = re.compile(r"[-.]")
_ENGINES = ("headrace", "polars", "duckdb", "pyarrow")
"""Whose versions the ledger keeps, where they took part."""


class UnchangedError(DataError):
    """A replay would change nothing: each of its rows is the reject again that it was. No commit is made of that."""


@frozen(kw_only=True)
class Sealing:
    """The end of one commit, called by the destination once its rows are drained.

    Judges what could not be read, then the contracts of the sources, then that of the result, and says what the
    ledger must remember. `replayed` are the rejects that a replay takes out of the quarantine (None: no replay).
    """

    pipeline: Pipeline
    how: Reading
    batches: Mapping[str, Batch]
    screens: Mapping[str, Screen]
    screen: Screen
    change: TableChange
    keys: tuple[str, ...]
    replayed: tuple[str, ...] | None
    snapshot: Snapshot
    passes: Passes

    def __call__(self) -> Seal:
        """Judge, then tell. Raises ContractError; DataError where new rows were not read (see `Passes`)."""
        self.passes.finish(stands_alone=self.pipeline.independent)
        malformed = {n: _Malformed.of(b.rejects()) for n, b in self.batches.items()}
        kept = self._judge_malformed(malformed)
        for name, screen in self.screens.items():
            screen.judge(bounded=self.replayed is None or name not in self.how.drivers)
        self._judge_result()
        self._refuse_emptying()
        files = {n: tuple(self.batches[n].files()) for n in self.how.drivers}
        rejects = self._rejects(kept)
        return Seal(
            positions=self.positions,
            files=files,
            identities={} if self.replayed is not None else {n: self._identity(n) for n in self.how.drivers},
            record=self._record(malformed, rejects.count),
            rejects=rejects,
            forget_files=self.change.fresh,
        )

    @property
    def positions(self) -> dict[str, Position]:
        """Where the commit leaves the sources. Of look-ups too: it tells whether they change. A replay moves none."""
        moved = () if self.replayed is not None else self.batches
        return {n: at for n in moved if (at := self.batches[n].position())}

    def _identity(self, name: str) -> Any:
        """As the batch tells it, where the source itself does not know all of it."""
        told = self.batches[name].identity
        return self.pipeline.named_sources[name].identity() if told is None else dict(told)

    def _judge_result(self) -> None:
        """Judge the result; where the transforms have lost the rows' places, say who has them."""
        try:
            self.screen.judge(bounded=self.replayed is None)
        except ContractError as error:
            if error.details.get("places") or all(b.frame.placed is None for b in self.batches.values()):
                raise
            hint = f"{error.hint}; transforms keep no file and line, a contract on the source tells them"
            raise ContractError(error.message, hint=hint, details=error.details) from None

    def _judge_malformed(self, malformed: Mapping[str, _Malformed]) -> list[str]:
        """Raise for lines that could not be read where the contract says fail; the sources whose lines are kept."""
        kept = []
        for name, lines in malformed.items():
            if not lines.count:
                continue
            contract = self._governing(name)
            if contract.on_violation in ("fail", "warn"):
                raise lines.error(name)
            if contract.on_violation == "quarantine":
                kept.append(name)
            self.screens[name].count_parsed(lines.count, contract, rows=self.batches[name].counts().rows)
        return kept

    def _governing(self, name: str) -> Contract:
        """Whose word counts for lines that cannot be read: the source's contract, else the result's."""
        own = SourceTraits.of(self.pipeline.named_sources[name]).contract
        return own or self.pipeline.contract or Contract()

    def _rejects(self, malformed: Sequence[str]) -> Rejects:
        """What the quarantine gets: `malformed` are the sources whose unreadable lines are kept."""
        rebuilt = self.change.fresh or (self.how.whole and self.change.groups is None)
        appends = self.change.write.type == "append"
        settled = self.snapshot.discarded | (self.snapshot.loaded if appends and not rebuilt else frozenset())

        def frames() -> Iterator[pl.DataFrame]:
            lines = (self.batches[n].rejects().frames() for n in malformed)
            told = chain(*lines, *(s.rejects() for s in self._screens))
            for frame in _named(told, self.replayed or (), self.snapshot.number + 1 if appends else None):
                yield frame.filter(~pl.col("id").is_in(settled)) if settled else frame

        replayed = self.replayed or ()
        again = {id for frame in frames() for id in frame["id"]} if replayed else set()
        if replayed and again == set(replayed):
            raise UnchangedError(f"nothing was changed, all {len(again):,} are rejected again as they were")
        return Rejects(
            rows=lambda: FrameStream(scan_batches(frames, REJECTS.polars())),
            count=sum(f.height for f in frames()),
            keys=self.keys,
            resolved=() if appends else replayed,
            loaded=tuple(id for id in replayed if id not in again) if appends else (),
            superseded=self._superseded(),
            replace_all=rebuilt,
        )

    def _superseded(self) -> tuple[Superseded, ...]:
        """What the sources have told anew. Where they have read everything again, the result was judged anew too, but
        for a recompute of some groups.
        """
        told = {n: b.rejects() for n, b in self.batches.items()}
        found = [s for retold in told.values() for s in retold.superseded]
        if self.change.groups is None and all(told[n].everything for n in self.how.drivers):
            found.append(Superseded(source=None))
        return tuple(found)

    @property
    def _screens(self) -> Sequence[Screen]:
        return *self.screens.values(), self.screen

    def _record(self, malformed: Mapping[str, _Malformed], rejected: int) -> dict[str, Any]:
        read = {}
        for name, batch in self.batches.items():
            counts, bad = batch.counts(), malformed[name].count
            read[name] = {"rows": counts.rows, "bytes": counts.bytes, "files": counts.files, "malformed": bad}
        judged = [s.counts() for s in self._screens]
        return {
            "read": read,
            "rejected": rejected,
            "dropped": sum(c.dropped for c in judged),
            "rules": dict(sum((c.by_rule for c in judged), Counter())),
            "warned": dict(sum((c.warned for c in judged), Counter())),
            "write": self.pipeline.write.type,
            "schema_changes": [c.kind for c in self.change.changes],
            "bounds": {n: dict(b.news.facts).get("bounds") for n, b in self.batches.items()},
            **self._fingerprints(),
            "versions": {p: sys.modules[p].__version__ for p in _ENGINES if p in sys.modules},
        }

    def _fingerprints(self) -> dict[str, str]:
        """Of the pipeline; of a replay those of the last commit, since most rows are still of that making."""
        now = {f"{k}_fingerprint": v for k, v in fingerprint(self.pipeline).items()}
        return now if self.replayed is None else {k: v for k, v in self.snapshot.record.items() if k in now}

    def _refuse_emptying(self) -> None:
        """A recompute of all groups from sources that are empty would empty the table."""
        rebuilt = self.change.write.type == "recompute" and self.change.groups is None and not self.change.fresh
        if rebuilt and self.snapshot.schema is not None and not any(b.counts().rows for b in self.batches.values()):
            raise DataError(
                f"all sources of {self.pipeline.name!r} are empty, and the table would be so too",
                hint="look at the sources; --full-refresh empties the table if that is meant",
            )


def _named(frames: Iterable[pl.DataFrame], replayed: Sequence[str], append: int | None) -> Iterator[pl.DataFrame]:
    """The rejects under the ids by which they are known.

    One that was `replayed` and is rejected again is the reject that it was, though it may be one of several equal ones.
    A row without a place that an `append` (the commit's number) reads is not the equal row of an earlier one,
    since an append reads each row once: it gets an id of its own, ``<hash>.<commit>``.
    """
    before: dict[str, list[str]] = {}
    for id in sorted(replayed, reverse=True):
        before.setdefault(_content(id), []).append(id)
    for frame in frames:
        named = frame
        if append is not None:
            placeless = (pl.col("stage") == "contract") & pl.col("file").is_null()
            named = named.with_columns(id=pl.when(placeless).then(pl.format(f"{{}}.{append}", "id")).otherwise("id"))
        if before:
            known = [(id, before.get(_content(id))) for id in named["id"]]
            named = named.with_columns(id=pl.Series([old.pop() if old else id for id, old in known], dtype=pl.String))
        yield named


def _content(id: str) -> str:
    """What equal rows have in common of their ids."""
    return _CONTENT.split(id, maxsplit=1)[0]


@frozen(kw_only=True)
class _Malformed:
    """Lines that could not be read: how many, and where the first of them stand."""

    count: int = 0
    first: tuple[Mapping[str, Any], ...] = ()

    @staticmethod
    def of(frames: Iterable[pl.DataFrame]) -> _Malformed:
        """Counted, a frame at a time: they may be millions."""
        count, first = 0, list[Mapping[str, Any]]()
        for frame in frames:
            count += frame.height
            first += frame.select("file", "line", "rules").head(_SHOWN - len(first)).to_dicts()
        return _Malformed(count=count, first=tuple(first))

    def error(self, source: str) -> ContractError:
        """For a contract that fails the run."""
        if all(p["file"] is None for p in self.first):  # rows of a database: which stage refused them says why
            rules = ", ".join(dict.fromkeys(rule for p in self.first for rule in p["rules"]))
            return ContractError(
                f"source {source!r} has {self.count:,} row{'s' if self.count > 1 else ''} not to be loaded: {rules}",
                hint='mend the rows there, or say "on_violation": "quarantine" in the contract',
                details={"count": self.count, "first": list(self.first)},
            )
        places = "; ".join(f"{p['file']}:{p['line']} ({', '.join(p['rules'])})" for p in self.first)
        more = f" and {self.count - len(self.first):,} more" if self.count > len(self.first) else ""
        return ContractError(
            f"source {source!r} has {self.count:,} malformed line{'s' if self.count > 1 else ''}: {places}{more}",
            hint=self._way_out(),
            details={"count": self.count, "first": list(self.first)},
        )

    def _way_out(self) -> str:
        if any("wrong encoding" in rule for p in self.first for rule in p["rules"]):
            return 'say the encoding: "encoding": "latin-1", or "cp1252", "utf-16"; or mend the file'
        return 'mend the file, declare the column\'s type, or say "on_violation": "quarantine" in the contract'

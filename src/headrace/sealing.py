"""The end of a commit: what is known only once all rows are drained.

The position, the counts and the contract's verdict must be in the same transaction as the rows, so the destination
asks for them between the last row and COMMIT; what is raised here rolls everything back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.contract import Contract
from headrace.decisions import Reading, fingerprint
from headrace.errors import ContractError
from headrace.flow import Batch, FileStamp, Rejects, Seal, TableChange
from headrace.schema import REJECTS
from headrace.screen import Screen
from headrace.stream import FrameStream, scan_batches

if TYPE_CHECKING:
    from headrace.pipeline import Pipeline

__all__ = ["Sealing"]


@dataclass(frozen=True, kw_only=True)
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

    def __call__(self) -> Seal:
        """Judge, then tell. Raises ContractError."""
        parsed = {n: list(b.rejects()) for n, b in self.batches.items()}
        dropped = self._judge_parsed(parsed)
        for screen in self.screens.values():
            screen.judge()
        self.screen.judge()
        files = {n: tuple(self.batches[n].files()) for n in self.how.drivers}
        kept = [f for n, frames in parsed.items() if n not in dropped for f in frames]
        rejects = self._rejects(kept, files)
        moved = () if self.replayed is not None else self.how.drivers
        return Seal(
            positions={n: self.batches[n].position() for n in moved},
            files=files,
            identities={n: self.pipeline.named_sources[n].identity() for n in self.how.drivers},
            record=self._record(parsed, rejects.count),
            rejects=rejects,
            forget_files=self.change.fresh,
        )

    def _judge_parsed(self, parsed: Mapping[str, list[pl.DataFrame]]) -> set[str]:
        """Raise for lines that could not be read where the contract says fail; the names of those that drop them."""
        dropped = set()
        for name, frames in parsed.items():
            count = sum(f.height for f in frames)
            contract = self._governing(name)
            if not count:
                continue
            if contract.on_violation in ("fail", "warn"):
                raise _malformed(name, frames, count)
            if contract.on_violation == "drop":
                dropped.add(name)
            self.screens[name].count_parsed(count, contract, rows=self.batches[name].counts().rows)
        return dropped

    def _governing(self, name: str) -> Contract:
        """Whose word counts for lines that cannot be read: the source's contract, else the result's."""
        own = getattr(self.pipeline.named_sources[name], "contract", None)
        return own or self.pipeline.contract or Contract()

    def _rejects(self, parsed: list[pl.DataFrame], files: Mapping[str, Sequence[FileStamp]]) -> Rejects:
        screens = [*self.screens.values(), self.screen]

        def frames() -> Iterator[pl.DataFrame]:
            yield from parsed
            for screen in screens:
                yield from screen.rejects()

        count = sum(f.height for f in parsed) + sum(s.counts().rejected for s in screens)
        reread = tuple(f.name for stamps in files.values() for f in stamps)
        return Rejects(
            rows=lambda: FrameStream(scan_batches(frames, REJECTS.polars())),
            count=count,
            keys=self.keys,
            files=reread,
            resolved=self.replayed or (),
            replace_sources=self.how.whole,
            replace_all=self.change.fresh or self.pipeline.write.type == "replace",
        )

    def _record(self, parsed: Mapping[str, list[pl.DataFrame]], rejected: int) -> dict[str, Any]:
        read = {}
        for name, batch in self.batches.items():
            counts = batch.counts()
            bad = sum(f.height for f in parsed[name])
            read[name] = {"rows": counts.rows, "bytes": counts.bytes, "files": counts.files, "malformed": bad}
        judged = [s.counts() for s in (*self.screens.values(), self.screen)]
        return {
            "read": read,
            "rejected": rejected,
            "dropped": sum(c.dropped for c in judged),
            "rules": dict(sum((c.by_rule for c in judged), Counter())),
            "warned": dict(sum((c.warned for c in judged), Counter())),
            "write": self.pipeline.write.type,
            "schema_changes": [c.kind for c in self.change.changes],
            "bounds": {n: dict(b.news.facts).get("bounds") for n, b in self.batches.items()},
            **{f"{k}_fingerprint": v for k, v in fingerprint(self.pipeline).items()},
            "versions": {p: version(p) for p in ("headrace", "polars", "duckdb", "pyarrow")},
        }


def _malformed(name: str, frames: Iterable[pl.DataFrame], count: int) -> ContractError:
    """Lines that could not be read, where that fails the run: how many, the first places, the reasons."""
    first = [{"file": r["file"], "line": r["line"], "rules": r["rules"]} for f in frames for r in f.head(5).to_dicts()][
        :5
    ]
    places = "; ".join(f"{p['file']}:{p['line']} ({', '.join(p['rules'])})" for p in first)
    more = f" and {count - len(first):,} more" if count > len(first) else ""
    return ContractError(
        f"source {name!r} has {count:,} malformed line{'s' if count > 1 else ''}: {places}{more}",
        hint='mend the file, declare the column\'s type, or say "on_violation": "quarantine" in the contract',
        details={"count": count, "first": first},
    )

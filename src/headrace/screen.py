"""A contract in the stream: good rows go on, bad rows go to disk, and at the end there is a verdict.

One pass, flat memory: rows are judged batch by batch on their way to whatever drains the frame.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING

import polars as pl

from headrace.contract import Contract
from headrace.errors import ContractError
from headrace.exact import to_text
from headrace.repeats import spilling
from headrace.schema import REJECTS, Schema
from headrace.spool import Spool
from headrace.stream import FrameStream, scan_batches
from headrace.verdict import Verdict, by_rule, check_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from headrace.spool import SpoolPass
    from headrace.verdict import Judge

__all__ = ["Screen", "ScreenCounts"]

_HOPELESS = 1_000_000
_SHOWN = 5
_KEPT = 1_000
_REJECT_ROWS = 50_000


@dataclass(frozen=True, kw_only=True)
class ScreenCounts:
    """What a whole pass came to, in rows. `by_rule` counts the rows that broke a rule (one row may break several),
    `warned` those that broke a rule which only warns. `rejected` went to quarantine, `dropped` are gone, `failed`
    broke a rule that fails the run. `places` are the first of the failed: ``file:line``, or ``row n``.
    """

    rows: int = 0
    good: int = 0
    rejected: int = 0
    dropped: int = 0
    failed: int = 0
    by_rule: Counter[str] = field(default_factory=Counter)
    warned: Counter[str] = field(default_factory=Counter)
    places: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain JSON, for the ledger and for errors."""
        return {
            "rows": self.rows,
            "good": self.good,
            "rejected": self.rejected,
            "dropped": self.dropped,
            "failed": self.failed,
            "by_rule": dict(self.by_rule),
            "warned": dict(self.warned),
        }


class Screen:
    """`frame` with the rows that break `contract` taken out.

    `lazy` is the good rows, with the contract's types (`schema`); it can be drained again, and reads `frame` again.
    What `counts`, `rejects` and `judge` say is true once it has been drained to the end; draining twice does not
    count twice. `keys` are the merge's: a row whose key is NULL breaks the rule ``"<key>: null"``, with or without a
    contract. `source` is the source whose contract this is (None: the result's). `place` are the columns of `frame`
    that hold a row's file and line, where it has them. `existing` gives columns of the target's rows, among which a
    value of a ``unique`` column must not stand either. `parsed_rejects` counts the rows that the parser rejected:
    they weigh in `max_rejects` and `max_reject_share`.

    Without anything to check `lazy` is `frame` itself, and nothing is counted. Close it: the rejects are on disk.

    Raises SchemaError, ConfigError as `checks.bind` does. Draining raises ContractError early when more than a
    million rows have broken a rule that fails the run.
    """

    def __init__(
        self,
        contract: Contract | None,
        frame: pl.LazyFrame,
        *,
        source: str | None = None,
        keys: Sequence[str] = (),
        place: tuple[str | None, str | None] = (None, None),
        existing: Callable[[Sequence[str]], pl.LazyFrame] | None = None,
        parsed_rejects: Callable[[], int] = lambda: 0,
    ) -> None:
        self.contract = contract or Contract()
        self._source = source
        self._keys = tuple(keys)
        self._place = place
        self._parsed_rejects = parsed_rejects
        self._spool = Spool()
        self._lock = Lock()
        self._counts: ScreenCounts | None = None
        self._verdict = Verdict(self.contract, frame, keys=self._keys, existing=existing)
        bound = self._verdict.bound
        self.schema: Schema = bound.schema
        self.active = contract is not None or bool(keys)
        self.lazy: pl.LazyFrame = scan_batches(self._pass, bound.schema.polars()) if self.active else frame

    @property
    def drained(self) -> bool:
        """Whether a pass has come to its end: only then do the counts mean anything."""
        with self._lock:
            return self._counts is not None

    def counts(self) -> ScreenCounts:
        """What the rows came to; all zero before a pass is complete."""
        with self._lock:
            return self._counts or ScreenCounts()

    def _pass(self) -> Iterator[pl.DataFrame]:
        one = _Pass(self)
        with self._spool.passed() as spooled, closing(self._verdict.judged()) as judged:
            for judge in judged:
                one.take(judge, spooled)
                yield judge.good
        with self._lock:
            if self._counts is None or one.counts.rows > self._counts.rows:
                self._counts = one.counts

    def judge(self) -> None:
        """Raises ContractError when the drained rows break the contract as a whole.

        When a row broke a rule that fails the run, when more rows were rejected than `max_rejects` or
        `max_reject_share` allow, when there are fewer good rows than `min_rows` or more than `max_rows`. The message
        counts by rule and says where the first rows stand; the details carry all counts.
        """
        if not self.active:
            return
        counts = self.counts()
        if counts.failed:
            raise self._broken(counts, f"{counts.failed} of {counts.rows} rows break the contract")
        parsed = self._parsed_rejects()
        lost = counts.rejected + counts.dropped + parsed
        most, share = self.contract.max_rejects, self.contract.max_reject_share
        if most is not None and lost > most:
            raise self._broken(counts, f"{lost} rows were rejected, the contract allows {most}", parsed=parsed)
        if share is not None and lost > share * (total := counts.rows + parsed):
            said = f"{lost} of {total} rows were rejected ({lost / total:.2%}), the contract allows {share:.2%}"
            raise self._broken(counts, said, parsed=parsed)
        check_rows(self.contract, counts.good)

    def _broken(self, counts: ScreenCounts, said: str, *, parsed: int = 0) -> ContractError:
        where = f"source {self._source!r}: " if self._source else ""
        reasons = [by_rule(counts.by_rule)] if counts.by_rule else []
        reasons += [f"could not be parsed {parsed}"] if parsed else []
        at = f" (first at {', '.join(counts.places)})" if counts.places else ""
        return ContractError(
            f"{where}{said}: {', '.join(reasons)}{at}",
            hint='mend the rows, or say "on_violation": "quarantine" to keep them aside and load the others'
            if counts.failed
            else "look at them with `headrace rejects`, mend the source, or allow more",
            details={**counts.to_dict(), "parse_rejected": parsed, "places": list(counts.places)},
        )

    def rejects(self) -> Iterator[pl.DataFrame]:
        """The rows in quarantine, as frames with the columns of `schema.REJECTS`, once a pass is complete.

        Of the rows that fail a run only the first are kept. Equal rows at an equal place get ids of their own:
        ``<hash>``, ``<hash>-2``…, whatever the order of the batches.
        """
        if self._spool.count == 0:
            return
        spooled = scan_batches(self._spool.frames, REJECTS.polars())
        numbered = """
            SELECT * EXCLUDE (n) REPLACE (CASE n WHEN 1 THEN id ELSE id || '-' || n END AS id)
            FROM (SELECT *, row_number() OVER (PARTITION BY id) AS n FROM spooled)"""
        with spilling() as con:
            con.register("spooled", FrameStream(spooled))
            for batch in con.sql(numbered).arrow(_REJECT_ROWS):
                yield pl.DataFrame(pl.from_arrow(batch)).cast(dict(REJECTS.polars()))

    def close(self) -> None:
        """Delete the rejects from the disk."""
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Pass:
    """The counts of one pass as it goes, and the bad rows written as rejects."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.counts = ScreenCounts()

    def take(self, judge: Judge, spool: SpoolPass) -> None:
        """Count a batch, and keep its bad rows."""
        before = self.counts
        self.counts = replace(
            before,
            rows=before.rows + judge.good.height + judge.bad.height,
            good=before.good + judge.good.height,
            by_rule=before.by_rule + judge.broken if judge.broken else before.by_rule,
            warned=before.warned + judge.warned if judge.warned else before.warned,
        )
        if judge.bad.is_empty():
            return
        failed = judge.bad.filter(judge.actions == "fail")
        quarantined = judge.bad.filter(judge.actions == "quarantine")
        kept = failed.head(max(0, _KEPT - before.failed))
        for rows in (kept, quarantined):
            spool.write(self._rejects(rows))
        self.counts = replace(
            self.counts,
            rejected=before.rejected + quarantined.height,
            failed=before.failed + failed.height,
            dropped=before.dropped + judge.bad.height - failed.height - quarantined.height,
            places=self._places(kept),
        )
        if self.counts.failed > _HOPELESS:
            said = f"more than {_HOPELESS} of the first {self.counts.rows} rows break the contract"
            raise self._screen._broken(self.counts, said)

    def _places(self, rows: pl.DataFrame) -> tuple[str, ...]:
        file, line = self._screen._place
        places = self.counts.places
        if line is None or len(places) >= _SHOWN:
            return places
        found = rows.head(_SHOWN - len(places))
        files = found[file].cast(pl.String).to_list() if file else [None] * found.height
        where = (f"{f}:{n}" if f else f"line {n}" for f, n in zip(files, found[line].to_list(), strict=True))
        return (*places, *where)

    def _rejects(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Bad rows as they came → the columns of `schema.REJECTS`; `id` is still the same for equal rows."""
        screen = self._screen
        raw = screen._verdict.bound.raw
        texts = rows.select(to_text(pl.col(f.name), f.type) for f in raw)
        names = [json.dumps(name, ensure_ascii=False) for name in raw.names]
        written = [_json_object(names, values) for values in texts.iter_rows()]
        file, line = screen._place
        files = rows[file].cast(pl.String).to_list() if file else [None] * rows.height
        lines = rows[line].cast(pl.Int64).to_list() if line else [None] * rows.height
        made = {
            "id": [
                _identity("contract", screen._source, f, n, r) for f, n, r in zip(files, lines, written, strict=True)
            ],
            "stage": ["contract"] * rows.height,
            "source": [screen._source] * rows.height,
            "file": files,
            "line": lines,
            "rules": rows["rules"],
            "row": written,
            "key": self._key_texts(rows),
        }
        return pl.DataFrame(made, schema=REJECTS.polars())

    def _key_texts(self, rows: pl.DataFrame) -> list[str | None]:
        """The keys as they would stand in the target, where they fit; a row without a whole key has none."""
        bound = self._screen._verdict.bound
        if not self._screen._keys:
            return [None] * rows.height
        cast = rows.select(bound.casts.get(k, pl.col(k)).alias(k) for k in self._screen._keys)
        texts = cast.select(to_text(pl.col(k), bound.schema[k]) for k in self._screen._keys)
        return [None if None in key else json.dumps(key, ensure_ascii=False) for key in texts.iter_rows()]


def _json_object(names: Sequence[str], values: Sequence[str | None]) -> str:
    written = ("null" if v is None else json.dumps(v, ensure_ascii=False) for v in values)
    return "{" + ", ".join(f"{n}: {v}" for n, v in zip(names, written, strict=True)) + "}"


def _identity(*parts: str | int | None) -> str:
    return blake2b(json.dumps(parts, ensure_ascii=False).encode(), digest_size=16).hexdigest()

"""A contract in the stream: good rows go on, bad rows go to disk, and at the end there is a verdict.

One pass, flat memory: rows are judged batch by batch on their way to whatever drains the frame. What judges is loaded
where there is something to judge.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from dataclasses import field, replace
from threading import Lock
from typing import TYPE_CHECKING

import polars as pl

from headrace.contract import Contract, Versions
from headrace.errors import ContractError
from headrace.exact import lasting
from headrace.frozen import frozen
from headrace.schema import REJECTS, Schema, reject_id
from headrace.stream import picked, scan_batches
from headrace.stream.drawing import drawn
from headrace.stream.spool import Spool, SpoolPass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from headrace.contract.checks import Bound
    from headrace.contract.verdict import Judge

__all__ = ["Screen", "ScreenCounts"]

_HOPELESS = 1_000_000
_SHOWN = 5
_KEPT = 1_000


@frozen(kw_only=True)
class ScreenCounts:
    """What a whole pass came to, in rows. `by_rule` counts the rows that broke a rule (one row may break several),
    `warned` those that broke a rule which only warns. `rejected` went to quarantine, `dropped` are gone, `failed`
    broke a rule that fails the run. `places` are the first of the failed: ``file:line``, where rows have a place.
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
    What `counts` and `rejects` say is true once it has been drained to the end; draining twice does not count twice.

    `source` is the source whose contract this is (None: the result's). `place` are the columns of `frame` that hold
    a row's file and line; they are for rejects, and are not among the good rows' columns. `keys` are the columns whose
    texts a reject carries as its key; those that are `required` (by default all of them) break the rule
    ``"<key>: null"`` where they are NULL, with or without a contract. `existing` gives columns of the target's rows,
    among which a value of a ``unique`` column must not stand either; `versions` which rows are versions of one.

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
        place: tuple[str, str] | None = None,
        keys: Sequence[str] = (),
        required: Sequence[str] | None = None,
        existing: Callable[[Sequence[str]], pl.LazyFrame] | None = None,
        versions: Versions | None = None,
    ) -> None:
        self.contract = contract or Contract()
        required = keys if required is None else required
        self.active = contract is not None or bool(required)
        self._spool = Spool()
        self._lock = Lock()
        self._counts: ScreenCounts | None = None
        self._parsed = _Parsed(contract=self.contract)
        self._source = source
        if not self.active:
            self.lazy: pl.LazyFrame = frame.drop(place) if place else frame
            self.schema: Schema = Schema.of_polars(self.lazy.collect_schema())
            return
        from headrace.contract.verdict import Verdict

        self._verdict = Verdict(self.contract, frame, keys=required, existing=existing, versions=versions or Versions())
        bound = self._verdict.bound
        self._origin = _Origin(bound=bound, source=source, place=place, keys=tuple(keys))
        self.schema = Schema(tuple(f for f in bound.schema if f.name not in (place or ())))
        self.lazy = scan_batches(self._pass, self.schema.polars())

    @property
    def drained(self) -> bool:
        """Whether a pass has come to its end: only then do the counts mean anything."""
        with self._lock:
            return self._counts is not None

    def counts(self) -> ScreenCounts:
        """What the rows came to; all zero before a pass is complete."""
        with self._lock:
            return self._counts or ScreenCounts()

    def count_parsed(self, count: int, contract: Contract, *, rows: int) -> None:
        """`count` lines could not be read, beside `rows` that could: they weigh in the ceilings of `contract`."""
        self._parsed = _Parsed(count=count, rows=rows, contract=contract)

    def _pass(self) -> Iterator[pl.DataFrame]:
        counts = ScreenCounts()
        with self._spool.passed() as spooled, closing(self._verdict.judged()) as judged:
            for judge in judged:
                counts = self._counted(counts, judge, spooled)
                yield picked(judge.good, self.schema.names)
        with self._lock:
            if self._counts is None or counts.rows > self._counts.rows:
                self._counts = counts

    def _counted(self, before: ScreenCounts, judge: Judge, spool: SpoolPass) -> ScreenCounts:
        """The counts with this batch, whose bad rows are kept."""
        counts = replace(
            before,
            rows=before.rows + judge.good.height + judge.bad.height,
            good=before.good + judge.good.height,
            by_rule=before.by_rule + judge.broken if judge.broken else before.by_rule,
            warned=before.warned + judge.warned if judge.warned else before.warned,
        )
        if judge.bad.is_empty():
            return counts
        failed = judge.bad.filter(judge.actions == "fail")
        quarantined = judge.bad.filter(judge.actions == "quarantine")
        kept = failed.head(max(0, _KEPT - before.failed))
        for rows in (kept, quarantined):
            spool.write(self._origin.rejects(rows, judge.rules(rows)))
        counts = replace(
            counts,
            rejected=before.rejected + quarantined.height,
            failed=before.failed + failed.height,
            dropped=before.dropped + judge.bad.height - failed.height - quarantined.height,
            places=(*before.places, *self._origin.places(kept.head(_SHOWN - len(before.places)))),
        )
        if counts.failed > _HOPELESS:
            raise self._broken(counts, f"more than {_HOPELESS:,} of the first {counts.rows:,} rows break the contract")
        return counts

    def judge(self, *, bounded: bool = True) -> None:
        """Raises ContractError when the rows break the contract as a whole.

        When a row broke a rule that fails the run, when more rows were rejected than `max_rejects` or
        `max_reject_share` allow, when there are fewer good rows than `min_rows` or more than `max_rows`. The message
        counts by rule and says where the first rows stand; the details carry all counts. Not `bounded` are rows that
        are no load of their own: only a rule that fails the run counts.

        What has not been drained to its end (a LIMIT, a join whose other side is empty) is drained here: rows that
        nobody asked for are read from the source all the same, so they are judged.
        """
        if self.active and not self.drained:
            for _ in drawn(self.lazy):
                pass
        counts, parsed = self.counts(), self._parsed
        if counts.failed:
            raise self._broken(counts, f"{counts.failed:,} of {counts.rows:,} rows break the contract")
        if not bounded:
            return
        lost = counts.rejected + counts.dropped + parsed.count
        total = (counts.rows if self.active else parsed.rows) + parsed.count
        most, share = parsed.contract.max_rejects, parsed.contract.max_reject_share
        if most is not None and lost > most:
            raise self._broken(counts, f"{lost:,} rows were rejected, the contract allows {most:,}")
        if share is not None and lost > share * total:
            said = f"{lost:,} of {total:,} rows were rejected ({lost / total:.2%}), the contract allows {share:.2%}"
            raise self._broken(counts, said)
        if self.active:
            from headrace.contract.verdict import check_rows

            check_rows(self.contract, counts.good)

    def _broken(self, counts: ScreenCounts, said: str) -> ContractError:
        from headrace.contract.verdict import by_rule

        source, parsed = self._source, self._parsed.count
        where = f"source {source!r}: " if source else ""
        reasons = [by_rule(counts.by_rule)] if counts.by_rule else []
        reasons += [f"malformed {parsed:,}"] if parsed else []
        at = f" (first at {', '.join(counts.places)})" if counts.places else ""
        return ContractError(
            f"{where}{said}: {', '.join(reasons)}{at}",
            hint='mend the rows, or say "on_violation": "quarantine" to keep them aside and load the others'
            if counts.failed
            else "mend the source, or allow more",
            details={**counts.to_dict(), "malformed": parsed, "places": list(counts.places)},
        )

    def rejects(self) -> Iterator[pl.DataFrame]:
        """The rows in quarantine, as frames with the columns of `schema.REJECTS`, once a pass is complete.

        Of the rows that fail a run only the first are kept. Equal rows at an equal place have ids of their own.
        """
        if self._spool.count == 0:
            return
        from headrace.stream.numbering import numbered

        yield from numbered(self._spool.frames)

    def close(self) -> None:
        """Delete the rejects from the disk."""
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@frozen(kw_only=True)
class _Parsed:
    """What the parser rejected, and whose ceilings it weighs in."""

    count: int = 0
    rows: int = 0
    contract: Contract


@frozen(kw_only=True)
class _Origin:
    """Where rows come from and how they are named, for rejects."""

    bound: Bound
    source: str | None
    place: tuple[str, str] | None
    keys: tuple[str, ...]

    def places(self, rows: pl.DataFrame) -> list[str]:
        """``file:line`` of each row, where rows have a place."""
        return [f"{file}:{line}" for file, line in zip(*self._place(rows), strict=True) if file is not None]

    def rejects(self, rows: pl.DataFrame, rules: pl.Series) -> pl.DataFrame:
        """Bad rows as they came, and the rules of each → the columns of `schema.REJECTS`; equal rows have equal ids."""
        fields = [f for f in self.bound.raw if f.name not in (self.place or ())]
        texts = rows.select(lasting(pl.col(f.name), f.type).alias(f.name) for f in fields)
        values = list(texts.iter_rows(named=True))
        files, lines = self._place(rows)
        places = zip(files, lines, values, strict=True)
        made = {
            "id": [reject_id("contract", self.source, file, line, row) for file, line, row in places],
            "stage": ["contract"] * rows.height,
            "source": [self.source] * rows.height,
            "file": files,
            "line": lines,
            "rules": rules,
            "row": [json.dumps(row, ensure_ascii=False) for row in values],
            "key": self._key_texts(rows),
        }
        return pl.DataFrame(made, schema=REJECTS.polars())

    def _place(self, rows: pl.DataFrame) -> tuple[list[str | None], list[int | None]]:
        if self.place is None:
            return [None] * rows.height, [None] * rows.height
        file, line = self.place
        return rows[file].cast(pl.String).to_list(), rows[line].cast(pl.Int64).to_list()

    def _key_texts(self, rows: pl.DataFrame) -> list[str | None]:
        """The keys as they would stand in the target; a row without a whole key has none."""
        if not self.keys:
            return [None] * rows.height
        cast = rows.select(self.bound.casts.get(k, pl.col(k)).alias(k) for k in self.keys)
        types = {k: self.bound.schema[k] for k in self.keys}
        texts = cast.select(lasting(pl.col(k), t) for k, t in types.items())
        return [None if None in key else json.dumps(key, ensure_ascii=False) for key in texts.iter_rows()]

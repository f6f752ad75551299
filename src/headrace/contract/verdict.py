"""A contract's verdict on rows, batch by batch: the good ones cast, the bad ones as they came with their reasons.

One boolean expression over the batch says which rows are good. Only where some are not are the rules asked one by
one, and only for those rows.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import polars as pl

from headrace.contract import Versions
from headrace.contract.checks import RAW, Bound, Check, bind
from headrace.contract.repeats import Repeats
from headrace.errors import ContractError, SchemaError
from headrace.frozen import frozen
from headrace.stream import picked, scan_batches
from headrace.stream.drawing import drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from headrace.contract import Contract
    from headrace.contract.sqlrules import SQLEvaluation

__all__ = ["Judge", "Verdict", "check", "split"]

_ACTION = "\0action"
_RULES = "\0rules"
_HARD = "\0hard"
_ACTIONS = ("fail", "quarantine", "drop")
_ENOUGH_BYTES = 16 << 20
_MANY = 256  # frames: what one takes by itself is in no size
_SEVERAL = 8  # frames: more in one are handed on as small ones
_FEW = 16  # rows


@frozen(kw_only=True)
class Judge:
    """What a batch came to.

    `good` has the contract's types. `bad` are the others as they came, and beside them `rules` and `actions`.
    `broken` counts rows by rule, `warned` those by rules that only warn.
    """

    good: pl.DataFrame
    bad: pl.DataFrame
    broken: Counter[str]
    warned: Counter[str]

    @property
    def actions(self) -> pl.Series:
        """What becomes of each row of `bad`, the gravest that its rules ask for: ``fail``, ``quarantine``, ``drop``."""
        return self.bad[_ACTION]

    @staticmethod
    def rules(bad: pl.DataFrame) -> pl.Series:
        """The rules that rows of `bad` break: lists of texts."""
        return bad[_RULES]

    @property
    def told(self) -> pl.DataFrame:
        """`bad` with the rules as a column ``rules``."""
        return self.bad.drop(_ACTION).rename({_RULES: "rules"})


_ONE = Versions()


class Verdict:
    """A contract over one re-openable frame.

    `existing` gives columns of the rows in the target, among which a value of a ``unique`` column must not stand
    either. Raises what `checks.bind` raises.
    """

    def __init__(
        self,
        contract: Contract,
        frame: pl.LazyFrame,
        *,
        keys: Sequence[str] = (),
        existing: Callable[[Sequence[str]], pl.LazyFrame] | None = None,
        versions: Versions = _ONE,
    ) -> None:
        self._versions = versions
        self.bound: Bound = bind(contract, frame.collect_schema(), keys=keys)
        self._frame = frame
        self._existing = existing
        self._no_rows = pl.DataFrame(schema={**self.bound.raw.polars(), _RULES: pl.List(pl.String), _ACTION: pl.String})
        self._hard = [c for c in self.bound.checks if c.action != "warn"]
        self._soft = [c for c in self.bound.checks if c.action == "warn"]
        self._lock = Lock()
        self._repeats: Repeats | None = None

    def judged(self) -> Generator[Judge]:
        """One pass over the frame. Reads the columns that must not repeat beforehand, once for all passes."""
        with self.opened() as judge, closing(drawn(self._frame)) as drawing:
            for rows in _together(drawing):
                yield judge(rows)

    @contextmanager
    def opened(self) -> Iterator[Callable[[pl.DataFrame], Judge]]:
        """The judge of one pass."""
        repeats = self._all_repeats()
        with ExitStack() as stack:
            sql = stack.enter_context(self.bound.sql.open())
            yield lambda rows: self._safely(rows, sql, repeats)

    def _all_repeats(self) -> Repeats | None:
        if not self.bound.unique:
            return None
        with self._lock:
            if self._repeats is None:
                casts = [e.alias(n) for n, e in self.bound.casts.items()]
                cast = self._frame.with_columns(casts)
                sets = {name: self._versions.apart(columns) for name, columns in self.bound.unique.items()}
                self._repeats = Repeats(cast, self.bound.schema, sets, self._existing)
            return self._repeats

    def _safely(self, rows: pl.DataFrame, sql: SQLEvaluation, repeats: Repeats | None) -> Judge:
        try:
            return self._judge(rows, sql, repeats)
        except pl.exceptions.PolarsError as error:  # its words quote values
            kind = type(error).__name__.removesuffix("Error")
            raise ContractError(
                f"a rule of the contract failed on a value ({kind})",
                hint="cast with strict=False, or guard the value: a NULL passes",
            ) from error

    def _judge(self, rows: pl.DataFrame, sql: SQLEvaluation, repeats: Repeats | None) -> Judge:
        casts = self.bound.casts
        wide = rows
        if casts:
            raw = [pl.col(n).alias(RAW + n) for n in casts]
            wide = rows.with_columns(*raw, *(e.alias(n) for n, e in casts.items()))
        if computed := [*sql.columns(wide), *(repeats.columns(wide) if repeats else ())]:
            wide = wide.with_columns(computed)
        warned = _counts(wide, self._soft)
        names = self.bound.schema.names
        hard = wide.with_columns(_any(self._hard).alias(_HARD))[_HARD]
        if not hard.any():
            return Judge(good=picked(wide, names), bad=self._no_rows, broken=Counter(), warned=warned)
        bad = wide.filter(hard)
        told = bad.with_columns(_reasons(self._hard + self._soft), _gravest(self._hard)).select(_RULES, _ACTION)
        return Judge(
            good=_without(picked(wide, names), hard),
            bad=rows.filter(hard).with_columns(told.get_columns()),
            broken=_counts(bad, self._hard),
            warned=warned,
        )


def _together(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in ever larger frames, up to some `_ENOUGH_BYTES`: to ask anything of a frame costs as much as to
    judge thousands of rows. The first comes at once: whoever looks at a few rows reads no more.
    """
    held: list[pl.DataFrame] = []
    size = enough = 0
    for frame in frames:
        held.append(frame)
        size += int(frame.estimated_size())
        if size >= enough or len(held) >= _MANY:
            yield pl.concat(held, rechunk=len(held) > _SEVERAL)
            held, size, enough = [], 0, min(_ENOUGH_BYTES, 2 * size)
    if held:
        yield pl.concat(held, rechunk=len(held) > _SEVERAL)


def _without(rows: pl.DataFrame, bad: pl.Series) -> pl.DataFrame:
    """The rows that are not bad. Few bad ones are cut out: a filter copies all the others."""
    at = bad.arg_true()
    if len(at) > _FEW:
        return rows.filter(~bad)
    begins = [0, *(place + 1 for place in at)]
    return pl.concat([rows[begin:end] for begin, end in zip(begins, [*at, rows.height], strict=True)], rechunk=False)


def _any(checks: Sequence[Check]) -> pl.Expr:
    if not checks:
        return pl.lit(value=False)
    return pl.any_horizontal([c.broken for c in checks]).fill_null(value=False)


def _counts(rows: pl.DataFrame, checks: Sequence[Check]) -> Counter[str]:
    if not checks or rows.is_empty():
        return Counter()
    counted = rows.select(c.broken.sum().alias(f"{i}") for i, c in enumerate(checks)).row(0)
    found: Counter[str] = Counter()
    for one, count in zip(checks, counted, strict=True):
        found[one.name] += count
    return +found


def _reasons(checks: Sequence[Check]) -> pl.Expr:
    names = [pl.when(c.broken).then(pl.lit(c.name)).otherwise(None).cast(pl.String) for c in checks]
    return pl.concat_list(names).list.drop_nulls().alias(_RULES)


def _gravest(checks: Sequence[Check]) -> pl.Expr:
    chosen = pl.lit("drop")
    for action in ("quarantine", "fail"):
        chosen = pl.when(_any([c for c in checks if c.action == action])).then(pl.lit(action)).otherwise(chosen)
    return chosen.alias(_ACTION)


def split(
    contract: Contract, frame: pl.DataFrame | pl.LazyFrame
) -> tuple[pl.DataFrame, pl.DataFrame] | tuple[pl.LazyFrame, pl.LazyFrame]:
    """`Contract.split`."""
    verdict = Verdict(contract, frame.lazy())
    if "rules" in verdict.bound.raw:
        raise SchemaError(
            "the rows have a column 'rules', as the reasons of bad rows are called",
            hint="rename it before they are split",
        )
    if isinstance(frame, pl.DataFrame):
        with verdict.opened() as judge:
            judged = judge(frame)
        return judged.good, judged.told
    raw = {**verdict.bound.raw.polars(), "rules": pl.List(pl.String())}
    good = scan_batches(lambda: (j.good for j in verdict.judged()), verdict.bound.schema.polars())
    return good, scan_batches(lambda: (j.told for j in verdict.judged()), raw)


def check(contract: Contract, frame: pl.DataFrame | pl.LazyFrame) -> None:
    """`Contract.check`."""
    broken: Counter[str] = Counter()
    good = bad = 0
    for judged in Verdict(contract, frame.lazy()).judged():
        broken += judged.broken
        good += judged.good.height
        bad += judged.bad.height
    if bad:
        raise ContractError(
            f"{bad} of {good + bad} rows break the contract: {by_rule(broken)}",
            hint="contract.split(frame) gives the bad rows with their reasons",
            details={"rows": good + bad, "bad": bad, "by_rule": dict(broken)},
        )
    check_rows(contract, good)


def check_rows(contract: Contract, rows: int) -> None:
    """Raises ContractError when `rows` are fewer or more than the contract allows."""
    if contract.min_rows is not None and rows < contract.min_rows:
        said, key = f"only {rows} good rows, the contract wants at least {contract.min_rows}", "min_rows"
    elif contract.max_rows is not None and rows > contract.max_rows:
        said, key = f"{rows} good rows, the contract allows {contract.max_rows}", "max_rows"
    else:
        return
    raise ContractError(said, hint=f'look at the source, or change "{key}"', details={"rows": rows})


def by_rule(counts: Counter[str], *, most: int = 10) -> str:
    """Counts by rule for a message, the largest first."""
    listed = [f"{name} {count}" for name, count in sorted(counts.items(), key=lambda c: (-c[1], c[0]))]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more rules" if len(listed) > most else "")

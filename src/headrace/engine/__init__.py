"""The engine: the verbs. One loop, stopped before `apply` by `plan`, `check` and `preview`.

hold the target -> inspect it -> make increments -> apply each -> confirm the sources -> record the run
"""

from __future__ import annotations

import resource
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.engine.decisions import guarantee, reading, refuse_start
from headrace.engine.increment import Increment, increments
from headrace.errors import ConfigError, ConflictError, HeadraceError, UnavailableError
from headrace.events import CommitApplied, Event, Observer, Progress, RunFinished, RunStarted, Warned
from headrace.flow import Batch, Commit, Position, Receipt, Snapshot
from headrace.report import CheckReport, CommitReport, Plan, RunReport, Status
from headrace.retry import Retry
from headrace.schema import in_words
from headrace.secret import masked
from headrace.stream import original
from headrace.transform import transform
from headrace.writes import Recompute, Replace

if TYPE_CHECKING:
    import polars as pl

    from headrace.pipeline import Pipeline

T = TypeVar("T")

__all__ = ["check", "history", "plan", "preview", "rejects", "run", "running"]

_WAIT_POLL = 0.2
_PROGRESS_EVERY = 0.5


def run(
    pipeline: Pipeline,
    *,
    full_refresh: bool = False,
    discard_history: bool = False,
    observers: Sequence[Observer] = (),
    wait: float = 0.0,
    timeout: float | None = None,
    retry: Retry | None = None,
) -> RunReport:
    """Load what is new, in commits that are applied wholly or not at all.

    `full_refresh` reads everything again into an emptied table, in one step (with `commit_every` in several: the
    first one empties the table, and a warning says so). `wait`: seconds to wait for
    another run of the same target. `timeout`: seconds after which the run stops between two batches, with
    nothing of the commit kept. `retry` says how often an UnavailableError is tried again.

    Raises HeadraceError: nothing of the failed commit is in the target, and the next run carries on.
    """
    with running(pipeline, observers=observers, wait=wait, timeout=timeout) as this:

        def attempt() -> None:
            snapshot = this.inspect()
            refuse_start(pipeline, snapshot, full_refresh=full_refresh, discard_history=discard_history)
            how = reading(pipeline, full_refresh=full_refresh and not this.commits)
            with closing(
                increments(pipeline, snapshot, how, run=this.run, inspect=this.inspect, watch=this.watch)
            ) as all:
                for increment in all:
                    this.apply(increment)

        patience = retry or Retry()
        (patience if timeout is None else replace(patience, timeout=timeout)).call(attempt)
    return this.report()


@dataclass
class Running:
    """One run under way: what it has done so far, and who watches."""

    pipeline: Pipeline
    observers: Sequence[Observer]
    run: str
    deadline: float | None
    began: float
    started: str
    rows: int = 0
    said: float = 0.0
    commits: list[CommitReport] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pending: Commit | None = None
    current: Increment | None = None

    def tell(self, kind: Callable[..., Event], **facts: Any) -> None:
        """Tell the observers."""
        event = kind(pipeline=self.pipeline.name, run=self.run, **facts)
        for observer in self.observers:
            observer(event)

    def warn(self, message: str) -> None:
        """Something to be said and kept in the report; once."""
        message = masked(message)
        if message not in self.warnings:
            self.warnings.append(message)
            self.tell(Warned, message=message)

    def inspect(self) -> Snapshot:
        """What the target holds. A commit whose answer was lost is settled first, and not made twice."""
        if self.pending is not None and (receipt := self.settled(self.pending)) is not None:
            self.applied(receipt)
        self.pending = None
        snapshot = self.pipeline.destination.inspect(self.pipeline.name)
        for name in self.pipeline.named_sources:
            if (position := snapshot.positions.get(name)) is not None:
                self.confirm(name, position)  # a run that died after its commit may not have come to it
        return snapshot

    def settled(self, commit: Commit) -> Receipt | None:
        """What became of a commit whose end is in doubt."""
        return self.pipeline.destination.settle(commit.pipeline, commit.id)

    def confirm(self, name: str, position: Position) -> None:
        """Tell a source that its position is durable. It is committed already: what fails here can only be said."""
        try:
            self.pipeline.named_sources[name].confirm(position)
        except HeadraceError as error:
            self.warn(f"{name!r} could not be told that the commit is durable, the next run will: {error.message}")

    def watch(self, rows: int) -> None:
        """Rows pass to the destination: the place where a run can be stopped, and progress is told."""
        now = time.monotonic()
        self.rows += rows
        if self.deadline is not None and now > self.deadline:
            raise UnavailableError(
                "the run has used up its --timeout", hint="nothing of this commit was kept; the next run carries on"
            )
        if now - self.said > _PROGRESS_EVERY:
            self.said = now
            self.tell(
                Progress, rows=self.rows, bytes=self._bytes(), files=self._files(), files_total=self._files_total()
            )

    def _bytes(self) -> int:
        return sum(b.counts().bytes for b in self.current.batches.values()) if self.current else 0

    def _files(self) -> int:
        return sum(b.counts().files for b in self.current.batches.values()) if self.current else 0

    def _files_total(self) -> int:
        return sum(len(b.news.files) for b in self.current.batches.values()) if self.current else 0

    def apply(self, increment: Increment) -> None:
        """Apply one increment, unless nothing is new in it."""
        self.current = increment
        try:
            for warning in increment.warnings:
                self.warn(warning)
            if increment.empty:
                return
            self.pending = increment.commit
            receipt = self._receipt(increment)
            self.pending = None
            self.applied(receipt, changes=in_words(increment.change.changes))
            for name, position in ((n, increment.batches[n].position()) for n in increment.drivers):
                self.confirm(name, position)
        finally:
            self.current = None
            increment.close()

    def _receipt(self, increment: Increment) -> Receipt:
        try:
            return _drained(lambda: self.pipeline.destination.apply(increment.commit), increment)
        except ConflictError:
            if (
                receipt := self.settled(increment.commit)
            ) is None:  # else what has moved the target was this very commit
                raise
            return receipt

    def applied(self, receipt: Receipt, *, changes: Sequence[str] = ()) -> None:
        """A commit is durable: keep it for the report, and tell."""
        read = receipt.record.get("read", {})
        self.commits.append(
            CommitReport(id=receipt.id, number=receipt.number, counts=receipt.counts, read=read, changes=tuple(changes))
        )
        for rule, count in receipt.record.get("warned", {}).items():
            self.warn(f"{count:,} rows break {rule}")
        self.tell(
            CommitApplied,
            number=receipt.number,
            rows=receipt.counts.get("rows", 0),
            rejected=receipt.counts.get("rejected", 0),
        )

    def report(self, error: HeadraceError | None = None) -> RunReport:
        """What the run has done so far."""
        status: Status = "failed" if error else "loaded" if self.commits else "nothing_new"
        return RunReport(
            pipeline=self.pipeline.name,
            run=self.run,
            status=status,
            target=target(self.pipeline),
            started=self.started,
            seconds=round(time.monotonic() - self.began, 3),
            peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            commits=tuple(self.commits),
            warnings=tuple(self.warnings),
            error=error.to_dict() if error else None,
        )

    def close(self, error: HeadraceError | None) -> None:
        """Tell the end, and keep it in the ledger as well as can be."""
        report = self.report(error)
        self.tell(RunFinished, status=report.status, seconds=report.seconds, error=report.to_dict()["error"])
        row = report.to_dict()
        row.update(kind="run", host=socket.gethostname())
        try:
            self.pipeline.destination.record(row)
        except HeadraceError as failure:
            self.warn(f"the run could not be recorded: {failure.message}")


@contextmanager
def running(
    pipeline: Pipeline, *, observers: Sequence[Observer] = (), wait: float = 0.0, timeout: float | None = None
) -> Iterator[Running]:
    """A run from its first event to its record, holding the target in between."""
    if (hint := pipeline.destination.supports(pipeline.write.type)) is not None:
        raise ConfigError(f"{target(pipeline)} cannot take the write {pipeline.write.type!r}", hint=hint)
    now = datetime.now(UTC)
    this = Running(
        pipeline=pipeline,
        observers=observers,
        run=f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
        deadline=None if timeout is None else time.monotonic() + timeout,
        began=time.monotonic(),
        started=now.isoformat(timespec="milliseconds"),
    )
    this.tell(RunStarted)
    try:
        with _held(pipeline, this, wait):
            try:
                yield this
            except HeadraceError as error:
                error.report = this.report(error)
                this.close(error)
                raise
            else:
                this.close(None)
    except ConflictError as error:
        if not this.commits and "pid" in error.details:
            error.report = this.report(error)
            this.tell(RunFinished, status="failed", seconds=time.monotonic() - this.began, error=error.to_dict())
        raise


@contextmanager
def _held(pipeline: Pipeline, holder: Running, wait: float) -> Iterator[None]:
    """Hold the target, waiting for another run for as long as `wait` says."""
    until = time.monotonic() + wait
    while True:
        hold = pipeline.destination.hold(pipeline.name, holder)
        try:
            hold.__enter__()
            break
        except ConflictError:
            if time.monotonic() >= until:
                raise
            time.sleep(_WAIT_POLL)
    try:
        yield
    finally:
        hold.__exit__(None, None, None)


def _drained(work: Callable[[], T], increment: Increment) -> T:
    """What the work gives; an exception that was raised inside a stream comes out as it was, a transform's as its."""
    try:
        return work()
    except HeadraceError:
        raise
    except Exception as error:
        found = original(error) or error
        if (failure := increment.transformed.blamed(found)) is not None:
            raise failure from found
        if found is error:
            raise
        raise found from None


def target(pipeline: Pipeline) -> str:
    """The target in words: its kind, its place and its table."""
    destination = pipeline.destination
    place = getattr(destination, "path", None)
    table = getattr(destination, "table", None)
    kind = getattr(destination, "type", type(destination).__name__)
    return " ".join(str(part) for part in (kind, place, table) if part is not None)


def plan(pipeline: Pipeline, *, full_refresh: bool = False, explain: bool = False) -> Plan:
    """All that `run` would do now, without writing. Raises what `run` would raise before it reads rows."""
    with _first(pipeline, full_refresh=full_refresh) as (increment, snapshot):
        misses = [f"{n}: {b.news.misses}" for n, b in increment.batches.items() if b.news.misses]
        at_once = getattr(pipeline.destination, "at_once", "one transaction")
        settled = replace(pipeline, write=increment.change.write)
        promise, because = guarantee(settled, at_once=at_once, misses=misses)
        return Plan(
            pipeline=pipeline.name,
            status="nothing_new" if increment.empty else "load",
            target=target(pipeline),
            write=_write_words(increment),
            sources={n: _news_words(increment, n) for n in increment.batches},
            schema=increment.change.schema.to_json(),
            changes=_ddl(pipeline, increment),
            guarantee=promise,
            because=because,
            commit=snapshot.number + 1,
            warnings=increment.warnings,
            query=increment.screen.lazy.explain() if explain else None,
        )


def check(pipeline: Pipeline) -> CheckReport:
    """Whether the pipeline would run, as far as can be known without reading its data: config, files,
    the transforms' schema against contract and target. Raises what is wrong.
    """
    with _first(pipeline, full_refresh=False) as (increment, _):
        return CheckReport(
            pipeline=pipeline.name,
            target=target(pipeline),
            schema=increment.change.schema.to_json(),
            changes=_ddl(pipeline, increment),
            warnings=increment.warnings,
        )


def preview(pipeline: Pipeline, *, step: str | None = None, limit: int = 10) -> pl.DataFrame:
    """The first rows of the result, or of the source or step called `step`. Writes nothing.

    Reads as if nothing had been loaded yet, so that there is something to see.
    """
    how = replace(reading(pipeline, full_refresh=False), batch_bytes=None)
    with closing(increments(pipeline, Snapshot(), how, run="preview")) as every, closing(next(every)) as increment:
        if step is None:
            lazy = increment.screen.lazy
        else:
            frames = {n: s.lazy for n, s in increment.screens.items()}
            previous = next(iter(frames)) if len(frames) == 1 else None
            lazy = transform(
                pipeline.steps, frames, previous=previous, params=pipeline.params, base=pipeline.base, until=step
            ).lazy
        return _drained(lambda: lazy.head(limit).collect(), increment)


def history(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Commits and runs of the pipeline, newest first."""
    return [dict(row) for row in pipeline.destination.history(pipeline.name)]


def rejects(pipeline: Pipeline) -> pl.DataFrame:
    """The rows now in quarantine, with the columns of `schema.REJECTS`."""
    return pipeline.destination.rejects(pipeline.name)


@contextmanager
def _first(pipeline: Pipeline, *, full_refresh: bool) -> Iterator[tuple[Increment, Snapshot]]:
    """The first increment that a run would make now, and what it starts from."""
    if (hint := pipeline.destination.supports(pipeline.write.type)) is not None:
        raise ConfigError(f"{target(pipeline)} cannot take the write {pipeline.write.type!r}", hint=hint)
    snapshot = pipeline.destination.inspect(pipeline.name)
    refuse_start(pipeline, snapshot, full_refresh=full_refresh, discard_history=True)
    how = reading(pipeline, full_refresh=full_refresh)
    with closing(increments(pipeline, snapshot, how, run="plan")) as every, closing(next(every)) as increment:
        yield increment, snapshot


def _write_words(increment: Increment) -> dict[str, Any]:
    write = increment.change.write
    words = {k: v for k, v in vars(write).items() if v not in ((), None, False)}
    if write.type == "recompute":
        words["groups"] = f"all, because {increment.rebuilt}" if increment.rebuilt else "those that the new rows touch"
    return {"type": write.type, **words}


def _news_words(increment: Increment, name: str) -> dict[str, Any]:
    batch = increment.batches[name]
    news = batch.news
    return {
        "reads": _reads(increment, batch),
        "files": [f.name for f in news.files],
        "rows": news.rows,
        "bytes": news.bytes,
        **news.facts,
    }


def _reads(increment: Increment, batch: Batch) -> str:
    if batch.complete or increment.change.fresh:
        return "all of it"
    if not isinstance(increment.change.write, Replace | Recompute):
        return "what is new"
    again = "the groups that it touches" if increment.change.groups else "all that was read before"
    return f"what is new, and with it {again}"


def _ddl(pipeline: Pipeline, increment: Increment) -> tuple[str, ...]:
    ddl = getattr(pipeline.destination, "ddl", None)
    if increment.empty or not increment.change.changes:
        return ()
    return tuple(ddl(increment.change)) if ddl is not None else tuple(in_words(increment.change.changes))

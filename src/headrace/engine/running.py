"""One run under way: from its first event to its record, holding the target in between."""

from __future__ import annotations

import resource
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from headrace import interruption
from headrace.engine.increment import Context
from headrace.errors import ConfigError, ConflictError, HeadraceError, UnavailableError, UnheldError
from headrace.events import CommitApplied, Event, Observer, Progress, RunFinished, RunStarted, Warned
from headrace.flow import Batch, Commit, Counts, Position, Receipt, Snapshot
from headrace.report import CommitReport, RunReport, Status
from headrace.retry import Retry, RetryDetails
from headrace.schema import in_words
from headrace.secret import masked
from headrace.stream import original
from headrace.traits import DestinationTraits

if TYPE_CHECKING:
    from headrace.engine.bundle import Bundle
    from headrace.engine.increment import Increment
    from headrace.pipeline import Pipeline

T = TypeVar("T")

__all__ = ["Running", "drained", "running", "target", "widened"]

_WAIT_POLL = 0.2
_PROGRESS_EVERY = 0.5


@dataclass
class Running:
    """One run under way: what it has done so far, and who watches. `durable` are the ledger's positions, as the sources
    were told them.
    """

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
    as_text: dict[str, frozenset[str]] = field(default_factory=dict)
    durable: Mapping[str, Position] = field(default_factory=dict)
    pending: Commit | None = None
    current: Increment | Bundle | None = None
    read: Counts = field(default_factory=Counts)
    closed: bool = False
    closing: threading.Lock = field(default_factory=threading.Lock)

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

    def heed(self, error: UnheldError) -> None:
        """The next attempt reads these columns as text. Raises the error where this one did so already."""
        self.as_text.update(widened(self.as_text, error))
        self.warn(f"{error.message}; read as text")

    def heeding(self, load: Callable[[], None]) -> None:
        """Load, and again where a value does not fit its column: what is `as_text` then is read as text."""
        while True:
            try:
                return load()
            except UnheldError as error:
                self.heed(error)

    def patient(self, retry: Retry) -> Retry:
        """The retry within the run's own time, that tells what has failed before it waits."""

        def told(details: RetryDetails) -> None:
            error = details.error
            what = error.message if isinstance(error, HeadraceError) else type(error).__name__
            interruption.heed()
            self.warn(f"attempt {details.attempt} of {details.attempts} failed, again in {details.wait:.1f} s: {what}")
            if retry.on_retry is not None:
                retry.on_retry(details)

        left = None if self.deadline is None else max(self.deadline - time.monotonic(), _PROGRESS_EVERY)
        within = min(filter(None, (left, retry.timeout)), default=None)
        return replace(retry, timeout=within, on_retry=told, sleep=retry.sleep or interruption.pause)

    @property
    def context(self) -> Context:
        """What its increments are made in."""
        return Context(run=self.run, inspect=self.inspect, watch=self.watch)

    def inspect(self) -> Snapshot:
        """What the target holds. A commit whose answer was lost is settled first, and not made twice."""
        interruption.heed()
        if self.pending is not None and (receipt := self.settled(self.pending)) is not None:
            self.applied(receipt)
        self.pending = None
        snapshot = self.pipeline.destination.inspect(self.pipeline.name)
        if snapshot.positions != self.durable:  # a run that died after its commit may not have come to it
            self.confirm(snapshot.positions)
        return snapshot

    def settled(self, commit: Commit) -> Receipt | None:
        """What became of a commit whose end is in doubt."""
        return self.pipeline.destination.settle(commit.pipeline, commit.id)

    def confirm(self, positions: Mapping[str, Position]) -> None:
        """Tell the sources what is durable of them. It is committed already: what fails here can only be said."""
        self.durable = positions
        for name, source in self.pipeline.named_sources.items():
            held = {n: at for n, at in positions.items() if self.pipeline.tables or n == name}
            try:
                if held:
                    source.confirm(held)
            except HeadraceError as error:
                self.warn(f"{name!r} could not be told that the commit is durable, the next run will: {error.message}")

    def watch(self, rows: int) -> None:
        """Rows pass to the destination: the place where a run can be stopped, and progress is told."""
        interruption.heed()
        now = time.monotonic()
        self.rows += rows
        if self.deadline is not None and now > self.deadline:
            raise UnavailableError(
                "the run has used up its --timeout", hint="nothing of this commit was kept; the next run carries on"
            )
        if now - self.said > _PROGRESS_EVERY:
            self.said = now
            read, total = self._so_far(), self.read.files + sum(len(b.news.files) for b in self._batches)
            self.tell(Progress, rows=self.rows, bytes=read.bytes, files=read.files, files_total=total)

    @property
    def _batches(self) -> Sequence[Batch]:
        return () if self.current is None else tuple(self.current.batches.values())

    def _so_far(self) -> Counts:
        """What the run has read, with the commits before."""
        now = [batch.counts() for batch in self._batches]
        return Counts(
            bytes=self.read.bytes + sum(one.bytes for one in now), files=self.read.files + sum(one.files for one in now)
        )

    def apply(self, increment: Increment | Bundle) -> None:
        """Apply one increment, unless nothing is new in it."""
        self.current = increment
        try:
            interruption.heed()
            for warning in increment.warnings:
                self.warn(warning)
            if increment.empty:
                return
            self.pending = increment.commit
            receipt = self._receipt(increment)
            self.pending = None
            self.read = self._so_far()
            self.applied(receipt, changes=_changed(increment))
            self.confirm({**self.durable, **increment.positions})
        finally:
            self.current = None
            increment.close()

    def _receipt(self, increment: Increment | Bundle) -> Receipt:
        try:
            return drained(lambda: self.pipeline.destination.apply(increment.commit), increment)
        except ConflictError:
            if (
                receipt := self.settled(increment.commit)
            ) is None:  # else what has moved the target was this very commit
                raise
            return receipt

    def applied(self, receipt: Receipt, *, changes: Sequence[str] = ()) -> None:
        """A commit is durable: keep it for the report, and tell."""
        read = receipt.record.get("read", {})
        dropped = receipt.record.get("dropped")
        counts = {**receipt.counts, "dropped": dropped} if dropped else receipt.counts
        self.commits.append(
            CommitReport(id=receipt.id, number=receipt.number, counts=counts, read=read, changes=tuple(changes))
        )
        for rule, count in receipt.record.get("warned", {}).items():
            self.warn(f"{count:,} rows break {rule}")
        self.tell(
            CommitApplied,
            number=receipt.number,
            rows=receipt.counts.get("rows", 0),
            rejected=receipt.counts.get("rejected", 0),
            dropped=dropped or 0,
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
        """Tell the end, and keep it in the ledger as well as can be; once."""
        with self.closing:  # who comes second waits for the record
            if self.closed:
                return
            self.closed = True
            report = self.report(error)
            row = report.to_dict()
            row.update(kind="run", host=socket.gethostname())
            try:
                self.pipeline.destination.record(row)
            except HeadraceError as failure:
                self.warn(f"the run could not be recorded: {failure.message}")
            self.tell(RunFinished, status=report.status, seconds=report.seconds, error=row["error"])


@contextmanager
def running(
    pipeline: Pipeline,
    *,
    observers: Sequence[Observer] = (),
    wait: float = 0.0,
    timeout: float | None = None,
    retry: Retry | None = None,
) -> Iterator[Running]:
    """A run from its first event to its record, holding the target in between. `retry` is for a target that cannot be
    reached yet (None: once).
    """
    _refuse_other_kinds(pipeline, timeout, retry)
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
        with (
            _held(pipeline, this, wait, this.patient(retry or Retry(attempts=1))),
            interruption.parting(lambda: this.close(_other(KeyboardInterrupt()))),
        ):
            try:
                with _heard():
                    yield this
            except HeadraceError as error:
                error.report = this.report(error)
                this.close(error)
                raise
            except BaseException as error:
                this.close(_other(error))
                raise
            else:
                this.close(None)
    except ConflictError as error:
        if not this.commits and "pid" in error.details:
            error.report = this.report(error)
            this.tell(RunFinished, status="failed", seconds=time.monotonic() - this.began, error=error.to_dict())
        raise


@contextmanager
def _heard() -> Iterator[None]:
    """What fails once the process is to end fails for that reason, whatever an engine calls it."""
    try:
        yield
    except Exception as error:
        if interruption.came():
            raise KeyboardInterrupt from error
        raise


def _other(error: BaseException) -> HeadraceError:
    """What the ledger keeps of the end of a run that is no error of headrace: an interrupt, a bug. Never its text."""
    if isinstance(error, KeyboardInterrupt):
        return HeadraceError("interrupted", hint="what was committed stays, the next run goes on from there")
    return HeadraceError(f"broken off by {type(error).__name__}")


@contextmanager
def _held(pipeline: Pipeline, holder: Running, wait: float, patience: Retry) -> Iterator[None]:
    """Hold the target, waiting for another run for as long as `wait` says."""

    def entered() -> AbstractContextManager[None]:
        hold = pipeline.destination.hold(pipeline.name, holder)
        hold.__enter__()
        return hold

    until = time.monotonic() + wait
    while True:
        try:
            hold = patience.call(entered)
            break
        except ConflictError:
            if time.monotonic() >= until:
                raise
            interruption.pause(_WAIT_POLL)
    try:
        yield
    finally:
        hold.__exit__(None, None, None)


def drained(work: Callable[[], T], increment: Increment | Bundle) -> T:
    """What the work gives; an exception that was raised inside a stream comes out as it was, a transform's as its. One
    that would end the process with a code of its own is a transform's too.
    """
    try:
        return work()
    except HeadraceError:
        raise
    except (Exception, SystemExit) as error:
        found = original(error) or error
        if (failure := increment.blamed(found)) is not None:
            raise failure from found
        if found is error:
            raise
        raise found from None


def _changed(increment: Increment | Bundle) -> list[str]:
    """Schema changes for people; of many tables with their names."""
    several = len(increment.changes) > 1
    return [f"{c.table}: {w}" if several else w for c in increment.changes for w in in_words(c.changes)]


def widened(as_text: Mapping[str, frozenset[str]], error: UnheldError) -> dict[str, frozenset[str]]:
    """What is to be read as text now, by source. Raises the error where its columns were read so already."""
    known = as_text.get(error.source, frozenset())
    if error.columns <= known:
        raise error
    return {**as_text, error.source: known | error.columns}


def _refuse_other_kinds(pipeline: object, timeout: object, retry: object) -> None:
    """What the command takes as text is a value here."""
    from headrace.pipeline import Pipeline

    if not isinstance(pipeline, Pipeline):
        raise ConfigError("what is to run is no Pipeline", hint='hr.load("orders.json") makes one of a file')
    if not isinstance(timeout, int | float | None):
        raise ConfigError("timeout is no number", hint="give it in seconds: timeout=300")
    if not isinstance(retry, Retry | None):
        raise ConfigError("retry is no Retry", hint="retry=hr.Retry(attempts=3)")


def target(pipeline: Pipeline) -> str:
    """The target in words: its kind, its place and its table."""
    traits = DestinationTraits.of(pipeline.destination)
    parts = (traits.type, traits.path, traits.table or traits.schema)
    return " ".join(str(part) for part in parts if part is not None)

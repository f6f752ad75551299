"""The seams. Each promise here has a conformance test of the same name in `headrace.testing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import polars as pl

    from headrace.flow import Batch, Commit, Place, Position, Range, Receipt, Snapshot

__all__ = ["Destination", "Holder", "Ledger", "Source", "Transform"]


@runtime_checkable
class Source(Protocol):
    """Where rows come from. Frozen data with these methods; the same words in JSON and in Python.

    A source also has the fields `read` ("new": incrementally, or "all": whole at every run, a look-up),
    `contract` (its raw rows') and, where it reads by one, `cursor`.
    """

    def batches(self, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
        """What is new, as batches. `name` is the source's name in the pipeline: its key in the snapshot.

        Reading on from a batch's position continues exactly after it: nothing skipped, nothing twice.
        A bounded source yields ONE batch for all that is new (an empty one where nothing is, with
        ``news.empty``), so that an aggregate sees the whole increment. Nothing is read before a frame is
        collected, but for what `news` and the schema need.

        The iterator is the read's lifetime: a batch's frames can be read, in any thread, until the next batch is asked
        for or the iterator is closed. So a generator may hold a snapshot open around its ``yield``.

        Raises ConfigError (a missing file, a bad option), DataError, UnavailableError (a file that changes
        while it is read).
        """
        ...

    def confirm(self, position: Position) -> None:
        """The commit with this position is durable. A replication slot moves here and nowhere else."""
        ...

    def identity(self) -> Any:
        """JSON that tells this source from another one under the same name; None where nothing can."""
        ...

    def places(self) -> Sequence[Place]:
        """What is read, as a project orders its pipelines by it. Rather too much than too little; nothing is opened."""
        ...


@runtime_checkable
class Ledger(Protocol):
    """What a destination remembers, for people. Every method opens and closes the target by itself."""

    def record(self, run: Mapping[str, Any]) -> None:
        """Keep a run (failed and empty ones too). Best effort, in a transaction of its own."""
        ...

    def history(self, pipeline: str) -> Sequence[Mapping[str, Any]]:
        """Commits and runs of the pipeline, newest first, each with ``kind`` ("commit" or "run")."""
        ...

    def rejects(self, pipeline: str) -> pl.DataFrame:
        """The pipeline's rows now in quarantine, with the columns of `schema.REJECTS`."""
        ...


@runtime_checkable
class Destination(Ledger, Protocol):
    """Where rows go, and where the state lives."""

    def inspect(self, pipeline: str) -> Snapshot:
        """What the target holds now, for this pipeline (see `Snapshot`). Changes nothing, creates nothing."""
        ...

    def apply(self, commit: Commit) -> Receipt:
        """Apply the commit: atomic, and durable when this returns.

        The ledger already has ``commit.id``: its receipt is returned and nothing is changed (the answer was
        lost, the effect was not). The number of the target's last commit, of any pipeline, is not
        ``commit.expected``: ConflictError, nothing changed. Never decided by position. An exception raised inside a
        stream or by ``seal()`` comes out as it was, and nothing is changed.
        """
        ...

    def hold(self, pipeline: str, holder: Holder) -> AbstractContextManager[None]:
        """Hold the target for one run, of whichever pipeline. Held by a live run: ConflictError that names it (host,
        PID, run, since). A dead run holds nothing. A courtesy to people: safety is `apply`'s.
        """
        ...

    def place(self) -> Place | None:
        """What is written, as readers name it; None where no other pipeline can read it. Nothing is opened."""
        ...

    def supports(self, write: str) -> str | None:
        """None when the write (its `type`) is possible here, else the hint that says what to use instead."""
        ...


class Holder(Protocol):
    """Who holds a target."""

    @property
    def run(self) -> str:
        """The run's id."""
        ...


Transform = Callable[..., "pl.LazyFrame"]
"""A pure function of lazy frames, by name, and of params as keywords."""

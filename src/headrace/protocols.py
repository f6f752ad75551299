"""The seams. Each promise here has a conformance test of the same name in `headrace.testing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import polars as pl

    from headrace.flow import Batch, Commit, Position, Range, Receipt, Snapshot
    from headrace.paths import Place

__all__ = ["Destination", "Holder", "Ledger", "Source", "Transform"]


@runtime_checkable
class Source(Protocol):
    """Where rows come from. Frozen data with these methods; the same words in JSON and in Python.

    What it may have besides, and what holds without it (`traits.SourceTraits`):

    - `read`: "new" (the default) or "all", a look-up that is read whole at every run.
    - `contract`: what its raw rows must be (None).
    - `cursor`: the `Cursor` that it reads by; a merge without `latest_by` goes by its column (None).
    - `current`: whether a row that is read is the row as it is now, so that the last read is the newest whatever its
      cursor says, and a merge goes by no column (False).
    - `latest`: which of several rows of a key counts (`Latest`): a merge without `latest_by` goes by its columns, and a
      write that neither merges nor sees all rows is refused (None: every row counts).
    - `deletes`: how the rows that it has deleted are found (`Deletes`; None: they are not).
    - ``matching(pattern) -> Sequence[str]`` and
      ``together(sources, ranges, snapshots) -> Iterator[Mapping[str, Batch]]``: of a source of many tables, which ones
      a name or pattern means (ConfigError: none), and what is new in several, as `batches` of each alone: each mapping
      has a batch of every table, all of ONE snapshot, and becomes one commit. `sources` are this source with one
      `table` each. Without them its tables are pipelines of their own.
    - ``reparse(lines, after, before, name) -> Batch``: what it makes of lines that could not be read (the columns
      ``file``, ``line`` and ``row`` of `schema.REJECTS`); `after` is the last position, `before` the identity then.
      Without it such rejects cannot be replayed.
    - `rereads`: the columns that name a row's file, where a file that has changed is read again as a whole
      (`News.again` of its batches tells which); then only writes that replace the file's rows are taken (None: what was
      read is not read again).
    - `cuts`: whether what is new comes as several batches where `Range.batch_bytes` asks for them (False: as one, and
      `plan` says that `commit_every` does nothing).
    - `outward`: those of its fields that say where and when it reads, and not what a row of it is: another value in one
      of the others changes what earlier rows mean, so that a replace and a recompute write all anew (none).
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

    def confirm(self, positions: Mapping[str, Position]) -> None:
        """These positions are durable: all that the ledger holds of this source, by its name in the pipeline; of a
        source of many tables by table, those without news too. A replication slot moves to the least of them, here and
        nowhere else.

        Told once after each commit and, where there are any, once at the start of each run: one may die in between.
        A HeadraceError is a warning: the commit stands.
        """
        ...

    def identity(self) -> Any:
        """JSON that tells this source from another one under the same name; None where nothing can. What it takes an
        open source to know is told by `Batch.identity`: a mapping that has these keys too.
        """
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
    """Where rows go, and where the state lives.

    What it may have besides, and what holds without it (`traits.DestinationTraits`):

    - `type`, `path`: what kind it is and where, as reports and errors name it (its class's name; no place).
    - `table`: the name of its table, for `TableChange.table` (the pipeline's name).
    - `schema`: of a destination of many tables, in the place of `table`, what they are in (None: it has one table).
    - `adopt`: whether it takes over a table that headrace did not make, or that another pipeline writes too (no).
    - ``of(name) -> Destination``: of a destination of many tables (a schema), the one that holds this table: `inspect`
      of the many tells of it by its `table` (`Snapshot.tables`), and a commit of many has its changes.
    - `native`: the system of whose types its columns are: it keeps a column of such an origin in that very type, and
      loads its exact text too (see `schema.Field`; None: it knows the logical types only).
    - ``takes(held, rows) -> bool``: whether its column of the field `held` takes rows of the field `rows` exactly,
      though their logical types do not say so (no).
    - `at_once`: in which words `plan` says that a commit is one step ("one transaction").
    - `readers`: in which words `plan` says what readers see while a commit is made (nothing is said).
    - ``ddl(change) -> Sequence[str]``: a change's schema changes in the destination's own words, for `plan`
      (in headrace's).
    - ``notes(change) -> Sequence[str]``: what a person should know of how it would carry a change out, for `plan`
      (nothing).
    - `truncates`: whether it takes a replace with `truncate` (no).
    """

    def inspect(self, pipeline: str) -> Snapshot:
        """What the target holds now, for this pipeline (see `Snapshot`). Changes nothing, creates nothing."""
        ...

    def apply(self, commit: Commit) -> Receipt:
        """Apply the commit: atomic, and durable when this returns.

        It may have no `changes`: only the seal, then (a discard). Of rejects with one id one is kept. Raises DataError
        for a NULL key (merge, history) and, once the seal has nothing to say, for a replace by no rows at all, unless
        it is allowed; SchemaError for rows that do not fit the table.

        The ledger already has ``commit.id``: its receipt is returned and nothing is changed (the answer was
        lost, the effect was not). The number of the target's last commit, of any pipeline, is not
        ``commit.expected``: ConflictError, nothing changed. Never decided by position. An exception raised inside a
        stream or by ``seal()`` comes out as it was, and nothing is changed.
        """
        ...

    def settle(self, pipeline: str, id: str) -> Receipt | None:
        """What became of a commit whose answer was lost: its receipt (`repeated`), or None: it is not in the ledger and
        never will be.

        Asked before anything else after a doubtful end. Answered under the target's lock, so that an earlier attempt
        that the system is still committing has ended first; by the id, and nothing else is compared.
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

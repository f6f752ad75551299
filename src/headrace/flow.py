"""What crosses the seams: positions, batches, commits. Frozen values; what is lazy is a callable.

A run asks the destination how far it has come (`Snapshot`), the source reads on from there (`Batch`), and the
engine hands back a `Commit`: rows, rejected rows, schema changes, the new position and the record of it, which
the destination applies wholly or not at all. There is no other state.

Rows cross as Arrow C streams (any object with ``__arrow_c_stream__``), never as Python rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from headrace.frozen import frozen

if TYPE_CHECKING:
    import polars as pl

    from headrace.schema import Schema, SchemaChange
    from headrace.writes import Write

__all__ = [
    "FILE",
    "LINE",
    "PLACE",
    "ArrowStream",
    "Batch",
    "Census",
    "Commit",
    "Counts",
    "FileStamp",
    "Frame",
    "Held",
    "News",
    "Position",
    "Range",
    "Receipt",
    "Rejects",
    "Retold",
    "Seal",
    "Snapshot",
    "Superseded",
    "TableChange",
]

Position = Mapping[str, Any]
"""How far a source has been read: JSON that only that source can read. Never compared by anyone else."""

PLACE = FILE, LINE = "_headrace_file", "_headrace_line"
"""The columns that say where a row stands: its file's name, and its line."""


class ArrowStream(Protocol):
    """Rows as an Arrow C stream. Each call opens the stream again, from its beginning."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A PyCapsule of an ArrowArrayStream."""
        ...


@frozen(kw_only=True)
class Range:
    """What to read: from just after `after` (None: from the beginning) up to now.

    `ties` says what becomes of rows that share the last position's cursor value: read `again` (a merge
    settles them) or `once` (an append must not see them twice). `batch_bytes` asks for batches of about so many
    bytes of source, cut where the source can (between files); None: ONE batch of all that is new. `as_text` are
    columns to be read as their exact text: an earlier attempt has met values that their types cannot hold. `reader` is
    the pipeline's name, for systems that show who is connected.
    """

    after: Position | None = None
    ties: Literal["again", "once"] = "again"
    batch_bytes: int | None = None
    as_text: frozenset[str] = frozenset()
    reader: str = ""


class FileStamp(NamedTuple):
    """One file as it was when it was read: the name relative to the fixed part of the path, size in bytes,
    and `version`, an etag or the modification time in nanoseconds, as text. A tuple, since a run may make a million.
    """

    name: str
    size: int
    version: str


@frozen(kw_only=True)
class Frame:
    """Rows, lazily, and what is known of where they come from.

    `lazy` can be collected any number of times, by any thread; each time it reads again. `placed` (where rows
    have a place) is the same rows with two more columns in front, those of `PLACE`. `origins` are the columns of whose
    type the source's system knows more, and that type (see `schema.Field`).
    """

    lazy: pl.LazyFrame
    placed: pl.LazyFrame | None = None
    origins: Mapping[str, str] = field(default_factory=dict)


@frozen(kw_only=True)
class Counts:
    """What a drained batch has read. Rows as they came from the source: before contract and transforms, and before a
    filter of theirs that is pushed down. Only what PostgreSQL itself leaves out for such a filter is not among them.
    """

    rows: int = 0
    bytes: int = 0
    files: int = 0


@frozen(kw_only=True)
class News:
    """What a batch is about to read, known before any row is: for `plan` and for progress.

    `rows` is None where only reading would tell. `empty`: nothing is new since the position; of a source that gives
    all it has (`Batch.complete`) True: it has not changed, False: it has, None: it cannot tell. `facts` are plain JSON:
    bounds, the sample's size, a guessed dialect. `again` names the files that were read before and have changed, where
    such are read again (see `protocols.Source`, `rereads`). `warnings` are what a person should hear: what holds a read
    back, what it had to do without. `misses` is what a later run will not see, in words, for the guarantee that `plan`
    prints (None: nothing is missed).
    """

    files: tuple[FileStamp, ...] = ()
    rows: int | None = None
    bytes: int | None = None
    empty: bool | None = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    again: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    misses: str | None = None


@frozen(kw_only=True)
class Superseded:
    """Earlier rejects whose place a read has taken, since their rows were judged anew: those of `source` (None: of the
    result's contract) in `stages` (see `schema.REJECTS`), of `files` (None: whatever their file).
    """

    source: str | None
    stages: tuple[str, ...] = ("parse", "cursor", "contract")
    files: tuple[str, ...] | None = None


@frozen(kw_only=True)
class Retold:
    """What a drained batch tells of rows that could not be read, and which earlier rejects that takes the place of.

    Iterated, it gives frames with the columns of `schema.REJECTS`. What is superseded and still bad is among them,
    or, where it could be read, among the rows: no more may be superseded than was told anew.
    """

    frames: Callable[[], Iterator[pl.DataFrame]] = lambda: iter(())
    superseded: tuple[Superseded, ...] = ()

    def __iter__(self) -> Iterator[pl.DataFrame]:
        return self.frames()

    @property
    def everything(self) -> bool:
        """Whether all that the source ever gave was read again."""
        return any(s == Superseded(source=s.source) for s in self.superseded)


@frozen(kw_only=True)
class Batch:
    """What is new in a source, larger than memory.

    `frame` is the new rows. `whole` is everything up to the same point in the same snapshot, for `recompute`
    and for look-ups; `former` the rows as they were before the new ones superseded them (None where the
    source cannot know). `position`, `counts`, `files` and `rejects` tell the truth once the rows of `frame`
    (or of `whole`, when that is what was drained) have been drained to the end, and not before; draining
    twice does not count twice. `rejects` tells of the rows that could not be read. `complete` says that the source
    gives ALL it has at every run (a look-up, a full read), not only at this one: then a row that is missing is gone,
    and joining or aggregating misses nothing. `census` (where the source's `deletes` are due) is every row that the
    source has in this snapshot, whatever its cursor: of it only the keys are read. `keys` are the source's own
    (a primary key), for a merge that names none. `identity` is that of `Source.identity` with what only the open
    source knows (None: it knows no more).
    """

    frame: Frame
    news: News
    position: Callable[[], Position]
    counts: Callable[[], Counts]
    rejects: Callable[[], Retold]
    files: Callable[[], Sequence[FileStamp]]
    whole: Frame | None = None
    former: Frame | None = None
    complete: bool = False
    identity: Mapping[str, Any] | None = None
    census: Frame | None = None
    keys: tuple[str, ...] = ()


@frozen(kw_only=True)
class Held:
    """What the destination holds of one table: its logical `schema` (None: there is no table), whether headrace made it
    or took it over for this pipeline and target (`owned`), whether it holds the `versions` of a history, and the
    `others`, the other pipelines that have commits in it; the pipeline itself is one of them where it had another
    target, a table alone or a schema of many. `scan` reads it, and `newest(column)` is the greatest value in it: see
    `Snapshot`.
    """

    schema: Schema | None = None
    owned: bool = True
    versions: bool = False
    others: frozenset[str] = frozenset()
    scan: Callable[[], pl.LazyFrame] | None = None
    newest: Callable[[str], str | None] = lambda _column: None


@frozen(kw_only=True)
class Snapshot:
    """What the destination holds for one pipeline, at one instant.

    The TARGET's, whoever writes it: `number` and `head`, the number and the id of its last commit (0, None: there is
    none); `others`, the other pipelines that have commits in it; `schema`, the logical schema of the table (None:
    there is no table), `owned`, whether headrace made it or took it over, and `versions`, whether a history was the
    last to write it: then it holds older rows, and columns that no row brings. `scan` reads it (None: no table): whole
    commits only, as of this one or of a later one, else UnavailableError; each collection reads anew. `newest(column)`
    is the greatest value in it as its EXACT text (`exact.newest`; None: no row has one).

    The pipeline's alone: `record` and `write`, what its last commit's seal said and how that wrote (`Commit.write`);
    `positions` and `identities` by source name; `seen(source, names)`, the stamps under which files were read (`names`
    None: all of them); `discarded`, the ids of the rejects that were given up, and `loaded`, of those whose rows an
    append has since loaded by a replay: they do not come back when their rows are read again.

    Of a destination of several tables number, head and all that is the pipeline's are those of all of them together;
    what is a table's, `tables` tells by the table's name (as the source's rows go to it), and here it is empty.
    """

    number: int = 0
    head: str | None = None
    others: frozenset[str] = frozenset()
    record: Mapping[str, Any] = field(default_factory=dict)
    positions: Mapping[str, Position] = field(default_factory=dict)
    identities: Mapping[str, Any] = field(default_factory=dict)
    schema: Schema | None = None
    owned: bool = True
    versions: bool = False
    write: str | None = None
    seen: Callable[[str, Iterable[str] | None], Mapping[str, FileStamp]] = lambda _source, _names: {}
    scan: Callable[[], pl.LazyFrame] | None = None
    newest: Callable[[str], str | None] = lambda _column: None
    discarded: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()
    tables: Callable[[str], Held] = lambda _table: Held()

    def of(self, table: str) -> Snapshot:
        """The snapshot of one table of several."""
        return replace(self, **vars(self.tables(table)))


@frozen(kw_only=True)
class Census:
    """All keys that a source still has: the table's other rows are gone from it.

    `keys()` opens a stream of the merge's key columns, each key at least once. Where more than `max` (a share) of the
    rows that live would go, or where there is no key at all, the commit is refused (DataError). `mark` is the column
    where the commit's time tells that a row has gone (NULL: it lives, as again does one whose key is back); None: rows
    that have gone are deleted.
    """

    keys: Callable[[], ArrowStream]
    max: float
    mark: str | None = None


@frozen(kw_only=True)
class TableChange:
    """How one table changes.

    `rows()` opens the stream again at each call. `schema` is the table's logical schema after `changes`. `groups` are
    `by` values: of a recompute those whose rows are replaced (None: all), of partitions those that are replaced besides
    the rows' own (None: none). `complete` says that the rows are ALL the source has: only then may absence mean
    anything. `fresh` (a full refresh) says that the table begins empty: what it held goes in the same transaction,
    deletions that a merge remembers too. `deletes` (of a merge with `delete_when`) names a Boolean column of the rows
    that is not in `schema` and never NULL: where it is TRUE, a row that wins deletes its key. `census` (of a merge) is
    taken once the rows are merged.
    """

    table: str
    write: Write
    schema: Schema
    rows: Callable[[], ArrowStream]
    changes: tuple[SchemaChange, ...] = ()
    groups: Callable[[], ArrowStream] | None = None
    complete: bool = False
    fresh: bool = False
    deletes: str | None = None
    census: Census | None = None

    @property
    def latest_by(self) -> tuple[str, ...]:
        """The columns that say which of two rows of a key is newer, where the write heeds it."""
        return tuple(getattr(self.write, "latest_by", ()))

    @property
    def keeps_versions(self) -> bool:
        """Whether all rows of a key stay, each as its version, and not the newest alone."""
        return self.write.type == "history"

    @property
    def takes_others(self) -> bool:
        """Whether rows that this pipeline did not bring may go: all that the table held, those of a partition or a
        group, or what the source lacks.
        """
        kind = self.write.type
        absent = kind == "history" and getattr(self.write, "close_absent", False) and self.complete
        return self.fresh or self.census is not None or kind in ("replace", "partitions", "recompute") or absent


@frozen(kw_only=True)
class Rejects:
    """The rejected rows of a commit, and what becomes of earlier ones.

    `rows` has the columns of `schema.REJECTS`, and gives `count` rows (0: it need not be opened). Earlier rejects of
    this pipeline leave the quarantine when their id is in `resolved` (a replay), in `loaded` (a replay into an append)
    or in `discarded` (given up; the reason is in the record), when a good row of the same `keys` is in the commit
    that is not older by the change's `latest_by` (history: one of the same version; recompute: when their key is among
    the change's groups), when `superseded` names them, or all of them when `replace_all` (a full refresh).
    `keys` are those of a merge or a history, or what a recompute goes by; other writes have none.
    The destination remembers `discarded` for ever, and `loaded` until a commit replaces all: `Snapshot` tells them.
    """

    rows: Callable[[], ArrowStream]
    count: int = 0
    keys: tuple[str, ...] = ()
    resolved: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    discarded: tuple[str, ...] = ()
    superseded: tuple[Superseded, ...] = ()
    replace_all: bool = False


@frozen(kw_only=True)
class Seal:
    """What is known only once all rows are drained: the end of a commit.

    `positions` replaces the positions of the sources it names. `files` are, by source, the stamps to remember
    as seen. `record` is plain JSON for the ledger (counts, bounds, fingerprints, versions). `forget_files` (the table
    began empty) says that positions, identities and files of this pipeline are these alone: of all that the seal does
    not name nothing is remembered.
    """

    positions: Mapping[str, Position]
    files: Mapping[str, Sequence[FileStamp]]
    record: Mapping[str, Any]
    rejects: Rejects | None = None
    identities: Mapping[str, Any] = field(default_factory=dict)
    forget_files: bool = False


@frozen(kw_only=True)
class Commit:
    """One atomic step of one pipeline.

    `id` is made before the first attempt and names it for ever. `expected` is the number of the target's last commit,
    whichever pipeline made it: schema, keys and uniqueness were judged against what that left.
    The destination drains the rows of every change, in order, and then calls `seal()` ONCE in an attempt: it
    may raise (the contract's verdict), and then nothing of the commit is kept.
    """

    id: str
    pipeline: str
    run: str
    expected: int
    changes: tuple[TableChange, ...]
    seal: Callable[[], Seal]

    @property
    def write(self) -> str | None:
        """How it writes, for the ledger: the types of its changes' writes, each once (None: it has no changes)."""
        return ", ".join(dict.fromkeys(change.write.type for change in self.changes)) or None


@frozen(kw_only=True)
class Receipt:
    """What the ledger says of a commit. `counts`: rows (drained), inserted, updated, deleted, rejected (where known).

    `repeated`: the ledger had the id already: the answer of an earlier attempt was lost, not its effect.
    """

    id: str
    number: int
    counts: Mapping[str, int] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    repeated: bool = False

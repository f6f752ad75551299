"""Scripts of commits, and what a destination holds after them: what the suites write and compare."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.engine.deletions import deleting
from headrace.exact import to_text
from headrace.flow import Census, Commit, FileStamp, Rejects, Seal, TableChange
from headrace.frozen import frozen
from headrace.schema import REJECTS, Schema, SchemaPolicy, evolve
from headrace.stream import FrameStream
from headrace.traits import DestinationTraits
from headrace.writes import Append, History, Merge, Partitions, Recompute, Replace, Write

if TYPE_CHECKING:
    from headrace.flow import ArrowStream, Receipt
    from headrace.protocols import Destination

__all__ = ["PIPELINE", "ROWS", "SOURCE", "WRITES", "Holding", "Step", "commit_of", "holds", "play", "reject"]

PIPELINE = "conformance"
SOURCE = "source"
MARK = "_deleted_at"

ROWS = {"id": pl.Int64(), "part": pl.String(), "at": pl.Int64(), "text": pl.String(), "gone": pl.Boolean()}
"""The columns that scripts write: a key, a partition (may be NULL), an order (may be NULL), a value, a deletion."""

WRITES: Mapping[str, Write] = {
    "append": Append(),
    "replace": Replace(allow_empty=True),
    "partitions": Partitions(by=("part",)),
    "merge": Merge(keys=("id",), latest_by=("at",), delete_when="gone"),
    "history": History(keys=("id",), latest_by=("at",), track=("text",)),
    "recompute": Recompute(by=("part",)),
}
"""One of each write, over the columns of `ROWS`."""


@frozen(kw_only=True)
class Step:
    """One commit of a script: rows (tuples in the order of `ROWS`), and what goes with them.

    `wide`: the rows have one column more, ``extra``. `groups` (recompute, partitions): values of ``part`` that are
    replaced though no row of theirs is left. `there` (merge): the ids that the source still has (None: nobody looked);
    `marked` says that the others are marked as deleted, in the column ``_deleted_at``. `rejects` are rejected with
    it. `fresh`: a full refresh. `renamed`: columns by other names. `more`: columns beside these.
    """

    rows: Sequence[tuple[Any, ...]]
    wide: bool = False
    groups: tuple[str | None, ...] = ()
    there: tuple[int, ...] | None = None
    marked: bool = False
    rejects: Sequence[Mapping[str, Any]] = ()
    fresh: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, pl.Series] = field(default_factory=dict)

    @property
    def frame(self) -> pl.DataFrame:
        """The rows as a frame."""
        frame = pl.DataFrame(list(self.rows), schema=ROWS, orient="row")
        frame = frame.with_columns(extra=pl.col("at") * 10) if self.wide else frame
        frame = frame.with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias(MARK)) if self.marked else frame
        return frame.rename(self.renamed).with_columns(**self.more)


def _census(step: Step) -> Census:
    keys = pl.LazyFrame({"id": list(step.there or ())}, schema={"id": pl.Int64()})
    return Census(keys=lambda: FrameStream(keys), max=0.5, mark=MARK if step.marked else None)


def reject(id: str, *, key: str | None = None, file: str | None = None, row: str | None = None) -> dict[str, Any]:
    """A rejected row, as a row of `schema.REJECTS`; `row` is how it came, as JSON."""
    empty: dict[str, Any] = dict.fromkeys(REJECTS.names)
    stage = "contract" if file is None else "parse"
    return {
        **empty,
        "id": id,
        "stage": stage,
        "source": SOURCE,
        "file": file,
        "rules": ["a rule"],
        "row": row,
        "key": key,
    }


def _rejects(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=REJECTS.polars(), orient="row")


def _change_of(step: Step, write: Write, target: Schema | None, *, table: str, complete: bool) -> TableChange:
    """How the step changes a table of the schema `target` (None: there is no table, or it begins empty)."""
    frame = step.frame
    schema, changes = evolve(target, Schema.of_polars(frame.schema), SchemaPolicy(missing="keep"))
    groups = pl.DataFrame({"part": list(step.groups)}, schema={"part": pl.String()})
    recomputes = isinstance(write, Recompute)
    if recomputes:
        groups = pl.concat([frame.select("part"), groups]).unique()
    named = recomputes or (isinstance(write, Partitions) and bool(step.groups))
    rows, deletes = deleting(write, frame.lazy())
    return TableChange(
        table=table,
        write=write,
        schema=schema,
        rows=lambda: FrameStream(rows),
        changes=changes,
        groups=(lambda: FrameStream(groups.lazy())) if named else None,
        complete=complete or step.fresh,
        fresh=step.fresh,
        deletes=deletes,
        census=None if step.there is None else _census(step),
    )


def _flagged(write: Write, rows: Callable[[], ArrowStream]) -> Callable[[], ArrowStream]:
    """The rows with the column that says which of them delete their key."""

    def lazy() -> pl.LazyFrame:
        stream = rows()
        frame = stream.lazy() if isinstance(stream, FrameStream) else pl.scan_arrow_c_stream(stream)
        return deleting(write, frame)[0]

    return lambda: FrameStream(lazy)


def commit_of(  # noqa: PLR0913  # everything a test may want otherwise
    destination: Destination,
    step: Step,
    write: Write,
    *,
    position: int = 0,
    rows: Callable[[], ArrowStream] | None = None,
    seal: Callable[[], None] = lambda: None,
    files: Sequence[FileStamp] = (),
    settled: Mapping[str, Any] | None = None,
    expected: int | None = None,
    complete: bool = False,
    pipeline: str = PIPELINE,
) -> Commit:
    """The commit that a run would make of the step now. `seal` runs when the commit is sealed, and may raise."""
    snapshot = destination.inspect(pipeline)
    target = None if step.fresh else snapshot.schema
    table = DestinationTraits.of(destination).table or PIPELINE
    change = _change_of(step, write, target, table=table, complete=complete)
    if rows is not None:
        change = replace(change, rows=rows if change.deletes is None else _flagged(write, rows))

    def sealed() -> Seal:
        seal()
        return Seal(
            positions={SOURCE: {"step": position}},
            files={SOURCE: tuple(files)},
            record={"rows": len(step.rows)},
            rejects=Rejects(
                rows=lambda: FrameStream(_rejects(step.rejects).lazy()),
                count=len(step.rejects),
                **(settled or {}),
            ),
            identities={SOURCE: {"name": "script"}},
        )

    return Commit(
        id=secrets.token_hex(8),
        pipeline=pipeline,
        run="run",
        expected=snapshot.number if expected is None else expected,
        changes=(change,),
        seal=sealed,
    )


def play(
    destination: Destination,
    steps: Sequence[Step],
    write: Write,
    apply: Callable[[Destination, Commit], Receipt] = lambda destination, commit: destination.apply(commit),
) -> None:
    """Apply the steps that the destination does not have yet: what a run does, and what it does when started again."""
    at = destination.inspect(PIPELINE).positions.get(SOURCE, {"step": 0})["step"]
    for n, step in enumerate(steps[at:], at + 1):
        files = [FileStamp(name=f"{n}.csv", size=n, version=str(n))]
        settled = {"keys": ("id",) if isinstance(write, Merge | History) else ()}
        apply(destination, commit_of(destination, step, write, position=n, files=files, settled=settled))


@frozen
class Holding:
    """All that a destination holds for a pipeline, in a form in which two destinations can be compared.

    `rows` are exact texts by column, sorted; `schema` the logical one.
    """

    schema: Sequence[Mapping[str, str]] | None
    rows: Sequence[tuple[str | None, ...]]
    number: int
    positions: Mapping[str, Any]
    identities: Mapping[str, Any]
    files: Mapping[str, Any]
    rejects: Sequence[str]
    commits: Sequence[int] = ()


def holds(destination: Destination, *, ignoring: Sequence[str] = ()) -> Holding:
    """What the destination holds for `PIPELINE`. Columns in `ignoring` are told by NULL or not NULL alone."""
    snapshot = destination.inspect(PIPELINE)
    frame = pl.DataFrame() if snapshot.scan is None else snapshot.scan().collect()
    columns = sorted(frame.columns)
    texts = [
        pl.col(c).is_null().cast(pl.String) if c in ignoring else to_text(pl.col(c), Schema.of_polars(frame.schema)[c])
        for c in columns
    ]
    rows = frame.select(texts).rows() if columns else []
    return Holding(
        schema=None if snapshot.schema is None else snapshot.schema.to_json(),
        rows=sorted(rows, key=lambda row: tuple((v is not None, v or "") for v in row)),
        number=snapshot.number,
        positions=dict(snapshot.positions),
        identities=dict(snapshot.identities),
        files={n: [s.size, s.version] for n, s in sorted(snapshot.seen(SOURCE, None).items())},
        rejects=sorted(destination.rejects(PIPELINE)["id"]),
        commits=[e["number"] for e in destination.history(PIPELINE) if e["kind"] == "commit"],
    )

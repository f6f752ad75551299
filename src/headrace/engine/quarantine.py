"""Quarantined rows on their second way: through again as they are, mended in a file, or given up.

A `parse` reject goes through everything again; a `contract` reject re-enters at the contract that rejected it.
What passes is loaded and leaves the quarantine in ONE commit; what fails again is rejected again; where all
of it does, nothing is committed. The position of the sources does not move.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace import exact
from headrace.engine.decisions import Reading, reading, refuse_start
from headrace.engine.increment import increment
from headrace.engine.opening import increments, opened
from headrace.engine.rows import Replayed
from headrace.engine.running import Running, running
from headrace.engine.sealing import UnchangedError
from headrace.errors import ConfigError, DataError
from headrace.flow import FILE, LINE, Batch, Commit, Counts, Frame, News, Range, Rejects, Retold, Seal, Snapshot
from headrace.logical import Type
from headrace.schema import REJECTS
from headrace.stream import FrameStream
from headrace.traits import SourceTraits
from headrace.writes import Partitions, Recompute, Replace

if TYPE_CHECKING:
    from headrace.events import Observer
    from headrace.pipeline import Pipeline
    from headrace.report import RunReport

__all__ = ["discard", "export", "replay"]

_CELL = re.compile(r'"((?:[^"]++|"")*+)"|([^",\r\n][^,\r\n]*+)?')
_END = re.compile(r",|\r\n|\r|\n|\Z")
_FIXED = ("id", "stage", "source", "file", "line", "rules")


def replay(
    pipeline: Pipeline, *, fixed: Path | None = None, observers: Sequence[Observer] = (), wait: float = 0.0
) -> RunReport:
    """Take the quarantined rows through again: all of them, or those in `fixed`, an edited export.

    Where the write rebuilds from everything read (replace, recompute), everything is read again, as by a run.
    """
    with running(pipeline, observers=observers, wait=wait) as this:
        if isinstance(pipeline.write, Replace | Recompute):
            if fixed is not None:
                raise ConfigError(
                    f"{pipeline.write.type} rebuilds from the source, so mended rows must be there",
                    hint="put the mended rows into a file that the source reads, then run",
                )
            this.heeding(lambda: _read_again(this, pipeline))
            return this.report()
        if isinstance(pipeline.write, Partitions):
            raise ConfigError(
                "replaying single rows would replace their partitions", hint="mend the file and run --full-refresh"
            )
        known = pipeline.destination.rejects(pipeline.name)
        rows = known if fixed is None else _mended(known, fixed)
        drivers = reading(pipeline, full_refresh=False).drivers
        of_drivers = pl.col("source").is_null() | pl.col("source").is_in(drivers)  # a look-up tells its own
        _refuse_looked_up(rows.filter(~of_drivers), known)
        rows = rows.filter(of_drivers)
        if not rows.is_empty():
            this.heeding(lambda: _taken_again(this, pipeline, rows))
    return this.report()


def _read_again(this: Running, pipeline: Pipeline) -> None:
    """Everything, as a run that must rebuild all of it does: with its guards, since what has gone from the sources goes
    from the table too.
    """
    if pipeline.destination.rejects(pipeline.name).is_empty():
        return
    snapshot = this.inspect()
    refuse_start(pipeline, snapshot, full_refresh=False, discard_history=False)
    how = replace(reading(pipeline, full_refresh=False), anew=True, as_text=this.as_text)
    with closing(increments(pipeline, snapshot, how, this.context)) as every:
        for again in every:
            this.apply(again)


def _taken_again(this: Running, pipeline: Pipeline, rows: pl.DataFrame) -> None:
    """These rejects, in one commit; none is made where each would be the reject again that it was."""
    how = replace(reading(pipeline, full_refresh=False), as_text=this.as_text)
    snapshot = this.inspect()
    result = rows.filter(pl.col("source").is_null())
    with ExitStack() as reads:
        batches = {
            n: _batch(pipeline, snapshot, n, rows.filter(pl.col("source") == n), how, reads)
            for n in pipeline.named_sources
        }

        def entering(schema: pl.Schema) -> pl.LazyFrame | None:
            if result.is_empty():
                return None
            rows = _placed(result, schema)
            read = {c for b in batches.values() for c in b.frame.lazy.collect_schema()}
            _refuse_short(result, [c for c in schema if c not in read])
            return rows.lazy()

        replayed = Replayed(ids=tuple(rows["id"]), result=entering)
        again = increment(pipeline, snapshot, how, batches, this.context, replayed=replayed)
        try:
            this.apply(again)
        except UnchangedError as error:
            this.warn(f"{error.message}: mend them (headrace rejects --export, headrace replay --from)")


def discard(pipeline: Pipeline, *, reason: str, observers: Sequence[Observer] = (), wait: float = 0.0) -> RunReport:
    """Give the quarantined rows up for good, in one commit that keeps the reason. The same row of the same place in
    the source does not come back when it is read again.
    """
    with running(pipeline, observers=observers, wait=wait) as this:
        snapshot = this.inspect()
        ids = tuple(pipeline.destination.rejects(pipeline.name)["id"])
        if ids:
            nothing = Rejects(rows=lambda: FrameStream(pl.LazyFrame(schema=REJECTS.polars())), discarded=ids)
            record = {**_fingerprints(snapshot), "discarded": len(ids), "reason": reason, "write": "discard"}
            receipt = pipeline.destination.apply(
                Commit(
                    id=secrets.token_hex(12),
                    pipeline=pipeline.name,
                    run=this.run,
                    expected=snapshot.number,
                    changes=(),
                    seal=lambda: Seal(positions={}, files={}, record=record, rejects=nothing),
                )
            )
            this.applied(replace(receipt, counts={**receipt.counts, "discarded": len(ids)}))
    return this.report()


def _fingerprints(snapshot: Snapshot) -> dict[str, Any]:
    """Of the last commit: nothing is made anew here."""
    return {key: value for key, value in snapshot.record.items() if key.endswith("_fingerprint")}


def export(rejects: pl.DataFrame) -> pl.DataFrame:
    """The rejects as a table a person can mend: `id`, `stage`, `source`, `file`, `line`, `rules` (joined by ``; ``),
    `raw` (the text of a line that could not be read), and the columns of the rows, as exact text. A line that could not
    be read is mended in `raw`, every other row in its columns: an empty cell is NULL, a quoted one an empty text, and
    one that was an empty text stays so with or without its quotes.
    """
    fixed = rejects.select(
        *("id", "stage", "source", "file", "line"),
        pl.col("rules").list.join("; "),
        pl.when(pl.col("stage") == "parse").then("row").alias("raw"),
    )
    bodies = [{} if s == "parse" else json.loads(r) for r, s in zip(rejects["row"], rejects["stage"], strict=True)]
    columns = list(dict.fromkeys(c for body in bodies for c in body))
    named = {_column(c): pl.Series([body.get(c) for body in bodies], dtype=pl.String) for c in columns}
    return fixed.with_columns(**named)


def _column(name: str) -> str:
    """A row's column that is called as one of the export's own gets a mark."""
    return f"row.{name}" if name in (*_FIXED, "raw") else name


def _records(text: str) -> Iterator[list[str | None]]:
    """The records of a CSV, None for an unquoted empty cell. Raises ValueError for quotes that are wrong.

    Python's csv does not tell a quoted empty cell before 3.12, and its limit of a cell is the process's.
    """
    at = 0
    cells: list[str | None] = []
    while True:
        found = _CELL.match(text, at)
        end = _END.match(text, found.end()) if found else None
        if found is None or end is None:
            raise ValueError("a quote that is not closed, or closed amid a cell")
        cells.append(found[2] if found[1] is None else found[1].replace('""', '"'))
        at = end.end()
        if end[0] != ",":
            yield cells
            cells = []
            if at == len(text):
                return


def _mended(rejects: pl.DataFrame, file: Path) -> pl.DataFrame:
    """The rejects that an edited export names, with their new text. Null is an unquoted empty cell; any empty one where
    the header is quoted too, by a tool that quotes every cell.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")  # Excel marks the order of its bytes
        first, *lines = _records(text)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read") from error
    except ValueError as error:
        raise DataError(f"{file} is not the CSV that `headrace rejects --export` writes") from error
    header = [name or "" for name in first]
    if "id" not in header or len(set(header)) < len(header):
        raise DataError(
            f"{file} has no column 'id', or one twice", hint="edit the file that `headrace rejects --export` wrote"
        )
    if text.startswith('"'):
        lines = [[cell or None for cell in cells] for cells in lines]
    known: dict[str | None, dict[str, Any]] = {row["id"]: row for row in rejects.to_dicts()}
    found = []
    for number, cells in enumerate(lines, start=2):
        place = f"{file}:{number}"
        if len(cells) != len(header):
            raise DataError(f"{place} has {len(cells)} fields, the header {len(header)}")
        edited = dict(zip(header, cells, strict=True))
        reject = known.pop(edited["id"], None)
        if reject is None:
            raise DataError(
                f"{place}: no such reject is in quarantine, or it stands in the file twice",
                hint="export again; it may be settled",
            )
        found.append(_edited(reject, edited, place))
    return pl.DataFrame(found, schema=rejects.schema, orient="row")


def _refuse_looked_up(rows: pl.DataFrame, known: pl.DataFrame) -> None:
    """Refuse rows of look-ups that were mended: it is read anew at every run, and what was mended here is lost."""
    for row in rows.join(known, on=["id", "row"], how="anti").head(1).to_dicts():
        place = "" if row["file"] is None else f" ({row['file']}:{row['line']})"
        raise DataError(
            f"a mended row{place} is one of the look-up {row['source']!r}, which is read whole at every run",
            hint=f"mend it where {row['source']!r} reads it, and take it out of the file",
        )


def _edited(reject: Mapping[str, Any], edited: Mapping[str, str | None], place: str) -> dict[str, Any]:
    """The reject with its new text. Raises DataError for what is filled where it would not count."""
    cells = {name: cell for name, cell in edited.items() if name not in _FIXED}
    raw = cells.pop("raw", None)
    if reject["stage"] == "parse":
        if filled := [name for name, cell in cells.items() if cell]:
            raise DataError(
                f"{place}: column {filled[0]!r} is filled, and the row is a line that could not be read",
                hint='such a row is mended in its text, the column "raw"; leave the others empty',
            )
        if "raw" in edited and not raw:
            raise DataError(
                f"{place}: the text of the line (raw) is empty",
                hint="mend it, or take the row out of the file: it stays in quarantine",
            )
        return {**reject, "row": reject["row"] if raw is None else raw}
    if raw:
        raise DataError(f"{place}: raw is filled, and the row could be read", hint="mend its columns; leave raw empty")
    body = json.loads(reject["row"])
    names = {_column(column): column for column in body}
    for name, cell in cells.items():
        column = names.get(name, name.removeprefix("row.") if name[4:] in (*_FIXED, "raw") else name)
        if column in body:
            body[column] = "" if cell is None and body[column] == "" else cell  # a spreadsheet drops the quotes
        elif cell:
            body[column] = cell
    return {**reject, "row": json.dumps(body, ensure_ascii=False)}


def _refuse_short(rejects: pl.DataFrame, made: Sequence[str]) -> None:
    """Refuse rows of the result without a column that the transforms have `made` since: it would be NULL."""
    bodies = [json.loads(row) for row in rejects["row"]]
    for column in made:
        if count := sum(column not in body for body in bodies):
            raise DataError(
                f"{count:,} quarantined rows have no column {column!r}, which the transforms make now",
                hint=f"headrace rejects --export, fill in {column!r}, then headrace replay --from; or --full-refresh",
                details={"column": column, "rows": count},
            )


def _typed(rejects: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Contract rejects as rows of `schema` again. Raises DataError that names a column which holds no value of its
    type, or which the rows do not have any more: its value would be lost.
    """
    known = set(schema)
    bodies = (json.loads(row) for row in rejects["row"])
    lost = Counter(column for body in bodies for column in body if column not in known and body[column] is not None)
    if lost:
        column, count = next(iter(lost.items()))
        raise DataError(
            f"column {column!r} of {count:,} quarantined rows is none of the rows' columns now",
            hint="headrace rejects --export, move its values to a column there is, then headrace replay --from",
            details={"column": column, "rows": count, "columns": list(schema)},
        )
    texts = rejects["row"].str.json_decode(pl.Struct(dict.fromkeys(schema, pl.String))).struct.unnest()
    types = {name: Type.of_polars(dtype) for name, dtype in schema.items()}
    rows = texts.select(exact.from_text(pl.col(n), t).alias(n) for n, t in types.items())
    for name in schema:
        broken = rows[name].is_null() & texts[name].is_not_null()
        if broken.any():
            raise DataError(
                f"column {name!r} of {broken.sum():,} quarantined rows is not {types[name]}",
                hint="mend them: headrace rejects --export, then headrace replay --from",
            )
    return rows


def _batch(
    pipeline: Pipeline,
    snapshot: Snapshot,
    name: str,
    rejects: pl.DataFrame,
    how: Reading,
    reads: ExitStack,
) -> Batch:
    """A batch of a source's quarantined rows; a look-up is read as always. `reads` closes the source."""
    source = pipeline.named_sources[name]
    asked = Range(after=snapshot.positions.get(name), as_text=how.as_text.get(name, frozenset()))
    usual = next(opened(source, asked, snapshot, name, reads))
    if name not in how.drivers:
        return replace(usual, census=None)  # joined with these rows alone it has not all keys
    lines = rejects.filter(pl.col("stage") == "parse")
    reparse = SourceTraits.of(source).reparse
    if lines.height and reparse is None:
        raise ConfigError(
            f"source {name!r} cannot read single lines again, so {lines.height:,} of its rejects cannot be replayed",
            hint="mend them in the source, or headrace replay --discard --reason …",
        )
    again = None
    if reparse is not None and lines.height:
        told = {"after": snapshot.positions.get(name), "before": snapshot.identities.get(name)}
        again = reparse(lines.select("file", "line", "row"), **told, name=name)
    return Batch(
        frame=_frame(
            usual.whole or usual.frame,
            rejects.filter(pl.col("stage") != "parse"),
            None if again is None else again.frame,
        ),
        news=News(rows=rejects.height),
        position=dict,
        counts=lambda: Counts(rows=rejects.height),
        rejects=lambda: Retold() if again is None else Retold(frames=lambda: _unmended(again, frozenset(lines["id"]))),
        files=tuple,
        identity=usual.identity,
        keys=usual.keys,
    )


def _placed(rejects: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """As `_typed`, with the columns that say where each row stands."""
    return _typed(rejects, schema).with_columns(rejects["file"].alias(FILE), rejects["line"].alias(LINE))


def _frame(usual: Frame, rejects: pl.DataFrame, lines: Frame | None) -> Frame:
    """Rows that could be read and lines that could not, as rows of the source again: each with its place, so that what
    fails again is the reject that it was. `usual` has the columns of all the source's rows, not of the newest alone.
    """
    schema = usual.lazy.collect_schema()
    frames = [_typed(rejects, schema).lazy(), *([lines.lazy] if lines else [])]
    placed = None
    if usual.placed is not None:
        held = _placed(rejects, schema).select(usual.placed.collect_schema().names())
        more = [lines.placed] if lines is not None and lines.placed is not None else []
        placed = pl.concat([held.lazy(), *more], how="diagonal")
    return Frame(lazy=pl.concat(frames, how="diagonal"), placed=placed)


def _unmended(again: Batch, known: frozenset[str]) -> Iterator[pl.DataFrame]:
    """The lines that still cannot be read. Raises DataError for one whose text was mended: it would take the place of
    the text that the source has.
    """
    for frame in again.rejects():
        for row in frame.filter(~pl.col("id").is_in(known)).head(1).to_dicts():
            raise DataError(
                f"{row['file']}:{row['line']} cannot be read as it was mended ({', '.join(row['rules'])})",
                hint="mend its raw text again, or take the row out of the file: it stays in quarantine",
            )
        yield frame

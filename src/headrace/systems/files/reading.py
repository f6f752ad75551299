"""What is new among the files, and the batches that are made of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.cursor import Cursor, track
from headrace.cursor.batches import Parted
from headrace.errors import ConfigError, DataError, HeadraceError
from headrace.flow import FILE, LINE, PLACE, Batch, Counts, FileStamp, Frame, News, Range, Retold, Snapshot, Superseded
from headrace.stream import scan_generator
from headrace.stream.direct import direct, readable
from headrace.stream.drawing import passed
from headrace.systems.files.columnar import ColumnarReader
from headrace.systems.files.naming import moved, refuse_read_by_name, root_of
from headrace.systems.files.paths import File, find, in_order
from headrace.systems.files.scan import Reading
from headrace.systems.files.survey import Survey, survey
from headrace.units import seconds

if TYPE_CHECKING:
    from headrace.systems.files import FileSource

__all__ = ["batches"]


def batches(source: FileSource, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
    """See `FileSource.batches`."""
    root = root_of(source, range.after, snapshot.identities.get(name))
    files = find(source.patterns, source.base, format=source.format, allow_missing=source.allow_missing, root=root)
    kept = moved(source, root)
    if source.cursor is not None:
        settled = _settled(source, files)
        first = not settled and range.after is None  # then the cursor's column is not known either
        yield _UNSEEN if first else _SinceCursor(source, settled, range, snapshot, name).batch(kept)
        return
    if source.read == "all":
        yield _all(source, files, range, snapshot, name)
        return
    settled = _settled(source, files)
    seen = snapshot.seen(name, None) if range.after is not None else {}
    old, new = _divide(source, settled, seen)
    pinned = dict((range.after or {}).get("types") or {})
    for part in _parts(new, range.batch_bytes):
        batch, pinned = _new(source, old, part, pinned, seen, name, kept)
        yield batch
        old = _together(old, part)


_UNSEEN = Batch(
    frame=Frame(lazy=pl.LazyFrame(), placed=pl.LazyFrame(schema={FILE: pl.String, LINE: pl.Int64})),
    news=News(rows=0, bytes=0, empty=True),
    position=dict,
    counts=lambda: Counts(rows=0),
    rejects=Retold,
    files=tuple,
    complete=False,
)
"""There is no file yet."""


def _settled(source: FileSource, files: Sequence[File]) -> list[File]:
    if source.settle is None:
        return list(files)
    oldest = time.time_ns() - int(seconds(source.settle, key="settle") * 1e9)
    return [f for f in files if f.modified <= oldest]


def _divide(source: FileSource, files: Sequence[File], seen: Mapping[str, FileStamp]) -> tuple[list[File], list[File]]:
    """The files that were read, and those that are new. Raises DataError for one that was read and has changed."""
    old, new = [], []
    for file in files:
        stamp = seen.get(file.name)
        if stamp == file.stamp:
            old.append(file)
        elif stamp is None or source.changed == "reread":
            new.append(file)
        else:
            raise DataError(
                f"file {file.name!r} has changed since it was read",
                hint='"changed": "reread" reads it again, with a write that replaces rows; new rows go in new files',
                details={"file": file.name},
            )
    if source.latest is not None:
        _check_gone(seen, files)
    return old, new


def _check_gone(seen: Mapping[str, FileStamp], files: Sequence[File]) -> None:
    here = {f.name for f in files}
    if gone := sorted(n for n in seen if n not in here):
        raise DataError(
            f"file {gone[0]!r} was read and has gone" + (f", with {len(gone) - 1} more" if len(gone) > 1 else ""),
            hint="all files are needed to know the latest rows: put it back, or run with --full-refresh",
            details={"files": gone[:100]},
        )


def _parts(files: Sequence[File], batch_bytes: int | None) -> Iterator[list[File]]:
    part: list[File] = []
    size = 0
    for file in files:
        part.append(file)
        size += file.size
        if batch_bytes is not None and size >= batch_bytes:
            yield part
            part, size = [], 0
    if part or not files:
        yield part


def _frame(reading: Reading) -> Frame:
    return Frame(lazy=reading.lazy, placed=reading.placed)


def _news(reading: Reading, facts: Mapping[str, Any], seen: Mapping[str, FileStamp]) -> News:
    files = reading.files
    changed = (f.name for f in files if seen.get(f.name, f.stamp) != f.stamp)
    return News(
        files=tuple(f.stamp for f in files),
        rows=reading.known_rows,
        bytes=sum(f.size for f in files),
        empty=not files,
        facts={**reading.survey.facts, **facts},
        again=tuple(changed) if reading.source.changed == "reread" else (),
    )


def _all(source: FileSource, files: Sequence[File], range: Range, snapshot: Snapshot, name: str) -> Batch:
    reading = Reading(source, survey(source, files, {}), files, name)
    frame = _frame(reading)
    if source.latest is not None:
        from headrace.systems.files.latest import newest

        rows = newest(reading.placed, source.latest, [f.name for f in files], reading.doubtful)
        frame = Frame(lazy=rows.drop(PLACE), placed=rows)
    version = _version(files)
    seen = snapshot.seen(name, None) if range.after is not None else {}
    return Batch(
        frame=frame,
        news=replace(_news(reading, {}, seen), empty=(range.after or {}).get("version") == version),
        position=lambda: {"version": version},
        counts=reading.counts,
        rejects=lambda: _retold(reading, name, everything=True),
        files=lambda: [f.stamp for f in files],
        whole=frame,
        complete=True,
    )


def _retold(reading: Reading, name: str, *, everything: bool) -> Retold:
    """What a reading tells of its files, once it has been drained, in place of what was told of them before."""
    if not reading.drained:
        return Retold()
    files = None if everything else tuple(f.name for f in reading.files)
    return Retold(frames=reading.rejects, superseded=(Superseded(source=name, files=files),))


def _version(files: Sequence[File]) -> str:
    """A hash of the files' stamps: another one, and something has changed."""
    stamps = sorted((f.name, f.size, f.stamp.version) for f in files)
    return hashlib.blake2b(json.dumps(stamps).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _new(
    source: FileSource,
    old: Sequence[File],
    new: Sequence[File],
    pinned: dict[str, str],
    seen: Mapping[str, FileStamp],
    name: str,
    kept: Mapping[str, str],
) -> tuple[Batch, dict[str, str]]:
    every = _together(old, new)
    looked = survey(source, new or (() if pinned else every[-1:]), pinned)
    pinned = {**pinned, **looked.pinned()}
    reading = Reading(source, looked, new, name)
    if source.latest is not None and new and len(new) == len(every):  # later files need not have every column
        from headrace.systems.files.latest import check

        check(reading.placed.collect_schema(), source.latest)
    rest = _Everything(source, every, pinned, seen, name)
    batch = Batch(
        frame=_frame(reading),
        news=_news(reading, {"files_seen": len(old)}, seen),
        position=lambda: {"files": len(every), "types": pinned, **kept},
        counts=lambda: rest.counts(reading),
        rejects=lambda: rest.rejects(reading),
        files=lambda: [f.stamp for f in new],
        whole=rest.whole(reading),
        former=rest.former(reading, old) if source.latest is not None else None,
        complete=False,
    )
    return batch, pinned


def _together(old: Sequence[File], new: Sequence[File]) -> list[File]:
    """Both, in name order, as each is; a file that is read again once, as it is now."""
    if not (old and new):
        return list(old or new)
    return in_order({f.name: f for f in (*old, *new)}.values())


class _Everything:
    """All files up to now, looked at only when someone asks."""

    def __init__(
        self,
        source: FileSource,
        files: Sequence[File],
        pinned: Mapping[str, str],
        seen: Mapping[str, FileStamp],
        name: str,
    ) -> None:
        self.source, self.files, self.pinned, self.seen, self.name = source, files, pinned, seen, name
        self.read: Reading | None = None

    def reading(self) -> Reading:
        """Everything, under one survey."""
        if self.read is None:
            _check_gone(self.seen, self.files)
            self.read = Reading(self.source, survey(self.source, self.files, self.pinned), self.files, self.name)
        return self.read

    def counts(self, new: Reading) -> Counts:
        """Of the new rows; of all rows where those alone were drained."""
        return self.read.counts() if self.read is not None and not new.drained else new.counts()

    def rejects(self, new: Reading) -> Retold:
        """Of the new files; of all files where the whole was drained, or where none was read before but these."""
        if self.read is not None and self.read.drained:
            return _retold(self.read, self.name, everything=True)
        known = {*self.seen, *(f.name for f in self.files)}
        return _retold(new, self.name, everything=known <= {f.name for f in new.files})

    def whole(self, new: Reading) -> Frame:
        """All rows; with `latest`, the newest row of each key."""
        return Frame(
            lazy=_late(self._rows, new.lazy),
            placed=_late(lambda: self._newest(self.reading()), new.placed),
        )

    def _rows(self) -> pl.LazyFrame:
        reading = self.reading()
        return reading.lazy if self.source.latest is None else self._newest(reading).drop(PLACE)

    def _newest(self, reading: Reading) -> pl.LazyFrame:
        if self.source.latest is None:
            return reading.placed
        from headrace.systems.files.latest import newest

        return newest(reading.placed, self.source.latest, [f.name for f in reading.files], reading.doubtful)

    def former(self, new: Reading, old: Sequence[File]) -> Frame:
        """The rows of earlier files that a new row supersedes."""
        latest = self.source.latest
        assert latest is not None  # noqa: S101  # asked for only then

        def placed() -> pl.LazyFrame:
            from headrace.systems.files.latest import former

            earlier = Reading(self.source, self.reading().survey, old, self.name)
            return former(earlier.placed, new.lazy, latest)

        return Frame(
            lazy=_late(lambda: placed().drop(PLACE), new.lazy),
            placed=_late(placed, new.placed),
        )


def _late(make: Callable[[], pl.LazyFrame], like: pl.LazyFrame) -> pl.LazyFrame:
    """A frame that is made when it is asked for its columns or its rows.

    Where it cannot be made it has the columns of `like`, and says why when its rows are asked for: Polars would make
    another exception of one that the columns raise.
    """
    made: list[pl.LazyFrame] = []

    def frame() -> pl.LazyFrame:
        if not made:
            made.append(make())
        return made[0]

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        yield from passed(frame(), columns, predicate, n_rows)

    def schema() -> pl.Schema:
        try:
            return frame().collect_schema()
        except HeadraceError:
            return like.collect_schema()

    return readable(scan_generator(read, schema), lambda: direct(frame()))


def _refuse_guessed(looked: Survey, cursor: Cursor, name: str) -> None:
    """A cursor whose type was only inferred as text may be dates or numbers that do not sort as such: rows would be
    taken for old ones. Raises ConfigError.
    """
    text = not isinstance(looked.reader, ColumnarReader)
    for column in looked.layout.columns:
        guessed = column.inferred is not None and (text or column.origin == "hive")
        if column.name == cursor.column and guessed and column.type.name in ("string", "bool", "null"):
            raise ConfigError(
                f"source {name!r}: the cursor {column.name!r} was taken for a {column.type}, as its values are neither "
                "numbers nor dates in the usual form",
                hint=f'declare its type: "types": {{"{column.name}": {{"type": "date", "format": "%d/%m/%Y"}}}}, '
                'or "string" if it is meant to be compared as text',
                details={"column": column.name},
            )


class _SinceCursor:
    """What lies after a cursor's last value. A row says itself whether it is new, and not its file: all are read."""

    def __init__(self, source: FileSource, files: Sequence[File], range: Range, snapshot: Snapshot, name: str) -> None:
        cursor = source.cursor
        assert isinstance(cursor, Cursor)  # noqa: S101  # __post_init__ saw to it
        self.name, self.cursor, self.known = name, cursor, range.after is not None
        after = range.after or {}
        refuse_read_by_name(after, cursor, name)
        pinned = dict(after.get("types") or {})
        looked = survey(source, files, pinned)
        _refuse_guessed(looked, cursor, name)
        self.types = {**pinned, **looked.pinned()}
        self.reading = Reading(source, looked, files, name)
        aside = tuple(source.add_columns)
        tracked = partial(track, self.reading.placed, cursor, ties=range.ties, source=name, aside=aside, steady=True)
        self.part, self.whole = tracked(after=range.after, newest=snapshot.newest), tracked(after=None)
        self.read = Parted(self.part, self.whole)
        self.seen = snapshot.seen(name, None) if self.known else {}
        self.fresh = [f.stamp for f in files if self.seen.get(f.name) != f.stamp]

    def batch(self, kept: Mapping[str, str]) -> Batch:
        """The batch; `kept` goes into its position."""
        told = _news(self.reading, {"bounds": dict(self.part.bounds)}, self.seen)
        return Batch(
            frame=self._frame(self.read.part),
            news=replace(told, rows=None, empty=self.known and not self.fresh, misses=self.cursor.misses),
            position=lambda: {**self.read.drained.position(), "types": self.types, **kept},
            counts=lambda: replace(self.reading.counts(), rows=self.read.drained.rows()),
            rejects=self.rejects,
            files=lambda: self.fresh,
            whole=self._frame(self.read.whole),
            complete=False,
        )

    def _frame(self, placed: pl.LazyFrame) -> Frame:
        return Frame(lazy=placed.drop(PLACE), placed=placed)

    def rejects(self) -> Retold:
        """Of the whole, everything; else of files that are new or have changed what could not be read or has no cursor:
        of rows below the cursor an earlier run has told.
        """
        if self.read.whole_ended:
            told = Superseded(source=self.name)
            return Retold(frames=lambda: chain(self.reading.rejects(), self.whole.rejects()), superseded=(told,))
        names = tuple(f.name for f in self.fresh)

        def frames() -> Iterator[pl.DataFrame]:
            for frame in chain(self.reading.rejects(), self.part.rejects()):
                yield frame.filter(pl.col("file").is_in(names))

        told = Superseded(source=self.name, stages=("parse", "cursor"), files=names)
        return Retold(frames=frames, superseded=(told,) if self.read.ended else ())

"""Files as one lazy frame: in order, stat before and after, rejects and counts by whole passes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Lock
from typing import TYPE_CHECKING

import polars as pl

from headrace import exact
from headrace.errors import DataError, HeadraceError, SchemaError
from headrace.flow import Counts
from headrace.logical import Type, widens
from headrace.schema import REJECTS, reject_id
from headrace.sqltext import literal
from headrace.stream import picked, scan_generator
from headrace.stream.direct import Direct, readable
from headrace.stream.drawing import drawn
from headrace.stream.spool import Spool
from headrace.systems.files.columnar import ColumnarReader
from headrace.systems.files.csv import CSVReader
from headrace.systems.files.layout import Column, Reject, convert, hive_value, placed
from headrace.systems.files.paths import File, broken, check_same, hive_parts
from headrace.systems.files.shapes import shapes
from headrace.systems.files.survey import renamed

if TYPE_CHECKING:
    from headrace.systems.files import FileSource
    from headrace.systems.files.survey import Survey

__all__ = ["Reading", "reject_rows"]

_SURE = "_headrace_sure"
_PATTERN = re.compile(r"[*?\[\]\\]")
_DIRECT = frozenset({
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "string", "date", "decimal",
})  # fmt: skip
"""Types that DuckDB reads from Parquet as Polars does, where it gives them the same name. Binary may be a geometry. Of
floats the files' statistics leave NaN out, and DuckDB takes rows for absent by them (or, with `can_have_nan`, NaN for a
maximum where there is none).
"""
_SHAPE = "list((name, type, type_length, converted_type, scale, precision, CAST(logical_type AS VARCHAR)))"


class _CutShortError(Exception):
    """A pass that was asked for some rows only: it has not seen all, so its rejects do not count."""


@dataclass
class _Pass:
    """One pass over the files."""

    columns: list[str]
    predicate: pl.Expr | None
    judged: tuple[Column, ...]
    left: int | None
    rows: int = 0
    bytes: int = 0
    files: int = 0

    def send(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What of the rows is asked for."""
        rows = frame if self.predicate is None else frame.filter(self.predicate)
        rows = picked(rows, self.columns)
        if self.left is not None:
            rows = rows.head(self.left)
            self.left -= rows.height
        return rows


class Reading:
    """A set of files under one survey. `lazy` and `placed` (with file and line in front) can be drained any number
    of times; `counts` and `rejects` tell of the fullest complete pass.
    """

    def __init__(self, source: FileSource, survey: Survey, files: Sequence[File], name: str) -> None:
        self.source, self.survey, self.files, self.name = source, survey, tuple(files), name
        self._placed = placed(survey.layout)
        self.spool = Spool()
        self._done: Counts | None = None
        self._now: _Pass | None = None
        self._lock = Lock()
        self.placed = scan_generator(self._read, self._placed.schema.polars())
        self.lazy = readable(scan_generator(self._read, survey.layout.schema.polars()), self._direct)

    @property
    def drained(self) -> bool:
        """Whether a pass has come to its end."""
        return self._done is not None

    @property
    def doubtful(self) -> frozenset[str]:
        """The columns for whose values a row is refused only by a pass that reads them: texts of an inferred type."""
        if isinstance(self.survey.reader, ColumnarReader):
            return frozenset()
        columns = self.survey.layout.columns
        return frozenset(
            c.name for c in columns if c.origin == "field" and c.inferred is not None and c.type.name != "string"
        )

    @cached_property
    def known_rows(self) -> int | None:
        """How many rows there are, where that is known before they are read. Raises as `ColumnarReader.rows`."""
        reader = self.survey.reader
        counted = [reader.rows(f) if isinstance(reader, ColumnarReader) else None for f in self.files]
        return None if None in counted else sum(n or 0 for n in counted)

    def counts(self) -> Counts:
        """What a complete pass has read; before there is one, how far the pass of the moment has come."""
        if self._done is None and (now := self._now) is not None:
            return Counts(rows=now.rows, bytes=now.bytes, files=now.files)
        return self._done or Counts()

    def rejects(self) -> Iterator[pl.DataFrame]:
        """The records that could not be read, with the columns of `schema.REJECTS`."""
        return self.spool.frames()

    def _read(
        self, columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        names = self._placed.schema.names if columns is None else columns
        roots = set(predicate.meta.root_names()) if predicate is not None else set()
        judged = self._placed.judged(set(names) | roots)
        one = self._now = _Pass(list(names), predicate, judged, n_rows)
        try:
            with self.spool.passed() as spooled:
                for file in self.files:
                    check_same(file)
                    whole = one.bytes + file.size
                    parts = self._columnar(file, one) if self.survey.native else self._texts(file, one)
                    for frame, rejects in parts:
                        if rejects:
                            spooled.write(reject_rows(rejects, self.name))
                        yield frame
                        if one.left == 0:
                            raise _CutShortError  # noqa: TRY301  # it must leave the pass as one that failed
                    check_same(file)
                    one.files += 1
                    one.bytes = whole
        except _CutShortError:
            return
        finally:
            if self._now is one:
                self._now = None
        with self._lock:
            if self._done is None or one.rows > self._done.rows:
                self._done = Counts(rows=one.rows, bytes=one.bytes, files=one.files)

    def _direct(self) -> Direct | None:
        """Parquet files of one and the same shape, whose columns are the rows', in types that need no second look."""
        reader, columns = self.survey.reader, self.survey.layout.columns
        if not self.files or not isinstance(reader, ColumnarReader) or reader.format != "parquet":
            return None
        plain = all(c.origin == "field" and _is_direct(c.type) for c in columns)
        shape = [(c.name, c.type) for c in columns]
        if not plain or any([(f.name, f.type) for f in self.survey.native[file.name]] != shape for file in self.files):
            return None
        paths = tuple(file.location for file in self.files)
        if any(_PATTERN.search(path) for path in paths):  # DuckDB knows no way to take these for what they are
            return None
        listed = ", ".join(map(literal, paths))
        query = f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false)"
        shapes = f"SELECT DISTINCT {_SHAPE} FROM parquet_schema([{listed}]) WHERE type IS NOT NULL GROUP BY file_name"
        return Direct(query=query, shapes=shapes, paths=paths, reading=self._read_elsewhere)

    @contextmanager
    def _read_elsewhere(self) -> Iterator[None]:
        """Around a pass that another engine makes."""
        for file in self.files:
            check_same(file)
        yield
        for file in self.files:
            check_same(file)
        with self._lock:
            size = sum(f.size for f in self.files)
            self._done = Counts(rows=self.known_rows or 0, bytes=size, files=len(self.files))

    def _texts(self, file: File, one: _Pass) -> Iterator[tuple[pl.DataFrame, tuple[Reject, ...]]]:
        reader = self.survey.reader
        assert not isinstance(reader, ColumnarReader)  # noqa: S101  # `native` tells them apart
        head = self.survey.heads[file.name]
        fields = renamed(self.source, file, head.fields)
        present = set(fields)
        wanted = {c.name: c for c in one.judged if c.origin == "field" and c.name in present}
        finish = partial(convert, layout=self._placed, judged=one.judged, file=file, fields=present)
        begun = one.bytes
        if isinstance(reader, CSVReader):
            known = shapes(wanted.values(), self._placed)
            parts = reader.read(file, fields, list(wanted), finish, head=head, shapes=known)
        else:
            parts = reader.read(file, fields, list(wanted), finish, head=head)
        for part in parts:
            one.rows += part.read
            one.bytes = min(one.bytes + part.size, begun + file.size)  # of an archive it is the unpacked bytes
            yield one.send(part.frame), part.rejects

    def _columnar(self, file: File, one: _Pass) -> Iterator[tuple[pl.DataFrame, tuple[Reject, ...]]]:
        reader = self.survey.reader
        assert isinstance(reader, ColumnarReader)  # noqa: S101
        unsure = [c for c in one.judged if not self._is_sure(c, file)]
        rows = 0
        for batch in self._batches(reader, file, one, unsure):
            rows += batch.height
            if not unsure:
                one.left = None if one.left is None else one.left - batch.height
                yield batch, ()
                continue
            made, rejects = self._cast(batch, unsure, file)
            yield one.send(made.select([c.name for c in one.judged])), rejects
        known = reader.rows(file)
        one.rows += rows if known is None else known

    def _batches(
        self, reader: ColumnarReader, file: File, one: _Pass, unsure: Sequence[Column]
    ) -> Iterator[pl.DataFrame]:
        """The rows, piece by piece unless Polars is to leave some out. What breaks a query may be its own or the
        file's: the file is then read once more, to tell. A DataError has told already, and comes out as it is.
        """
        native = self.survey.native[file.name]
        scanned, above = reader.opened(file)
        given = dict(zip(scanned.collect_schema().names(), native.names, strict=True))
        scanned = scanned.rename(given)
        used = {c.name for c in one.judged}
        # rows that are left out or rejected do not count for the limit
        limit = one.left if one.predicate is None and not unsure else None
        reader.prove(file, {of: native[to] for of, to in given.items() if to in used}, limit)
        try:
            if one.predicate is not None or (pieces := reader.pieces(file)) is None:
                yield from drawn(self._query(scanned, file, one, unsure, first=above))
                return
            for first, height in pieces:  # of Parquet, above whose rows nothing stands
                yield from drawn(self._query(scanned.slice(first, height), file, one, unsure, first=first))
        except DataError:  # it has been told, and by its column where that is known
            check_same(file)
            raise
        except (pl.exceptions.PolarsError, HeadraceError, OSError) as error:
            if reader.reads(file):
                raise
            check_same(file)
            raise broken(file, reader.format) from error

    def _query(
        self, rows: pl.LazyFrame, file: File, one: _Pass, unsure: Sequence[Column], *, first: int
    ) -> pl.LazyFrame:
        """What is asked of the file's rows, with `first` lines above them; where values have to be judged (`unsure`),
        all that they are judged by.
        """
        if any(c.origin == "line" for c in one.judged) or unsure:
            rows = rows.with_row_index(_SURE, offset=first + 1)
        frame = rows.with_columns([self._expression(c, file).alias(c.name) for c in one.judged if c not in unsure])
        frame = frame.select([*(c.name for c in one.judged), *([_SURE] if unsure else [])])
        if unsure:
            return frame
        frame = frame if one.predicate is None else frame.filter(one.predicate)
        frame = frame if one.left is None else frame.head(one.left)
        return frame.select(one.columns)

    def _is_sure(self, column: Column, file: File) -> bool:
        """Whether every value of the file's column has one of the result's type."""
        native = self.survey.native[file.name]
        if column.origin != "field" or column.name not in native:
            return True
        return widens(native[column.name], column.type)

    def _expression(self, column: Column, file: File) -> pl.Expr:
        dtype = column.type.polars()
        native = self.survey.native[file.name]
        match column.origin:
            case "field" if column.name in native:
                return exact.cast(pl.col(column.name), native[column.name], column.type)
            case "file":
                return pl.lit(file.name)
            case "line":
                return pl.col(_SURE).cast(dtype)
            case "modified":
                return pl.lit(file.modified // 1000, dtype=pl.Int64).cast(dtype)
            case "hive":
                return pl.lit(hive_value(column, hive_parts(file.name).get(column.name), file)).first()
        return pl.lit(None, dtype=dtype)

    def _cast(
        self, batch: pl.DataFrame, unsure: Sequence[Column], file: File
    ) -> tuple[pl.DataFrame, tuple[Reject, ...]]:
        native = self.survey.native[file.name]
        try:
            made = batch.with_columns([exact.cast(pl.col(c.name), native[c.name], c.type) for c in unsure])
        except SchemaError as error:
            raise SchemaError(f"file {file.name!r}: {error.message}", hint=error.hint) from None
        lost = [batch[c.name].is_not_null() & made[c.name].is_null() for c in unsure]
        bad = lost[0]
        for mask in lost[1:]:
            bad = bad | mask
        if not bad.any():
            return made, ()
        texts = batch.filter(bad).select(
            [exact.lasting(pl.col(n), native[n]).alias(n) for n in native.names if n in batch.columns]
        )
        rejects = []
        for row, line, at in zip(
            texts.iter_rows(named=True), batch.filter(bad)[_SURE].to_list(), bad.arg_true(), strict=True
        ):
            rules = tuple(f"{c.name}: not exactly {c.type}" for c, mask in zip(unsure, lost, strict=True) if mask[at])
            rejects.append(Reject(file.name, line, json.dumps(row, ensure_ascii=False), rules))
        return made.filter(~bad), tuple(rejects)


def _is_direct(type: Type) -> bool:
    return type.name in _DIRECT or (type.name == "datetime" and type.args[0] != "ms")


def reject_rows(rejects: Sequence[Reject], source: str) -> pl.DataFrame:
    """Rejects with the columns of `schema.REJECTS`."""
    rows = [
        (reject_id("parse", source, r.file, r.line, r.row), "parse", source, r.file, r.line, list(r.rules), r.row, None)
        for r in rejects
    ]
    return pl.DataFrame(rows, schema=REJECTS.polars(), orient="row")

"""Parquet, Arrow IPC and Excel: typed columns, scanned lazily where Polars can."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from headrace.errors import DataError, HeadraceError
from headrace.frozen import frozen
from headrace.schema import Schema
from headrace.stream.drawing import drawn
from headrace.systems.files import arrow
from headrace.systems.files.blocks import bytes_of
from headrace.systems.files.excel import sheet
from headrace.systems.files.paths import File, broken, check_same, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.logical import Type
    from headrace.systems.files import FileSource

__all__ = ["ColumnarReader"]

_PIECE_BYTES = 16 * 1024 * 1024
_CUTS_MAX = 16
_FIRST, _LAST = -106_751 * 86_400, 2**63 // 10**9 - 1
"""Between these whole seconds Polars reads times of INT96 as they are: it takes 1677-09-21 for 2262."""

_DAY = {"milliseconds": 86_400_000, "microseconds": 86_400_000_000, "nanoseconds": 86_400_000_000_000}
_DOUBTED = re.compile(r"datetime\(ns|\btime\b")
"""Types, or types that hold such, of which a Parquet file may have values that Polars reads as others."""


@frozen
class ColumnarReader:
    """Reads files whose columns have types of their own."""

    source: FileSource
    format: str

    def schema(self, file: File) -> Schema:
        """The file's columns. Raises DataError naming a file that is broken or cut off, and what `bytes_of` raises."""
        self._check_whole(file)
        try:
            found = Schema.of_polars(arrow.schema(file) if self.format == "ipc" else self.scan(file).collect_schema())
        except pl.exceptions.PanicException as error:
            raise unreadable(file) from error
        except (pl.exceptions.PolarsError, OSError) as error:
            self._refuse_doubled(file)
            raise broken(file, self.format) from error
        try:
            pl.DataFrame(schema=found.polars())
        except pl.exceptions.PolarsError as error:
            raise unreadable(file) from error
        return found

    def rows(self, file: File) -> int | None:
        """How many rows it has, where that costs nothing. Raises UnavailableError where it has changed, DataError."""
        if self.format != "parquet":
            return None
        try:
            return int(pl.scan_parquet(file.path, glob=False).select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, OSError) as error:
            check_same(file)
            raise broken(file, self.format) from error

    def pieces(self, file: File) -> list[tuple[int, int]] | None:
        """First row and number of rows of parts that are read one by one, of some `_PIECE_BYTES` in memory; None where
        the format has none. Polars alone decodes a file as fast as it can, however slow the reader.
        """
        if self.format != "parquet":
            return None
        from pyarrow import parquet

        try:
            metadata = parquet.read_metadata(file.path)
        except pa.ArrowException:  # PyArrow does not know all that Polars reads
            return None
        pieces: list[tuple[int, int]] = []
        first, rows, size = 0, 0, 0
        for at in range(metadata.num_row_groups):
            group = metadata.row_group(at)
            more = max(group.total_byte_size, 8 * group.num_rows * group.num_columns)
            if rows and size + more > _PIECE_BYTES:
                pieces += _cut(first, rows, size)
                first, rows, size = first + rows, 0, 0
            rows, size = rows + group.num_rows, size + more
        return pieces + _cut(first, rows, size)

    def prove(self, file: File, columns: Mapping[str, Type], rows: int | None = None) -> None:
        """Raises DataError where one of these columns has, in the first `rows`, what Polars would silently read as
        another value: a time of Parquet's old INT96, as Spark writes it, may lie beyond Polars' nanoseconds, and a time
        of day beyond the day, which it takes for NULL. Also for a column that is damaged; UnavailableError where the
        file has changed.
        """
        if self.format != "parquet" or not any(_DOUBTED.search(str(type)) for type in columns.values()):
            return
        from pyarrow import parquet

        try:
            opened = parquet.ParquetFile(file.path, coerce_int96_timestamp_unit="s")
        except (pa.ArrowException, OSError):  # it does not know all that Polars reads, and Polars says what is broken
            return
        with opened:
            try:
                for batch in _doubted(opened, columns, rows):
                    arrow.prove(file, batch)
                    _prove_times(file, batch)
            except (pa.ArrowException, OSError) as error:
                check_same(file)
                raise broken(file, self.format) from error

    def scan(self, file: File) -> pl.LazyFrame:
        """The file's rows, lazily where the format can."""
        return self.opened(file)[0]

    def opened(self, file: File) -> tuple[pl.LazyFrame, int]:
        """The file's rows as `scan`, and how many lines of the file stand above the first of them."""
        if self.format == "parquet":
            return pl.scan_parquet(file.path, glob=False, hive_partitioning=False), 0
        if self.format == "ipc":
            return arrow.scan(file), 0
        found = sheet(self.source, file)
        if found is None:
            raise broken(file, self.format)
        return found.rows.lazy(), found.above

    def reads(self, file: File) -> bool:
        """Whether the file can be read to its end. It reads it all: for a query over it that broke off."""
        try:
            for _ in drawn(self.scan(file)):
                pass
        except (pl.exceptions.PolarsError, HeadraceError, OSError):
            return False
        return True

    def _refuse_doubled(self, file: File) -> None:
        """Polars has no other word for it than for a broken file."""
        if self.format == "parquet":
            from pyarrow import parquet

            with suppress(pa.ArrowException, OSError):
                arrow.refuse_doubled(file, parquet.read_schema(file.path).names)

    def _check_whole(self, file: File) -> None:
        """A writer that was killed leaves a file that may read well up to where it ends."""
        with bytes_of(file) as raw:
            if self.format == "excel":
                return
            head = raw.read(8)
            raw.seek(max(file.size - 8, 0))
            tail = raw.read(8)
        whole = {
            "parquet": head[:4] == tail[-4:] == b"PAR1",
            "ipc": tail[-6:] == arrow.IPC_FILE if head[:6] == arrow.IPC_FILE else tail == arrow.IPC_END,
        }[self.format]
        if not whole:
            raise broken(file, self.format)


def _doubted(opened: Any, columns: Mapping[str, Type], rows: int | None) -> Iterator[pa.RecordBatch]:
    """What of these columns has to be looked at, at least for the first `rows`: the leaves that hold times, without the
    row groups whose statistics say enough.
    """
    leaves = ((at, opened.schema.column(at)) for at in range(len(opened.schema)))
    timely = [(at, leaf) for at, leaf in leaves if leaf.physical_type == "INT96" or leaf.logical_type.type == "TIME"]
    asked = [(at, f) for at, f in timely if any(f.path == name or f.path.startswith(f"{name}.") for name in columns)]
    left = opened.metadata.num_rows if rows is None else rows
    for at in range(opened.metadata.num_row_groups if asked else 0):
        group = opened.metadata.row_group(at)
        paths = [leaf.path for place, leaf in asked if not _is_within_a_day(leaf, group.column(place))]
        ahead = left
        for batch in opened.iter_batches(row_groups=[at], columns=paths) if paths else ():
            yield batch
            ahead -= batch.num_rows
            if ahead <= 0:
                return
        left -= group.num_rows
        if left <= 0:
            return


def _is_within_a_day(leaf: Any, chunk: Any) -> bool:
    """Whether the statistics of a row group say so."""
    known = chunk.statistics
    if leaf.physical_type == "INT96" or known is None:
        return False
    if not known.has_min_max:
        return bool(known.has_null_count and known.null_count == chunk.num_values)
    return bool(known.min_raw >= 0 and known.max_raw < _DAY[json.loads(leaf.logical_type.to_json())["timeUnit"]])


def _seconds(values: pa.Array) -> Iterator[pl.Series]:
    """The times in whole seconds, and those that lie in lists and structs."""
    if pa.types.is_timestamp(values.type):
        yield pl.Series(values.cast(pa.int64()))
    elif values.type.num_fields:
        inner = values.flatten()
        for one in inner if isinstance(inner, list) else [inner]:
            yield from _seconds(one)


def _prove_times(file: File, batch: pa.RecordBatch) -> None:
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        if not all(seconds.is_between(_FIRST, _LAST).all() for seconds in _seconds(values)):
            raise DataError(
                f"file {file.name!r}: column {name!r} holds times before 1677 or after 2262, as INT96 of nanoseconds",
                hint="write it with microseconds (Spark: spark.sql.parquet.outputTimestampType=TIMESTAMP_MICROS)",
                details={"file": file.name, "column": name},
            )


def _cut(first: int, rows: int, size: int) -> list[tuple[int, int]]:
    """Rows of so many bytes in pieces: a large row group in several, though each costs a look at all of its pages."""
    count = min(_CUTS_MAX, max(1, size // _PIECE_BYTES))
    step = max(1, -(-rows // count))
    return [(start, min(step, first + rows - start)) for start in range(first, first + rows, step)]

"""Parquet, Arrow IPC and Excel: typed columns, scanned lazily where Polars can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from headrace.errors import DataError, HeadraceError
from headrace.frozen import frozen
from headrace.schema import Schema
from headrace.stream import scan_batches
from headrace.stream.drawing import drawn
from headrace.systems.files.blocks import bytes_of
from headrace.systems.files.excel import sheet
from headrace.systems.files.paths import File, check_same

if TYPE_CHECKING:
    from headrace.systems.files import FileSource

__all__ = ["ColumnarReader", "broken"]

_IPC_FILE = b"ARROW1"
_STREAMED = 8 * 1024 * 1024
_PIECE_BYTES = 16 * 1024 * 1024
_CUTS_MAX = 16
_IPC_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


@frozen
class ColumnarReader:
    """Reads files whose columns have types of their own."""

    source: FileSource
    format: str

    def schema(self, file: File) -> Schema:
        """The file's columns. Raises DataError naming a file that is broken or cut off, and what `bytes_of` raises."""
        self._check_whole(file)
        try:
            found = Schema.of_polars(self.scan(file).collect_schema())
        except pl.exceptions.PanicException as error:
            raise _unreadable(file) from error
        except pl.exceptions.PolarsError as error:
            raise broken(file, self.format) from error
        except OSError as error:
            raise broken(file, self.format) from error
        try:
            pl.DataFrame(schema=found.polars())
        except pl.exceptions.PolarsError as error:
            raise _unreadable(file) from error
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

    def scan(self, file: File) -> pl.LazyFrame:
        """The file's rows, lazily where the format can."""
        if self.format == "parquet":
            return pl.scan_parquet(file.path, glob=False, hive_partitioning=False)
        if self.format == "ipc":
            return self._ipc(file)
        rows = sheet(self.source, file)
        if rows is None:
            raise broken(file, self.format)
        return rows.lazy()

    def reads(self, file: File) -> bool:
        """Whether the file can be read to its end. It reads it all: for a query over it that broke off."""
        try:
            for _ in drawn(self.scan(file)):
                pass
        except (pl.exceptions.PolarsError, HeadraceError, OSError):
            return False
        return True

    def _ipc(self, file: File) -> pl.LazyFrame:
        with bytes_of(file) as raw:
            as_file = raw.read(len(_IPC_FILE)) == _IPC_FILE
        if as_file:
            return pl.scan_ipc(file.path, glob=False, hive_partitioning=False)
        schema = next(_record_batches(file, rows=False)).schema
        return scan_batches(lambda: _record_batches(file), schema)

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
            "ipc": tail[-6:] == _IPC_FILE if head[:6] == _IPC_FILE else tail == _IPC_END,
        }[self.format]
        if not whole:
            raise broken(file, self.format)


def _cut(first: int, rows: int, size: int) -> list[tuple[int, int]]:
    """Rows of so many bytes in pieces: a large row group in several, though each costs a look at all of its pages."""
    count = min(_CUTS_MAX, max(1, size // _PIECE_BYTES))
    step = max(1, -(-rows // count))
    return [(start, min(step, first + rows - start)) for start in range(first, first + rows, step)]


def _record_batches(file: File, *, rows: bool = True) -> Iterator[pl.DataFrame]:
    """The rows of an IPC stream, some megabytes of record batches at a time (at least one frame, of no rows): Polars
    would read all of it at once. PyArrow only tells the messages apart: it does not know all types of Polars.
    """
    head, held = list[pa.Buffer](), list[pa.Buffer]()
    try:
        with pa.OSFile(str(file.path), "rb") as opened:
            messages = pa.ipc.MessageReader.open_stream(opened)
            for message in messages if rows else [messages.read_next_message()]:
                if message.type != "record batch":  # the schema; dictionaries, which hold for what follows
                    if held:
                        yield _frame(head, held)
                        held = []
                    head.append(message.serialize())
                    continue
                held.append(message.serialize())
                if sum(buffer.size for buffer in held) >= _STREAMED:
                    yield _frame(head, held)
                    held = []
    except (pa.ArrowException, StopIteration) as error:
        raise broken(file, "ipc") from error
    yield _frame(head, held)


def _frame(head: Sequence[pa.Buffer], batches: Sequence[pa.Buffer]) -> pl.DataFrame:
    return pl.read_ipc_stream(b"".join([*(memoryview(b) for b in (*head, *batches)), _IPC_END]))


def _unreadable(file: File) -> DataError:
    return DataError(
        f"file {file.name!r} has a column of a type that cannot be read",
        hint="decimals of more than 38 digits and time zones that are offsets (+05:30) must be converted first",
        details={"file": file.name},
    )


def broken(file: File, format: str) -> DataError:
    """What is said of a file that its reader cannot read."""
    return DataError(
        f"file {file.name!r} is no whole {format} file: cut off, broken, or something else",
        hint="write it again; a file that is still being written is left alone with " + '"settle": "5m"',
        details={"file": file.name},
    )

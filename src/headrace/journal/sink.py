"""Rows into files: a commit's stream drained into the table's columns and types, and encoded in bounded memory.

The stream is drained in the caller's thread and handed through a queue of two batches to a thread in which Polars
encodes. It is NOT drained inside a Polars generator: an exception inside an Arrow stream that is drained in one of
Polars' own threads kills the process (pyarrow 26) or never ends (`scan_arrow_c_stream`, Polars 2.1).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path

import polars as pl

from headrace import disk
from headrace.errors import HeadraceError, SchemaError
from headrace.flow import TableChange
from headrace.logical import Type, widens
from headrace.schema import Schema
from headrace.stream import reraise, scan_batches
from headrace.stream.drawing import said

__all__ = ["Encode", "Sink", "drain"]

Encode = Callable[[pl.LazyFrame, Path], None]
"""Write a frame to a file, batch by batch."""


def drain(change: TableChange, where: Path) -> closing[Generator[pl.DataFrame]]:
    """The rows, batch by batch, in the table's columns and types, for a ``with`` block: a stream that is left early
    waits for who draws it, at exit too, for as long as a traceback refers to it. What breaks it comes out as it was.

    Raises SchemaError for rows that do not fit the table.
    """
    return closing(_drained(change, where))


def _drained(change: TableChange, where: Path) -> Generator[pl.DataFrame]:
    import pyarrow as pa

    with reraise():
        reader = pa.RecordBatchReader.from_stream(change.rows())
    columns: list[pl.Expr] | None = None
    while True:
        with reraise():
            try:
                arrow = reader.read_next_batch()
            except StopIteration:
                return
        batch = pl.from_arrow(arrow)
        if not isinstance(batch, pl.DataFrame):
            raise TypeError(batch)
        columns = columns or _columns(batch.schema, change.schema, where)
        if batch.height:
            yield batch.select(columns)


def _columns(rows: pl.Schema, schema: Schema, where: Path) -> list[pl.Expr]:
    """The table's columns from the rows': missing ones null, narrower ones widened, none ever cut."""
    if unknown := [name for name in rows if name not in schema]:
        raise SchemaError(
            f"{where}: the rows have a column {unknown[0]!r} that the table does not have", hint="run again"
        )
    columns = []
    for field in schema:
        dtype = field.type.polars()
        if field.name not in rows:
            columns.append(pl.lit(None, dtype=dtype).alias(field.name))
        elif rows[field.name] == dtype:
            columns.append(pl.col(field.name))
        elif widens(old := Type.of_polars(rows[field.name]), field.type):
            columns.append(pl.col(field.name).cast(dtype))
        else:
            raise SchemaError(
                f"{where}: column {field.name!r} is {old}, the table holds {field.type}",
                hint="cast it in a transform, or load into a new table",
            )
    return columns


class Sink:
    """One file under way. `rows` and `bytes` (in memory) are what it was given so far."""

    def __init__(self, path: Path, schema: Schema, encode: Encode, *, where: Path) -> None:
        self.path = path
        self.rows = 0
        self.bytes = 0.0
        self._where = where
        self._queue: queue.Queue[pl.DataFrame | None] = queue.Queue(2)
        self._dropped = False
        # until the encoder has RETURNED: whatever else ends its thread, the file is cut
        self._failed: BaseException | None = HeadraceError(
            f"{where}: a file was not written to its end", hint="run again; nothing of this commit was kept"
        )
        frame = scan_batches(self._batches, schema.polars())
        self._thread = threading.Thread(target=self._encode, args=(encode, frame), name=f"headrace-{path.name}")
        self._thread.start()

    def put(self, batch: pl.DataFrame) -> None:
        """Give it rows; waits while two batches are waiting. Raises RejectedError, and what the encoder raises."""
        while self._thread.is_alive():
            try:
                self._queue.put(batch, timeout=0.5)
            except queue.Full:
                continue
            self.rows += batch.height
            self.bytes += batch.estimated_size()
            return
        self.close()

    def close(self) -> int:
        """End the file, whole and on the disk; its size in bytes. Raises RejectedError."""
        self._end()
        with disk.translated(self._where):
            if self._failed is not None:
                raise self._failed
            disk.sync_file(self.path)
            return self.path.stat().st_size

    def drop(self) -> None:
        """End without a file that counts: what then lies at its path may look whole, and is named in no log."""
        self._dropped = True
        self._end()

    def _end(self) -> None:
        while self._thread.is_alive():
            try:
                self._queue.put(None, timeout=0.1)
            except queue.Full:
                continue
            break
        self._thread.join()

    def _encode(self, encode: Encode, frame: pl.LazyFrame) -> None:
        try:
            encode(frame, self.path)
        except BaseException as error:  # noqa: BLE001  # it is raised in the other thread
            self._failed = said(error)
        else:
            self._failed = None

    def _batches(self) -> Iterator[pl.DataFrame]:
        while (batch := self._queue.get()) is not None:
            if self._dropped:
                return
            yield batch

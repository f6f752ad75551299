"""Rows into Parquet files: bounded memory, sound row groups, durable when done.

The stream is drained in the caller's thread and handed through a queue of two batches to a thread in which Polars
encodes. It is NOT drained inside a Polars generator: an exception inside an Arrow stream that is drained in one of
Polars' own threads kills the process (pyarrow 26) or never ends (`scan_arrow_c_stream`, Polars 2.1).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from headrace import disk
from headrace.errors import SchemaError
from headrace.flow import Commit, TableChange
from headrace.journal import Attempt
from headrace.schema import Schema, Type, widens
from headrace.stream import reraise, scan_batches

if TYPE_CHECKING:
    from headrace.systems.parquet import ParquetDestination

__all__ = ["Layout", "drain", "write_file", "write_rows"]

_GROUP_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How files are made: sizes in bytes before encoding, and the metadata that each carries."""

    compression: Literal["zstd", "snappy", "gzip", "lz4", "uncompressed"]
    group_bytes: int
    file_bytes: int
    metadata: dict[str, str]

    @staticmethod
    def of(how: ParquetDestination, commit: Commit) -> Layout:
        """From the destination's settings. Raises ConfigError for a size that is none."""
        return Layout(
            compression=how.compression,
            group_bytes=disk.size(how.row_group_bytes),
            file_bytes=disk.size(how.file_bytes),
            metadata={
                "headrace.pipeline": commit.pipeline,
                "headrace.run": commit.run,
                "headrace.commit": commit.id,
            },
        )

    def group_rows(self, batch: pl.DataFrame) -> int:
        """Rows of a row group, judged by the first batch."""
        each = max(1.0, batch.estimated_size() / max(1, batch.height))
        return max(1, min(_GROUP_ROWS, int(self.group_bytes / each)))


def drain(change: TableChange, where: Path) -> Iterator[pl.DataFrame]:
    """The rows, batch by batch, in the table's columns and types. What breaks the stream comes out as it was.

    Raises SchemaError for a type that Parquet cannot hold exactly, or that does not fit the table.
    """
    import pyarrow as pa

    for field in change.schema:
        _refuse(field.name, field.type)
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


def _refuse(name: str, type: Type) -> None:
    if type.name == "int128" or (type.name == "struct" and not type.args):
        raise SchemaError(
            f"column {name!r} is {type}, which Parquet cannot hold so that all engines read it",
            hint="cast it in a transform, e.g. to decimal(38,0) or string",
        )
    if type.name == "array" and type.args[1] == 0:
        raise SchemaError(f"column {name!r} is {type}: an array of width 0", hint="drop it in a transform")
    for inner in type.args:
        if isinstance(inner, Type):
            _refuse(name, inner)
        elif type.name == "struct":
            _refuse(name, inner[1])


def _columns(rows: pl.Schema, schema: Schema, where: Path) -> list[pl.Expr]:
    """The table's columns from the rows': missing ones null, narrower ones widened, none ever cut."""
    if unknown := [name for name in rows if name not in schema]:
        raise SchemaError(f"{where}: the rows have a column {unknown[0]!r} that the table does not have", hint="")
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


def write_rows(
    batches: Iterable[pl.DataFrame], attempt: Attempt, layout: Layout, change: TableChange, *, first: int = 0
) -> list[dict[str, Any]]:
    """Stage the batches as files of about `layout.file_bytes`; `first` is the count in the first name."""
    files: list[dict[str, Any]] = []
    sink: _Sink | None = None
    try:
        for batch in batches:
            if sink is None:
                name = f"{attempt.stem}-{first + len(files)}.parquet"
                sink = _Sink(attempt.staged(name), name, layout, layout.group_rows(batch), change.schema)
            sink.put(batch)
            if sink.bytes >= layout.file_bytes:
                closing, sink = sink, None
                files.append(closing.close())
        if sink is not None:
            closing, sink = sink, None
            files.append(closing.close())
    finally:
        if sink is not None:
            sink.drop()
    return files


class _Sink:
    """One file under way, encoded in a thread of its own."""

    def __init__(self, path: Path, name: str, layout: Layout, group_rows: int, schema: Schema) -> None:
        self.bytes = 0.0
        self._rows = 0
        self._path = path
        self._name = name
        self._queue: queue.Queue[pl.DataFrame | None] = queue.Queue(2)
        self._dropped = False
        self._failed: Exception | None = None
        self._frame = scan_batches(self._batches, schema.polars())
        self._thread = threading.Thread(target=self._sink, args=(layout, group_rows), name="headrace-parquet")
        self._thread.start()

    def put(self, batch: pl.DataFrame) -> None:
        while self._thread.is_alive():
            try:
                self._queue.put(batch, timeout=0.5)
            except queue.Full:
                continue
            self._rows += batch.height
            self.bytes += batch.estimated_size()
            return
        self.close()

    def close(self) -> dict[str, Any]:
        """The file, whole and on the disk. Raises RejectedError."""
        self._end()
        with disk.translated(self._path.parents[3]):
            if self._failed is not None:
                raise self._failed
            disk.sync_file(self._path)
            return {"name": self._name, "rows": self._rows, "bytes": self._path.stat().st_size}

    def drop(self) -> None:
        """End without a file that counts: what lies at its path is never named in a log."""
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

    def _sink(self, layout: Layout, group_rows: int) -> None:
        try:
            sink_file(self._frame, self._path, layout, group_rows)
        except Exception as error:  # noqa: BLE001  # it is raised in the other thread
            self._failed = error

    def _batches(self) -> Iterator[pl.DataFrame]:
        while (batch := self._queue.get()) is not None:
            if self._dropped:
                return
            yield batch


def sink_file(frame: pl.LazyFrame, path: Path, layout: Layout, group_rows: int) -> None:
    """Encode a frame into one file."""
    frame.sink_parquet(
        path,
        compression=layout.compression,
        statistics=True,
        row_group_size=group_rows,
        maintain_order=True,
        metadata=layout.metadata,
    )


def write_file(rows: pl.DataFrame, attempt: Attempt, name: str, layout: Layout) -> dict[str, Any]:
    """Stage rows that are in memory as one file, durably. Raises RejectedError."""
    path = attempt.staged(name)
    with disk.translated(path.parents[3]):
        sink_file(rows.lazy(), path, layout, layout.group_rows(rows))
        disk.sync_file(path)
        return {"name": name, "rows": rows.height, "bytes": path.stat().st_size}

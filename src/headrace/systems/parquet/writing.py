"""Rows into Parquet files: bounded memory, sound row groups, durable when done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from headrace import disk
from headrace.errors import SchemaError
from headrace.flow import Commit, TableChange
from headrace.frozen import frozen
from headrace.journal import Attempt
from headrace.journal.sink import Sink
from headrace.logical import Type
from headrace.schema import Schema
from headrace.stream.drawing import said
from headrace.units import size

if TYPE_CHECKING:
    from headrace.systems.parquet import ParquetDestination

__all__ = ["Layout", "check_types", "write_file", "write_rows"]


_GROUP_ROWS = 1_000_000


@frozen(kw_only=True)
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
            group_bytes=size(how.row_group_bytes),
            file_bytes=size(how.file_bytes),
            metadata={
                "headrace.pipeline": commit.pipeline,
                "headrace.run": commit.run,
                "headrace.commit": commit.id,
                "headrace.origins": json.dumps({n: o for c in commit.changes for n, o in c.schema.origins.items()}),
            },
        )

    def group_rows(self, batch: pl.DataFrame) -> int:
        """Rows of a row group, judged by the first batch."""
        each = max(1.0, batch.estimated_size() / max(1, batch.height))
        return max(1, min(_GROUP_ROWS, int(self.group_bytes / each)))


def check_types(schema: Schema) -> None:
    """Raise SchemaError for a type that Parquet cannot hold exactly, or not so that all engines read it."""
    for field in schema:
        _refuse(field.name, field.type)


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


def write_rows(
    batches: Iterable[pl.DataFrame], attempt: Attempt, layout: Layout, change: TableChange, where: Path, first: int = 0
) -> list[dict[str, Any]]:
    """Stage the batches as files of about `layout.file_bytes`; `first` is the count in the first name."""
    files: list[dict[str, Any]] = []
    sink: Sink | None = None
    try:
        for batch in _bounded(batches, layout):
            if sink is None:
                name = f"{attempt.stem}-{first + len(files)}.parquet"
                encode = partial(encode_file, layout=layout, group_rows=layout.group_rows(batch))
                sink = Sink(attempt.staged(name), change.schema, encode, where=where)
                files.append({"name": name})
            sink.put(batch)
            if sink.bytes >= layout.file_bytes:
                files[-1].update(bytes=sink.close(), rows=sink.rows)
                sink = None
        if sink is not None:
            files[-1].update(bytes=sink.close(), rows=sink.rows)
    except BaseException:
        if sink is not None:
            sink.drop()
        raise
    return files


def _bounded(batches: Iterable[pl.DataFrame], layout: Layout) -> Iterator[pl.DataFrame]:
    """The batches, a huge one in slices, so that a file can end in its midst."""
    for batch in batches:
        yield from batch.iter_slices(layout.group_rows(batch))


def encode_file(frame: pl.LazyFrame, path: Path, *, layout: Layout, group_rows: int) -> None:
    """Encode a frame into one file."""
    try:
        frame.sink_parquet(
            path,
            compression=layout.compression,
            statistics=True,
            row_group_size=group_rows,
            maintain_order=True,
            metadata=layout.metadata,
        )
    except pl.exceptions.PanicException as error:
        raise said(error) from None


def write_file(rows: pl.DataFrame, attempt: Attempt, name: str, layout: Layout, where: Path) -> dict[str, Any]:
    """Stage rows that are in memory as one file, durably. Raises RejectedError."""
    path = attempt.staged(name)
    with disk.translated(where):
        encode_file(rows.lazy(), path, layout=layout, group_rows=layout.group_rows(rows))
        disk.sync_file(path)
        return {"name": name, "rows": rows.height, "bytes": path.stat().st_size}

"""Arrow IPC, as files and as streams: each record batch is proven before Polars, which trusts it, may see it.

Polars dies of some damaged batches, and says so on stderr in its own words; of others it makes rows. PyArrow checks
lengths, offsets, UTF-8 and digits (`RecordBatch.validate(full=True)`) and hands its memory over as it is. It knows no
integers of 128 bits: a file with such a column, which only Polars writes, is read by Polars alone.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from headrace.errors import DataError
from headrace.stream import asked, scan_batches, scan_generator
from headrace.systems.files.paths import broken, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.systems.files.paths import File


__all__ = ["IPC_END", "IPC_FILE", "prove", "refuse_doubled", "scan", "schema"]

IPC_FILE = b"ARROW1"
"""What an IPC file begins and ends with."""
IPC_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""What an IPC stream ends with."""
_STREAMED = 8 * 1024 * 1024
_WIDE = "more than 64 bits"  # so PyArrow says what it has not
_IN_COLUMN = re.compile(r"In column (\d+):")
_PHYSICAL = re.compile(rb"u(8|16|32);$")
_UNKNOWN = frozenset({
    pa.lib.Type_DECIMAL256, pa.lib.Type_RUN_END_ENCODED, pa.lib.Type_LIST_VIEW, pa.lib.Type_LARGE_LIST_VIEW,
    pa.lib.Type_SPARSE_UNION, pa.lib.Type_DENSE_UNION, pa.lib.Type_INTERVAL_MONTHS, pa.lib.Type_INTERVAL_DAY_TIME,
    pa.lib.Type_INTERVAL_MONTH_DAY_NANO,
})  # fmt: skip
"""What Polars 2.1 does not know, and panics at."""


def schema(file: File) -> pl.Schema:
    """The file's columns. Raises DataError for one that is broken, that has a column of a type that Polars does not
    know, or two of one name.
    """
    if not _is_provable(file):
        return _unproven(file).collect_schema()
    try:
        with pa.OSFile(str(file.path), "rb") as opened:
            found = _reader(opened).schema
        _check(file, found)
        return pl.DataFrame(pa.RecordBatchReader.from_batches(found, [])).schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise broken(file, "ipc") from error


def scan(file: File) -> pl.LazyFrame:
    """The file's rows, a record batch at a time, of only the columns that are asked for. Collected, it raises what
    `schema` raises, and DataError at a batch that is broken.
    """
    if not _is_provable(file):
        return _unproven(file)

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        roots = [] if predicate is None else predicate.meta.root_names()
        wanted = None if columns is None else list(dict.fromkeys((*columns, *roots)))
        yield from asked(_frames(file, wanted), columns, predicate, n_rows)

    return scan_generator(read, lambda: schema(file))


def _is_provable(file: File) -> bool:
    """Whether PyArrow can prove the file, or say that it is broken. Raises DataError for a type that nobody reads."""
    try:
        with pa.OSFile(str(file.path), "rb") as opened:
            _reader(opened)
    except pa.ArrowNotImplementedError as error:
        if _WIDE not in str(error):  # a damaged file may ask for anything
            raise unreadable(file) from error
        return False
    except (pa.ArrowException, OSError):
        pass
    return True


def _frames(file: File, columns: Sequence[str] | None) -> Iterator[pl.DataFrame]:
    try:
        with pa.OSFile(str(file.path), "rb") as opened:
            reader = _reader(opened)
            if columns is not None:
                names = reader.schema.names
                reader = _reader(opened, [names.index(name) for name in columns] or [0])
            for batch in _batches(reader):
                prove(file, batch)
                yield pl.DataFrame(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise broken(file, "ipc") from error


def prove(file: File, batch: pa.RecordBatch) -> None:
    """Raises DataError, by its column, for what Polars would read as something else; ArrowInvalid if it is in none."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        found = _IN_COLUMN.match(str(error))
        if found is None:
            raise
        column = batch.schema.field(int(found[1])).name
        raise DataError(
            f"file {file.name!r}: column {column!r} holds what is no value of its type",
            hint="the file is damaged, or whoever wrote it was wrong (a date64 with hours, a time of 24:00:00)",
            details={"file": file.name, "column": column},
        ) from error


def _reader(opened: pa.OSFile, fields: Sequence[int] | None = None) -> Any:
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    as_file = _is_file(opened)
    return pa.ipc.open_file(opened, options=options) if as_file else pa.ipc.open_stream(opened, options=options)


def _is_file(opened: pa.OSFile) -> bool:
    opened.seek(0)
    found = opened.read(len(IPC_FILE)) == IPC_FILE
    opened.seek(0)
    return bool(found)


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchStreamReader):
        yield from reader
    else:
        yield from (reader.get_batch(at) for at in range(reader.num_record_batches))


def refuse_doubled(file: File, names: Sequence[str]) -> None:
    """Raises DataError where two of the file's columns have one name."""
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"file {file.name!r} has two columns {doubled[0]!r}",
            hint="write it with other names",
            details={"file": file.name, "column": doubled[0]},
        )


def _check(file: File, found: pa.Schema) -> None:
    refuse_doubled(file, found.names)
    for field in found:
        if not _is_known(field):
            raise unreadable(file, field.name)


def _is_known(field: pa.Field) -> bool:
    """Whether Polars reads its type, and all that lies in it. Raises ValueError for words that are none."""
    for key, value in ((b"", field.name.encode()), *(field.metadata or {}).items()):
        key.decode()
        value.decode()
        if key.startswith(b"_PL_ENUM"):  # the categories
            _check_counted(value)
        elif key.startswith(b"_PL_CATEGORICAL"):  # a name, a namespace, and the type of the numbers
            _check_counted(_PHYSICAL.sub(b"", value))
    type = field.type
    if isinstance(type, pa.BaseExtensionType):
        type = type.storage_type
    if isinstance(type, pa.DictionaryType):
        type = type.value_type
    if type.id == pa.lib.Type_TIMESTAMP and type.tz is not None:
        try:
            pl.Series([], dtype=pl.Datetime("us", type.tz))
        except pl.exceptions.PolarsError:  # an offset, or a zone that it does not know
            return False
    return type.id not in _UNKNOWN and all(_is_known(type.field(at)) for at in range(type.num_fields))


def _check_counted(words: bytes) -> None:
    """Raises ValueError unless these are words as Polars writes categories: each behind its length in bytes and `;`."""
    while words:
        length, mark, words = words.partition(b";")
        if not (mark and length.isdigit() and int(length) <= len(words)):
            raise ValueError("no word of that length")
        words[: int(length)].decode()
        words = words[int(length) :]


def _unproven(file: File) -> pl.LazyFrame:
    """The rows as Polars alone reads them."""
    with pa.OSFile(str(file.path), "rb") as opened:
        if _is_file(opened):
            return pl.scan_ipc(file.path, glob=False, hive_partitioning=False)
    return scan_batches(lambda: _messages(file), next(_messages(file, rows=False)).schema)


def _messages(file: File, *, rows: bool = True) -> Iterator[pl.DataFrame]:
    """The rows of an IPC stream, some megabytes of record batches at a time (at least one frame, of no rows): Polars
    would read all of it at once. PyArrow only tells the messages apart.
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
    return pl.read_ipc_stream(b"".join([*(memoryview(b) for b in (*head, *batches)), IPC_END]))

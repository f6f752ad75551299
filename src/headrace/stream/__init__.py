"""Rows on their way between engines, and the exceptions that must survive the way.

Polars hands an exception of a Python generator on as it is. DuckDB, draining an Arrow stream, makes it a text
inside an exception of its own, where cell values may stand too. So `FrameStream` sends a token instead of the
exception, and `original` (or `reraise`, around whatever drains the stream) finds the very exception again,
however many engines lie between.
"""

from __future__ import annotations

import atexit
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from headrace.errors import HeadraceError
from headrace.stream.drawing import drawn, made_of, tracked

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

__all__ = ["FrameStream", "asked", "framed", "original", "picked", "reraise", "root", "scan_batches", "scan_generator"]

Reading = Callable[[list[str] | None, pl.Expr | None, int | None, int | None], Iterator[pl.DataFrame]]
"""As `drawing.Reads`, but for any iterator."""

_ENGINES = ("headrace", "polars", "pyarrow")
_KEPT = 16
_FEWEST = 2048  # DuckDB's own vector: as many rows as it holds of anything at once
_MOST = 100_000
_ENOUGH_BYTES = 4 << 20
_TOKEN = re.compile(r"headrace-stream-([0-9a-f]{16})")
_held: OrderedDict[str, BaseException] = OrderedDict()
_lock = Lock()
atexit.register(_held.clear)  # DuckDB complains at exit of connections that a traceback still holds


class _StreamBrokenError(Exception):
    """Goes through a foreign engine in the place of the exception that it stands for."""


def _hold(error: BaseException) -> _StreamBrokenError:
    token = secrets.token_hex(8)
    with _lock:
        _held[token] = error
        while len(_held) > _KEPT:  # a traceback keeps frames of rows alive
            _held.popitem(last=False)
    return _StreamBrokenError(f"headrace-stream-{token}")


def original(error: BaseException) -> BaseException | None:
    """The exception that broke a stream, from what an engine made of it; None where `error` is not about one."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, HeadraceError):
            return link
        if found := _TOKEN.search(str(link)):
            with _lock:
                return _held.get(found[1])
        link = link.__cause__ or link.__context__
    return None


def root(error: Exception, *engines: str) -> BaseException | None:
    """What a stream raised at the very beginning, through however many engines; None where `error` is not about one.

    Only what these engines, Polars, PyArrow or headrace made may stand for another; a user's exception is itself.
    """
    if type(error).__module__.partition(".")[0] not in (*_ENGINES, *engines):
        return None
    found: BaseException | None = None
    while (deeper := original(found or error)) is not None and deeper is not found:
        found = deeper
    return found


@contextmanager
def reraise() -> Iterator[None]:
    """Around whatever drains a stream: an exception raised inside the stream comes out as it was.

    Other exceptions pass unchanged.
    """
    try:
        yield
    except Exception as error:
        found = original(error)
        if found is None or found is error:
            raise
        raise found from None


class FrameStream:
    """A lazy frame as an `ArrowStream`: each ``__arrow_c_stream__`` collects it afresh, batch by batch.

    `frame` is the frame, or a callable that makes it. Nothing starts before the first batch is asked for: an
    engine may open the stream for its schema alone. `reraise` finds the exception that broke it.

    The stream is PyArrow's, not the one that Polars can export: where Polars runs a Python generator that asks
    DuckDB for rows of such a stream, Polars' own takes the thread for one that still has the interpreter's
    lock, and crashes while it words the error.
    """

    def __init__(self, frame: pl.LazyFrame | Callable[[], pl.LazyFrame]) -> None:
        self._frame = frame

    def lazy(self) -> pl.LazyFrame:
        """The frame itself, for an engine that is Polars: it saves a hop, and Arrow has no name for int128."""
        return self._frame() if callable(self._frame) else self._frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A PyCapsule of an ArrowArrayStream."""
        try:
            frame = self.lazy()
            schema = frame.collect_schema()
        except BaseException as error:  # noqa: BLE001  # whatever it is, it must come out as it was
            raise _hold(error) from None
        empty = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.newest())
        reader = pa.RecordBatchReader.from_batches(empty.schema, self._batches(frame))
        return reader.__arrow_c_stream__(requested_schema)

    def _batches(self, frame: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
        try:
            with closing(drawn(frame)) as drawing:
                for rows in _gathered(drawing):
                    yield from rows.to_arrow(compat_level=pl.CompatLevel.newest()).to_batches()
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever it is, it must come out as it was
            raise _hold(error) from None


def _gathered(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in frames of `_FEWEST` rows or more, since one row alone costs DuckDB as much memory as all these;
    or of `_ENOUGH_BYTES`, where rows are wide. A frame that is much larger comes in slices.
    """
    waiting: list[pl.DataFrame] = []
    rows, size = 0, 0.0
    for frame in frames:
        for part in _slices(frame):
            waiting.append(part)
            rows, size = rows + part.height, size + int(part.estimated_size())
            if rows >= _FEWEST or size >= _ENOUGH_BYTES:
                yield pl.concat(waiting, rechunk=True) if len(waiting) > 1 else part
                waiting, rows, size = [], 0, 0.0
    if waiting:
        yield pl.concat(waiting, rechunk=True)


def _slices(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The frame, in parts of some `_ENOUGH_BYTES` where it is more than twice as large."""
    size = int(frame.estimated_size())
    if size <= 2 * _ENOUGH_BYTES or frame.height <= 1:
        yield frame
        return
    yield from frame.iter_slices(max(1, int(frame.height * _ENOUGH_BYTES / size)))


def framed(relation: DuckDBPyRelation) -> Iterator[pl.DataFrame]:
    """A query's rows in frames of some megabytes: of wide rows a hundred thousand are gigabytes, and of narrow ones few
    come dear in Python.
    """
    held: list[pa.RecordBatch] = []
    rows, size = 0, 0
    with closing(relation.to_arrow_reader(_FEWEST)) as reader:
        for batch in _heard(reader):
            held.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows >= _MOST or size >= _ENOUGH_BYTES:
                yield pl.DataFrame(pa.Table.from_batches(held))
                held, rows, size = [], 0, 0
    if held:
        yield pl.DataFrame(pa.Table.from_batches(held))


def _heard(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches of a reader of DuckDB's. What it raises after the first PyArrow calls an OSError, whatever it is."""
    try:
        yield from batches
    except OSError as error:
        import duckdb

        if error.errno is not None:
            raise
        kind = str(error).partition(" Error: ")[0].replace(" ", "").lower() + "exception"
        kinds = {name.lower(): one for name, one in vars(duckdb).items()}
        raise kinds.get(kind, duckdb.Error)(str(error)) from error


def picked(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """These columns, in this order. A select is a query, which waits for a thread of Polars' however little it does."""
    if not columns:
        return rows.select(columns)
    return rows if rows.columns == list(columns) else pl.DataFrame({name: rows[name] for name in columns})


def scan_generator(generator: Reading, schema: Mapping[str, pl.DataType] | Callable[[], pl.Schema]) -> pl.LazyFrame:
    """A lazy frame over a generator that heeds what is pushed down; called anew for each collection.

    What the generator raises reaches whoever collects the frame as it was, and whoever drains a `FrameStream`
    over it through `reraise`.
    """

    def sliced(*pushed: Any) -> Generator[pl.DataFrame]:
        for frame in tracked(generator(*pushed)):
            yield from _slices(frame)  # Polars lets some frames wait on the way, however large they are

    return made_of(sliced, register_io_source(sliced, schema=schema))


def scan_batches(
    batches: Callable[[], Iterator[pl.DataFrame]], schema: Mapping[str, pl.DataType] | Callable[[], pl.Schema]
) -> pl.LazyFrame:
    """`scan_generator` for a generator that knows of no push-down: predicate, limit and columns are applied here."""

    def pushed(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        return asked(batches(), columns, predicate, n_rows)

    return scan_generator(pushed, schema)


def asked(
    batches: Iterator[pl.DataFrame], columns: Sequence[str] | None, predicate: pl.Expr | None, n_rows: int | None
) -> Iterator[pl.DataFrame]:
    """What of the rows is asked for (see `drawing.Reads`), where they come with all the columns that it takes."""
    left = n_rows
    for batch in batches:
        rows = batch if predicate is None else batch.filter(predicate)
        rows = rows if columns is None else picked(rows, columns)
        if left is not None:
            rows = rows.head(left)
            left -= rows.height
        yield rows
        if left == 0:
            return

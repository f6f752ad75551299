"""Partitions: the rows split by the values of some columns, each value's rows in a folder of its own.

A value is known to the log by an exact text (None: NULL). Its folder is named as Hive names it, ``day=2024-01-31``, so
that other engines can prune by it; NULL is ``__HIVE_DEFAULT_PARTITION__``. Unlike Hive's, an empty text keeps apart
from NULL (``name=``), and so does a text that reads like the NULL folder's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from headrace import guard
from headrace.errors import DataError, SchemaError
from headrace.flow import TableChange
from headrace.journal import Attempt, Journal, State
from headrace.journal.sink import drain
from headrace.logical import Type
from headrace.schema import Schema
from headrace.stream import reraise
from headrace.stream.drawing import drawn
from headrace.systems.parquet.scan import scan_files
from headrace.systems.parquet.writing import Layout, write_file, write_rows

__all__ = ["folder_of", "key_text", "split"]

Key = tuple[str | None, ...]

_NULL = "__HIVE_DEFAULT_PARTITION__"
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\"#%'*/:=?\\{}\[\]^]")
_NAME_BYTES = 255
_BUFFER_BYTES = 96_000_000
_BUFFER_SHARE = 0.5
_OF_MEMORY = 16  # texts of what is written out stay for as long as a row of the same batch waits
_FINE = "fine"
"""Says of a file that its times are told apart below the second: older ones hold all of a second's."""
_REFUSED = ("list", "array", "struct", "binary", "null")
_INSTANT = "%Y-%m-%dT%H:%M:%S%.f"
_DAYS = (-96_465_292, 95_026_236)
"""The first and the last day since 1970 that Polars can write: of others it panics."""
_PER_DAY = {"d": 1, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def split(
    journal: Journal, state: State, attempt: Attempt, layout: Layout, change: TableChange, by: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Stage the rows by partition. Returns the files added, and the names of those that they replace.

    Files of touched partitions are replaced. Files that are not split by the same columns of the same types (appended
    ones, say) are written again without the rows of touched partitions; each such file says how many rows it `kept`.
    """
    buffer = _Buffer(attempt, layout, change.schema, by, journal.where)
    with drain(change, journal.where) as rows:
        for batch in rows:
            buffer.add(batch)
    added = buffer.close()
    touched = buffer.touched | _named(change, by)
    alike = _alike(state, change.schema, by)
    removed = [n for n in alike if tuple(state.data[n]["values"]) in touched]
    mixed = [n for n in state.data if n not in alike]
    if mixed and touched:
        going = [n for n in mixed if _hits(scan_files(journal, state, [n]), by, change.schema, touched)]
        if going:
            rest = _without(scan_files(journal, state, going), by, change.schema, touched)
            kept = write_rows(_typed(rest, change.schema), attempt, layout, change, journal.where, len(added))
            added += [{**file, "kept": file["rows"]} for file in kept]
            removed += going
    return added, removed


def key_text(expr: pl.Expr, type: Type) -> pl.Expr:
    """A text that equal values share and unequal ones do not. The two zeros are equal, and so are all NaNs."""
    match type.name:
        case "float32" | "float64":
            # not `expr + 0.0`: Polars leaves a longer column as it is where it sees that nothing is added
            return pl.when(expr == 0).then(0.0).otherwise(expr).cast(pl.String)
        case "duration":
            return expr.to_physical().cast(pl.String)
        case "time":  # a cast writes whole seconds only
            return expr.dt.strftime("%H:%M:%S%.f")
        case "date":
            return _day_text(expr, "d", lambda day: day.cast(pl.String))
        case "datetime" if type.args[1] is not None:
            return _day_text(
                expr, type.args[0], lambda moment: moment.dt.convert_time_zone("UTC").dt.strftime(f"{_INSTANT}Z")
            )
        case "datetime":
            return _day_text(expr, type.args[0], lambda moment: moment.cast(pl.String))
        case _:
            return expr.cast(pl.String)


def _day_text(expr: pl.Expr, unit: str, write: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    """What `write` makes of a date or a datetime; ``@<count><unit>``, as `exact.to_text` has it, of one so far off that
    nothing can write it.
    """
    count = expr.to_physical()
    usual = count.floordiv(_PER_DAY[unit]).is_between(*_DAYS)
    text = write(pl.when(usual).then(expr))
    return pl.when(usual).then(text).when(expr.is_not_null()).then(pl.format("@{}" + unit, count))


def folder_of(by: Sequence[str], key: Key) -> str:
    """The folder of a partition, relative to the table's: ``a=1/b=x%2Fy``. Raises DataError for a value too long."""
    names = []
    for column, text in zip(by, key, strict=True):
        value = _NULL if text is None else "%5F" + text[1:] if text == _NULL else _UNSAFE.sub(_escaped, text)
        name = f"{_UNSAFE.sub(_escaped, column)}={value}"
        if len(name.encode()) > _NAME_BYTES:
            raise DataError(
                f"a value of partition column {column!r} is too long for a folder's name ({_NAME_BYTES} bytes)",
                hint="partition by a shorter column, e.g. one made in a transform",
            )
        names.append(name)
    return "/".join(names)


def _escaped(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


class _Buffer:
    """Rows on their way to their partitions' files. Flat in memory: the largest partitions are written out when
    the buffer is full, so that few values make few large files, and rows that come sorted are written as they come.
    """

    def __init__(self, attempt: Attempt, layout: Layout, schema: Schema, by: Sequence[str], where: Path) -> None:
        self._where = where
        self._attempt = attempt
        self._layout = layout
        self._by = list(by)
        self._keys = _keys(schema, by)
        self._marks = {_FINE: True} if _has_times(schema, by) else {}
        self._parts: dict[Key, list[pl.DataFrame]] = {}
        self._bytes: dict[Key, float] = {}
        self._files: list[dict[str, Any]] = []
        self.touched: set[Key] = set()

    def add(self, batch: pl.DataFrame) -> None:
        names = [f"\x00{n}" for n in range(len(self._by))]
        keyed = batch.with_columns(key.alias(name) for name, key in zip(names, self._keys, strict=True))
        parts = keyed.partition_by(names, as_dict=True, include_key=False, maintain_order=True)
        for key, rows in parts.items():
            self._parts.setdefault(key, []).append(rows)
            self._bytes[key] = self._bytes.get(key, 0) + rows.estimated_size()
        self.touched |= parts.keys()
        if sum(self._bytes.values()) > self._limit:
            self._flush(int(self._limit * _BUFFER_SHARE))

    @property
    def _limit(self) -> int:
        return min(_BUFFER_BYTES, self._layout.file_bytes // 2, guard.memory_limit() // _OF_MEMORY)

    def _flush(self, left: int) -> None:
        total = sum(self._bytes.values())
        for key in sorted(self._parts, key=lambda key: -self._bytes[key]):
            if total <= left:
                return
            total -= self._bytes.pop(key)
            self._write(key, pl.concat(self._parts.pop(key)))

    def _write(self, key: Key, rows: pl.DataFrame) -> None:
        name = f"{folder_of(self._by, key)}/{self._attempt.stem}-{len(self._files)}.parquet"
        about = write_file(rows, self._attempt, name, self._layout, self._where)
        self._files.append({**about, "by": self._by, "values": list(key), **self._marks})

    def close(self) -> list[dict[str, Any]]:
        """Write the rest. The files."""
        for key in list(self._parts):
            self._write(key, pl.concat(self._parts.pop(key)))
        return self._files


def _keys(schema: Schema, by: Sequence[str]) -> list[pl.Expr]:
    for name in by:
        if name not in schema:
            raise SchemaError(f"there is no column {name!r} to partition by", hint="name columns of the result")
        if schema[name].name in _REFUSED:
            raise SchemaError(
                f"column {name!r} is {schema[name]}: one cannot partition by it", hint="make a scalar column of it"
            )
    return [key_text(pl.col(name), schema[name]) for name in by]


def _alike(state: State, schema: Schema, by: Sequence[str]) -> dict[str, None]:
    """The files that are split by these columns, with the same types, each by one key alone: a column that has been
    widened since writes the same value as another text.
    """
    types = [schema[name] for name in by]
    held = [Schema.from_json(each) for each in state.schemas]
    same = [all(name in each for name in by) and [each[name] for name in by] == types for each in held]
    split = {n: about for n, about in state.data.items() if about.get("by") == list(by) and same[about["schema"]]}
    coarse = _has_times(schema, by)
    return {n: None for n, about in split.items() if not coarse or about.get(_FINE)}


def _has_times(schema: Schema, by: Sequence[str]) -> bool:
    return any(schema[name].name == "time" for name in by)


def _named(change: TableChange, by: Sequence[str]) -> set[Key]:
    """The partitions that the change names, whether or not it has rows of them."""
    if change.groups is None:
        return set()
    with reraise():
        return set(pl.DataFrame(change.groups()).select(_keys(change.schema, by)).rows())


def _touched(by: Sequence[str], touched: set[Key]) -> pl.LazyFrame:
    return pl.LazyFrame(
        [list(key) for key in touched], schema={f"\x00{n}": pl.String for n in range(len(by))}, orient="row"
    )


def _joined(rows: pl.LazyFrame, by: Sequence[str], schema: Schema, touched: set[Key], how: Any) -> pl.LazyFrame:
    have, types = rows.collect_schema(), schema.polars()
    keys = [
        key_text(pl.col(name).cast(types[name]), schema[name]) if name in have else pl.lit(None, dtype=pl.String)
        for name in by
    ]
    names = [f"\x00{n}" for n in range(len(by))]
    keyed = rows.with_columns(key.alias(name) for name, key in zip(names, keys, strict=True))
    return keyed.join(_touched(by, touched), on=names, how=how, nulls_equal=True, maintain_order="left").drop(names)


def _hits(rows: pl.LazyFrame, by: Sequence[str], schema: Schema, touched: set[Key]) -> bool:
    have = [name for name in by if name in rows.collect_schema()]
    narrow = rows.select(have) if have else rows
    found = _joined(narrow, by, schema, touched, "semi").select(pl.len()).collect().item()
    return bool(found)


def _without(rows: pl.LazyFrame, by: Sequence[str], schema: Schema, touched: set[Key]) -> pl.LazyFrame:
    return _joined(rows, by, schema, touched, "anti")


def _typed(rows: pl.LazyFrame, schema: Schema) -> Iterator[pl.DataFrame]:
    """Old rows in the types that the table has after this commit."""
    have = rows.collect_schema()
    types: Mapping[str, pl.DataType] = schema.polars()
    columns = [
        pl.col(name).cast(types[name]) if name in have else pl.lit(None, dtype=types[name]).alias(name)
        for name in schema.names
    ]
    for batch in drawn(rows.select(columns)):
        if batch.height:
            yield batch

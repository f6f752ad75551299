"""Reading SQLite: declared types made true, and what is new since a cursor's value."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import polars as pl

from headrace.cursor import Cursor, track
from headrace.cursor.batches import everything, since
from headrace.errors import (
    ConfigError,
    DataError,
    HeadraceError,
    RejectedError,
    SchemaError,
    UnavailableError,
    did_you_mean,
)
from headrace.exact import from_text
from headrace.flow import News, Position, Range, Snapshot
from headrace.frozen import frozen
from headrace.logical import Type
from headrace.schema import Field, Schema, renamed
from headrace.sqltext import quoted
from headrace.stream import scan_batches

if TYPE_CHECKING:
    from headrace.cursor.tracking import Tracked
    from headrace.flow import Batch
    from headrace.systems.sqlite import SQLiteSource

__all__ = ["batches"]

_ROWS = 20_000
_SERIALIZED = 3
_DECLARED = (
    (r"BOOL", Type("bool")),
    (r"DATETIME|TIMESTAMP", Type("datetime", ("us", None))),
    (r"DATE", Type("date")),
    (r"JSON", Type("json")),
    (r"INT", Type("int64")),
    (r"CHAR|CLOB|TEXT|STRING|UUID", Type("string")),
    (r"BLOB|BINARY|BYTES", Type("binary")),
    (r"REAL|FLOA|DOUB", Type("float64")),
)
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)", re.IGNORECASE)
_STORED = {"integer": Type("int64"), "real": Type("float64"), "text": Type("string"), "blob": Type("binary")}
_PYTHON: dict[str, tuple[type, ...]] = {"int64": (int,), "string": (str,), "binary": (bytes,), "float64": (float, int)}


@frozen
class _Where:
    """A condition on rows, and the values of its parameters: as a literal SQLite takes some floats for others."""

    sql: str = "true"
    values: tuple[Any, ...] = ()

    def __and__(self, other: _Where) -> _Where:
        return _Where(f"({self.sql}) AND ({other.sql})", (*self.values, *other.values))


_EVERY = _Where()


@frozen
class _Table:
    """A table or query: its SQL, whose first column is the row's id (or NULL), and its other columns."""

    path: Path
    sql: str
    schema: Schema
    kept: sqlite3.Connection | None

    def scan(self, where: _Where = _EVERY) -> pl.LazyFrame:
        """The rows, lazily; each collection opens the file anew where no snapshot of it is kept."""
        return scan_batches(lambda: self._read(where), self.schema.polars())

    def _read(self, where: _Where) -> Iterator[pl.DataFrame]:
        query = f"SELECT * FROM ({self.sql}) WHERE {where.sql}"
        with self.opened() as connection, closing(connection.execute(query, where.values)) as rows:
            done = 0
            while chunk := rows.fetchmany(_ROWS):
                places, *columns = zip(*chunk, strict=True)
                yield pl.DataFrame(
                    [self._column(f, v, places, done) for f, v in zip(self.schema, columns, strict=True)]
                )
                done += len(chunk)

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction: that of the snapshot, or one of its own."""
        if self.kept is not None:
            with _translated(self.path):
                yield self.kept
            return
        with _opened(self.path) as connection:
            connection.execute("BEGIN")
            yield connection

    def _column(self, field: Field, values: Sequence[Any], places: Sequence[Any], done: int) -> pl.Series:
        made, bad = _typed(field, values)
        if bad is None:
            return made
        where = f"row {done + bad + 1}" if places[bad] is None else f"rowid {places[bad]}"
        raise DataError(
            f"{self.path.name}: column {field.name!r} holds no {field.type} at {where}",
            hint="mend the row, or convert the column in a query",
            details={"column": field.name, "type": str(field.type), "at": where},
        )


def _typed(field: Field, values: Sequence[Any]) -> tuple[pl.Series, int | None]:
    """The values as the type says, and the place of the first that is not of it."""
    kind = field.type.name
    if kind in _PYTHON:
        allowed = _PYTHON[kind]
        fits = [v is None or (_is_float(v) if kind == "float64" else isinstance(v, allowed)) for v in values]
        if False in fits:
            return pl.Series(), fits.index(False)
        plain = [float(v) if v is not None and kind == "float64" else v for v in values]
        return pl.Series(field.name, plain, dtype=field.type.polars()), None
    if kind == "bool":
        fits = [v is None or (isinstance(v, int) and v in (0, 1)) for v in values]
        bools = [None if v is None else bool(v) for v in values]
        return pl.Series(field.name, bools, dtype=pl.Boolean), fits.index(False) if False in fits else None
    texts = pl.Series(field.name, [_text(v, field.type) for v in values], dtype=pl.String)
    made = texts.to_frame().select(from_text(pl.col(field.name), field.type).alias(field.name)).to_series()
    lost = [v is not None and m for v, m in zip(values, made.is_null(), strict=True)]
    return made, lost.index(True) if True in lost else None


def _is_float(value: Any) -> bool:
    """Whether a float holds the number exactly (SQLite has no NaN)."""
    return isinstance(value, float | int) and float(value) == value


def _text(value: Any, type: Type) -> str | None:
    if type.name == "decimal" and isinstance(value, int | float):
        return format(value, "f") if isinstance(value, int) else repr(value)
    if not isinstance(value, str):
        return None  # a number in a DATE means whatever its writer meant
    return value[:10] + "T" + value[11:] if type.name == "datetime" and value[10:11] == " " else value


def batches(source: SQLiteSource, path: Path, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
    """See `headrace.protocols.Source.batches`."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file", hint="check the path")
    with _snapshot(path) as kept:
        yield _batch(source, _bound(source, path, kept), range, snapshot, name)


def _batch(source: SQLiteSource, table: _Table, range: Range, snapshot: Snapshot, name: str) -> Batch:
    if source.read == "all" or source.cursor is None:
        return everything(table.scan(), name=name)
    given = source.cursor if isinstance(source.cursor, Cursor) else Cursor(column=source.cursor)
    cursor = Cursor(column=source.rename.get(given.column, given.column), start=given.start)
    cursor.refuse_other(range.after, name)  # before its value is taken for one of this column
    state, until = _state(table, cursor.column, range.after)

    def tracked(where: _Where, **begin: Any) -> Tracked:
        return track(table.scan(where & until), cursor, ties=range.ties, source=name, **begin)

    part = tracked(_beyond(table, cursor.column, range.after), after=range.after, newest=snapshot.newest)
    news = News(
        empty=range.after is not None and range.after.get("state") == state,
        facts={"bounds": dict(part.bounds)},
        misses=cursor.misses,
    )
    return since(part, tracked(_EVERY, after=None), news=news, state=state, name=name)


def _ordered(name: str, type: Type) -> str:
    """A column as SQLite orders its values in time and by their bytes, whatever its collation."""
    plain = f"{quoted(name)} COLLATE BINARY"
    return f"replace({plain}, 'T', ' ') COLLATE BINARY" if type.name == "datetime" else plain


_STORAGE = {"int64": "'integer'", "float64": "'integer', 'real'", "string": "'text'"}


def _beyond(table: _Table, column: str, after: Position | None) -> _Where:
    """What leaves out rows below the last value, where SQLite orders the type as Polars does."""
    last = _last(table, column, after)
    type = table.schema[column] if last is not None else Type("null")
    if last is None or type.name not in _STORAGE or "\0" in last or "inf" in last:
        return _EVERY
    return _compared(column, type, ">=", {"int64": int, "float64": float}.get(type.name, str)(last))


def _compared(column: str, type: Type, operator: str, value: Any) -> _Where:
    """The rows of such values, and those without one. What is not of the type is read, and said."""
    name, kinds = quoted(column), _STORAGE[type.name]
    return _Where(
        f"{name} IS NULL OR typeof({name}) NOT IN ({kinds}) OR {_ordered(column, type)} {operator} ?", (value,)
    )


def _last(table: _Table, column: str, after: Position | None) -> str | None:
    """The text of the last value, where the column's type is what it was."""
    last = (after or {}).get("cursor")
    same = column in table.schema and (after or {}).get("type") == str(table.schema[column])
    return str(last) if same and last is not None else None


def _state(table: _Table, column: str, after: Position | None) -> tuple[str, _Where]:
    """A fingerprint of the rows at the greatest value, of all others their number: equal ones mean no news. And what
    leaves out the rows that come later: no pass over the batch is to see what another one has not.

    Raises DataError where the greatest value is below the last position's.
    """
    if column not in table.schema:
        return "", _EVERY  # `track` says it better
    type = table.schema[column]
    name, order = quoted(column), _ordered(column, type)
    with table.opened() as connection:
        ((greatest, count, nulls, rowid),) = connection.execute(
            f"SELECT max({order}), count(*), count(*) - count({name}), max(_headrace_rowid) FROM ({table.sql})"
        ).fetchall()
        mark = 0
        for row in connection.execute(f"SELECT * FROM ({table.sql}) WHERE {order} = ?", [greatest]):
            mark += int.from_bytes(
                hashlib.blake2b(repr(row).encode(), digest_size=8).digest()
            )  # a sum: equal rows count
    _refuse_behind(Field(column, type), greatest, _last(table, column, after))
    told = hashlib.blake2b(repr(greatest).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    until = _EVERY
    if table.kept is None and greatest is not None and type.name in _STORAGE:
        until = _compared(column, type, "<=", greatest)
    if table.kept is None and rowid is not None:  # the plus: it is no reason to read in another order than by an index
        until &= _Where("+_headrace_rowid <= ?", (rowid,))
    return f"{told}/{count}/{nulls}/{mark}", until


def _refuse_behind(field: Field, greatest: Any, last: str | None) -> None:
    """A source that has rows, and none as far as it was read, has gone back: what comes now would be taken for old."""
    if last is None or greatest is None or field.type.name not in (*_STORAGE, "date", "datetime"):
        return
    now, bad = _typed(field, [greatest])
    if bad is None and pl.select(pl.lit(now) < from_text(pl.lit(last), field.type)).item():
        raise DataError(
            f"the source was read further in {field.name!r} than it goes now",
            hint="has it been restored from a backup? run with --full-refresh",
            details={"column": field.name},
        )


def _bound(source: SQLiteSource, path: Path, kept: sqlite3.Connection | None) -> _Table:
    """The source as a table expression with its new names, and the types of its columns."""
    with _opened(path) as connection:
        inner = f"({source.query.strip().rstrip(';')}\n)" if source.query else quoted(source.table or "")
        with closing(connection.execute(f"SELECT * FROM {inner} LIMIT 0")) as rows:
            names = [d[0] for d in rows.description]
        now = renamed(names, source.rename)
        declared = _declared(connection, inner)
        types = [declared.get(n) or _stored(connection, inner, n, path) for n in names]
        fields = [Field(n, t) for n, t in zip(now, types, strict=True)]
        picked = ", ".join(f"{quoted(old)} AS {quoted(new)}" for old, new in zip(names, now, strict=True))
        rowid = _rowid(connection, inner, names) if source.query is None else None
    every = f"SELECT {rowid or 'NULL'} AS _headrace_rowid, {picked} FROM {inner}"
    return _Table(path, every, Schema(tuple(fields)), kept)


def _rowid(connection: sqlite3.Connection, table: str, names: Sequence[str]) -> str | None:
    for name in ("rowid", "_rowid_", "oid"):
        if name not in (n.lower() for n in names):
            try:
                connection.execute(f"SELECT {name} FROM {table} LIMIT 0")
            except sqlite3.OperationalError:
                return None
            return name
    return None


def _declared(connection: sqlite3.Connection, inner: str) -> dict[str, Type]:
    """The declared types of the columns that have one: a view of the query passes them on."""
    connection.execute(f"CREATE TEMP VIEW _headrace_view AS SELECT * FROM {inner}")
    rows = connection.execute("PRAGMA temp.table_xinfo(_headrace_view)").fetchall()
    connection.execute("DROP VIEW temp._headrace_view")
    return {row[1]: found for row in rows if (found := _type(row[2])) is not None}


def _type(declared: str) -> Type | None:
    if found := _DECIMAL.search(declared):
        precision, scale = int(found[1]), int(found[2] or 0)
        return Type("decimal", (precision, scale)) if 1 <= precision <= 38 and scale <= precision else None  # noqa: PLR2004
    return next((type for pattern, type in _DECLARED if re.search(pattern, declared, re.IGNORECASE)), None)


def _stored(connection: sqlite3.Connection, inner: str, name: str, path: Path) -> Type:
    """The type that all values of a column without a declared one have."""
    kinds = {k for (k,) in connection.execute(f"SELECT DISTINCT typeof({quoted(name)}) FROM {inner}")} - {"null"}
    if kinds == {"integer", "real"}:
        return Type("float64")
    if len(kinds) > 1:
        raise SchemaError(
            f"{path.name}: column {name!r} has no declared type, and its values are {' and '.join(sorted(kinds))}",
            hint="convert it in a query",
        )
    return _STORED[kinds.pop()] if kinds else Type("null")


@contextmanager
def _snapshot(path: Path) -> Iterator[sqlite3.Connection | None]:
    """One snapshot for all that is read of the file, where readers stop no writer (WAL); else None."""
    with _opened(path) as connection:
        ((mode,),) = connection.execute("PRAGMA journal_mode").fetchall()
        keeps = mode == "wal" and sqlite3.threadsafety == _SERIALIZED  # scans share the connection, each in its thread
        if keeps:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()  # it begins with the first read
        yield connection if keeps else None


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that can only read, its errors headrace's."""
    where = f"file:{quote(str(path))}?mode=ro"
    with (
        _translated(path),
        closing(sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)) as connection,
    ):
        yield connection


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _verdict(error, path) from error


def _near(path: Path, table: str) -> str:
    """Which table was meant, or which there are."""
    listed = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name"
    with _opened(path) as connection:
        names = [str(name) for (name,) in connection.execute(listed)]
    return did_you_mean(table, names, otherwise=f"there are: {', '.join(names[:20])}")


_BUSY = (UnavailableError, "another process is writing", "run again")
_KILLED = (  # nothing here writes: what SQLite was refused is to undo what was begun
    UnavailableError,
    "a writer was killed, and what it had begun must be undone, which no reader may do",
    'start the program that writes it, or open it once: sqlite3 FILE "PRAGMA user_version"; then run again',
)
_UNREADABLE = (RejectedError, "the file cannot be read", "check its rights and the disk")
_VERDICTS: dict[int, tuple[type[HeadraceError], str, str]] = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_READONLY_ROLLBACK: _KILLED,
    sqlite3.SQLITE_READONLY_RECOVERY: _KILLED,
    sqlite3.SQLITE_READONLY: (
        RejectedError,
        "the file has a journal that cannot be read without writing to its folder",
        "check the folder's rights, or read a copy that was made with sqlite3 … .backup",
    ),
    sqlite3.SQLITE_NOTADB: (ConfigError, "the file is not an SQLite database", "check the path"),
    sqlite3.SQLITE_CORRUPT: (
        DataError,
        "the file is damaged",
        "copy it again, or save what is left: sqlite3 … .recover",
    ),
    sqlite3.SQLITE_IOERR: _UNREADABLE,
    sqlite3.SQLITE_CANTOPEN: _UNREADABLE,
    sqlite3.SQLITE_PERM: _UNREADABLE,
}


def _verdict(error: sqlite3.Error, path: Path) -> HeadraceError:
    text = str(error)
    code = getattr(error, "sqlite_errorcode", None)
    found = None if code is None else _VERDICTS.get(code) or _VERDICTS.get(code & 0xFF)
    if found is not None:
        kind, said, hint = found
        return kind(f"{path}: {said}", hint=hint)
    if "decode" in text:
        return DataError(f"{path}: a text is not UTF-8", hint="read the column as a BLOB: CAST(… AS BLOB)")
    if missing := re.fullmatch(r"no such (table|column|function): (.+)", text):  # names, as the pipeline wrote them
        hint = _near(path, missing[2]) if missing[1] == "table" else "check the query's names"
        return ConfigError(f"{path}: there is no {missing[1]} {missing[2]!r}", hint=hint)
    if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError | sqlite3.Warning):
        return ConfigError(
            f"{path}: the table or query does not fit the file", hint="it must be one SELECT; check names"
        )
    return DataError(f"{path}: the file cannot be read as it should ({type(error).__name__})", hint="check the file")

"""Which rows lie after a cursor's last value, and how far they lead.

The cursor's values cross runs as exact texts (microseconds, zone and all digits kept). Rows that share the last
value are read again (``>=``; a merge settles them), or, for an append, told apart by the hashes of the boundary's
rows, counted: an equal row that comes later is loaded, one that was read is not. A hash is over values, not over how a
type writes them, and over the columns that there were when the position was made: neither a wider type nor a new column
makes a new row of an old one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from headrace import exact
from headrace.cursor.nulls import refused
from headrace.errors import ConfigError, DataError, UnavailableError, did_you_mean
from headrace.flow import FILE, LINE, PLACE
from headrace.frozen import frozen
from headrace.logical import FLOATS, INTEGERS, Type, parse_type, widens
from headrace.schema import Schema
from headrace.stream import asked, scan_generator
from headrace.stream.drawing import passed
from headrace.stream.spool import Spool

if TYPE_CHECKING:
    from headrace.cursor import Cursor
    from headrace.flow import Position

__all__ = ["Tracked", "tracked"]

_TIES_MAX = 10_000
_NUMBERS = re.compile(r"u?int\d+|float\d+|decimal")
_ORDERED = (*INTEGERS, *FLOATS, "decimal", "string", "date", "datetime", "time")


@frozen(kw_only=True)
class Tracked:
    """Rows after a position. `position`, `rows` and `rejects` tell the truth once `lazy` has been drained."""

    lazy: pl.LazyFrame
    position: Callable[[], Position]
    rows: Callable[[], int]
    rejects: Callable[[], Iterator[pl.DataFrame]]
    bounds: Mapping[str, Any]


@dataclass
class _Reach:
    """How far one pass has come."""

    greatest: Any = None
    boundary: Counter[str] = field(default_factory=Counter)
    ties: int = 0
    rows: int = 0


def tracked(
    frame: pl.LazyFrame,
    cursor: Cursor,
    *,
    after: Position | None,
    ties: Literal["again", "once"],
    source: str,
    newest: Callable[[str], str | None],
    aside: Collection[str],
    steady: bool,
) -> Tracked:
    """See `headrace.cursor.track`."""
    schema = Schema.of_polars(frame.collect_schema())
    reader = _Reader(frame, schema, cursor, source, ties, aside, steady)
    reader.begin(after, newest)
    return Tracked(
        lazy=scan_generator(reader.read, schema.polars()),
        position=reader.position,
        rows=lambda: reader.done.rows if reader.done else 0,
        rejects=reader.rejects,
        bounds={"column": cursor.column, "from": reader.last_text, "inclusive": reader.inclusive},
    )


class _Reader:
    """One reading by cursor, opened any number of times. Complete passes are the same, of a source that is steady the
    widest one counts: there a pass may refuse rows for a column that another does not look at.
    """

    def __init__(
        self,
        frame: pl.LazyFrame,
        schema: Schema,
        cursor: Cursor,
        source: str,
        ties: Literal["again", "once"],
        aside: Collection[str],
        steady: bool,
    ) -> None:
        if cursor.column not in schema:
            names = [n for n in schema.names if n not in PLACE]
            raise ConfigError(
                f"source {source!r} has no column {cursor.column!r} to be its cursor",
                hint=did_you_mean(cursor.column, names, otherwise=f"it has {', '.join(names)}"),
            )
        if cursor.then or cursor.nulls != "refuse" or cursor.late != "auto" or cursor.lag is not None:
            raise ConfigError(
                f"source {source!r}: only PostgreSQL reads by several columns, rows without a value, or late ones",
                hint='leave "then", "nulls", "late" and "lag" out of its cursor',
            )
        self.type: Type = schema[cursor.column]
        if self.type.name not in _ORDERED:
            raise ConfigError(
                f"column {cursor.column!r} is {self.type}, which cannot be a cursor",
                hint="a cursor is a number, a date, a time or a text",
            )
        self.frame, self.schema, self.cursor, self.source, self.ties = frame, schema, cursor, source, ties
        self.column = pl.col(cursor.column)
        self.values = tuple(n for n in schema.names if n not in PLACE)
        self.hashed: tuple[str, ...] = tuple(n for n in self.values if n not in aside)
        self.told = self.hashed
        self.steady = steady
        self.after: Position = {}
        self.last: pl.Expr | None = None
        self.last_value: Any = None
        self.last_text: str | None = None
        self.inclusive = True
        self.known: Counter[str] = Counter()
        self.spool = Spool()
        self.done: _Reach | None = None
        self._lock = Lock()

    def begin(self, after: Position | None, newest: Callable[[str], str | None]) -> None:
        """Settle the last value, from the position or from `start`."""
        self.cursor.refuse_other(after, self.source)
        self.after = dict(after or {})
        was = self.type
        if self.after.get("cursor") is not None:
            self.last_text = str(self.after["cursor"])
            was = parse_type(str(self.after["type"]))
            if not widens(was, self.type):
                raise DataError(
                    f"the cursor {self.cursor.column!r} was {was} and is {self.type} now",
                    hint="declare its type as it was, or run with --full-refresh",
                )
            if self.ties == "once":
                self.known = Counter(self._known_ties())
                self.told = self._known_columns()
        elif self.cursor.start == "from_target":
            self.last_text = newest(self.cursor.column)
            self.inclusive = self.ties == "again"
        else:
            self.last_text = self.cursor.start
        if self.last_text is not None:
            self.last = self._value(self.last_text, was)

    def _known_ties(self) -> Mapping[str, int]:
        boundary = self.after.get("boundary")
        if boundary is None:
            raise ConfigError(
                f"source {self.source!r} has been read for a merge: ties at the cursor's end cannot be told apart",
                hint="go on with merge, or run once with --full-refresh",
            )
        return {str(k): int(v) for k, v in boundary.items()}

    def _known_columns(self) -> tuple[str, ...]:
        """The columns that the boundary's hashes are over. Raises DataError where their values cannot be compared."""
        columns = self.after.get("columns")
        if columns is None:
            return self.hashed
        for name, text in columns.items():
            was = parse_type(text)
            now = self.schema[name] if name in self.schema else None  # noqa: SIM401  # a Schema has no get
            if now is None or not (now == was or (_is_number(now) and _is_number(was)) or was.name == "null"):
                raise DataError(
                    f"source {self.source!r}: column {name!r} was {was} and is {now or 'gone'} now: rows at the end "
                    f"of cursor {self.cursor.column!r} cannot be told from new ones",
                    hint="declare or rename it so that it is as it was, or run with --full-refresh",
                )
        return tuple(columns)

    def _value(self, text: str, was: Type) -> pl.Expr:
        """The value that a text of type `was` means: a float32's text is not that of the float64 it has become."""
        try:
            value = exact.cast(exact.from_text(pl.lit(text), was), was, self.type)
            found = pl.select(value.alias("v"))["v"]
        except pl.exceptions.PolarsError:
            found = pl.Series([None])
        if found.null_count():
            raise ConfigError(
                f"the start of cursor {self.cursor.column!r} is no {self.type}",
                hint="write it as the type is written; a datetime with a zone needs one (…Z), one without has none",
            )
        self.last_value = (found.to_physical() if self._by_ticks() else found).item()
        return self._literal(self.last_value)

    def _literal(self, value: Any) -> pl.Expr:
        """A value, or its ticks, as the cursor's type: Python's own have neither nanoseconds nor the year 10000."""
        return (
            pl.lit(value, dtype=pl.Int64).cast(self.type.polars())
            if self._by_ticks()
            else pl.lit(value, dtype=self.type.polars())
        )

    def _missing(self) -> pl.Expr:
        null = self.column.is_null()
        return null | self.column.is_nan() if self.type.name in ("float32", "float64") else null

    def read(
        self, columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        """The rows; the pass counts when it comes to its end, and not where a limit cuts it."""
        needed = None
        if self.ties == "again" and columns is not None:
            roots = () if predicate is None else predicate.meta.root_names()
            needed = [n for n in self.schema.names if n in {*columns, *roots, self.cursor.column}]
        yield from asked(self._pass(needed), columns, predicate, n_rows)

    def _pass(self, columns: list[str] | None) -> Iterator[pl.DataFrame]:
        """One pass over all rows after the last value, with these columns."""
        beyond = None
        if self.last is not None:
            beyond = self._missing() | (self.column >= self.last if self.inclusive else self.column > self.last)
        reach = _Reach()
        with self.spool.passed() as spooled:
            missing = 0
            known = _Ties(self.known.copy(), self._unwidened())
            for batch in passed(self.frame, columns, beyond):
                bad = batch.filter(self._missing()).height
                missing += bad
                yield self._measure(batch.filter(~self._missing()) if bad else batch, reach, known)
            if missing:
                for batch in passed(self.frame, predicate=self._missing()):
                    spooled.write(self._rejects(batch))
        self._finish(reach)

    def _measure(self, rows: pl.DataFrame, reach: _Reach, known: _Ties) -> pl.DataFrame:
        """Count the batch, note its boundary, and leave out the ties that were read before."""
        if known.left and self.last is not None:
            rows = self._without(rows, known)
        reach.rows += rows.height
        if rows.is_empty():
            return rows
        greatest = rows.select(self.column.max().to_physical() if self._by_ticks() else self.column.max()).item()
        if reach.greatest is None or greatest > reach.greatest:
            reach.greatest, reach.boundary, reach.ties = greatest, Counter(), 0
        if self.ties == "once" and greatest == reach.greatest:
            at = rows.filter((self.column.to_physical() if self._by_ticks() else self.column) == greatest)
            reach.ties += at.height
            if reach.ties <= _TIES_MAX:
                reach.boundary.update(self._hashes(at, self._boundary_columns(greatest)))
        return rows

    def _by_ticks(self) -> bool:
        return self.type.name in ("datetime", "time", "date")

    def _boundary_columns(self, greatest: Any) -> tuple[str, ...]:
        """What a hash is over, of rows at this value: at the last position's what it was there."""
        return self.told if greatest == self.last_value else self.hashed

    def _added(self) -> list[str]:
        """The columns that have come since the boundary's hashes were made."""
        return [n for n in self.hashed if n not in self.told]

    def _unwidened(self) -> Counter[str]:
        """The ties that have no value in the columns that have come since. Where a new row is like an old one but for
        such a value, it is the new one that has it.
        """
        found: Counter[str] = Counter()
        if self.known and self.last is not None and (added := self._added()):
            plain = pl.all_horizontal(pl.col(added).is_null())
            for batch in passed(self.frame, predicate=(self.column == self.last) & plain):
                found.update(self._hashes(batch, self.told))
        return found

    def _without(self, rows: pl.DataFrame, known: _Ties) -> pl.DataFrame:
        at = rows.select(self.column == self.last).to_series()
        if not at.any():
            return rows
        ties = rows.filter(at)
        added = self._added()
        plain = ties.select(pl.all_horizontal(pl.col(added).is_null())).to_series() if added else [True] * ties.height
        keep = [not known.seen(d, plain=p) for d, p in zip(self._hashes(ties, self.told), plain, strict=True)]
        return rows.filter((~at).scatter(at.arg_true(), keep))

    def _texts(self, rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        return rows.select([exact.lasting(pl.col(n), self.schema[n]).alias(n) for n in columns])

    def _hashes(self, rows: pl.DataFrame, columns: Sequence[str]) -> list[str]:
        """By row, over values: equal numbers are equal in all number types. Nulls are left out."""
        texts = rows.select(_value_text(n, self.schema[n]).alias(n) for n in columns)
        numbers = {n for n in columns if _is_number(self.schema[n])}
        found = []
        for row in texts.iter_rows(named=True):
            values = {k: _plain(v) if k in numbers else v for k, v in row.items() if v is not None}
            text = json.dumps(values, ensure_ascii=False, sort_keys=True)
            found.append(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest())
        return found

    def rejects(self) -> Iterator[pl.DataFrame]:
        """The rows without a value, once a pass has come to its end."""
        if self.spool.count:
            from headrace.stream.numbering import numbered  # few reads have such rows

            yield from numbered(self.spool.frames)

    def _rejects(self, rows: pl.DataFrame) -> pl.DataFrame:
        files = rows[FILE].to_list() if FILE in rows.columns else [None] * rows.height
        lines = rows[LINE].to_list() if LINE in rows.columns else [None] * rows.height
        texts = self._texts(rows, self.values).rows(named=True)
        return refused(self.source, texts, list(zip(files, lines, strict=True)))

    def _finish(self, reach: _Reach) -> None:
        if reach.ties > _TIES_MAX:
            raise DataError(
                f"more than {_TIES_MAX:,} rows share the last value of cursor {self.cursor.column!r}",
                hint='an append cannot remember them all: use "write": {"type": "merge", "keys": […]}',
            )
        with self._lock:
            if self.done is not None and not self.steady and self.done != reach:
                raise UnavailableError(  # rows that one scan has seen, and the other has not, would count as read
                    f"source {self.source!r} was written to while it was read: two passes over it have other rows",
                    hint="run again",
                )
            if self.done is None or reach.rows >= self.done.rows:
                self.done = reach

    def position(self) -> Position:
        """Where the drained rows lead; the last position where there were none."""
        reach = self.done
        if reach is None or reach.greatest is None:
            return self.after
        text = pl.select(exact.to_text(self._literal(reach.greatest), self.type)).item()
        told: dict[str, Any] = {"column": self.cursor.column, "cursor": text, "type": str(self.type), "boundary": None}
        if self.ties == "once":
            same = reach.greatest == self.last_value
            told["boundary"] = dict(reach.boundary + (self.known if same else Counter()))
            told["columns"] = {n: str(self.schema[n]) for n in self._boundary_columns(reach.greatest)}
        return told


@dataclass
class _Ties:
    """The boundary's rows that are still to be found among those read: `left` by hash. `plain` counts those of today's
    that have no value in a column which has come since: they are the old ones first.
    """

    left: Counter[str]
    plain: Counter[str]

    def seen(self, digest: str, *, plain: bool) -> bool:
        """Whether this row was read before; it is counted as found."""
        free = self.left[digest] - (0 if plain else self.plain[digest])
        if free <= 0:
            return False
        self.left[digest] -= 1
        if plain and self.plain[digest] > 0:
            self.plain[digest] -= 1
        return True


def _is_number(type: Type) -> bool:
    return _NUMBERS.fullmatch(type.name) is not None


def _value_text(name: str, type: Type) -> pl.Expr:
    """A column's text; a float32's is that of the same value as a float64."""
    if type.name == "float32":
        return exact.to_text(pl.col(name).cast(pl.Float64), Type("float64"))
    return exact.to_text(pl.col(name), type)


def _plain(number: str) -> str:
    """A number's text without exponent and trailing zeros: the same for 2, 2.0 and 2.00."""
    if "e" in number:
        number = format(Decimal(number), "f")
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return "0" if number == "-0" else number

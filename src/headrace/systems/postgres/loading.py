"""The writes, carried out by COPY and in SQL inside the commit's transaction.

What need not be compared with the target is copied straight into it; all else goes into a temporary table first. Each
staged row has an ordinal, so that "the last read" means something in a set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl
import psycopg

from headrace.errors import ConfigError, SchemaError
from headrace.ledger import refuse_absent
from headrace.logical import parse_type
from headrace.schema import Field, Schema
from headrace.sqltext import quoted
from headrace.stream import FrameStream
from headrace.stream.drawing import drawn
from headrace.systems.postgres.binary import has_form, packed
from headrace.systems.postgres.connection import flushed, run
from headrace.systems.postgres.encoding import Column, encoded, fits
from headrace.systems.postgres.shaping import Shape
from headrace.systems.postgres.tables import Table, past
from headrace.writes import History, Merge, Replace

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection
    from psycopg.abc import Buffer

    from headrace.flow import ArrowStream, TableChange
    from headrace.writes import Partitions, Recompute

__all__ = [
    "ORDINAL",
    "Load",
    "append",
    "copied",
    "framed",
    "partitions",
    "recompute",
    "same",
]

ORDINAL = "_headrace_ordinal"
_KEEPING = """
SELECT 1 FROM pg_catalog.pg_trigger WHERE tgrelid = $1::regclass AND tgtype::int & 11 = 11
UNION ALL SELECT 1 FROM pg_catalog.pg_rewrite WHERE ev_class = $1::regclass AND ev_type = '4'
"""
"""Triggers before each row that is deleted, and rules for DELETE; to look at a large table costs something."""
_CODE_POINTS = ("text", "character varying", "character", "name")


def same(left: str, right: str, names: Sequence[str], operator: str = "=") -> str:
    """SQL: the named columns of two tables are equal, column by column (with "=", NULLs never are)."""
    return " AND ".join(f"{left}.{quoted(n)} {operator} {right}.{quoted(n)}" for n in names)


class _StoppedError(Exception):
    """Ends a COPY in the place of what the rows raised, whose words the server would keep in its log."""


@dataclass
class Load:
    """One table change (the `index`-th of its commit) on its way into its table, and what has been counted.

    `keep` asks for the keys (or the rows, where the write has none) to be left in `good` until `clear`: earlier rejects
    are compared with them.
    """

    connection: Connection
    change: TableChange
    shape: Shape
    index: int
    at: datetime
    keep: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    rows: Schema = field(default_factory=lambda: Schema(()))

    @property
    def table(self) -> Table:
        """The table that changes."""
        return self.shape.table

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its columns, as they are once it has changed shape."""
        return self.shape.columns

    @property
    def staged(self) -> str:
        """The stage's name in SQL."""
        return f"pg_temp._headrace_stage_{self.index}"

    @property
    def groups(self) -> str:
        """The name in SQL of the `by` values that the change names."""
        return f"pg_temp._headrace_groups_{self.index}"

    @property
    def good(self) -> str:
        """What earlier rejects are compared with, in SQL, only with `keep`: the rows as they came (of a merge or a
        history just their keys and their order), of a recompute its groups.
        """
        if self.change.groups is not None:
            return self.groups
        return f"pg_temp._headrace_good_{self.index}" if self.keys else self.staged

    @property
    def keys(self) -> tuple[str, ...]:
        """The write's keys, where it has some."""
        return self.change.write.keys if isinstance(self.change.write, Merge | History) else ()

    @property
    def written(self) -> tuple[str, ...]:
        """The rows' columns that are written: the server makes the others by itself."""
        generated = {c.name for c in self.columns if c.generated}
        return tuple(n for n in self.rows.names if n not in generated)

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement that changes rows; how many."""
        with psycopg.RawCursor(self.connection) as cursor:
            cursor.execute(statement, list(values) if values else None)
            return max(0, cursor.rowcount)

    def count(self, query: str) -> int:
        """Run a query that gives one number."""
        return int(run(self.connection, query)[0][0])

    def reshape(self) -> None:
        """Make the table what the change needs. Other readers wait from here on, where it changes shape at all."""
        if self.shape.anew or not self.shape.there:  # what is remembered of rows has no meaning for other ones
            self.run("DELETE FROM _headrace.tombstones WHERE name = $1", [self.table.key])
        if not self.shape.there:
            self.run(f"DROP TABLE IF EXISTS {past(self.table)}")
        elif self.shape.anew:
            self.empty()
        for statement in self.shape.statements:
            try:
                run(self.connection, statement)
            except (psycopg.errors.FeatureNotSupported, psycopg.errors.DependentObjectsStillExist) as error:
                raise ConfigError(
                    f"table {self.table} cannot change shape: a view, a rule or a generated column uses a column of it",
                    hint=f"drop what depends on it, run again, and make it anew; what was tried: {statement}",
                ) from error

    def empty(self) -> None:
        """Delete all rows, by TRUNCATE where the write says so. Raises as `delete`."""
        if isinstance(self.change.write, Replace) and self.change.write.truncate:
            self.counts["deleted"] += self.count(f"SELECT count(*) FROM {self.table.sql}")
            self.run(f"TRUNCATE {self.table.sql}")
            return
        self.counts["deleted"] += self.delete(f"FROM {self.table.sql}")

    def delete(self, doomed: str) -> int:
        """Delete these rows (SQL from FROM on) of the table, which the commit's own replace; how many.

        Raises ConfigError where a trigger or a rule of the table has kept some.
        """
        deleted = self.run(f"DELETE {doomed}")
        kept = run(self.connection, _KEEPING, [self.table.sql]) and run(self.connection, f"SELECT 1 {doomed} LIMIT 1")
        if kept:
            raise ConfigError(
                f"table {self.table}: a trigger or a rule of it keeps rows from being deleted",
                hint="use merge, or take the trigger off: the new rows would stand beside the old ones",
            )
        return deleted

    def copy(
        self, into: str, stream: Callable[[], ArrowStream], *, ordinal: bool = False, flag: str | None = None
    ) -> tuple[int, int]:
        """Copy the rows of a stream into a table of the columns' types; how many came, how many the server took.

        `flag` names a Boolean column of it that is none of the table's, and goes along. Raises SchemaError unless every
        column fits, DataError for a value that does not.
        """
        lazy = framed(stream())
        rows = self._fitting(lazy, flag)
        held = {c.name: c for c in self.columns}
        taken = {f.name: (f.type, held[f.name]) for f in rows if not held[f.name].generated}
        if flag is not None:
            taken[flag] = (_BOOL, Column(flag, "boolean", _BOOL))
        names = [*([ORDINAL] if ordinal else []), *taken]
        statement = f"COPY {into} ({', '.join(map(quoted, names))}) FROM STDIN"
        packs = has_form(taken)
        with closing(drawn(lazy)) as frames:
            blocks = (packed if packs else encoded)(frames, taken, ordinal=ordinal)
            return copied(self.connection, statement + (" (FORMAT binary)" if packs else ""), blocks)

    def _fitting(self, lazy: pl.LazyFrame, flag: str | None) -> Schema:
        """The rows' schema, without the flag, if all of them go into the table exactly."""
        rows = Schema(tuple(f for f in Schema.of_polars(lazy.collect_schema()) if f.name != flag))
        held = {c.name: c for c in self.columns}
        told = {f.name: f for f in self.change.schema}
        for f in rows:
            origin = told[f.name].origin if f.name in told else None
            if f.name not in held or not fits(Field(f.name, f.type, origin), held[f.name]):
                holds = f"the table holds {held[f.name].held}" if f.name in held else "the table does not have it"
                raise SchemaError(f"column {f.name!r} is {f.type}, {holds}", hint="cast it in a transform")
        return rows

    def make(self, name: str, columns: Sequence[str], more: str = "") -> None:
        """Make a temporary table with some of the table's columns."""
        held = {c.name: c.held for c in self.columns}
        definitions = [*([more] if more else []), *(f"{quoted(n)} {held[n]}" for n in columns)]
        self.run(f"CREATE TEMP TABLE {name.removeprefix('pg_temp.')} ({', '.join(definitions)}) ON COMMIT DROP")

    def stage(self) -> int:
        """Put all rows into the stage; how many."""
        flag = self.change.deletes
        self.rows = self._fitting(framed(self.change.rows()), flag)
        more = f"{ORDINAL} bigint NOT NULL" + (f", {quoted(flag)} boolean" if flag is not None else "")
        self.make(self.staged, self.written, more)
        came, _ = self.copy(self.staged, self.change.rows, ordinal=True, flag=flag)
        self.run(f"ANALYZE {self.staged}")
        self.counts["rows"] = came
        if self.keep and self.keys:
            self.require(self.keys, "key")
            self.require(self.change.latest_by, "latest_by column")
            kept = ", ".join(map(quoted, dict.fromkeys((*self.keys, *self.change.latest_by))))
            self.run(
                f"CREATE TEMP TABLE {self.good.removeprefix('pg_temp.')} ON COMMIT DROP AS"
                f" SELECT DISTINCT {kept} FROM {self.staged}"
            )
        return came

    def take_groups(self, by: Sequence[str]) -> None:
        """Put the `by` values that the change names into `groups`."""
        if self.change.groups is None:
            raise AssertionError(self.change.table)
        names = framed(self.change.groups()).collect_schema().names()
        if set(names) != set(by):
            raise ConfigError(f"table {self.table}: the groups are not the columns {', '.join(by)}", hint="report this")
        self.make(self.groups, by)
        self.copy(self.groups, self.change.groups)
        self.run(f"ANALYZE {self.groups}")

    def delete_groups(self, by: Sequence[str], groups: str) -> int:
        """Delete the target's rows whose `by` values are among those of a table; NULL is one like any other.

        One statement for each pattern of NULLs, since no join can hash IS NOT DISTINCT FROM.
        """
        nulls = ", ".join(f"{quoted(n)} IS NULL" for n in by)
        deleted = 0
        for pattern in run(self.connection, f"SELECT DISTINCT {nulls} FROM {groups}"):
            tests = [
                f"t.{quoted(n)} IS NULL AND g.{quoted(n)} IS NULL" if null else f"t.{quoted(n)} = g.{quoted(n)}"
                for n, null in zip(by, pattern, strict=True)
            ]
            deleted += self.delete(
                f"FROM {self.table.sql} AS t WHERE EXISTS (SELECT FROM {groups} AS g WHERE {' AND '.join(tests)})"
            )
        return deleted

    def insert_stage(self, where: str = "") -> int:
        """Insert the staged rows, in the order they were read; how many. `where` calls them ``s``."""
        names = ", ".join(map(quoted, self.written))
        picked = ", ".join(f"s.{quoted(n)}" for n in self.written)
        return self.run(
            f"INSERT INTO {self.table.sql} ({names}) OVERRIDING SYSTEM VALUE"
            f" SELECT {picked} FROM {self.staged} AS s {where} ORDER BY s.{ORDINAL}"
        )

    def insert(self) -> int:
        """Insert the rows as they come; how many. Straight from COPY, unless they are to be kept, or readers would have
        to wait for the whole load because the table changes shape.
        """
        if self.keep or (self.shape.there and self.shape.statements):
            self.stage()
            self.reshape()
            return self.insert_stage()
        self.reshape()
        came, taken = self.copy(self.table.sql, self.change.rows)
        self.counts["rows"] += came
        return taken

    def require(self, names: Sequence[str], what: str) -> None:
        """Raises ConfigError unless the rows have these columns."""
        refuse_absent(self.table, what, names, self.rows)

    def collated(self, name: str) -> str:
        """The order in which a column is compared: code points for text, whatever the table's collation is."""
        held = next(c.held for c in self.columns if c.name == name)
        return ' COLLATE pg_catalog."C"' if held.partition("(")[0] in _CODE_POINTS else ""


_BOOL = parse_type("bool")


def framed(stream: ArrowStream) -> pl.LazyFrame:
    """The rows of a stream, lazily."""
    return stream.lazy() if isinstance(stream, FrameStream) else pl.scan_arrow_c_stream(stream)


def copied(connection: Connection, statement: str, blocks: Iterator[tuple[Buffer, int]]) -> tuple[int, int]:
    """Send the blocks to a COPY … FROM STDIN; how many rows came, how many the server took."""
    stopped: BaseException | None = None
    came = 0
    with psycopg.RawCursor(connection) as cursor:
        try:
            with cursor.copy(statement) as copy:
                try:
                    for block, height in blocks:
                        copy.write(block)
                        flushed(connection.pgconn)
                        came += height
                except psycopg.Error:
                    raise
                except BaseException as error:  # noqa: BLE001  # whatever it is, it comes out as it was
                    stopped = error
                    raise _StoppedError from None
        except _StoppedError:
            pass
        except ValueError as error:  # psycopg 3.3 counts the results of a COPY whose connection is gone
            if not connection.closed:
                raise
            raise psycopg.OperationalError from error
        if stopped is not None:
            raise stopped
        return came, max(0, cursor.rowcount)


def append(load: Load) -> None:
    """Add the rows."""
    load.counts["inserted"] += load.insert()


def partitions(load: Load, write: Partitions) -> None:
    """Replace the partitions that the rows touch, and those that the change names. NULL is one like any other."""
    load.stage()
    load.require(write.by, "partition column")
    by = ", ".join(map(quoted, write.by))
    touched = f"SELECT {by} FROM {load.staged}"
    if load.change.groups is not None:
        load.take_groups(write.by)
        touched += f" UNION SELECT {by} FROM {load.groups}"
    load.run(f"CREATE TEMP TABLE _headrace_touched ON COMMIT DROP AS SELECT DISTINCT {by} FROM ({touched}) AS q")
    load.run("ANALYZE pg_temp._headrace_touched")
    load.reshape()
    load.counts["deleted"] += load.delete_groups(write.by, "pg_temp._headrace_touched")
    load.counts["inserted"] += load.insert_stage()
    load.run("DROP TABLE pg_temp._headrace_touched")


def recompute(load: Load, write: Recompute) -> None:
    """Replace the rows of the groups that the change names; without groups, of all of them (a full read)."""
    table = load.table
    if load.change.groups is None:
        if not load.change.complete:
            raise ConfigError(f"table {table}: recompute without its groups", hint="run with --full-refresh")
        if load.shape.there and not load.shape.anew:
            load.empty()
        load.counts["inserted"] += load.insert()
        return
    load.stage()
    load.take_groups(write.by)
    load.reshape()
    load.counts["deleted"] += load.delete_groups(write.by, load.groups)
    inside = " AND ".join(f"s.{quoted(n)} IS NOT DISTINCT FROM g.{quoted(n)}" for n in write.by)
    load.counts["inserted"] += load.insert_stage(f"WHERE EXISTS (SELECT FROM {load.groups} AS g WHERE {inside})")

"""The writes, carried out in SQL inside the commit's transaction.

Rows come as an Arrow stream. What needs all of them before it can touch the target is staged in a temporary
table, which spills; each staged row has an ordinal, so that "the last read" means something in a set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from headrace.errors import ConfigError
from headrace.ledger import refuse_absent
from headrace.schema import Schema
from headrace.sqltext import quoted
from headrace.stream import FrameStream
from headrace.systems.duckdb.connection import unordered
from headrace.systems.duckdb.tables import Table, carries_more_than_rows, columns_of, definitions
from headrace.transform.columns import Column, check_fits, crossing
from headrace.writes import History, Merge

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection

    from headrace.flow import ArrowStream, TableChange
    from headrace.writes import Partitions, Recompute

__all__ = ["ORDINAL", "Load", "append", "partitions", "recompute", "replace", "same"]

ORDINAL = "_headrace_ordinal"
_ROWS = "_headrace_rows"


def same(left: str, right: str, names: Sequence[str], operator: str = "IS NOT DISTINCT FROM") -> str:
    """SQL: the named columns of two tables are equal, column by column (with "=", NULLs never are)."""
    return " AND ".join(f"{left}.{quoted(n)} {operator} {right}.{quoted(n)}" for n in names)


@dataclass
class Load:
    """One table change (the `index`-th of its commit) on its way into its table, and what has been counted.

    `keep_stage` asks for the rows to be left in the stage until `clear` (earlier rejects are compared with
    them).
    """

    connection: DuckDBPyConnection
    change: TableChange
    columns: tuple[Column, ...]
    index: int
    at: datetime
    keep_stage: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    rows: Schema = field(default_factory=lambda: Schema(()))

    @cached_property
    def table(self) -> Table:
        """The table that changes."""
        return Table.of(self.change.table).within(self.connection)

    @property
    def staged(self) -> str:
        """The stage's name in SQL."""
        return f"temp.main._headrace_stage_{self.index}"

    @property
    def good(self) -> str:
        """What earlier rejects are compared with, in SQL, only with `keep_stage`: the rows as they came (of a
        merge or a history just their keys and their order), of a recompute its groups.
        """
        if self.change.groups is not None:
            return self.groups
        return f"temp.main._headrace_good_{self.index}" if self._keys else self.staged

    @property
    def _keys(self) -> tuple[str, ...]:
        return self.change.write.keys if isinstance(self.change.write, Merge | History) else ()

    @property
    def groups(self) -> str:
        """The name in SQL of the `by` values that the change names."""
        return f"temp.main._headrace_groups_{self.index}"

    def run(self, sql: str, values: Sequence[object] = ()) -> int:
        """Run a statement that changes rows; how many."""
        found = self.connection.execute(sql, list(values)).fetchall()
        return int(found[0][0]) if found else 0

    def count(self, sql: str) -> int:
        """Run a query that gives one number."""
        return int(self.connection.execute(sql).fetchall()[0][0])

    @contextmanager
    def incoming(
        self, stream: Callable[[], ArrowStream], *, ordinal: bool = False, flag: str | None = None
    ) -> Iterator[tuple[str, Schema]]:
        """The stream as a table for one statement: its SQL (columns by name, in the table's types), its schema.

        `flag` names a Boolean column of it that comes along and is not in the schema. The stream is opened anew for
        each scan. Raises SchemaError unless every column fits the table.
        """
        arriving = _frame(stream()).collect_schema()
        schema = Schema(tuple(f for f in Schema.of_polars(arriving) if f.name != flag))
        held = {c.name: c for c in self.columns}
        check_fits(schema, Schema(tuple(f for f in self.change.schema if f.name in held)))

        def frame() -> pl.LazyFrame:
            rows = crossing(_frame(stream()))
            return rows.with_row_index(ORDINAL) if ordinal else rows

        taken = [f"{held[n].taken(quoted(n))} AS {quoted(n)}" for n in schema.names]
        taken += [f"CAST({ORDINAL} AS BIGINT) AS {ORDINAL}"] if ordinal else []
        taken += [quoted(flag)] if flag is not None else []
        feed = FrameStream(frame)
        self.connection.register(_ROWS, feed)
        yield f"SELECT {', '.join(taken)} FROM {_ROWS}", schema
        self.connection.unregister(_ROWS)  # not after an error: the transaction is aborted, and it would hide it

    def stage(self) -> int:
        """Put all rows into the stage; how many."""
        with self.incoming(self.change.rows, ordinal=True, flag=self.change.deletes) as (rows, self.rows):
            self.run(f"CREATE TEMP TABLE {self.staged} AS {rows}")
        self.counts["rows"] = self.count(f"SELECT count(*) FROM {self.staged}")
        if self.keep_stage and self._keys:
            self.require(self._keys, "key")
            self.require(self.change.latest_by, "latest_by column")
            kept = ", ".join(map(quoted, dict.fromkeys((*self._keys, *self.change.latest_by))))
            self.run(f"CREATE TEMP TABLE {self.good} AS SELECT {kept} FROM {self.staged}")
        return self.counts["rows"]

    def take_groups(self, by: Sequence[str]) -> None:
        """Put the `by` values that the change names into `groups`."""
        if self.change.groups is None:
            raise AssertionError(self.change.table)
        with self.incoming(self.change.groups) as (groups, schema):
            if set(schema.names) != set(by):
                raise ConfigError(
                    f"table {self.table}: the groups are not the columns {', '.join(by)}", hint="report this"
                )
            self.run(f"CREATE TEMP TABLE {self.groups} AS SELECT DISTINCT * FROM ({groups})")

    def delete(self, table: str, rowids: str) -> int:
        """Delete the rows of `table` whose rowid the query gives; how many.

        In the table's order and piece by piece: a delete in random order holds memory for each single row.
        """
        doomed = f"temp.main._headrace_doomed_{self.index}"
        self.run(f"CREATE TEMP TABLE {doomed} AS SELECT r FROM ({rowids}) AS d(r) ORDER BY r")
        firsts = f"SELECT r FROM {doomed} QUALIFY row_number() OVER (ORDER BY r) % {_PIECE_ROWS} = 1 ORDER BY r"
        bounds = [r for (r,) in self.connection.execute(firsts).fetchall()]
        deleted = 0
        for low, high in zip(bounds, [*bounds, None][1:], strict=True):
            piece = f"{{0}} >= {low}" + ("" if high is None else f" AND {{0}} < {high}")
            deleted += self.run(
                f"DELETE FROM {table} WHERE {piece.format('rowid')}"
                f" AND rowid IN (SELECT r FROM {doomed} WHERE {piece.format('r')})"
            )
        self.run(f"DROP TABLE {doomed}")
        return deleted

    def clear(self) -> None:
        """Drop what is left in temporary tables."""
        for name in {self.good, self.groups}:
            self.run(f"DROP TABLE IF EXISTS {name}")
        self.run(f"DROP TABLE IF EXISTS {self.staged}")

    def insert_stage(self, where: str = "", columns: Sequence[str] = ()) -> int:
        """Insert the staged rows, columns by name (all, or these), in the order they were read unless that costs too
        much.
        """
        beside = ", ".join([ORDINAL, *([quoted(self.change.deletes)] if self.change.deletes is not None else [])])
        picked = ", ".join(map(quoted, columns)) or f"* EXCLUDE ({beside})"
        order = f" ORDER BY {ORDINAL}" if self.counts["rows"] <= _SORTED_ROWS else ""
        return self.run(f"INSERT INTO {self.table.sql} BY NAME SELECT {picked} FROM {self.staged} AS r {where}{order}")

    def insert(self, *, into: Table | None = None, where: str = "") -> int:
        """Insert the rows in whatever order, columns by name; how many. `where` (a join or a WHERE) calls them ``r``.

        They stay in the stage too, if that is to be kept.
        """
        target = (into or self.table).sql
        if self.keep_stage:
            self.stage()
            return self.run(
                f"INSERT INTO {target} BY NAME SELECT r.* EXCLUDE ({ORDINAL}) FROM {self.staged} AS r {where}"
            )
        with self.incoming(self.change.rows) as (rows, self.rows), unordered(self.connection):
            inserted = self.run(f"INSERT INTO {target} BY NAME SELECT r.* FROM ({rows}) AS r {where}")
        self.counts["rows"] += inserted
        return inserted

    def require(self, names: Sequence[str], what: str) -> None:
        """Raises ConfigError unless the rows have these columns."""
        refuse_absent(self.table, what, names, self.rows)


def _frame(stream: ArrowStream) -> pl.LazyFrame:
    return stream.lazy() if isinstance(stream, FrameStream) else pl.scan_arrow_c_stream(stream)


_PIECE_ROWS = 500_000
_SORTED_ROWS = 1_000_000
"""Up to here rows keep their order in the table; beyond it a sort would cost more than it helps."""


def append(load: Load) -> None:
    """Add the rows."""
    load.counts["inserted"] += load.insert()


def replace(load: Load) -> None:
    """Build the new table aside and swap; or empty and fill a table that carries more than rows."""
    table = load.table
    load.run("DELETE FROM _headrace.tombstones WHERE name = ?", [table.key])  # the rows are all there is to know now
    load.counts["deleted"] += load.count(f"SELECT count(*) FROM {table.sql}")
    if carries_more_than_rows(load.connection, table):
        load.run(f"DELETE FROM {table.sql}")
        load.counts["inserted"] += load.insert()
    else:
        aside = Table(table.schema, f"_headrace_new_{table.name}", table.catalog)
        load.run(f"CREATE TABLE {aside.sql} ({definitions(load.change.schema)})")
        load.columns = columns_of(load.connection, aside, load.change.schema)
        load.counts["inserted"] += load.insert(into=aside)
        load.run(f"DROP TABLE {table.sql}")
        load.run(f"ALTER TABLE {aside.sql} RENAME TO {quoted(table.name)}")


def partitions(load: Load, write: Partitions) -> None:
    """Replace the partitions that the rows touch, and those that the change names. NULL is one like any other."""
    load.stage()
    load.require(write.by, "partition column")
    by = ", ".join(map(quoted, write.by))
    touched = f"SELECT {by} FROM {load.staged}"
    if load.change.groups is not None:
        load.take_groups(write.by)
        touched += f" UNION SELECT {by} FROM {load.groups}"
    load.counts["deleted"] += load.delete(
        load.table.sql,
        f"SELECT t.rowid FROM {load.table.sql} AS t SEMI JOIN (SELECT DISTINCT * FROM ({touched})) AS s"
        f" ON {same('t', 's', write.by)}",
    )
    load.counts["inserted"] += load.insert_stage()


def recompute(load: Load, write: Recompute) -> None:
    """Replace the rows of the groups that the change names; without groups, of all of them (a full read)."""
    table = load.table
    if load.change.groups is None:
        if not load.change.complete:
            raise ConfigError(f"table {table}: recompute without its groups", hint="run with --full-refresh")
        load.counts["deleted"] += load.run(f"DELETE FROM {table.sql}")
        load.counts["inserted"] += load.insert()
        return
    load.take_groups(write.by)
    load.counts["deleted"] += load.delete(
        table.sql, f"SELECT t.rowid FROM {table.sql} AS t SEMI JOIN {load.groups} AS g ON {same('t', 'g', write.by)}"
    )
    inside = f"SEMI JOIN {load.groups} AS g ON {same('r', 'g', write.by)}"
    load.counts["inserted"] += load.insert(where=inside)

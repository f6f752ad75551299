"""Tables of the file: whose they are, their columns, and how they change shape."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from headrace.errors import ConfigError, ConflictError, SchemaError
from headrace.frozen import frozen
from headrace.ledger import own_fields, refuse_foreign, refuse_unready, widened
from headrace.logical import widens
from headrace.schema import AddColumn, CreateTable, Field, Schema, SchemaChange, WidenColumn
from headrace.sqltext import quoted
from headrace.systems.duckdb import ledger
from headrace.transform.columns import Column, described, folded, physical
from headrace.writes import Append, Replace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from headrace.flow import TableChange
    from headrace.systems.duckdb import DuckDBDestination

__all__ = ["Table", "carries_more_than_rows", "columns_of", "definitions", "existing", "generated", "past", "prepare"]

_PART = r'(?:"((?:[^"]|"")+)"|([^".]+))'
_NAME = re.compile(rf"(?:{_PART}\.)?{_PART}")

_OWN = tuple(f"_headrace_{name}" for name in ("ordinal", "deleted", "closed", "same", "end", "row", "tomb"))
"""What the writes call columns that they put beside those of the rows."""


@frozen
class Table:
    """A table's name. `key` is how the ledger spells it: DuckDB's names do not heed case.

    `catalog` is the file's own name, where it is needed: see `within`.
    """

    schema: str
    name: str
    catalog: str | None = field(default=None, compare=False)

    @staticmethod
    def of(text: str) -> Table:
        """From ``table`` or ``schema.table``; a part with a point or a quote in it stands in double quotes."""
        if not (found := _NAME.fullmatch(text)):
            raise ConfigError(f"table name {text!r} cannot be used", hint='write table, schema.table or "a.b"."c"')
        schema, name = (
            (q or "").replace('""', '"') or p or "" for q, p in ((found[1], found[2]), (found[3], found[4]))
        )
        if folded(schema or "main") in ("_headrace", "temp", "information_schema", "pg_catalog"):
            raise ConfigError(f"table name {text!r}: the schema is not yours to write", hint="choose another schema")
        return Table(schema or "main", name)

    def within(self, connection: DuckDBPyConnection) -> Table:
        """The table in the file that is open. To DuckDB ``shop.orders`` means two things in a file ``shop.duckdb``."""
        ((catalog,),) = connection.execute("SELECT current_database()").fetchall()
        return replace(self, catalog=catalog if folded(catalog) == folded(self.schema) else None)

    @property
    def key(self) -> str:
        """``schema.table`` as the ledger spells it; a part with a point or a quote in it is quoted."""
        return folded(".".join(quoted(p) if "." in p or '"' in p else p for p in (self.schema, self.name)))

    @property
    def sql(self) -> str:
        """The name in SQL."""
        return f"{self.home}.{quoted(self.name)}"

    @property
    def home(self) -> str:
        """Its schema in SQL."""
        return quoted(self.schema) if self.catalog is None else f"{quoted(self.catalog)}.{quoted(self.schema)}"

    @property
    def spelled(self) -> str:
        """The name as `of` reads it."""
        parts = (self.schema, self.name)
        return ".".join(quoted(part) if any(c in '."' for c in self.schema + self.name) else part for part in parts)

    @property
    def file(self) -> str:
        """A name for files beside the database: one for each table."""
        return quote(self.key, safe="")[:150]

    def __str__(self) -> str:
        return self.name if self.schema == "main" else f"{self.schema}.{self.name}"


def existing(connection: DuckDBPyConnection, table: Table) -> bool:
    """Whether the table is there. Raises ConfigError for a view of that name."""
    rows = connection.execute(
        "SELECT table_schema, table_name, table_type FROM information_schema.tables"
        " WHERE table_catalog = current_database() AND lower(table_name) = lower(?)",
        [table.name],
    ).fetchall()
    found = [kind for schema, name, kind in rows if Table(schema, name).key == table.key]
    if "VIEW" in found:
        raise ConfigError(f"{table} is a view", hint="load into a table of another name")
    return bool(found)


def carries_more_than_rows(connection: DuckDBPyConnection, table: Table) -> bool:
    """Whether the table has constraints, defaults, indexes or comments, which a swap would lose."""
    where = "database_name = current_database() AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"
    found = connection.execute(
        f"SELECT 1 FROM duckdb_constraints() WHERE {where} UNION ALL SELECT 1 FROM duckdb_indexes() WHERE {where}"
        f" UNION ALL SELECT 1 FROM duckdb_columns() WHERE (column_default IS NOT NULL OR comment IS NOT NULL)"
        f" AND {where} UNION ALL SELECT 1 FROM duckdb_tables() WHERE comment IS NOT NULL AND {where}",
        [table.schema, table.name] * 4,
    ).fetchall()
    return bool(found)


def generated(connection: DuckDBPyConnection, table: Table) -> frozenset[str]:
    """The columns that DuckDB makes of others: nothing can be written into them."""
    rows = connection.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_catalog = current_database()"
        " AND lower(table_schema) = lower(?) AND lower(table_name) = lower(?) AND is_generated = 'ALWAYS'",
        [table.schema, table.name],
    ).fetchall()
    return frozenset(name for (name,) in rows)


def columns_of(connection: DuckDBPyConnection, table: Table, known: Schema | None) -> tuple[Column, ...]:
    """The table's columns as they are; the logical type is the ledger's where it still describes the column."""
    return tuple(
        Column(c.name, c.held, known[c.name])
        if known is not None and c.name in known and physical(known[c.name]) == c.held
        else c
        for c in described(connection, f"FROM {table.sql}")
    )


def prepare(
    connection: DuckDBPyConnection, change: TableChange, key: ledger.Key, how: DuckDBDestination
) -> tuple[tuple[Column, ...], int]:
    """Make the table what the change needs; its columns, and how many rows had to go for that (a full refresh).

    Raises ConfigError (not headrace's table, another pipeline's, gone), ConflictError (it has changed since it
    was inspected), SchemaError.
    """
    table = Table.of(change.table).within(connection)
    known = ledger.owned(connection, table.key)
    there = existing(connection, table)
    others, owned = (known.others(*key.values), known.written_by(*key.values)) if known else ((), False)
    refuse_foreign(table, others, key.pipeline, owned=owned, there=there, adopt=how.adopt)
    added = own_fields(change)
    wanted = Schema((*change.schema, *(f for f in added if f.name not in change.schema)))
    _refuse_names(table, change, wanted.names)
    swapped = isinstance(change.write, Replace) and not (there and carries_more_than_rows(connection, table))
    emptied = 0
    if there and change.fresh:
        emptied, wanted = _empty(connection, table, wanted, known)
        there = existing(connection, table)
    elif known is not None and not there and not (isinstance(change.write, Replace) or change.complete or change.fresh):
        raise ConfigError(
            f"table {table} is gone, but what it held counts as loaded", hint="load it anew with --full-refresh"
        )
    elif known is not None and not there:
        ledger.forget_others(connection, table.key, key)
    if not there:
        _forget(connection, table)
        _create(connection, table, wanted)
    elif not (swapped or change.fresh):
        for step in (*change.changes, *widened(str(table), change, known, added)):
            _alter(connection, table, step)
    have = columns_of(connection, table, wanted)
    _refuse_names(table, change, [c.name for c in have])
    if not (there and swapped):
        if there and not change.fresh:
            refuse_unready(table, added, [c.name for c in have])
        _check_same(table, have, wanted)
    ledger.own(connection, table.key, key, wanted, tuple(f.name for f in added))
    return have, emptied


def _refuse_names(table: Table, change: TableChange, names: Sequence[str]) -> None:
    """Where rows are replaced they are called by DuckDB's ``rowid``, and a column of that name would stand for it:
    other rows would go. And what the writes put beside the columns has names of its own.
    """
    taken = _OWN if isinstance(change.write, Append | Replace) else (*_OWN, "rowid")
    if found := next((n for n in names if folded(n) in taken), None):
        raise SchemaError(
            f"table {table}: a column cannot be called {found!r} where {change.write.type} writes into DuckDB",
            hint=f'call it otherwise: "rename": {{"{found}": "row_number"}} in the source, or AS in the transform',
            details={"column": found},
        )


def _empty(
    connection: DuckDBPyConnection, table: Table, wanted: Schema, known: ledger.Owned | None
) -> tuple[int, Schema]:
    """Begin anew: no rows, and no memory of them; how many there were, and the schema that the table has then or can
    be made with. The table itself stays where it can, for what hangs on it.
    """
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {table.sql}").fetchall()
    _forget(connection, table)
    have = columns_of(connection, table, known.schema if known else None)
    same = {(c.name, c.held) for c in have} == {(f.name, physical(f.type)) for f in wanted}
    if same or carries_more_than_rows(connection, table):
        connection.execute(f"DELETE FROM {table.sql}")
        wanted = wanted if same else _refitted(connection, table, have, wanted, known)
    else:
        connection.execute(f"DROP TABLE {table.sql}")
    return int(rows), wanted


def _refitted(
    connection: DuckDBPyConnection, table: Table, have: Sequence[Column], wanted: Schema, known: ledger.Owned | None
) -> Schema:
    """Give an empty table that carries more than rows the columns that are wanted; what it holds of them then. Columns
    that are plain and that only rows have brought go, the others stay, with their type where it holds every value.

    Raises ConfigError for a type that cannot be changed.
    """
    told, bound, there = known.schema.names if known else (), _bound(connection, table), {c.name: c for c in have}
    for name in told:
        if name in there and name not in wanted and name not in bound:
            connection.execute(f"ALTER TABLE {table.sql} DROP COLUMN {quoted(name)}")
    fields = []
    for wish in wanted:
        column, type = there.get(wish.name), physical(wish.type)
        if column is None:
            connection.execute(f"ALTER TABLE {table.sql} ADD COLUMN {quoted(wish.name)} {type}")
        elif column.held != type and wish.name not in bound:
            connection.execute(f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(wish.name)} TYPE {type} USING NULL")
        elif column.held != type and not widens(wish.type, column.type):
            raise ConfigError(
                f"table {table} cannot change shape: column {wish.name!r} is {column.held}, and something hangs on it",
                hint=f"drop the indexes, constraints and defaults that stand in the way of {type}, or the table",
                details={"column": wish.name},
            )
        kept = column is not None and column.held != type and wish.name in bound
        fields.append(Field(wish.name, there[wish.name].type) if kept else wish)
    return Schema(tuple(fields))


def _bound(connection: DuckDBPyConnection, table: Table) -> frozenset[str]:
    """The columns on which something hangs: a constraint, a default, a comment; all of them, if there is an index."""
    where = "database_name = current_database() AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"
    found = connection.execute(
        f"SELECT unnest(constraint_column_names) FROM duckdb_constraints() WHERE {where} UNION ALL"
        f" SELECT column_name FROM duckdb_columns() WHERE {where} AND"
        " (column_default IS NOT NULL OR comment IS NOT NULL"
        f" OR EXISTS (SELECT 1 FROM duckdb_indexes() WHERE {where}))",
        [table.schema, table.name] * 3,
    ).fetchall()
    return frozenset(name for (name,) in found)


def _forget(connection: DuckDBPyConnection, table: Table) -> None:
    """What a merge and a history remember of a table's rows has no meaning for other ones."""
    connection.execute("DELETE FROM _headrace.tombstones WHERE name = ?", [table.key])
    connection.execute(f"DROP TABLE IF EXISTS {past(table)}")


def past(table: Table) -> str:
    """The name in SQL of the table where a history keeps what it must remember beside the versions."""
    return f"_headrace.{quoted(f'{table.key} history')}"


def _check_same(table: Table, have: Sequence[Column], wanted: Schema) -> None:
    """The rows were made for a schema; the table must have it now."""
    types = {c.name: c for c in have}
    for wish in wanted:
        column = types.get(wish.name)
        if column is None or (column.type != wish.type and column.held != physical(wish.type)):
            raise ConflictError(
                f"table {table}: column {wish.name!r} is not what it was when the run began", hint="run again"
            )


def _create(connection: DuckDBPyConnection, table: Table, schema: Schema) -> None:
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {table.home}")
    connection.execute(_creating(table, schema))


def ddl(change: TableChange) -> list[str]:
    """The change's DDL, for `plan`: the very statements that `prepare` runs."""
    table = Table.of(change.table)
    added = tuple(f for f in own_fields(change) if f.name not in change.schema)
    _refuse_names(table, change, change.schema.names)
    return [_statement(table, step, added) for step in change.changes]


def _statement(table: Table, step: SchemaChange, added: Sequence[Field] = ()) -> str:
    match step:
        case CreateTable(schema):
            return _creating(table, Schema((*schema, *added)))
        case AddColumn(field):
            return f"ALTER TABLE {table.sql} ADD COLUMN {quoted(field.name)} {physical(field.type)}"
        case WidenColumn(name, _, new):
            return f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(name)} SET DATA TYPE {physical(new)}"


def _creating(table: Table, schema: Schema) -> str:
    return f"CREATE TABLE {table.sql} ({definitions(schema)})"


def _remembers(connection: DuckDBPyConnection, table: Table, column: str) -> bool:
    """Whether a history remembers this column beside the versions (all but the end)."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = '_headrace'"
        " AND table_name = ? AND column_name = ?",
        [f"{table.key} history", column],
    ).fetchall()
    return bool(found)


def definitions(schema: Schema) -> str:
    """Column definitions. Raises SchemaError for two names that differ in case alone, and for a column without one."""
    if not len(schema):
        raise SchemaError("a table needs at least one column", hint="select some columns in the transform")
    if "" in schema:
        raise SchemaError("a column has no name, and DuckDB has no such columns", hint="give it one in the transform")
    seen: dict[str, str] = {}
    for name in schema.names:
        if (other := seen.setdefault(folded(name), name)) != name:
            raise SchemaError(
                f"columns {other!r} and {name!r} differ in case alone, which DuckDB does not tell apart",
                hint="rename one of them",
            )
    return ", ".join(f"{quoted(f.name)} {physical(f.type)}" for f in schema)


def _alter(connection: DuckDBPyConnection, table: Table, step: SchemaChange) -> None:
    match step:
        case CreateTable():
            raise ConflictError(f"table {table} has appeared since the run began", hint="run again")
        case AddColumn(field):
            have = described(connection, f"FROM {table.sql}")
            definitions(Schema((*(Field(c.name, c.type) for c in have), field)))
            add = f"ADD COLUMN {quoted(field.name)} {physical(field.type)}"
            connection.execute(_statement(table, step))
            connection.execute(f"ALTER TABLE IF EXISTS {past(table)} {add}")
        case WidenColumn(name, old, new):
            if physical(old) != physical(new):
                widen = f"ALTER COLUMN {quoted(name)} SET DATA TYPE {physical(new)}"
                connection.execute(_statement(table, step))
                if _remembers(connection, table, name):
                    connection.execute(f"ALTER TABLE {past(table)} {widen}")

"""Tables of the database: their names, their columns, and what a write wants of them. `shaping` changes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from headrace.errors import ConfigError
from headrace.frozen import frozen
from headrace.schema import Schema
from headrace.sqltext import quoted
from headrace.systems.postgres.connection import run
from headrace.systems.postgres.encoding import Column, natural, physical
from headrace.systems.postgres.names import NAME_BYTES, dotted, named
from headrace.writes import Merge, Replace

if TYPE_CHECKING:
    from psycopg import Connection

    from headrace.flow import TableChange

__all__ = ["Table", "columns_of", "existing", "keys_of", "loose", "notes", "past", "unique_on"]

_OVER = """(WITH RECURSIVE d AS (SELECT typbasetype AS oid, typtypmod AS mod FROM pg_type
    WHERE typtype = 'd' AND atttypid IN (oid, typarray)
  UNION ALL SELECT t.typbasetype, t.typtypmod FROM d JOIN pg_type AS t USING (oid) WHERE t.typtype = 'd')
SELECT format_type(oid, mod) FROM d JOIN pg_type AS t USING (oid) WHERE t.typtype <> 'd')"""
_SAME = re.compile(
    r"smallint|integer|bigint|oid|boolean|uuid|bytea|date|numeric\(.+\)"
    r'|time(?:stamp)?(?:\(\d\))? with(?:out)? time zone|text|name|"char"|character(?: varying)?(?:\(\d+\))?'
)
"""Types in which equal values are the same, byte for byte, where their collation is deterministic."""
_OURS = ("_headrace", "pg_catalog", "information_schema", "pg_toast")


@frozen
class Table:
    """A table's name, as it is written: PostgreSQL's names heed case."""

    schema: str
    name: str

    @staticmethod
    def of(text: str) -> Table:
        """From ``name``, ``schema.name`` or ``"Schema"."Name"``. Raises ConfigError."""
        schema, name = named(text)
        if schema in _OURS or schema.startswith("pg_"):
            raise ConfigError(f"table name {text!r}: the schema is not yours to write", hint="choose another schema")
        for part in (schema, name):
            if "\0" in part or len(part.encode()) > NAME_BYTES:
                raise ConfigError(f"table name {text!r}: PostgreSQL's names have 63 bytes at most", hint="shorten it")
        return Table(schema, name)

    @property
    def key(self) -> str:
        """``schema.table`` as the ledger spells it; a part with a point in it is quoted."""
        return dotted(self.schema, self.name)

    @property
    def sql(self) -> str:
        """The name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def __str__(self) -> str:
        return self.name if self.schema == "public" else self.key


def past(table: Table) -> str:
    """The name in SQL of the table where a history keeps what it must remember beside the versions."""
    name = f"history {table.key}"
    if len(name.encode()) > NAME_BYTES:
        name = f"history {hashlib.blake2b(table.key.encode(), digest_size=16).hexdigest()}"
    return f"_headrace.{quoted(name)}"


def existing(connection: Connection, table: Table) -> int | None:
    """The table's oid; None where there is none. Raises ConfigError for a relation of that name that takes no rows."""
    rows = run(
        connection,
        "SELECT c.oid::bigint, c.relkind FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = $2",
        [table.schema, table.name],
    )
    if not rows:
        return None
    ((oid, kind),) = rows
    kind = kind.decode() if isinstance(kind, bytes) else kind
    if kind not in ("r", "p", "f"):
        what = {"v": "a view", "m": "a materialized view", "S": "a sequence", "c": "a type"}.get(kind, "no table")
        raise ConfigError(f"{table} is {what}", hint="load into a table of another name")
    return int(oid)


def columns_of(connection: Connection, oid: int, known: Schema | None) -> tuple[Column, ...]:
    """The table's columns as they are, those that the ledger knows first; the logical type is the ledger's where it
    still describes the column.
    """
    told = {f.name: f for f in known or ()}
    columns = [
        Column(
            name,
            held,
            told[name].type if name in told and physical(told[name]) == held else natural(held),
            generated=generated,
            filled=filled and name not in told,
            identity=identity,
            over=over or "",
        )
        for name, held, generated, filled, identity, over in run(
            connection,
            "SELECT attname, format_type(atttypid, atttypmod), attgenerated <> '', atthasdef OR attidentity <> '',"
            f" attidentity = 'a', {_OVER} FROM pg_attribute"
            " WHERE attrelid = $1::bigint::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [oid],
        )
    ]
    order = {name: n for n, name in enumerate(told)}
    return tuple(sorted(columns, key=lambda c: order.get(c.name, len(order))))


def unique_on(connection: Connection, oid: int, keys: Sequence[str]) -> bool:
    """Whether the table has a unique index over these columns, or some of them."""
    rows = run(
        connection,
        "SELECT 1 FROM pg_index AS i WHERE i.indrelid = $1::bigint::oid AND i.indisunique AND i.indisvalid"
        " AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS ("
        "SELECT 1 FROM pg_attribute AS a WHERE a.attrelid = i.indrelid"
        " AND a.attnum = ANY ((i.indkey::smallint[])[0:i.indnkeyatts - 1]) AND a.attname <> ALL ($2::text[]))",
        [oid, list(keys)],
    )
    return bool(rows)


def loose(connection: Connection, table: Table, columns: Iterable[Column], names: Sequence[str]) -> frozenset[str]:
    """Of the named columns those in which values may be equal and yet not the same: citext, 1.0 and 1.00."""
    found = {c.name for c in columns if c.name in names and _SAME.fullmatch(c.over or c.held) is None}
    rows = run(
        connection,
        "SELECT a.attname FROM pg_attribute AS a JOIN pg_collation AS c ON c.oid = a.attcollation"
        " WHERE a.attrelid = to_regclass($1) AND a.attname = ANY ($2::text[]) AND NOT c.collisdeterministic",
        [table.sql, list(names)],
    )
    return frozenset(found.union(name for (name,) in rows))


def keys_of(change: TableChange) -> tuple[str, ...]:
    """The columns that the write holds to be unique in the table."""
    return change.write.keys if isinstance(change.write, Merge | Replace) else ()


def notes(connection: Connection, change: TableChange, *, create_index: bool) -> list[str]:
    """What a person should know of how the change will be carried out."""
    said = []
    table = Table.of(change.table)
    oid = existing(connection, table)
    keys = keys_of(change)
    if keys and not create_index and (oid is None or not unique_on(connection, oid, keys)):
        said.append(
            f"table {table} has no unique index on {', '.join(keys)}: each {change.write.type} reads the whole table"
            ' ("create_index": true makes one)'
        )
    if isinstance(change.write, Replace) and change.write.truncate and oid is not None:
        said.append(
            f"TRUNCATE locks table {table} until the commit: who reads it waits, and a transaction that began before"
            " sees it empty afterwards"
        )
    return said

"""How a table gets the shape that rows have. It is changed where it stands, so that what hangs on it (grants, views,
indexes, triggers) stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
import psycopg

from headrace.errors import ConfigError, ConflictError, SchemaError
from headrace.exact import from_text
from headrace.frozen import frozen
from headrace.ledger import own_fields, refuse_foreign, refuse_unready, widened
from headrace.logical import Type, doubled
from headrace.schema import AddColumn, CreateTable, Field, Schema, SchemaChange, WidenColumn
from headrace.sqltext import quoted
from headrace.systems.postgres import ledger
from headrace.systems.postgres.connection import run
from headrace.systems.postgres.encoding import SYSTEM, Column, fits, natural, physical
from headrace.systems.postgres.names import NAME_BYTES
from headrace.systems.postgres.reading import batches
from headrace.systems.postgres.tables import Table, columns_of, existing, keys_of, past, unique_on
from headrace.writes import History, Replace

if TYPE_CHECKING:
    from psycopg import Connection

    from headrace.flow import TableChange
    from headrace.systems.postgres import PostgresDestination

__all__ = ["Shape", "shaped"]

_WIDEST = 1_590
"""PostgreSQL takes 1,600 columns, and what is put beside the table on the way has some of its own."""
_SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
_UNLIMITED = {"character": "bpchar", "bit": "bit varying"}
"""Types that without their limit have one of 1, and the same ones that have none: a cast would cut what they hold."""


@frozen
class Shape:
    """What a change makes of the table: the columns it has then, and the statements that lead there.

    `there`: the table is there now. `anew`: it begins empty, its rows (not the table) go first. `wanted` is the
    schema that the ledger will have of it; `added` are the columns that no row brings.
    """

    table: Table
    there: bool
    anew: bool
    columns: tuple[Column, ...]
    statements: tuple[str, ...]
    wanted: Schema
    added: tuple[Field, ...]


def shaped(
    connection: Connection, change: TableChange, key: ledger.Key, known: ledger.Owned | None, how: PostgresDestination
) -> Shape:
    """How the table, which the ledger has as `known`, becomes what the change needs. Changes nothing.

    Raises ConfigError (not headrace's table, another pipeline's, gone), ConflictError (it has changed since it
    was inspected), SchemaError.
    """
    table = Table.of(change.table)
    oid = existing(connection, table)
    others, owned = (known.others(*key.values), known.written_by(*key.values)) if known else ((), False)
    refuse_foreign(table, others, key.pipeline, owned=owned, there=oid is not None, adopt=how.adopt)
    added = own_fields(change)
    wanted = Schema((*change.schema, *(f for f in added if f.name not in change.schema)))
    _check_names(wanted.names)
    if oid is None:
        if known is not None and not (isinstance(change.write, Replace) or change.complete or change.fresh):
            raise ConfigError(
                f"table {table} is gone, but what it held counts as loaded", hint="load it anew with --full-refresh"
            )
        columns = tuple(Column(f.name, physical(f), f.type) for f in wanted)
        statements = _creating(connection, table, wanted)
    else:
        have = columns_of(connection, oid, known.schema if known else None)
        steps = (*change.changes, *widened(str(table), change, known, added))
        columns, statements = (
            _reshaped(table, have, wanted, known) if change.fresh else _altered(table, change, have, steps)
        )
        if not change.fresh:
            _refuse_shorter(connection, table, have, steps)
        if not change.fresh:
            refuse_unready(table, added, [c.name for c in columns])
        _check_same(table, columns, wanted, known)
    _check_width(table, columns)
    index = _index(connection, table, oid, change) if how.create_index else []
    return Shape(table, oid is not None, change.fresh, columns, (*statements, *index), wanted, added)


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise SchemaError("a table needs at least one column", hint="select some columns in the transform")
    for name in names:
        if name in _SYSTEM_COLUMNS or name.startswith("_headrace_"):
            what = "PostgreSQL has a column of that name in every table"
        elif not name or "\0" in name:
            what = "PostgreSQL has no such names"
        elif len(name.encode()) > NAME_BYTES:
            what = "PostgreSQL cuts names after 63 bytes"
        else:
            continue
        raise SchemaError(
            f"column {name!r}: {what}",
            hint='"rename" it in the source, or AS in the transform',
            details={"column": name},
        )


def _check_width(table: Table, columns: Sequence[Column]) -> None:
    if len(columns) > _WIDEST:
        raise SchemaError(
            f"table {table} would have {len(columns):,} columns, of at most {_WIDEST:,} that can be loaded",
            hint="select fewer in a transform, or nest some of them in a struct",
            details={"columns": len(columns), "most": _WIDEST},
        )


def _check_same(table: Table, columns: Sequence[Column], wanted: Schema, known: ledger.Owned | None) -> None:
    """The rows were made for a schema; the table must have it now."""
    have = {c.name: c for c in columns}
    for field in wanted:
        if (column := have.get(field.name)) is not None and (column.type == field.type or fits(field, column)):
            continue
        if column is not None and (known is None or _as_told(column, known.schema)):
            raise SchemaError(
                f"table {table}: column {field.name!r} is {column.held}, which does not hold every {field.type}",
                hint="cast it in a transform, or ALTER the table",
            )
        raise ConflictError(
            f"table {table}: column {field.name!r} is not what it was when the run began", hint="run again"
        )


def _as_told(column: Column, told: Schema) -> bool:
    """Whether the ledger knows the column so."""
    return any(f.name == column.name and physical(f) == column.held for f in told)


def _altered(
    table: Table, change: TableChange, have: tuple[Column, ...], steps: Sequence[SchemaChange]
) -> tuple[tuple[Column, ...], list[str]]:
    columns, statements = {c.name: c for c in have}, []
    for step in steps:
        match step:
            case CreateTable():
                raise ConflictError(f"table {table} has appeared since the run began", hint="run again")
            case AddColumn(field):
                if (there := columns.get(field.name)) is not None and there.own:
                    columns[field.name] = replace(
                        there, filled=False
                    )  # the rows bring what the server would have given
                    continue
                columns[field.name] = Column(field.name, physical(field), field.type)
                add = f"ADD COLUMN {quoted(field.name)} {physical(field)}"
                statements.append(f"ALTER TABLE {table.sql} {add}")
                if isinstance(change.write, History):
                    statements.append(f"ALTER TABLE IF EXISTS {past(table)} {add}")
            case WidenColumn(name, _, new, origin):
                held = columns[name].held
                wider = _wider(held, Field(name, new, origin))
                columns[name] = replace(columns[name], held=wider, type=new)
                if wider != held:
                    statements += _retyping(table, change, name, wider)
    return tuple(columns.values()), statements


def _refuse_shorter(
    connection: Connection, table: Table, have: Sequence[Column], steps: Sequence[SchemaChange]
) -> None:
    """Refuse that a float32 in JSON becomes a float64 where that would be another number: it is not spelled as
    `exact.lasting` does, since an earlier headrace or somebody else wrote it. Raises SchemaError.
    """
    grown = {step.name: step.new for step in steps if isinstance(step, WidenColumn)}
    columns = [c for c in have if c.name in grown and c.held == "json" and doubled(c.type) != c.type]
    texts = [replace(c, type=Type("string")) for c in columns]
    names = ", ".join(quoted(c.name) for c in columns)
    other = set()
    for place in (table.sql, past(table)) if columns else ():
        ((there,),) = run(connection, "SELECT to_regclass($1) IS NOT NULL", [place])
        for rows in batches(connection, f"SELECT {names} FROM {place}", texts) if there else ():
            for name, old in ((c.name, c.type) for c in columns):
                was, now = (rows.select(from_text(pl.col(name), t)).to_series() for t in (old, grown[name]))
                if not was.cast(now.dtype).equals(now, null_equal=True):
                    other.add(name)
    if other:
        raise SchemaError(
            f"table {table}: column {min(other)!r} holds a float32 in JSON that would be another number as a float64",
            hint="cast the rows to float32 in a transform, or load the table anew with --full-refresh",
            details={"column": min(other)},
        )


def _retyping(table: Table, change: TableChange, name: str, held: str) -> list[str]:
    alter = f"ALTER COLUMN {quoted(name)} TYPE {held} USING {quoted(name)}::{held}"
    found = [f"ALTER TABLE {table.sql} {alter}"]
    if isinstance(change.write, History) and name != change.write.valid_to:
        found.append(f"ALTER TABLE IF EXISTS {past(table)} {alter}")
    return found


def _wider(held: str, new: Field) -> str:
    """The type that holds what `held` does and the rows too. Of two origins of one base it is the base without its
    limits (numeric(10,2) and numeric(30,5): numeric), of others text.
    """
    if new.origin is None:
        return physical(new)
    other = physical(new)
    base, other_base = (re.sub(r"\([\d,-]*\)", "", t) for t in (held, other))
    if base == other_base:
        plain, array, _ = base.partition("[]")
        return _UNLIMITED.get(plain, plain) + array
    return other if natural(held).name not in ("string", "json") and natural(other).name != "string" else "text"


def _reshaped(
    table: Table, have: tuple[Column, ...], wanted: Schema, known: ledger.Owned | None
) -> tuple[tuple[Column, ...], list[str]]:
    """The table as it is made anew: what it held goes first, and so do columns that only rows brought."""
    told = set(known.schema.names if known else ())
    columns, statements = {c.name: c for c in have}, [f"DROP TABLE IF EXISTS {past(table)}"]
    for column in have:
        if column.name not in wanted and column.name in told and not column.generated:
            del columns[column.name]
            statements.append(f"ALTER TABLE {table.sql} DROP COLUMN {quoted(column.name)}")
    for field in wanted:
        there = columns.get(field.name)
        if there is None:
            statements.append(f"ALTER TABLE {table.sql} ADD COLUMN {quoted(field.name)} {physical(field)}")
        elif there.generated or (field.name not in told and fits(field, there)):
            continue
        elif there.held != physical(field):
            held = physical(field)
            statements.append(
                f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(field.name)} TYPE {held} USING NULL::{held}"
            )
        columns[field.name] = Column(field.name, physical(field), field.type)
    return tuple(columns.values()), statements


def _creating(connection: Connection, table: Table, schema: Schema) -> list[str]:
    _check_origins(connection, schema)
    columns = ", ".join(f"{quoted(f.name)} {physical(f)}" for f in schema)
    made = [f"CREATE TABLE {table.sql} ({columns})"]
    there = run(connection, "SELECT 1 FROM pg_namespace WHERE nspname = $1", [table.schema])
    return made if there else [f"CREATE SCHEMA {quoted(table.schema)}", *made]


def _check_origins(connection: Connection, schema: Schema) -> None:
    """Raises ConfigError for a column whose own type this database does not have."""
    for field in schema:
        if (field.origin or "").partition(" ")[0] == SYSTEM and not exists(connection, physical(field)):
            raise ConfigError(
                f"column {field.name!r} has the type {physical(field)}, which this database does not have",
                hint="make the type here (CREATE TYPE, CREATE DOMAIN, CREATE EXTENSION),"
                " or cast the column in a transform",
                details={"column": field.name, "type": physical(field)},
            )


def exists(connection: Connection, held: str) -> bool:
    """Whether the database knows a type by this text, which must be a type's name and nothing else."""
    try:
        ((oid,),) = run(connection, "SELECT to_regtype($1)::oid::bigint", [held])
    except psycopg.errors.SyntaxError:
        return False
    return oid is not None


def _index(connection: Connection, table: Table, oid: int | None, change: TableChange) -> list[str]:
    keys = keys_of(change)
    if not keys or (oid is not None and unique_on(connection, oid, keys)):
        return []
    return [f"CREATE UNIQUE INDEX ON {table.sql} ({', '.join(map(quoted, keys))})"]

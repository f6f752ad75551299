"""What the catalog says of a table, view or query: its columns, its keys, how large it is, what orders it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headrace.errors import ConfigError, UnavailableError, did_you_mean
from headrace.frozen import frozen
from headrace.sqltext import quoted
from headrace.systems.postgres.names import named
from headrace.systems.postgres.types import PgType, described

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.pq.abc import PGresult

    from headrace.systems.postgres.session import Session

__all__ = ["Column", "Relation", "near", "queried", "refuse_rewritten", "relation", "renamed", "resulting"]

_KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}
_NAMED_MAX = 20

_FIND = """
WITH RECURSIVE family AS (
  SELECT c.oid, true AS top FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.relname = %s AND n.nspname = %s AND c.relkind = ANY (%s)
  UNION SELECT i.inhrelid, false FROM pg_catalog.pg_inherits AS i JOIN family AS f ON f.oid = i.inhparent
)
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpages, pg_catalog.current_setting('block_size')::int8,
  c.reltuples::int8,
  c.relkind <> 'p' AND EXISTS (SELECT FROM family AS f WHERE NOT f.top) AS heirs,
  EXISTS (SELECT FROM family AS f JOIN pg_catalog.pg_class AS m USING (oid) WHERE m.relkind = 'f') AS remote,
  EXISTS (SELECT FROM pg_catalog.pg_subscription_rel AS s WHERE s.srrelid IN (
    SELECT f.oid FROM family AS f UNION ALL SELECT pg_catalog.pg_partition_ancestors(c.oid))) AS replicated
FROM family AS top JOIN pg_catalog.pg_class AS c USING (oid) JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE top.top
"""
_COLUMNS = """
SELECT a.attname, a.atttypid, a.atttypmod,
  a.attnotnull AND %s AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS n
    WHERE n.conrelid = a.attrelid AND n.contype = 'n' AND a.attnum = ANY (n.conkey) AND NOT n.convalidated),
  COALESCE(c.collisdeterministic, false)
FROM pg_catalog.pg_attribute AS a LEFT JOIN pg_catalog.pg_collation AS c ON c.oid = a.attcollation
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
"""NOT NULL is a promise only where the server has looked at every row: not NOT VALID, not of another table's rows."""
_REWRITTEN = """
SELECT CAST(CAST(l.relation AS pg_catalog.regclass) AS text)
FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation'
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
  AND (c.oid IS NULL OR c.relkind IN ('r', 'm') AND c.relfilenode <> 0
    AND c.relfilenode <> pg_catalog.pg_relation_filenode(c.oid))
ORDER BY 1 LIMIT 1
"""
"""The catalog is read as of the snapshot, locks and a relation's file as of now."""
_INDEXES = """
SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (num, at)
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.num
    WHERE k.at <= i.indnkeyatts ORDER BY k.at),
  i.indisprimary
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
WHERE i.indrelid = %s AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'
"""


@frozen
class Column:
    """A column as the server has it: `required` says that it has no NULL, `bytewise` that its texts are equal only
    where their bytes are.
    """

    name: str
    type: PgType
    required: bool = False
    bytewise: bool = False


@frozen
class Relation:
    """What is read. `sql` stands after FROM; `name` is for people; `kind` a word for it (``table``, ``view``, ``query``
    …); `indexes` are the columns of its ordered indexes; `pages`, `bytes` and `rows` the planner's estimates (None:
    none); `place` the table's schema and name. `remote`: some of its rows are a foreign server's;
    `replicated`: a subscription brings some from another.
    """

    sql: str
    name: str
    kind: str
    columns: tuple[Column, ...]
    oid: int | None = None
    keys: tuple[str, ...] = ()
    indexes: tuple[tuple[str, ...], ...] = ()
    pages: int | None = None
    bytes: int | None = None
    rows: int | None = None
    place: tuple[str, str] = ("", "")
    remote: bool = False
    replicated: bool = False

    def __getitem__(self, name: str) -> Column:
        """The column. Raises ConfigError that names the one that was meant."""
        for column in self.columns:
            if column.name == name:
                return column
        names = [c.name for c in self.columns]
        hint = did_you_mean(name, names, otherwise=f"it has: {', '.join(names[:_NAMED_MAX])}")
        raise ConfigError(f"{self.name} has no column {name!r}", hint=hint)

    @property
    def stored(self) -> bool:
        """Whether its rows are PostgreSQL's own, with a transaction and a place each."""
        return self.kind in ("table", "partitioned table") and not self.remote

    def ordered(self, columns: Sequence[str]) -> bool:
        """Whether an index begins with these columns."""
        return any(index[: len(columns)] == tuple(columns) for index in self.indexes)


def relation(connection: Connection, table: str) -> Relation:
    """The table, view or foreign table of this name. Raises ConfigError that names the one that was meant."""
    schema, name = named(table)
    row = connection.execute(_FIND, [name, schema, list(_KINDS)]).fetchone()
    if row is None:
        raise ConfigError(f"there is no table {schema}.{name}", hint=near(connection, f"{schema}.{name}"))
    oid, schema, name, kind, pages, size, rows, heirs, remote, replicated = row
    columns = connection.execute(_COLUMNS, [not (heirs or remote), oid]).fetchall()
    types = described(connection, [(c[1], c[2]) for c in columns])
    indexes = connection.execute(_INDEXES, [oid]).fetchall()
    return Relation(
        sql=quoted(schema, name),
        name=f"{schema}.{name}",
        kind=_KINDS[kind],
        columns=tuple(Column(c[0], t, c[3], c[4]) for c, t in zip(columns, types, strict=True)),
        oid=oid,
        keys=next((tuple(i[0]) for i in indexes if i[1]), ()),
        indexes=tuple(tuple(i[0]) for i in indexes),
        pages=pages if kind in "rm" and rows >= 0 else None,
        bytes=pages * size if kind in "rm" and rows >= 0 else None,
        rows=rows if rows >= 0 else None,
        place=(schema, name),
        remote=remote,
        replicated=replicated,
    )


def queried(session: Session, query: str) -> Relation:
    """A query's result. Raises what the server says of it."""
    inner = f"({query.strip().rstrip(';')}\n) AS q"
    session.set_path(session.theirs)
    result = session.keeper.execute(f"SELECT * FROM {inner} LIMIT 0".encode()).pgresult
    session.set_path("pg_catalog")  # type names are printed with nothing else in the path
    assert result is not None  # noqa: S101  # a SELECT has one
    columns = resulting(session.keeper, result)
    return Relation(sql=inner, name="the query", kind="query", columns=columns)


def refuse_rewritten(connection: Connection) -> None:
    """Of all tables that the transaction has named so far (in a query, under a view), and so has locked: none may have
    been truncated, rewritten or made since its snapshot was taken, which would see it empty. Raises UnavailableError.
    """
    for (table,) in connection.execute(_REWRITTEN).fetchall():
        raise UnavailableError(
            f"{table} was truncated, rewritten or made after the snapshot was taken, which cannot see its rows",
            hint="run again",
        )


def resulting(connection: Connection, result: PGresult) -> tuple[Column, ...]:
    """The columns of a query's result. Raises ConfigError for two of one name."""
    names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise ConfigError(f"the query has two columns {twice!r}", hint="give each a name of its own: … AS name")
    types = described(connection, [(result.ftype(i), result.fmod(i)) for i in range(result.nfields)])
    return tuple(Column(n, t) for n, t in zip(names, types, strict=True))


def renamed(found: Relation, rename: Mapping[str, str]) -> dict[str, str]:
    """By column, its new name. Raises ConfigError for one that is not there, or two of one name."""
    for name in rename:
        found[name]
    new = {c.name: rename.get(c.name, c.name) for c in found.columns}
    if twice := next((n for n in new.values() if list(new.values()).count(n) > 1), None):
        raise ConfigError(f"two columns would be called {twice!r}", hint="give each a name of its own in rename")
    return new


def near(connection: Connection, name: str) -> str:
    """A hint about a table that is not there."""
    rows = connection.execute(
        "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind = ANY (%s)"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1 LIMIT 10000",
        [list(_KINDS)],
    ).fetchall()
    names = [str(found) for (found,) in rows]
    listed = f"there are: {', '.join(names[:_NAMED_MAX])}" if names else "there are none that this role can see"
    return did_you_mean(name, names, otherwise=listed)

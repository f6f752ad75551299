"""Many tables of one database: which ones a name or a pattern means, and the batches of several from one snapshot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from headrace.errors import ConfigError
from headrace.systems.postgres.catalog import relation
from headrace.systems.postgres.connection import Dsn, connected
from headrace.systems.postgres.names import dotted
from headrace.systems.postgres.session import opened
from headrace.systems.postgres.source import read

if TYPE_CHECKING:
    from headrace.flow import Batch, Range, Snapshot
    from headrace.systems.postgres import PostgresSource

__all__ = ["matching", "together"]

_ALL = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', '_headrace') AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY 1, 2
"""


def matching(dsn: Dsn, pattern: str) -> Sequence[str]:
    """The tables, views and foreign tables that a pattern (``public.ref_*``) or a name means, as ``schema.name``; their
    partitions and what is the system's own are not among them. Raises ConfigError where there is none.
    """
    with connected(dsn, name="tables") as connection:
        if not re.search(r"[*?\[]", pattern):
            return [dotted(*relation(connection, pattern).place)]
        rows = connection.execute(_ALL).fetchall()
    wanted = pattern if "." in pattern else f"public.{pattern}"
    if found := [dotted(schema, name) for schema, name in rows if fnmatchcase(f"{schema}.{name}", wanted)]:
        return found
    schemas = sorted({schema for schema, _ in rows})
    raise ConfigError(
        f"no table matches {pattern!r}",
        hint=f"there are tables in {', '.join(schemas)}" if schemas else "there are none that this role can see",
    )


def together(
    dsn: Dsn, sources: Mapping[str, PostgresSource], ranges: Mapping[str, Range], snapshots: Mapping[str, Snapshot]
) -> Iterator[Mapping[str, Batch]]:
    """The batches of several tables, once, all of one snapshot; it is open for as long as the iterator is."""
    reader = next((r.reader for r in ranges.values()), "")
    with opened(dsn, name="tables", tables=list(sources), reader=reader) as session, ExitStack() as stack:
        batches = {}
        for name, source in sources.items():
            reading = read(session, source, ranges[name], snapshots[name], name)
            stack.callback(reading.close)
            batches[name] = next(reading)
        if any(source.where is not None for source in sources.values()):
            session.set_path(session.theirs)  # for what a user wrote; all else names its schema
        yield batches

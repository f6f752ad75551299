"""What a source reads of a relation: which columns, under which names, and frames over some of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import ConfigError
from headrace.flow import Frame
from headrace.frozen import frozen
from headrace.schema import Schema
from headrace.sqltext import quoted
from headrace.stream import asked, scan_generator
from headrace.systems.postgres.catalog import Column, Relation, queried, refuse_rewritten, relation, renamed
from headrace.systems.postgres.copying import copied
from headrace.systems.postgres.parallel import LARGE_BYTES, connections, drawn_together, page_ranges
from headrace.systems.postgres.pushdown import condition
from headrace.systems.postgres.types import TEXT, PgType

if TYPE_CHECKING:
    from headrace.systems.postgres import PostgresSource
    from headrace.systems.postgres.session import Session

__all__ = ["Selection", "Sight", "bound"]

_TID_RANGES = 140000  # the server's version that reads a range of pages without the others
_MARK = "_headrace_mark"
_MARK_TYPE = PgType("text", "text", TEXT, partial=False)


@frozen
class Selection:
    """Columns of a relation. `columns` have the names that the source gives them, `names` says what the server calls
    each; `where` is SQL that all rows satisfy.
    """

    session: Session
    source: str
    relation: Relation
    columns: tuple[Column, ...]
    names: Mapping[str, str]
    where: str | None = None

    @property
    def schema(self) -> Schema:
        """The columns, in their logical types."""
        return Schema.of({c.name: c.type.held for c in self.columns})

    @property
    def origins(self) -> dict[str, str]:
        """As `Frame.origins`."""
        return {c.name: c.type.origin for c in self.columns}

    @property
    def keys(self) -> tuple[str, ...]:
        """The primary key, by the source's names; none where not all of it is selected."""
        new = {server: name for name, server in self.names.items()}
        keys = self.relation.keys
        return tuple(new[k] for k in keys) if all(k in new for k in keys) else ()

    def column(self, name: str) -> Column:
        """A column by the server's name, whether it is selected or not."""
        return self.relation[name]

    def rows(self, *conditions: str | None) -> str:
        """FROM and WHERE of the rows that satisfy these too."""
        found = [c for c in (self.where, *conditions) if c]
        where = " AND ".join(f"({c}\n)" for c in found)  # a user's words may end with a comment
        return f"FROM {self.relation.sql}" + (f" WHERE {where}" if found else "")

    def sql(self, name: str) -> str:
        """A column of the selection as the server calls it."""
        return quoted(self.names[name])

    def frame(self, sight: Sight, *conditions: str | None) -> Frame:
        """The rows that satisfy the conditions, as a source tells them."""
        return Frame(lazy=self.scan(sight, *conditions), origins=self.origins)

    def facts(self) -> dict[str, Any]:
        """What `plan` says of it."""
        some = [c.name for c in self.columns if c.type.partial]
        maybe = {"maybe_as_text": some} if some else {}
        how: dict[str, Any] = {"connections": self.connections}
        if self.session.exported is None:
            how["snapshot"] = "not shared by this server: one connection reads"
        if self.relation.remote:
            how["rows"] = "those that the foreign server shows: row-level security there hides others without a word"
        return {"kind": self.relation.kind, "about_rows": self.relation.rows, **how, **maybe}

    def scan(self, sight: Sight, *conditions: str | None) -> pl.LazyFrame:
        """The rows that satisfy the conditions, lazily: columns, and what is the same to the server of a predicate and
        a limit, become part of the query. `sight` hears of every pass.
        """

        def generate(
            wanted: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _size: int | None
        ) -> Iterator[pl.DataFrame]:
            yield from self.read(sight, conditions, wanted, predicate, n_rows)

        return scan_generator(generate, self.schema.polars())

    def read(
        self,
        sight: Sight,
        conditions: tuple[str | None, ...],
        wanted: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
    ) -> Iterator[pl.DataFrame]:
        """One pass over the rows that satisfy the conditions: see `scan`."""
        needed = {c.name for c in self.columns} if wanted is None else set(wanted)
        pushed = condition(predicate, {c.name: c for c in self.columns}, self.names)
        rest = None if pushed.whole else predicate
        needed |= set() if rest is None else set(rest.meta.root_names())
        picked = [c for c in self.columns if c.name in needed] or list(self.columns[:1])
        limit = n_rows if rest is None else None
        yield from asked(self._pass(sight, picked, (*conditions, pushed.sql), limit), wanted, rest, n_rows)

    def _pass(
        self, sight: Sight, picked: list[Column], conditions: tuple[str | None, ...], limit: int | None
    ) -> Iterator[pl.DataFrame]:
        """The rows, those left out that were read before."""
        columns = picked
        chosen = ", ".join(self.sql(c.name) for c in picked)
        if sight.mark is not None:
            columns, chosen = [*picked, Column(_MARK, _MARK_TYPE)], f"{chosen}, {sight.mark}"
        known, count = Counter(sight.known), 0
        tail = f" LIMIT {limit + sum(known.values())}" if limit is not None else ""
        many = self.connections if sight.split and limit is None and sight.mark is None else 1
        parts = [None] if many == 1 else page_ranges(self.relation.pages or 0, many)

        def drawing(part: str | None) -> Generator[pl.DataFrame]:
            with self.session.worker() as connection:
                query = f"SELECT {chosen} {self.rows(*conditions, part)}{tail}"
                yield from copied(connection, query, columns, self.source)

        passes = [partial(drawing, part) for part in parts]
        for batch in passes[0]() if len(passes) == 1 else drawn_together(passes):
            rows = batch if sight.mark is None else _without(batch, known)
            count += rows.height
            yield rows
        sight.passed(count)

    @property
    def connections(self) -> int:
        """How many connections read all of it at once: several where the table is large and the snapshot is shared."""
        large = self.relation.kind == "table" and not self.relation.remote and (self.relation.bytes or 0) >= LARGE_BYTES
        ranged = self.session.keeper.info.server_version >= _TID_RANGES
        return connections() if large and ranged and self.session.exported is not None else 1


@dataclass
class Sight:
    """What the passes over a frame have seen. `rows` are those of the fullest pass that came to its end (None: none).

    `mark` is SQL that gives some rows a text (others NULL), and `known` how often each text was read before: such rows
    are left out. `split` says that all of a table is read: its pages may be shared among several connections.
    """

    split: bool = False
    mark: str | None = None
    known: Mapping[str, int] = field(default_factory=dict)
    rows: int | None = None
    _lock: Lock = field(default_factory=Lock)

    def passed(self, rows: int) -> None:
        """A pass has come to its end."""
        with self._lock:
            self.rows = rows if self.rows is None else max(self.rows, rows)


def _without(batch: pl.DataFrame, known: Counter[str]) -> pl.DataFrame:
    marks = batch[_MARK]
    rows = batch.drop(_MARK)
    if marks.null_count() == marks.len():
        return rows
    keep = []
    for mark in marks.to_list():
        seen = mark is not None and known[mark] > 0
        if seen:
            known[mark] -= 1
        keep.append(not seen)
    return rows.filter(pl.Series(keep, dtype=pl.Boolean))


def bound(session: Session, source: PostgresSource, name: str, as_text: frozenset[str]) -> Selection:
    """The source as the catalog has it now. `as_text` are columns (by their new names) to be read as text.

    Raises ConfigError; UnavailableError where a table of it was emptied or rewritten since the snapshot was taken.
    """
    found = _found(session, source)
    new = renamed(found, source.rename)
    chosen = [found[c] for c in source.columns] if source.columns else list(found.columns)
    if not chosen:
        raise ConfigError(f"{found.name} has no columns", hint="read another table")
    texts = {n for n, type in source.types.items() if found[n] and type == "string"}
    if source.query is None:  # a query was bound already; rights, a policy on rows and what is wrong with where show
        picked = ", ".join(quoted(c.name) for c in chosen)
        where = f" WHERE ({source.where}\n)" if source.where else ""
        session.keeper.execute(f"SELECT {picked} FROM {found.sql}{where} LIMIT 0".encode())
    refuse_rewritten(session.keeper)
    columns = tuple(
        replace(c, name=new[c.name], type=c.type.as_text() if c.name in texts or new[c.name] in as_text else c.type)
        for c in chosen
    )
    return Selection(session, name, found, columns, {new[c.name]: c.name for c in chosen}, source.where)


def _found(session: Session, source: PostgresSource) -> Relation:
    table = source.table
    if session.path != "pg_catalog":  # another table's; type names are printed with nothing else in the path
        session.set_path("pg_catalog")
    if table is None and source.query is None:
        raise ConfigError(
            "postgres source: which table?", hint='give "table" or "query" in the source, or "tables" in the pipeline'
        )
    found = relation(session.keeper, table) if table is not None else queried(session, str(source.query))
    if source.table is None or source.where is not None:
        session.set_path(session.theirs)
    return found

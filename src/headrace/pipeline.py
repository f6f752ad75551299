"""A pipeline: all its parts, named. Frozen data; nothing on it acts. A JSON key IS a field here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace.errors import ConfigError
from headrace.frozen import frozen
from headrace.schema import SchemaPolicy
from headrace.traits import DestinationTraits, SourceTraits
from headrace.writes import Append, Write

if TYPE_CHECKING:
    from types import EllipsisType

    import polars as pl

    from headrace.contract import Contract
    from headrace.cursor import Cursor, Deletes
    from headrace.protocols import Destination, Source

__all__ = ["Pipeline", "PythonStep", "SQLStep", "Step", "Table", "python", "sql"]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@frozen(kw_only=True)
class SQLStep:
    """One SELECT in DuckDB's dialect over the frames by name. Exactly one of `sql` and `sql_file` is given.

    The result is bound as `as_` (JSON key ``as``) and as ``previous``. ``$name`` is a parameter.
    """

    sql: str | None = None
    sql_file: str | None = None
    as_: str | None = field(default=None, metadata={"key": "as"})


@frozen(kw_only=True)
class PythonStep:
    """A function of lazy frames: the function itself, or ``file.py:name`` (or ``module:name``) in JSON.

    Parameter names choose frames; a single parameter of another name gets the previous result; keyword-only
    parameters are params. `rows` says that the function looks at each row alone (no aggregate, window,
    distinct or join), where Polars' plan of it does not prove that: else a load of what is new warns, and cannot be
    cut into commits.
    """

    python: str | Callable[..., pl.LazyFrame]
    as_: str | None = field(default=None, metadata={"key": "as"})
    rows: bool = False


Step = SQLStep | PythonStep


def sql(text: str, *, as_: str | None = None) -> SQLStep:
    """An SQL transform from its text."""
    return SQLStep(sql=text, as_=as_)


def python(function: str | Callable[..., pl.LazyFrame], *, as_: str | None = None, rows: bool = False) -> PythonStep:
    """A Python transform; the bare function does too, where no name is needed."""
    return PythonStep(python=function, as_=as_, rows=rows)


@frozen(kw_only=True)
class Table:
    """One of the tables of a pipeline of many: how it is read and written. What is left out (in Python ``...``) is as
    the pipeline's `defaults` say; in them, as the source and the pipeline do.

    `cursor`, `read`, `deletes`, `columns`, `where`, `types`, `rename` and `contract` are the source's, `write` is the
    pipeline's. `table` is the target's name (default: the table's own, without its schema).
    """

    table: str | None = None
    cursor: str | tuple[str, ...] | Cursor | EllipsisType | None = ...
    read: Literal["new", "all"] | EllipsisType = ...
    deletes: Deletes | EllipsisType | None = ...
    columns: tuple[str, ...] | EllipsisType = ...
    where: str | EllipsisType | None = ...
    types: Mapping[str, str] | EllipsisType = ...
    rename: Mapping[str, str] | EllipsisType = ...
    contract: Contract | EllipsisType | None = ...
    write: Write | EllipsisType = ...

    @property
    def given(self) -> dict[str, Any]:
        """What it says, by field; `table` is not among it."""
        return {name: value for name, value in vars(self).items() if value is not ... and name != "table"}


@frozen(kw_only=True)
class Pipeline:
    """Sources, transforms, contract, destination and write, under a name that the ledger keeps.

    Give `source`, or `sources` by name. Of a source that has many tables, `tables` are those that are loaded, by name
    or by pattern (``public.ref_*``), all from one snapshot and in one commit; `defaults` are what they have in common;
    the destination then has a schema and no table. `params` reach transforms as keywords and as ``$name``.
    `independent` says that every increment stands alone: several incremental sources do not meet (a union), and what a
    step computes over several rows is meant to be of the new ones only. `after` names pipelines that
    must have run before in a project. `was` names the source (of many tables: the table) that is another one now
    (another path, table or query) and is to be read on from where it was; a pipeline's own name, and a source's, stay
    as they are: the ledger goes by them. `commit_every` (bytes of source, e.g. ``"5GB"``) cuts a long load into
    commits, where the source can be cut (between files that are each read once, along a cursor of PostgreSQL); `plan`
    says where it cannot. `base` is the folder that relative paths are relative to.
    """

    name: str
    destination: Destination
    source: Source | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    defaults: Table | None = None
    transforms: tuple[Step | Callable[..., pl.LazyFrame], ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    contract: Contract | None = None
    write: Write = field(default_factory=Append)
    on_schema_change: SchemaPolicy = field(default_factory=SchemaPolicy)
    independent: bool = False
    after: tuple[str, ...] = ()
    was: str | None = None
    commit_every: str | int | None = None
    base: Path | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"pipeline name {self.name!r} cannot be used",
                hint="use letters, digits, _ . - and begin with a letter or _",
            )
        if (self.source is None) == (not self.sources):
            raise ConfigError(
                f"pipeline {self.name!r}: give either source or sources",
                hint='one: "source": {…}; several: "sources": {"orders": {…}, …}',
            )
        if not isinstance(self.write, Write):
            raise ConfigError(
                f"pipeline {self.name!r}: its write is no write", hint='write=hr.Merge(keys=("id",)), or hr.Append()'
            )
        if callable(self.transforms) or isinstance(self.transforms, str | SQLStep | PythonStep):
            raise ConfigError(
                f"pipeline {self.name!r}: transforms are several steps, and these are one", hint="transforms=[step]"
            )
        if "previous" in self.sources:
            raise ConfigError("a source cannot be called 'previous'", hint="it names the last step's result")
        self._check_tables()

    def _check_tables(self) -> None:
        schema = DestinationTraits.of(self.destination).schema
        if not self.tables and schema is not None:
            raise ConfigError(
                f"pipeline {self.name!r}: its destination has a schema for many tables, and it loads one",
                hint=f'say "table": "{schema}.{self.name}" in the destination, or give the pipeline "tables"',
            )
        if self.tables and schema is None:
            raise ConfigError(
                f"pipeline {self.name!r} has many tables, and its destination has no schema for them",
                hint='say "schema" in place of "table", in a destination that is a database',
            )
        if not self.tables:
            if self.defaults is not None:
                raise ConfigError(f"pipeline {self.name!r} has defaults and no tables", hint='e.g. "tables": {"*": {}}')
            return
        if self.source is None or SourceTraits.of(self.source).together is None:
            raise ConfigError(f"pipeline {self.name!r}: its source has no tables", hint="give a source of a database")
        if self.transforms or self.contract is not None or self.commit_every:
            raise ConfigError(
                f"pipeline {self.name!r}: transforms, contract and commit_every are of one table, and it has many",
                hint='a table\'s contract stands in "tables"; what must be transformed has a pipeline of its own',
            )

    @property
    def named_sources(self) -> Mapping[str, Source]:
        """The sources by name; a single one is called ``source``."""
        return self.sources or {"source": self.source}  # type: ignore[dict-item]  # __post_init__ saw to it

    @property
    def contracts(self) -> Mapping[str | None, Contract]:
        """The contracts there are: each source's by its name, the result's under None."""
        found: dict[str | None, Contract | None] = {None: self.contract}
        found |= {name: SourceTraits.of(source).contract for name, source in self.named_sources.items()}
        return {name: contract for name, contract in found.items() if contract is not None}

    @property
    def steps(self) -> tuple[Step, ...]:
        """The transforms, bare functions wrapped."""
        return tuple(s if isinstance(s, SQLStep | PythonStep) else PythonStep(python=s) for s in self.transforms)

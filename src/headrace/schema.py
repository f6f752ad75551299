"""Schemas: the columns of rows and of tables, and what a table's schema becomes when rows of another one come.

The types are those of `headrace.logical`. This module imports nothing heavy until a Polars type is asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.errors import ConfigError, SchemaError, did_you_mean, meant
from headrace.frozen import frozen
from headrace.logical import Type, parse_type, widens

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "REJECTS",
    "AddColumn",
    "CreateTable",
    "Field",
    "Schema",
    "SchemaChange",
    "SchemaPolicy",
    "WidenColumn",
    "evolve",
    "in_words",
    "reject_id",
    "renamed",
]


@frozen
class Field:
    """One column: its name and its type. `origin` is the type that a source's system gave it, as that system writes it
    behind the system's name: ``postgres numeric(30,5)`` (None: nothing is known, or a transform may have changed it).
    """

    name: str
    type: Type
    origin: str | None = None


@frozen
class Schema:
    """Columns in order. As JSON: ``[{"name": …, "type": …}, …]``, with ``"origin"`` where there is one."""

    fields: tuple[Field, ...]

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(f.name for f in self.fields)

    @cached_property
    def _types(self) -> dict[str, Type]:
        return {f.name: f.type for f in self.fields}

    def __getitem__(self, name: str) -> Type:
        return self._types[name]

    def __contains__(self, name: object) -> bool:
        return name in self._types

    @property
    def origins(self) -> dict[str, str]:
        """The columns that have an origin, and which."""
        return {f.name: f.origin for f in self.fields if f.origin is not None}

    def with_origins(self, origins: Mapping[str, str]) -> Schema:
        """The same columns, with these origins and no others."""
        return Schema(tuple(replace(f, origin=origins.get(f.name)) for f in self.fields))

    def polars(self) -> pl.Schema:
        """The same columns as a Polars schema."""
        import polars as pl

        return pl.Schema({f.name: f.type.polars() for f in self.fields})

    @staticmethod
    def of(columns: Mapping[str, str | Type]) -> Schema:
        """From ``{"id": "int64"}``."""
        return Schema(tuple(Field(n, t if isinstance(t, Type) else parse_type(t)) for n, t in columns.items()))

    @staticmethod
    def of_polars(schema: Mapping[str, pl.DataType]) -> Schema:
        """From a Polars schema. Raises SchemaError that names a column which cannot be loaded."""
        return Schema(tuple(Field(n, _of_column(n, d)) for n, d in schema.items()))

    def to_json(self) -> list[dict[str, str]]:
        """For the ledger."""
        origins = self.origins
        return [
            {"name": f.name, "type": str(f.type)} | ({"origin": origins[f.name]} if f.name in origins else {})
            for f in self.fields
        ]

    @staticmethod
    def from_json(columns: Iterable[Mapping[str, str]]) -> Schema:
        """From the ledger."""
        return Schema(tuple(Field(c["name"], parse_type(c["type"]), c.get("origin")) for c in columns))


def _of_column(name: str, dtype: Any) -> Type:
    try:
        return Type.of_polars(dtype)
    except SchemaError as error:
        raise SchemaError(f"column {name!r}: {error.message}", hint=error.hint) from None


REJECTS = Schema.of(
    {
        "id": "string",
        "stage": "string",
        "source": "string",
        "file": "string",
        "line": "int64",
        "rules": "list(string)",
        "row": "string",
        "key": "string",
    }
)
"""A rejected row. `id` names it for ever (see `reject_id`). `stage` is ``parse`` (then `row` is the raw text),
``cursor`` (its cursor is NULL) or ``contract`` (of both `row` is a JSON object from column to exact text or null).
`source` is the source whose parser or contract rejected it, null for the result's contract. `rules` are the reasons,
for people. `key` is a JSON array of the exact texts of the write's keys, null where there are none."""


def reject_id(
    stage: str, source: str | None, file: str | None, line: int | None, row: str | Mapping[str, str | None]
) -> str:
    """The id of a rejected row: equal content at an equal place has an equal one. `row` is the raw text of one that
    could not be read, else its values as exact texts: in which order its columns were read, and which columns without
    a value it has since been read with, is no matter.
    """
    content = row if isinstance(row, str) else {name: row[name] for name in sorted(row) if row[name] is not None}
    written = json.dumps([stage, source, file, line, content], ensure_ascii=False)
    return blake2b(written.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def renamed(names: Sequence[str], rename: Mapping[str, str]) -> tuple[str, ...]:
    """A source's columns under their new names. Raises ConfigError for one that is not there, or two of one name."""
    if missing := [n for n in rename if n not in names]:
        raise ConfigError(
            f"there is no column {missing[0]!r} to rename",
            hint=did_you_mean(missing[0], names, otherwise=f"there are: {', '.join(names)}"),
        )
    now = tuple(rename.get(n, n) for n in names)
    if double := [n for n, count in Counter(now).items() if count > 1]:
        raise ConfigError(f"two columns would be called {double[0]!r}", hint="change rename, or the query's names")
    return now


@frozen(kw_only=True)
class SchemaPolicy:
    """What becomes of a table whose rows change shape.

    `add`: a column that the table does not have is added (``evolve``) or refused. `widen`: a type that grows
    (int32 to int64) is widened or refused. `missing`: a column that the rows no longer have is refused, or
    kept and left untouched (``keep``). A type that narrows or changes is always refused.
    """

    add: Literal["evolve", "refuse"] = "evolve"
    widen: Literal["evolve", "refuse"] = "evolve"
    missing: Literal["refuse", "keep"] = "refuse"


@frozen
class CreateTable:
    """The table does not exist yet."""

    schema: Schema
    kind: ClassVar[str] = "create"


@frozen
class AddColumn:
    """A column that the table does not have; its old rows get NULL."""

    field: Field
    kind: ClassVar[str] = "add"


@frozen
class WidenColumn:
    """A column whose type grows so that every old value stays exact.

    `origin` is the rows' origin, where the table's is another one. Then `old` and `new` may be the same, and a
    destination that makes columns of such types (see `evolve`) gives the column one that holds both.
    """

    name: str
    old: Type
    new: Type
    origin: str | None = None
    kind: ClassVar[str] = "widen"


SchemaChange = CreateTable | AddColumn | WidenColumn


def evolve(
    target: Schema | None,
    rows: Schema,
    policy: SchemaPolicy,
    *,
    native: str | None = None,
    takes: Callable[[Field, Field], bool] = lambda _held, _rows: False,
) -> tuple[Schema, tuple[SchemaChange, ...]]:
    """The table's schema after rows of schema `rows` are loaded, and the changes that lead there.

    A column whose rows have a narrower type than the table is no change: the values are cast, exactly. `native` is the
    system of whose types the destination's columns are: rows of the very origin that the column has fit it, whatever
    type carries them (a date that is infinite is carried as text). `takes(held, rows)`: the destination's column takes
    such rows exactly, though no logical type says so.
    Raises SchemaError for whatever the policy or exactness refuses.
    """
    if target is None:
        return rows, (CreateTable(rows),)
    changes: list[SchemaChange] = []
    fields = {f.name: f for f in target}
    for field in rows:
        if field.name not in fields:
            _allow(policy.add, f"column {field.name!r} is new", key="add")
            changes.append(AddColumn(field))
            fields[field.name] = field
        elif takes(fields[field.name], field):
            continue
        elif (change := _grown(fields[field.name], field, native)) is not None:
            what = f"column {field.name!r} grows from {_told(fields[field.name])} to {_told(field)}"
            _allow(policy.widen, what, key="widen")
            changes.append(change)
            fields[field.name] = field
        elif fields[field.name].origin != field.origin is not None:  # of two origins it is of neither
            fields[field.name] = replace(fields[field.name], origin=None)
    if policy.missing == "refuse" and (gone := [n for n in target.names if n not in rows]):
        near = meant(gone[0], (n for n in rows.names if n not in target))
        raise SchemaError(
            f"column {gone[0]!r} of the table is missing from the rows",
            hint=f'was it renamed? add "rename": {{"{near}": "{gone[0]}"}} to the source'
            if near
            else 'say "on_schema_change": {"missing": "keep"} to leave it untouched',
            details={"missing": gone},
        )
    return Schema(tuple(fields.values())), tuple(changes)


def _grown(held: Field, rows: Field, native: str | None) -> WidenColumn | None:
    """How a column must grow for these rows; None: it need not. Raises SchemaError where it cannot."""
    ours = native is not None and all(f.origin is not None and f.origin.startswith(f"{native} ") for f in (held, rows))
    if ours and held.origin == rows.origin:
        return None
    other = rows.origin if ours else None
    if held.type == rows.type and other is not None:
        return WidenColumn(held.name, held.type, rows.type, other)
    if widens(rows.type, held.type):
        return None
    if not widens(held.type, rows.type):
        raise SchemaError(
            f"column {held.name!r} is {_told(rows)}, the table holds {_told(held)}",
            hint="cast it in a transform, declare its type, or load the table anew (--full-refresh) or another one",
            details={"column": held.name, "rows": str(rows.type), "table": str(held.type)},
        )
    return WidenColumn(held.name, held.type, rows.type, other)


def _told(field: Field) -> str:
    return str(field.type) if field.origin is None else f"{field.type} ({field.origin})"


def _allow(policy: str, what: str, *, key: str) -> None:
    if policy == "refuse":
        raise SchemaError(what, hint=f'say "on_schema_change": {{"{key}": "evolve"}} to allow it')


def in_words(changes: Sequence[SchemaChange]) -> list[str]:
    """Schema changes for people, one line each."""
    words = []
    for change in changes:
        match change:
            case CreateTable():
                words.append("create the table")
            case AddColumn(field=field):
                words.append(f"add column {field.name} {field.type}")
            case WidenColumn(name=name, old=old, new=new, origin=origin):
                words.append(f"widen column {name} from {old} to {new if origin is None else origin}")
    return words

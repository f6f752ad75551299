"""Schemas: the columns of rows and of tables, and what a table's schema becomes when rows of another one come.

The types are those of `headrace.logical`. This module imports nothing heavy until a Polars type is asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.errors import SchemaError
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
    "Type",
    "WidenColumn",
    "evolve",
    "in_words",
    "parse_type",
    "widens",
]


@dataclass(frozen=True)
class Field:
    """One column: its name and its type."""

    name: str
    type: Type


@dataclass(frozen=True)
class Schema:
    """Columns in order. As JSON: ``[{"name": …, "type": …}, …]``."""

    fields: tuple[Field, ...]

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(f.name for f in self.fields)

    def __getitem__(self, name: str) -> Type:
        for field in self.fields:
            if field.name == name:
                return field.type
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(f.name == name for f in self.fields)

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
        return [{"name": f.name, "type": str(f.type)} for f in self.fields]

    @staticmethod
    def from_json(columns: Iterable[Mapping[str, str]]) -> Schema:
        """From the ledger."""
        return Schema(tuple(Field(c["name"], parse_type(c["type"])) for c in columns))


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
"""A rejected row. `id` names it for ever (equal content at an equal place: equal id). `stage` is ``parse`` (then
`row` is the raw text), ``cursor`` (its cursor is NULL) or ``contract`` (then `row` is a JSON object from column to
exact text, or null).
`source` is the source whose parser or contract rejected it, null for the result's contract. `rules` are the
reasons, for people. `key` is a JSON array of the merge keys' exact texts, null where there are none."""


@dataclass(frozen=True, kw_only=True)
class SchemaPolicy:
    """What becomes of a table whose rows change shape.

    `add`: a column that the table does not have is added (``evolve``) or refused. `widen`: a type that grows
    (int32 to int64) is widened or refused. `missing`: a column that the rows no longer have is refused, or
    kept and left untouched (``keep``). A type that narrows or changes is always refused.
    """

    add: Literal["evolve", "refuse"] = "evolve"
    widen: Literal["evolve", "refuse"] = "evolve"
    missing: Literal["refuse", "keep"] = "refuse"


@dataclass(frozen=True)
class CreateTable:
    """The table does not exist yet."""

    schema: Schema
    kind: ClassVar[str] = "create"


@dataclass(frozen=True)
class AddColumn:
    """A column that the table does not have; its old rows get NULL."""

    field: Field
    kind: ClassVar[str] = "add"


@dataclass(frozen=True)
class WidenColumn:
    """A column whose type grows so that every old value stays exact."""

    name: str
    old: Type
    new: Type
    kind: ClassVar[str] = "widen"


SchemaChange = CreateTable | AddColumn | WidenColumn


def evolve(target: Schema | None, rows: Schema, policy: SchemaPolicy) -> tuple[Schema, tuple[SchemaChange, ...]]:
    """The table's schema after rows of schema `rows` are loaded, and the changes that lead there.

    A column whose rows have a narrower type than the table is no change: the values are cast, exactly.
    Raises SchemaError for whatever the policy or exactness refuses.
    """
    if target is None:
        return rows, (CreateTable(rows),)
    changes: list[SchemaChange] = []
    fields = list(target.fields)
    for field in rows:
        if field.name not in target:
            _allow(policy.add, f"column {field.name!r} is new", key="add")
            changes.append(AddColumn(field))
            fields.append(field)
        elif not widens(field.type, old := target[field.name]):
            if not widens(old, field.type):
                raise SchemaError(
                    f"column {field.name!r} is {field.type}, the table holds {old}",
                    hint="cast it in a transform, declare its type, or load into a new table",
                    details={"column": field.name, "rows": str(field.type), "table": str(old)},
                )
            _allow(policy.widen, f"column {field.name!r} grows from {old} to {field.type}", key="widen")
            changes.append(WidenColumn(field.name, old, field.type))
            fields[target.names.index(field.name)] = field
    if policy.missing == "refuse" and (gone := [n for n in target.names if n not in rows]):
        near = difflib.get_close_matches(gone[0], [n for n in rows.names if n not in target], n=1)
        raise SchemaError(
            f"column {gone[0]!r} of the table is missing from the rows",
            hint=f'was it renamed? add "rename": {{"{near[0]}": "{gone[0]}"}} to the source'
            if near
            else 'say "on_schema_change": {"missing": "keep"} to leave it untouched',
            details={"missing": gone},
        )
    return Schema(tuple(fields)), tuple(changes)


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
            case WidenColumn(name=name, old=old, new=new):
                words.append(f"widen column {name} from {old} to {new}")
    return words

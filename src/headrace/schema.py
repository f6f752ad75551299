"""Logical types and schemas: what a column means, whatever engine holds it.

A type is written as Arrow and Polars name it, and that text IS the type, in JSON, in Python and in the ledger:
``int64``, ``decimal(12,2)``, ``datetime(us, UTC)``, ``list(string)``, ``struct(a: int64)``, ``enum(a, b)``,
``categorical``, ``json``, ``array(float32, 384)``. This module parses it, says which types widen into which,
and decides what a table's schema becomes. It imports nothing heavy until a Polars type is asked for.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.errors import ConfigError, SchemaError

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
    "parse_type",
    "widens",
]

_INTS = ("int8", "int16", "int32", "int64", "int128")
_UINTS = ("uint8", "uint16", "uint32", "uint64")
_FLOATS = ("float32", "float64")
_PLAIN = (*_INTS, *_UINTS, *_FLOATS, "bool", "string", "binary", "date", "json", "categorical", "null")
_UNITS = ("ms", "us", "ns")
_ALIASES = {"boolean": "bool", "str": "string", "utf8": "string", "float": "float64", "int": "int64"}


@dataclass(frozen=True)
class Type:
    """A parsed type. `name` is its kind; `args` what stands in the brackets, parsed.

    decimal: (precision, scale) · datetime: (unit, zone or None) · duration: (unit,) · list: (Type,) ·
    array: (Type, width) · struct: ((name, Type), …) · enum: (value, …) · the plain ones: ().
    """

    name: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        match self.name, self.args:
            case _, ():
                return self.name
            case "decimal", (precision, scale):
                return f"decimal({precision},{scale})"
            case "datetime", (unit, None):
                return f"datetime({unit})"
            case "struct", fields:
                return "struct(" + ", ".join(f"{_quote(n)}: {t}" for n, t in fields) + ")"
            case "enum", values:
                return "enum(" + ", ".join(_quote(v) for v in values) + ")"
            case name, args:
                return f"{name}(" + ", ".join(str(a) for a in args) + ")"

    def polars(self) -> pl.DataType:
        """The Polars type that holds this one exactly."""
        import polars as pl

        plain = {
            "int8": pl.Int8(), "int16": pl.Int16(), "int32": pl.Int32(), "int64": pl.Int64(), "int128": pl.Int128(),
            "uint8": pl.UInt8(), "uint16": pl.UInt16(), "uint32": pl.UInt32(), "uint64": pl.UInt64(),
            "float32": pl.Float32(), "float64": pl.Float64(), "bool": pl.Boolean(), "string": pl.String(),
            "binary": pl.Binary(), "date": pl.Date(), "time": pl.Time(), "json": pl.String(),
            "categorical": pl.Categorical(), "null": pl.Null(),
        }  # fmt: skip
        if self.name in plain:
            return plain[self.name]
        match self.name, self.args:
            case "decimal", (precision, scale):
                return pl.Decimal(precision, scale)
            case "datetime", (unit, zone):
                return pl.Datetime(unit, zone)
            case "duration", (unit,):
                return pl.Duration(unit)
            case "list", (inner,):
                return pl.List(inner.polars())
            case "array", (inner, width):
                return pl.Array(inner.polars(), width)
            case "struct", fields:
                return pl.Struct([pl.Field(n, t.polars()) for n, t in fields])
            case "enum", values:
                return pl.Enum(list(values))
        raise AssertionError(f"no Polars type for {self}")

    @staticmethod
    def of_polars(dtype: pl.DataType) -> Type:
        """The logical type of a Polars one.

        Raises SchemaError for Python objects and other types that no Arrow stream carries.
        """
        import polars as pl

        match dtype:
            case pl.Decimal():
                return Type("decimal", (dtype.precision or 38, dtype.scale))
            case pl.Datetime():
                return Type("datetime", (dtype.time_unit, dtype.time_zone))
            case pl.Duration():
                return Type("duration", (dtype.time_unit,))
            case pl.List():
                return Type("list", (Type.of_polars(_instance(dtype.inner)),))
            case pl.Array():
                return Type("array", (Type.of_polars(_instance(dtype.inner)), dtype.shape[0]))
            case pl.Struct():
                return Type("struct", tuple((f.name, Type.of_polars(_instance(f.dtype))) for f in dtype.fields))
            case pl.Enum():
                return Type("enum", tuple(dtype.categories))
            case pl.Categorical():
                return Type("categorical")
            case pl.Boolean():
                return Type("bool")
        name = str(dtype).lower()
        if name in _PLAIN or name == "time":
            return Type(name)
        raise SchemaError(f"type {dtype} cannot be loaded", hint="cast the column in a transform")


def _instance(dtype: Any) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype


def _quote(name: str) -> str:
    return name if name.isidentifier() else json.dumps(name, ensure_ascii=False)


def parse_type(text: str) -> Type:
    """The type that `text` names, e.g. ``list(struct(a: int64, b: datetime(us, UTC)))``.

    Raises ConfigError that says where it stops making sense, with a near miss where there is one.
    """
    parser = _TypeParser(text)
    found = parser.type()
    parser.end()
    return found


class _TypeParser:
    """Recursive descent over ``name[(args)]``."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def type(self) -> Type:
        name = self.word().lower()
        name = _ALIASES.get(name, name)
        match name:
            case "decimal":
                return self._decimal()
            case "datetime":
                return self._datetime()
            case "duration":
                return Type("duration", (self._units(default="us"),))
            case "time":
                return Type("time")
            case "list":
                return Type("list", tuple(self.bracketed(self.type, exactly=1)))
            case "array":
                self.expect("(")
                inner = self.type()
                self.expect(",")
                width = self.number()
                self.expect(")")
                return Type("array", (inner, width))
            case "struct":
                return Type("struct", tuple(self.bracketed(self._field)))
            case "enum":
                return Type("enum", tuple(self.bracketed(self.word)))
        if name in _PLAIN:
            return Type(name)
        known = (*_PLAIN, "decimal(12,2)", "datetime(us)", "duration(us)", "time", "list", "array", "struct", "enum")
        near = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"unknown type {self.text!r}",
            hint=f"did you mean {near[0]!r}?" if near else "types are written as Polars names them, e.g. int64",
        )

    def _decimal(self) -> Type:
        self.expect("(")
        precision = self.number()
        self.expect(",")
        scale = self.number()
        self.expect(")")
        if not (1 <= precision <= 38 and 0 <= scale <= precision):
            raise ConfigError(
                f"impossible type {self.text!r}", hint="decimal(p,s) takes 1 ≤ p ≤ 38 and 0 ≤ s ≤ p"
            )
        return Type("decimal", (precision, scale))

    def _datetime(self) -> Type:
        if self.peek() != "(":
            return Type("datetime", ("us", None))
        parts = list(self.bracketed(self.word))
        unit = parts[0] if parts else "us"
        if unit not in _UNITS or len(parts) > 2:
            raise ConfigError(f"impossible type {self.text!r}", hint="write datetime(us) or datetime(us, UTC)")
        return Type("datetime", (unit, parts[1] if len(parts) == 2 else None))

    def _units(self, *, default: str) -> str:
        if self.peek() != "(":
            return default
        (unit,) = self.bracketed(self.word, exactly=1)
        if unit not in _UNITS:
            raise ConfigError(f"impossible type {self.text!r}", hint="the unit is ms, us or ns")
        return unit

    def _field(self) -> tuple[str, Type]:
        name = self.word()
        self.expect(":")
        return name, self.type()

    def bracketed(self, item: Any, *, exactly: int = 0) -> Iterator[Any]:
        self.expect("(")
        count = 0
        while True:
            yield item()
            count += 1
            if self.peek() != ",":
                break
            self.at += 1
        self.expect(")")
        if exactly and count != exactly:
            self.fail()

    def word(self) -> str:
        self.space()
        if self.at < len(self.text) and self.text[self.at] == '"':
            try:
                value, self.at = json.decoder.scanstring(self.text, self.at + 1)
            except ValueError:
                self.fail()
            return value
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in '(),:"':
            self.at += 1
        if not (found := self.text[start : self.at].strip()):
            self.fail()
        return found

    def number(self) -> int:
        word = self.word()
        if not word.isdigit():
            self.fail()
        return int(word)

    def peek(self) -> str:
        self.space()
        return self.text[self.at : self.at + 1]

    def expect(self, char: str) -> None:
        if self.peek() != char:
            self.fail(f"expected {char!r}")
        self.at += 1

    def end(self) -> None:
        if self.peek():
            self.fail()

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def fail(self, why: str = "cannot read it") -> None:
        raise ConfigError(
            f"unknown type {self.text!r}: {why} at character {self.at + 1}",
            hint="write e.g. decimal(12,2), datetime(us, UTC), list(string), struct(a: int64)",
        )


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
        return next(f.type for f in self.fields if f.name == name)

    def __contains__(self, name: object) -> bool:
        return any(f.name == name for f in self.fields)

    def polars(self) -> pl.Schema:
        """The same columns as a Polars schema."""
        import polars as pl

        return pl.Schema({f.name: f.type.polars() for f in self.fields})

    @staticmethod
    def of(columns: Mapping[str, str | Type]) -> Schema:
        """From ``{"id": "int64"}``."""
        return Schema(
            tuple(Field(n, t if isinstance(t, Type) else parse_type(t)) for n, t in columns.items())
        )

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
`row` is the raw text) or ``contract`` (then `row` is a JSON object from column to exact text, or null).
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


def widens(old: Type, new: Type) -> bool:
    """Whether every value of `old` is, exactly and with the same meaning, a value of `new`."""
    if old == new:
        return True
    if old.name == "null":
        return True
    a, b = old.name, new.name
    if a in _INTS and b in _INTS:
        return _INTS.index(a) <= _INTS.index(b)
    if a in _UINTS and b in _UINTS:
        return _UINTS.index(a) <= _UINTS.index(b)
    if a in _UINTS and b in _INTS:
        return _UINTS.index(a) < _INTS.index(b)
    digits = {"int8": 3, "int16": 5, "int32": 10, "int64": 19, "uint8": 3, "uint16": 5, "uint32": 10, "uint64": 20}
    if b == "decimal" and a in digits:
        return bool(new.args[0] - new.args[1] >= digits[a])
    if a == b == "decimal":
        grows = new.args[1] >= old.args[1]
        return bool(grows and new.args[0] - new.args[1] >= old.args[0] - old.args[1])
    exact_in = {"float32": ("int8", "int16", "uint8", "uint16")}
    exact_in["float64"] = (*exact_in["float32"], "int32", "uint32", "float32")
    if b in exact_in and a in exact_in[b]:
        return True
    if a == b == "enum":
        return set(old.args) <= set(new.args)
    if a in ("enum", "categorical") and b in ("string", "categorical"):
        return True
    if a == b == "list":
        return widens(old.args[0], new.args[0])
    return False


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

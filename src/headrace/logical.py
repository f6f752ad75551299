"""Logical types: what a value means, whatever engine holds it.

A type is written as Arrow and Polars name it, and that text IS the type, in JSON, in Python and in the ledger:
``int64``, ``decimal(12,2)``, ``datetime(us, UTC)``, ``list(string)``, ``struct(a: int64)``, ``enum(a, b)``,
``categorical``, ``json``, ``array(float32, 384)``. This module parses it and says which types widen into which. It
imports nothing heavy until a Polars type is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headrace.errors import ConfigError, SchemaError, meant
from headrace.frozen import frozen

if TYPE_CHECKING:
    import polars as pl

__all__ = ["EXAMPLES", "FLOATS", "INTEGERS", "PER_SECOND", "Type", "check_type", "doubled", "parse_type", "widens"]

_INTS = ("int8", "int16", "int32", "int64", "int128")
_UINTS = ("uint8", "uint16", "uint32", "uint64")
FLOATS = ("float32", "float64")
INTEGERS = (*_INTS, *_UINTS)
PER_SECOND = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""The ticks of a second, by the unit of a datetime or a duration."""
_PLAIN = (*INTEGERS, *FLOATS, "bool", "string", "binary", "date", "json", "categorical", "null")
_DIGITS_MAX = 38
_DIGITS = {"int8": 3, "int16": 5, "int32": 10, "int64": 19, "uint8": 3, "uint16": 5, "uint32": 10, "uint64": 20}
_EXACT_IN = {
    "float32": ("int8", "int16", "uint8", "uint16"),
    "float64": ("int8", "int16", "uint8", "uint16", "int32", "uint32", "float32"),
}
_ALIASES = {"boolean": "bool", "str": "string", "utf8": "string", "float": "float64", "int": "int64"}

_MEANT = {
    "double": "float64", "real": "float32", "number": "decimal(12,2)", "numeric": "decimal(12,2)",
    "bigint": "int64", "integer": "int64", "long": "int64", "smallint": "int16", "tinyint": "int8", "hugeint": "int128",
    "text": "string", "varchar": "string", "char": "string", "uuid": "string", "object": "json", "dict": "json",
    "timestamp": "datetime(us)", "timestamptz": "datetime(us, UTC)", "interval": "duration(us)",
    "timedelta": "duration(us)", "blob": "binary", "bytes": "binary", "bytea": "binary", "bit": "bool",
    "map": "struct(a: int64)", "record": "struct(a: int64)",
}  # fmt: skip
"""What other systems call a type, for the hint alone: a type has ONE name here."""

EXAMPLES = {
    "int8": "also int16, int32, int64, int128",
    "uint8": "also uint16, uint32, uint64",
    "float64": "also float32",
    "decimal(12,2)": "twelve digits, two of them after the point; at most 38",
    "bool": "true or false",
    "string": "text",
    "binary": "bytes",
    "date": "a day",
    "time": "a time of day",
    "datetime(us)": "a point in time without a zone; also ms, ns",
    "datetime(us, UTC)": "a point in time, shown in a zone: UTC, Europe/Paris",
    "duration(us)": "a span of time; also ms, ns",
    "list(string)": "values of one type",
    "array(float32, 384)": "so many values of one type",
    "struct(a: int64, b: string)": "named values",
    "enum(small, large)": "one of these texts",
    "categorical": "a text of few different ones",
    "json": "a JSON text",
    "null": "nothing but null",
}
"""The types by example, and what they mean."""


@frozen
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
    def of_polars(dtype: pl.DataType) -> Type:  # noqa: C901, PLR0911  # one case for each type
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
            case pl.Struct() if dtype.fields:
                return Type("struct", tuple((f.name, Type.of_polars(_instance(f.dtype))) for f in dtype.fields))
            case pl.Enum() if len(dtype.categories):
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
    made: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return made


def _quote(name: str) -> str:
    return name if name.isidentifier() else json.dumps(name, ensure_ascii=False)


def _zone_exists(name: str) -> bool:
    """Whether there is such a zone; where this machine has no zone database, any name may be one."""
    for zone in (name, "Europe/Paris"):
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
        return zone == name
    return True


def parse_type(text: str) -> Type:
    """The type that `text` names, e.g. ``list(struct(a: int64, b: datetime(us, UTC)))``.

    Raises ConfigError that says where it stops making sense, with a near miss where there is one.
    """
    parser = _TypeParser(text)
    found = parser.type()
    parser.end()
    return found


def check_type(text: str, *keys: str) -> None:
    """Raises ConfigError, as `parse_type` does, for the value that stands under these keys of a part."""
    try:
        parse_type(text)
    except ConfigError as error:
        raise ConfigError(error.message, hint=error.hint, details={"keys": list(keys)}) from None


class _TypeParser:
    """Recursive descent over ``name[(args)]``."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def type(self) -> Type:  # noqa: PLR0911  # one case for each type
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
                fields = tuple(self.bracketed(self._field))
                return Type("struct", self._distinct(fields, [n for n, _ in fields]))
            case "enum":
                values = tuple(self.bracketed(self.word))
                return Type("enum", self._distinct(values, list(values)))
        if name in _PLAIN:
            return Type(name)
        known = (*_PLAIN, "decimal(12,2)", "datetime(us)", "duration(us)", "time", "list", "array", "struct", "enum")
        near = _MEANT.get(name) or meant(name, known)
        raise ConfigError(
            f"unknown type {self.text!r}",
            hint=f"did you mean {near!r}?" if near else f"types are {', '.join(EXAMPLES)}",
        )

    def _distinct(self, args: tuple[Any, ...], names: list[str]) -> tuple[Any, ...]:
        if twice := [n for n in names if names.count(n) > 1]:
            raise ConfigError(f"impossible type {self.text!r}: {twice[0]!r} stands twice", hint="name each once")
        return args

    def _decimal(self) -> Type:
        self.expect("(")
        precision = self.number()
        self.expect(",")
        scale = self.number()
        self.expect(")")
        if not (1 <= precision <= _DIGITS_MAX and 0 <= scale <= precision):
            raise ConfigError(f"impossible type {self.text!r}", hint="decimal(p,s) takes 1 ≤ p ≤ 38 and 0 ≤ s ≤ p")
        return Type("decimal", (precision, scale))

    def _datetime(self) -> Type:
        if self.peek() != "(":
            return Type("datetime", ("us", None))
        parts = list(self.bracketed(self.word))
        unit = parts[0] if parts else "us"
        if unit not in PER_SECOND or len(parts) > 2:  # noqa: PLR2004  # unit and zone
            raise ConfigError(f"impossible type {self.text!r}", hint="write datetime(us) or datetime(us, UTC)")
        zone = parts[1] if len(parts) == 2 else None  # noqa: PLR2004  # unit and zone
        if zone is not None and not _zone_exists(zone):
            raise ConfigError(f"unknown time zone in {self.text!r}", hint="zones are named as in Europe/Paris, or UTC")
        return Type("datetime", (unit, zone))

    def _units(self, *, default: str) -> str:
        if self.peek() != "(":
            return default
        unit = str(*self.bracketed(self.word, exactly=1))
        if unit not in PER_SECOND:
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
                value, self.at = json.JSONDecoder().raw_decode(self.text, self.at)
            except ValueError:
                self.fail()
            return str(value)
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in '(),:"':
            self.at += 1
        if not (found := self.text[start : self.at].strip()):
            self.fail()
        return found

    def number(self) -> int:
        word = self.word()
        if not (word.isascii() and word.isdigit()):
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


def widens(old: Type, new: Type) -> bool:
    """Whether every value of `old` is, exactly and with the same meaning, a value of `new`."""
    if old == new or old.name == "null":
        return True
    match old.name, new.name:
        case "enum", "enum":
            return set(old.args) <= set(new.args)
        case (("enum" | "categorical"), ("string" | "categorical")):
            return True
        case ("list", "list") | ("array", "array"):
            return old.args[1:] == new.args[1:] and widens(old.args[0], new.args[0])
        case "struct", "struct":
            same = [n for n, _ in old.args] == [n for n, _ in new.args]
            return same and all(widens(a, b) for (_, a), (_, b) in zip(old.args, new.args, strict=True))
    return _widens_number(old, new)


def doubled(type: Type) -> Type:
    """The type with float64 for float32 at any depth: every value of `type` is one of it."""
    match type.name, type.args:
        case "float32", _:
            return Type("float64")
        case (("list" | "array"), (inner, *width)):
            return Type(type.name, (doubled(inner), *width))
        case "struct", fields:
            return Type("struct", tuple((n, doubled(t)) for n, t in fields))
    return type


def _widens_number(old: Type, new: Type) -> bool:
    a, b = old.name, new.name
    for family in (_INTS, _UINTS):
        if a in family and b in family:
            return family.index(a) <= family.index(b)
    if a in _UINTS and b in _INTS:
        return _UINTS.index(a) < _INTS.index(b)
    if b != "decimal":
        return a in _EXACT_IN.get(b, ())
    precision, scale = new.args
    if a == "decimal":
        return bool(scale >= old.args[1] and precision - scale >= old.args[0] - old.args[1])
    return a in _DIGITS and bool(precision - scale >= _DIGITS[a])

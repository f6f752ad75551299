"""What the rows of a Python step depend on, proven from Polars' own plan of it.

A whitelist: a node or function that is not known to look at one row at a time is a reason to doubt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from headrace.transform.lineage import Kind, Origin, Relation
from headrace.transform.lineage_passed import passed
from headrace.transform.plan import name_of, named, plan_of, stand_in, unseeded, words

__all__ = ["inconstant_function", "of_function"]

_UNREAD = "something that Polars' plan does not show"


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FUNCTIONS: Mapping[str, frozenset[str]] = {
    "": _set(
        "Abs Negate FillNull Coalesce AsStruct MaxHorizontal MinHorizontal SumHorizontal MeanHorizontal Round RoundSF "
        "Truncate Floor Ceil Clip Log Log1p Exp Sign Pow Sqrt Cbrt Hash Replace ReplaceStrict Reinterpret "
        "ToPhysical"
    ),
    "Boolean": _set(
        "IsNull IsNotNull IsFinite IsInfinite IsNan IsNotNan AllHorizontal AnyHorizontal Not IsBetween IsIn IsClose"
    ),
    "StringExpr": _set(
        "Uppercase Lowercase Titlecase StripChars StripCharsStart StripCharsEnd StripPrefix StripSuffix Contains "
        "ContainsAny StartsWith EndsWith Replace ReplaceMany Slice Head Tail LenBytes LenChars Split SplitExact SplitN "
        "SplitRegex Extract ExtractAll ExtractGroups ExtractMany Find FindMany CountMatches PadStart PadEnd ZFill "
        "ToInteger Reverse ConcatHorizontal Format JsonDecode JsonPathMatch HexEncode HexDecode Base64Encode "
        "Base64Decode EscapeRegex Normalize Strptime"
    ),
    "TemporalExpr": _set(
        "Millennium Century Year IsLeapYear IsoYear Quarter Month DaysInMonth Week WeekDay Day OrdinalDay Time Date "
        "Datetime Duration Hour Minute Second Millisecond Microsecond Nanosecond TotalDays TotalHours TotalMinutes "
        "TotalSeconds TotalMilliseconds TotalMicroseconds TotalNanoseconds ToString CastTimeUnit WithTimeUnit "
        "ConvertTimeZone ReplaceTimeZone TimeStamp Truncate OffsetBy MonthStart MonthEnd BaseUtcOffset DSTOffset Round "
        "Replace Combine DatetimeFunction"
    ),
    "StructExpr": _set("FieldByName SelectFields RenameFields PrefixFields SuffixFields JsonEncode"),
    "ListExpr": _set(
        "Length Sum Mean Median Max Min Std Var Sort Reverse Get Gather Contains Join Unique NUnique Slice Concat "
        "DropNulls Any All CountMatches ArgMin ArgMax Diff Shift SetOperation ToArray ToStruct"
    ),
    "ArrayExpr": _set(
        "Length Sum Mean Median Max Min Std Var Sort Reverse Get Contains Join Unique NUnique Slice Concat Any All "
        "CountMatches ArgMin ArgMax Shift ToList"
    ),
    "BinaryExpr": _set(
        "Contains StartsWith EndsWith HexEncode HexDecode Base64Encode Base64Decode Size Slice Head Tail"
    ),
    "Pow": frozenset(("Generic", "Sqrt", "Cbrt")),
    "Trigonometry": _set("Cos Cot Sin Tan ArcCos ArcSin ArcTan Cosh Sinh Tanh ArcCosh ArcSinh ArcTanh Degrees Radians"),
}
"""Expression functions, by name space, whose value in a row comes from that row alone."""
_LITERAL_PARTS = {"IsIn": 2, "Replace": 3, "ReplaceStrict": 3}
"""Of these the arguments after the first, up to here, must be literals: a column there is looked at whole."""
_WITHIN = ("List", "ListAgg", "Array", "ArrayAgg")
"""Evaluations whose elements are those of one row's value; a cumulative one's are the rows before it."""
_UNSTEADY = ("Anonymous", "Ffi", "Python", "Random", "Sample", "Categorical")
"""How the words begin of what gives one thing for the same elements now and another then."""
_KEEPS = ("Rename", "Unnest", "FillNan")
_DROPS = ("Explode", "Unpivot")


@dataclass
class _Rows:
    """A node's rows. `kinds` are the columns that nothing has written since they came from a frame."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    new: bool = False
    grouped: bool = False
    windowed: bool = False
    pure: bool = True
    limited: bool = False
    mixing: dict[str, None] = field(default_factory=dict)
    regrouping: dict[str, None] = field(default_factory=dict)

    def doubt(self, reason: str) -> None:
        self.mixing[reason] = self.regrouping[reason] = None

    def opaque(self, reason: str) -> None:
        """Whatever comes out of this is not a row's own."""
        self.doubt(reason)
        self.grouped = self.windowed = True
        self.kinds = {}

    def condition(self) -> None:
        """Rows are dropped: harmless to groups where each row still stands alone."""
        if self.grouped or self.windowed:
            self.regrouping["a condition on what several rows gave"] = None

    def take(self, other: _Rows) -> None:
        self.new |= other.new
        self.grouped |= other.grouped and other.new
        self.windowed |= other.windowed and other.new
        self.pure = self.pure and other.pure
        self.limited |= other.limited
        self.mixing |= other.mixing
        self.regrouping |= other.regrouping


def of_function(
    call: Callable[[list[pl.LazyFrame]], pl.LazyFrame],
    schemas: Sequence[pl.Schema],
    relations: Sequence[Relation],
    columns: Sequence[str],
    *,
    rows: bool,
) -> Relation:
    """The relation of `call`'s result over frames of these schemas.

    `rows`: the user has declared that it looks at each row alone, with no join.
    """
    plan = plan_of(call, schemas)
    found = _planned(plan, relations)
    if rows and found.mixing and not found.limited:  # the plan does not show it; the declaration says no join, too
        stays = {reason: None for r in relations for reason in r.regrouping}
        alone = all(r.new and not r.grouped and set(r.columns.values()) <= {Kind.OWN} for r in relations)
        found = _Rows(new=found.new, grouped=found.grouped, windowed=found.windowed, pure=alone, regrouping=stays)
        if not alone:
            found.doubt(f"{_UNREAD}, though rows stand alone")
            found.mixing = {}
    return Relation(
        columns={c: _kind(found, c) for c in columns},
        new=found.new,
        mixing=tuple(found.mixing) if found.new else (),
        regrouping=tuple(found.regrouping) if found.new else (),
        grouped=found.grouped,
        windowed=found.windowed,
        limited=found.limited,
        origins=_origins(plan, relations),
    )


def inconstant_function(call: Callable[[list[pl.LazyFrame]], pl.LazyFrame], schemas: Sequence[pl.Schema]) -> Relation:
    """What in a function of look-ups differs from run to run, by its plan; what none shows is taken to be constant."""
    return Relation.inconstant(dict.fromkeys(_snake(name) for name in unseeded(plan_of(call, schemas))), ())


def _kind(rows: _Rows, column: str) -> Kind:
    mixed = rows.grouped or rows.windowed
    if rows.pure and not mixed:
        return Kind.OWN
    return rows.kinds.get(column, Kind.SEVERAL if mixed else Kind.ROW)


def _planned(plan: Mapping[str, Any] | None, relations: Sequence[Relation]) -> _Rows:
    opaque = _Rows(pure=False)
    for relation in relations:
        opaque.take(_of(relation))
    opaque.doubt(_UNREAD)
    if plan is None:
        return opaque
    try:
        rows = _node(plan, relations)
        if {"ToPhysical", "Categorical"} <= set(named(plan)):  # its number is when the category was first seen
            rows.opaque("to_physical of a categorical")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # a plan of another shape
        return opaque
    return rows


def _origins(plan: Mapping[str, Any] | None, relations: Sequence[Relation]) -> Mapping[str, Origin]:
    if plan is None or not any(r.origins for r in relations):
        return {}

    def scanned(body: Mapping[str, Any]) -> dict[str, Origin]:
        number = stand_in(body)
        return {} if number is None or body["unified_scan_args"]["row_index"] else dict(relations[number].origins)

    try:
        return passed(plan, scanned)
    except Exception:  # noqa: BLE001  # a plan of another shape, or one that Polars does not read again
        return {}


def _of(relation: Relation) -> _Rows:
    own = set(relation.columns.values()) <= {Kind.OWN} and relation.new
    return _Rows(
        kinds=dict(relation.columns),
        new=relation.new,
        grouped=relation.grouped,
        windowed=relation.windowed,
        pure=own,
        mixing=dict.fromkeys(relation.unsteady),
        regrouping=dict.fromkeys(relation.regrouping),
    )


def _node(plan: Mapping[str, Any], relations: Sequence[Relation]) -> _Rows:
    ((name, body),) = plan.items()
    match name:
        case "IR":
            return _node(body["dsl"], relations)
        case "Scan":
            return _scan(body, relations)
        case "DataFrameScan":
            return _Rows(pure=False)
        case "Join":
            return _join(body, relations)
        case "Union":
            return _union([_node(i, relations) for i in body["inputs"]])
    rows = _node(body["input"], relations)
    _apply(name, body, rows)
    return rows


def _apply(name: str, body: Mapping[str, Any], rows: _Rows) -> None:
    """What a node does to its one input."""
    match name:
        case "Filter":
            rows.condition()
            _heed(rows, [body["predicate"]])
        case "Select" | "HStack":
            _selected(rows, body["expr"] if name == "Select" else body["exprs"], alone=name == "Select")
        case "MapFunction":
            _mapped(rows, body["function"])
        case "Sort" if body.get("slice") is None:
            return
        case "Cache" | "MatchToSchema":
            return
        case "Slice":
            rows.limited |= rows.new and not rows.grouped
            rows.opaque("slice")
        case _:
            rows.opaque(_snake(name))


def _selected(rows: _Rows, expressions: Sequence[Any], *, alone: bool) -> None:
    _heed(rows, expressions)
    _written(rows, expressions)
    read = [bool({"Column", "Selector"} & set(words(e))) for e in expressions]
    if alone and not all(read) and not any("Column" in words(e) for e in expressions):
        rows.doubt("a select of literals alone")


def _scan(body: Mapping[str, Any], relations: Sequence[Relation]) -> _Rows:
    number = stand_in(body)
    if number is None:
        return _Rows(pure=False)  # a frame that the function brings with it: a look-up
    rows = _of(relations[number])
    args = body["unified_scan_args"]
    if args["row_index"] is not None or args["pre_slice"] is not None:
        rows.doubt("with_row_index" if args["pre_slice"] is None else "slice")
    return rows


def _union(parts: list[_Rows]) -> _Rows:
    rows = _Rows()
    for part in parts:
        rows.take(part)
    shared = [c for c in parts[0].kinds if all(c in p.kinds for p in parts)]
    rows.kinds = {c: max(p.kinds[c] for p in parts) for c in shared}
    if rows.new and not all(p.new for p in parts):
        rows.mixing["concat with rows that are not new"] = None
    return rows


def _join(body: Mapping[str, Any], relations: Sequence[Relation]) -> _Rows:
    left, right = _node(body["input_left"], relations), _node(body["input_right"], relations)
    how = body["options"]["args"]["how"]
    rows = _Rows(kinds=left.kinds if left.new else {})
    rows.take(left)
    rows.take(right)
    keys = [e for side in ("left_on", "right_on") for e in (body["condition"].get("Equi") or {}).get(side, ())]
    _heed(rows, keys)
    if left.new and right.new:
        rows.doubt("a join of new rows with each other")
    elif rows.new:
        allowed = ("Left", "Inner", "Semi", "Anti", "Cross") if left.new else ("Inner", "Right", "Cross")
        if how not in allowed or body["options"]["args"]["slice"] is not None:
            rows.doubt(f"a {_snake(how if isinstance(how, str) else next(iter(how)))} join")
        elif how != ("Left" if left.new else "Right"):
            rows.condition()
    return rows


def _mapped(rows: _Rows, function: Any) -> None:
    name = name_of(function)
    if name not in _KEEPS + _DROPS:
        rows.opaque(_snake(name))
    if name in _DROPS:
        rows.condition()
    if name == "FillNan":
        _heed(rows, [function[name]])
    rows.kinds = {}


def _written(rows: _Rows, expressions: Sequence[Any]) -> None:
    """Forget the columns that these expressions may have written; what only passes through stays."""
    for expression in expressions:
        ((name, body),) = expression.items()
        if name in ("Column", "Selector"):
            continue
        if name == "Alias":
            rows.kinds.pop(body[1], None)
            continue
        touched = set(_columns(expression))
        rows.kinds = {} if touched & {None} else {c: k for c, k in rows.kinds.items() if c not in touched}


def _columns(expression: Any) -> Iterator[str | None]:
    """The columns that an expression names; None where a selector does."""
    if isinstance(expression, list):
        for item in expression:
            yield from _columns(item)
    elif isinstance(expression, dict):
        for key, value in expression.items():
            if key == "Column":
                yield value
            elif key in ("Selector", "KeepName", "RenameAlias"):
                yield None
            else:
                yield from _columns(value)


# ---- expressions


def _heed(rows: _Rows, expressions: Sequence[Any]) -> None:
    for expression in expressions:
        for reason in _doubts(expression):
            rows.opaque(reason)


_PARTS = {"BinaryExpr": ("left", "right"), "Ternary": ("predicate", "truthy", "falsy"), "Cast": ("expr",)}


def _doubts(expression: Any) -> Iterator[str]:
    """What in an expression is not known to look at one row alone."""
    if not isinstance(expression, dict) or len(expression) != 1:
        yield _snake(expression) if isinstance(expression, str) else "an expression"
        return
    ((name, body),) = expression.items()
    match name:
        case "Column" | "Selector":
            return
        case "Literal" if next(iter(body)) in ("Scalar", "Dyn"):
            return
        case "Alias":
            yield from _doubts(body[0])
        case "BinaryExpr" | "Ternary" | "Cast":
            for part in _PARTS[name]:
                yield from _doubts(body[part])
        case "Function":
            yield from _function(body)
        case "Eval" if name_of(body["variant"]) not in _WITHIN:
            yield f"{_snake(name_of(body['variant']))}_eval"
        case "Eval" if not any(word.startswith(_UNSTEADY) for word in named(body["evaluation"])):
            yield from _doubts(body["expr"])
        case _:
            yield _snake(next(iter(body)) if name == "Agg" else name)


def _function(body: Mapping[str, Any]) -> Iterator[str]:
    function = body["function"]
    space, name = "", function
    if isinstance(function, dict):
        ((name, inner),) = function.items()
        if name in _FUNCTIONS:
            space, name = name, name_of(inner)
    if name not in _FUNCTIONS[space]:
        yield _snake(name)
    if name == "Strptime" and function[space][name][1]["format"] is None:
        yield "a date format that is inferred"
    if any("Column" in words(e) or "Selector" in words(e) for e in body["input"][1 : _LITERAL_PARTS.get(name, 1)]):
        yield f"{_snake(name)} of a column"
    for argument in body["input"]:
        yield from _doubts(argument)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)).lower()

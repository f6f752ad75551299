"""What an SQL expression depends on: the columns it names, its aggregates and windows, and what is never the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.frozen import frozen
from headrace.transform.lineage import Kind, Origin, Relation
from headrace.transform.syntax import CLOCK_WORDS, functions

__all__ = ["Rows", "Said", "Scope", "Table", "expression", "inconstant", "reached", "walk"]

_COMPOSED = (
    *("BETWEEN", "CASE", "CAST", "COLLATE", "COMPARISON", "CONJUNCTION", "CONSTANT"),
    *("FUNCTION", "OPERATOR", "PARAMETER", "TYPE", "WINDOW"),
)
"""Expressions that depend on what they are made of, and on nothing else."""
_Node = Mapping[str, Any]
Ref = tuple[int, str]
"""A column of FROM: the table's number and the column's name."""


@dataclass
class Table:
    """A table in FROM. `kinds` by lower-case column (None: its columns are not known); `hidden`: merged by USING;
    `origins` of those that have one.
    """

    alias: str
    kinds: dict[str, Kind] | None
    hidden: set[str] = field(default_factory=set)
    origins: Mapping[str, Origin] = field(default_factory=dict)


@dataclass
class Said:
    """What an expression says. `refs` are the columns of its own FROM; `whole` is False where there may be more of
    them, `single` where it may be several columns.

    `partitions` are its windows' PARTITION BY. `new`, `mixing` and `regrouping` are what stands in it whatever its
    columns are: functions that are never the same, subqueries. `unnested` is what its set-returning functions make rows
    of. `column` is the one that it is and nothing else
    (None: it is made of columns, a field of one too), `origin` that column's.
    """

    kind: Kind = Kind.OWN
    column: Ref | None = None
    origin: Origin | None = None
    refs: set[Ref] = field(default_factory=set)
    whole: bool = True
    single: bool = True
    aggregates: list[str] = field(default_factory=list)
    partitions: list[Sequence[_Node]] = field(default_factory=list)
    unnested: list[Said] = field(default_factory=list)
    new: bool = False
    mixing: dict[str, None] = field(default_factory=dict)
    regrouping: dict[str, None] = field(default_factory=dict)

    def add(self, other: Said) -> None:
        """This expression holds that one."""
        self.kind = max(self.kind, other.kind)
        self.refs |= other.refs
        self.whole = self.whole and other.whole
        self.single = self.single and other.single
        self.aggregates += other.aggregates
        self.partitions += other.partitions
        self.unnested += other.unnested
        self.new |= other.new
        self.mixing |= other.mixing
        self.regrouping |= other.regrouping


@dataclass
class Rows:
    """A table expression: see `lineage.Relation`. The reasons keep their order."""

    tables: list[Table]
    new: bool = False
    grouped: bool = False
    windowed: bool = False
    mixing: dict[str, None] = field(default_factory=dict)
    regrouping: dict[str, None] = field(default_factory=dict)

    def doubt(self, reason: str) -> None:
        """Neither rows nor groups stand alone."""
        self.mixing = {**self.mixing, reason: None}
        self.regrouping = {**self.regrouping, reason: None}

    def take(self, other: Rows) -> None:
        """Rows of `other` go into these."""
        self.new |= other.new
        self.grouped |= other.grouped and other.new
        self.windowed |= other.windowed and other.new
        self.mixing = self.mixing | other.mixing
        self.regrouping = self.regrouping | other.regrouping

    def heed(self, said: Said) -> None:
        """An expression over these rows says what it says whatever its columns are."""
        self.new |= said.new
        self.mixing = self.mixing | said.mixing
        self.regrouping = self.regrouping | said.regrouping

    def condition(self, said: Said) -> None:
        """Rows are dropped by this condition."""
        self.heed(said)
        if said.kind > self.free:
            self.regrouping = {**self.regrouping, "a condition on what several rows gave": None}

    @property
    def free(self) -> Kind:
        """What a condition may look at so that no group comes or goes with rows that an increment does not have.

        Of single rows it may see anything; of groups what all their rows share; after a window, whose rows stay, only
        what all rows that it looks at together share.
        """
        return Kind.OWN if self.windowed else Kind.ROW if self.grouped else Kind.SEVERAL

    @property
    def names(self) -> Iterator[str]:
        """The columns that are known."""
        return (name for table in self.tables for name in table.kinds or {})

    @property
    def worst(self) -> Kind:
        """What any column may be."""
        if any(t.kinds is None for t in self.tables):
            return Kind.SEVERAL if self.grouped or self.windowed else Kind.ROW
        return max((k for t in self.tables for k in (t.kinds or {}).values()), default=Kind.OWN)

    def origin(self, column: str) -> Origin | None:
        """The origin of the one column of this name."""
        found = [t.origins.get(column) for t in self.tables if column in (t.kinds or {}) and column not in t.hidden]
        return found[0] if len(found) == 1 else None

    def kind(self, column: str) -> Kind:
        """The worst column of this name; anything where there is none."""
        return max((t.kinds[column] for t in self.tables if t.kinds and column in t.kinds), default=self.worst)


@frozen(kw_only=True)
class Scope:
    """What an expression can name: the tables of its own FROM and of those around it (`levels`, the inner first), what
    WITH defines (with its column names), the SELECT's own aliases. `subquery` walks a query. `renamed`: a name is the
    alias before it is the column (HAVING and DISTINCT ON; elsewhere it is the column's).
    """

    levels: tuple[Rows, ...] = ()
    ctes: Mapping[str, tuple[Rows, Sequence[str] | None]] = field(default_factory=dict)
    aliases: Mapping[str, Said] = field(default_factory=dict)
    renamed: bool = False
    subquery: Callable[[_Node, Scope], Rows] | None = None


def inconstant(node: _Node) -> Relation:
    """What in a query over look-ups differs from row to row, or from run to run."""
    unsteady: dict[str, None] = {}
    clocks: dict[str, None] = {}
    for inner in walk(node):
        name = str(inner.get("function_name") or "").lower()
        if name and name in functions(name).volatile:
            unsteady[f"{name}()"] = None
        if name and name in functions(name).clocks:
            clocks[f"{name}()"] = None
        if inner.get("class") == "COLUMN_REF" and (word := str(inner["column_names"][-1]).lower()) in CLOCK_WORDS:
            clocks[f"{word}()"] = None
        if inner.get("sample"):
            unsteady["SAMPLE"] = None
    return Relation.inconstant(unsteady, clocks)


def walk(node: Any) -> Iterator[_Node]:
    """Every object of a syntax tree."""
    if isinstance(node, list):
        for item in node:
            yield from walk(item)
    elif isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)


def expression(node: _Node, scope: Scope) -> Said:
    """What an expression depends on."""
    match node["class"]:
        case "COLUMN_REF":
            return _column([str(n).lower() for n in node["column_names"]], scope)
        case "STAR" | "POSITIONAL_REFERENCE" as kind:
            return Said(kind=_worst(scope), whole=False, single=kind != "STAR")
        case "SUBQUERY":
            return _subquery(node, scope)
        case "LAMBDA":
            return expression(node["expr"], scope)
        case kind if kind in _COMPOSED:
            return _composed(node, scope)
    return Said(kind=Kind.SEVERAL, mixing={str(kind): None}, regrouping={str(kind): None})


def _composed(node: _Node, scope: Scope) -> Said:
    said = Said()
    if node["class"] == "FUNCTION":
        _function(str(node["function_name"]).lower(), node, scope, said)
        if said.aggregates:  # what is aggregated are columns, in HAVING too
            scope = replace(scope, renamed=False)
    if node["class"] == "WINDOW":
        said.partitions.append(node.get("partitions") or ())
    for child in _children(node):
        said.add(expression(child, scope))
    if said.aggregates or said.partitions:  # of look-ups alone it is no more than a look-up
        said.kind = Kind.SEVERAL if scope.levels[0].new else max(said.kind, Kind.ROW)
    name = str(node.get("function_name") or "").lower()
    if node["class"] == "FUNCTION" and name in functions(name).unnesting:
        said.unnested.append(Said(kind=said.kind, refs=set(said.refs)))
    return said


def _children(node: Any) -> Iterator[_Node]:
    """The expressions right below this one."""
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, dict) and "class" in value:
            yield value
        elif isinstance(value, dict | list):
            yield from _children(value)


def _function(name: str, node: _Node, scope: Scope, said: Said) -> None:
    known = functions(name)
    if name in known.volatile:
        said.mixing[f"{name}()"] = said.regrouping[f"{name}()"] = None
    if name in known.clocks:
        said.regrouping[f"{name}()"] = None
    if name not in known.aggregates:
        return
    said.aggregates.append(name.removesuffix("_star"))
    inside = [n for n in walk(node) if n.get("class") == "COLUMN_REF"]
    if len(scope.levels) > 1 and inside and not any(_found(n, scope.levels[0]) for n in inside):
        # an aggregate of nothing but outer columns is one of the SELECT around
        said.mixing[f"the aggregate {name}"] = said.regrouping[f"the aggregate {name}"] = None


def _found(node: _Node, rows: Rows) -> bool:
    names = [str(n).lower() for n in node["column_names"]]
    return _resolve(names, rows) is not None or any(t.kinds is None for t in rows.tables)


def _column(names: list[str], scope: Scope) -> Said:
    if scope.renamed and names[0] in scope.aliases:
        return _aliased(names, scope)
    for depth, rows in enumerate(scope.levels):
        if (found := _resolve(names, rows)) is not None:
            kind, refs = found
            said = Said(kind=kind, origin=_origin(refs, rows))
            return replace(said, refs=refs, column=_alone(names, refs, rows)) if depth == 0 else said
        if any(t.kinds is None for t in rows.tables):
            break
        if depth == 0 and names[0] in scope.aliases:
            return _aliased(names, scope)
    if names[-1] in CLOCK_WORDS:
        return Said(regrouping={f"{names[-1]}()": None})
    return Said(kind=_worst(scope), whole=False)  # a lambda's own, a whole row, a column of tables that are not known


def _alone(names: list[str], refs: set[Ref], rows: Rows) -> Ref | None:
    """The one column that is named, and no field of it."""
    (number, column), *others = refs
    whole = names in ([column], [rows.tables[number].alias, column])
    return (number, column) if whole and not others else None


def _aliased(names: list[str], scope: Scope) -> Said:
    """What the SELECT calls so; its aggregates and windows are counted where they stand."""
    alias = scope.aliases[names[0]]
    return Said(
        kind=alias.kind,
        refs=set(alias.refs),
        whole=alias.whole,
        column=alias.column if len(names) == 1 else None,
        origin=alias.origin,
    )


def _resolve(names: list[str], rows: Rows) -> tuple[Kind, set[Ref]] | None:
    """A column by its table or alone; the rest of a longer name are fields of it."""
    by_table = [(i, t) for i, t in enumerate(rows.tables) if len(names) > 1 and t.alias in names[:-1]]
    for number, table in by_table:
        column = names[names.index(table.alias) + 1]
        if table.kinds is not None and column in table.kinds:
            return table.kinds[column], {(number, column)}
    refs = {
        (i, names[0]) for i, t in enumerate(rows.tables) if names[0] in (t.kinds or {}) and names[0] not in t.hidden
    }
    if not refs:
        return None
    return max((rows.tables[i].kinds or {})[c] for i, c in refs), refs


def _origin(refs: set[Ref], rows: Rows) -> Origin | None:
    """The origin of the one column that is named; a field of it has another type, and so will have none."""
    return {rows.tables[n].origins.get(c) for n, c in refs}.pop() if len(refs) == 1 else None


def _worst(scope: Scope) -> Kind:
    return max([Kind.ROW, *(rows.worst for rows in scope.levels)])


def _names(node: Any) -> Iterator[list[str]]:
    """The columns that stand anywhere in a node, as they are written; a table's name where all of it is meant."""
    for inner in walk(node):
        if inner.get("class") == "COLUMN_REF":
            yield [str(n).lower() for n in inner["column_names"]]
        elif inner.get("class") == "STAR" and inner.get("relation_name"):
            yield [str(inner["relation_name"]).lower()]


def reached(node: Any, rows: Rows) -> Kind:
    """The worst column of these rows that a subquery in them may name, though it has one of the name itself."""
    kinds = [Kind.OWN]
    for names in _names(node):
        if (found := _resolve(names, rows)) is not None:
            kinds.append(found[0])
        elif any(t.alias in names or t.kinds is None for t in rows.tables):  # a whole row, or nobody knows
            kinds.append(rows.worst)
    return max(kinds)


def _subquery(node: _Node, scope: Scope) -> Said:
    """A subquery sees one row of its surroundings at a time; it must not see the increment by itself."""
    assert scope.subquery is not None  # noqa: S101  # expressions stand in queries
    rows = scope.subquery(node["subquery"]["node"], replace(scope, aliases={}))
    said = Said(kind=Kind.ROW, whole=False, new=rows.new, mixing=dict(rows.mixing), regrouping=dict(rows.regrouping))
    if rows.new:
        said.mixing["a subquery over new rows"] = said.regrouping["a subquery over new rows"] = None
    said.kind = max([said.kind, *(reached(node["subquery"], level) for level in scope.levels)])
    for name in (n for names in _names(node["subquery"]) for n in names):
        said.kind = max(said.kind, scope.aliases[name].kind if name in scope.aliases else Kind.OWN)
    if isinstance(node.get("child"), dict):
        said.add(expression(node["child"], scope))
    return said

"""What the rows of a SELECT depend on, proven from DuckDB's syntax tree.

A walk from the tables upward. Each table expression becomes `Rows`: its tables with the `Kind` of every column, and
the reasons found so far. What the walk does not know (a new node, a function over tables) is a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from headrace.transform.lineage import Kind, Origin, Relation, shared
from headrace.transform.lineage_expr import Rows, Said, Scope, Table, expression, reached, walk
from headrace.transform.syntax import Syntax

__all__ = ["of_select"]

_ROW_FUNCTIONS = ("unnest", "range", "generate_series", "json_each", "json_tree")
"""Table functions that make rows of their arguments alone."""
_Node = Mapping[str, Any]


def of_select(syntax: Syntax, relations: Mapping[str, Relation], columns: Sequence[str]) -> Relation:
    """The relation of a SELECT's result over `relations` by name. `columns` are the result's, as DuckDB bound them."""
    named = {name.lower(): relation for name, relation in relations.items()}
    rows = _Walk(named).query(syntax.node, Scope())
    kinds = rows.tables[0].kinds or {}
    fits = len(kinds) == len(columns) and all(
        mine in (its.lower(), _unnamed(i)) for i, (mine, its) in enumerate(zip(kinds, columns, strict=True))
    )
    known = dict(zip(kinds, columns, strict=True)) if fits else {}
    return Relation(
        columns={known[c]: kind for c, kind in kinds.items() if fits},
        new=rows.new,
        mixing=tuple(rows.mixing) if rows.new else (),
        regrouping=tuple(rows.regrouping) if rows.new else (),
        grouped=rows.grouped,
        windowed=rows.windowed,
        origins={known[c]: o for c, o in rows.tables[0].origins.items() if fits},
    )


class _Walk:
    """The walk over one statement."""

    def __init__(self, relations: Mapping[str, Relation]) -> None:
        self.relations = relations

    def query(self, node: _Node, scope: Scope) -> Rows:
        """A whole query: its rows as one table without a name."""
        scope = replace(scope, subquery=self.query)
        for entry in (node.get("cte_map") or {}).get("map", ()):
            rows = self.query(entry["value"]["query_node"], scope)
            scope = replace(scope, ctes={**scope.ctes, entry["key"].lower(): (rows, entry["value"].get("aliases"))})
        match node["type"]:
            case "SELECT_NODE":
                rows = self.select(node, scope)
            case "SET_OPERATION_NODE":
                rows = self.union(node, scope)
            case _:
                what = "a recursive query" if "RECURSIVE" in node["type"] else str(node["type"])
                rows = self.unknown(node, scope, what)
        if rows.new and any(str(m["type"]).startswith("LIMIT") for m in _modifiers(node)):
            rows.doubt("LIMIT")
        return rows

    def unknown(self, node: Any, scope: Scope, what: str) -> Rows:
        """Something that is not understood: in doubt, and new if anything in it is."""
        rows = Rows([Table("", None)], grouped=True, windowed=True)
        for table in (n for n in walk(node) if n.get("type") == "BASE_TABLE"):
            found = self.table(table, scope)
            rows.take(found)
        rows.doubt(what)
        return rows

    def union(self, node: _Node, scope: Scope) -> Rows:
        parts = [self.query(child, scope) for child in node["children"]]
        kind = str(node["setop_type"])
        rows = Rows([_merged([p.tables[0] for p in parts], by_name=kind == "UNION_BY_NAME")])
        for part in parts:
            rows.take(part)
        if not rows.new:
            return rows
        if not kind.startswith("UNION"):
            rows.doubt(f"a set operation ({kind})")
        elif not node.get("setop_all"):
            rows.mixing["a set operation (UNION)"] = None
            rows.grouped = True
        if not all(p.new for p in parts):
            rows.mixing["UNION ALL with rows that are not new"] = None
        return rows

    def select(self, node: _Node, scope: Scope) -> Rows:
        rows = self.source(node["from_table"], scope)
        scope = replace(scope, levels=(rows, *scope.levels))
        if node.get("sample"):
            rows.doubt("SAMPLE")
        if node.get("where_clause"):
            rows.condition(expression(node["where_clause"], scope))
        items = list(_items(node["select_list"], scope))
        scope = replace(scope, aliases={name: said for name, said in items if name is not None})
        said = Said()
        for _, one in items:
            said.add(one)
        groups = node.get("group_expressions") or ()
        for more in (node.get("having"), node.get("qualify"), *_orders(node), *groups):
            if more:
                said.add(expression(more, scope))
        result = Rows([Table("", None)])
        result.take(rows)
        result.heed(said)
        kinds = _judged(node, items, said, scope, result) if rows.new else [one.kind for _, one in items]
        return _named(result, items, kinds)

    # ---- FROM

    def source(self, node: _Node, scope: Scope) -> Rows:
        match node["type"]:
            case "EMPTY":
                return Rows([])
            case "BASE_TABLE":
                rows = self.table(node, scope)
            case "SUBQUERY":
                rows = _renamed(self.query(node["subquery"]["node"], scope), node.get("column_name_alias"))
            case "JOIN":
                return self.join(node, scope)
            case "TABLE_FUNCTION" if str(node["function"]["function_name"]).lower() in _ROW_FUNCTIONS:
                said = expression(node["function"], scope)
                names = [str(c).lower() for c in node.get("column_name_alias") or ()]
                rows = Rows([Table("", dict.fromkeys(names, said.kind) if len(names) == 1 else None)])
                rows.heed(said)
            case "EXPRESSION_LIST":
                rows = Rows([Table("", None)])
                for value in (v for values in node["values"] for v in values):
                    rows.heed(expression(value, scope))
            case "TABLE_FUNCTION":
                rows = self.unknown(node, scope, f"the table function {node['function']['function_name']}")
            case kind:
                rows = self.unknown(node, scope, {"SHOW_REF": "SUMMARIZE"}.get(kind, str(kind)))
        if node.get("sample"):
            rows.doubt("SAMPLE")
        rows.tables[0].alias = str(node.get("alias") or node.get("table_name") or "").lower()
        return rows

    def table(self, node: _Node, scope: Scope) -> Rows:
        name = str(node["table_name"]).lower()
        if not node.get("schema_name") and name in scope.ctes:
            rows, aliases = scope.ctes[name]
            return _renamed(_renamed(rows, aliases), node.get("column_name_alias"))
        relation = self.relations.get(name, Relation())
        kinds = {c.lower(): kind for c, kind in relation.columns.items()}
        whole = kinds and len(kinds) == len(relation.columns)
        rows = Rows(
            [Table(name, kinds if whole else None, origins=_lowered(relation.origins) if whole else {})],
            new=relation.new,
            grouped=relation.grouped,
            windowed=relation.windowed,
            mixing=dict.fromkeys(relation.unsteady),  # what else mixes is told of the step where it does
            regrouping=dict.fromkeys(relation.regrouping),
        )
        return _renamed(rows, node.get("column_name_alias"))

    def join(self, node: _Node, scope: Scope) -> Rows:
        left = self.source(node["left"], scope)
        inner = replace(scope, levels=(left, *scope.levels))  # what stands on the right may be LATERAL
        right = self.source(node["right"], inner)
        kind, how = str(node["join_type"]), str(node["ref_type"])
        rows = Rows([*left.tables, *right.tables])
        rows.take(left)
        rows.take(right)
        merged = {str(c).lower() for c in node.get("using_columns") or ()}
        if how == "NATURAL":
            merged = set(left.names) & set(right.names)
        for table in left.tables:  # the merged column may be either's
            table.origins = {c: o for c, o in table.origins.items() if c not in merged or right.origin(c) == o}
        for table in right.tables:
            table.hidden = table.hidden | merged
        if right.new and kind == "INNER":
            _same_on_both(left, right, merged)
        if kind in ("SEMI", "ANTI"):
            rows.tables = left.tables
        if left.new and right.new:
            rows.doubt("a join of new rows with each other")
        elif rows.new and (doubt := _join_doubt(kind, how, left=left.new)):
            rows.doubt(doubt)
        elif rows.new and kind != ("LEFT" if left.new else "RIGHT"):
            rows.condition(_filter(node, left, right, merged, replace(scope, levels=(rows, *scope.levels))))
        if node.get("condition"):
            rows.heed(expression(node["condition"], replace(scope, levels=(rows, *scope.levels))))
        return rows


def _filter(node: _Node, left: Rows, right: Rows, merged: set[str], scope: Scope) -> Said:
    """A join that drops rows is a condition on those of the new rows' columns that it names."""
    driver, tables = left if left.new else right, scope.levels[0].tables
    said = Said(kind=max((driver.kind(c) for c in merged), default=Kind.OWN))
    if left.new:
        said.kind = max(said.kind, reached(node["right"], left))  # what is LATERAL may give no row
    if node.get("condition"):
        one = expression(node["condition"], scope)
        named = (driver.kind(column) for n, column in one.refs if any(tables[n] is t for t in driver.tables))
        said.kind = max(said.kind, *named, Kind.OWN) if one.whole else Kind.SEVERAL
    return said


def _same_on_both(left: Rows, right: Rows, merged: set[str]) -> None:
    """The columns that an inner join merges stand on the left, and are the new rows' on the right just as well."""
    for table in left.tables:
        table.kinds = table.kinds and {c: right.kind(c) if c in merged else k for c, k in table.kinds.items()}


def _join_doubt(kind: str, how: str, *, left: bool) -> str | None:
    """Why a join of new rows (on the `left` or on the right) with look-ups is not a matter of one new row at a time."""
    if how == "ASOF":
        return None if left and kind in ("INNER", "LEFT") else "an ASOF JOIN"
    if how not in ("REGULAR", "NATURAL", "CROSS", "DEPENDENT"):
        return f"a {how} JOIN"
    allowed = ("INNER", "LEFT", "SEMI", "ANTI") if left else ("INNER", "RIGHT")
    return None if kind in allowed else f"a {kind} JOIN"


def _modifiers(node: _Node) -> Sequence[_Node]:
    return node.get("modifiers") or ()


def _orders(node: _Node) -> Iterator[_Node]:
    for modifier in _modifiers(node):
        for order in modifier.get("orders") or ():
            yield order["expression"]


def _merged(parts: Sequence[Table], *, by_name: bool) -> Table:
    """The table of a union: each column as bad as the worst of its parts."""
    known = [p.kinds for p in parts]
    first = known[0]
    if first is None or any(k is None or len(k) != len(first) or (by_name and list(k) != list(first)) for k in known):
        return Table("", None)
    columns = zip(*((k or {}).values() for k in known), strict=True)
    kinds = {name: max(kinds) for name, kinds in zip(first, columns, strict=True)}
    return Table("", kinds, origins=shared([_called(p, list(first)) for p in parts]))


def _called(table: Table, names: Sequence[str]) -> dict[str, Origin]:
    """The table's origins under new names for its columns, in order."""
    return {new: table.origins[old] for old, new in zip(table.kinds or {}, names, strict=True) if old in table.origins}


def _lowered(origins: Mapping[str, Origin]) -> dict[str, Origin]:
    return {c.lower(): o for c, o in origins.items()}


def _renamed(rows: Rows, names: Sequence[str] | None) -> Rows:
    """The rows with a new list for their one table, its first columns renamed."""
    (table,) = rows.tables
    kinds, origins = table.kinds, table.origins
    if kinds is not None and names:
        given = [str(n).lower() for n in names] + list(kinds)[len(names) :]
        fits = len(set(given)) == len(kinds)
        origins = _called(table, given) if fits else {}
        kinds = dict(zip(given, kinds.values(), strict=True)) if fits else None
    return replace(rows, tables=[Table(table.alias, kinds, origins=origins)])


def _items(select_list: Sequence[_Node], scope: Scope) -> Iterator[tuple[str | None, Said]]:
    """The result's columns: names (None: DuckDB's to choose), and what they are made of."""
    aliases: dict[str, Said] = {}
    for item in select_list:
        if item["class"] == "STAR" and not item.get("columns"):
            yield from _star(item, scope)
            continue
        said = expression(item, replace(scope, aliases=aliases))
        if item.get("function_name") == "unnest" and not item.get("alias"):
            said.single = False  # a struct becomes its fields
        name = item.get("alias") or (item["column_names"][-1] if item["class"] == "COLUMN_REF" else None)
        if name:
            aliases[name.lower()] = said
        yield (name.lower() if name else None), said


def _star(item: _Node, scope: Scope) -> Iterator[tuple[str, Said]]:
    wanted = str(item.get("relation_name") or "").lower()
    left_out = {str(c).lower() for c in item.get("exclude_list") or ()}
    left_out |= {str(c["column"]).lower() for c in item.get("qualified_exclude_list") or ()}
    replaced = {str(r["key"]).lower(): r["value"] for r in item.get("replace_list") or ()}
    renamed = {str(r["key"]["column"]).lower(): str(r["value"]).lower() for r in item.get("rename_list") or ()}
    for number, table in enumerate(scope.levels[0].tables):
        if wanted and table.alias != wanted:
            continue
        if table.kinds is None:
            yield "", Said(kind=scope.levels[0].worst, whole=False, single=False)
        for name, kind in (table.kinds or {}).items():
            if name in left_out or (name in table.hidden and not wanted):
                continue
            if name in replaced:
                yield name, expression(replaced[name], replace(scope, aliases={}))
            else:
                ref = (number, name)
                said = Said(kind=kind, refs={ref}, column=ref, origin=table.origins.get(name))
                yield renamed.get(name, name), said


def _judged(node: _Node, items: list[tuple[str | None, Said]], said: Said, scope: Scope, result: Rows) -> list[Kind]:
    """What this SELECT itself does to the rows that are new; the kinds of its columns after that."""
    kinds = [one.kind for _, one in items]
    forced = node.get("aggregate_handling") == "FORCE_AGGREGATES"
    if said.aggregates or node.get("group_expressions") or forced or node.get("having"):
        _grouped(node, said, scope, result)
    if said.partitions:
        result.windowed = True
        result.mixing["a window function"] = None
        kinds = _held(items, said.partitions, scope, other=Kind.ROW)
    if node.get("qualify"):
        result.regrouping["QUALIFY"] = None
    made = _held([(None, one) for one in said.unnested], said.partitions, scope, other=Kind.ROW)
    if any(kind > result.free for kind in made):  # it may make no row at all
        result.regrouping["unnest of what several rows gave"] = None
    for modifier in _modifiers(node):
        if modifier["type"] == "DISTINCT_MODIFIER":
            result.grouped = True
            result.mixing["DISTINCT"] = None
            if targets := modifier.get("distinct_on_targets"):
                held = _held(items, [targets], replace(scope, renamed=True), other=Kind.SEVERAL)
                kinds = [max(pair) for pair in zip(kinds, held, strict=True)]
    return kinds


def _grouped(node: _Node, said: Said, scope: Scope, result: Rows) -> None:
    """An aggregating SELECT: what it mixes, and whether its HAVING or its sets of groups can drop a group."""
    result.mixing |= {f"the aggregate {name}": None for name in said.aggregates} or {"GROUP BY": None}
    result.grouped = True
    sets = node.get("group_sets") or ()
    if len(sets) > 1 or any(len(s) != len(node.get("group_expressions") or ()) for s in sets):
        result.regrouping["GROUPING SETS"] = None
    if node.get("having") and expression(node["having"], replace(scope, renamed=True)).kind > result.free:
        result.regrouping["HAVING"] = None


def _held(
    items: list[tuple[str | None, Said]], partitions: list[Sequence[_Node]], scope: Scope, *, other: Kind
) -> list[Kind]:
    """The items' kinds where several rows are looked at by partition: OWN only what each partition holds fixed."""
    fixed = []
    for expressions in partitions:
        parts = [expression(e, scope) for e in expressions if e["class"] == "COLUMN_REF"]
        fixed.append({one.column for one in parts if one.kind is Kind.OWN and one.column})
    own = [one.kind is not Kind.OWN or all(one.refs <= plain for plain in fixed) for _, one in items]
    return [one.kind if fine else other for fine, (_, one) in zip(own, items, strict=True)]


def _unnamed(number: int) -> str:
    """A column whose name DuckDB makes up."""
    return f"\0{number}"


def _named(rows: Rows, items: list[tuple[str | None, Said]], kinds: list[Kind]) -> Rows:
    """The rows with their columns, where all of them are known."""
    names = [_unnamed(i) if name is None else name for i, (name, _) in enumerate(items)]
    if all(one.single for _, one in items) and len(set(names)) == len(names):
        rows.tables[0].kinds = dict(zip(names, kinds, strict=True))
        rows.tables[0].origins = {n: one.origin for n, (_, one) in zip(names, items, strict=True) if one.origin}
    return rows

"""By what rows are grouped: the types of all keys of a SELECT, as DuckDB binds them.

Groups are matched by value. Where a type has equal values that differ (30 days and a month, `a` and `A` under a
collation), one that is new may be in the group of another, and which of them is shown hangs on all rows of it. Floats
are in order: -0.0 and 0.0 are equal, and NaNs are, wherever groups are matched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import polars as pl

from headrace.errors import SchemaError
from headrace.schema import Schema
from headrace.sqltext import literal, quoted
from headrace.transform.columns import physical
from headrace.transform.syntax import Syntax, asking

__all__ = ["wide_key"]

_UNSHOWN = "keys whose types DuckDB does not show"
_IDENTICAL = frozenset((
    "NULL", "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
    "UBIGINT", "UHUGEINT", "DECIMAL", "FLOAT", "DOUBLE", "VARCHAR", "CHAR", "BLOB", "BIT", "UUID", "ENUM", "DATE",
    "TIME", "TIME_NS", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMPTZ_NS", "LIST", "ARRAY", "STRUCT", "MAP", "STRING_LITERAL", "INTEGER_LITERAL",
))  # fmt: skip
"""Types whose equal values are the same value; a nested one has its parts' equality."""
_ARGUMENTS = ("INTERVAL", "LAMBDA")
"""Types that a function may look at on its way to one whose equal values are the same; no key is made over one."""
_KEYS = ("groups", "distinct_targets", "partitions")


def wide_key(syntax: Syntax, schemas: Mapping[str, pl.Schema], params: Mapping[str, Any], text: str) -> str | None:
    """A key of GROUP BY, DISTINCT, UNION or PARTITION BY whose equal values may differ, in words, or None."""
    try:
        with asking() as con:
            for name, schema in schemas.items():
                columns = ", ".join(f"{quoted(f.name)} {physical(f.type)}" for f in Schema.of_polars(schema))
                con.execute(f"CREATE TEMP TABLE {quoted(name)} ({columns})")
            select = _written_out(con, syntax, params) if params else text
            plan = json.loads(_one(con, "SELECT json_serialize_plan(?::VARCHAR)", select))
    except (duckdb.Error, SchemaError):
        return _UNSHOWN
    return _UNSHOWN if plan["error"] else next((f"a key of {said}" for key in _keys(plan) for said in _wide(key)), None)


def _one(con: duckdb.DuckDBPyConnection, query: str, value: Any) -> str:
    return str(con.execute(query, [value]).fetchall()[0][0])


def _written_out(con: duckdb.DuckDBPyConnection, syntax: Syntax, params: Mapping[str, Any]) -> str:
    """The SELECT with its params as constants: a plan is shown of nothing else."""
    constants = {}
    for name, value in params.items():
        kind = "NULL" if value is None else _one(con, "SELECT typeof(?)", value)
        text = "NULL" if value is None else literal(_one(con, "SELECT ?::VARCHAR", value))
        constants[name] = Syntax.of(f"SELECT CAST({text} AS {kind})" if value is not None else "SELECT NULL")
    nodes = {name.lower(): one.node["select_list"][0] for name, one in constants.items()}
    statement = {"node": _replaced(syntax.node, nodes), "named_param_map": []}
    return _one(con, "SELECT json_deserialize_sql(?::JSON)", json.dumps({"error": False, "statements": [statement]}))


def _replaced(node: Any, constants: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_replaced(item, constants) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("class") == "PARAMETER":
        return {**constants[str(node["identifier"]).lower()], "alias": node.get("alias", "")}
    return {key: _replaced(value, constants) for key, value in node.items()}


def _keys(node: Any) -> Iterator[Any]:
    """The expressions by which anything in a plan is grouped."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if name in _KEYS and isinstance(value, list):
            yield from value
        yield from _keys(value)


def _wide(key: Any) -> Iterator[str]:
    """Why a key's equality is wider than being the same, in words.

    DuckDB makes of some types what it compares (of a VARIANT a BLOB): their type is that of what is made over.
    """
    made_over = [c.get("return_type") for c in key.get("children") or () if isinstance(c, dict)]
    types = [key.get("return_type"), *(t for t in made_over if isinstance(t, dict) and t.get("id") not in _ARGUMENTS)]
    for inner in _objects(types):
        if "id" in inner and inner["id"] not in _IDENTICAL:
            yield f"type {inner['id']}, which may have equal values that differ"
    if any(inner.get("collation") for inner in _objects(key)):
        yield "a collation, under which values that differ are equal"


def _objects(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _objects(child)

"""What the text of a SELECT says, as DuckDB's own parser reads it, and DuckDB's word on its functions.

What is analysed is what runs: no second opinion about the dialect. Nothing here knows frames or schemas.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import duckdb

from headrace import interruption
from headrace.errors import ConfigError
from headrace.frozen import frozen
from headrace.stream.inmemory import in_memory

__all__ = [
    "CLOCK_WORDS",
    "Functions",
    "Syntax",
    "all_functions",
    "asking",
    "binding",
    "functions",
    "session",
]

_MEMORY_LIMIT = "400MB"
_PATIENCE = 5.0
_binding = Lock()
_forks: list[bool] = []


class session:  # noqa: N801 - used as a function
    """A DuckDB of its own in memory that can reach nothing but what is registered, and the files at `paths`."""

    def __init__(self, spill: Path, paths: Sequence[str] = ()) -> None:
        self.spill = spill
        self.paths = paths

    def __enter__(self) -> duckdb.DuckDBPyConnection:
        self.con = in_memory(memory=_MEMORY_LIMIT, spill=str(self.spill), paths=self.paths)
        self.breakable = interruption.breakable(self.con.interrupt)
        self.breakable.__enter__()
        return self.con

    def __exit__(self, *_: object) -> None:
        self.breakable.__exit__(None, None, None)
        self.con.close()


def _started() -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": False,
        "disabled_optimizers": "statistics_propagation",  # of the empty tables of a binding it would learn too much
        "threads": 1,
        "async_threads": 0,
    }
    return duckdb.connect(":memory:", config=config)


@functools.cache
def _parser() -> duckdb.DuckDBPyConnection:
    """The process's DuckDB for what asks about a text alone: to start one takes longer than that. It has no thread of
    its own, so that a process which has used it may fork.
    """
    con = _started()
    atexit.register(con.close)  # DuckDB complains of connections that are open when Python ends
    return con


def asking() -> duckdb.DuckDBPyConnection:
    """A connection for what asks about a text alone; temporary tables are its own. To be closed."""
    con = _parser().cursor()
    con.execute("SET TimeZone = 'UTC'")
    return con


@contextmanager
def binding() -> Iterator[duckdb.DuckDBPyConnection]:
    """The same for a query over tables that are made here, as a `session` would know them; at the end they are gone.

    Tables have the names that a session gives them, so the process's DuckDB binds one query at a time; who finds it
    busy starts one of its own, and nobody waits.
    """
    free = _binding.acquire(blocking=False)
    try:
        with _parser().cursor() if free else _started() as con, interruption.breakable(con.interrupt):
            con.execute("SET TimeZone = 'UTC'")
            con.execute("BEGIN")
            try:
                yield con
            finally:
                con.execute("ROLLBACK")
    finally:
        if free:
            _binding.release()


def _before_a_fork() -> None:
    """A child that is forked in the middle of a binding would have half of it, and its lock for ever."""
    _forks.append(_binding.acquire(timeout=_PATIENCE))


def _after_a_fork() -> None:
    if _forks.pop():
        _binding.release()


os.register_at_fork(before=_before_a_fork, after_in_parent=_after_a_fork, after_in_child=_after_a_fork)


def _asked(query: str, *values: str) -> list[tuple[Any, ...]]:
    with asking() as con:
        return con.execute(query, list(values)).fetchall()


@frozen(kw_only=True)
class Syntax:
    """A parsed SELECT: DuckDB's syntax tree, the frames it reads (`tables`), the ``$names`` it uses (`params`)."""

    node: Mapping[str, Any]
    tables: tuple[str, ...]
    params: tuple[str, ...]

    @property
    def stops_early(self) -> bool:
        """Whether it may come to its end without having read its tables to theirs: a LIMIT, a sample, EXISTS; what a
        table function does (``query('…')``) nobody knows.
        """
        return _stops_early(self.node)

    @property
    def momentary(self) -> bool:
        """Whether a constant of it may be another one when it runs than when it was bound: a clock's, a setting's."""
        return _momentary(self.node)

    @staticmethod
    def of(text: str) -> Syntax:
        """Parse one SELECT. Raises ConfigError for anything else, with where it stops making sense."""
        parsed = json.loads(_asked("SELECT json_serialize_sql(?::VARCHAR)", text)[0][0])
        if parsed["error"]:
            if parsed.get("error_type") == "not implemented":
                raise ConfigError("an SQL transform must be one SELECT", hint="loading is the destination's part")
            raise ConfigError(f"SQL does not parse{_position(text, parsed)}", hint="it is DuckDB's dialect")
        if len(parsed["statements"]) != 1:
            raise ConfigError("an SQL transform must be one SELECT", hint="give each its own step")
        statement = parsed["statements"][0]
        params = tuple(sorted(p["key"] for p in statement.get("named_param_map") or ()))
        tables = tuple(sorted(set(_tables(statement["node"], frozenset()))))
        return Syntax(node=statement["node"], tables=tables, params=params)


_EXISTS = ("EXISTS", "NOT_EXISTS")


def _stops_early(node: Any) -> bool:
    if isinstance(node, list):
        return any(map(_stops_early, node))
    if not isinstance(node, dict):
        return False
    limited = "LIMIT" in str(node.get("type", "")) or node.get("sample") is not None
    limited = limited or node.get("subquery_type") in _EXISTS or node.get("type") == "TABLE_FUNCTION"
    return limited or any(map(_stops_early, node.values()))


def _momentary(node: Any) -> bool:
    if isinstance(node, list):
        return any(map(_momentary, node))
    if not isinstance(node, dict):
        return False
    name = str(node.get("function_name") or "").lower()
    said = name in _SETTINGS or bool(name and name in functions(name).clocks)
    said = said or (node.get("class") == "COLUMN_REF" and str(node["column_names"][-1]).lower() in CLOCK_WORDS)
    return said or any(map(_momentary, node.values()))


def _position(text: str, parsed: Mapping[str, Any]) -> str:
    """Where the parser stopped; its own message may quote a literal, so it is not passed on."""
    if not str(parsed.get("position", "")).isdigit():
        return ""
    before = text[: int(parsed["position"])]
    return f" at line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _tables(node: Any, ctes: frozenset[str]) -> Iterator[str]:
    """The tables that are read, but for the names that WITH defines where they are in sight.

    A definition sees those before it, not itself: ``WITH x AS (… FROM x)`` reads the table x. A recursive one does.
    """
    if isinstance(node, list):
        for item in node:
            yield from _tables(item, ctes)
        return
    if not isinstance(node, dict):
        return
    if node.get("type") == "BASE_TABLE" and (node.get("schema_name") or node["table_name"].lower() not in ctes):
        yield node["table_name"]
    if node.get("type") == "RECURSIVE_CTE_NODE":
        ctes |= {str(node["cte_name"]).lower()}
    for entry in (node.get("cte_map") or {}).get("map", ()):
        yield from _tables(entry["value"], ctes)
        ctes |= {entry["key"].lower()}
    for key, value in node.items():
        if key != "cte_map":
            yield from _tables(value, ctes)


@frozen(kw_only=True)
class Functions:
    """Names of functions, in lower case: `aggregates` look at several rows, `volatile` ones differ from call to
    call, `clocks` from query to query, `unnesting` ones give a row any number of rows, or none. A macro is what its
    definition uses.
    """

    aggregates: frozenset[str]
    volatile: frozenset[str]
    clocks: frozenset[str]
    unnesting: frozenset[str]


# DuckDB calls half of its date functions "consistent within a query", for the time zone's sake; that is fixed here
CLOCK_WORDS = frozenset(
    ("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "get_current_time")
)
_SETTINGS = frozenset(("current_setting", "getvariable"))
_CLOCKS = CLOCK_WORDS | {
    *("now", "today", "age", "transaction_timestamp", "txid_current"),
    *("get_current_timestamp", "current_localtime", "current_localtimestamp"),
}


# what nearly every query uses: to ask DuckDB for all its functions takes as long as to bind a query
_COMMON = Functions(
    aggregates=frozenset(("avg", "count", "count_star", "max", "min", "sum")),
    volatile=frozenset(),
    clocks=frozenset(),
    unnesting=frozenset(),
)
_COMMON_SCALARS = frozenset(("+", "-", "*", "/", "||", "abs", "lower", "replace", "round", "trim", "upper"))


def functions(name: str) -> Functions:
    """What is known of the function `name`, and perhaps of others: look for no other one in the answer."""
    return _COMMON if name in _COMMON.aggregates | _COMMON_SCALARS else all_functions()


@functools.cache
def all_functions() -> Functions:
    """DuckDB's own functions."""
    rows = _asked(
        "SELECT lower(function_name), function_type, stability,"
        " CASE function_type WHEN 'macro' THEN json_serialize_sql('SELECT ' || macro_definition) END"
        " FROM duckdb_functions()"
    )
    found = {
        "aggregates": {name for name, kind, *_ in rows if kind == "aggregate"},
        "volatile": {name for name, _, stability, *_ in rows if stability == "VOLATILE"},
        "clocks": set(_CLOCKS),
        "unnesting": {"unnest", "unlist"},
    }
    macros = [(name, _words(tree)) for name, *_, tree in rows if tree is not None]
    while more := [
        (sort, name) for sort, names in found.items() for name, words in macros if words & names and name not in names
    ]:
        for sort, name in more:
            found[sort].add(name)
    return Functions(**{sort: frozenset(names) for sort, names in found.items()})


def _words(tree: str) -> set[str]:
    """The functions and bare words of a macro's definition; one that does not parse is taken for an aggregate."""
    parsed = json.loads(tree)
    return {"sum"} if parsed["error"] else set(_named(parsed["statements"]))


def _named(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _named(item)
    elif isinstance(node, dict):
        if node.get("class") in ("FUNCTION", "WINDOW"):
            yield str(node["function_name"]).lower()
        elif node.get("class") == "COLUMN_REF":
            yield str(node["column_names"][-1]).lower()
        elif node.get("type") == "SUBQUERY":
            yield "sum"  # it reads tables of its own: never a matter of one row
        for child in node.values():
            yield from _named(child)

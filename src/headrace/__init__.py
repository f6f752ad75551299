"""headrace: data pipelines that never lose and never double a row.

The names below are the library. They are imported when they are first used: ``import headrace`` itself loads
neither Polars nor DuckDB nor PyArrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.breaker import CircuitBreaker
    from headrace.config import load
    from headrace.contract import Column, Contract, Rule
    from headrace.cursor import Cursor, Deletes, Latest, TextType
    from headrace.engine import check, history, plan, preview, rejects, run
    from headrace.engine.quarantine import discard, replay
    from headrace.errors import (
        CircuitOpenError,
        ConfigError,
        ConflictError,
        ContractError,
        DataError,
        HeadraceError,
        RejectedError,
        SchemaError,
        TransformError,
        UnavailableError,
        UnheldError,
    )
    from headrace.pipeline import Pipeline, Table, python, sql
    from headrace.report import CheckReport, Plan, RunReport
    from headrace.retry import Retry
    from headrace.schema import SchemaPolicy
    from headrace.systems.duckdb import DuckDBDestination, DuckDBSource
    from headrace.systems.files import FileSource
    from headrace.systems.memory import MemoryDestination, MemorySource
    from headrace.systems.outfile import FileDestination
    from headrace.systems.parquet import ParquetDestination, scan_table
    from headrace.systems.postgres import PostgresDestination, PostgresSource
    from headrace.systems.postgres import client as postgres
    from headrace.systems.postgres.scan import scan_postgres
    from headrace.systems.sqlite import SQLiteSource
    from headrace.systems.table import TableSource
    from headrace.writes import Append, History, Merge, Partitions, Recompute, Replace

__version__ = "0.1.0"

__all__ = [
    "Append",
    "CheckReport",
    "CircuitBreaker",
    "CircuitOpenError",
    "Column",
    "ConfigError",
    "ConflictError",
    "Contract",
    "ContractError",
    "Cursor",
    "DataError",
    "Deletes",
    "DuckDBDestination",
    "DuckDBSource",
    "FileDestination",
    "FileSource",
    "HeadraceError",
    "History",
    "Latest",
    "MemoryDestination",
    "MemorySource",
    "Merge",
    "ParquetDestination",
    "Partitions",
    "Pipeline",
    "Plan",
    "PostgresDestination",
    "PostgresSource",
    "Recompute",
    "RejectedError",
    "Replace",
    "Retry",
    "Rule",
    "RunReport",
    "SQLiteSource",
    "SchemaError",
    "SchemaPolicy",
    "Table",
    "TableSource",
    "TextType",
    "TransformError",
    "UnavailableError",
    "UnheldError",
    "__version__",
    "check",
    "discard",
    "history",
    "load",
    "plan",
    "postgres",
    "preview",
    "python",
    "rejects",
    "replay",
    "run",
    "scan_postgres",
    "scan_table",
    "sql",
]

_HOME = {
    "headrace.breaker": "CircuitBreaker",
    "headrace.config": "load",
    "headrace.contract": "Column Contract Rule",
    "headrace.cursor": "Cursor Deletes Latest TextType",
    "headrace.engine": "check history plan preview rejects run",
    "headrace.errors": "CircuitOpenError ConfigError ConflictError ContractError DataError HeadraceError"
    " RejectedError SchemaError TransformError UnavailableError UnheldError",
    "headrace.pipeline": "Pipeline Table python sql",
    "headrace.engine.quarantine": "discard replay",
    "headrace.report": "CheckReport Plan RunReport",
    "headrace.retry": "Retry",
    "headrace.schema": "SchemaPolicy",
    "headrace.systems.duckdb": "DuckDBDestination DuckDBSource",
    "headrace.systems.files": "FileSource",
    "headrace.systems.memory": "MemoryDestination MemorySource",
    "headrace.systems.outfile": "FileDestination",
    "headrace.systems.parquet": "ParquetDestination scan_table",
    "headrace.systems.postgres": "PostgresDestination PostgresSource",
    "headrace.systems.postgres.scan": "scan_postgres",
    "headrace.systems.sqlite": "SQLiteSource",
    "headrace.systems.table": "TableSource",
    "headrace.writes": "Append History Merge Partitions Recompute Replace",
}
_MODULES = {"postgres": "headrace.systems.postgres.client"}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = import_module(_MODULES[name])
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

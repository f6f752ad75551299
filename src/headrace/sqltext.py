"""Names and texts as SQL writes them: DuckDB, SQLite and PostgreSQL alike."""

from __future__ import annotations

__all__ = ["literal", "quoted"]


def quoted(*names: str) -> str:
    """A name as SQL, whatever stands in it; several are a path: ``"schema"."table"``."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(text: str) -> str:
    """A text as SQL. That it has no NUL, which ends a statement, is for who calls to know."""
    return "'" + text.replace("'", "''") + "'"

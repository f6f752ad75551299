"""Names of tables and of places, without a server and without a driver."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace import sqltext
from headrace.errors import ConfigError
from headrace.paths import Place
from headrace.sqltext import quoted

__all__ = ["NAME_BYTES", "dotted", "literal", "named", "parted", "place", "spelled", "words"]

NAME_BYTES = 63
"""PostgreSQL cuts a longer name, with a notice that nobody reads."""

_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')
_PLAIN = re.compile(r"[^.\"*?\[\]]+")  # with a point it would be two parts, with the others a pattern
_KEYWORD = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S*))")
_WORD = re.compile(r'(?:[\w$]+|"(?:[^"]|"")+")(?:\.(?:[\w$]+|"(?:[^"]|"")+"))*')


def literal(text: str) -> str:
    """A text as SQL. Raises ConfigError where it can be none: PostgreSQL's texts have no NUL."""
    if "\0" in text:
        raise ConfigError("a text with a NUL byte cannot be a value", hint="take it out")
    return sqltext.literal(text)


def named(table: str) -> tuple[str, str]:
    """Schema and name of ``name``, ``schema.name`` or ``"Schema"."Name"``; without a schema it is ``public``.

    Raises ConfigError.
    """
    schema, name = parted(table)
    return schema or "public", name


def parted(table: str) -> tuple[str | None, str]:
    """The same, without a schema where there is none."""
    parts, at = [], 0
    while at < len(table) and (found := _PART.match(table, at)) is not None:
        parts.append(found[1].replace('""', '"') if found[1] is not None else found[2])
        at = found.end()
        if at < len(table):
            if table[at] != ".":
                break
            at += 1
    if at < len(table) or not 1 <= len(parts) <= 2 or table.endswith("."):  # noqa: PLR2004  # schema and name
        raise ConfigError(f"{table!r} is no table's name", hint='write name, schema.name or "Schema"."Name"')
    return (parts[0], parts[1]) if len(parts) > 1 else (None, parts[0])


def dotted(*parts: str) -> str:
    """Schema and name in the one spelling that `named` reads as these two again."""
    return ".".join(part if _PLAIN.fullmatch(part) else quoted(part) for part in parts)


def spelled(table: str) -> str:
    """The table's name in one spelling, with its schema."""
    return dotted(*named(table))


def words(query: str) -> list[str]:
    """Whatever in a query can name a table, in that spelling."""
    found = set()
    for word in _WORD.findall(query):
        parts = [p[1:-1].replace('""', '"') if p.startswith('"') else p.lower() for p in _parts(word)]
        found |= {
            dotted(*parts[at : at + 2]) if len(parts) - at > 1 else dotted("public", parts[at])
            for at in range(len(parts))
        }
    return sorted(found)


def _parts(word: str) -> list[str]:
    return re.findall(r'"(?:[^"]|"")+"|[^."]+', word)


def place(dsn: str | Mapping[str, str | int] | None, table: str | None) -> Place:
    """Where a table lies: host, port and database of the DSN, or of the ``PG*`` variables where it leaves them open."""
    given = _keywords(dsn)
    service = given.get("service") or os.environ.get("PGSERVICE")
    host = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or service or "localhost"
    port = given.get("port") or os.environ.get("PGPORT") or "5432"
    user = given.get("user") or os.environ.get("PGUSER") or Path.home().name
    database = given.get("dbname") or os.environ.get("PGDATABASE") or user
    return Place(system="postgres", where=f"{host.lower()}/{port}/{database}", name=table)


def _keywords(dsn: str | Mapping[str, str | int] | None) -> dict[str, str]:
    if isinstance(dsn, Mapping):
        return {k: str(v) for k, v in dsn.items()} | _keywords_of_text(str(dsn.get("dbname", "")))
    return _keywords_of_text(str(dsn or ""))


def _keywords_of_text(text: str) -> dict[str, str]:
    """What libpq reads of a conninfo string or URI; nothing where it is neither."""
    if re.match(r"postgres(ql)?://", text):
        try:
            parts = urlsplit(text)
            found = {"host": unquote(parts.hostname or ""), "port": str(parts.port or ""), "user": parts.username or ""}
        except ValueError:  # several hosts
            return {"host": text.partition("://")[2].partition("/")[0].rpartition("@")[2]}
        found["dbname"] = unquote(parts.path.lstrip("/"))
        return {k: v for k, v in (found | dict(parse_qsl(parts.query))).items() if v}
    return {m[1]: re.sub(r"\\(.)", r"\1", m[2]) if m[2] is not None else m[3] for m in _KEYWORD.finditer(text)}

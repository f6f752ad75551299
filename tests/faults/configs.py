"""Configs by a fuzzer that knows the schema: drawn from it, and then spoiled."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Configs"]

_NAMES = ("id", "name", "amount", "day", "v", "source", "t", "w", "new", "previous")
_TEXTS = (
    "", "id", "name", "source", "SELECT * FROM source", "SELECT id FROM previous", "int64", "string", "date", "1d",
    "2GB", "2024-01-01", "in/*.csv", "in/data.csv", "in", "target/w.duckdb", "target/lake", "target/out.csv",
    "COPY (SELECT 1) TO 'stolen.csv'", "DROP TABLE t; --", "ATTACH 'stolen.db'", "a\nb", "\u202egpj",
    "a" * 300, "decimal(38,40)", "struct(", "list(" * 60, "%d/%m/%Y", "%", "(", "[", "\\", "$x", "${NAME}",
    "amount > 0", "nothing > 0", "😀", "\x1b[31m", "x\x00y", "f.py:f", "transforms.py:clean", "transforms.py:raises",
)  # fmt: skip
_ODD = (
    None, True, False, 0, -1, 1, 1.5, 1e308, 10**30, -(10**30), "", [], {}, [[]], [None], {"": None}, {"type": None},
    {"env": "HOSTILE_SECRET"}, {"env": "HOSTILE_MISSING"}, {"env": 1}, {"file": "secret.txt"}, {"file": "no"},
    {"file": "/proc/self/mem"}, {"file": "."}, {"env": "HOSTILE_MISSING", "default": [1]}, {"type": "files"},
    {"connection": "no"}, float("inf"), float("nan"), "\ud800", 0.1, [0] * 50,
)  # fmt: skip


class Configs:
    """Endless configs. Equal seeds draw equal ones."""

    def __init__(self, schema: Mapping[str, Any], chance: random.Random) -> None:
        self.schema, self.chance = schema, chance

    def drawn(self) -> str:
        """A config as text: of the schema, or a valid one, spoiled in some places; sometimes no JSON any more."""
        chance = self.chance
        document = copy.deepcopy(_valid(chance)) if chance.random() < 0.7 else self.of({"$ref": "#/$defs/Pipeline"}, 0)
        for _ in range(chance.choice([0, 0, 1, 1, 1, 2, 3])):
            document = self.spoiled(document)
        text = json.dumps(document, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 2]))
        return self.cut(text) if chance.random() < 0.15 else text

    def cut(self, text: str) -> str:
        """No JSON any more, or another one."""
        chance, at = self.chance, self.chance.randrange(len(text) + 1)
        more = ["", "}", "]", ",", '"', "//", "/*", "\\", "\ufeff", "[" * 5000, '{"a":' * 5000, "1e99999", "-", "\x00"]
        return text[:at] + chance.choice(more) + text[at + chance.choice([0, 0, 1, 5, 10**6]) :]

    def of(self, schema: Any, depth: int) -> Any:
        """A value that the schema allows, mostly."""
        chance = self.chance
        if not isinstance(schema, Mapping):  # true: anything
            return chance.choice([*_NAMES, *_TEXTS, *_ODD])
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name == "reference":
                return chance.choice(
                    [{"env": "HOSTILE_SECRET"}, {"env": "HOME", "default": "x"}, {"file": "secret.txt"}]
                )
            return self.of(self.schema["$defs"][name], depth)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                others = [one for one in schema[word] if one.get("$ref") != "#/$defs/reference"]
                return self.of(chance.choice(others if chance.random() < 0.95 and others else schema[word]), depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return chance.choice(schema["enum"])
        return self.plain(schema, depth)

    def plain(self, schema: Mapping[str, Any], depth: int) -> Any:
        """A value of a plain type."""
        chance, type = self.chance, schema.get("type")
        type = chance.choice(type) if isinstance(type, list) else type
        match type:
            case "object":
                needed = schema.get("required", ())
                likely = 0.3 if depth < 4 else 0.05
                known = schema.get("properties", {})
                made = {k: self.of(v, depth + 1) for k, v in known.items() if k in needed or chance.random() < likely}
                more = schema.get("additionalProperties")
                if isinstance(more, Mapping) and not known:
                    made = {chance.choice(_NAMES): self.of(more, depth + 1) for _ in range(chance.randrange(3))}
                return made
            case "array":
                low = schema.get("minItems", 0)
                return [self.of(schema.get("items", {}), depth + 1) for _ in range(low + chance.randrange(3))]
            case "integer":
                return chance.choice([0, 1, 2, 10, 1000, -1, 2**63])
            case "number":
                return chance.choice([0, 0.5, 1, 2.5, -1])
            case "boolean":
                return chance.random() < 0.5
            case "null":
                return None
            case "string":
                return chance.choice(_NAMES) if chance.random() < 0.5 else chance.choice(_TEXTS)
        return chance.choice(_ODD)

    def spoiled(self, document: Any) -> Any:
        """The document with one place changed: gone, another value, another name, twice, or deep."""
        chance = self.chance
        places = [(parent, key) for parent, key in _places(document) if key != "name"]
        if not places:
            return chance.choice(_ODD)
        parent, key = chance.choice(places)
        match chance.randrange(7):
            case 0:
                del parent[key]
            case 1:
                parent[key] = copy.deepcopy(chance.choice(_ODD))
            case 2:
                parent[key] = chance.choice(_TEXTS)
            case 3 if isinstance(parent, dict):
                parent[chance.choice([str(key) + "s", str(key)[:-1], "type", *_NAMES, *_TEXTS])] = parent.pop(key)
            case 4:
                other, at = chance.choice(places)
                with_ = other[at] if at in other or (isinstance(other, list) and at < len(other)) else None
                parent[key] = copy.deepcopy(with_)
            case 5:
                names = [n for n in self.schema["$defs"] if n != "reference"]
                parent[key] = self.of({"$ref": f"#/$defs/{chance.choice(names)}"}, 2)
            case _:
                deep: Any = parent[key]
                for _ in range(chance.choice([1, 3, 200])):
                    deep = [deep] if chance.random() < 0.5 else {"a": deep}
                parent[key] = deep
        return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document, as what holds it and its key there."""
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])


def _valid(chance: random.Random) -> dict[str, Any]:
    """One of some that work, with much in it."""
    files = {
        "type": "files",
        "path": "in/*.csv",
        "types": {"id": "int64", "day": {"type": "date", "format": "%Y-%m-%d"}},
    }
    latest = {"keys": ["id"], "by": ["file", "line"]}
    sums = {"sql": "SELECT day, sum(amount) AS v FROM clean GROUP BY day"}
    rules: dict[str, Any] = {
        "columns": {"id": {"type": "int64", "nullable": False}, "name": {"length": [1, 40], "pattern": ".*"}},
        "rules": {"some": "amount >= 0", "day": {"check": "day IS NOT NULL", "on_violation": "drop"}},
        "unique": [["id"]], "on_violation": "quarantine", "max_reject_share": 0.9,
    }  # fmt: skip
    duckdb = {"type": "duckdb", "path": "target/w.duckdb", "table": "t"}
    return chance.choice([
        {"name": "p", "source": files, "contract": rules, "destination": duckdb,
         "write": {"type": "merge", "keys": ["id"], "latest_by": ["day"], "delete_when": "amount > 100"}},
        {"name": "p", "source": {**files, "latest": latest, "rename": {"note": "more"}},
         "transforms": [{"python": "transforms.py:clean", "as": "clean"}, sums],
         "params": {"since": "2024-01-01"}, "destination": duckdb, "write": {"type": "recompute", "by": ["day"]}},
        {"name": "p", "sources": {"a": files, "b": {"type": "files", "path": "in/data.csv", "read": "all"}},
         "transforms": [{"sql": "SELECT a.*, b.name AS other FROM a LEFT JOIN b USING (id)"}],
         "destination": {"type": "parquet", "path": "target/lake", "compression": "zstd"},
         "write": {"type": "partitions", "by": ["day"]}, "on_schema_change": {"add": "evolve"}},
        {"name": "p", "source": {**files, "read": "all", "contract": rules}, "after": [], "params": {},
         "destination": {"type": "file", "path": "target/out.csv"}, "write": {"type": "replace", "allow_empty": True}},
        {"name": "p", "source": {**files, "cursor": {"column": "id", "start": "1"}, "add_columns": {"f": "file"}},
         "destination": duckdb, "write": {"type": "history", "keys": ["id"], "track": ["amount"]}},
    ])  # fmt: skip

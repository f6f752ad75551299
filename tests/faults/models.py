"""What a target must hold, by write: small, slow and plain, so that one can see that it is right.

A row is a dict. `load` is one commit's good rows in the order in which they were read; `table` is the rows that are to
be there, as sorted tuples of `columns`. No model knows of runs, kills, retries or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MODELS", "Model"]

Row = Mapping[str, Any]


class Model:
    """An append: every row that was read."""

    columns: tuple[str, ...] = ("id", "moved", "g", "v", "extra")
    keys: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def load(self, rows: Sequence[Row]) -> None:
        self.rows += rows

    def table(self) -> list[tuple[Any, ...]]:
        return sorted((tuple(r.get(c) for c in self.columns) for r in self.rows), key=repr)


class Merged(Model):
    """Of each key the newest row by `moved`, of equals the last read; one that says ``op = 'D'`` is gone, and known."""

    columns = (*Model.columns, "op")
    keys = ("id",)

    def load(self, rows: Sequence[Row]) -> None:
        newest = {}
        for row in rows:
            if row["id"] not in newest or row["moved"] >= newest[row["id"]]["moved"]:
                newest[row["id"]] = row
        held = {r["id"]: r for r in self.rows}
        for id, row in newest.items():
            if id not in held or row["moved"] >= held[id]["moved"]:
                gone = id in held and held[id]["op"] == "D"
                held[id] = {**({} if gone else held.get(id, {})), **row}
        self.rows = list(held.values())

    def table(self) -> list[tuple[Any, ...]]:
        return [row for row in super().table() if row[-1] != "D"]


class Partitioned(Model):
    """Of each `g` the rows of the last commit that had one of it."""

    def load(self, rows: Sequence[Row]) -> None:
        touched = {r["g"] for r in rows}
        self.rows = [r for r in self.rows if r["g"] not in touched] + list(rows)


class Told(Model):
    """Every version of each key, whenever it came: from `moved` on, until another value begins."""

    columns = ("id", "moved", "v", "valid_from", "valid_to")
    keys = ("id",)

    def table(self) -> list[tuple[Any, ...]]:
        versions = []
        for id in {r["id"] for r in self.rows}:
            at = {r["moved"]: r["v"] for r in self.rows if r["id"] == id}  # of equal moments the last read
            begun = [m for n, m in enumerate(sorted(at)) if n == 0 or at[m] != at[sorted(at)[n - 1]]]
            versions += [(id, m, at[m], m, end) for m, end in zip(begun, [*begun[1:], None], strict=True)]
        return sorted(versions, key=repr)


class Recomputed(Model):
    """The sum of each `g`, of the last row of each `id`; a sum below nothing is rejected."""

    columns = ("g", "total")

    def totals(self) -> dict[str, int]:
        last = {r["id"]: r for r in self.rows}
        return {g: sum(r["v"] for r in last.values() if r["g"] == g) for g in {r["g"] for r in last.values()}}

    def table(self) -> list[tuple[Any, ...]]:
        return sorted((item for item in self.totals().items() if item[1] >= 0), key=repr)


MODELS = {
    "append": Model,
    "merge": Merged,
    "partitions": Partitioned,
    "history": Told,
    "recompute": Recomputed,
}

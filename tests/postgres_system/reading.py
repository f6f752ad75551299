"""A source read again and again, as runs do."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from headrace.flow import Batch, Position, Range, Snapshot
from headrace.systems.postgres import PostgresSource, selection


def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries by which a source takes rows from now on, in the order in which they are asked."""
    queries: list[str] = []
    real = selection.copied

    def copied(connection: Any, query: str, *rest: Any) -> Any:
        queries.append(query)
        return real(connection, query, *rest)

    monkeypatch.setattr(selection, "copied", copied)
    return queries


class Reader:
    """Reads what is new of a table `t` with a column `id`; `batch` is the last one, `frame` its rows."""

    def __init__(self, database, *, ties="again", **source: Any) -> None:
        source = {"table": "t", **source} if "query" not in source else source
        self.source = PostgresSource(dsn=source.pop("dsn", database.dsn), **source)
        self.ties = ties
        self.position: Position | None = None
        self.batch: Batch

    def read(self, column: str = "id", **range: Any) -> list[Any]:
        """The values of a column of what is new, sorted; the position moves on."""
        asked = Range(after=self.position, ties=self.ties, **range)
        with closing(self.source.batches(asked, Snapshot(), "s")) as batches:
            self.batch = next(batches)
            self.frame = self.batch.frame.lazy.collect()
            self.ids = sorted(id for f in self.batch.rejects() for id in f["id"])
            self.rejects = len(self.ids)
            self.position = self.batch.position()
        return sorted(self.frame[column].to_list())

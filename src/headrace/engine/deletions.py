"""Which rows of a merge delete their key: `delete_when`, computed once, so that it means the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import polars as pl

from headrace.errors import ContractError, DataError
from headrace.stream import scan_batches
from headrace.stream.drawing import passed
from headrace.writes import Merge, Write

if TYPE_CHECKING:
    from headrace.contract.sqlrules import SQLEvaluation

__all__ = ["deleting"]

_NAME = "_headrace_deleted"


def deleting(write: Write, rows: pl.LazyFrame) -> tuple[pl.LazyFrame, str | None]:
    """The rows with a Boolean column more, and its name: TRUE where a row deletes its key, else FALSE. Of a write that
    does not say when, the rows as they are, and None.

    Raises ConfigError for an expression that does not fit the rows' columns; while rows are drawn, DataError for one
    that fails on a value.
    """
    if not isinstance(write, Merge) or write.delete_when is None:
        return rows, None
    from headrace.contract.sqlrules import SQLRules

    schema, name = rows.collect_schema(), _NAME
    while name in schema:
        name += "_"
    rules = SQLRules({name: ("delete_when", f"({write.delete_when}\n) IS TRUE")}, schema)

    def batches() -> Iterator[pl.DataFrame]:
        with closing(passed(rows)) as drawing, rules.open() as opened:
            for batch in drawing:
                yield batch.hstack(_told(opened, batch))

    return scan_batches(batches, {**schema, name: pl.Boolean()}), name


def _told(opened: SQLEvaluation, batch: pl.DataFrame) -> list[pl.Series]:
    try:
        return opened.columns(batch)
    except ContractError as error:
        raise DataError(
            "delete_when failed on a value", hint="use try_cast, or guard the value: a NULL deletes nothing"
        ) from error

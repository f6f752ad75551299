"""Rows without a value of the cursor, as rejects: each run reads them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import polars as pl

from headrace.schema import REJECTS, reject_id

__all__ = ["NULL_CURSOR", "refused"]

NULL_CURSOR = "cursor column is null"


def refused(
    source: str, rows: Sequence[Mapping[str, str | None]], places: Sequence[tuple[str | None, int | None]] | None = None
) -> pl.DataFrame:
    """The rows, by their exact texts and places, with the columns of `schema.REJECTS`; equal ones have equal ids."""
    made = []
    for (file, line), row in zip(places or [(None, None)] * len(rows), rows, strict=True):
        text = json.dumps(row, ensure_ascii=False)
        made.append(
            (reject_id("cursor", source, file, line, row), "cursor", source, file, line, [NULL_CURSOR], text, None)
        )
    return pl.DataFrame(made, schema=REJECTS.polars(), orient="row")

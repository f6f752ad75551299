"""Rows without a value of the cursor, as rejects: each run reads them again, so equal ones are told by their number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

import polars as pl

from headrace.schema import REJECTS, reject_id
from headrace.stream import FrameStream, framed, scan_batches

__all__ = ["NULL_CURSOR", "numbered", "refused"]

NULL_CURSOR = "cursor column is null"
_NUMBERED = """
SELECT * EXCLUDE (n, place) REPLACE (CASE n WHEN 1 THEN id ELSE id || '-' || n END AS id)
FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY place) AS n
      FROM (SELECT *, row_number() OVER () AS place FROM spooled))
ORDER BY place"""


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


def numbered(frames: Callable[[], Iterator[pl.DataFrame]]) -> Iterator[pl.DataFrame]:
    """All rejects of one read; equal ones get ids of their own, ``<hash>``, ``<hash>-2``…, as a contract's do: what is
    settled (loaded by a replay, given up) then stands for as many rows as were. They may be millions: DuckDB spills.
    """
    from headrace.stream.spilling import spilling  # few reads have such rows

    with spilling("numbering rows without a value of the cursor") as con:
        con.register("spooled", FrameStream(scan_batches(frames, REJECTS.polars())))
        for batch in framed(con.sql(_NUMBERED)):
            yield batch.cast(REJECTS.polars())

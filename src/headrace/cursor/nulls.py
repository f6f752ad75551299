"""Rows without a value of the cursor, as rejects: each run reads them again, so equal ones are told by their number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from headrace import interruption
from headrace.errors import RejectedError
from headrace.schema import REJECTS, reject_id
from headrace.stream import FrameStream, framed, original, scan_batches

__all__ = ["NULL_CURSOR", "numbered", "refused"]

NULL_CURSOR = "cursor column is null"
_MEMORY_LIMIT = "300MB"
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
    import duckdb  # few reads have such rows

    with TemporaryDirectory(prefix="headrace-sql-") as spill, duckdb.connect(":memory:") as con:
        con.execute("SET memory_limit = ?", [_MEMORY_LIMIT])
        con.execute("SET temp_directory = ?", [str(Path(spill))])
        con.execute("SET python_enable_replacements = false")
        try:
            with interruption.breakable(con.interrupt):
                con.register("spooled", FrameStream(scan_batches(frames, REJECTS.polars())))
                for batch in framed(con.sql(_NUMBERED)):
                    yield batch.cast(REJECTS.polars())
        except (duckdb.Error, OSError) as error:
            if (cause := original(error)) is not None:
                raise cause from None
            raise RejectedError(
                "numbering rows without a value of the cursor ran out of memory or of temporary disk",
                hint="free space in the temporary folder",
            ) from error

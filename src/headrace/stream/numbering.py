"""Equal rejects, told apart by their number: of a table without places there may be millions, so DuckDB spills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from headrace.schema import REJECTS
from headrace.stream import FrameStream, framed, scan_batches
from headrace.stream.spilling import spilling

if TYPE_CHECKING:
    import polars as pl

__all__ = ["numbered"]

_NUMBERED = """
SELECT * EXCLUDE (n, place) REPLACE (CASE n WHEN 1 THEN id ELSE id || '-' || n END AS id)
FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY place) AS n
      FROM (SELECT *, row_number() OVER () AS place FROM spooled))
ORDER BY file, line, place"""


def numbered(frames: Callable[[], Iterator[pl.DataFrame]]) -> Iterator[pl.DataFrame]:
    """All rejects of one read, by their places, else as they come, with the columns of `schema.REJECTS`.

    Equal ones (of equal content at an equal place, see `schema.reject_id`) get ids of their own, ``<hash>``,
    ``<hash>-2``…, so that what is settled (loaded by a replay, given up) stands for as many rows as were. Which of them
    has which number is no matter: so the ids are the same, in whatever order the rows come.
    """
    with spilling("numbering rejected rows") as con:
        con.register("spooled", FrameStream(scan_batches(frames, REJECTS.polars())))
        for batch in framed(con.sql(_NUMBERED)):
            yield batch.cast(REJECTS.polars())

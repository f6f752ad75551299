"""Which row of several with equal keys counts.

Two passes: DuckDB finds, over keys and places alone and with room to spill, the rows that a later one supersedes;
then the rows stream past and those are left out. So memory holds places, not rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from headrace.errors import ConfigError, did_you_mean
from headrace.flow import FILE, LINE, PLACE
from headrace.stream import FrameStream, scan_batches, scan_generator
from headrace.stream.drawing import passed
from headrace.stream.spilling import spilling

if TYPE_CHECKING:
    from headrace.cursor import Latest

__all__ = ["check", "former", "newest"]

_RANK = "_headrace_rank"
_WORDS = {"file": _RANK, "line": LINE}


def check(schema: pl.Schema, latest: Latest) -> None:
    """Raises ConfigError for a column that is not there or cannot be compared, a word that is a column's name too."""
    columns = schema.names()
    if twofold := [c for c in latest.by if c in _WORDS and c in columns]:
        raise ConfigError(
            f'"latest": "by" says {twofold[0]!r}, which is a word for the row\'s place, and a column of the files too',
            hint=f'give the column another name: "rename": {{"{twofold[0]}": "{twofold[0]}_no"}}',
        )
    for name in (*latest.keys, *(c for c in latest.by if c not in _WORDS)):
        if name not in columns:
            there = ", ".join(c for c in columns if c not in PLACE)
            raise ConfigError(
                f'"latest" names a column {name!r} that no file has',
                hint=did_you_mean(name, columns, otherwise=f"the files have {there}"),
            )
    if wide := [c for c in (*latest.keys, *latest.by) if schema.get(c) in (pl.Int128, pl.UInt128)]:
        raise ConfigError(
            f'"latest" names the column {wide[0]!r}, an integer of 128 bits, which cannot be compared there',
            hint=f'declare it: "types": {{"{wide[0]}": "decimal(38, 0)"}}',
        )


def newest(
    placed: pl.LazyFrame, latest: Latest, files: Sequence[str], doubtful: frozenset[str] = frozenset()
) -> pl.LazyFrame:
    """The rows of `placed` that no later one with equal keys supersedes. `files` in the order in which they count.

    `doubtful` are columns for whose values a row may be refused, if they are read: a row that is refused supersedes
    nothing, so who looks for later rows reads what the rows themselves are read with.
    """
    schema = placed.collect_schema()
    check(schema, latest)
    ranks = pl.DataFrame({FILE: list(files), _RANK: range(len(files))}, schema={FILE: pl.String, _RANK: pl.Int64})

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        chosen = schema.names() if columns is None else columns
        roots = predicate.meta.root_names() if predicate is not None else []
        old = _superseded(placed, latest, ranks, doubtful.intersection([*chosen, *roots]))
        rows = placed.join(old.lazy(), on=PLACE, how="anti", maintain_order="left")
        yield from passed(rows, chosen, predicate, n_rows)

    return scan_generator(read, schema)


def _superseded(placed: pl.LazyFrame, latest: Latest, ranks: pl.DataFrame, judged: frozenset[str]) -> pl.DataFrame:
    """The places (file, line) of the rows that a later one supersedes; rows refused for `judged` are none."""
    by = [_WORDS.get(c, c) for c in latest.by]
    needed = dict.fromkeys([*PLACE, *latest.keys, *(c for c in by if c not in _WORDS.values())])
    read = [*needed, *(judged - needed.keys())]
    # a scan that knows of no columns to leave out: those that are judged alone would not be read
    rows = scan_batches(lambda: passed(placed, read), placed.select(read).collect_schema())
    narrow = rows.select(*needed).filter(pl.all_horizontal(pl.col(latest.keys).is_not_null()))
    ranked = narrow.join(ranks.lazy(), on=FILE, how="left")
    # by names of their own: DuckDB takes two that differ in case alone for one
    keys = {f"k{i}": c for i, c in enumerate(latest.keys)}
    order = {c if c in _WORDS.values() else f"b{i}": c for i, c in enumerate((*by, _RANK, LINE))}
    named = ranked.select(pl.col(c).alias(name) for name, c in {_RANK: _RANK, LINE: LINE, **keys, **order}.items())
    descending = ", ".join(f"{name} DESC NULLS LAST" for name in order)
    query = (
        f"SELECT {_RANK}, {LINE} FROM rows"
        f" QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {descending}) > 1"
    )
    with spilling("finding the latest rows") as con:
        con.register("rows", FrameStream(named))
        found: pl.DataFrame = con.sql(query).pl()
    return found.join(ranks, on=_RANK).select(PLACE)


def former(old: pl.LazyFrame, new: pl.LazyFrame, latest: Latest) -> pl.LazyFrame:
    """The rows of `old` that share their keys with a row of `new`."""
    keys = list(latest.keys)
    check(old.collect_schema(), latest)
    wanted = new.select(keys).filter(pl.all_horizontal(pl.col(keys).is_not_null())).unique()
    return old.join(wanted, on=keys, how="semi", maintain_order="left")

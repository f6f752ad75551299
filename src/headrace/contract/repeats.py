"""Values that stand in more than one row: found before the rows are split, in DuckDB, which spills to disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from headrace.exact import cast, to_text
from headrace.stream import FrameStream
from headrace.stream.spilling import spilling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headrace.logical import Type
    from headrace.schema import Schema

__all__ = ["Repeats"]

_AS_THEY_ARE = (
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "decimal", "bool",
    "string", "json", "binary",
)  # fmt: skip
_COUNTS = ("date", "time", "datetime", "duration")


class Repeats:
    """The repeated values of sets of columns, in memory: one row for each value that stands in several rows.

    `rows` is the frame (with the types of `schema`), `sets` name the sets of columns. A NULL in any of its columns
    keeps a row out. `existing` gives columns of rows that are there already: a value that stands there too repeats.
    """

    def __init__(
        self,
        rows: pl.LazyFrame,
        schema: Schema,
        sets: Mapping[str, Sequence[str]],
        existing: Callable[[Sequence[str]], pl.LazyFrame] | None = None,
    ) -> None:
        self._schema = schema
        self._sets = sets
        self._found = {name: self._find(rows, columns, existing) for name, columns in sets.items()}

    def columns(self, rows: pl.DataFrame) -> list[pl.Series]:
        """For each set, whether the row's values repeat (Boolean), under the set's name."""
        made = []
        for name, columns in self._sets.items():
            found = self._found[name]
            if found.is_empty():
                made.append(pl.Series(name, [False], dtype=pl.Boolean).new_from_index(0, rows.height))
                continue
            values = rows.select(self._values(columns))
            marked = values.join(
                found.with_columns(pl.lit(value=True).alias(name)), on=values.columns, how="left", maintain_order="left"
            )
            made.append(marked[name].fill_null(value=False))
        return made

    def _values(self, columns: Sequence[str]) -> list[pl.Expr]:
        """The columns as values that DuckDB compares exactly, as ``v0``, ``v1`` and so on."""
        return [_comparable(pl.col(c), self._schema[c]).alias(f"v{i}") for i, c in enumerate(columns)]

    def _find(
        self,
        rows: pl.LazyFrame,
        columns: Sequence[str],
        existing: Callable[[Sequence[str]], pl.LazyFrame] | None,
    ) -> pl.DataFrame:
        names = [f"v{i}" for i in range(len(columns))]
        listed = ", ".join(names)
        query = f"SELECT {listed} FROM new GROUP BY ALL HAVING count(*) > 1"
        with spilling("looking for repeated values") as con:
            con.register("new", FrameStream(rows.select(self._values(columns)).drop_nulls()))
            if existing is not None:
                con.register("old", FrameStream(self._present(existing(columns), columns)))
                query += f" UNION SELECT {listed} FROM old SEMI JOIN new USING ({listed})"
            found = pl.from_arrow(con.sql(query).to_arrow_table())
        assert isinstance(found, pl.DataFrame)  # noqa: S101  # a table is a frame
        schema = rows.select(self._values(columns)).collect_schema()
        return found.cast(schema)

    def _present(self, frame: pl.LazyFrame, columns: Sequence[str]) -> pl.LazyFrame:
        """The same columns of another frame, cast to the same types; what does not fit cannot repeat."""
        held = type(self._schema).of_polars(frame.select(columns).collect_schema())
        casts = [cast(pl.col(c), held[c], self._schema[c]).alias(c) for c in columns]
        return frame.select(casts).select(self._values(columns)).drop_nulls()


def _comparable(value: pl.Expr, type: Type) -> pl.Expr:
    if type.name in _AS_THEY_ARE:
        return value
    return value.to_physical().cast(pl.Int64) if type.name in _COUNTS else to_text(value, type)

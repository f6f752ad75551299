"""Rows as CSV, NDJSON and Arrow IPC, and back: every value exactly, or refused with the column's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headrace.errors import DataError, SchemaError
from headrace.exact import from_text, to_text
from headrace.logical import Type
from headrace.schema import Schema

if TYPE_CHECKING:
    from headrace.systems.outfile import Format

__all__ = ["check_types", "check_values", "encode", "scan"]

_NESTED = ("list", "array", "struct")
_MOMENTS = ("date", "time", "datetime", "duration")
_JSON_NATIVE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "bool",
                "string", "json", "categorical", "enum", "null", *_NESTED)  # fmt: skip
_SMALL = ("int8", "int16", "uint8", "uint16")  # Polars' reader of NDJSON panics on some of them


def check_types(schema: Schema, format: Format) -> None:
    """Raise SchemaError for a column that the format cannot hold exactly."""
    for field in schema:
        if problem := _problem(field.type, format, nested=False):
            raise SchemaError(
                f"column {field.name!r} is {field.type}: {problem}",
                hint="cast it in a transform, or write Parquet or DuckDB",
                details={"column": field.name, "type": str(field.type)},
            )


def _problem(type: Type, format: Format, *, nested: bool) -> str | None:
    name = type.name
    if name == "int128":
        return "no Arrow stream carries it"
    if format in ("csv", "tsv"):
        return f"{format.upper()} cannot hold it exactly" if name in (*_NESTED, "binary") else None
    if name == "array" and type.args[1] == 0:
        return "an array of width 0"
    if format == "ndjson":
        if name == "binary" or (nested and name in (*_MOMENTS, "decimal", "json")):
            return "JSON cannot hold it exactly"
        if name == "struct" and not type.args:
            return "a struct without fields"
    inner = [a[1] if name == "struct" else a for a in type.args] if name in _NESTED else []
    return next((p for t in inner if isinstance(t, Type) and (p := _problem(t, format, nested=True))), None)


def check_values(rows: pl.DataFrame, schema: Schema, format: Format) -> None:
    """Raise DataError for values that the format cannot hold: NaN and infinities in JSON."""
    if format != "ndjson":
        return
    for field in schema:
        if _endless(rows[field.name], field.type):
            raise DataError(
                f"column {field.name!r} holds NaN or an infinity, which JSON does not have",
                hint="make nulls of them in a transform, cast the column to string, or write CSV, IPC or Parquet",
                details={"column": field.name},
            )


def _endless(values: pl.Series, type: Type) -> bool:
    match type.name:
        case "float32" | "float64":
            return bool((~values.is_finite()).any())
        case "list":
            return _endless(values.explode(), type.args[0])
        case "array":
            return _endless(values.arr.to_list().explode(), type.args[0])
        case "struct":
            return any(_endless(values.struct.field(name), inner) for name, inner in type.args)
    return False


def encode(schema: Schema, format: Format) -> Callable[[pl.LazyFrame, Path], None]:
    """What writes a frame of these columns to a file, batch by batch."""

    def write(frame: pl.LazyFrame, path: Path) -> None:
        match format:
            case "csv" | "tsv":
                separator = "," if format == "csv" else "\t"
                texts = frame.select(to_text(pl.col(f.name), f.type) for f in schema)
                texts.sink_csv(path, separator=separator, quote_style="necessary", maintain_order=True)
            case "ndjson":
                frame.select(_json(f.name, f.type) for f in schema).sink_ndjson(path, maintain_order=True)
            case "ipc":
                frame.sink_ipc(path, maintain_order=True)

    return write


def _json(name: str, type: Type) -> pl.Expr:
    return pl.col(name) if type.name in _JSON_NATIVE else to_text(pl.col(name), type)


def scan(path: Path, schema: Schema, format: Format) -> pl.LazyFrame:
    """The rows of a file that `encode` wrote."""
    match format:
        case "csv" | "tsv":
            texts = pl.scan_csv(
                path,
                separator="," if format == "csv" else "\t",
                schema=dict.fromkeys(schema.names, pl.String),
                has_header=False,  # it is skipped: Polars leaves the quotes of a quoted name doubled
                skip_rows=1,
                glob=False,
            )
            return texts.select(from_text(pl.col(f.name), f.type).alias(f.name) for f in schema)
        case "ndjson":
            kept = {f.name: _json_type(f.type) for f in schema}
            rows = pl.scan_ndjson(path, schema=kept) if path.stat().st_size else pl.LazyFrame(schema=kept)
            return rows.select(_from_json(f.name, f.type) for f in schema)
    return pl.scan_ipc(path)


def _json_type(type: Type) -> pl.DataType:
    if type.name in _SMALL:
        return pl.Int64()
    plain = type.name in _JSON_NATIVE and type.name not in ("categorical", "enum")
    return type.polars() if plain else pl.String()


def _from_json(name: str, type: Type) -> pl.Expr:
    if type.name in _SMALL:
        return pl.col(name).cast(type.polars())
    return pl.col(name) if _json_type(type) == type.polars() else from_text(pl.col(name), type).alias(name)

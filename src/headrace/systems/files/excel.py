"""A sheet of an Excel file, exactly: what a cell's type cannot hold is refused by the cell's name."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import ConfigError, DataError

if TYPE_CHECKING:
    from headrace.systems.files import FileSource
    from headrace.systems.files.paths import File

__all__ = ["sheet"]

_NUMBERS = ("float", "int")
logging.getLogger("fastexcel").setLevel(logging.ERROR)  # it warns of every empty column, at every look


def sheet(source: FileSource, file: File) -> pl.DataFrame | None:
    """The rows of the source's sheet; None where the file is no whole Excel file.

    Numbers are float64, as Excel keeps them; a column of numbers and other values is text. A column without name and
    values is left out. Raises DataError for a cell that holds an error, a name that stands twice, and a name that is
    missing; ConfigError for a sheet that is not there, and where fastexcel is not installed.
    """
    try:
        fastexcel = importlib.import_module("fastexcel")
    except ImportError:
        raise ConfigError("Excel files need the package fastexcel", hint='pip install "headrace[excel]"') from None
    options: dict[str, Any] = {"schema_sample_rows": None, "dtype_coercion": "coerce"}
    header = source.header
    options["header_row"] = source.skip_rows if header is True else None
    if header is not True and source.skip_rows:
        options["skip_rows"] = source.skip_rows
    if isinstance(header, tuple):
        options["column_names"] = list(header)
    try:
        book = fastexcel.read_excel(str(file.path))
        wanted = source.sheet if source.sheet is not None else 0
        if isinstance(wanted, str) and wanted not in book.sheet_names:
            raise ConfigError(
                f"file {file.name!r} has no sheet {wanted!r}", hint=f"it has {', '.join(book.sheet_names)}"
            )
        if header is True:
            _check_names(book, wanted, source.skip_rows, file)
        loaded = book.load_sheet(wanted, **options)
        if mixed := _mixed(book, wanted, loaded, options):
            loaded = book.load_sheet(wanted, **options, dtypes=dict.fromkeys(mixed, "string"))
        frame = _named(loaded, file, source.skip_rows + (header is True))
    except fastexcel.FastExcelError:
        return None
    return frame.head(max(0, frame.height - source.skip_footer))


def _check_names(book: Any, wanted: str | int, row: int, file: File) -> None:
    """The header as it stands: fastexcel would give a name that stands twice a number."""
    top = book.load_sheet(wanted, header_row=None, skip_rows=row, n_rows=1, dtypes="string").to_polars()
    names = Counter(n for n in (top.row(0) if top.height else ()) if n is not None)
    if double := [n for n, times in names.items() if times > 1]:
        raise DataError(
            f"file {file.name!r}: its header repeats {double[0]!r}", hint=_OWN_NAMES, details={"file": file.name}
        )


def _mixed(book: Any, wanted: str | int, loaded: Any, options: dict[str, Any]) -> list[str]:
    """Columns taken for numbers that hold true or false too: they would come as 1 and 0."""
    numbers = [c.name for c in loaded.selected_columns if c.dtype in _NUMBERS]
    if not numbers:
        return []
    texts = book.load_sheet(wanted, **options | {"dtypes": dict.fromkeys(numbers, "string")}).to_polars()
    return [n for n in numbers if texts[n].is_in(["true", "false"]).any()]


def _named(loaded: Any, file: File, above: int) -> pl.DataFrame:
    """The rows under their names; `above` says how many lines stand above them."""
    batch, errors = loaded.to_arrow_with_errors()
    if errors is not None and errors.errors:
        first = errors.errors[0]
        row, column = first.offset_position[0] + above, first.offset_position[1]
        more = f", and {len(errors.errors) - 1} more" if len(errors.errors) > 1 else ""
        raise DataError(
            f"file {file.name!r}: cell {_letters(column)}{row + 1} holds an error (such as #DIV/0!){more}",
            hint="mend the formula, or leave the cell empty",
            details={"file": file.name, "row": row + 1, "column": column + 1},
        )
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  # a record batch has columns
    for column in loaded.selected_columns:
        if column.column_name_from != "generated":
            continue
        if frame[column.name].null_count() < frame.height:
            raise DataError(
                f"file {file.name!r}: its header does not name column {_letters(column.index)}",
                hint=_OWN_NAMES,
                details={"file": file.name, "column": column.index + 1},
            )
        frame = frame.drop(column.name)
    return frame


def _letters(column: int) -> str:
    """The name that Excel gives to the column of this number, from 0 on."""
    column, last = divmod(column, 26)
    return (_letters(column - 1) if column else "") + chr(ord("A") + last)


_OWN_NAMES = 'give the names yourself, and skip the header: "header": ["a", "b", …], "skip_rows": 1'

"""A sheet of an Excel file, exactly: what a cell's type cannot hold is refused by the cell's name."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from headrace.errors import ConfigError, DataError
from headrace.logical import parse_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.systems.files import FileSource
    from headrace.systems.files.paths import File

__all__ = ["Sheet", "sheet"]

_NUMBERS = ("float", "int")
logging.getLogger("fastexcel").setLevel(logging.ERROR)  # it warns of every empty column, at every look


class Sheet(NamedTuple):
    """Rows of a sheet, and how many of its lines stand above the first of them."""

    rows: pl.DataFrame
    above: int


def sheet(source: FileSource, file: File) -> Sheet | None:
    """The rows of the source's sheet; None where the file is no whole Excel file.

    Numbers are float64, as Excel keeps them. A column of numbers and other values is text, and so is one that is
    declared as text: 1234 is then '1234' whatever its neighbours. A column without name and values is left out.

    Raises DataError for a cell that holds an error, a name that stands twice, and a name that is missing; ConfigError
    for a sheet that is not there, and where fastexcel is not installed.
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
        loaded = book.load_sheet(wanted, **options)
        grid = book.load_sheet(wanted, header_row=None, skip_rows=0, dtypes="string")
        if grid.height < source.skip_rows:  # of a sheet with a header fastexcel takes this for one without columns
            return None
        above = grid.height - loaded.height
        texts = _texts(grid)
        if header is True:
            _check_names([column[above - 1] for column in texts.values()] if above else [], file)
        texts = {at: column[above:] for at, column in texts.items()}
        frame = _named(loaded, file, above)
        doubtful = _doubtful(loaded, texts, source)
        if doubtful:
            floats = book.load_sheet(wanted, **options, dtypes=dict.fromkeys(doubtful, "float")).to_polars()
            frame = frame.with_columns([_exact(texts[at], floats[name]).alias(name) for name, at in doubtful.items()])
    except fastexcel.FastExcelError:
        return None
    return Sheet(frame.head(max(0, frame.height - source.skip_footer)), above)


def _texts(grid: Any) -> dict[int, pl.Series]:
    """The columns of all of a sheet, from its row 1 on, by their number in it."""
    frame = grid.to_polars()
    return {c.absolute_index: frame.to_series(at) for at, c in enumerate(grid.selected_columns)}


def _check_names(names: Sequence[str | None], file: File) -> None:
    """The header as it stands: fastexcel would give a name that stands twice a number."""
    counted = Counter(n for n in names if n is not None)
    if double := [n for n, times in counted.items() if times > 1]:
        raise DataError(
            f"file {file.name!r}: its header repeats {double[0]!r}", hint=_OWN_NAMES, details={"file": file.name}
        )


def _doubtful(loaded: Any, texts: Mapping[int, pl.Series], source: FileSource) -> dict[str, int]:
    """Columns of texts that may hold numbers too, and of numbers that are declared as texts or hold true or false too
    (they would come as 1 and 0), with their number in the sheet.
    """
    return {
        c.name: c.absolute_index
        for c, text in [(c, texts[c.absolute_index]) for c in loaded.selected_columns]
        if (c.dtype == "string" and _read(text).is_not_null().any())
        or (c.dtype in _NUMBERS and (_is_text(source, c.name) or text.is_in(["true", "false"]).any()))
    }


def _is_text(source: FileSource, name: str) -> bool:
    """Whether the column of this name in the file is declared as one of texts."""
    declared = {source.rename.get(n, n): t for n, t in source.text_types.items()}.get(source.rename.get(name, name))
    return declared is not None and parse_type(declared.type).name in ("string", "categorical", "enum")


def _read(texts: pl.Series) -> pl.Series:
    return texts.cast(pl.Float64, strict=False)


def _exact(texts: pl.Series, numbers: pl.Series) -> pl.Series:
    """A column's texts, its numbers in their shortest text that reads back to them.

    `numbers` are its cells as fastexcel reads them for floats: a text that looks like a number too, and stays as it is.
    """
    # fastexcel rounds a number to nine decimals; a text reads as the number that it is, true and dates as none at all
    lost = (_read(texts) != numbers).fill_null(value=False)
    given = texts.to_list()
    for at, number in zip(lost.arg_true().to_list(), numbers.filter(lost).to_list(), strict=True):
        given[at] = repr(number)
    return pl.Series(texts.name, given, dtype=pl.String)


def _named(loaded: Any, file: File, above: int) -> pl.DataFrame:
    """The rows under their names; `above` says how many lines of the sheet stand above them."""
    batch, errors = loaded.to_arrow_with_errors()
    if errors is not None and errors.errors:
        first = errors.errors[0]
        row, column = first.offset_position[0] + above, loaded.selected_columns[first.offset_position[1]].absolute_index
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
                f"file {file.name!r}: its header does not name column {_letters(column.absolute_index)}",
                hint=_OWN_NAMES,
                details={"file": file.name, "column": column.absolute_index + 1},
            )
        frame = frame.drop(column.name)
    return frame


def _letters(column: int) -> str:
    """The name that Excel gives to the column of this number, from 0 on."""
    column, last = divmod(column, 26)
    return (_letters(column - 1) if column else "") + chr(ord("A") + last)


_OWN_NAMES = 'give the names yourself, and skip the header: "header": ["a", "b", …], "skip_rows": 1'

"""Parquet, Arrow IPC and Excel: typed columns, scanned lazily where Polars can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import ConfigError, DataError
from headrace.schema import Schema

if TYPE_CHECKING:
    from headrace.systems.files import FileSource
    from headrace.systems.files.paths import File

__all__ = ["ColumnarReader"]

_IPC_FILE = b"ARROW1"
_IPC_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


@dataclass(frozen=True)
class ColumnarReader:
    """Reads files whose columns have types of their own."""

    source: FileSource
    format: str

    def schema(self, file: File) -> Schema:
        """The file's columns. Raises DataError naming a file that is broken or cut off."""
        self._check_whole(file)
        try:
            found = Schema.of_polars(self.scan(file).collect_schema())
        except pl.exceptions.PanicException as error:
            raise _unreadable(file) from error
        except pl.exceptions.PolarsError as error:
            raise _broken(file, self.format) from error
        except OSError as error:
            raise _broken(file, self.format) from error
        try:
            pl.DataFrame(schema=found.polars())
        except pl.exceptions.PolarsError as error:
            raise _unreadable(file) from error
        return found

    def rows(self, file: File) -> int | None:
        """How many rows it has, where that costs nothing."""
        if self.format != "parquet":
            return None
        return int(pl.scan_parquet(file.path, glob=False).select(pl.len()).collect().item())

    def scan(self, file: File) -> pl.LazyFrame:
        """The file's rows, lazily where the format can."""
        if self.format == "parquet":
            return pl.scan_parquet(file.path, glob=False, hive_partitioning=False)
        if self.format == "ipc":
            return self._ipc(file)
        return self._excel(file)

    def _ipc(self, file: File) -> pl.LazyFrame:
        with file.path.open("rb") as raw:
            as_file = raw.read(len(_IPC_FILE)) == _IPC_FILE
        if as_file:
            return pl.scan_ipc(file.path, glob=False, hive_partitioning=False)
        return pl.read_ipc_stream(file.path).lazy()

    def _check_whole(self, file: File) -> None:
        """A writer that was killed leaves a file that may read well up to where it ends."""
        if self.format == "excel":
            return
        with file.path.open("rb") as raw:
            head = raw.read(8)
            raw.seek(max(file.size - 8, 0))
            tail = raw.read(8)
        whole = {
            "parquet": head[:4] == tail[-4:] == b"PAR1",
            "ipc": tail[-6:] == _IPC_FILE if head[:6] == _IPC_FILE else tail == _IPC_END,
        }[self.format]
        if not whole:
            raise _broken(file, self.format)

    def _excel(self, file: File) -> pl.LazyFrame:
        try:
            import fastexcel
        except ImportError:
            raise ConfigError("Excel files need the package fastexcel", hint='pip install "headrace[excel]"') from None
        options: dict[str, Any] = {"schema_sample_rows": None, "dtype_coercion": "coerce"}
        header = self.source.header
        options["header_row"] = self.source.skip_rows if header is True else None
        if header is not True and self.source.skip_rows:
            options["skip_rows"] = self.source.skip_rows
        if isinstance(header, tuple):
            options["column_names"] = list(header)
        try:
            book = fastexcel.read_excel(str(file.path))
            sheet = self.source.sheet if self.source.sheet is not None else 0
            if isinstance(sheet, str) and sheet not in book.sheet_names:
                raise ConfigError(
                    f"file {file.name!r} has no sheet {sheet!r}", hint=f"it has {', '.join(book.sheet_names)}"
                )
            frame: pl.DataFrame = book.load_sheet(sheet, **options).to_polars()
        except fastexcel.FastExcelError as error:
            raise _broken(file, self.format) from error
        footer = self.source.skip_footer
        return (frame.head(frame.height - footer) if footer else frame).lazy()


def _unreadable(file: File) -> DataError:
    return DataError(
        f"file {file.name!r} has a column of a type that cannot be read",
        hint="decimals of more than 38 digits and time zones that are offsets (+05:30) must be converted first",
        details={"file": file.name},
    )


def _broken(file: File, format: str) -> DataError:
    return DataError(
        f"file {file.name!r} is no whole {format} file: cut off, broken, or something else",
        hint="write it again; a file that is still being written is left alone with " + '"settle": "5m"',
        details={"file": file.name},
    )

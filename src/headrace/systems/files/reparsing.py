"""Raw records through the parser again: for quarantined lines that were mended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import ConfigError, DataError
from headrace.flow import PLACE, Batch, Counts, Frame, News, Position, Retold
from headrace.stream import scan_batches
from headrace.stream.spool import Spool
from headrace.systems.files.columnar import ColumnarReader
from headrace.systems.files.csv import CSVReader
from headrace.systems.files.layout import Converted, Layout, convert, placed
from headrace.systems.files.naming import root_of
from headrace.systems.files.paths import File, find
from headrace.systems.files.scan import reject_rows
from headrace.systems.files.survey import Survey, renamed, survey

if TYPE_CHECKING:
    from headrace.systems.files import FileSource

__all__ = ["reparsed"]


def reparsed(source: FileSource, texts: pl.DataFrame, after: Position | None, before: Any, name: str) -> Batch:
    """See `FileSource.reparse`."""
    root = root_of(source, after, before)
    files = find(source.patterns, source.base, format=source.format, allow_missing=True, root=root)
    if not files:
        raise DataError("no file is left that says what the columns are", hint="put one back, or mend the rows by hand")
    looked = survey(source, files, dict((after or {}).get("types") or {}))
    if isinstance(looked.reader, ColumnarReader):
        raise ConfigError(
            f"{looked.format} rows have no raw text to read again", hint="mend the file, and read it again"
        )
    by_name = {f.name: f for f in files}
    spool = Spool()
    layout = placed(looked.layout)

    def read() -> Iterator[pl.DataFrame]:
        with spool.passed() as spooled:
            for (file,), rows in texts.group_by("file", maintain_order=True):
                made = _parsed(source, looked, layout, by_name, str(file), rows)
                if made.rejects:
                    spooled.write(reject_rows(made.rejects, name))
                yield made.frame

    rows = scan_batches(read, layout.schema.polars())
    return Batch(
        frame=Frame(lazy=rows.drop(PLACE), placed=rows),
        news=News(rows=texts.height, empty=texts.is_empty()),
        position=lambda: dict(after or {}),
        counts=lambda: Counts(rows=texts.height),
        rejects=lambda: Retold(frames=spool.frames),
        files=tuple,
    )


def _parsed(
    source: FileSource, looked: Survey, layout: Layout, by_name: Mapping[str, File], name: str, rows: pl.DataFrame
) -> Converted:
    """The records of one file; of a file that has gone as those of the first, where no header told its fields."""
    reader = looked.reader
    assert not isinstance(reader, ColumnarReader)  # noqa: S101  # refused before
    if name not in by_name and isinstance(reader, CSVReader) and source.header is True:
        raise DataError(
            f"file {name!r} has gone, and with it the header that says which field is which",
            hint="put it back; or put the mended lines into a new file with a header, and --discard these",
            details={"file": name},
        )
    file = by_name.get(name) or next(iter(by_name.values()))
    head = looked.heads[file.name]
    fields = renamed(source, file, head.fields)
    records = list(zip(rows["line"].to_list(), rows["row"].to_list(), strict=True))
    place = file._replace(name=name)
    piece = reader.parse(place, fields, records, head=head)
    return convert(piece, layout, layout.columns, place, fields)

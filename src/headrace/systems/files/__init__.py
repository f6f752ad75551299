"""The `files` source: CSV, TSV, NDJSON, JSON, Parquet, Arrow IPC and Excel, read once each, or by a cursor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.cursor import Cursor, Latest, TextType
from headrace.errors import ConfigError
from headrace.frozen import frozen
from headrace.logical import check_type
from headrace.paths import Place, refuse_no_path

if TYPE_CHECKING:
    import polars as pl

    from headrace.contract import Contract
    from headrace.flow import Batch, Position, Range, Snapshot

__all__ = ["FileSource"]

Format = Literal["csv", "tsv", "ndjson", "json", "parquet", "ipc", "excel"]


@frozen(kw_only=True)
class FileSource:
    """Rows from files: `path` is a glob, a folder, a file, or a list of them, relative to `base`.
    They lie on this machine: object storage is not read yet.

    What is new: each file once (by name, size and time of change), or with `cursor` the rows beyond its last value.
    With `read` ``"all"`` every file is read at every run. `format` is by default what the extension says, ``.gz``
    and ``.zst`` aside. Columns are unioned by name over the files.

    Which rows count: `latest` says that a row supersedes an earlier one with equal keys (see `Batch.whole` and
    `Batch.former`). `changed` says what becomes of a file that was read and has changed since: it is refused, or
    read again. A file younger than `settle` ("5m") is not new yet. A path that matches nothing is refused unless
    `allow_missing`.

    Text formats: `types` by column (``"int64"`` or a `TextType`); other columns are inferred strictly from the first
    `infer` rows, or from ``"all"``. A value that its type cannot hold exactly, and a line that is malformed, becomes
    a ``parse`` reject with file, line and raw text. `nulls` are texts that mean null (an unquoted empty one always
    does); `decimal` is the decimal point.
    CSV: `header` is False, or the names where the files have none; `delimiter` is guessed where it is not given (the
    plan says so); `quote` None reads without quotes; `skip_rows` and `skip_footer` are physical lines.
    Excel: `sheet` by name, the first by default; numbers are float64, and among texts or declared as text `1234`, with
    all their digits. A cell that holds an error is refused. A row's `line` is its row in the sheet.

    `add_columns` map a new column to ``file``, ``line`` or ``modified``; `rename` old names to new ones (`types` and
    the rest speak of the new); `hive` takes the ``a=b`` folders as columns (None: where there are any).
    """

    type: ClassVar[str] = "files"
    outward: ClassVar[frozenset[str]] = frozenset(("path", "read", "settle", "changed", "allow_missing", "block"))
    path: str | tuple[str, ...]
    format: Format | None = None
    read: Literal["new", "all"] = "new"
    cursor: str | Cursor | None = None
    latest: Latest | None = None
    contract: Contract | None = None
    types: Mapping[str, str | TextType] = field(
        default_factory=dict, metadata={"doc": "by column, one of the [types](#types)"}
    )
    infer: int | Literal["all"] = 10_000
    header: bool | tuple[str, ...] = True
    delimiter: str | None = None
    quote: str | None = '"'
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ()
    decimal: Literal[".", ","] = "."
    skip_rows: int = 0
    skip_footer: int = 0
    sheet: str | None = None
    settle: str | None = None
    add_columns: Mapping[str, Literal["file", "line", "modified"]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    hive: bool | None = None
    changed: Literal["refuse", "reread"] = "refuse"
    allow_missing: bool = False
    base: Path | None = None
    block: int | None = field(default=None, metadata={"json": False})

    def __post_init__(self) -> None:
        if isinstance(self.cursor, str):
            object.__setattr__(self, "cursor", Cursor(column=self.cursor))
        for name in ("path", "header", "nulls"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        for pattern in self.patterns or ("",):
            refuse_no_path(pattern, "files source")
        if self.cursor is not None and self.latest is not None:
            raise ConfigError(
                '"cursor" and "latest" exclude each other', hint="latest is for files that are each read once"
            )
        self._check_words()
        self._check_numbers()

    def _check_words(self) -> None:
        for column, name in self.types.items():
            if isinstance(name, str):
                check_type(name, "types", column)
        for column, word in self.add_columns.items():
            if word not in ("file", "line", "modified"):
                raise ConfigError(f'"add_columns": {column!r} cannot be {word!r}', hint="use file, line or modified")
        for name in ("delimiter", "quote"):
            text = getattr(self, name)
            if text is not None and (len(text.encode()) != 1 or text in "\r\n"):
                raise ConfigError(f'"{name}" must be one character, not {text!r}', hint='write e.g. ";" or "\\t"')
        if self.quote is not None and self.quote == self.delimiter:
            raise ConfigError('"quote" and "delimiter" are the same', hint='"quote": null reads without quotes')

    def _check_numbers(self) -> None:
        for name in ("skip_rows", "skip_footer"):
            if getattr(self, name) < 0:
                raise ConfigError(f'"{name}" cannot be {getattr(self, name)}', hint="it is a number of lines")
        if self.infer != "all" and (not isinstance(self.infer, int) or not 1 <= self.infer < 2**63):
            raise ConfigError(f'"infer" cannot be {self.infer!r}', hint='give a number of rows, or "all"')

    @property
    def patterns(self) -> tuple[str, ...]:
        """The paths as they were written."""
        return (self.path,) if isinstance(self.path, str) else tuple(self.path)

    @property
    def text_types(self) -> Mapping[str, TextType]:
        """`types`, each in full."""
        return {n: t if isinstance(t, TextType) else TextType(type=t) for n, t in self.types.items()}

    @property
    def unrenamed(self) -> Mapping[str, str]:
        """From a name in the result to the name in the files, where they differ."""
        return {new: old for old, new in self.rename.items()}

    def batches(self, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]:
        """What is new. One batch; with ``range.batch_bytes``, several, cut between files. See `Source.batches`.

        Position: ``{"files": n, "types": {…}}`` (the inferred types go on to the next run), or the cursor's.
        """
        from headrace.systems.files.reading import batches

        return batches(self, range, snapshot, name)

    def reparse(
        self, texts: pl.DataFrame, *, after: Position | None = None, before: Any = None, name: str = "source"
    ) -> Batch:
        """Raw records (columns file, line, row) through the same parser and types; `after` is the last position,
        `before` the identity that the source had then.

        What is still no good is among the batch's rejects, under the id that it had.
        """
        from headrace.systems.files.reparsing import reparsed

        return reparsed(self, texts, after, before, name)

    @property
    def cuts(self) -> bool:
        """Whether several commits may be made of what is new: between files, where each is read once."""
        return self.cursor is None and self.read == "new"

    @property
    def rereads(self) -> frozenset[str] | None:
        """The columns that name a row's file, where changed files are read again."""
        if self.changed != "reread":
            return None
        return frozenset(column for column, what in self.add_columns.items() if what == "file")

    def confirm(self, positions: Mapping[str, Position]) -> None:
        """Nothing to do: what was read is the destination's to remember."""

    def identity(self) -> Any:
        """The paths as they were written."""
        return {"type": "files", "path": list(self.patterns)}

    def places(self) -> Sequence[Place]:
        """The patterns; what is no pattern may be a folder, and is then all below it."""
        return [Place(system="files", where=f"{Place.absolute(self.base, path)}/**") for path in self.patterns]

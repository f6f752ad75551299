"""Single files: `FileDestination` writes a whole table into one CSV, NDJSON or Arrow IPC file, atomically.

    report.csv
    report.csv.headrace/      the log: see `headrace.journal`

The commit is the entry in the log, made while the new file lies whole and fsynced in the attempt's folder; then one
rename puts it in the place of the old one. Whoever opens ``report.csv`` sees the old file or the new one. A run killed
between entry and rename leaves the rename to the next run (the staged file is still there, and says so).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.errors import ConfigError
from headrace.frozen import frozen
from headrace.paths import Place, refuse_no_path, rooted

if TYPE_CHECKING:
    import polars as pl

    from headrace.flow import Commit, Receipt, Snapshot
    from headrace.journal import Journal
    from headrace.protocols import Holder

__all__ = ["FileDestination"]

Format = Literal["csv", "tsv", "ndjson", "ipc"]

_BY_EXTENSION: Mapping[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".arrow": "ipc",
    ".ipc": "ipc",
    ".feather": "ipc",
}
_INSTEAD = "one file is written whole: use replace; or a parquet or duckdb destination for this write"


@frozen(kw_only=True)
class FileDestination:
    """One file, replaced as a whole by each commit. Takes the write ``replace`` only.

    `format` is by default what the extension says. CSV and TSV: UTF-8, a header, null as nothing, an empty text as
    ``""``, quotes doubled, floats by their shortest round trip and ``NaN``, ``inf``, ``-inf``, times as ISO 8601 (with
    a zone: in UTC). NDJSON: decimals and times as texts; NaN and infinities are refused, since JSON has none.
    What a format cannot hold exactly is refused with the column's name. `base` is the folder that a relative `path` is
    relative to.
    """

    type: ClassVar[str] = "file"
    at_once: ClassVar[str] = "one entry of the file's log"
    readers: ClassVar[str] = "who opens the file sees the old one or the new one"
    path: str
    format: Format | None = None
    base: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        refuse_no_path(self.path, "file destination")
        known = ("csv", "tsv", "ndjson", "ipc")
        if self.format is not None and self.format not in known:
            raise ConfigError(f'"format" cannot be {self.format!r}', hint=f"one of {', '.join(known)}")
        if self.format is None and Path(self.path).suffix.lower() not in _BY_EXTENSION:
            raise ConfigError(
                f"{self.path!r}: the extension does not say what format to write",
                hint='say "format": "csv" (tsv, ndjson, ipc)',
            )

    def inspect(self, pipeline: str) -> Snapshot:
        """What the file holds now. A file that was removed by hand counts as never written."""
        from headrace.systems.outfile import table

        return table.inspect(self._journal, pipeline, self._format)

    def apply(self, commit: Commit) -> Receipt:
        """Put the commit's rows in the place of the file. See `headrace.protocols.Destination.apply`."""
        from headrace.systems.outfile import table

        return table.apply(self._journal, commit, self._format)

    def settle(self, pipeline: str, id: str) -> Receipt | None:  # noqa: ARG002  # the protocol's
        """What the log says of the commit."""
        return self._journal.settle(id)

    def hold(self, pipeline: str, holder: Holder) -> AbstractContextManager[None]:
        """Hold the file for one run, and clear what a killed one left."""
        from headrace.systems.outfile import table

        return table.hold(self._journal, pipeline, holder)

    def place(self) -> Place:
        """The file."""
        return Place(system="files", where=Place.absolute(self.base, self.path))

    def supports(self, write: str) -> str | None:
        """Replace alone."""
        return None if write == "replace" else _INSTEAD

    def record(self, run: Mapping[str, Any]) -> None:
        """Keep a run."""
        self._journal.record(run)

    def history(self, pipeline: str) -> Sequence[Mapping[str, Any]]:
        """Commits and runs of the pipeline, newest first."""
        return self._journal.history(pipeline)

    def rejects(self, pipeline: str) -> pl.DataFrame:
        """The rows now in quarantine, with the columns of `schema.REJECTS`."""
        return self._journal.rejects(pipeline)

    @property
    def _format(self) -> Format:
        return self.format or _BY_EXTENSION[Path(self.path).suffix.lower()]

    @property
    def _journal(self) -> Journal:
        from headrace.journal import Journal

        file = rooted(self.base, self.path)
        log = file.with_name(f"{file.name}.headrace")
        return Journal(log, where=file, place=lambda _name: file, overwrites=True)

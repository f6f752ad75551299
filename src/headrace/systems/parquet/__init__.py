"""Parquet folders: `ParquetDestination` writes them, `scan_table` reads whole commits of them.

    orders/
      0000000007-1f2e3d4c-0.parquet          rows of commit 7 (its number, the attempt's token, a count)
      day=2024-01-31/0000000008-….parquet    of a partition, where the write is `Partitions`
      _headrace/                             the log: see `headrace.journal`

A commit is its entry in the log, and the log says which files count; `scan_table` reads just these. The files get their
names in the table's folder right AFTER the entry, not before: a reader by glob then never sees rows that are not
committed, nor rows of a run that died. What it may see, for the blink between entry and names, is one commit that has
not arrived or has arrived in part; a run killed in that blink leaves the names to the next run. Files that a commit
removes go after its own have come, so that a replace by glob is doubled in that blink and never empty.

While anybody reads by `scan_table`, removed files are put aside in `_headrace/retired` and not deleted: the reader
finds them there. A lock says so (`journal.lease`), not a clock.

Files are flat and self-contained: partition columns stand in the file too, with their exact types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.frozen import frozen
from headrace.paths import Place, refuse_no_path, rooted

if TYPE_CHECKING:
    import polars as pl

    from headrace.flow import Commit, Receipt, Snapshot
    from headrace.journal import Journal
    from headrace.protocols import Holder

__all__ = ["ParquetDestination", "scan_table"]

_INSTEAD = "a plain Parquet folder takes append, replace and partitions; use a duckdb destination for this write"


@frozen(kw_only=True)
class ParquetDestination:
    """A table as a folder of Parquet files. The folder is made by the first run.

    Takes append, replace and partitions. `row_group_bytes` and `file_bytes` bound row groups (of at most a million
    rows) and files, measured before encoding and compression. `adopt` lets a second pipeline write to the same folder
    (then no load may take its rows away: append alone).
    `base` is the folder that a relative `path` is relative to.

    Read it by `headrace.scan_table` (whole commits only), or by any engine as ``path/**/*.parquet``.
    """

    type: ClassVar[str] = "parquet"
    at_once: ClassVar[str] = "one entry of the folder's log"
    readers: ClassVar[str] = "headrace.scan_table sees whole commits, but who reads by glob may see one arriving"
    path: str
    compression: Literal["zstd", "snappy", "gzip", "lz4", "uncompressed"] = "zstd"
    row_group_bytes: str | int = "16MB"
    file_bytes: str | int = "512MB"
    adopt: bool = False
    base: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        refuse_no_path(self.path, "parquet destination")

    def inspect(self, pipeline: str) -> Snapshot:
        """What the folder holds now. Raises ConfigError, RejectedError."""
        from headrace.systems.parquet import table

        return table.inspect(self._journal, pipeline, adopt=self.adopt)

    def apply(self, commit: Commit) -> Receipt:
        """Apply the commit as one entry of the log. See `headrace.protocols.Destination.apply`."""
        from headrace.systems.parquet import table

        return table.apply(self._journal, commit, self)

    def settle(self, pipeline: str, id: str) -> Receipt | None:  # noqa: ARG002  # the protocol's
        """What the log says of the commit."""
        return self._journal.settle(id)

    def hold(self, pipeline: str, holder: Holder) -> AbstractContextManager[None]:
        """Hold the folder for one run, and clear what a killed one left."""
        from headrace.systems.parquet import table

        return table.hold(self._journal, pipeline, holder, adopt=self.adopt)

    def place(self) -> Place:
        """The folder, and all below it."""
        return Place(system="files", where=f"{Place.absolute(self.base, self.path)}/**")

    def supports(self, write: str) -> str | None:
        """Append, replace and partitions; no table format is invented here."""
        return None if write in ("append", "replace", "partitions") else _INSTEAD

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
    def _journal(self) -> Journal:
        return _journal(rooted(self.base, self.path))


def scan_table(path: str | Path) -> pl.LazyFrame:
    """The table that headrace keeps in the folder `path`, as of its last commit.

    Lazy: columns and filters are pushed down. The frame stays at this commit: it can be collected again and again, and
    while it is alive later commits do not take its files away. Columns and types are the table's; files from before a
    column was added have nulls there.

    Raises ConfigError where headrace keeps no table.
    """
    from headrace.systems.parquet import scan

    return scan.scan_table(_journal(rooted(None, path)))


def _journal(folder: Path) -> Journal:
    from headrace.journal import Journal

    return Journal(folder / "_headrace", where=folder, place=lambda name: folder / name)

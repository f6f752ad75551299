"""DuckDB's exceptions as headrace's: one table, applied at this system's edge.

A driver's text may quote cells and file contents, so it is read here for what it means and never passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from headrace.errors import ConfigError, DataError, HeadraceError, RejectedError, UnavailableError
from headrace.stream import root
from headrace.transform.columns import NO_TIME

__all__ = ["BY_CLASS", "exhausted", "translated"]

_Verdict = tuple[type[HeadraceError], str, str]

_ROWS: _Verdict = (DataError, "a value does not fit its column", "look at the rows; declare the column's type")
_SQL: _Verdict = (ConfigError, "the statement does not fit the tables", "check names and types in the pipeline")
_BROKEN: _Verdict = (RejectedError, "DuckDB failed inside itself", "run again; keep the file if it comes back")
_BUSY: _Verdict = (UnavailableError, "another transaction is in the way", "run again")
_IO: _Verdict = (RejectedError, "the file cannot be read or written", "check the disk and the file's rights")

BY_CLASS: dict[str, _Verdict] = {
    "BinderException": _SQL,
    "CatalogException": _SQL,
    "ConnectionException": (
        UnavailableError,
        "the file is open in this process with other settings",
        "close that connection, or open it without read_only and config",
    ),
    "ConstraintException": (
        DataError,
        "a row breaks a constraint of the table",
        "look at its keys and NOT NULL columns",
    ),
    "ConversionException": _ROWS,
    "DataError": _ROWS,
    "DatabaseError": _BROKEN,
    "DependencyException": (ConfigError, "something else depends on the table", "drop what depends on it first"),
    "Error": _BROKEN,
    "FatalException": _BROKEN,
    "HTTPException": (UnavailableError, "a remote file did not answer", "run again"),
    "IOException": _IO,
    "IntegrityError": (DataError, "a row breaks a constraint of the table", "look at its keys and NOT NULL columns"),
    "InternalError": _BROKEN,
    "InternalException": _BROKEN,
    "InvalidInputException": _ROWS,
    "InvalidTypeException": _SQL,
    "NotImplementedException": _SQL,
    "NotSupportedError": _SQL,
    "OperationalError": _IO,
    "OutOfMemoryException": (
        RejectedError,
        "DuckDB ran out of memory, or of disk to spill to",
        "free space beside the database file",
    ),
    "OutOfRangeException": _ROWS,
    "ParserException": _SQL,
    "PermissionException": (RejectedError, "the operation is not permitted", "check the file's rights"),
    "ProgrammingError": _SQL,
    "ResourceInUseException": _BUSY,
    "SequenceException": _ROWS,
    "SerializationException": _BROKEN,
    "SyntaxException": _SQL,
    "TransactionException": _BUSY,
    "TypeMismatchException": _ROWS,
    "Warning": _BROKEN,
}
"""By class name; the nearest class in an exception's ancestry counts. InterruptException is not here: it is
Ctrl-C, and becomes KeyboardInterrupt again."""

_BY_TEXT: tuple[tuple[str, _Verdict], ...] = (
    (
        "not a valid DuckDB database",
        (
            ConfigError,
            "the file is not a DuckDB database",
            "give the path of a DuckDB file, or of one that is to be made",
        ),
    ),
    (
        r"newer version|version number",
        (ConfigError, "the file was written by another version of DuckDB", "install a newer duckdb"),
    ),
    (
        r"No space left|disk (is )?full|quota",
        (RejectedError, "the disk is full", "free space beside the database file"),
    ),
    ("Is a directory", (ConfigError, "the path is a folder", "give the path of a file")),
    (
        "No such file|does not exist",
        (ConfigError, "the file or its folder does not exist", "check the path; make the folder"),
    ),
    (
        "Permission denied|Read-only file system|read-only mode|not permitted",
        (RejectedError, "the file may not be opened or written", "check the rights of the file and its folder"),
    ),
)
_OF_A_VALUE = (duckdb.DataError, duckdb.IntegrityError, duckdb.ProgrammingError)  # whose text may quote a cell
_NO_BLOCK = re.compile("failed to pin block|could not allocate block", re.IGNORECASE)
_NOT_A_SELECT = re.compile(r"Cannot execute statement of type|read-only mode", re.IGNORECASE)
_LOCKED = re.compile(r"Could not set lock on file(?:.*?\(PID (\d+)\))?", re.DOTALL)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Around whatever speaks to DuckDB: what comes out is headrace's, or what a stream raised, as it was.

    `where` names the file (and table) for the message.
    """
    try:
        yield
    except Exception as error:
        if (found := root(error, "duckdb", "_duckdb")) is not None:
            if found is error:
                raise
            raise found from None
        if isinstance(error, duckdb.InterruptException) or _interrupted(error):
            raise KeyboardInterrupt from None
        if isinstance(error, duckdb.Error):
            raise _verdict(error, where) from error
        raise


def _interrupted(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Query interrupted"


def exhausted(error: duckdb.Error) -> bool:
    """Whether it was memory that ran out. Of a COMMIT that could not have it, DuckDB says so in the text alone."""
    if isinstance(error, _OF_A_VALUE):
        return False
    return isinstance(error, duckdb.OutOfMemoryException) or _NO_BLOCK.search(str(error)) is not None


def _verdict(error: duckdb.Error, where: str) -> HeadraceError:
    text = str(error)
    if exhausted(error):
        kind, what, hint = BY_CLASS["OutOfMemoryException"]
        return kind(f"{where}: {what}", hint=hint)
    if isinstance(error, duckdb.OperationalError):
        if locked := _LOCKED.search(text):
            who = f"the process with PID {locked[1]}" if locked[1] else "another process"
            return UnavailableError(
                f"{where}: {who} has the file open",
                hint="wait for it to end, or close the file there",
                details={"pid": int(locked[1])} if locked[1] else {},
            )
        for pattern, (kind, what, hint) in _BY_TEXT:
            if re.search(pattern, text, re.IGNORECASE):
                return kind(f"{where}: {what}", hint=hint)
    if _NOT_A_SELECT.search(text):
        return ConfigError(f"{where}: what is read must be one SELECT, which changes nothing", hint="check the query")
    if found := NO_TIME.search(text):
        return DataError(f"{where}: {found[0]}", hint="read it as text: CAST(… AS VARCHAR) in a query")
    kind, what, hint = next(BY_CLASS[c.__name__] for c in type(error).__mro__ if c.__name__ in BY_CLASS)
    return kind(f"{where}: {what} ({type(error).__name__})", hint=hint)

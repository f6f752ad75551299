"""Which files a source means: patterns, folders and lists become files with stamps, in name order."""

from __future__ import annotations

import contextlib
import difflib
import glob
import os
import re
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from headrace.errors import ConfigError, DataError, RejectedError, UnavailableError
from headrace.flow import FileStamp
from headrace.paths import rooted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "FORMATS",
    "File",
    "broken",
    "check_same",
    "common",
    "find",
    "format_of",
    "hive_parts",
    "in_order",
    "stat",
    "unreadable",
]

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".txt": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson",
    ".json": "json", ".parquet": "parquet", ".pq": "parquet", ".arrow": "ipc", ".ipc": "ipc", ".feather": "ipc",
    ".arrows": "ipc", ".xlsx": "excel", ".xls": "excel", ".xlsb": "excel", ".ods": "excel",
}  # fmt: skip
_PACKED = (".gz", ".zst")
_MAGIC = re.compile(r"[*?\[]")
_MAY_HIDE = re.compile(r"(?:/|^)[._]")
_DIGITS = re.compile(r"(\d+)")
_ZEROS = str.maketrans("123456789", "000000000")


class File(NamedTuple):
    """One file as it was when it was listed: `location` is its absolute path, `name` relative to a folder (`naming`),
    `modified` in nanoseconds. A tuple, and no `Path` until one is asked for, since each run may list a million.
    """

    location: str
    name: str
    size: int
    modified: int

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.location)

    @property
    def stamp(self) -> FileStamp:
        """What the ledger remembers."""
        return FileStamp(self.name, self.size, str(self.modified))


def in_order(files: Iterable[File]) -> list[File]:
    """By name, numbers by value. Names that differ in digits alone are in that order as texts, and sorted faster so."""
    listed = list(files)
    alike = len({file.name.translate(_ZEROS) for file in listed}) <= 1
    return sorted(listed, key=lambda file: file.name if alike else _name_order(file.name))


def _name_order(name: str) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """The key of the order in which files are read: by name, numbers by value (``2`` before ``10``)."""
    parts = tuple((0, int(p)) if p.isdigit() and p.isascii() else (1, p) for p in _DIGITS.split(name) if p)
    return parts, name


def format_of(path: Path) -> str | None:
    """The format that the extension says, ``.gz`` and ``.zst`` aside; None where it says nothing."""
    name = path.name.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return FORMATS.get(Path(name).suffix)


def hive_parts(name: str) -> dict[str, str | None]:
    """The ``a=b`` folders of a file's name, as columns."""
    found: dict[str, str | None] = {}
    for part in Path(name).parts[:-1]:
        key, equals, value = part.partition("=")
        if equals and key:
            text = _unescaped(value)
            found[_unescaped(key)] = None if text == "__HIVE_DEFAULT_PARTITION__" else text
    return found


def _unescaped(text: str) -> str:
    """The text behind its ``%xx``; where these are no UTF-8, nobody has escaped it, and it is the text itself."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def common(patterns: Sequence[str], base: Path | None) -> str:
    """The fixed part that all patterns have in common, absolute. Raises RejectedError as `find` does."""
    with _looking():
        fixed = (_fixed(str(rooted(base, pattern))) for pattern in patterns)
        return os.path.commonpath([os.path.abspath(f) for f in fixed])  # noqa: PTH100  # no links resolved


def find(
    patterns: Sequence[str], base: Path | None, *, format: str | None, allow_missing: bool, root: str
) -> list[File]:
    """The files that `patterns` mean, named from `root`, in name order.

    Raises ConfigError for a pattern that means none (with near misses), unless `allow_missing`; RejectedError for a
    folder that may not be looked into.
    """
    found: dict[str, File] = {}
    with _looking():
        for written in patterns:
            pattern = str(rooted(base, written))
            files = {p: file for p in _matches(pattern, format) if (file := _listed(p, root)) is not None}
            if not files and not allow_missing:
                raise _nothing(pattern, written)
            found = files | found
    return in_order(found.values())


@contextlib.contextmanager
def _looking() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RejectedError(
            f"the path {str(error.filename)!r} cannot be looked at ({error.strerror})",
            hint="look at its rights, and at its length",
        ) from error


def _listed(absolute: str, root: str) -> File | None:
    """The file as it is; None for what is none, or has gone. There may be a hundred thousand, so each costs one look.

    Raises RejectedError, and DataError for a name that is no text: it cannot be remembered.
    """
    try:
        now = os.stat(absolute)  # noqa: PTH116
    except PermissionError as error:
        folder, name = os.path.split(absolute)
        raise RejectedError(f"file {name!r} may not be read", hint=f"look at the rights of {folder}") from error
    except OSError:  # a link to nowhere, or in a circle
        return None
    if not S_ISREG(now.st_mode):
        return None
    if not absolute.isascii():
        _refuse_name(absolute)
    inside = root if root.endswith("/") else f"{root}/"
    name = absolute.removeprefix(inside) if absolute.startswith(inside) else os.path.relpath(absolute, root)
    return File(absolute, name, now.st_size, now.st_mtime_ns)


def _refuse_name(path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(os.path.basename(path)).decode("utf-8", "backslashreplace")  # noqa: PTH119
        raise DataError(f"the name of file '{shown}' is not UTF-8", hint="rename the file") from None


def _fixed(pattern: str) -> Path:
    """The folder above the first part that is a pattern."""
    path = Path(pattern)
    if path.is_dir():
        return path
    parts = path.parts
    at = next((i for i, part in enumerate(parts) if _MAGIC.search(part)), len(parts) - 1)
    return Path(*parts[:at]) if at else Path()


def _matches(pattern: str, format: str | None) -> Iterable[str]:
    """What the pattern means, as absolute paths without ``..``; not all are files."""
    path = Path(pattern)
    if path.is_dir():
        return [os.path.abspath(p) for p in _inside(path) if format is not None or format_of(p) is not None]  # noqa: PTH100
    if not _MAGIC.search(pattern) or path.exists():
        return [os.path.abspath(pattern)]  # noqa: PTH100
    fixed = _fixed(pattern)
    skip = len(str(fixed)) if fixed.parts else 0
    wanted = path.name[:1] in "._"
    _look_into(pattern, len(fixed.parts))
    found = glob.glob(pattern, recursive=True, include_hidden=wanted)  # noqa: PTH207
    shown = (p for p in found if wanted or not (_MAY_HIDE.search(p, max(skip - 1, 0)) and _hidden(p[skip:].split("/"))))
    return [os.path.abspath(p) for p in shown]  # noqa: PTH100


def _inside(folder: Path) -> Iterator[Path]:
    """The files below a folder. Raises OSError for a folder that may not be looked into: its files would be missed."""
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not _hidden([name])]
        yield from (Path(place, name) for name in names if not _hidden([name]))


def _refuse(error: OSError) -> None:
    raise error


def _look_into(pattern: str, fixed: int) -> None:
    """Raises OSError where a folder that the pattern goes through may not be looked into: glob passes it over."""
    parts = Path(pattern).parts
    ends = [*range(fixed, len(parts)), *([len(parts)] if parts[-1] == "**" else [])]
    for end in ends:
        above = f"{Path(*parts[:end])}/" if end else ""
        for folder in glob.glob(above, recursive=True) if end > fixed else [above or "."]:  # noqa: PTH207
            if not _hidden(Path(folder).parts[fixed:]):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # nothing there to be missed
                    os.scandir(folder).close()


def _hidden(parts: Iterable[str]) -> bool:
    """What writers hide: unfinished files, ``_SUCCESS``, ``_headrace``. A Hive folder may begin with _."""
    return any(p.startswith(".") or (p.startswith("_") and "=" not in p) for p in parts)


def _nothing(pattern: str, written: str) -> ConfigError:
    folder = Path(pattern)
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    inside = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))[:200]
    missing = Path(pattern).relative_to(folder).parts[0] if Path(pattern) != folder else ""
    near = difflib.get_close_matches(missing, inside, n=3, cutoff=0.5) or inside[:3]
    return ConfigError(
        f"path {written!r} matches no file",
        hint=f"{folder} holds {', '.join(map(repr, near))}" + (" …" if len(inside) > len(near) else "")
        if inside
        else f"{folder} is empty; " + '"allow_missing": true reads nothing until there is a file',
        details={"path": written},
    )


def stat(path: Path, name: str) -> File:
    """The file as it is now. Raises UnavailableError when it has gone, RejectedError when it may not be read."""
    try:
        now = path.stat()
    except FileNotFoundError as error:
        raise UnavailableError(f"file {name!r} has gone while it was read", hint="run again") from error
    except PermissionError as error:
        raise RejectedError(f"file {name!r} may not be read", hint=f"look at the rights of {path.parent}") from error
    return File(str(path), name, now.st_size, now.st_mtime_ns)


def check_same(file: File) -> None:
    """Raises UnavailableError when the file is no longer what it was when it was listed."""
    now = stat(file.path, file.name)
    if (now.size, now.modified) != (file.size, file.modified):
        raise UnavailableError(
            f"file {file.name!r} changes while it is read",
            hint='run again when it is written; "settle": "5m" leaves files alone that are younger',
        )


def broken(file: File, format: str) -> DataError:
    """What is said of a file that its reader cannot read."""
    return DataError(
        f"file {file.name!r} is no whole {format} file: cut off, broken, or something else",
        hint="write it again; a file that is still being written is left alone with " + '"settle": "5m"',
        details={"file": file.name},
    )


def unreadable(file: File, column: str | None = None) -> DataError:
    """What is said of a file with a column of a type that Polars does not know."""
    which = "a column" if column is None else f"column {column!r}"
    return DataError(
        f"file {file.name!r} has {which} of a type that cannot be read",
        hint="decimals of more than 38 digits and time zones that are offsets (+05:30) must be converted first",
        details={"file": file.name} if column is None else {"file": file.name, "column": column},
    )


def refuse_mixed(formats: Iterable[str | None], names: Sequence[str]) -> str:
    """The one format of all files. Raises ConfigError for several, DataError for none."""
    kinds = sorted({f or "?" for f in formats})
    if len(kinds) == 1 and kinds[0] != "?":
        return kinds[0]
    if "?" in kinds:
        raise ConfigError(
            f"the extension of {names[0]!r} names no format",
            hint='say "format": "csv" (tsv, ndjson, json, parquet, ipc, excel)',
        )
    raise DataError(
        f"the files are of several formats: {', '.join(kinds)}", hint='use a narrower path, or say "format"'
    )

"""Hostile input: valid files of every format and what becomes of them, and what the command may say of it.

`judged` is the law: a documented exit code and one clear line, whatever came in.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import polars as pl

__all__ = ["CELL", "FORMATS", "SECRET", "judged", "laid", "mutated", "outside", "written"]

CELL = "q7cellmarkerz"
SECRET = "q7secretmarkerz"  # noqa: S105
_FRAME = {
    "id": list(range(1, 31)),
    "name": [f"{CELL}{n}" for n in range(30)],
    "amount": [n / 4 for n in range(30)],
    "day": [f"2024-01-{n % 28 + 1:02}" for n in range(30)],
    "flag": [n % 3 == 0 for n in range(30)],
    "note": [None if n % 5 else f'{CELL}, "quoted"\nline {n}' for n in range(30)],
}
_LINE = re.compile(r"\d\d:\d\d:\d\d (info|warning|error) |error: |hint: |Usage: |Try |  [^ ]+:\d+:\d+: ")


def _csv(frame: pl.DataFrame) -> bytes:
    return frame.write_csv().encode()


def _sqlite(frame: pl.DataFrame, at: Path) -> bytes:
    with sqlite3.connect(at) as db:
        db.execute("CREATE TABLE t (id INTEGER, name TEXT, amount REAL, day TEXT, flag INTEGER, note TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", frame.rows())
    db.close()
    return at.read_bytes()


def _excel(frame: pl.DataFrame, at: Path) -> bytes:
    import xlsxwriter

    with xlsxwriter.Workbook(str(at)) as book:
        sheet = book.add_worksheet()
        for line, row in enumerate([frame.columns, *frame.rows()]):
            sheet.write_row(line, 0, ["" if v is None else v for v in row])
    return at.read_bytes()


def _binary(method: str, **how: Any) -> Callable[[pl.DataFrame, Path], bytes]:
    def write(frame: pl.DataFrame, _at: Path) -> bytes:
        buffer = io.BytesIO()
        getattr(frame, method)(buffer, **how)
        return buffer.getvalue()

    return write


def _zstd(data: bytes) -> bytes:
    import pyarrow as pa

    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


FORMATS: dict[str, Callable[[pl.DataFrame, Path], bytes]] = {
    "csv": lambda f, _: _csv(f),
    "tsv": lambda f, _: f.write_csv(separator="\t").encode(),
    "ndjson": lambda f, _: f.write_ndjson().encode(),
    "json": lambda f, _: f.write_json().encode(),
    "parquet": _binary("write_parquet", row_group_size=10),
    "arrow": _binary("write_ipc", compression="zstd"),
    "xlsx": _excel,
    "sqlite": _sqlite,
    "csv.gz": lambda f, _: gzip.compress(_csv(f)),
    "csv.zst": lambda f, _: _zstd(_csv(f)),
    "ndjson.gz": lambda f, _: gzip.compress(f.write_ndjson().encode()),
}


def written(format: str, folder: Path) -> bytes:
    """A valid file of the format."""
    return FORMATS[format](pl.DataFrame(_FRAME), folder / f"made.{format}")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The bytes with some flipped, cut, doubled, moved, or replaced by what parsers trip over."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        at, other = chance.randrange(len(out) + 1), chance.randrange(len(out) + 1)
        low, high = sorted((at, other))
        match chance.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(out):
                out[at] = chance.choice([0, 255, 127, 128, 10, 13, 34, 44, 92, 123, 91, chance.randrange(256)])
            case 2:
                del out[low : min(high, low + chance.choice([1, 4, 64, 1 << 20]))]
            case 3:
                out[at:at] = out[low:high][: chance.choice([1, 16, 256, 4096])]
            case 4:
                del out[at:]
            case 5:
                out[at:at] = chance.choice(_TRIPS)
            case _:
                size = chance.choice([1, 2, 4, 8])
                out[at : at + size] = chance.choice([b"\xff" * size, b"\0" * size, b"\x7f" + b"\xff" * (size - 1)])
        if not out:
            break
    return bytes(out)


_TRIPS = (
    b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\r\n\r\n", b'"', b'""', b'"\n', b",", b"}{", b"null", b"NaN", b"-0",
    b"\x1f\x8b\x08\0", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"PAR1", b"ARROW1", b"[" * 600, b'{"a":' * 300, b"\x1a",
    b"1e999999999", b"-9223372036854775809", b"9" * 400, b"\xed\xa0\x80", "\u202e\u2066".encode(), b"\\ud800",
    b"\x1b[31m",
)  # fmt: skip


def laid(folder: Path, format: str, data: bytes, **parts: Any) -> Path:
    """A pipeline over one file, in a folder."""
    (folder / "in").mkdir(parents=True)
    (folder / "target").mkdir()
    (folder / "in" / f"data.{format}").write_bytes(data)
    source: dict[str, Any] = {"type": "files", "path": f"in/data.{format}"}
    if format == "sqlite":
        source = {"type": "sqlite", "path": "in/data.sqlite", "table": "t"}
    document = {
        "name": "p",
        "source": source,
        "contract": {"on_violation": "quarantine"},
        "destination": {"type": "duckdb", "path": "target/w.duckdb", "table": "t"},
        **parts,
    }
    file = folder / "p.json"
    file.write_text(json.dumps(document))
    return file


def outside(folder: Path) -> dict[str, str]:
    """All that lies in the folder besides ``target``, as hashes."""
    paths = (p for p in sorted(folder.rglob("*")) if p.relative_to(folder).parts[0] != "target")
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "folder" for p in paths}


def judged(said: forked.Said, *, hidden: tuple[str, ...] = (CELL, SECRET), most: int = 1_500) -> list[str]:
    """What is wrong with what the command said: no message is good news. `most` is in MB."""
    found = []
    both = said.out + said.err
    if said.hung:
        found.append("it hung")
    elif said.code not in range(6):
        found.append(f"it ended with {said.code}")
    if said.peak > most << 20:
        found.append("it took too much memory")
    if "Traceback" in both or "bug in headrace" in both or "panicked" in both:
        found.append("a traceback, or a bug")
    if any(text in both for text in hidden):
        found.append("it shows what it must not show")
    lines = said.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if said.code in (1, 2, 3, 4, 5) and len(errors) != 1 and lines and "Usage:" not in said.err:
        found.append(f"{len(errors)} lines that say what is wrong")
    if odd := [line for line in lines if not _LINE.match(line)]:
        found.append(f"a line of no known kind: {odd[0][:200]!r}")
    if any(len(line) > 2_000 for line in lines):
        found.append("a line without end")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", said.err):
        found.append("characters that steer a terminal")
    return found

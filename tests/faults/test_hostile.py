"""Hostile input: whatever comes in, a documented exit code and one clear line; nothing shown or written that must not.

In the full form other bytes are tried at each time; what fails says its seed, and HEADRACE_FAULTS_SEED takes it again.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from configs import Configs
from forked import Said, headrace
from hostile import CELL, FORMATS, SECRET, judged, laid, mutated, outside, written

from headrace.config import json_schema

Seeds = Callable[[int, int], Iterator[int]]


@pytest.fixture
def seeds(full: bool, record_property: Callable[[str, object], None]) -> Seeds:
    """So many seeds in the short form, always the same ones, and so many in the full one."""

    def some(short: int, long: int) -> Iterator[int]:
        record_property("cases", long if full else short)
        first = int(os.environ.get("HEADRACE_FAULTS_SEED") or (secrets.randbits(32) if full else 1))
        yield from range(first, first + (long if full else short))

    return some


def sound(place: Path, *, verb: str = "run", what: object = "", **how: Any) -> Said:
    """What the command says, once it was judged; nothing besides the target has changed."""
    before = outside(place)
    said = headrace(verb, "p.json", folder=place, **how)
    wrong = judged(said) + ([] if outside(place) == before else ["it wrote outside the target"])
    assert not wrong, f"{what}: {', '.join(wrong)}\n{said}"
    return said


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_file_is_read_or_refused_and_shows_nothing(tmp_path, seeds, format):
    """Each format, with bytes flipped, cut, doubled, moved and replaced; of compressed ones the inside too."""
    valid = written(format, tmp_path)
    for seed in seeds(1, 30):
        chance = random.Random(f"{format} {seed}")  # noqa: S311
        if format.endswith(".gz") and chance.random() < 0.5:
            data = gzip.compress(mutated(gzip.decompress(valid), chance))
        else:
            data = mutated(valid, chance)
        laid(tmp_path / "case", format, data)
        sound(tmp_path / "case", what=f"HEADRACE_FAULTS_SEED={seed}", env={"HOSTILE_SECRET": SECRET})
        shutil.rmtree(tmp_path / "case")


def _meant(path: str, named: str) -> bool:
    """Whether who names a path means this one: itself, what is below or beside it, a folder above it."""
    return path == named or path.startswith((f"{named}/", f"{named}.")) or named.startswith(f"{path}/")


def test_any_config_is_carried_out_or_refused(tmp_path, seeds):
    """Drawn from the schema, and spoiled."""
    schema = json_schema()
    valid = written("csv", tmp_path)
    for seed in seeds(12, 300):
        text = Configs(schema, random.Random(seed)).drawn()  # noqa: S311
        place = tmp_path / "case"
        laid(place, "csv", valid).write_text(text, "utf-8", "surrogatepass")
        (place / "secret.txt").write_text(SECRET)
        (place / "transforms.py").write_text(
            "def clean(source, *, since):\n    return source\n\n\ndef raises(previous):\n    raise ValueError\n"
        )
        before = outside(place)
        said = headrace("run", "p.json", folder=place, env={"HOSTILE_SECRET": SECRET})
        named = {str(place / t) for t in _texts(text)}
        new = [p for p in outside(place).items() if p not in before.items()]
        stray = [p for p, _ in new if not any(_meant(p, n) for n in named)]
        wrong = judged(said) + [f"it wrote {p}" for p in stray]
        assert not wrong, f"HEADRACE_FAULTS_SEED={seed}: {', '.join(wrong)}\n{text[:3000]}\n{said}"
        shutil.rmtree(place)


def _texts(text: str) -> Iterator[str]:
    """All texts in a config: where it says that something is written, it may be."""
    try:
        waiting = [json.loads(text)]
    except (ValueError, RecursionError):
        return
    while waiting:
        match waiting.pop():
            case str() as found:
                yield found
            case list() as items:
                waiting += items
            case dict() as items:
                waiting += items.values()


NAMES = ('say "when"\n', "it's; DROP TABLE t; --", "\u202etxet", "emoji \U0001f6b0 \u00fcn\u00ef e\u0301")
MORE_NAMES = ("\x1b[31mred", "a%s{0}$1", " ", "select", "x" * 200, "\ufeff", "\\", "a\tb", "--", "/*", "NULL", "0")


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(n, marks=pytest.mark.full) for n in MORE_NAMES)])
def test_any_name_is_itself_or_refused(tmp_path, full, record_property, name):
    """As the name of a pipeline, a table, a column, a rule and a file at once; and everything that tells of it."""
    place = tmp_path / "case"
    laid(place, "csv", b"")
    rows = pl.DataFrame({"id": [1, 2], name: [CELL, None], "v": [1, -1]})
    rows.write_csv(place / "in" / f"{name}.csv")
    document = json.loads((place / "p.json").read_text())
    quoted = '"' + name.replace('"', '""') + '"'
    document |= {
        "name": name,
        "source": {"type": "files", "path": "in/[!d]*.csv", "types": {name: "string"}},
        "contract": {"columns": {"v": {"min": 0}}, "rules": {name: f"{quoted} <> ''"}, "on_violation": "quarantine"},
        "destination": {**document["destination"], "table": quoted},
        "write": {"type": "merge", "keys": ["id"]},
    }
    (place / "p.json").write_text(json.dumps(document))
    if sound(place).code == 0:
        assert "nothing new" in sound(place).out
        with duckdb.connect(str(place / "target" / "w.duckdb"), read_only=True) as db:
            named = db.sql("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'").fetchall()
            found = db.sql(f"FROM {quoted}")
            assert (named, found.columns, found.fetchall()) == ([(name,)], ["id", name, "v"], [(1, CELL, 1)])
        for verb in ("plan", "history", "check") if full else ("history",):
            sound(place, verb=verb)
        if full:
            assert headrace("rejects", "p.json", "--json", folder=place).code == 0


def _swollen(megabytes: int, lead: bytes, fill: bytes) -> bytes:
    """A gzip file that is a thousand times as large inside."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as file:
        file.write(lead)
        for _ in range(megabytes):
            file.write(fill * (1 << 20))
    return out.getvalue()


def _wide(columns: int) -> bytes:
    line = ",".join
    return f"{line(f'c{n}' for n in range(columns))}\n{line('1' for _ in range(columns))}\n".encode()


def _wide_parquet(columns: int) -> bytes:
    out = io.BytesIO()
    pl.DataFrame({f"c{n}": [1] for n in range(columns)}).write_parquet(out)
    return out.getvalue()


LARGE: Mapping[str, tuple[str, Callable[[], bytes], tuple[int, ...]]] = {
    "too many columns": ("csv", lambda: _wide(20_000), (3,)),
    "far too many columns": ("csv", lambda: _wide(400_000), (3,)),
    "too many columns of a binary file": ("parquet", lambda: _wide_parquet(12_000), (3,)),
    "too many keys": ("ndjson", lambda: json.dumps({f"k{n}": n for n in range(50_000)}).encode(), (3,)),
    "deep arrays": ("json", lambda: b"[" * 300_000 + b"]" * 300_000, (3,)),
    "deep objects": ("ndjson", lambda: b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"\n", (0, 3)),
    "objects as deep as a parser goes": ("ndjson", lambda: b'{"a":' * 500 + b"1" + b"}" * 500 + b"\n", (0, 3)),
    "a quote that never ends": ("csv", lambda: b'id,name\n1,"' + b"x" * (8 << 20), (0, 3)),
}
LARGER: Mapping[str, tuple[str, Callable[[], bytes], tuple[int, ...]]] = {
    "a long line": ("csv", lambda: b"id,name\n1," + b"x" * (64 << 20) + b"\n", (0, 3)),
    "a header without end": ("csv", lambda: b"a" * (16 << 20) + b"\n1\n", (0, 3)),
    "fields without end": ("csv", lambda: b"," * (16 << 20), (3,)),
    "a long JSON line": ("ndjson", lambda: b'{"a":"' + b"x" * (64 << 20) + b'"}\n', (0, 3)),
    "a bomb of one line": ("csv.gz", lambda: _swollen(1024, b"id,name\n1,", b"0"), (3,)),
    "a bomb of empty lines": ("csv.gz", lambda: _swollen(1024, b"id,name\n1,2", b"\n"), (0, 3)),
    "a bomb of one JSON line": ("ndjson.gz", lambda: _swollen(1024, b'{"a":"', b"0"), (3,)),
}


@pytest.mark.parametrize("what", [*LARGE, *(pytest.param(what, marks=pytest.mark.full) for what in LARGER)])
def test_what_is_too_large_is_refused_and_fills_no_memory(tmp_path, what):
    format, make, codes = {**LARGE, **LARGER}[what]
    laid(tmp_path / "case", format, make())
    assert sound(tmp_path / "case", what=what, seconds=240).code in codes

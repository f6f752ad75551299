"""NDJSON and JSON arrays: Polars parses what is proven to be exact in its hands, Python's parser the rest.

Polars reads numbers into 64 bits, drops keys that it was not told of, and turns a lone surrogate into a null. So a
block with a long number, an exponent, a surrogate, a key that is unknown or written with escapes, or a fraction in a
column of texts or in a nested value goes the careful way, as do an escape in a nested value and a block that does not
parse; there each line is read for itself, numbers as they are written.
"""

from __future__ import annotations

import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from headrace.frozen import frozen
from headrace.systems.files import arrays
from headrace.systems.files.arrays import CHUNK, DEEP
from headrace.systems.files.blocks import BLOCK, Cutter, opened
from headrace.systems.files.csv import Head
from headrace.systems.files.grammar import as_text
from headrace.systems.files.infer import KeyGuess
from headrace.systems.files.layout import Reject, Texts

if TYPE_CHECKING:
    from headrace.systems.files import FileSource
    from headrace.systems.files.paths import File

__all__ = ["JSONReader"]

T = TypeVar("T")
_RISKY = r'[0-9][0-9.]{15,}|[0-9][eE][+-]?[0-9]|\\u[dD][89a-fA-F]|"-0|-0(?:[^0-9.]|$)|\\[u/](?:[^"\\\n]|\\.)*"\s*:'
_AHEAD = 3
_IN_ORDER = 32  # Polars' parser keeps so many keys of an object as a list, and more as a hash map


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


class _Refused(ValueError):  # noqa: N818  # a word for the rule
    """Why a line is no record."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Refused("a key that stands twice")
    return made


def _no_constant(_name: str) -> Any:
    raise _Refused("not JSON: NaN or Infinity")


_DECODER = json.JSONDecoder(
    parse_int=_Number, parse_float=_Number, parse_constant=_no_constant, object_pairs_hook=_pairs
)


def _record(line: bytes) -> dict[str, Any]:
    """One line as keys and values. Raises _Refused with the reason."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise _Refused("wrong encoding") from None
    try:
        made = _DECODER.decode(text)
    except _Refused:
        raise
    except RecursionError:
        raise _Refused(DEEP) from None
    except ValueError:
        raise _Refused("not JSON") from None
    if not isinstance(made, dict):
        raise _Refused("not a JSON object")
    return made


def _text(value: Any) -> str | None:
    """A value as the text that stands for it in a column."""
    if value is None or (isinstance(value, str) and not isinstance(value, _Number)):
        return value
    return _dump(value)


def _dump(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {_dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dump, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> str:
    """JSON's own kind of a value."""
    return "bool" if isinstance(value, bool) else "number" if isinstance(value, _Number) else type(value).__name__


@frozen
class _Lines:
    """Records, one a line; `numbers` are their lines in the file."""

    data: bytes
    first: int
    numbers: tuple[int, ...] | None = None

    def records(self) -> tuple[list[bytes], list[int]]:
        """The lines that are not blank, and their numbers."""
        lines = self.data.split(b"\n")
        numbers = self.numbers if self.numbers is not None else range(self.first, self.first + len(lines))
        found = [(t, n) for t, n in zip(lines, numbers, strict=False) if t.strip()]
        return [t for t, _ in found], [n for _, n in found]


@frozen
class JSONReader:
    """Reads files of one JSON record a line (``ndjson``), or of one array of records (``json``)."""

    source: FileSource
    format: str
    block: int = BLOCK

    def sample(self, file: File, keys: dict[str, KeyGuess]) -> int:
        """Tell `keys` of the file's sample, its keys in order of their first appearance; how many rows it has."""
        left = None if self.source.infer == "all" else int(self.source.infer)
        count = 0
        small = JSONReader(self.source, self.format, block=min(self.block, CHUNK))
        with opened(file, self.source.encoding) as stream:
            for lines in small._blocks(file, stream):
                for text in lines.records()[0]:
                    if count == left:
                        return count
                    count += 1
                    try:
                        record = _record(text)
                        _ = b"\\ud" in text.lower() and _dump(record).encode("utf-8")
                    except (_Refused, UnicodeEncodeError, RecursionError):  # reading says where
                        continue
                    for key, value in record.items():
                        guess = keys.setdefault(key, KeyGuess())
                        if value is not None:
                            guess.feed(_kind(value), value)
        return count

    def refusal(self, file: File) -> tuple[int, str] | None:
        """The line of the file's first record, and why it cannot be read; None for a file without one."""
        with opened(file, self.source.encoding) as stream:
            for text, number in (r for b in self._blocks(file, stream) for r in zip(*b.records(), strict=True)):
                try:
                    _record(text)
                except _Refused as refused:
                    return number, str(refused)
        return None

    def read(
        self, file: File, fields: Sequence[str], columns: Sequence[str], finish: Callable[[Texts], T], *, head: Head
    ) -> Iterator[T]:
        """The file as pieces of texts, each through `finish` on a thread, in order.

        `head.fields` are the keys, `fields` the names that they go by in the result.
        """
        names = dict(zip(head.fields, fields, strict=True))
        wanted = {k: n for k, n in names.items() if n in columns}
        work = partial(self._piece, file, names, wanted, head.texts)
        with opened(file, self.source.encoding) as stream:
            blocks = self._blocks(file, stream)
            begun = list(islice(blocks, 2))
            if not begun[1:]:  # to start a thread takes longer than to read a small file
                yield from (finish(work(lines)) for lines in begun)
                return
            waiting: deque[Any] = deque()
            pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="headrace-json")
            try:
                for lines in chain(begun, blocks):
                    waiting.append(pool.submit(lambda b: finish(work(b)), lines))
                    if len(waiting) >= _AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def parse(self, file: File, fields: Sequence[str], texts: Sequence[tuple[int, str]], *, head: Head) -> Texts:
        """Single records (line, text) through the same parser."""
        data = b"\n".join(t.replace("\n", " ").encode("utf-8", "surrogatepass") for _, t in texts)
        names = dict(zip(head.fields, fields, strict=True))
        return self._piece(file, names, names, head.texts, _Lines(data, 1, tuple(n for n, _ in texts)))

    def _blocks(self, file: File, stream: Any) -> Iterator[_Lines]:
        if self.format == "json":
            for records, numbers in arrays.records(file, stream):
                yield _Lines(b"\n".join(records), 1, tuple(numbers))
            return
        cutter = Cutter(stream, name=file.name, quote=None, size=self.block)
        while (block := cutter.cut()) is not None:
            yield _Lines(block.data, block.line)

    def _piece(
        self, file: File, names: dict[str, str], wanted: dict[str, str], written: frozenset[str], lines: _Lines
    ) -> Texts:
        texts, numbers = lines.records()
        frame = self._fast(b"\n".join(texts), len(texts), names, wanted, written & wanted.keys())
        bad: list[Reject] = []
        if frame is None:
            frame, texts, numbers, bad = self._careful(file, texts, numbers, names, wanted)
        return Texts(
            frame,
            lines=lambda: pl.Series(numbers, dtype=pl.Int64),
            raw=lambda rows: [texts[r].decode("utf-8", "backslashreplace") for r in rows],
            bad=tuple(bad),
            size=sum(map(len, texts)) + len(texts),
        )

    def _fast(
        self, data: bytes, count: int, names: dict[str, str], wanted: dict[str, str], written: frozenset[str]
    ) -> pl.DataFrame | None:
        """The block in Polars' hands; None where it is not certain to be exact there."""
        text = as_text(data)
        risky = rf"{_RISKY}|{_any_key(written)}-?[0-9]+\." if written else _RISKY  # Polars writes 1.10 as 1.1
        if not data or not wanted or text is None or text.str.contains(risky)[0]:
            return None
        try:
            found = pl.scan_ndjson(io.BytesIO(data), infer_schema_length=None).collect_schema()
            if not names.keys() >= set(found):
                return None
            frame = pl.read_ndjson(data, schema=dict.fromkeys(names, pl.String))
        except pl.exceptions.PolarsError:
            return None
        if frame.height != count or _may_repeat(text, frame) or _may_rewrite(text, frame.columns, wanted):
            return None
        return frame.select(list(wanted)).rename(wanted)

    def _check_known(self, record: dict[str, Any], names: dict[str, str]) -> None:
        if unknown := record.keys() - names.keys():
            raise _Refused(_unknown(min(unknown), self.source.infer))

    def _careful(
        self, file: File, texts: list[bytes], numbers: list[int], names: dict[str, str], wanted: dict[str, str]
    ) -> tuple[pl.DataFrame, list[bytes], list[int], list[Reject]]:
        good: list[dict[str, Any]] = []
        kept: list[int] = []
        bad: list[Reject] = []
        for at, (text, number) in enumerate(zip(texts, numbers, strict=True)):
            try:
                record = _record(text)
                self._check_known(record, names)
                values = {key: _text(record.get(key)) for key in names}
                for value in values.values():
                    (value or "").encode("utf-8")
            except (UnicodeEncodeError, _Refused) as refused:
                bad.append(_rejected(file, number, text, refused))
            except RecursionError:
                bad.append(_rejected(file, number, text, _Refused(DEEP)))
            else:
                good.append(values)
                kept.append(at)
        columns = {wanted[key]: [row[key] for row in good] for key in wanted}
        frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
        if not columns:
            frame = pl.DataFrame({"": [None] * len(good)}, schema={"": pl.String})
        return frame, [texts[i] for i in kept], [numbers[i] for i in kept], bad


def _may_repeat(text: pl.Series, frame: pl.DataFrame) -> bool:
    """Whether a key may stand twice in a record, of which Polars takes the first: there are more keys than values, or a
    key has a value and is null too.
    """
    keys = _any_key(frame.columns)
    values = sum(frame.count().row(0))
    nulls = text.str.extract_all(keys + "null").explode()
    if text.str.count_matches(keys)[0] != values + len(nulls):
        return True
    found = nulls.unique()
    some = [key for key in frame.columns if found.str.contains(_any_key([key])).any()]
    lines = text.str.split("\n").explode() if some else text
    return any(lines.filter(frame[k].is_not_null()).str.contains(_any_key([k]) + "null").any() for k in some)


def _may_rewrite(text: pl.Series, keys: Sequence[str], wanted: Iterable[str]) -> bool:
    """Whether a nested value may hold an escape, a fraction or many keys: Polars writes what is nested as text anew,
    escapes with no backslash, 2.0 as 2, and the keys of a large object in an order that it draws each time. No key is
    repeated (`_may_repeat`), so what stands behind one of `keys` is not nested.
    """
    if not text.str.contains(_any_key(wanted) + r"[\[{]")[0]:
        return False
    key = _any_key(keys)
    if text.str.count_matches(r"[:\[,]\s*-?[0-9]+\.")[0] > text.str.count_matches(key + r"-?[0-9]+\.")[0]:
        return True
    if _many_nested(text, key):
        return True
    flat = text.str.extract_all(key + r'"(?:[^"\\]|\\.)*"').explode()
    return bool(text.str.count_matches(r"\\")[0] > flat.str.count_matches(r"\\").sum())


def _many_nested(text: pl.Series, key: str) -> bool:
    """Whether a line may have an object of more keys than Polars keeps in order. `key`: of those that nest in none."""
    lines = text.str.split("\n").explode()
    nested = lines.str.count_matches(r'"\s*:').cast(pl.Int64) - lines.str.count_matches(key).cast(pl.Int64)
    return bool((nested > _IN_ORDER).any())


def _any_key(keys: Iterable[str]) -> str:
    """A pattern of one of the keys, up to where its value begins."""
    return '"(?:' + "|".join(re.escape(json.dumps(k, ensure_ascii=False)[1:-1]) for k in keys) + r')"\s*:\s*'


def _unknown(key: str, infer: int | str) -> str:
    how = f'declare it: "types": {{"{key}": "string"}}, or read all: "infer": "all"'
    return f"key {key!r} first appears after the sample of {infer} rows; {how}"


def _rejected(file: File, line: int, text: bytes, why: ValueError) -> Reject:
    rule = "wrong encoding: half of a surrogate pair" if isinstance(why, UnicodeEncodeError) else str(why)
    shown = rule.encode("utf-8", "backslashreplace").decode()  # it may name a key that is such a half
    return Reject(file.name, line, text.removesuffix(b"\r").decode("utf-8", "backslashreplace"), (shown,))

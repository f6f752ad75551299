"""NDJSON and JSON arrays: Polars parses what is proven to be exact in its hands, Python's parser the rest.

Polars reads numbers into 64 bits, drops keys that it was not told of, and turns a lone surrogate into a null. So a
block with a long number, an exponent, a surrogate, a key that is unknown or written with escapes, or a fraction in a
column of texts goes the careful way, as does one that does not parse; there each line is read for itself, numbers as
they are written.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from headrace.errors import DataError
from headrace.frozen import frozen
from headrace.systems.files.blocks import BLOCK, Cutter, opened, too_long
from headrace.systems.files.csv import Head
from headrace.systems.files.grammar import RECORD_MAX, as_text
from headrace.systems.files.infer import KeyGuess
from headrace.systems.files.layout import Reject, Texts

if TYPE_CHECKING:
    from headrace.systems.files import FileSource
    from headrace.systems.files.paths import File

__all__ = ["JSONReader"]

T = TypeVar("T")
_RISKY = r'[0-9][0-9.]{15,}|[0-9][eE][+-]?[0-9]|\\u[dD][89a-fA-F]|"-0|-0(?:[^0-9.]|$)|\\[u/](?:[^"\\\n]|\\.)*"\s*:'
_AHEAD = 3
_CHUNK = 1024 * 1024
_DEEP = "nested too deeply"
_WHITE = re.compile(r"[ \t\r\n]*")


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
_ENDS = json.JSONDecoder(parse_int=str, parse_float=str)  # where a value ends; what is in it is judged by _DECODER


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
        raise _Refused(_DEEP) from None
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
        small = JSONReader(self.source, self.format, block=min(self.block, _CHUNK))
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
            waiting: deque[Any] = deque()
            pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="headrace-json")
            try:
                for lines in blocks:
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
            yield from _array(file, stream)
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
        if frame.height != count or _may_repeat(text, frame):
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
                bad.append(_rejected(file, number, text, _Refused(_DEEP)))
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


class _Feed:
    """A stream as text, from the first character that is still needed on. Counts the lines passed over."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def more(self) -> None:
        """As much again as there is: a long record is not parsed once for each piece of it."""
        data = self._stream.read(max(_CHUNK, len(self.text) - self.at))
        self.ended = not data
        self.text, self.at = self.text[self.at :] + self._decoder.decode(data, final=not data), 0

    def pass_to(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            white = _WHITE.match(self.text, self.at)
            self.pass_to(white.end() if white else self.at)
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def record(self) -> bytes | None:
        """The JSON value that begins here, on one line; None where there is none."""
        while True:
            try:
                _value, end = _ENDS.raw_decode(self.text, self.at)
            except RecursionError:
                raise DataError(
                    f"file {self._name!r}: a value in line {self.line} is {_DEEP}",
                    hint="a JSON file is one array of objects; flatten what is in them",
                    details={"file": self._name, "line": self.line},
                ) from None
            except ValueError:
                end = len(self.text)
                if self.ended:
                    return None
            if end < len(self.text) or self.ended:
                break
            if len(self.text) - self.at > 4 * RECORD_MAX:
                raise too_long(self._name, self.line, 4 * RECORD_MAX)
            self.more()
        text = self.text[self.at : end].replace("\r", " ").replace("\n", " ")
        self.pass_to(end)
        return text.encode("utf-8", "surrogateescape")


def _array(file: File, stream: Any) -> Iterator[_Lines]:
    """The records of a JSON array (or the one object that a file is), a few at a time."""
    feed = _Feed(stream, file.name)
    records: list[bytes] = []
    numbers: list[int] = []
    size = 0
    opener = feed.peek()
    if opener == "[":
        feed.pass_to(feed.at + 1)
    more = opener == "{" or (opener == "[" and feed.peek() != "]")
    while more:
        feed.peek()
        line = feed.line
        record = feed.record()
        if record is None:
            raise _broken(file, line)
        records.append(record)
        numbers.append(line)
        size += len(record)
        if size >= _CHUNK:
            yield _Lines(b"\n".join(records), 1, tuple(numbers))
            records, numbers, size = [], [], 0
        more = opener == "[" and feed.peek() == ","
        feed.pass_to(feed.at + more)
    if opener == "[" and feed.peek() == "]":
        feed.pass_to(feed.at + 1)
        opener = "{"
    if feed.peek() or opener not in ("{", ""):
        raise _broken(file, feed.line)
    if records:
        yield _Lines(b"\n".join(records), 1, tuple(numbers))


def _broken(file: File, line: int) -> DataError:
    return DataError(
        f"file {file.name!r} is no JSON from line {line} on",
        hint='a JSON file is one array of objects; for one object a line say "format": "ndjson"',
        details={"file": file.name, "line": line},
    )

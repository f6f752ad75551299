"""The grammar of one CSV dialect, twice: a Rust regex that proves whole blocks, a Python one for single records.

A block that the proof passes holds records of exactly the right number of fields, their quotes well-formed, and no
blank line: what Polars' parser makes of it can be trusted. Where it fails, the careful way goes record by record,
with possessive quantifiers, so that no input makes it slow.
"""

from __future__ import annotations

import re
from functools import cached_property
from itertools import islice

import polars as pl
import pyarrow as pa

from headrace.frozen import frozen

__all__ = ["RECORD_MAX", "Bad", "Grammar", "Survey", "as_text", "occurrences"]

_BLANK = re.compile(rb"(?:\r?\n)++")
_FEW = 16_384
RECORD_MAX = 16 * 1024 * 1024
"""A record longer than this counts as one whose quote never closes."""


def as_text(data: bytes) -> pl.Series | None:
    """`data` as a series of one text; None when it is not UTF-8."""
    try:
        return pl.Series([data], dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.PolarsError:
        return None


class _Bytes:
    """A part of `data` as Arrow's uint8, without a copy."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._array = pa.Array.from_buffers(pa.uint8(), end - start, [None, pa.py_buffer(data)], offset=start)

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        schema, array = self._array.__arrow_c_array__(requested_schema)
        return schema, array


def occurrences(data: bytes, mark: bytes, start: int = 0, end: int | None = None) -> int:
    """How often `mark` stands in ``data[start:end]``, as ``bytes.count`` tells; of a block it takes a twentieth of the
    time (Python before 3.13 looks at one byte after the other).
    """
    end = len(data) if end is None else min(end, len(data))
    if len(mark) > 1 or end - start < _FEW:
        return data.count(mark, start, end)
    return int((pl.Series(_Bytes(data, start, end)) == mark[0]).sum())


@frozen
class Bad:
    """A malformed line: where it stands in the bytes, at which line, and what is wrong with it."""

    start: int
    end: int
    line: int
    reason: str


@frozen
class Survey:
    """What the careful way found: runs of good records (start, end, first line), bad lines, and how far it came.

    `end` and `line` are where the next record begins: more bytes are needed to read it.
    """

    runs: tuple[tuple[int, int, int], ...]
    bad: tuple[Bad, ...]
    end: int
    line: int


@frozen
class Grammar:
    """Records of `width` fields between `delimiter`s; `quote` None: nothing is quoted.

    `shapes` are patterns that the fields' texts must have besides (none: any text), for `proves` alone.
    """

    delimiter: str
    quote: str | None
    width: int
    shapes: tuple[str | None, ...] = ()

    @cached_property
    def _field(self) -> str:
        d, q = re.escape(self.delimiter), re.escape(self.quote or "")
        plain = rf"[^{q}{d}\n\r]*"
        return rf"(?:{plain}|{q}(?:[^{q}]|{q}{q})*{q})" if self.quote else plain

    @cached_property
    def _proof(self) -> str:
        d = re.escape(self.delimiter)
        rest = f"(?:{d}{self._field}){{{self.width - 1}}}" if self.width > 1 else ""
        record = d.join(map(self._field_of, self.shapes)) if self.shapes else self._field + rest
        return rf"\A(?:{record}\r?\n)*\z"

    def _field_of(self, shape: str | None) -> str:
        q = re.escape(self.quote or "")
        return self._field if shape is None else f"(?:{shape}|{q}(?:{shape}){q}|)" if q else f"(?:{shape}|)"

    def proves(self, block: bytes) -> bool:
        """Whether `block` is nothing but whole, well-formed records in UTF-8, whose fields have the shapes."""
        text = as_text(block)
        if text is None:
            return False
        try:
            return bool(text.str.contains(self._proof)[0])
        except pl.exceptions.ComputeError:  # more columns than the regex engine takes
            if self.shapes:
                return False
            survey = self.survey(block, 1, whole=True)
            return not survey.bad and survey.runs == ((0, len(block), 1),)

    @cached_property
    def _bytes_field(self) -> bytes:
        d, q = re.escape(self.delimiter), re.escape(self.quote or "")
        plain = rf"[^{q}{d}\n\r]*+"
        field = rf"(?:{q}(?:[^{q}]++|{q}{q})*+{q}|{plain})" if self.quote else plain
        return field.encode()

    @cached_property
    def record(self) -> re.Pattern[bytes]:
        """One good record with its line end."""
        d, field = re.escape(self.delimiter).encode(), self._bytes_field
        rest = b"(?:" + d + field + b"){%d}" % (self.width - 1) if self.width > 1 else b""
        return re.compile(field + rest + rb"\r?\n")

    @cached_property
    def _run(self) -> re.Pattern[bytes]:
        return re.compile(b"(?:" + self.record.pattern + b")*+")

    @cached_property
    def any_record(self) -> re.Pattern[bytes]:
        """One record of any number of fields, with its line end."""
        d, field = re.escape(self.delimiter).encode(), self._bytes_field
        return re.compile(field + b"(?:" + d + field + b")*+" + rb"\r?\n")

    @cached_property
    def _open(self) -> re.Pattern[bytes]:
        """A record that ends inside a quoted field, at the end of the bytes."""
        d, q = re.escape(self.delimiter).encode(), re.escape(self.quote or "").encode()
        return re.compile(
            b"(?:" + self._bytes_field + d + b")*+" + q + b"(?:[^" + q + b"]++|" + q + q + b")*+" + rb"\Z"
        )

    def count(self, record: bytes, *, most: int | None = None) -> int:
        """How many fields a well-formed record has; beyond `most` they are not counted."""
        return sum(1 for _ in islice(self._each_field.finditer(record), most))

    @cached_property
    def _each_field(self) -> re.Pattern[bytes]:
        return re.compile(b"(" + self._bytes_field + b")(?:" + re.escape(self.delimiter).encode() + rb"|\r?\n)")

    def fields(self, record: bytes) -> list[str]:
        """The texts of one well-formed record. Raises ValueError when it is not."""
        if self.any_record.fullmatch(record) is None:
            raise ValueError("not a record")
        found = self._each_field.findall(record)
        quote = (self.quote or "").encode()
        return [
            (f[1:-1].replace(quote * 2, quote) if quote and f.startswith(quote) else f).decode("utf-8") for f in found
        ]

    def survey(self, data: bytes, line: int, *, whole: bool, record_max: int = RECORD_MAX) -> Survey:
        """Good runs and bad lines of `data`, whose first byte begins a record at `line`.

        `whole`: nothing follows `data` (its last line has its line end). Else it stops before a record that may go
        on beyond.
        """
        runs: list[tuple[int, int, int]] = []
        bad: list[Bad] = []
        at = 0
        while at < len(data):
            if self.width > 1 and (blank := _BLANK.match(data, at)):
                at, line = blank.end(), line + data.count(b"\n", at, blank.end())
                continue
            run = self._run.match(data, at)
            end = run.end() if run else at
            if end > at:
                runs.append((at, end, line))
                line += occurrences(data, b"\n", at, end)
                at = end
                continue
            stop = data.find(b"\n", at) + 1
            if not whole and (not stop or self._may_go_on(data, at, record_max)):
                break
            stop, reason = self._malformed(data, at, stop or len(data))
            bad.append(Bad(at, stop, line, reason))
            line += max(1, data.count(b"\n", at, stop))
            at = stop
        good, wrong = _split_encoding(data, runs, self)
        return Survey(tuple(good), tuple(sorted((*bad, *wrong), key=lambda b: b.start)), at, line)

    def _may_go_on(self, data: bytes, at: int, record_max: int) -> bool:
        if self.quote is None or len(data) - at > record_max:
            return False
        return self._open.match(data, at) is not None

    def _malformed(self, data: bytes, at: int, stop: int) -> tuple[int, str]:
        """Where the malformed record that begins at `at` ends, and what is wrong with it. `stop` is its line's end.

        A record whose quotes are well-formed ends where they say, some lines on perhaps: a line inside its text is no
        record, even if it looks like one. Where the quotes are bad nobody can tell, and only the line is given up.
        """
        match = self.any_record.match(data, at, min(len(data), at + RECORD_MAX))
        if match is not None:
            return max(match.end(), stop), _fields(self.count(match[0]), self.width)
        line = data[at:stop]
        if self.quote is None or self.quote.encode() not in line:
            return stop, "bad line end: a carriage return that no newline follows"
        return stop, "unclosed quote" if self._open.match(line) is not None else "bad quote"


def _fields(count: int, width: int) -> str:
    return f"too {'few' if count < width else 'many'} fields: {count} instead of {width}"


def _split_encoding(
    data: bytes, runs: list[tuple[int, int, int]], grammar: Grammar
) -> tuple[list[tuple[int, int, int]], list[Bad]]:
    """The runs without the records that are not UTF-8, and those records."""
    good: list[tuple[int, int, int]] = []
    wrong: list[Bad] = []
    for start, end, line in runs:
        try:
            data[start:end].decode("utf-8")
            good.append((start, end, line))
            continue
        except UnicodeDecodeError:
            pass
        begin, begin_line = start, line
        for match in grammar.record.finditer(data, start, end):
            lines = data.count(b"\n", match.start(), match.end())
            try:
                match[0].decode("utf-8")
            except UnicodeDecodeError:
                if match.start() > begin:
                    good.append((begin, match.start(), begin_line))
                wrong.append(Bad(match.start(), match.end(), line, "wrong encoding"))
                begin, begin_line = match.end(), line + lines
            line += lines  # noqa: PLW2901
        if end > begin:
            good.append((begin, end, begin_line))
    return good, wrong

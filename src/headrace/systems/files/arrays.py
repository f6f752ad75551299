"""JSON arrays: their records one by one, so that a file need not fit into memory."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

from headrace.errors import DataError
from headrace.systems.files.blocks import too_long
from headrace.systems.files.grammar import RECORD_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.systems.files.paths import File

__all__ = ["CHUNK", "DEEP", "records"]

CHUNK = 1024 * 1024
DEEP = "nested too deeply"
_WHITE = re.compile(r"[ \t\r\n]*")
_ENDS = json.JSONDecoder(parse_int=str, parse_float=str)  # where a value ends; what is in it the reader judges


class _Feed:
    """A stream as text, from the first character that is still needed on. Counts the lines passed over."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def more(self) -> None:
        """As much again as there is: a long record is not parsed once for each piece of it."""
        data = self._stream.read(max(CHUNK, len(self.text) - self.at))
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
                    f"file {self._name!r}: a value in line {self.line} is {DEEP}",
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


def records(file: File, stream: Any) -> Iterator[tuple[list[bytes], list[int]]]:
    """The records of a JSON array (or the one object that a file is), a few at a time: each on one line, and the file's
    line where it begins. Raises DataError for what is no JSON, for a value nested too deeply, a record too long.
    """
    feed = _Feed(stream, file.name)
    found: list[bytes] = []
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
        found.append(record)
        numbers.append(line)
        size += len(record)
        if size >= CHUNK:
            yield found, numbers
            found, numbers, size = [], [], 0
        more = opener == "[" and feed.peek() == ","
        feed.pass_to(feed.at + more)
    if opener == "[" and feed.peek() == "]":
        feed.pass_to(feed.at + 1)
        opener = "{"
    if feed.peek() or opener not in ("{", ""):
        raise _broken(file, feed.line)
    if found:
        yield found, numbers


def _broken(file: File, line: int) -> DataError:
    return DataError(
        f"file {file.name!r} is no JSON from line {line} on",
        hint='a JSON file is one array of objects; for one object a line say "format": "ndjson"',
        details={"file": file.name, "line": line},
    )

"""A file as blocks of bytes that end where a record ends: opened, decompressed, decoded, cut. Memory stays flat."""

from __future__ import annotations

import codecs
import gzip
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from headrace.errors import ConfigError, DataError, RejectedError, UnavailableError
from headrace.frozen import frozen
from headrace.systems.files.grammar import RECORD_MAX, occurrences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    from headrace.systems.files.paths import File

__all__ = ["BLOCK", "Block", "Cutter", "bytes_of", "opened", "too_long"]

BLOCK = 4 * 1024 * 1024
_BOM = codecs.BOM_UTF8


@frozen
class Block:
    """Bytes (UTF-8) that begin with a record at `line`; `last`: nothing follows them."""

    data: bytes
    line: int
    last: bool


@contextmanager
def opened(file: File, encoding: str) -> Iterator[Any]:
    """The file's text as UTF-8 bytes: an object whose ``read(n)`` gives up to about n bytes, none at the end.

    Bytes that the encoding does not know come as bytes that are no UTF-8, so that their line is found.
    Raises DataError for an archive that is cut off or broken, when it is read.
    """
    with bytes_of(file) as raw:
        magic = raw.peek(4)[:4]
        stream: Any = raw
        if magic[:2] == b"\x1f\x8b":
            stream = _Gzip(raw, file.name)
        elif magic == b"\x28\xb5\x2f\xfd":
            stream = _Zstd(raw, file.name)
        elif magic == b"PK\x03\x04":
            raise DataError(f"file {file.name!r} is a zip archive", hint="unpack it, or pack it as .gz or .zst")
        elif file.path.suffix.lower() in (".gz", ".zst") and magic:
            raise DataError(
                f"file {file.name!r} is no {file.path.suffix[1:]} archive", hint="rename it, or pack it anew"
            )
        yield stream if _is_utf8(encoding) else _Decoded(stream, encoding, file.name)


def bytes_of(file: File) -> BufferedReader:
    """The file as it is. Raises UnavailableError when it has gone, RejectedError when it may not be read."""
    try:
        return file.path.open("rb")
    except FileNotFoundError as error:
        raise UnavailableError(f"file {file.name!r} has gone", hint="run again") from error
    except OSError as error:
        raise RejectedError(f"file {file.name!r} cannot be read", hint="look at its rights") from error


def _is_utf8(encoding: str) -> bool:
    try:
        with suppress(UnicodeError):
            b" ".decode(encoding)  # a codec that gives no text (base64) is refused
        return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
    except (LookupError, ValueError):
        raise ConfigError(
            f"unknown encoding {encoding!r}", hint='write it as Python names it: "utf-8", "latin-1", "cp1252", "utf-16"'
        ) from None


def _cut_off(name: str) -> DataError:
    return DataError(f"the archive {name!r} is cut off or broken", hint="fetch it again", details={"file": name})


def too_long(name: str, line: int, size: int) -> DataError:
    """For a record that nobody would have written: the file is something else."""
    return DataError(
        f"{name}:{line}: a record of more than {size // 2**20} MiB, with no end in sight",
        hint="is it a file of this format, and of this encoding?",
        details={"file": name, "line": line},
    )


class _Gzip:
    def __init__(self, raw: Any, name: str) -> None:
        self._stream, self._name = gzip.GzipFile(fileobj=raw), name

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _cut_off(self._name) from error


class _Zstd:
    def __init__(self, raw: Any, name: str) -> None:
        import pyarrow as pa

        self._stream, self._name = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"), name

    def read(self, size: int) -> bytes:
        try:
            return bytes(self._stream.read(size))
        except OSError as error:
            raise _cut_off(self._name) from error


class _Decoded:
    """Another encoding, as UTF-8."""

    def __init__(self, stream: Any, encoding: str, name: str) -> None:
        self._stream, self._encoding, self._name = stream, encoding, name
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="surrogateescape")
        self._ended = False

    def read(self, size: int) -> bytes:
        while not self._ended:
            data = self._stream.read(size)
            self._ended = not data
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeError:  # of characters of several bytes nobody knows where the next one begins
                raise DataError(
                    f"file {self._name!r} is not {self._encoding}",
                    hint='say "encoding" as it was written; without it, UTF-8 is read',
                    details={"file": self._name},
                ) from None
            if text:
                return text.encode("utf-8", "surrogatepass")
        return b""


class Cutter:
    """Cuts a stream into blocks of about `size` bytes that end with a record.

    Quotes are counted: a newline after an even number of them ends a record, where the file is well-formed. Where
    it is not, the blocks may end anywhere at a line's end, and `back` takes back what has to be cut anew. A line that
    is longer than four times `record_max` is no line but a file of another kind: DataError.
    """

    def __init__(
        self,
        stream: Any,
        *,
        name: str,
        quote: str | None,
        size: int = BLOCK,
        footer: int = 0,
        record_max: int = RECORD_MAX,
    ) -> None:
        self._stream = stream
        self._name = name
        self._quote = quote.encode() if quote else None
        self._size = max(size, 1)
        self._footer = footer
        self.record_max = record_max
        self._buffer = b""
        self._ended = False
        self._at_start = True
        self.line = 1
        self.bytes = 0

    def cut(self, *, more_than: int = 0) -> Block | None:
        """The next block, longer than `more_than` bytes if the file is; None at the end."""
        size = max(self._size, more_than * 2)
        while True:
            self._fill(size)
            if self._ended and len(self._buffer) <= size:
                return self._rest()
            usable = min(self._usable(), size)
            end = self._boundary(usable)
            if end <= more_than and usable > self.record_max:
                end = self._buffer.rfind(b"\n", 0, usable) + 1
            if end > more_than:
                return self._take(end)
            size *= 2
            self._refuse_endless(usable)

    def back(self, data: bytes, line: int) -> None:
        """Take back `data`, which begins at `line` and is all that has been cut since there."""
        self._buffer = data + self._buffer
        self.line = line

    def skip(self, lines: int) -> None:
        """Pass over physical lines."""
        for _ in range(lines):
            while (end := self._buffer.find(b"\n") + 1) == 0 and not self._ended:
                self._refuse_endless(len(self._buffer))
                self._fill(len(self._buffer) * 2 + 65_536)
            self._buffer = self._buffer[end or len(self._buffer) :]
            self.line += 1

    def peek(self, size: int) -> tuple[bytes, bool]:
        """The next `size` bytes or more, a line at least, without passing over them, and whether they are all."""
        self._fill(size)
        while not self._ended and b"\n" not in self._buffer:
            self._refuse_endless(len(self._buffer))
            self._fill(len(self._buffer) * 2)
        return self._buffer, self._ended

    def _refuse_endless(self, size: int) -> None:
        if size > 4 * self.record_max and b"\n" not in self._buffer[:size]:
            raise too_long(self._name, self.line, 4 * self.record_max)

    def drop(self, size: int) -> None:
        """Pass over the next `size` bytes, which end with a line."""
        self.line += occurrences(self._buffer, b"\n", 0, size)
        self._buffer = self._buffer[size:]

    def _fill(self, size: int) -> None:
        parts, have = [self._buffer], len(self._buffer)
        while have < size and not self._ended:
            data = self._stream.read(size - have)
            if not data:
                self._ended = True
                parts = [self._without_footer(b"".join(parts))]
            elif self._at_start:
                while len(data) < len(_BOM) and (more := self._stream.read(len(_BOM))):
                    data += more
                data = data.removeprefix(_BOM)
                self._at_start = False
            parts.append(data)
            have += len(data)
        self._buffer = parts[0] if len(parts) == 1 else b"".join(parts)

    def _without_footer(self, data: bytes) -> bytes:
        """The end of the file: with a newline, without the last `footer` lines."""
        if data and not data.endswith(b"\n"):
            data += b"\n"
        for _ in range(self._footer):
            data = data[: data.rfind(b"\n", 0, max(len(data) - 1, 0)) + 1]
        return data

    def _usable(self) -> int:
        """Where the last `footer` lines begin, as far as the file is known."""
        end = len(self._buffer)
        for _ in range(self._footer + 1 if self._footer and not self._ended else 0):
            end = self._buffer.rfind(b"\n", 0, max(end - 1, 0)) + 1
        return end

    def _rest(self) -> Block | None:
        data, self._buffer = self._buffer, b""
        return Block(data, self.line, last=True) if data else None

    def _take(self, end: int) -> Block:
        data, self._buffer = self._buffer[:end], self._buffer[end:]
        block = Block(data, self.line, last=False)
        self.line += occurrences(data, b"\n")
        return block

    def _boundary(self, end: int) -> int:
        """Just after the last newline that an even number of quotes precedes; 0: there is none."""
        data, quote = self._buffer, self._quote
        if quote is None:
            return data.rfind(b"\n", 0, end) + 1
        even = occurrences(data, quote, 0, end) % 2 == 0
        while True:
            before = data.rfind(quote, 0, end)
            if even:
                newline = data.rfind(b"\n", before + 1, end)
                if newline >= 0:
                    return newline + 1
            if before < 0:
                return 0
            end, even = before, not even

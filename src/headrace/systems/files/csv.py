"""CSV and TSV: blocks proven by one regex and parsed by Polars; what is not proven goes record by record."""

from __future__ import annotations

import codecs
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from headrace.errors import DataError
from headrace.frozen import frozen
from headrace.systems.files.blocks import BLOCK, Block, Cutter, opened
from headrace.systems.files.grammar import RECORD_MAX, Grammar, occurrences
from headrace.systems.files.layout import WIDEST, Reject, Texts, refuse_wide

if TYPE_CHECKING:
    from headrace.systems.files import FileSource
    from headrace.systems.files.paths import File
    from headrace.systems.files.shapes import Shape

__all__ = ["CSVReader", "Head"]

T = TypeVar("T")
_BOM = b"\xef\xbb\xbf"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_AHEAD = 3
_HEAD = 65_536
_DELIMITERS = (",", ";", "\t", "|")
_GUESS_RECORDS = 20
_SHAPES_MAX = 500  # the regex of so many takes a tenth of a second to compile, and of twice as many it is too large
_MANY = "is its delimiter the right one, and does its first line end?"


@frozen
class Head:
    """What a file's first lines say: its fields, its delimiter, and whether that was guessed. No fields: empty.
    `texts` are the fields of which numbers too are kept as they are written (JSON).
    """

    fields: tuple[str, ...]
    delimiter: str = ","
    guessed: bool = False
    texts: frozenset[str] = frozenset()


@frozen
class CSVReader:
    """Reads files of one dialect. `block` is the size of a block in bytes."""

    source: FileSource
    format: str
    block: int = BLOCK
    record_max: int = RECORD_MAX

    def head(self, file: File) -> Head:
        """The file's fields. Raises DataError for repeated or empty names, and for a header that is no record."""
        with opened(file, self.source.encoding) as stream:
            cutter = self._cutter(file, stream)
            return self._head(file, cutter)

    def _cutter(self, file: File, stream: Any) -> Cutter:
        return Cutter(
            stream,
            name=file.name,
            quote=self.source.quote,
            size=self.block,
            footer=self.source.skip_footer,
            record_max=self.record_max,
        )

    def _head(self, file: File, cutter: Cutter) -> Head:
        """The head; the cutter stands at the first row afterwards."""
        cutter.skip(self.source.skip_rows)
        data, whole = cutter.peek(_HEAD)
        blanks = len(data) - len(data.lstrip(b"\r\n"))
        if blanks == len(data):
            return Head(self.source.header if isinstance(self.source.header, tuple) else ())
        data = data[blanks:] if not whole or data.endswith(b"\n") else data[blanks:] + b"\n"
        delimiter, guessed = self._delimiter(data)
        first = Grammar(delimiter, self.source.quote, 1).any_record.match(data)
        header = self.source.header
        if first is None and header is True:
            raise DataError(
                f"file {file.name!r}: its header line cannot be read", hint='has it one? else say "header": false',
                details={"file": file.name},
            )  # fmt: skip
        if isinstance(header, tuple):
            return Head(header, delimiter, guessed)
        fields = self._fields(file, first[0] if first else data[: data.find(b"\n") + 1], delimiter)
        if header is False:
            return Head(tuple(f"column_{n}" for n in range(1, len(fields) + 1)), delimiter, guessed)
        cutter.drop(blanks + (first.end() if first else 0))
        if any("\0" in f for f in fields):
            raise _misread(file, self.source.encoding, utf16=True)
        return Head(_checked(file, fields), delimiter, guessed)

    def _fields(self, file: File, record: bytes, delimiter: str) -> list[str]:
        grammar = Grammar(delimiter, self.source.quote, 1)
        if grammar.any_record.fullmatch(record) is None:
            # no header is wanted of it: the fields are counted, and the line is rejected when read
            refuse_wide(count := record.count(delimiter.encode()) + 1, _MANY)
            return [""] * count
        refuse_wide(grammar.count(record, most=WIDEST + 1), _MANY)
        try:
            return grammar.fields(record)
        except UnicodeDecodeError:
            raise _misread(file, self.source.encoding, utf16=record[:2] in _UTF16) from None

    def _delimiter(self, data: bytes) -> tuple[str, bool]:
        if self.source.delimiter is not None:
            return self.source.delimiter, False
        if self.format == "tsv":
            return "\t", False
        return _guess(data, self.source.quote), True

    def read(
        self,
        file: File,
        fields: Sequence[str],
        columns: Sequence[str],
        finish: Callable[[Texts], T],
        *,
        head: Head,
        shapes: Mapping[str, Shape] | None = None,
    ) -> Iterator[T]:
        """The file as pieces of texts, each through `finish` on a thread, in order.

        `fields` are names for the file's fields, `columns` those that are wanted of them. Where all texts of a piece
        have the `shapes` of their columns, those columns come as values.
        """
        if not head.fields:
            return
        grammar = Grammar(head.delimiter, self.source.quote, len(fields))
        with opened(file, self.source.encoding) as stream:
            cutter = self._cutter(file, stream)
            self._head(file, cutter)
            parser = _Parser(file, grammar, tuple(fields), tuple(columns), shapes or {})
            yield from self._pieces(file, cutter, grammar, parser, finish)

    def _pieces(
        self, file: File, cutter: Cutter, grammar: Grammar, parser: _Parser, finish: Callable[[Texts], T]
    ) -> Iterator[T]:
        def proven(block: Block) -> T | None:
            starts = ((0, block.line),)
            if (shaped := parser.shaped(block.data, starts)) is not None:
                return finish(shaped)
            return finish(parser.texts(block.data, starts)) if grammar.proves(block.data) else None

        waiting: deque[tuple[Block, Future[T | None]]] = deque()
        stuck = 0
        pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="headrace-csv")
        try:
            while True:
                while len(waiting) < _AHEAD and (block := cutter.cut(more_than=stuck)) is not None:
                    alone = block.last and not waiting
                    waiting.append((block, _begun(pool, proven, block, alone=alone)))
                    stuck = 0
                if not waiting:
                    return
                block, future = waiting.popleft()
                result = future.result()
                if result is not None:
                    yield result
                    continue
                survey = grammar.survey(block.data, block.line, whole=block.last, record_max=self.record_max)
                if survey.end < len(block.data):
                    # the cut was wrong, as an unclosed quote before it makes it: cut anew from here
                    for _, other in waiting:
                        other.cancel()
                    cutter.back(b"".join((block.data[survey.end :], *(b.data for b, _ in waiting))), survey.line)
                    waiting.clear()
                    stuck = len(block.data) if survey.end == 0 else 0
                bad = [_reject(file, block.data, b.start, b.end, b.line, b.reason) for b in survey.bad]
                pieces, at = [], 0
                for start, end, line in survey.runs:
                    pieces.append((at, line))
                    at += end - start
                data = b"".join(block.data[s:e] for s, e, _ in survey.runs)
                yield finish(parser.texts(data, tuple(pieces), tuple(bad)))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # what still runs holds nothing but bytes

    def sample(self, file: File, fields: Sequence[str], *, head: Head) -> Iterator[pl.DataFrame]:
        """The file's good rows as texts, in small pieces."""
        small = CSVReader(self.source, self.format, block=min(self.block, 1024 * 1024), record_max=self.record_max)
        for piece in small.read(file, fields, fields, lambda p: p, head=head):
            yield piece.frame

    def parse(self, file: File, fields: Sequence[str], texts: Sequence[tuple[int, str]], *, head: Head) -> Texts:
        """Single records (line, text) through the same parser."""
        grammar = Grammar(head.delimiter, self.source.quote, len(fields))
        parser = _Parser(file, grammar, tuple(fields), tuple(fields))
        good, pieces, bad, at = [], [], [], 0
        for line, text in texts:
            data = text.encode("utf-8", "surrogatepass") + b"\n"
            survey = grammar.survey(data, line, whole=True)
            if survey.runs == ((0, len(data), line),):
                pieces.append((at, line))
                good.append(data)
                at += len(data)
            else:
                reason = survey.bad[0].reason if survey.bad else "no record"
                bad.append(Reject(file.name, line, text, (reason,)))
        return parser.texts(b"".join(good), tuple(pieces), tuple(bad))


def _begun(
    pool: ThreadPoolExecutor, work: Callable[[Block], T | None], block: Block, *, alone: bool
) -> Future[T | None]:
    """The work on a block, on a thread; of a file's only block at once: to start a thread takes longer than to read a
    small file.
    """
    if not alone:
        return pool.submit(work, block)
    done = Future[T | None]()
    done.set_result(work(block))
    return done


def _misread(file: File, encoding: str, *, utf16: bool) -> DataError:
    return DataError(
        f"file {file.name!r}: its first line is not {encoding}",
        hint='say "encoding": "utf-16"' if utf16 else 'say "encoding", e.g. "latin-1" or "cp1252"',
        details={"file": file.name},
    )


def _checked(file: File, fields: Sequence[str]) -> tuple[str, ...]:
    empty = [str(i) for i, f in enumerate(fields, 1) if not f.strip()]
    double = sorted(f for f, times in Counter(fields).items() if times > 1 and f.strip())
    if not empty and not double:
        return tuple(fields)
    what = f"repeats {', '.join(map(repr, double))}" if double else f"does not name column {', '.join(empty)}"
    raise DataError(
        f"file {file.name!r}: its header {what}",
        hint='give the names yourself, and skip the header: "header": ["a", "b", …], "skip_rows": 1',
        details={"file": file.name, "repeated": double, "empty": [int(e) for e in empty]},
    )


def _guess(data: bytes, quote: str | None) -> str:
    """The delimiter that gives the first records the most fields, and all of them as many."""
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        grammar = Grammar(delimiter, quote, 1)
        counts: list[int] = []
        at = 0
        while len(counts) < _GUESS_RECORDS and (match := grammar.any_record.match(data, at)) and match.end() > at:
            at = match.end()
            if match[0].strip():
                counts.append(grammar.count(match[0], most=WIDEST + 1))
        if counts and counts[0] > most and counts.count(counts[0]) * 2 > len(counts):
            best, most = delimiter, counts[0]
    return best


def _reject(file: File, data: bytes, start: int, end: int, line: int, reason: str) -> Reject:
    return Reject(file.name, line, _shown(data[start:end]), (reason,))


def _shown(record: bytes) -> str:
    r"""A record without its line end; bytes that are no UTF-8 as ``\\xNN``."""
    return record.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "backslashreplace")


@frozen
class _Parser:
    """Good records into texts. Polars parses them; lines and raw texts are found when they are asked for."""

    file: File
    grammar: Grammar
    fields: tuple[str, ...]
    columns: tuple[str, ...]
    shapes: Mapping[str, Shape] = field(default_factory=dict)

    @cached_property
    def _wanted(self) -> list[int]:
        return sorted(self.fields.index(c) for c in self.columns) or [0]

    def texts(
        self,
        data: bytes,
        starts: tuple[tuple[int, int], ...],
        bad: tuple[Reject, ...] = (),
        shapes: Mapping[str, Shape] | None = None,
    ) -> Texts:
        """The records of `data`. `starts` are (offset, line) of each run of lines that follow one another. The columns
        of which all texts are known to have a shape come as values.
        """
        known = shapes or {}
        frame = self._frame(data, known)
        return Texts(
            frame,
            lines=lambda: _lines(data, starts, self.grammar, frame.height),
            raw=lambda rows: self._raw(data, rows),
            bad=bad,
            size=len(data),
            values=known.keys(),
        )

    def shaped(self, data: bytes, starts: tuple[tuple[int, int], ...]) -> Texts | None:
        """As `texts`, with values in the columns that have a shape; None where not all texts are known to have it."""
        if not self._proof.shapes or not self._proof.proves(data):
            return None
        try:
            return self.texts(data, starts, shapes=self._known)
        except pl.exceptions.ComputeError:  # a date that is none
            return None

    @cached_property
    def _known(self) -> Mapping[str, Shape]:
        """The shapes that no delimiter and no quote can be a part of; none where a regex of all would be too large."""
        if len(self.shapes) > _SHAPES_MAX:
            return {}
        marks = {self.grammar.delimiter, self.grammar.quote}
        return {name: shape for name, shape in self.shapes.items() if not marks.intersection(shape.alphabet)}

    @cached_property
    def _proof(self) -> Grammar:
        patterns = [self._known[f].pattern if f in self._known else None for f in self.fields]
        return replace(self.grammar, shapes=tuple(patterns) if any(patterns) else ())

    def _frame(self, data: bytes, shapes: Mapping[str, Shape]) -> pl.DataFrame:
        names = [self.fields[i] for i in self._wanted]
        types = [shapes[n].dtype if n in shapes else pl.String() for n in self.fields]
        if not data:
            return pl.DataFrame(schema={self.fields[at]: types[at] for at in self._wanted})
        frame = pl.read_csv(
            _BOM + data if data.startswith(_BOM) else data,  # Polars takes one away, as the file's mark
            has_header=False,
            schema={str(at): dtype for at, dtype in enumerate(types)},
            separator=self.grammar.delimiter,
            quote_char=self.grammar.quote,
            columns=self._wanted,
        )
        frame.columns = names
        return frame

    def _raw(self, data: bytes, rows: Sequence[int]) -> list[str]:
        spans = [m.span() for m in self.grammar.record.finditer(data)] if rows else []
        return [_shown(data[slice(*spans[row])]) for row in rows]


def _lines(data: bytes, starts: tuple[tuple[int, int], ...], grammar: Grammar, height: int) -> pl.Series:
    """The line of each row."""
    if not starts:
        return pl.Series(dtype=pl.Int64)
    ends = [s for s, _ in starts[1:]] + [len(data)]
    if occurrences(data, b"\n") == height:  # no newline inside a field
        ranges = [
            pl.int_range(line, line + occurrences(data, b"\n", begin, end), eager=True)
            for (begin, line), end in zip(starts, ends, strict=True)
        ]
        return pl.concat(ranges)
    lines: list[int] = []
    for (begin, line), end in zip(starts, ends, strict=True):
        for match in grammar.record.finditer(data, begin, end):
            lines.append(line)
            line += data.count(b"\n", match.start(), match.end())  # noqa: PLW2901
    return pl.Series(lines, dtype=pl.Int64)

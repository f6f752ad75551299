"""What a set of files holds, found before any row is read: columns by name, their types, what had to be guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from headrace.cursor import TextType
from headrace.errors import ConfigError, DataError, SchemaError, did_you_mean
from headrace.frozen import frozen
from headrace.logical import Type, parse_type, widens
from headrace.schema import Schema
from headrace.systems.files.blocks import BLOCK
from headrace.systems.files.columnar import ColumnarReader
from headrace.systems.files.csv import CSVReader, Head
from headrace.systems.files.infer import Guess, Guesses, KeyGuess, type_of
from headrace.systems.files.layout import Column, Layout, refuse_wide, texts_of
from headrace.systems.files.ndjson import JSONReader
from headrace.systems.files.paths import File, format_of, hive_parts, refuse_mixed

if TYPE_CHECKING:
    from headrace.systems.files import FileSource

__all__ = ["Survey", "survey"]

_MANY = "is a JSON file one object with a key for each row? make it an array of objects"
_TEXTS = ("string", "categorical", "enum")
Reader = CSVReader | JSONReader | ColumnarReader
RESERVED = "_headrace_"
_ADDED = {"file": Type("string"), "line": Type("int64"), "modified": Type("datetime", ("us", "UTC"))}


@frozen
class Survey:
    """The columns of a set of files. `heads` are the files' own (text formats), `native` their types (columnar)."""

    format: str
    reader: Reader
    layout: Layout
    heads: Mapping[str, Head] = field(default_factory=dict)
    native: Mapping[str, Schema] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def pinned(self) -> dict[str, str]:
        """The inferred types, so that the next run reads the next files as this one read these."""
        text = not isinstance(self.reader, ColumnarReader)
        return {
            c.name: str(c.type)
            for c in self.layout.columns
            if c.inferred is not None and (text or c.origin == "hive") and c.type.name != "null"
        }


def reader_of(source: FileSource, format: str) -> Reader:
    """The reader of a format."""
    if format in ("csv", "tsv"):
        return CSVReader(source, format, block=source.block or BLOCK)
    if format in ("ndjson", "json"):
        return JSONReader(source, format, block=source.block or BLOCK)
    if format in ("parquet", "ipc", "excel"):
        return ColumnarReader(source, format)
    known = ("csv", "tsv", "ndjson", "json", "parquet", "ipc", "excel")
    hint = did_you_mean(format, known, otherwise=f"use {', '.join(known)}")
    raise ConfigError(f"unknown format {format!r}", hint=hint)


def survey(source: FileSource, files: Sequence[File], pinned: Mapping[str, str]) -> Survey:
    """Look at the files' heads and a sample. `pinned` are types that an earlier run inferred.

    Raises ConfigError, DataError (a header, a broken file, no columns at all), SchemaError (types that do not meet).
    """
    if not files:
        return _nothing(source, pinned)
    format = source.format or refuse_mixed([format_of(f.path) for f in files], [f.name for f in files])
    reader = reader_of(source, format)
    declared = {source.rename.get(k, k): t for k, t in source.text_types.items()}
    if isinstance(reader, ColumnarReader):
        made = _columnar(source, reader, files, declared)
    elif isinstance(reader, CSVReader):
        made = _csv(source, reader, files, declared, pinned)
    else:
        made = _json(source, reader, files, declared, pinned)
    columns = [*made.layout.columns, *_hive(source, files, made.layout.columns, declared, pinned)]
    columns += [Column(name, _ADDED[word], origin=word) for name, word in source.add_columns.items()]
    _check_names(columns, declared, pinned)
    return Survey(
        made.format, reader, Layout(tuple(columns), source.nulls, source.decimal), made.heads, made.native, made.facts
    )


def _nothing(source: FileSource, pinned: Mapping[str, str]) -> Survey:
    """No file: the columns are those that were known before, and those that are declared."""
    format = source.format or "csv"
    declared = {source.rename.get(k, k): t for k, t in source.text_types.items()}
    names = dict.fromkeys([*pinned, *declared])
    columns = [_column(n, declared, {k: parse_type(t) for k, t in pinned.items()}, 0) for n in names]
    columns += [Column(name, _ADDED[word], origin=word) for name, word in source.add_columns.items()]
    return Survey(format, reader_of(source, format), Layout(tuple(columns), source.nulls, source.decimal))


def _check_names(columns: Sequence[Column], declared: Mapping[str, TextType], pinned: Mapping[str, str]) -> None:
    names = [c.name for c in columns]
    refuse_wide(len(names), _MANY)
    if reserved := [n for n in names if n.startswith(RESERVED)]:
        raise ConfigError(
            f"column {reserved[0]!r}: names that begin with {RESERVED} are headrace's own",
            hint=f'call it otherwise: "rename": {{"{reserved[0]}": "…"}}',
        )
    if double := [n for n, times in Counter(names).items() if times > 1]:
        raise ConfigError(
            f"column {double[0]!r} would stand twice", hint="choose another name in add_columns or rename"
        )
    for name in declared:
        if name not in names and name not in pinned:
            raise ConfigError(
                f'"types" names a column {name!r} that no file has',
                hint=did_you_mean(name, names, otherwise=f"the files have {', '.join(names)}"),
            )


def renamed(source: FileSource, file: File, fields: Sequence[str]) -> tuple[str, ...]:
    """The fields under their names in the result. Raises DataError where two become one."""
    names = tuple(source.rename.get(f, f) for f in fields)
    if double := [n for n, times in Counter(names).items() if times > 1]:
        raise DataError(f"file {file.name!r}: two columns would be called {double[0]!r}", hint="change rename")
    return names


def _union(source: FileSource, files: Sequence[File], heads: Mapping[str, Head]) -> list[str]:
    names: dict[str, None] = {}
    for file in files:
        names.update(dict.fromkeys(renamed(source, file, heads[file.name].fields)))
    for old in source.rename:
        if files and not any(old in heads[f.name].fields for f in files) and source.rename[old] not in names:
            raise ConfigError(f'"rename" names a column {old!r} that no file has', hint=did_you_mean(old, names))
    return list(names)


def _csv(
    source: FileSource,
    reader: CSVReader,
    files: Sequence[File],
    declared: Mapping[str, TextType],
    pinned: Mapping[str, str],
) -> Survey:
    heads = {f.name: reader.head(f) for f in files}
    names = _union(source, files, heads)
    refuse_wide(len(names), _MANY)
    if not names:
        names = list(dict.fromkeys([*pinned, *declared]))
    if not names:
        raise DataError("every file is empty, and nothing says what its columns are", hint='declare them in "types"')
    settled = {n: parse_type(t) for n, t in pinned.items() if n in names}
    open_names = [n for n in names if n not in declared and n not in settled]
    guesses, count = _infer(source, reader, files, heads, open_names)
    types = {n: g.type if count else Type("null") for n, g in guesses.items()}  # a header alone fits any column
    columns = tuple(_column(n, declared, settled | types, count) for n in names)
    facts: dict[str, Any] = {"inferred": {c.name: str(c.type) for c in columns if c.name in types}}
    if why := {n: g.why for n, g in guesses.items() if g.why}:
        facts["text_because"] = why
    if types:
        facts["sample_rows"] = count if source.infer != "all" else "all"
    guessed: dict[str, str] = {}
    for file in files:
        if heads[file.name].guessed and heads[file.name].fields:
            guessed.setdefault(heads[file.name].delimiter, file.name)
    if guessed:
        facts["guessed"] = {"delimiter": {d: f"as in {name}" for d, name in guessed.items()}}
    return Survey(reader.format, reader, Layout(columns), heads=heads, facts=facts)


def _column(name: str, declared: Mapping[str, TextType], types: Mapping[str, Type], count: int) -> Column:
    if name in declared:
        return Column(name, parse_type(declared[name].type), declared[name])
    return Column(name, types[name], None, inferred=count)


def _infer(
    source: FileSource, reader: CSVReader, files: Sequence[File], heads: Mapping[str, Head], names: Sequence[str]
) -> tuple[dict[str, Guess], int]:
    """Guesses from the first rows of the first files; of a column that they do not have, from the first that has it."""
    guesses = Guesses(names, decimal=source.decimal)
    limit = None if source.infer == "all" else int(source.infer)
    read = 0
    layout = Layout((), source.nulls)
    for file in files:
        fields = renamed(source, file, heads[file.name].fields)
        fresh = [n for n in names if n in fields and guesses.rows(n) == 0]
        if not fresh and limit is not None and read >= limit:
            continue
        wanted = [n for n in names if n in fields] if limit is None or read < limit else fresh
        left = limit if limit is None or read >= limit else limit - read
        if not wanted:
            continue
        for piece in reader.sample(file, fields, head=heads[file.name]):
            part = piece if left is None else piece.head(left)
            guesses.feed(part.select(texts_of(name, layout) for name in wanted))
            read += part.height
            left = None if left is None else left - part.height
            if left == 0:
                break
    return guesses.found(), read


def _json(
    source: FileSource,
    reader: JSONReader,
    files: Sequence[File],
    declared: Mapping[str, TextType],
    pinned: Mapping[str, str],
) -> Survey:
    guesses: dict[str, KeyGuess] = {}
    count = sum(reader.sample(file, guesses) for file in files)
    known = {source.unrenamed.get(n, n): None for n in (*pinned, *declared)}
    every = tuple(dict.fromkeys([*guesses, *(k for k in known if k not in guesses)]))
    refuse_wide(len(every), _MANY)
    if not every:
        for file in files:
            if (refused := reader.refusal(file)) is not None:
                raise DataError(
                    f"{file.name}:{refused[0]}: {refused[1]}; no file has a record that can be read",
                    hint='mend it, or declare the columns in "types"',
                    details={"file": file.name, "line": refused[0]},
                )
        raise DataError("no file has a record, and nothing says what its columns are", hint='declare them in "types"')
    names = renamed(source, files[0], every) if files else every
    types = {n: guesses[k].type for k, n in zip(every, names, strict=True) if k in guesses}
    types |= {n: parse_type(t) for n, t in pinned.items()}
    columns = tuple(_column(n, declared, types, count) for n in names)
    texts = frozenset(k for k, c in zip(every, columns, strict=True) if c.type.name in _TEXTS)
    heads = {f.name: Head(every, texts=texts) for f in files}  # a key may come late in any file
    inferred = {c.name: str(c.type) for c in columns if c.inferred is not None and c.name not in pinned}
    facts = {"inferred": inferred, "sample_rows": "all" if source.infer == "all" else count}
    return Survey(reader.format, reader, Layout(columns), heads=heads, facts=facts)


def _columnar(
    source: FileSource, reader: ColumnarReader, files: Sequence[File], declared: Mapping[str, TextType]
) -> Survey:
    native: dict[str, Schema] = {}
    types: dict[str, Type] = {}
    for file in files:
        schema = reader.schema(file)
        names = renamed(source, file, schema.names)
        native[file.name] = Schema.of({n: f.type for n, f in zip(names, schema, strict=True)})
        for column in native[file.name]:
            old = types.get(column.name)
            if old is None or widens(old, column.type):
                types[column.name] = column.type
            elif not widens(column.type, old) and column.name not in declared:
                raise SchemaError(
                    f"file {file.name!r}: column {column.name!r} is {column.type}, in earlier files it is {old}",
                    hint=f'declare one that holds both: "types": {{"{column.name}": "string"}}',
                    details={"file": file.name, "column": column.name},
                )
    if not types:
        raise DataError("no file has a column", hint="is it the right path?")
    columns = tuple(
        Column(
            n,
            parse_type(declared[n].type) if n in declared else t,
            declared.get(n),
            inferred=None if n in declared else 0,
        )
        for n, t in types.items()
    )
    return Survey(reader.format, reader, Layout(columns), native=native)


def _hive(
    source: FileSource,
    files: Sequence[File],
    columns: Sequence[Column],
    declared: Mapping[str, TextType],
    pinned: Mapping[str, str],
) -> list[Column]:
    if source.hive is False:
        return []
    values: dict[str, list[str | None]] = {}
    for file in files:
        for key, text in hive_parts(file.name).items():
            values.setdefault(key, []).append(text)
    made = []
    for key, texts in values.items():
        if any(c.name == key for c in columns):
            raise DataError(
                f"column {key!r} is in the files and in their folders' names",
                hint='"hive": false leaves the folders out',
            )
        if key in declared:
            made.append(Column(key, parse_type(declared[key].type), declared[key], origin="hive"))
        else:
            type = parse_type(pinned[key]) if key in pinned else type_of(texts)
            made.append(Column(key, type, None, inferred=len(texts), origin="hive"))
    return made

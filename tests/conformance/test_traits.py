"""What a source or a destination may have besides its methods: it does without, by the documented defaults."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import polars as pl
import pytest

import headrace as hr
from headrace.flow import Batch, Commit, Position, Range, Receipt, Snapshot, TableChange
from headrace.protocols import Destination, Holder, Source
from headrace.schema import CreateTable, Field, Schema
from headrace.traits import DestinationTraits, SourceTraits


class BareSource:
    """The protocol's methods, and nothing else."""

    def batches(self, range: Range, snapshot: Snapshot, name: str) -> Iterator[Batch]: ...

    def confirm(self, position: Position) -> None: ...

    def identity(self) -> Any: ...

    def places(self) -> Sequence[Any]: ...


class BareDestination:
    """The protocol's methods, and nothing else."""

    def inspect(self, pipeline: str) -> Snapshot: ...

    def apply(self, commit: Commit) -> Receipt: ...

    def settle(self, pipeline: str, id: str) -> Receipt | None: ...

    def hold(self, pipeline: str, holder: Holder) -> AbstractContextManager[None]: ...

    def place(self) -> Any: ...

    def supports(self, write: str) -> str | None: ...

    def record(self, run: Mapping[str, Any]) -> None: ...

    def history(self, pipeline: str) -> Sequence[Mapping[str, Any]]: ...

    def rejects(self, pipeline: str) -> pl.DataFrame: ...


def test_a_source_of_the_protocols_methods_alone_has_the_documented_defaults() -> None:
    bare = BareSource()
    assert isinstance(bare, Source)
    assert vars(SourceTraits.of(bare)) == {
        "read": "new",
        "contract": None,
        "cursor": None,
        "current": False,
        "latest": None,
        "deletes": None,
        "rereads": None,
        "cuts": False,
        "outward": frozenset(),
        "matching": None,
        "together": None,
        "reparse": None,
    }


def test_a_destination_of_the_protocols_methods_alone_has_the_documented_defaults() -> None:
    bare = BareDestination()
    assert isinstance(bare, Destination)
    traits = DestinationTraits.of(bare)
    assert {name: value for name, value in vars(traits).items() if not callable(value)} == {
        "type": "BareDestination",
        "path": None,
        "table": None,
        "schema": None,
        "adopt": False,
        "native": None,
        "truncates": False,
        "at_once": "one transaction",
        "readers": None,
    }
    schema = Schema.of({"id": "int64"})
    made = TableChange(table="t", write=hr.Append(), schema=schema, rows=tuple, changes=(CreateTable(schema),))
    assert list(traits.ddl(made)) == ["create the table"]
    assert list(traits.notes(made)) == []
    assert not traits.takes(*(Field("id", schema["id"]),) * 2)


def test_what_they_have_is_told() -> None:
    source = hr.FileSource(path="*.csv", read="all", changed="reread", add_columns={"f": "file"})
    told = SourceTraits.of(source)
    assert (told.read, told.rereads, told.reparse) == ("all", frozenset("f"), source.reparse)
    assert DestinationTraits.of(hr.ParquetDestination(path="t")).at_once == "one entry of the folder's log"


@pytest.mark.parametrize(("protocol", "traits"), [(Source, SourceTraits), (Destination, DestinationTraits)])
def test_the_protocol_tells_each_of_them(protocol: type, traits: Any) -> None:
    points = (inspect.getdoc(protocol) or "").split("\n- ")[1:]
    heads = [re.split(r"`: ", point, maxsplit=1)[0] for point in points]
    named = {name for head in heads for name in re.findall(r"(?<![\w`])`{1,2}(\w+)", head)}
    assert {one.name for one in fields(traits)} <= named

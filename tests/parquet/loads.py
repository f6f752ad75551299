"""Commits for the tests of file targets."""

from __future__ import annotations

import secrets
from typing import Any

import polars as pl

from headrace.flow import Commit, Receipt, Seal, TableChange
from headrace.protocols import Destination
from headrace.schema import Schema, SchemaPolicy, evolve
from headrace.stream import FrameStream
from headrace.writes import Append, Write


def commit(
    destination: Destination, frame: pl.DataFrame | pl.LazyFrame, write: Write | None = None, **facts: Any
) -> Commit:
    """One commit that loads the frame."""
    lazy = frame.lazy()
    snapshot = destination.inspect("p")
    schema, changes = evolve(snapshot.schema, Schema.of_polars(lazy.collect_schema()), SchemaPolicy(missing="keep"))
    change = TableChange(
        table="t",
        write=write or Append(),
        schema=facts.pop("schema", schema),
        rows=facts.pop("rows", lambda: FrameStream(lazy)),
        changes=changes,
    )
    seal = facts.pop("seal", lambda: Seal(positions={}, files={}, record={}))
    return Commit(
        **{"id": secrets.token_hex(8), "pipeline": "p", "run": "r", "expected": snapshot.number, **facts},
        changes=(change,),
        seal=seal,
    )


def load(
    destination: Destination, frame: pl.DataFrame | pl.LazyFrame, write: Write | None = None, **facts: Any
) -> Receipt:
    """Load the frame in one commit."""
    return destination.apply(commit(destination, frame, write, **facts))

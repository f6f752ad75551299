"""Transforms that would end the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.pipeline import PythonStep

if TYPE_CHECKING:
    from headrace.pipeline import Pipeline

__all__ = ["going_on"]


@contextmanager
def going_on(pipeline: Pipeline) -> Iterator[None]:
    """A transform that ends the process while rows are drawn has failed: its exit code is not the command's.

    Raises TransformError.
    """
    try:
        yield
    except SystemExit as stop:
        from headrace.transform import blame, file_of, load_function, name_of

        named = [(name_of(s, n), s.python) for n, s in enumerate(pipeline.steps, 1) if isinstance(s, PythonStep)]
        functions = [(name, load_function(f, pipeline.base) if isinstance(f, str) else f) for name, f in named]
        if (failure := blame([(name, file_of(f)) for name, f in functions], stop)) is None:
            raise
        raise failure from stop

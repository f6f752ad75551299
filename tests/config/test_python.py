"""A mistake in Python is told as the same one in JSON is: by name, and with what to write."""

from __future__ import annotations

from typing import Any

import pytest

import headrace as hr
from headrace import ConfigError
from headrace.systems.memory import MemorySource


def pipeline(**parts: Any) -> hr.Pipeline:
    return hr.Pipeline(
        **{"name": "p", "source": MemorySource(frames=[]), "destination": hr.MemoryDestination(), **parts}
    )


MISTAKES = {
    "a write as a text": (lambda: pipeline(write="append"), "write is no write"),
    "keys as a text": (lambda: hr.Merge(keys="id"), "merge: keys names columns"),
    "keys of a replace": (lambda: hr.Replace(keys="id"), "replace: keys names columns"),
    "by as a text": (lambda: hr.Recompute(by="day"), "recompute: by names columns"),
    "latest_by as a text": (lambda: hr.History(keys=("id",), latest_by="at"), "history: latest_by names columns"),
    "one function": (lambda: pipeline(transforms=lambda rows: rows), "transforms are several"),
    "one step": (lambda: pipeline(transforms=hr.sql("SELECT 1")), "transforms are several"),
    "a column as a text": (lambda: hr.Contract(columns={"id": "int64"}), "column 'id' is no Column"),
    "a file to run": (lambda: hr.run("orders.json"), "no Pipeline"),
    "a timeout as a text": (lambda: hr.run(pipeline(), timeout="5m"), "timeout is no number"),
    "a number of attempts": (lambda: hr.run(pipeline(), retry=3), "retry is no Retry"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_python_is_a_config_error_with_what_to_write(what):
    make, said = MISTAKES[what]
    with pytest.raises(ConfigError, match=said) as told:
        make()
    assert told.value.hint


@pytest.mark.parametrize("path", ["s3://bucket/lake", "gs://b/*.csv", "https://example.org/x.csv", "file:///tmp/x"])
def test_a_path_elsewhere_is_refused_and_is_no_folder_here(path, tmp_path):
    with pytest.raises(ConfigError, match="is not read or written yet"):
        hr.run(pipeline(destination=hr.ParquetDestination(path=path, base=tmp_path)))
    with pytest.raises(ConfigError, match="is not read or written yet"):
        hr.run(pipeline(source=hr.FileSource(path=path, base=tmp_path, allow_missing=True)))
    assert list(tmp_path.iterdir()) == []

"""A whole pipeline killed at every effect, started again, and compared with a calm run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import headrace as hr
from headrace.testing import killed_at_every_effect

HERE = str(Path(__file__))


def _pipeline(folder: Path, write: str) -> hr.Pipeline:
    writes = {
        "merge": hr.Merge(keys=("id",), latest_by=("moved",)),
        "parquet": hr.Append(),
    }
    lake = hr.ParquetDestination(path=str(folder / "lake"))
    return hr.Pipeline(
        name="orders",
        source=hr.FileSource(path="in/*.csv", base=folder),
        contract=hr.Contract(on_violation="quarantine"),
        destination=lake if write == "parquet" else hr.DuckDBDestination(path=str(folder / "w.duckdb"), table="orders"),
        write=writes[write],
        base=folder,
    )


def load(folder: Path, write: str) -> None:
    """Two runs, the second over a file that is new; laid out once, so that a second start finds them as they were."""
    place = folder / "in"
    place.mkdir(exist_ok=True)
    for name, text in (("1.csv", "id,g,moved\n1,a,1\n2,b,1\n3\n"), ("2.csv", "id,g,moved\n1,b,2\n4,c,2\n5,c\n")):
        if not (place / name).exists():
            (folder / name).write_text(text)
            (folder / name).rename(place / name)
        hr.run(_pipeline(folder, write))
    for told in (folder / "lake" / "_headrace" / "runs").glob("*"):
        told.unlink()  # the history tells of the killed run too: one more than in the calm case


def look(folder: Path, write: str) -> object:
    """Rows, rejects and commits."""
    pipeline = _pipeline(folder, write)
    snapshot = pipeline.destination.inspect(pipeline.name)
    assert snapshot.scan is not None
    rows = sorted(snapshot.scan().collect().rows(), key=repr)
    rejects = sorted(hr.rejects(pipeline)["row"].to_list())
    commits = [h["number"] for h in hr.history(pipeline) if h["kind"] == "commit"]
    seen = sorted(snapshot.seen("source", None))
    return json.loads(json.dumps([rows, rejects, commits, seen], default=str))


@pytest.mark.parametrize("write", ["merge", "parquet"])
def test_a_pipeline_killed_at_any_effect_carries_on(tmp_path, write):
    effects = killed_at_every_effect(
        f"{HERE}:load", look=f"{HERE}:look", folder=tmp_path, arguments={"write": write}, moments=("before",)
    )
    assert effects > 10

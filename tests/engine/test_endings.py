"""However a run ends, its process ends too."""

from __future__ import annotations

import subprocess
import sys

import pytest

import headrace as hr

SCRIPT = """
import sys
import headrace as hr
from headrace.engine.running import Running

def same(orders):
    return orders

folder, batches = sys.argv[1], int(sys.argv[2])
passed = []

def watch(self, rows):
    passed.append(rows)
    if len(passed) == batches:
        raise hr.UnavailableError("as --timeout raises it")

Running.watch = watch
pipeline = hr.Pipeline(
    name="orders",
    source=hr.FileSource(path=folder + "/in/*.csv"),
    transforms=(same,),
    destination=hr.DuckDBDestination(path=folder + "/w.duckdb", table="orders"),
    write=hr.Merge(keys=("id",)),
)
try:
    hr.run(pipeline, retry=hr.Retry(attempts=1))
except hr.UnavailableError:
    print("broken off")
"""


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endings")
    (folder / "in").mkdir()
    line = (
        "{n},2024-01-02,2024-01-01T00:00:59,0.25,2024-01-02,2024-01-03,some text that makes lines longer than need be\n"
    )
    rows = "".join(line.format(n=n) for n in range(40_000))
    with (folder / "in" / "1.csv").open("w") as file:
        file.write("id,day,at,value,a,b,c\n")
        for _ in range(30):
            file.write(rows)
    return folder


@pytest.mark.parametrize("batches", [1, 8, 12])
def test_a_run_that_breaks_off_in_mid_stream_leaves_no_thread_behind(orders, batches):
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(orders), str(batches)],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert said.stdout == "broken off\n"
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("lazily", [True, False])
def test_a_transform_that_ends_the_process_has_failed(place, lazily):
    """Else a run that did nothing would end with its code, 0."""

    def leaving(source):
        return source.map_batches(lambda _rows: sys.exit(0)) if lazily else sys.exit(0)

    place.write("1.csv", "id,v\n1,1\n")
    pipeline = place.pipeline(transforms=(leaving,), write=hr.Replace())
    for verb in (hr.run, hr.preview):
        with pytest.raises(hr.TransformError, match="'leaving' failed"):
            verb(pipeline)

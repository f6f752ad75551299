import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Done:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(scope="session")
def _forking():
    """The process that commands are forked from."""
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("forking.py")],
        env={**os.environ, "PYTHONWARNINGS": "error"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def headrace(tmp_path, tmp_path_factory, _forking):
    """The command, in a process of its own, from the folder of the test."""
    said = tmp_path_factory.mktemp("said")

    def run(*args, **env):
        files = {"out": said / "out", "err": said / "err"}
        asked = {"args": args, "cwd": str(tmp_path), "env": {**os.environ, "PYTHONWARNINGS": "error", **env}}
        _forking.stdin.write(json.dumps({**asked, **{name: str(file) for name, file in files.items()}}) + "\n")
        _forking.stdin.flush()
        code = int(_forking.stdout.readline())
        return Done(code, *(file.read_text() for file in files.values()))

    return run


@pytest.fixture
def orders(tmp_path):
    """A folder with one pipeline, over one file with a bad row; gives it."""
    (tmp_path / "orders.csv").write_text("id,value\n1,10\n2,20\n3,-5\n")
    (tmp_path / "transforms.py").write_text(
        "print('imported')\ndef clean(orders, *, factor):\n    print('called')\n"
        "    import polars as pl\n    return orders.with_columns(gross=pl.col('value') * factor)\n"
    )
    document = {
        "name": "orders",
        "sources": {"orders": {"type": "files", "path": "orders*.csv"}},
        "transforms": [{"python": "transforms.py:clean"}],
        "params": {"factor": 2},
        "contract": {"columns": {"value": {"min": 0}}, "on_violation": "quarantine"},
        "destination": {"type": "duckdb", "path": "w.duckdb", "table": "orders"},
        "write": {"type": "merge", "keys": ["id"]},
    }
    (tmp_path / "orders.json").write_text(json.dumps(document))
    return tmp_path

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from headrace.systems.duckdb import DuckDBDestination


@pytest.fixture
def target(tmp_path: Path) -> DuckDBDestination:
    return DuckDBDestination(path="w.duckdb", table="t", base=tmp_path)

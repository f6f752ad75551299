"""Pipelines over real files in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import headrace as hr


class Place:
    """A folder with CSV files going in and a DuckDB file coming out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "in").mkdir()

    def write(self, name: str, text: str) -> Path:
        file = self.folder / "in" / name
        file.write_text(text, "utf-8")
        return file

    def pipeline(self, **changes: Any) -> hr.Pipeline:
        source = changes.pop("source", None) or hr.FileSource(
            path="in/*.csv", base=self.folder, **changes.pop("files", {})
        )
        parts: dict[str, Any] = {
            "name": "orders",
            "source": source,
            "destination": self.duckdb(),
            "write": hr.Merge(keys=("id",)),
            "base": self.folder,
        }
        if "sources" in changes:
            del parts["source"]
        return hr.Pipeline(**{**parts, **changes})

    def duckdb(self, table: str = "orders", **more: Any) -> hr.DuckDBDestination:
        return hr.DuckDBDestination(path=str(self.folder / "w.duckdb"), table=table, **more)

    def parquet(self) -> hr.ParquetDestination:
        return hr.ParquetDestination(path=str(self.folder / "lake"))

    def rows(self, pipeline: hr.Pipeline, by: str | list[str] = "id") -> list[tuple[Any, ...]]:
        return self.frame(pipeline, by).rows()

    def frame(self, pipeline: hr.Pipeline, by: str | list[str] = "id") -> pl.DataFrame:
        scan = pipeline.destination.inspect(pipeline.name).scan
        assert scan is not None
        return scan().collect().sort(by)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: (exit code, stdout, stderr)."""
    from headrace.cli.commands import cli

    def run(*args: str) -> tuple[int, str, str]:
        code = cli.main(args=[str(a) for a in args], prog_name="headrace", standalone_mode=False)
        out, err = capfd.readouterr()
        return int(code or 0), out, err

    return run

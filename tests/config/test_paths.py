"""Paths in a config: ``~`` is a home, in sources and destinations alike; what is no path is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.errors import ConfigError
from headrace.secret import Secret


def _made(path: str) -> list[Any]:
    return [
        lambda: hr.FileSource(path=path),
        lambda: hr.FileSource(path=("a.csv", path)),
        lambda: hr.SQLiteSource(path=path, table="t"),
        lambda: hr.DuckDBSource(path=path, table="t"),
        lambda: hr.DuckDBDestination(path=path, table="t"),
        lambda: hr.ParquetDestination(path=path),
        lambda: hr.FileDestination(path=f"{path}.csv" if path else path),
    ]


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize(("path", "said"), [("", "is empty"), ("a\0b", "NUL"), ("~nobody-is-called-so/x", "home")])
def test_what_is_no_path_is_refused(path: str, said: str, at: int) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        _made(path)[at]()
    assert caught.value.hint


def test_a_home_is_one_to_destinations_and_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "in.csv").write_text("v\n1\n")
    source = hr.FileSource(path="~/in.csv", base=tmp_path / "elsewhere")
    for name, destination in (
        ("w.duckdb", hr.DuckDBDestination(path="~/w.duckdb", table="t", base=tmp_path / "elsewhere")),
        ("lake", hr.ParquetDestination(path="~/lake", base=tmp_path / "elsewhere")),
        ("out.csv", hr.FileDestination(path="~/out.csv", base=tmp_path / "elsewhere")),
    ):
        hr.run(hr.Pipeline(name=name, source=source, destination=destination, write=hr.Replace()))
        assert (tmp_path / name).exists()
    assert hr.scan_table("~/lake").collect().height == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_secret_that_looks_like_a_home_is_no_path() -> None:
    assert str(Secret("~nobody-is-called-so/secret", {"env": "S"})) == "~nobody-is-called-so/secret"

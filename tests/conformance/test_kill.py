"""The harness that kills finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.testing import killed_at_every_effect
from headrace.testing.kill import shape

SCRIPTS = Path(__file__).with_name("killed_scripts.py")


def kill(name: str, folder: Path, **settings: object) -> int:
    return killed_at_every_effect(f"{SCRIPTS}:{name}", look=f"{SCRIPTS}:look", folder=folder, **settings)  # type: ignore[arg-type]


def test_a_careful_program_passes_at_every_effect(tmp_path: Path) -> None:
    assert kill("careful", tmp_path, moments=("before", "after")) == 3 * len(["open", "replace"])


def test_arguments_reach_the_program(tmp_path: Path) -> None:
    assert kill("careful", tmp_path, arguments={"rows": 1}) == 2


def test_left_over_files_are_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"killed before effect 2 of 6: .*rename"):
        kill("leaves_files", tmp_path)


def test_doubled_rows_are_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="killed before effect 2 of"):
        kill("doubles", tmp_path)


def test_a_program_that_cannot_start_again_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="started again, it failed"):
        kill("breaks", tmp_path)


def test_a_program_that_fails_calmly_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the calm run failed"):
        kill("calm_failure", tmp_path)


def test_the_shape_of_a_folder_blots_out_what_is_random(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part-00012-deadbeef01.parquet").touch()
    (tmp_path / "target.duckdb").touch()
    assert shape(tmp_path) == ["data/part-#-#.parquet", "target.duckdb"]

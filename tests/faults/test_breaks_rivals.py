"""The suite itself, on rivals and on the network: where the code is broken on purpose, it fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from scenario import Scenario
from test_network import check_lost_answer, network
from test_rivals import check_rivals

import headrace as hr

if TYPE_CHECKING:
    from proxy import Proxy
    from server import Database

__all__ = ["network"]  # its fixture


def test_runs_at_once_find_that_nobody_locks(tmp_path: Path) -> None:
    calm, struck = (Scenario("csv", "append", "parquet").laid(tmp_path / name) for name in ("calm", "struck"))
    for laid in (calm, struck):
        laid.advance()
    assert calm.run().returncode == 0
    with pytest.raises(AssertionError, match="does not say who is running"):
        check_rivals(calm, struck, 5, broken="breaks:nobody_locks")


def test_a_lost_answer_finds_that_the_ledger_is_not_asked(
    database: Database,
    network: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hr.PostgresDestination, "settle", lambda *_: None)
    with pytest.raises(AssertionError):
        check_lost_answer(database, network, tmp_path, monkeypatch)

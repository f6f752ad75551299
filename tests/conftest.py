"""What every test begins with."""

from __future__ import annotations

import pytest

from headrace import secret


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process remembers the texts that it must not show; another test may use one of them as a plain name."""
    monkeypatch.setattr(secret, "_known", {})

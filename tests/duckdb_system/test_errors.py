from __future__ import annotations

import duckdb
import pytest

from headrace.errors import DataError, HeadraceError
from headrace.systems.duckdb.errors import BY_CLASS, translated

CLASSES = [c for c in vars(duckdb).values() if isinstance(c, type) and issubclass(c, Exception)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_every_exception_of_the_driver_has_its_place(kind):
    if kind is duckdb.InterruptException:
        with pytest.raises(KeyboardInterrupt), translated("w.duckdb"):
            raise kind("x")
        return
    assert kind.__name__ in BY_CLASS
    if issubclass(kind, duckdb.Error):
        with pytest.raises(HeadraceError) as told, translated("w.duckdb"):
            raise kind("a secret value")
        assert "secret" not in str(told.value)
        assert "w.duckdb" in told.value.message


def test_an_interrupted_query_is_ctrl_c():
    with pytest.raises(KeyboardInterrupt), translated("w.duckdb"):
        raise RuntimeError("Query interrupted")


def test_what_a_cell_says_of_memory_is_not_believed() -> None:
    with pytest.raises(DataError, match="does not fit"), translated("w.duckdb"), duckdb.connect() as con:
        con.execute("SELECT CAST('could not allocate block' AS INTEGER)")

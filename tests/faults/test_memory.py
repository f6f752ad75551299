"""512 MB for the whole process tree, however large the input; and a kill by the kernel, which is one like any other."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from outcome import outcome
from room import Room, room
from scenario import Laid, Scenario

if TYPE_CHECKING:
    from server import Database

Databases = Callable[["Database | None"], "Database"]

LIMIT = 512 << 20
LARGE = 3_000_000_000  # bytes of CSV
SMALL = 40_000_000
BLOCK = 50_000  # rows
TEXT = "some text that makes a row as long as rows are,2024-01-02T03:04:05,12.50,another text,0.123456789,7"


def grown(file: Path, size: int) -> int:
    """A CSV file of about so many bytes, quickly: one block of rows again and again, under other keys; its rows."""
    file.parent.mkdir()
    block = "".join(f"@{n:06},#,{TEXT}\n" for n in range(BLOCK))
    repeats = max(1, size // len(block))
    with file.open("w") as out:
        out.write("id,part,text,at,amount,more,ratio,n\n")
        for n in range(repeats):
            out.write(block.replace("@", str(n + 1)).replace("#", str(n % 3)))
    return repeats * BLOCK


def laid_out(scenario: Scenario, folder: Path, database: Database | None) -> Laid:
    contract = {"columns": {"n": {"min": 0}}, "on_violation": "quarantine"}
    more: dict[str, Any] = {"contract": contract, "source": {"type": "files", "path": "in/*.csv"}}
    if scenario.write == "merge":
        more["write"] = {"type": "merge", "keys": ["id"]}
    return scenario.laid(folder, database, **more)


def started(found: Room, laid: Laid) -> tuple[int, str]:
    """The exit code of a run in a room, and what it said."""
    process = found.start(laid.command(), cwd=laid.folder, env=laid.environment())
    _, err = process.communicate(timeout=300)
    return process.returncode, err


@pytest.mark.parametrize(
    ("write", "destination", "size"),
    [
        ("append", "duckdb", SMALL),
        pytest.param("append", "duckdb", LARGE, marks=pytest.mark.full),
        pytest.param("append", "parquet", LARGE, marks=pytest.mark.full),
        pytest.param("partitions", "parquet", LARGE // 10, marks=pytest.mark.full),
        pytest.param("merge", "duckdb", LARGE // 10, marks=pytest.mark.full),
        pytest.param("append", "postgres", LARGE // 10, marks=pytest.mark.full),
        pytest.param("merge", "postgres", LARGE // 10, marks=pytest.mark.full),
        pytest.param("replace", "file", LARGE // 10, marks=pytest.mark.full),
    ],
)
def test_a_load_of_any_size_fits_into_512_mb(
    tmp_path: Path, databases: Databases, record_property: Any, write: str, destination: str, size: int
) -> None:
    scenario = Scenario("csv", write, destination)
    laid = laid_out(scenario, tmp_path / "laid", databases(None) if scenario.needs_database else None)
    rows = grown(laid.folder / "in/1.csv", size)
    with room(LIMIT) as found:
        process = found.start(laid.command(arguments=("--json",)), cwd=laid.folder, env=laid.environment())
        out, err = process.communicate(timeout=1500)
    record_property("limit", found.how)
    record_property("peak_mb", found.peak >> 20)
    assert process.returncode == 0, f"{found.peak >> 20} MB ({found.how}) {err}"
    (run,) = json.loads(out)["runs"]
    assert run["counts"]["rows"] == rows


def test_a_run_that_the_kernel_kills_for_its_memory_recovers_like_any_other(
    tmp_path: Path, full: bool, record_property: Any
) -> None:
    """Into less and less room: it is killed wherever it happens to need more."""
    scenario = Scenario("csv", "append", "duckdb")
    calm = laid_out(scenario, tmp_path / "calm", None)
    grown(calm.folder / "in/1.csv", SMALL // 8)
    struck = calm.copied(tmp_path / "struck")
    with room(LIMIT) as found:
        assert started(found, calm)[0] == 0
    killed = 0
    limits = [found.peak * percent // 100 for percent in (range(95, 45, -5) if full else (80, 60))]
    for limit in limits:
        with room(limit) as found:
            code, err = started(found, struck)
        assert code in (0, 1, -signal.SIGKILL), err
        assert "Traceback" not in err
        killed += code == -signal.SIGKILL
    assert killed, "nobody was killed"
    assert struck.run().returncode == 0
    assert outcome(struck) == outcome(calm)
    record_property("cases", len(limits))

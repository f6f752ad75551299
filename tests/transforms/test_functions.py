"""A transform in a file of its own: executed once, whole, and as it stands."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from headrace.transform import load_function


def test_pipelines_side_by_side_load_a_file_once_and_whole(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nfrom pathlib import Path\nwith open(Path(__file__).with_name('told'), 'a') as f: f.write('.')\n"
        "time.sleep(0.2)\ndef clean(rows): return rows\n"
    )
    found: list[Any] = []
    ready = threading.Barrier(4)

    def load() -> None:
        ready.wait()
        found.append(load_function("slow.py:clean", tmp_path))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert (tmp_path / "told").read_text() == "."


def test_a_file_that_changed_within_its_second_is_loaded_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "quick.py"
    for answer in ("1", "2"):
        file.write_text(f"def clean(): return {answer}\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert load_function("quick.py:clean", tmp_path)() == int(answer)
    assert [path.name for path in tmp_path.iterdir()] == ["quick.py"], "nothing is left beside the user's file"

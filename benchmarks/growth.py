"""How cost grows with what is loaded, seen, remembered and checked: ``python growth.py [--only rows,files]``.

Each line is one workload of `race.py` at one size, headrace and its floor in the same run. Flat memory and straight
time are what is to be seen: twice the rows, twice the seconds and the same megabytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SIZES = {
    "rows": [(name, "SF", (1, 3, 10)) for name in ("w1_csv", "w2_group", "w2s_sql", "w3_merge")],
    "files": [("w4_seen", "FILES", (100, 1_000, 10_000, 100_000))],
    "ledger": [("w8_increments", "INCREMENTS", (100, 1_000, 10_000))],
    "rules": [("g_rules", "RULES", (1, 10, 100))],
    "columns": [("g_columns", "COLUMNS", (10, 100, 1_000))],
}


def main() -> None:
    """One process for each size: workloads read their sizes when they are imported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SIZES))
    parser.add_argument("--rounds", default="1")
    parser.add_argument("--folder", default=str(HERE.parent / "build" / "bench"))
    given = parser.parse_args()
    for kind in given.only.split(","):
        for name, variable, sizes in SIZES[kind]:
            print(f"\n| {name}, {variable} | wall s | CPU s | peak MB | floor's wall s | CPU s | peak MB |")
            print("|---|---|---|---|---|---|---|")
            for size in sizes:
                command = [sys.executable, str(Path(__file__)), "--rounds", given.rounds, "--folder", given.folder]
                environment = {**os.environ, variable: str(size)}
                subprocess.run([*command, "--one", name, str(size)], env=environment, check=True)


def one(name: str, size: str, rounds: int, folder: Path) -> None:
    """One line of the table."""
    from race import Race

    race = Race(name, float(os.environ.get("SF", "1")), folder)
    race.contestants = [c for c in race.contestants if not c.name.startswith("peer_")]
    race.run(rounds)
    ours = next(c for c in race.contestants if c.name == "headrace")
    floor = min((c for c in race.contestants if c is not ours), key=lambda c: c.median("wall"))
    told = [f"{c.median(what):.{digits}f}" for c in (ours, floor) for what, digits in FIGURES]
    print(f"| {size} | {' | '.join(told)} |", flush=True)
    shutil.rmtree(race.folder)


FIGURES = (("wall", 2), ("cpu", 2), ("peak", 0))

if __name__ == "__main__":
    if "--one" in sys.argv:
        _, _, _rounds, _, _folder, _, _name, _size = sys.argv
        one(_name, _size, int(_rounds), Path(_folder))
    else:
        main()

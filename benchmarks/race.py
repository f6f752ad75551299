"""The workloads of headrace against the best scripts by hand and its peers: ``python benchmarks/race.py [--sf 1]``.

A workload is a module in `workloads`: its docstring is its title, `MARK` the ratio to its floor that is to be reached
(or `ALLOWED`: the seconds that it may take longer), `RESULT` where the rows end. Its contestants are functions of the
data's folder and their own: `headrace`, what begins with `floor_` (the best script by hand; of several, the faster one
is the floor) and with `peer_`. What a `setup_` of a contestant makes stands ready for each of its runs; it is made
once, and is not measured.

Each run is a process of its own, a peer's in an environment of its own (`make build/peers/.made`): what peers bring
along, NumPy say, PyArrow imports wherever it finds it. The contestants run in turn, for some rounds after a first one
that is not counted, so that a machine whose speed drifts drifts for all. The ratios are medians over the pairs of one
round. One that takes longer than `SLOW` seconds is raced once only; the table says in how many pairs. A peer that
takes longer than `LONGEST` is stopped, and the table says so.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import shutil
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import data as datasets
import duckdb
from measure import Cost, measured

HERE = Path(__file__).parent
SLOW = 100.0
LONGEST = 900.0
PEERS = HERE.parent / "build" / "peers" / "bin" / "python"
HEAD = "| | wall s | CPU s | peak MB | headrace's wall | CPU | peak | pairs | equal |\n" + "|---" * 9 + "|"
_ONE = "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
_ONE += "from importlib import import_module as load; "
_ONE += "getattr(load('workloads.' + sys.argv[2]), sys.argv[3])(Path(sys.argv[4]), Path(sys.argv[5]))"


@dataclass
class Contestant:
    """What one of a workload's contestants took, round by round; None in a round that it sat out."""

    name: str
    title: str
    costs: list[Cost | None] = field(default_factory=list)
    slow: Cost | None = None
    digest: tuple[object, ...] | None = None
    problem: str = ""

    @property
    def ran(self) -> list[Cost]:
        """The rounds that it ran."""
        return [cost for cost in self.costs if cost is not None]

    def median(self, what: str) -> float:
        """The median over its rounds."""
        return statistics.median(getattr(cost, what) for cost in self.ran)

    def ratio(self, other: Contestant, what: str) -> float:
        """The median over the pairs of its own figure over the other's."""
        pairs = [(a, b) for a, b in zip(self.costs, other.costs, strict=True) if a is not None and b is not None]
        return statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs)


class Race:
    """One workload, with its data and a place for its runs."""

    def __init__(self, name: str, sf: float, folder: Path) -> None:
        self.name = name
        self.module: ModuleType = importlib.import_module(f"workloads.{name}")
        self.data = datasets.made(folder, sf * getattr(self.module, "SCALE", 1))
        self.folder = folder / "runs" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        works = vars(self.module).items()
        self.contestants = [
            Contestant(key, (work.__doc__ or "").strip().rstrip("."))
            for key, work in works
            if key == "headrace" or key.startswith(("floor_", "peer_"))
        ]

    def run(self, rounds: int) -> None:
        """All rounds."""
        for contestant in self.contestants:
            self._set_up(contestant)
        for at in range(rounds + 1):
            for contestant in self.contestants:
                self._once(contestant, at)

    def _set_up(self, contestant: Contestant) -> None:
        """In the folder where it will run: its path may be a part of what is remembered."""
        if contestant.name.startswith("peer_") and not PEERS.exists():
            contestant.problem = "its environment was not made"
            return
        out = self.folder / "out"
        out.mkdir()
        if hasattr(self.module, f"setup_{contestant.name}"):
            cost = self._measure(f"setup_{contestant.name}", out)
            if cost.status:
                contestant.problem = self._said(cost)
        out.rename(self._base(contestant))

    def _once(self, contestant: Contestant, at: int) -> None:
        if contestant.problem or contestant.slow:
            contestant.costs += [contestant.slow if at == 1 else None] if at else []
            return
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self._base(contestant), out, copy_function=_linked)
        os.sync()
        cost = self._measure(contestant.name, out)
        if cost.status:
            contestant.problem = self._said(cost)
        elif at:
            contestant.costs.append(cost)
        else:
            contestant.slow = cost if cost.wall > SLOW else None
            contestant.digest = digest(out, self.module)

    def _measure(self, work: str, out: Path) -> Cost:
        python, longest = (str(PEERS), LONGEST) if "peer_" in work else (sys.executable, math.inf)
        command = [python, "-c", _ONE, str(HERE), self.name, work, str(self.data), str(out)]
        environment = {**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once, not at every start
        return measured(command, self.folder / "stderr", environment, longest=longest)

    def _base(self, contestant: Contestant) -> Path:
        return self.folder / f"base_{contestant.name}"

    def _said(self, cost: Cost) -> str:
        if cost.wall > LONGEST:
            return f"stopped after {LONGEST:.0f} s"
        lines = (self.folder / "stderr").read_text(errors="replace").splitlines()
        told = [line for line in lines if line.strip(" ^")]
        return next((line for line in told if "Error" in line), told[-1] if told else "it failed")[:120]

    def table(self) -> str:
        """What it took, in Markdown."""
        ours = next(c for c in self.contestants if c.name == "headrace")
        floors = [c for c in self.contestants if c.name.startswith("floor_") and c.ran]
        title = (self.module.__doc__ or "").strip().partition("\n")[0]
        if not ours.ran or not floors:
            return "\n".join([f"\n**{title}** not raced", *(f"- {c.name}: {c.problem}" for c in self.contestants)])
        floor = min(floors, key=lambda c: c.median("wall"))
        lines = [f"\n**{title}** {self._verdict(ours, floor)}", "", HEAD]
        lines += [self._line(c, ours, floors[0]) for c in self.contestants]
        return "\n".join(lines)

    def _verdict(self, ours: Contestant, floor: Contestant) -> str:
        if hasattr(self.module, "ALLOWED"):
            more, mark = ours.median("wall") - floor.median("wall"), self.module.ALLOWED
            told = f"{more * 1000:.0f} ms more; to reach {mark * 1000:.0f} ms"
        else:
            ratios, mark = [ours.ratio(floor, what) for what in ("wall", "cpu")], self.module.MARK
            more = max(ratios)
            told = f"{ratios[0]:.2f} wall, {ratios[1]:.2f} CPU; to reach {mark:.2f}"
        return f"{told}: {'reached' if more <= mark else 'NOT reached'}"

    @staticmethod
    def _line(one: Contestant, ours: Contestant, floor: Contestant) -> str:
        if not one.ran:
            return f"| {one.title} | no figures: {one.problem} ||||||||"
        took = f"{one.median('wall'):.2f} | {one.median('cpu'):.2f} | {one.median('peak'):.0f}"
        ratios = " | ".join("" if one is ours else f"{ours.ratio(one, what):.2f}" for what in ("wall", "cpu", "peak"))
        same = "" if one is floor else "yes" if one.digest == floor.digest else "NO"
        return f"| {one.title} | {took} | {ratios} | {len(one.ran)} | {same} |"


def _linked(source: str, target: str) -> None:
    """Data files are linked (nobody writes into them), databases are copied."""
    if Path(source).suffix in (".csv", ".parquet"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def digest(out: Path, module: ModuleType) -> tuple[object, ...]:
    """A checksum over all values. Decimals and doubles count by four places, all else by its text."""
    if module.RESULT is None:
        return ()
    file, table = module.RESULT
    with duckdb.connect() as con:
        if table is None:
            rows = f"read_parquet('{out / file}')"
        else:
            con.execute(f"ATTACH '{out / file}' AS out (READ_ONLY)")
            found = con.execute(
                "SELECT schema_name FROM duckdb_tables() WHERE database_name = 'out' AND table_name = ?", [table]
            ).fetchall()
            rows = f'out."{found[0][0]}"."{table}"'
        columns = [row[:2] for row in con.execute(f"DESCRIBE FROM {rows}").fetchall()]
        plain = [
            f'"{name}"::DECIMAL(38, 4)' if kind.startswith(("DOUBLE", "DECIMAL")) else f'"{name}"::VARCHAR'
            for name, kind in sorted(columns)
            if not name.startswith("_dlt_")
        ]
        where = f"WHERE {module.WHERE}" if hasattr(module, "WHERE") else ""
        return con.execute(f"SELECT count(*), sum(hash({', '.join(plain)})) FROM {rows} {where}").fetchall()[0]


def main() -> None:
    """Race, and tell."""
    every = sorted(file.stem for file in (HERE / "workloads").glob("w*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sf", type=float, default=float(os.environ.get("SF", "1")))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", "7")))
    parser.add_argument("--only", default=",".join(every), help="workloads by what they begin with, e.g. w1,w3")
    parser.add_argument("--folder", type=Path, default=HERE.parent / "build" / "bench", help="for data and runs")
    parser.add_argument("--without", default="", help="contestants to leave out, e.g. peer_dlt")
    given = parser.parse_args()
    for name in every:
        if not any(name.partition("_")[0] == one.partition("_")[0] for one in given.only.split(",")):
            continue
        race = Race(name, given.sf, given.folder)
        race.contestants = [c for c in race.contestants if c.name not in given.without.split(",")]
        race.run(given.rounds)
        print(race.table(), flush=True)
        shutil.rmtree(race.folder)


if __name__ == "__main__":
    main()

"""A pipeline that the fault suite runs: a source, a write and a destination, laid out in a folder, stage by stage.

    laid = Scenario("csv", "merge", "duckdb").laid(tmp_path)        # database: of the fixture, where `needs_database`
    for _ in STAGES:
        laid.advance()                                              # the source's next rows
        laid.run(prefix=["strace", …], NAME="in the environment")   # the command, in a process of its own
    laid.look()                                                     # all that is left, to compare with a calm run's

Data are tiny and the same everywhere: a first load; an increment with new, changed, repeated and late rows, one that
ties with the last position, one that is rejected, one that mends a rejected one; and a full refresh.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import polars as pl

from headrace.config import load
from headrace.exact import to_text
from headrace.schema import Schema
from headrace.testing.kill import shape

if TYPE_CHECKING:
    from server import Database

__all__ = ["DESTINATIONS", "SOURCES", "STAGES", "WRITES", "Laid", "Scenario", "scenarios"]

SOURCES = ("csv", "ndjson", "parquet", "sqlite", "duckdb", "table", "postgres")
"""The last five need no file of their own for each stage; `table` reads what the pipeline ``upstream`` wrote."""

WRITES: Mapping[str, Mapping[str, Any]] = {
    "append": {"type": "append"},
    "replace": {"type": "replace"},
    "replace_keyed": {"type": "replace", "keys": ["id"]},
    "merge": {"type": "merge", "keys": ["id"], "latest_by": ["at"], "delete_when": "text = 'gone'"},
    "partitions": {"type": "partitions", "by": ["part"]},
    "history": {"type": "history", "keys": ["id"], "track": ["amount", "text"], "latest_by": ["at"]},
    "recompute": {"type": "recompute", "by": ["part"]},
}
"""Every write, by a name for it, as the pipeline has it."""

DESTINATIONS: Mapping[str, Mapping[str, Any]] = {
    "duckdb": {"type": "duckdb", "path": "target/w.duckdb", "table": "items"},
    "postgres": {"type": "postgres", "dsn": {"env": "TARGET_DSN"}, "table": "target.items"},
    "parquet": {"type": "parquet", "path": "target/items"},
    "file": {"type": "file", "path": "target/items.csv"},
}
"""Every destination that takes JSON. What is a file lies below ``target``."""

_COLUMNS = {"id": pl.Int64(), "part": pl.String(), "at": pl.Int64(), "amount": pl.Int64(), "text": pl.String()}
_SQL = 'id BIGINT, part TEXT, "at" BIGINT, amount BIGINT, text TEXT'


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What happens between two runs: new rows, and how the command is called then."""

    rows: Sequence[tuple[Any, ...]]
    arguments: Sequence[str] = ()


STAGES = (
    Stage(
        rows=(
            (1, "a", 1, 10, "one"),
            (2, "a", 2, 20, 'two, "quoted"'),
            (3, "b", 3, 30, "three"),
            (4, "b", 4, 40, "Größe ☃"),
            (5, "c", 5, 50, "five"),
            (6, "c", 5, 60, "six"),
            (7, "a", 5, -1, "rejected: a negative amount"),
        )
    ),
    Stage(
        rows=(
            (2, "a", 6, 21, "two, changed"),
            (3, "b", 2, 33, "late: older than the one that is there"),
            (8, "d", 5, 80, "a tie with the last position"),
            (9, "d", 7, 90, "repeated"),
            (9, "d", 8, 91, "repeated, newer"),
            (10, "b", 8, -2, "rejected"),
            (7, "a", 9, 70, "mended"),
            (5, "c", 9, 50, "gone"),
        )
    ),
    Stage(rows=((1, "a", 10, 11, "one, changed"), (11, "e", 10, 110, "eleven")), arguments=("--full-refresh",)),
)
"""A first load, an increment, a full refresh (which reads what is new, too)."""


@dataclass(frozen=True)
class Scenario:
    """One source, write and destination, by their names here."""

    source: str
    write: str
    destination: str

    def __str__(self) -> str:
        return f"{self.source}-{self.write}-{self.destination}"

    @property
    def needs_database(self) -> bool:
        """Whether PostgreSQL is on either side."""
        return "postgres" in (self.source, self.destination)

    @property
    def refused(self) -> bool:
        """Whether headrace refuses this pipeline: then there is nothing to try."""
        few = {"parquet": ("append", "replace", "partitions"), "file": ("replace",)}
        kind = WRITES[self.write]["type"]
        # a table is read whole whenever it has changed
        return kind not in few.get(self.destination, (kind,)) or (self.source == "table" and kind == "append")

    def laid(self, folder: Path, database: Database | None = None, **more: Any) -> Laid:
        """Lay the pipeline out in `folder`, without any rows yet. `more` are further keys of it, or other ones."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "target").mkdir()
        (folder / "pipeline.json").write_text(json.dumps({**self._document(), **more}))
        if self.source == "table":
            (folder / "upstream.json").write_text(json.dumps(_UPSTREAM))
        dsn = {} if database is None else {"SOURCE_DSN": database.dsn, "TARGET_DSN": database.dsn}
        if self.source == "postgres":
            assert database is not None
            database.run(f"CREATE TABLE items ({_SQL})")
        return Laid(self, folder, database, env=dsn)

    def _document(self) -> dict[str, Any]:
        contract = {"columns": {"amount": {"min": 0}}, "on_violation": "quarantine"}
        document = {
            "name": "items",
            "source": self._source(),
            "destination": DESTINATIONS[self.destination],
            "write": WRITES[self.write],
            "contract": contract,
        }
        if self.source == "postgres":  # each try reads a copy of the database, which is another one by its name
            document["was"] = "source"
        if self.write == "partitions" and "cursor" in document["source"]:  # only such a partition is read again whole
            document["write"] = {"type": "partitions", "by": ["at"]}
        if self.write == "replace_keyed":
            newest = 'SELECT * FROM source QUALIFY row_number() OVER (PARTITION BY id ORDER BY "at" DESC) = 1'
            document["transforms"] = [{"sql": newest}]
        if self.write == "recompute":  # whose result has no rows of the source's
            query = (
                'SELECT part, count(*) AS n, sum(amount)::BIGINT AS amount, max("at") AS "at" FROM source GROUP BY part'
            )
            document |= {"source": {**self._source(), "contract": contract}, "transforms": [{"sql": query}]}
            del document["contract"]
        return document

    def _source(self) -> dict[str, Any]:
        match self.source:
            case "table":
                return {"type": "table", "of": "upstream"}
            case "postgres":
                return {"type": "postgres", "dsn": {"env": "SOURCE_DSN"}, "table": "public.items", "cursor": "at"}
            case "sqlite" | "duckdb":
                return {"type": self.source, "path": f"source.{self.source}", "table": "items", "cursor": "at"}
        return {"type": "files", "path": f"in/*.{self.source}"}


_UPSTREAM = {
    "name": "upstream",
    "source": {"type": "files", "path": "in/*.csv"},
    "destination": {"type": "parquet", "path": "upstream"},
    "write": "append",
}


@dataclass
class Laid:
    """A scenario in a folder. `stage` is how many stages' rows its source has."""

    scenario: Scenario
    folder: Path
    database: Database | None = None
    env: dict[str, str] = field(default_factory=dict)
    stage: int = 0

    @property
    def pipeline(self) -> Path:
        """The pipeline's file."""
        return self.folder / "pipeline.json"

    @property
    def target(self) -> Path:
        """The folder in which a destination of files has everything."""
        return self.folder / "target"

    def advance(self, run: Callable[..., Any] | None = None) -> None:
        """Give the source the next stage's rows. `run` runs a pipeline upstream (None: a process of its own)."""
        rows = STAGES[self.stage].rows
        self.stage += 1
        match self.scenario.source:
            case "sqlite":
                _into_sqlite(self.folder / "source.sqlite", rows)
            case "duckdb":
                _into_duckdb(self.folder / "source.duckdb", rows)
            case "postgres":
                assert self.database is not None
                self.database.run(*_insert(rows, "%s"))
            case "table":
                _into_file(self.folder / f"in/{self.stage}.csv", rows, self.stage)  # which takes every row
                (run or Laid.run)(self, pipeline=self.folder / "upstream.json", arguments=())
                assert (self.folder / f"upstream/_headrace/{self.stage:010}.json").exists()
            case kind:
                _into_file(self.folder / f"in/{self.stage}.{kind}", rows, self.stage, unreadable=kind != "parquet")

    @property
    def arguments(self) -> Sequence[str]:
        """How the command is called at this stage."""
        given = STAGES[self.stage - 1].arguments
        forgets = self.scenario.write == "history" and "--full-refresh" in given
        return (*given, "--discard-history") if forgets else given

    def command(
        self,
        pipeline: Path | None = None,
        *,
        prefix: Sequence[str] = (),
        arguments: Sequence[str] | None = None,
        broken: str | None = None,
    ) -> list[str]:
        """``headrace run`` of this stage, as the words of a command. `prefix` stands in front (strace, timeout);
        `broken` is a function of `breaks`.
        """
        given = self.arguments if arguments is None else arguments
        program = ["-m", "headrace"] if broken is None else [str(Path(__file__).with_name("breaks.py")), broken]
        return [*prefix, sys.executable, *program, "run", str(pipeline or self.pipeline), *given]

    def environment(self, **more: str) -> dict[str, str]:
        """That of the command. `more` wins."""
        return {**os.environ, "PYTHONWARNINGS": "error", **self.env, **more}

    def run(
        self,
        pipeline: Path | None = None,
        *,
        prefix: Sequence[str] = (),
        arguments: Sequence[str] | None = None,
        broken: str | None = None,
        timeout: float = 120,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, in a process of its own."""
        return subprocess.run(
            self.command(pipeline, prefix=prefix, arguments=arguments, broken=broken),
            cwd=self.folder,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def start(
        self,
        *,
        prefix: Sequence[str] = (),
        arguments: Sequence[str] | None = None,
        broken: str | None = None,
        **env: str,
    ) -> subprocess.Popen[str]:
        """Start the command and return; its output is piped. Whoever starts it ends it."""
        return subprocess.Popen(
            self.command(prefix=prefix, arguments=arguments, broken=broken),
            cwd=self.folder,
            env=self.environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def copied(self, folder: Path, database: Database | None = None) -> Laid:
        """The same in another folder, files with their times. `database` is one with the same content."""
        shutil.copytree(self.folder, folder, symlinks=True)
        dsn = {} if database is None else {"SOURCE_DSN": database.dsn, "TARGET_DSN": database.dsn}
        return replace(self, folder=folder, database=database, env=self.env | dsn)

    def look(self) -> dict[str, Any]:
        """Every cell, the ledger and the folder's shape: equal where two runs have ended the same.

        Left out is what differs between two calm runs: ids, times, and the runs that the ledger remembers.
        """
        with patch.dict(os.environ, self.env):
            pipeline = load(str(self.pipeline))
            destination = pipeline.destination
            snapshot = destination.inspect(pipeline.name)
            frame = pl.DataFrame() if snapshot.scan is None else snapshot.scan().collect()
            rejects = destination.rejects(pipeline.name)
            commits = [e for e in destination.history(pipeline.name) if e["kind"] == "commit"]
        kept = [c for c in ("stage", "source", "file", "line", "rules", "key", "row", "raw") if c in rejects.columns]
        return {
            "rows": _texts(frame),
            "schema": None if snapshot.schema is None else snapshot.schema.to_json(),
            "number": snapshot.number,
            "positions": _plain(snapshot.positions),
            "identities": _plain(snapshot.identities),
            "seen": {n: [s.size, s.version] for n, s in sorted(snapshot.seen("source", None).items())},
            "rejects": _texts(rejects.select(kept)),
            "commits": sorted(e["number"] for e in commits),
            "folder": [
                name for name in shape(self.target) if "/_headrace/runs/" not in name and ".headrace/runs/" not in name
            ],
        }


def scenarios(
    *,
    sources: Sequence[str] = SOURCES,
    writes: Sequence[str] = tuple(WRITES),
    destinations: Sequence[str] = tuple(DESTINATIONS),
) -> Iterator[Scenario]:
    """All that headrace does not refuse, of these."""
    for destination in destinations:
        for write in writes:
            for source in sources:
                one = Scenario(source, write, destination)
                if not one.refused:
                    yield one


_OF_THE_COPY = re.compile(r'("(?:id|database|snapshot|state)": )"[^"]*"|("oid": )[0-9]+')


def _plain(value: Any) -> Any:
    """JSON without what is another one in each copy: a commit's id, a database's name, its numbers."""
    return json.loads(_OF_THE_COPY.sub(r'\1\2"#"', json.dumps(value, sort_keys=True, default=str)))


def _texts(frame: pl.DataFrame) -> list[list[str | None]]:
    """The rows as exact texts, columns by name, sorted."""
    columns = sorted(frame.columns)
    schema = Schema.of_polars(frame.schema)
    rows = [list(r) for r in frame.select([to_text(pl.col(c), schema[c]) for c in columns]).rows()] if columns else []
    return [columns, *sorted(rows, key=lambda row: [(v is not None, v or "") for v in row])]


def _insert(rows: Sequence[tuple[Any, ...]], mark: str) -> tuple[str, list[Any]]:
    places = ", ".join(f"({', '.join([mark] * len(_COLUMNS))})" for _ in rows)
    return f"INSERT INTO items VALUES {places}", [value for row in rows for value in row]


def _into_sqlite(file: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS items ({_SQL})")
        connection.execute(*_insert(rows, "?"))
    connection.close()


def _into_duckdb(file: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    import duckdb

    with duckdb.connect(file) as connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS items ({_SQL})")
        connection.execute(*_insert(rows, "?"))


def _into_file(file: Path, rows: Sequence[tuple[Any, ...]], stage: int, *, unreadable: bool = False) -> None:
    """One file more, with a time that is the same wherever it is written, and with a line that cannot be read."""
    file.parent.mkdir(exist_ok=True)
    frame = pl.DataFrame(list(rows), schema=_COLUMNS, orient="row")
    {".csv": frame.write_csv, ".ndjson": frame.write_ndjson, ".parquet": frame.write_parquet}[file.suffix](file)
    if unreadable:
        with file.open("a") as more:
            more.write(f"{stage},too few\n" if file.suffix == ".csv" else f'{{"id": {stage}\n')
    os.utime(file, (1_700_000_000 + stage, 1_700_000_000 + stage))

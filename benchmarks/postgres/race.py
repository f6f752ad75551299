"""All contestants in turn, and the table: ``python race.py [--sf 1] [--rounds 7] [--only duckdb,parquet]``."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psycopg

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "tests" / "postgres_system")]
from contestants import CONTESTANTS, TABLE  # noqa: E402
from measure import Cost, measured  # noqa: E402
from server import running  # noqa: E402

_COLUMNS = """l_orderkey bigint, l_partkey bigint, l_suppkey bigint, l_linenumber int, l_quantity numeric(15,2),
l_extendedprice numeric(15,2), l_discount numeric(15,2), l_tax numeric(15,2), l_returnflag text, l_linestatus text,
l_shipdate date, l_commitdate date, l_receiptdate date, l_shipinstruct text, l_shipmode text, l_comment text"""
_SUMS = """SELECT count(*), sum(l_orderkey), sum(l_extendedprice)::varchar, sum(l_tax)::varchar,
min(l_shipdate)::varchar, max(l_receiptdate)::varchar, sum(length(l_comment)), min(l_comment), max(l_shipmode)
FROM {}"""
_SECONDS = 1800.0
_SLOW = "duckdb_dlt_sqlalchemy"
"""Row by row in Python: it runs on a tenth of the rows, beside headrace on the same."""


@dataclass(frozen=True)
class Run:
    """One run: seconds, megabytes, and whether the result is the table."""

    wall: float
    cpu: float
    peak: float
    equal: bool


def run(name: str, dsn: str, place: Path) -> Run | None:
    """One contestant once; None where it is not installed or fails."""
    folder = place / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    kind = name.partition("_")[0]
    if kind == "load":
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS bench CASCADE; DROP SCHEMA IF EXISTS _headrace CASCADE")
            connection.execute("CREATE SCHEMA bench")
            connection.execute("CHECKPOINT")
    cost = launch(name, dsn, folder, place)
    return None if cost.status else Run(cost.wall, cost.cpu, cost.peak, equal(name, dsn, folder))


def launch(name: str, dsn: str, folder: Path, place: Path) -> Cost:
    """What one contestant took."""
    environment = {**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once, not at every start
    return measured(
        [sys.executable, str(HERE / "contestants.py"), name, dsn, str(folder)], place / "stderr", environment
    )


def equal(name: str, dsn: str, folder: Path) -> bool:
    """Whether what came out is what went in."""
    kind = name.partition("_")[0]
    with duckdb.connect() as con, psycopg.connect(dsn) as connection:
        if name.endswith("psql_floor") and kind == "duckdb":
            return True
        expected = connection.execute(_SUMS.format(f"public.{TABLE}")).fetchone()
        if kind == "load":
            found = connection.execute(_SUMS.format(f"bench.{name.replace('load_', 'loaded_').replace('psql_', '')}"))
            return _plain(found.fetchone()) == _plain(expected)
        if kind == "parquet":
            place = folder / "out" / "*.parquet" if (folder / "out").is_dir() else folder / "out.parquet"
            rows = f"read_parquet('{place}')"
        else:
            con.execute(f"ATTACH '{folder / 'out.duckdb'}' AS out (READ_ONLY)")
            found = con.execute(
                "SELECT schema_name FROM duckdb_tables() WHERE database_name = 'out' AND table_name = ?", [TABLE]
            ).fetchall()
            rows = f"out.{found[0][0]}.{TABLE}"
        try:
            return _plain(con.execute(_SUMS.format(rows)).fetchone()) == _plain(expected)
        except duckdb.BinderException:  # money as text is not money
            return False


def _plain(row: tuple[object, ...] | None) -> list[str]:
    return [str(value) for value in row or ()]


def data(dsn: str, place: Path, sf: str) -> None:
    """Lineitem in the server, as a Parquet file, and as a binary COPY's file."""
    generate = [sys.executable.replace("python", "tpchgen-cli"), "parquet", "-s", sf, "-T", TABLE]
    if not Path(generate[0]).exists():
        generate[0] = str(Path(sys.executable).with_name("tpchgen-cli"))
    subprocess.run([*generate, f"--output-dir={place}"], check=True)
    with psycopg.connect(dsn, autocommit=True) as connection, duckdb.connect() as con:
        connection.execute(f"CREATE TABLE {TABLE} ({_COLUMNS})")
        con.execute(f"COPY (FROM '{place / 'lineitem.parquet'}') TO '{place / 'lineitem.csv'}' (HEADER false)")
        with (place / "lineitem.csv").open("rb") as file, connection.cursor() as cursor:
            with cursor.copy(f"COPY {TABLE} FROM STDIN (FORMAT csv)") as copy:
                while block := file.read(1 << 20):
                    copy.write(block)
            connection.execute(f"VACUUM ANALYZE {TABLE}")
            with (
                (place / "lineitem.bin").open("wb") as out,
                cursor.copy(f"COPY {TABLE} TO STDOUT (FORMAT binary)") as copy,
            ):
                for row in copy:
                    out.write(row)
        (place / "lineitem.csv").unlink()


def race(title: str, names: list[str], dsn: str, place: Path, rounds: int) -> None:
    """Interleaved rounds of some contestants, headrace first, and their table."""
    first = names[0]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for at in range(rounds + 1):  # the first warms up
        for name in list(names):
            found = run(name, dsn, place)
            if found is None:
                print(f"  {name}: not here ({(place / 'stderr').read_text().strip().splitlines()[-1:]})", flush=True)
                names.remove(name)
            elif at:
                runs[name].append(found)
    print(f"\n{title}: {rounds} rounds\n| | wall s | CPU s | peak MB | headrace wall | headrace CPU | equal |")
    print("|---|---|---|---|---|---|---|")
    ours = runs[first]
    for name in names:
        theirs = runs[name]
        wall = statistics.median(o.wall / t.wall for o, t in zip(ours, theirs, strict=True))
        cpu = statistics.median(o.cpu / t.cpu for o, t in zip(ours, theirs, strict=True))
        told = [statistics.median(getattr(t, field) for t in theirs) for field in ("wall", "cpu", "peak")]
        same = "yes" if all(t.equal for t in theirs) else "NO"
        what = (CONTESTANTS[name].__doc__ or "").rstrip(".")
        print(
            f"| {what} | {told[0]:.2f} | {told[1]:.2f} | {told[2]:.0f} | {wall:.2f} | {cpu:.2f} | {same} |", flush=True
        )


def tenth(dsn: str, place: Path, rounds: int) -> None:
    """The default backend of dlt against headrace, on the rows of every tenth order."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {TABLE} RENAME TO {TABLE}_all")
        connection.execute(f"CREATE TABLE {TABLE} AS SELECT * FROM {TABLE}_all WHERE l_orderkey % 10 = 1")
        connection.execute(f"VACUUM ANALYZE {TABLE}")
        race("duckdb, a tenth of the rows", ["duckdb_headrace", _SLOW], dsn, place, rounds)
        connection.execute(f"DROP TABLE {TABLE}; ALTER TABLE {TABLE}_all RENAME TO {TABLE}")


def wide(dsn: str, place: Path) -> None:
    """3,000 texts of 100 kB, into both: memory does not grow with the rows' number."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}_wide; ALTER TABLE {TABLE} RENAME TO {TABLE}_narrow")
        text = "(SELECT string_agg(md5(i::text || j::text), '') FROM generate_series(1, 3125) AS j)"
        connection.execute(
            f"CREATE TABLE {TABLE} AS SELECT i AS l_orderkey, {text} AS l_comment FROM generate_series(1, 3000) i"
        )
    for name in ("duckdb_headrace", "parquet_headrace"):
        folder = place / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        cost = launch(name, dsn, folder, place)
        print(f"wide, {name}: exit {cost.status}, peak {cost.peak:.0f} MB", flush=True)


def empty_increment(dsn: str, place: Path) -> None:
    """A run that finds nothing new in the table by an indexed cursor."""
    code = f"""
import headrace as hr
hr.run(hr.Pipeline(name="inc", source=hr.PostgresSource(dsn={dsn!r}, table={TABLE!r}, cursor="l_orderkey"),
  destination=hr.DuckDBDestination(path={str(place / "inc.duckdb")!r}, table="t"),
  write=hr.Merge(keys=("l_orderkey", "l_linenumber"))))
"""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE INDEX IF NOT EXISTS by_key ON {TABLE} (l_orderkey); ANALYZE {TABLE}")
    for what in ("first", "empty", "empty", "empty"):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, timeout=_SECONDS)
        print(f"increment, {what}: {time.perf_counter() - began:.2f} s for the whole process", flush=True)


def main() -> None:
    """Set up, race, tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sf", default=os.environ.get("SF", "1"))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", "7")))
    parser.add_argument("--only", default="duckdb,tenth,parquet,load,increment,wide")
    parser.add_argument("--skip", default="", help="contestants to leave out, e.g. duckdb_dlt_pyarrow")
    chosen = parser.parse_args()
    settings = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "shared_buffers": "1GB"}
    more = {"max_wal_size": "8GB", "wal_level": "replica"}
    with tempfile.TemporaryDirectory() as name, running(**settings, **more) as server, server.database() as database:
        place = Path(name)
        known = psycopg.conninfo.conninfo_to_dict(database.dsn)
        dsn = f"host=127.0.0.1 port={known['port']} dbname={known['dbname']} user={known['user']}"
        data(dsn, place, chosen.sf)
        for kind in chosen.only.split(","):
            match kind:
                case "wide":
                    wide(dsn, place)
                case "increment":
                    empty_increment(dsn, place)
                case "tenth":
                    tenth(dsn, place, chosen.rounds)
                case _:
                    skip = (_SLOW, *chosen.skip.split(","))
                    names = [name for name in CONTESTANTS if name.startswith(f"{kind}_") and name not in skip]
                    race(kind, names, dsn, place, chosen.rounds)


if __name__ == "__main__":
    main()

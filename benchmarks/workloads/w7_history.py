"""W7: a history takes changes of one row in sixty (100,000 at SF=1)."""

from __future__ import annotations

from pathlib import Path

from workloads.lineitem import KEYS, LEDGER, first, load

MARK = 1.5
CHANGES = "hash(l_orderkey, l_linenumber) % 60 = 0"


def _changes(data: Path, file: Path) -> None:
    import duckdb

    with duckdb.connect() as con:
        changed = "SELECT * REPLACE (l_quantity + 1 AS l_quantity, TIMESTAMP '2000-01-01' AS updated_at)"
        con.execute(f"COPY ({changed} FROM '{data / 'base.parquet'}' WHERE {CHANGES}) TO '{file}' (COMPRESSION zstd)")


def setup_headrace(data: Path, out: Path) -> None:
    """The first load."""
    first(data, out)
    _load(out)
    _changes(data, out / "changes.parquet")


def headrace(data: Path, out: Path) -> None:
    """Headrace, no settings."""
    del data
    (out / "changes.parquet").rename(out / "in" / "changes.parquet")
    _load(out)


def _load(out: Path) -> None:
    import headrace as hr

    load(out, hr.History(keys=KEYS, latest_by=("updated_at",)))


def setup_floor_duckdb(data: Path, out: Path) -> None:
    """The first load."""
    import duckdb

    with duckdb.connect(out / "w.duckdb") as con:
        first = "SELECT *, updated_at AS valid_from, NULL::TIMESTAMP AS valid_to"
        con.execute(f"CREATE TABLE lineitem AS {first} FROM '{data / 'base.parquet'}'")
        con.execute(LEDGER)
    _changes(data, out / "changes.parquet")


def floor_duckdb(data: Path, out: Path) -> None:
    """staging, UPDATE of the open rows and INSERT by hand, in one transaction with a ledger's row."""
    import duckdb

    del data
    with duckdb.connect(out / "w.duckdb") as con:
        con.execute("BEGIN")
        con.execute(f"""
            CREATE TEMP TABLE staged AS FROM '{out / "changes.parquet"}'
            QUALIFY row_number() OVER (PARTITION BY l_orderkey, l_linenumber ORDER BY updated_at DESC) = 1""")
        columns = [row[0] for row in con.execute("DESCRIBE staged").fetchall()]
        same = "lineitem.l_orderkey = staged.l_orderkey AND lineitem.l_linenumber = staged.l_linenumber"
        differs = " OR ".join(f"lineitem.{name} IS DISTINCT FROM staged.{name}" for name in columns)
        con.execute(f"""
            DELETE FROM staged USING lineitem WHERE {same} AND valid_to IS NULL
            AND (NOT ({differs}) OR lineitem.updated_at > staged.updated_at)""")
        con.execute(
            f"UPDATE lineitem SET valid_to = staged.updated_at FROM staged WHERE {same} AND lineitem.valid_to IS NULL"
        )
        con.execute("INSERT INTO lineitem SELECT *, updated_at, NULL FROM staged")
        con.execute("INSERT INTO ledger VALUES (2, 'changes.parquet', now())")
        con.execute("COMMIT")


RESULT = ("w.duckdb", "lineitem")

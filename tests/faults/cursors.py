"""The machine over a table that changes under a cursor, and over one in PostgreSQL whose transactions commit late."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import kinds
import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from machines import FAULTS, NO_WAIT

import headrace as hr

__all__ = ["Late", "Table"]

_ROW = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2))
_DDL = "CREATE TABLE t (id BIGINT, moved BIGINT, v BIGINT)"


class Table(RuleBasedStateMachine):
    """A table of `system` whose rows come, change and go, read by the cursor `moved` for an append, or for a merge that
    compares deletes.
    """

    write = "append"
    system = "duckdb"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="modelled_"))
        self.source: list[tuple[int, int, int]] = []
        self.target: list[tuple[int, int, int]] = []
        self.last: int | None = None
        self.known: Counter[tuple[int, int, int]] = Counter()
        self._keep()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def pipeline(self, fault: Any = None) -> hr.Pipeline:
        place = str(self.folder / "source.db")
        deletes = hr.Deletes(max=1.0)
        source: Any = (
            hr.SQLiteSource(path=place, table="t", cursor="moved")
            if self.system == "sqlite"
            else hr.DuckDBSource(
                path=place, table="t", cursor="moved", deletes=deletes if self.write == "merge" else None
            )
        )
        target: Any = hr.DuckDBDestination(path=str(self.folder / "w.duckdb"), table="t")
        return hr.Pipeline(
            name="t",
            source=source,
            destination=target if fault is None else fault(target),
            write=hr.Merge(keys=("id",)) if self.write == "merge" else hr.Append(),
        )

    def _keep(self) -> None:
        """Write the source's table as it is now."""
        opened: Any = sqlite3.connect if self.system == "sqlite" else duckdb.connect
        with contextlib.closing(opened(str(self.folder / "source.db"))) as db:
            db.execute("DROP TABLE IF EXISTS t")
            db.execute(_DDL)
            for row in self.source:
                db.execute("INSERT INTO t VALUES (?, ?, ?)", row)
            db.commit()

    @rule(rows=st.lists(_ROW, min_size=1, max_size=3))
    def rows_come(self, rows: list[tuple[int, int, int]]) -> None:
        """Some at the cursor's last value, some below it, some equal to others."""
        if self.write == "merge":  # a key stands once in a table
            rows = list({r[0]: r for r in rows}.values())
            self.source = [r for r in self.source if r[0] not in {n[0] for n in rows}]
        self.source += rows
        self._keep()

    @precondition(lambda self: self.source)
    @rule(at=st.integers(0, 99), v=st.integers(0, 2), on=st.integers(0, 1))
    def a_row_changes(self, at: int, v: int, on: int) -> None:
        """And its cursor moves on, or does not."""
        at %= len(self.source)
        id, moved, _ = self.source[at]
        self.source[at] = (id, moved + on, v)
        self._keep()

    @precondition(lambda self: self.source)
    @rule(at=st.integers(0, 99))
    def a_row_goes(self, at: int) -> None:
        del self.source[at % len(self.source)]
        self._keep()

    @rule(fault=st.sampled_from(sorted(FAULTS)), again=st.booleans())
    def it_runs(self, fault: str, again: bool) -> None:
        """A source that goes less far than it was read has been put back: that is refused, and nothing is done."""
        behind = self.last is not None and bool(self.source) and max(r[1] for r in self.source) < self.last
        emptied = self.write == "merge" and bool(self.target) and not self.source
        one = self.pipeline(FAULTS[fault])
        told: list[type[Exception]] = []
        for _ in range(2 if fault == "held" and not again else 1):  # the system is still committing at the next run
            try:
                hr.run(one, retry=hr.Retry(attempts=2 if again else 1, **NO_WAIT))
            except (hr.DataError, hr.UnavailableError, hr.ConflictError) as error:
                told.append(type(error))
        assert fault != "none" or told == ([hr.DataError] if behind or emptied else [])
        if not (behind or emptied) and (again or fault in ("none", "lost", "held")):
            self._loaded()

    def _new(self) -> list[tuple[int, int, int]]:
        """The rows that are to be read: from the last value on, and of an append those not read before."""
        beyond = [r for r in self.source if self.last is None or r[1] >= self.last]
        if self.write == "merge":
            return beyond
        left = self.known.copy()
        left.subtract(r for r in beyond if r[1] == self.last)
        seen = {r: min(n, Counter(beyond)[r]) for r, n in self.known.items()}
        return list((Counter(beyond) - Counter(seen)).elements())

    def _loaded(self) -> None:
        new = self._new()
        top = max((r[1] for r in new), default=self.last)
        if self.write == "append":
            self.target += new
            at_top = Counter(r for r in new if r[1] == top)
            self.known = at_top + (self.known if top == self.last else Counter())
        else:
            held = {r[0]: r for r in self.target}
            for row in new:
                if row[0] not in held or row[1] >= held[row[0]][1]:
                    held[row[0]] = row
            self.target = [r for r in held.values() if r[0] in {s[0] for s in self.source}]
        self.last = top

    @invariant()
    def the_target_holds_what_was_read(self) -> None:
        assert kinds.look(self.pipeline(), ("id", "moved", "v")) == sorted(self.target, key=repr)


class Late(RuleBasedStateMachine):
    """A table in PostgreSQL that three clients write to, each in a transaction that may be open for long; `cursor` is
    the server's clock (``at``) or a sequence (``number``).

    What is seen while transactions are open may lag; it is never a row that was not committed. Once all have ended, two
    runs are enough for all.
    """

    dsn = ""
    cursor = "at"
    write = "append"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="modelled_"))
        self.admin = psycopg.connect(self.dsn, autocommit=True)
        self.admin.execute(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, v int,"
            " at timestamptz NOT NULL DEFAULT now(), number bigint GENERATED BY DEFAULT AS IDENTITY)"
        )
        self.clients = [psycopg.connect(self.dsn) for _ in range(3)]
        self.ever: set[tuple[int, int]] = set()
        self.rows = 0

    def teardown(self) -> None:
        for client in (*self.clients, self.admin):
            client.close()
        shutil.rmtree(self.folder)

    def pipeline(self, fault: Any = None) -> hr.Pipeline:
        target: Any = hr.DuckDBDestination(path=str(self.folder / "w.duckdb"), table="t")
        return hr.Pipeline(
            name="t",
            source=hr.PostgresSource(dsn=self.dsn, table="t", cursor=self.cursor),
            destination=target if fault is None else fault(target),
            write=hr.Merge() if self.write == "merge" else hr.Append(),
        )

    @rule(who=st.integers(0, 2), v=st.integers(0, 9))
    def a_row_comes(self, who: int, v: int) -> None:
        self.rows += 1
        self.clients[who].execute("INSERT INTO t (id, v) VALUES (%s, %s)", [self.rows, v])

    @precondition(lambda self: self.write == "merge")
    @rule(who=st.integers(0, 2), at=st.integers(1, 9), v=st.integers(0, 9))
    def a_row_changes(self, who: int, at: int, v: int) -> None:
        """Unless another client has it."""
        moved = "at = now()" if self.cursor == "at" else "number = nextval(pg_get_serial_sequence('t', 'number'))"
        ours = "id IN (SELECT id FROM t WHERE id = %s FOR UPDATE SKIP LOCKED)"
        self.clients[who].execute(f"UPDATE t SET v = %s, {moved} WHERE {ours}", [v, at])

    @rule(who=st.integers(0, 2), kept=st.sampled_from([True, True, False]))
    def a_transaction_ends(self, who: int, kept: bool) -> None:
        self.clients[who].commit() if kept else self.clients[who].rollback()
        self.ever |= self._committed()

    @rule(fault=st.sampled_from(sorted(FAULTS)))
    def it_runs(self, fault: str) -> None:
        hr.run(self.pipeline(FAULTS[fault]), retry=hr.Retry(attempts=2, **NO_WAIT))
        assert set(self._seen()) <= self.ever

    @rule()
    def all_comes_to_rest(self) -> None:
        """And what is in the target is what is in the source."""
        for client in self.clients:
            client.commit()
        self.ever |= self._committed()
        self.admin.execute("SELECT pg_sleep(1.1)")  # the server's clock is read up to a second ago
        hr.run(self.pipeline())
        assert sorted(self._seen()) == sorted(self._committed())

    def _committed(self) -> set[tuple[int, int]]:
        return set(self.admin.execute("SELECT id, v FROM t").fetchall())

    def _seen(self) -> list[tuple[int, int]]:
        return kinds.look(self.pipeline(), ("id", "v"))

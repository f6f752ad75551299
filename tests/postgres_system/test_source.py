"""Reading PostgreSQL: one snapshot, nothing skipped, nothing twice."""

from __future__ import annotations

import json

import duckdb
import psycopg
import pytest

import headrace as hr
from headrace.cli import main
from headrace.cursor import Deletes
from headrace.errors import ConfigError, RejectedError
from headrace.flow import Range, Snapshot


def ran(*words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def test_a_table_goes_into_duckdb_by_the_command(database, tmp_path, monkeypatch, capsys):
    database.run(
        "CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2), updated_at timestamptz NOT NULL DEFAULT now());"
        "INSERT INTO orders SELECT i, i / 4.0, now() - i * interval '1 hour' FROM generate_series(1, 100) AS i"
    )
    monkeypatch.setenv("SHOP_DSN", database.dsn)
    (tmp_path / "headrace.json").write_text(
        json.dumps({"connections": {"shop": {"type": "postgres", "dsn": {"env": "SHOP_DSN"}}}})
    )
    pipeline = {
        "name": "orders",
        "source": {"connection": "shop", "table": "public.orders", "cursor": "updated_at"},
        "destination": {"type": "duckdb", "path": "warehouse.duckdb", "table": "orders"},
        "write": {"type": "merge", "keys": ["id"]},
    }
    (tmp_path / "orders.json").write_text(json.dumps(pipeline))
    assert ran("run", str(tmp_path)) == 0
    database.run("UPDATE orders SET total = 0.01, updated_at = now() - interval '1 minute' WHERE id = 7")
    capsys.readouterr()
    assert ran("run", str(tmp_path), "--json") == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["commits"][0]["counts"]["updated"] == 2  # with the newest row, which is read again
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        rows = connection.sql("SELECT count(*), sum(total), typeof(any_value(total)) FROM orders").fetchall()
    assert [(n, str(t), k) for n, t, k in rows] == [(100, "1260.76", "DECIMAL(10,2)")]


def test_values_that_no_natural_type_holds_make_a_column_text(database, tmp_path):
    database.run("CREATE TABLE t (id int, d date, n numeric(5,2)); INSERT INTO t VALUES (1, 'infinity', 'NaN')")
    pipeline = hr.Pipeline(
        name="t",
        source=hr.PostgresSource(dsn=database.dsn, table="t"),
        destination=hr.ParquetDestination(path=str(tmp_path / "t")),
        write=hr.Replace(),
    )
    report = hr.run(pipeline)
    assert "read as text" in " ".join(report.warnings)
    assert hr.scan_table(tmp_path / "t").collect().rows() == [(1, "infinity", "NaN")]
    again = hr.run(pipeline)
    assert again.warnings == ()


def test_a_table_or_column_that_is_not_there_is_named_with_the_one_that_was_meant(database):
    database.run("CREATE TABLE invoice (id int, at timestamptz)")
    for wrong, said in (
        ({"table": "invoise"}, "there is no table public.invoise\n  hint: did you mean 'public.invoice'"),
        ({"table": "invoice", "cursor": "att"}, "has no column 'att'\n  hint: did you mean 'at'"),
        ({"table": "invoice", "columns": ("nope",)}, "no column 'nope'"),
    ):
        source = hr.PostgresSource(dsn=database.dsn, **wrong)
        with pytest.raises(ConfigError, match=said):
            next(source.batches(Range(), Snapshot(), "s"))


def test_rights_and_what_is_wrong_with_where_show_before_a_row_is_read(database):
    role = f"reader_{database.name}"
    database.run(
        f"CREATE TABLE t (id int); CREATE TABLE guarded (id int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;"
        f"CREATE ROLE {role} LOGIN; GRANT SELECT ON guarded TO {role}"
    )
    try:
        reader = psycopg.conninfo.make_conninfo(database.dsn, user=role)
        for wrong, kind, said in (
            ({"table": "t", "where": "idd = 1"}, ConfigError, "column 'idd'"),
            ({"table": "t", "dsn": reader}, RejectedError, "table 't'"),
            ({"table": "guarded", "dsn": reader}, RejectedError, "row-level security .* 'guarded'"),
        ):
            with pytest.raises(kind, match=said):
                next(hr.PostgresSource(**{"dsn": database.dsn, **wrong}).batches(Range(), Snapshot(), "s"))
    finally:
        database.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("reads", [{"table": "t"}, {"table": "seen"}, {"query": "SELECT id FROM t"}])
def test_rows_that_a_policy_hides_are_never_taken_for_deleted(database, tmp_path, reads):
    """The role may turn row security on by itself, and a view is read with its owner's rights."""
    role = f"reader_{database.name}"
    database.run(
        f"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2); CREATE ROLE {role} LOGIN;"
        f"ALTER ROLE {role} SET row_security = on; GRANT SELECT ON t TO {role}; CREATE VIEW seen AS TABLE t;"
        f"GRANT CREATE ON SCHEMA public TO {role}; ALTER VIEW seen OWNER TO {role}"
    )
    try:
        reader = psycopg.conninfo.make_conninfo(database.dsn, user=role)
        deletes = Deletes(every="0s", max=1.0)
        target = hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t")
        one = hr.Pipeline(
            name="p",
            source=hr.PostgresSource(dsn=reader, deletes=deletes, **reads),
            destination=target,
            write=hr.Merge(keys=("id",)),
        )
        hr.run(one)
        database.run("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY one ON t USING (id = 1)")
        for verb in (hr.run, hr.plan):
            with pytest.raises(RejectedError, match=r"row-level security .* \(table 't'\)") as told:
                verb(one)
            assert "BYPASSRLS" in told.value.hint
        assert target.inspect("p").scan().collect()["id"].sort().to_list() == [1, 2]
    finally:
        database.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("before", "after", "value", "held"),
    [
        ("char(3)", "char(5)", "abcde", "bpchar"),
        ("bit(3)", "bit(5)", "10111", "bit varying"),
        ("char(3)[]", "char(5)[]", "{abcde}", "bpchar[]"),
        ("varchar(3)", "varchar(5)", "abcde", "character varying"),
    ],
)
def test_a_type_with_a_limit_that_grows_cuts_nothing_of_what_was_loaded(database, before, after, value, held):
    old = "{101}" if before.endswith("[]") else "101"
    database.run(f"CREATE TABLE t (id int PRIMARY KEY, v {before}); INSERT INTO t VALUES (1, '{old}'), (2, NULL)")
    pipeline = hr.Pipeline(
        name="t",
        source=hr.PostgresSource(dsn=database.dsn, table="t", cursor="id"),
        destination=hr.PostgresDestination(dsn=database.dsn, table="copy"),
        write=hr.Merge(keys=("id",)),
    )
    hr.run(pipeline)
    loaded = database.run("SELECT v FROM copy WHERE id = 1")
    database.run(f"ALTER TABLE t ALTER v TYPE {after} USING v::{after}; INSERT INTO t VALUES (3, '{value}')")
    hr.run(pipeline)
    assert database.run("SELECT v FROM copy WHERE id = 1") == loaded
    assert database.run("SELECT v FROM copy WHERE id = 3") == database.run("SELECT v FROM t WHERE id = 3")
    kind = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'copy'::regclass AND attnum = 2"
    assert database.run(kind) == [(held,)]


def test_a_table_made_anew_and_another_database_are_other_sources(database, postgres, tmp_path):
    database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")

    def pipeline(dsn, **more):
        return hr.Pipeline(
            name="t",
            source=hr.PostgresSource(dsn=dsn, table="t", cursor="id"),
            destination=hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t"),
            write=hr.Merge(keys=("id",)),
            **more,
        )

    hr.run(pipeline(database.dsn))
    database.run("ALTER TABLE t RENAME TO was; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (2)")
    with pytest.raises(ConfigError, match="not the one that was read before"):
        hr.run(pipeline(database.dsn))
    with (
        postgres.database("CREATE TABLE t (id int PRIMARY KEY)") as other,
        pytest.raises(ConfigError, match="not the one that was read before"),
    ):
        hr.plan(pipeline(other.dsn))
    assert hr.run(pipeline(database.dsn, was="source")).status == "loaded"
    assert hr.run(pipeline(database.dsn)).status == "nothing_new"


@pytest.mark.parametrize(("before", "now"), [("id > 1", None), (None, "id > 1"), ("id > 1", "id > 0")])
def test_another_where_is_another_source(database, tmp_path, monkeypatch, before, now):
    """Its position is of the rows that it took: of the others those below it would never be read."""
    database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")

    def pipeline(where):
        source = hr.PostgresSource(dsn=database.dsn, table="t", cursor="id", where=where)
        target = hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t")
        return hr.Pipeline(name="t", source=source, destination=target, write=hr.Merge(keys=("id",)))

    def untold(source, told=hr.PostgresSource.identity):
        return {key: value for key, value in told(source).items() if key != "where"}

    with monkeypatch.context() as earlier:  # whose ledgers do not tell it
        earlier.setattr(hr.PostgresSource, "identity", untold)
        hr.run(pipeline(before))
    assert hr.run(pipeline(before)).status == "nothing_new"
    database.run("INSERT INTO t VALUES (3)")
    assert hr.run(pipeline(before)).status == "loaded"
    for verb in (hr.plan, hr.run):
        with pytest.raises(ConfigError, match="not the one that was read before") as refused:
            verb(pipeline(now))
        assert "--full-refresh" in refused.value.hint


def test_a_merge_goes_by_the_primary_key_and_takes_the_row_as_it_is_now(database, tmp_path):
    """A row's newer state may have an older time, or one that sorts otherwise as text."""
    database.run(
        "CREATE TABLE t (a int, b text, at numeric NOT NULL, n int, PRIMARY KEY (b, a));"
        "INSERT INTO t VALUES (1, 'x', 9, 0), (2, 'x', 8, 0)"
    )
    pipeline = hr.Pipeline(
        name="billing",
        source=hr.PostgresSource(dsn=database.dsn, table="t", cursor="at", rename={"b": "who"}),
        destination=hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t"),
        write=hr.Merge(),
    )
    hr.run(pipeline)
    database.run("UPDATE t SET at = 10, n = 1 WHERE a = 1")
    hr.run(pipeline)
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as connection:
        assert connection.sql('SELECT a, who, "at", n FROM t ORDER BY a').fetchall() == [
            (1, "x", "10", 1),
            (2, "x", "8", 0),
        ]


def test_the_server_shows_which_pipeline_reads(database, tmp_path):
    database.run("CREATE TABLE t (id int)")
    source = hr.PostgresSource(dsn=database.dsn, query="SELECT id, current_setting('application_name') AS who FROM t")
    database.run("INSERT INTO t VALUES (1)")
    hr.run(
        hr.Pipeline(
            name="billing",
            source=source,
            destination=hr.ParquetDestination(path=str(tmp_path / "t")),
            write=hr.Replace(),
        )
    )
    assert hr.scan_table(tmp_path / "t").collect()["who"].to_list() == ["headrace billing reading"]

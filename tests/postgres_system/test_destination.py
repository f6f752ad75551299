"""What PostgreSQL is beside the promises of every destination: readers, what hangs on a table, rights, broken rules."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import polars as pl
import psycopg
import pytest

import headrace as hr
from headrace.cli import main
from headrace.errors import ConfigError, DataError, RejectedError, SchemaError, UnavailableError


class Shop:
    """CSV files going in, a table of a fresh database coming out."""

    def __init__(self, folder: Path, database) -> None:
        self.folder, self.database = folder, database
        (folder / "in").mkdir()

    def write(self, name: str, text: str) -> None:
        (self.folder / "in" / name).write_text(text, "utf-8")

    def pipeline(self, write: hr.Merge | hr.Replace | hr.Append | None = None, **more) -> hr.Pipeline:
        place = {k: more.pop(k) for k in ("adopt", "create_index", "dsn", "table") if k in more}
        source = more.pop("source", hr.FileSource(path="in/*.csv", base=self.folder))
        destination = hr.PostgresDestination(**{"dsn": self.database.dsn, "table": "orders", **place})
        return hr.Pipeline(
            name="orders", source=source, destination=destination, write=write or hr.Append(), base=self.folder, **more
        )

    def rows(self, table: str = "orders", order: str = "1") -> list[tuple]:
        return self.database.run(f"SELECT * FROM {table} ORDER BY {order}")


@pytest.fixture
def shop(tmp_path, database) -> Shop:
    return Shop(tmp_path, database)


def test_a_csv_is_appended_and_a_second_run_finds_nothing_new(shop):
    shop.write("1.csv", 'id,name,price\n1,"a\tb\\N",1.50\n2,,2.25\n')
    assert hr.run(shop.pipeline()).status == "loaded"
    assert hr.run(shop.pipeline()).status == "nothing_new"
    shop.write("2.csv", "id,name,price\n3,c,3.00\n")
    hr.run(shop.pipeline())
    assert [r[:2] for r in shop.rows()] == [(1, "a\tb\\N"), (2, None), (3, "c")]


def test_tables_that_are_two_to_postgres_are_two_to_the_ledger(shop):
    """Case counts, and a point in a name is no point between names."""
    shop.write("1.csv", "id\n1\n")
    names = ("t", "T", '"a.b"."c"', '"a"."b.c"', '"a*"."b"', '"q""."."r"')
    for name in names:
        assert hr.run(shop.pipeline(hr.History(keys=("id",)), table=name)).status == "loaded", name
        assert hr.run(shop.pipeline(hr.History(keys=("id",)), table=name)).status == "nothing_new", name
    assert len({shop.pipeline(table=name).destination.place() for name in names}) == len(names)


def test_the_command_loads_into_postgres(shop, monkeypatch, capsys):
    monkeypatch.setenv("SHOP_DSN", shop.database.dsn)
    shop.write("1.csv", "id,name\n1,a\n")
    config = {
        "name": "orders",
        "source": {"type": "files", "path": "in/*.csv"},
        "destination": {"type": "postgres", "dsn": {"env": "SHOP_DSN"}, "table": "sales.orders"},
        "write": {"type": "merge", "keys": ["id"]},
    }
    (shop.folder / "orders.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="0"):
        main(["plan", str(shop.folder / "orders.json"), "--json"])
    plan = json.loads(capsys.readouterr().out)
    plan = plan["plans"][0] if "plans" in plan else plan
    assert plan["changes"] == [
        'CREATE SCHEMA "sales"',
        'CREATE TABLE "sales"."orders" ("id" bigint, "name" text)',
    ]
    assert any("no unique index on id" in w for w in plan["warnings"])
    assert shop.database.run("SELECT count(*) FROM pg_namespace WHERE nspname IN ('sales', '_headrace')") == [(0,)]
    with pytest.raises(SystemExit, match="0"):
        main(["run", str(shop.folder / "orders.json")])
    assert shop.rows("sales.orders") == [(1, "a")]


def test_only_rows_that_differ_are_updated(shop):
    shop.write("1.csv", "id,n\n1,a\n2,b\n3,c\n")
    merge = shop.pipeline(hr.Merge(keys=("id",)), create_index=True)
    hr.run(merge)
    before = shop.rows("(SELECT id, xmin::text FROM orders) AS q")
    shop.write("2.csv", "id,n\n1,a\n2,B\n3,c\n4,d\n")
    hr.run(merge)
    after = dict(shop.rows("(SELECT id, xmin::text FROM orders) AS q"))
    assert [id for id, xmin in before if after[id] != xmin] == [2]
    indexes = shop.database.run("SELECT indexdef FROM pg_indexes WHERE tablename = 'orders'")
    assert len(indexes) == 1
    assert "UNIQUE" in indexes[0][0]


def test_a_merge_without_an_index_is_right_too_and_refuses_a_key_that_is_there_twice(shop):
    shop.database.run("CREATE TABLE orders (id bigint, n text); INSERT INTO orders VALUES (1, 'x'), (1, 'y'), (2, 'z')")
    shop.write("1.csv", "id,n\n2,b\n3,c\n")
    hr.run(shop.pipeline(hr.Merge(keys=("id",)), adopt=True))
    assert shop.rows(order="1, 2") == [(1, "x"), (1, "y"), (2, "b"), (3, "c")]
    shop.write("2.csv", "id,n\n1,a\n")
    with pytest.raises(DataError, match="more than once"):
        hr.run(shop.pipeline(hr.Merge(keys=("id",)), adopt=True))


def test_an_identity_that_is_always_generated_is_refused_by_name_where_rows_would_update_it(shop):
    shop.database.run("CREATE TABLE orders (id bigint PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY, v text)")
    shop.write("1.csv", "id,n,v\n1,7,a\n")
    with pytest.raises(hr.SchemaError, match="'n' is GENERATED ALWAYS AS IDENTITY") as caught:
        hr.run(shop.pipeline(hr.Merge(keys=("id",)), adopt=True))
    assert "BY DEFAULT" in caught.value.hint
    (shop.folder / "in" / "1.csv").write_text("id,v\n1,a\n2,b\n")
    hr.run(shop.pipeline(hr.Merge(keys=("id",)), adopt=True, on_schema_change=hr.SchemaPolicy(missing="keep")))
    assert shop.rows(order="1") == [(1, 1, "a"), (2, 2, "b")]


def test_a_history_in_a_table_without_its_columns_is_refused_by_name(shop):
    shop.database.run("CREATE TABLE orders (id bigint, n text)")
    shop.write("1.csv", "id,n\n2,b\n")
    with pytest.raises(hr.SchemaError, match="has no column 'valid_from'"):
        hr.run(shop.pipeline(hr.History(keys=("id",)), adopt=True))
    hr.run(shop.pipeline(hr.Merge(keys=("id",)), adopt=True))
    shop.write("2.csv", "id,n\n2,c\n")
    with pytest.raises(hr.SchemaError, match="has no column 'valid_from'"):  # a table that it keeps, by another write
        hr.run(shop.pipeline(hr.History(keys=("id",)), adopt=True))


@pytest.mark.parametrize("write", [hr.Merge(keys=("k",)), hr.Replace(keys=("k",))])
@pytest.mark.parametrize(
    ("held", "before", "after"), [("numeric", "1.0", "1.00"), ("float8", "0", "-0"), ("interval", "24:00:00", "1 day")]
)
def test_a_key_that_is_equal_and_spelled_otherwise_is_updated(shop, write, held, before, after):
    with shop.database.server.database(f"CREATE TABLE orders (k {held}, n int)") as theirs:
        theirs.run(f"INSERT INTO orders VALUES ('{before}', 1), ('9', 1)")
        source = hr.PostgresSource(dsn=theirs.dsn, table="orders")
        hr.run(shop.pipeline(write, source=source))
        xmin = dict(shop.rows("(SELECT k::text, xmin::text FROM orders) AS q"))
        theirs.run(f"UPDATE orders SET k = '{after}' WHERE k = '{before}'")
        hr.run(shop.pipeline(write, source=source))
        texts = "(SELECT k::text, n, xmin::text = ANY (ARRAY['{}']) FROM orders) AS q"
        kept = shop.rows(texts.format("','".join(xmin.values())))
        nine = next(k for k in xmin if k.startswith(("9", "00:00:09")))
        assert kept == sorted([(after, 1, False), (nine, 1, True)])


BY_CASE = {
    "citext": "CREATE EXTENSION citext",
    "text COLLATE anycase": (
        "CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    ),
}


@pytest.mark.parametrize("held", BY_CASE)
def test_a_key_whose_case_has_changed_is_updated(shop, held):
    try:
        shop.database.run(f"{BY_CASE[held]}; CREATE TABLE orders (k {held} PRIMARY KEY, n int)")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("the server has no ICU")
    replace = shop.pipeline(
        hr.Replace(keys=("k",)), source=hr.FileSource(path="in/*.csv", base=shop.folder, read="all"), adopt=True
    )
    shop.write("1.csv", "k,n\nbob,1\neve,2\n")
    hr.run(replace)
    (shop.folder / "in" / "1.csv").unlink()
    shop.write("2.csv", "k,n\nBob,1\neve,2\n")
    hr.run(replace)
    assert shop.rows(order="2") == [("Bob", 1), ("eve", 2)]


def test_a_replace_by_keys_touches_only_what_differs(shop):
    source = hr.FileSource(path="in/*.csv", base=shop.folder, read="all")
    replace = shop.pipeline(hr.Replace(keys=("id",)), source=source)
    shop.write("1.csv", "id,n\n1,a\n2,b\n3,c\n")
    hr.run(replace)
    before = dict(shop.rows("(SELECT id, xmin::text FROM orders) AS q"))
    (shop.folder / "in" / "1.csv").unlink()
    shop.write("2.csv", "id,n\n1,a\n2,B\n4,d\n")
    hr.run(replace)
    assert shop.rows() == [(1, "a"), (2, "B"), (4, "d")]
    after = dict(shop.rows("(SELECT id, xmin::text FROM orders) AS q"))
    assert after[1] == before[1]
    assert after[2] != before[2]
    (shop.folder / "in" / "2.csv").unlink()
    shop.write("3.csv", "id,n\n1,a\n1,b\n")
    with pytest.raises(DataError, match="more than once"):
        hr.run(replace)


def test_readers_never_see_an_empty_or_partial_table_and_views_keep_working(shop):
    wanted = 1000
    shop.write("1.csv", "id,n\n" + "".join(f"{n},x\n" for n in range(wanted)))
    replace = shop.pipeline(hr.Replace(), source=hr.FileSource(path="in/*.csv", base=shop.folder, read="all"))
    hr.run(replace)
    shop.database.run("CREATE VIEW seen AS SELECT count(*) AS n, count(DISTINCT n) AS kinds FROM orders")
    told, stopped = set(), threading.Event()

    def read() -> None:
        with shop.database.connect() as connection:
            while not stopped.is_set():
                told.update(connection.execute("SELECT n, kinds FROM seen").fetchall())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for text in ("y", "z"):
            shop.write("1.csv", "id,n\n" + "".join(f"{n},{text}\n" for n in range(wanted)))
            hr.run(replace, full_refresh=text == "z")
    finally:
        stopped.set()
        reader.join()
    assert told == {(wanted, 1)}
    assert shop.database.run("SELECT DISTINCT n FROM orders") == [("z",)]


@pytest.mark.parametrize("older", [False, True])
def test_a_database_that_publishes_all_its_tables_takes_loads_where_they_have_a_key(shop, older):
    """The ledger's own tables, and what a history keeps beside its versions, stand in nobody's way."""
    database = shop.database
    database.run("CREATE TABLE orders (id int PRIMARY KEY, n text); CREATE PUBLICATION p FOR ALL TABLES")
    source = hr.FileSource(path="in/*.csv", base=shop.folder, read="all")
    shop.write("1.csv", "id,n\n1,a\n")
    hr.run(shop.pipeline(hr.Replace(), source=source, adopt=True))
    if older:
        for table in ("rejects", "settled", "runs", "tombstones"):
            database.run(f"ALTER TABLE _headrace.{table} REPLICA IDENTITY DEFAULT")
    shop.write("2.csv", "id,n\n2,b\n")
    hr.run(shop.pipeline(hr.Replace(), source=source, adopt=True))
    assert shop.rows() == [(1, "a"), (2, "b")]
    with pytest.raises(ConfigError, match="'versions'") as told:
        hr.run(shop.pipeline(hr.History(keys=("id",)), source=source, table="versions"))
    assert "REPLICA IDENTITY" in told.value.hint
    database.run("DROP PUBLICATION p")
    hr.run(shop.pipeline(hr.History(keys=("id",)), source=source, table="versions"))
    database.run("ALTER TABLE versions REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR ALL TABLES")
    shop.write("3.csv", "id,n\n1,c\n")
    hr.run(shop.pipeline(hr.History(keys=("id",)), source=source, table="versions"))


def test_truncate_is_used_only_when_it_is_asked_for_and_plan_says_what_readers_see(shop):
    shop.write("1.csv", "id,n\n1,a\n")
    hr.run(shop.pipeline(hr.Replace()))
    oid = shop.database.run("SELECT relfilenode FROM pg_class WHERE relname = 'orders'")
    hr.run(shop.pipeline(hr.Replace()), full_refresh=True)
    assert shop.database.run("SELECT relfilenode FROM pg_class WHERE relname = 'orders'") == oid
    shop.write("2.csv", "id,n\n2,a\n")
    truncating = shop.pipeline(hr.Replace(truncate=True))
    assert any("TRUNCATE locks table orders" in w for w in hr.plan(truncating).warnings)
    for full_refresh in (False, True):
        hr.run(truncating, full_refresh=full_refresh)
        assert shop.database.run("SELECT relfilenode FROM pg_class WHERE relname = 'orders'") != oid
        oid = shop.database.run("SELECT relfilenode FROM pg_class WHERE relname = 'orders'")
    assert shop.rows() == [(1, "a"), (2, "a")]
    lake = hr.ParquetDestination(path=str(shop.folder / "lake"))
    with pytest.raises(ConfigError, match="truncate"):
        hr.run(hr.Pipeline(name="p", source=truncating.source, destination=lake, write=hr.Replace(truncate=True)))


def test_what_the_server_gives_need_not_be_in_the_rows_and_generated_columns_are_never_written(shop):
    shop.database.run(
        "CREATE TABLE orders (no int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id bigint UNIQUE, price numeric(9,2),"
        " twice numeric GENERATED ALWAYS AS (price * 2) STORED, at timestamptz NOT NULL DEFAULT now(), seen int);"
        "CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.seen := coalesce(OLD.seen, 0) + (SELECT count(*) FROM one); RETURN NEW; END';"
        "CREATE TABLE one AS SELECT 1; CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM FROM one; RETURN NULL; END'; CREATE CONSTRAINT TRIGGER looking AFTER INSERT ON orders"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION look();"
        "CREATE TRIGGER counting BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION count_up();"
        "CREATE VIEW dear AS SELECT id FROM orders WHERE price > 1; GRANT SELECT ON orders TO PUBLIC"
    )
    shop.write("1.csv", "id,price\n1,1.00\n2,2.00\n")
    types = hr.Contract(columns={"price": hr.Column(type="decimal(9,2)")})
    keep = hr.SchemaPolicy(missing="keep")
    merge = shop.pipeline(hr.Merge(keys=("id",)), adopt=True, contract=types, on_schema_change=keep)
    hr.run(merge)
    shop.write("2.csv", "id,price\n1,1.00\n2,2.50\n")
    hr.run(merge)
    rows = shop.rows("(SELECT no, id, twice::text, seen FROM orders WHERE at IS NOT NULL) AS q")
    assert rows == [(1, 1, "2.00", 1), (2, 2, "5.00", 2)]
    assert shop.rows("dear") == [(2,)]
    assert shop.database.run("SELECT relacl IS NOT NULL FROM pg_class WHERE relname = 'orders'") == [(True,)]
    for column in ("no", "at", "twice"):
        assert column not in merge.destination.inspect("orders").schema


def test_a_numeric_of_any_size_takes_every_number_and_a_type_that_rounds_takes_nothing_finer(shop):
    shop.database.run("CREATE TABLE orders (id bigint, price numeric, at timestamp(3), day timestamp(0))")
    shop.write("1.csv", "id,price,at\n1,1.50,2024-01-01T00:00:00.123\n")
    columns = {"price": hr.Column(type="decimal(12,2)"), "at": hr.Column(type="datetime(ms)")}
    keep = hr.SchemaPolicy(missing="keep")
    exact = shop.pipeline(adopt=True, contract=hr.Contract(columns=columns), on_schema_change=keep)
    hr.run(exact)
    shop.write("2.csv", "id,price,at\n2,2.25,2024-01-01T00:00:00.124\n")
    hr.run(exact)
    assert [(r[0], str(r[1]), r[2].microsecond) for r in shop.rows()] == [(1, "1.50", 123000), (2, "2.25", 124000)]
    shop.write("3.csv", "id,price,at\n3,1.50,2024-01-01T00:00:00.123456\n")
    finer = hr.Contract(columns={**columns, "at": hr.Column(type="datetime(us)")})
    with pytest.raises(SchemaError, match="'at'"):
        hr.run(shop.pipeline(adopt=True, contract=finer, on_schema_change=keep))
    assert len(shop.rows()) == 2
    shop.database.run("CREATE TABLE wide (price numeric(50,2))")
    texts = hr.MemorySource(frames=[pl.DataFrame({"price": ["1.005"]})])
    with pytest.raises(SchemaError, match="'price'"):
        hr.run(shop.pipeline(adopt=True, source=texts, table="wide"))


@pytest.mark.parametrize(
    ("held", "text", "error"),
    [
        ("varchar(3)", "abc ", DataError),  # of blanks the server would cut
        ("char(3)", "é    ", DataError),
        ("char(3)", "é ", DataError),  # which it would not tell from "é"
        ("char(3)[]", ["é "], DataError),
        ("varchar(3)[]", ["abc "], DataError),
        ("name", "n" * 64, SchemaError),
        ("money", "$1.239", SchemaError),
        ('"char"', "ab", SchemaError),
        ("interval year", "1.9", SchemaError),
        ("timestamp(0)[]", ["2024-01-01 00:00:00.9"], SchemaError),
    ],
)
def test_a_text_that_an_adopted_column_would_cut_or_round_is_refused(shop, held, text, error):
    shop.database.run(f"CREATE TABLE orders (v {held})")
    texts = hr.MemorySource(frames=[pl.DataFrame({"v": [text]})])
    with pytest.raises(error, match="'v'"):
        hr.run(shop.pipeline(adopt=True, source=texts))
    if error is DataError:
        fits = hr.MemorySource(frames=[pl.DataFrame({"v": ["ééé" if isinstance(text, str) else ["ééé", None]]})])
        hr.run(shop.pipeline(adopt=True, source=fits))
        assert shop.rows() in ([("ééé",)], [(["ééé", None],)])


def test_texts_that_a_column_of_blanks_fills_go_in_filled_or_bare(shop):
    shop.database.run("CREATE TABLE orders (v char(3), w varchar(3))")
    texts = hr.MemorySource(frames=[pl.DataFrame({"v": ["a", "b  ", "   ", " c", None], "w": ["a "] * 5})])
    hr.run(shop.pipeline(adopt=True, source=texts))
    kept = shop.database.run("SELECT v FROM orders WHERE v IS NOT NULL")
    assert sorted(kept) == [("   ",), (" c ",), ("a  ",), ("b  ",)]
    assert shop.database.run("SELECT DISTINCT w FROM orders") == [("a ",)]


def test_many_tables_go_into_a_schema_in_one_commit(shop):
    shop.database.run(
        "CREATE SCHEMA app; CREATE TABLE app.a (id int PRIMARY KEY, mood text);"
        "CREATE TABLE app.b (id uuid PRIMARY KEY);"
        "INSERT INTO app.a VALUES (1, 'x'); INSERT INTO app.b VALUES ('019234ab-0000-7000-8000-00000000ffff')"
    )
    many = hr.Pipeline(
        name="app",
        source=hr.PostgresSource(dsn=shop.database.dsn),
        destination=hr.PostgresDestination(dsn=shop.database.dsn, schema="copy"),
        tables={"app.*": hr.Table()},
        defaults=hr.Table(write=hr.Merge()),
    )
    assert hr.run(many).status == "loaded"
    assert shop.database.run("SELECT target, number FROM _headrace.commits") == [("copy.*", 1)]
    for table in ("a", "b"):
        assert shop.rows(f"copy.{table}") == shop.rows(f"app.{table}")
    shop.database.run("UPDATE app.a SET mood = 'y'")
    hr.run(many)
    assert shop.rows("copy.a") == [(1, "y")]


def test_a_new_column_is_added_and_a_type_grows_while_indexes_grants_and_rows_stay(shop):
    shop.write("1.csv", "id,n\n1,5\n")
    narrow = hr.Contract(columns={"n": hr.Column(type="int16")})
    hr.run(shop.pipeline(contract=narrow))
    shop.database.run("CREATE INDEX by_n ON orders (n); GRANT SELECT ON orders TO PUBLIC")
    shop.write("2.csv", "id,n,more\n2,6,x\n")
    wide = shop.pipeline(contract=hr.Contract(columns={"n": hr.Column(type="int64")}))
    assert hr.plan(wide).changes == (
        'ALTER TABLE "public"."orders" ALTER COLUMN "n" TYPE bigint USING "n"::bigint',
        'ALTER TABLE "public"."orders" ADD COLUMN "more" text',
    )
    hr.run(wide)
    assert shop.rows() == [(1, 5, None), (2, 6, "x")]
    assert shop.database.run("SELECT count(*) FROM pg_indexes WHERE indexname = 'by_n'") == [(1,)]


def test_a_view_in_the_way_of_a_growing_type_is_told_and_nothing_changes(shop):
    shop.write("1.csv", "id,n\n1,5\n")
    hr.run(shop.pipeline(contract=hr.Contract(columns={"n": hr.Column(type="int16")})))
    shop.database.run("CREATE VIEW seen AS SELECT n FROM orders")
    shop.write("2.csv", "id,n\n2,6\n")
    with pytest.raises(ConfigError, match="cannot change shape"):
        hr.run(shop.pipeline(contract=hr.Contract(columns={"n": hr.Column(type="int64")})))
    assert shop.rows() == [(1, 5)]


def test_a_broken_constraint_is_named_with_its_column_and_nothing_is_kept(shop):
    shop.database.run("CREATE TABLE orders (id bigint PRIMARY KEY, n bigint CHECK (n < 100))")
    shop.write("1.csv", "id,n\n1,5\n2,777\n")
    with pytest.raises(DataError) as told:
        hr.run(shop.pipeline(adopt=True))
    assert "orders_n_check" in told.value.message
    assert "'n'" in told.value.message
    assert "777" not in str(told.value)
    assert shop.rows() == []
    shop.write("1.csv", "id,n\n1,5\n1,6\n")
    with pytest.raises(DataError, match=r"orders_pkey.*'id'"):
        hr.run(shop.pipeline(adopt=True))
    assert shop.rows() == []


def test_missing_rights_are_told_and_nothing_is_kept(shop):
    role = f"weak_{shop.database.name}"
    shop.database.run(f"CREATE ROLE {role} LOGIN; CREATE TABLE orders (id bigint, n text)")
    try:
        weak = psycopg.conninfo.make_conninfo(shop.database.dsn, user=role)
        shop.write("1.csv", "id,n\n1,a\n")
        with pytest.raises(RejectedError, match=shop.database.name):
            hr.run(shop.pipeline(dsn=weak, adopt=True))
        shop.database.run(f"GRANT CREATE ON DATABASE {shop.database.name} TO {role}")
        with pytest.raises(RejectedError, match="orders"):
            hr.run(shop.pipeline(dsn=weak, adopt=True))
        assert shop.rows() == []
        shop.database.run(f"GRANT INSERT ON orders TO {role}")
        hr.run(shop.pipeline(dsn=weak, adopt=True))
        assert shop.rows() == [(1, "a")]
    finally:
        shop.database.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_run_holds_its_table_and_says_who_it_is(shop):
    from headrace.errors import ConflictError

    class Me:
        run = "run-1 */ ' $1"

    destination = shop.pipeline().destination
    with destination.hold("orders", Me()):
        with pytest.raises(ConflictError) as told, destination.hold("other", Me()):
            pytest.fail("held twice")
        assert told.value.details["run"].startswith("run-1")
        assert isinstance(told.value.details["pid"], int)
        assert "unknown" not in told.value.message
        with hr.PostgresDestination(dsn=shop.database.dsn, table="another").hold("orders", Me()):
            pass
    with destination.hold("orders", Me()):
        pass


def test_a_holder_that_this_role_may_not_see_is_told_by_its_session_and_what_would_show_it(shop):
    from headrace.errors import ConflictError

    class Me:
        run = "run-1"

    role = f"{shop.database.name}_other"
    shop.database.run(f"CREATE ROLE {role} LOGIN")
    try:
        mine = shop.pipeline().destination
        other = replace(mine, dsn=psycopg.conninfo.make_conninfo(shop.database.dsn, user=role))
        with mine.hold("orders", Me()):
            with pytest.raises(ConflictError, match=r"'orders' is running, in session \d+ of role 'postgres'") as told:
                other.hold("other", Me()).__enter__()
            assert "unknown" not in told.value.message
            assert "pg_read_all_stats" in told.value.hint
            shop.database.run(f"GRANT pg_read_all_stats TO {role}")
            with pytest.raises(ConflictError, match="run run-1"):
                other.hold("other", Me()).__enter__()
    finally:
        shop.database.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_run_that_has_ended_gives_its_table_up_before_its_session_does(shop, monkeypatch):
    open_yet: list[psycopg.Connection] = []
    monkeypatch.setattr("headrace.systems.postgres.connection._close", open_yet.append)
    shop.write("1.csv", "id\n1\n")
    assert hr.run(shop.pipeline()).status == "loaded"
    assert hr.run(shop.pipeline()).status == "nothing_new"
    for connection in open_yet:
        connection.close()


def test_a_server_that_restarts_in_mid_load_leaves_nothing_and_the_next_attempt_loads_all(tmp_path, monkeypatch):
    from server import running

    from headrace.systems.postgres import loading

    with running() as server, server.database() as database:
        shop = Shop(tmp_path, database)
        shop.write("1.csv", "id,n\n" + "".join(f"{n},x\n" for n in range(5000)))
        encoded, restarted = loading.packed, []

        def once(*given, **named):
            for block in encoded(*given, **named):
                yield block
                if not restarted:
                    restarted.append(True)
                    server.restart()

        monkeypatch.setattr(loading, "packed", once)
        report = hr.run(shop.pipeline(), retry=hr.Retry(attempts=5, wait_initial=0.01))
        assert restarted
        assert report.status == "loaded"
        assert database.run("SELECT count(*), count(DISTINCT id) FROM orders") == [(5000, 5000)]


def test_a_lost_connection_in_commit_is_settled_by_the_ledger(shop, monkeypatch):
    from headrace.systems.postgres import connection

    shop.write("1.csv", "id,n\n1,a\n")
    commit, lost = connection._commit, []

    def cut(conn) -> None:
        kept = conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'")
        commit(conn)
        if not lost and kept.fetchall()[0][0] and conn.info.dbname == shop.database.name:
            lost.append(True)
            conn.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(connection, "_commit", cut)
    hr.run(shop.pipeline(), retry=hr.Retry(attempts=3, wait_initial=0.01))
    assert lost
    assert shop.rows() == [(1, "a")]


def test_a_commit_waits_for_the_one_under_way_and_then_finds_it_stale(shop):
    from headrace.systems.postgres.apply import settle
    from headrace.systems.postgres.connection import connected, transaction
    from headrace.systems.postgres.ledger import Key
    from headrace.systems.postgres.locks import lock

    answers = []
    key = Key("orders", "public.orders")
    with connected(shop.database.dsn, name="p") as connection:
        with transaction(connection):
            lock(connection, key.target)
            asking = threading.Thread(target=lambda: answers.append(settle(shop.database.dsn, key, "id")))
            asking.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while shop.database.run(waiting) == [(0,)]:
                pass
            assert answers == []
        asking.join()
    assert answers == [None]


@pytest.mark.parametrize("name", ["x" * 64, "ctid"])
def test_a_name_that_the_server_would_cut_or_refuse_is_told(shop, name):
    shop.write("1.csv", f"id,{name}\n1,a\n")
    with pytest.raises(SchemaError, match=name):
        hr.run(shop.pipeline())


WITHOUT_DRIVER = """
import sys
sys.modules["psycopg"] = None
import headrace as hr
from headrace.flow import Range, Snapshot
for ask in (
    lambda: hr.PostgresDestination(table="t").inspect("p"),
    lambda: next(hr.PostgresSource(table="t").batches(Range(after=None), Snapshot(), "s")),
    lambda: hr.PostgresSource().matching("public.*"),
    lambda: hr.scan_postgres(None, "t"),
    lambda: hr.postgres.connect(),
):
    try:
        ask()
    except hr.ConfigError as error:
        assert 'pip install "headrace[postgres]"' in error.hint
        print("told")
"""


def test_a_missing_driver_is_told_with_the_command():
    done = subprocess.run([sys.executable, "-c", WITHOUT_DRIVER], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["told"] * 5, "")


def test_an_unavailable_server_is_not_found_to_be_empty(shop):
    with pytest.raises(UnavailableError):
        hr.PostgresDestination(dsn="host=127.0.0.1 port=1", table="t").inspect("p")


def test_a_table_with_rows_on_a_foreign_server_is_refused(shop):
    """That server commits before this one: what fails in between would load the rows again."""
    if not shop.database.run("SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        pytest.skip("this server has no postgres_fdw")
    shop.database.run(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE TABLE orders (id bigint) PARTITION BY LIST (id); CREATE FOREIGN TABLE one (id bigint) SERVER far;"
        "ALTER TABLE orders ATTACH PARTITION one FOR VALUES IN (1)"
    )
    shop.write("1.csv", "id\n1\n")
    for table in ("orders", "one"):
        for verb in (hr.plan, hr.run):
            with pytest.raises(ConfigError, match="foreign server"):
                verb(shop.pipeline(table=table, adopt=True))


@pytest.mark.parametrize(
    "write", [hr.Replace(), hr.Replace(keys=("id",)), hr.Partitions(by=("part",))], ids=["all", "keyed", "partitions"]
)
def test_a_trigger_that_keeps_rows_does_not_double_them(shop, write):
    source = hr.FileSource(path="in/*.csv", base=shop.folder, read="new" if isinstance(write, hr.Partitions) else "all")
    shop.write("1.csv", "id,part\n1,1\n")
    hr.run(shop.pipeline(write, source=source))
    shop.database.run(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER keep BEFORE DELETE ON orders FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    (shop.folder / "in" / "1.csv").unlink()
    shop.write("2.csv", "id,part\n2,1\n")
    with pytest.raises(ConfigError, match="keeps rows from being deleted"):
        hr.run(shop.pipeline(write, source=source))
    assert shop.rows() == [(1, 1)]


def test_a_column_without_any_value_is_read_back_as_such(shop):
    shop.write("1.csv", "id,empty\n1,\n2,\n")
    hr.run(shop.pipeline())
    found = shop.pipeline().destination.inspect("orders").scan()
    assert found.collect().sort("id").rows(named=True) == [{"id": 1, "empty": None}, {"id": 2, "empty": None}]
    assert found.select("empty").collect().shape == (2, 1)

"""Every type of PostgreSQL is read as its natural type where that is exact, and as its exact text where not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from itertools import zip_longest
from uuid import UUID

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server import Database, debian, running

from headrace.errors import UnheldError
from headrace.flow import Range, Snapshot
from headrace.logical import parse_type
from headrace.systems.postgres import PostgresSource
from headrace.systems.postgres.catalog import relation
from headrace.systems.postgres.connection import connected

MADE = """
CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'Happy, is {it}');
CREATE DOMAIN cents AS numeric(9, 2) CHECK (VALUE > -100);
CREATE DOMAIN pair AS int[];
CREATE TYPE place AS (name text, at point, n numeric);
"""
NATURAL = [
    ("bool", ["true", "false"], "bool"),
    ("int2", ["-32768", "32767"], "int16"),
    ("int4", ["-2147483648", "0"], "int32"),
    ("int8", ["-9223372036854775808", "9223372036854775807"], "int64"),
    ("oid", ["4294967295"], "uint32"),
    ("float4", ["1e-45", "3.4028235e38", "'NaN'", "'-Infinity'", "'-0'", "0.1"], "float32"),
    ("float8", ["5e-324", "1.7976931348623157e308", "'NaN'", "'Infinity'", "'-0'", "0.1"], "float64"),
    ("numeric(38, 10)", ["-9999999999999999999999999999.9999999999", "0", "1.5"], "decimal(38,10)"),
    ("numeric(4)", ["9999"], "decimal(4,0)"),
    ("cents", ["0.10"], "decimal(9,2)"),
    ("text", ["''", "'NULL'", "E'a\\\\b\\n\\r\\t\"x\",;'", "'\\N'", "'\\.'", "' x '", "'\ufeffx'", "'𝄞é'"], "string"),
    ("varchar(3)", ["'abc'", "''"], "string"),
    ("char(5)", ["'ab'", "''"], "string"),
    ("name", ["'n'"], "string"),
    ('"char"', ["'a'", "''"], "string"),
    ("uuid", ["'019234ab-0000-7000-8000-00000000ffff'"], "string"),
    ("bytea", [r"'\x00ff0a'", "''"], "binary"),
    ("json", ["""'{"b":1, "a":  [1.10, null], "a": 2}'""", "'null'"], "json"),
    ("jsonb", ["""'{"b":1, "a": 1e400}'"""], "json"),
    ("date", ["'0001-01-01'", "'9999-12-31'", "'2024-02-29'"], "date"),
    ("time", ["'00:00'", "'23:59:59.999999'"], "time"),
    ("timestamp", ["'0001-01-01'", "'2024-02-29 23:59:59.000001'", "'9999-12-31 23:59:59.999999'"], "datetime(us)"),
    ("timestamptz(3)", ["'2024-06-01 00:00:00.123+05:30'"], "datetime(us, UTC)"),
    ("mood", ["""'so "so"'""", "'Happy, is {it}'"], "string"),
    ("int4[]", ["'{}'", "'{1,NULL,-3}'"], "list(int32)"),
    ("pair", ["'{1,2}'"], "list(int32)"),
    ("bool[]", ["'{t,f,NULL}'"], "list(bool)"),
    ("float8[]", ["'{NaN,-Infinity,0.1}'"], "list(float64)"),
    ("numeric(5,2)[]", ["'{1.1,-999.99}'"], "list(decimal(5,2))"),
    ("text[]", [r"""'{"",NULL,"NULL","a,b","{x}","q\"\\\\z"," s ",plain}'""", "'{}'", "'{a,b}'"], "list(string)"),
    ("mood[]", ["""ARRAY['sad', 'so "so"']::mood[]"""], "list(string)"),
    ("uuid[]", ["'{019234ab-0000-7000-8000-00000000ffff}'"], "list(string)"),
    ("bytea[]", [r"""ARRAY['\x00ff', '']::bytea[]"""], "list(binary)"),
    ("date[]", ["'{2024-02-29,NULL}'"], "list(date)"),
    ("time[]", ["'{12:00:00.5}'"], "list(time)"),
    ("timestamp[]", ["""'{"2024-02-29 01:02:03.000004"}'"""], "list(datetime(us))"),
    ("timestamptz[]", ["""'{"2024-02-29 01:02:03+02",NULL}'"""], "list(datetime(us, UTC))"),
]
TEXT = [
    ("numeric", ["1e500", "'NaN'", "'-Infinity'", "0.10", "-1e-300"]),
    ("numeric(50, 3)", ["1.5"]),
    ("numeric(3, -2)", ["12300"]),
    ("interval", ["'1 year -2 mons +3 days -04:05:06.789'", "'0'", "'infinity'"]),
    ("timetz", ["'12:00+05:30'", "'24:00:00-15:59:59'"]),
    ("money", ["'-1234.56'"]),
    ("bit(3)", ["B'101'"]),
    ("varbit", ["B''", "B'1'"]),
    ("inet", ["'10.0.0.1/24'", "'::1'"]),
    ("cidr", ["'10.0.0.0/8'"]),
    ("macaddr", ["'08:00:2b:01:02:03'"]),
    ("macaddr8", ["'08:00:2b:01:02:03:04:05'"]),
    ("point", ["'(1,0.1)'"]),
    ("line", ["'{1,-1,0}'"]),
    ("lseg", ["'[(0,0),(1,1)]'"]),
    ("box", ["'(1,1),(0,0)'"]),
    ("path", ["'((0,0),(1,1))'", "'[(0,0),(1,1)]'"]),
    ("polygon", ["'((0,0),(1,1),(1,0))'"]),
    ("circle", ["'<(0,0),2>'"]),
    ("xml", ["'<a b=\"1\">x</a>'"]),
    ("tsvector", ["'''a b'':1A c:2'"]),
    ("tsquery", ["'a & !b'"]),
    ("pg_lsn", ["'16/B374D848'"]),
    ("txid_snapshot", ["'10:20:10,14'"]),
    ("xid", ["'4294967295'"]),
    ("xid8", ["'18446744073709551615'"]),
    ("cid", ["'1'"]),
    ("tid", ["'(1,2)'"]),
    ("regclass", ["'pg_class'", "'v'"]),
    ("regtype", ["'int4'", "'mood'"]),
    ("regproc", ["'now'"]),
    ("int2vector", ["'1 2 3'", "''"]),
    ("oidvector", ["'23 25'"]),
    ("regrole", ["'pg_monitor'"]),
    ("int4range", ["'[1,5)'", "'empty'", "'(,)'"]),
    ("numrange", ["'[1.10,2]'"]),
    ("tstzrange", ["""'["2024-01-01 00:00+02",infinity)'"""]),
    ("int8multirange", ["'{[1,2),[5,9)}'", "'{}'"]),
    ("jsonpath", ["'$.a[*]'"]),
    ("place", ["""ROW('a, "b"', '(1,2)', 1.10)::place"""]),
    ("place[]", ["""ARRAY[ROW('a', NULL, 1)::place]"""]),
    ("numeric[]", ["'{1,NaN,1e400}'"]),
    ("interval[]", ["'{1 day}'"]),
    ("cents[]", ["'{1.00}'"]),
    ("int4range[]", ["""'{"[1,2)"}'"""]),
]
NEW = ("interval", "'infinity'")
"""Of a later server than the oldest."""
UNHELD = [
    ("numeric(5,2)", ["'NaN'"]),
    ("date", ["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'12024-01-01'"]),
    ("time", ["'24:00'"]),
    ("timestamp", ["'-infinity'", "'0044-03-15 BC'", "'294276-12-31'"]),
    ("timestamptz", ["'infinity'"]),
    ("int4[]", ["'{{1,2},{3,4}}'", "'[0:1]={1,2}'"]),
    ("text[]", ["'{{a,b}}'", "'[-1:0]={a,b}'"]),
    ("date[]", ["'{infinity}'"]),
    ("timestamptz[]", ["'{infinity}'"]),
    ("numeric(5,2)[]", ["'{NaN}'"]),
]


NAMES = {
    "int4": "integer", "float8": "double precision", "numeric(4)": "numeric(4,0)", "varchar(3)": "character varying(3)",
    "timestamptz(3)": "timestamp(3) with time zone", "cents": "public.cents", "place[]": "public.place[]",
    "time[]": "time without time zone[]",
}  # fmt: skip
"""How the server spells some of them."""


@pytest.fixture(scope="module")
def moods(postgres) -> Iterator[Database]:
    with postgres.database(MADE) as made:
        yield made


@pytest.fixture(scope="module")
def older() -> Iterator[Database]:
    """The oldest server that is at hand."""
    if (binaries := debian()) is None:
        pytest.skip("no PostgreSQL 15 is installed")
    with running(binaries) as server, server.database(MADE) as made:
        yield made


def fill(connection: psycopg.Connection, columns: Sequence[tuple[str, Sequence[str]]]) -> None:
    """A table `v` with a column c0, c1, … for each type, its values below each other, and a row of NULLs."""
    kinds = ", ".join(f"c{at} {kind}" for at, (kind, _) in enumerate(columns))
    connection.execute(f"DROP TABLE IF EXISTS public.v; CREATE TABLE public.v (i serial, {kinds})")
    rows = zip_longest(*(values for _, values in columns), ["NULL"], fillvalue="NULL")
    for row in rows:
        connection.execute(f"INSERT INTO public.v VALUES (DEFAULT, {', '.join(row[: len(columns)])})")


def texts(connection: psycopg.Connection, at: int) -> list[str | None]:
    """What the server itself writes of a column."""
    connection.execute("SET search_path = pg_catalog")
    query = f"SELECT CASE WHEN num_nonnulls(c{at}) > 0 THEN format('%s', c{at}) END FROM public.v ORDER BY i"
    return [text for (text,) in connection.execute(query)]


def read(database: Database, as_text: frozenset[str] = frozenset()) -> tuple[pl.DataFrame, dict[str, str]]:
    stream = PostgresSource(dsn=database.dsn, table="v").batches(Range(as_text=as_text), Snapshot(), "s")
    with closing(stream):
        batch = next(stream)
        return batch.frame.lazy.collect().sort("i"), dict(batch.frame.origins)


def written(database: Database) -> closing[psycopg.Connection]:
    """A connection whose session writes values as the source has them written."""
    options = "-c search_path=pg_catalog,public,pg_temp -c timezone=UTC -c lc_monetary=C"
    return closing(psycopg.connect(database.dsn, options=options, autocommit=True))


def check_natural(database: Database) -> None:
    with written(database) as connection:
        fill(connection, [(kind, values) for kind, values, _ in NATURAL])
        rows, origins = read(database)
        whole, _ = read(database, frozenset(rows.columns) - {"i"})
        for at, (kind, _, held) in enumerate(NATURAL):
            name = f"c{at}"
            assert rows.schema[name] == parse_type(held).polars(), kind
            assert origins[name] == f"postgres {NAMES.get(kind, origins[name].removeprefix('postgres '))}"
            other = f"{name}::text" if held == "json" else f"{name}::text[]" if held == "list(string)" else name
            query = f"SELECT {other} FROM public.v ORDER BY i"
            same = [v for (v,) in connection.cursor(binary=True).execute(query)]
            same = texts(connection, at) if held == "string" else same
            assert plainly(rows[name].to_list()) == plainly(same), kind
            assert whole[name].to_list() == texts(connection, at), kind


def check_text(database: Database, columns: Sequence[tuple[str, Sequence[str]]]) -> None:
    with written(database) as connection:
        fill(connection, columns)
        rows, origins = read(database)
        for at, (kind, _) in enumerate(columns):
            assert rows[f"c{at}"].to_list() == texts(connection, at), kind
            assert origins[f"c{at}"] == f"postgres {NAMES.get(kind, origins[f'c{at}'].removeprefix('postgres '))}"


def test_types_that_are_exact_here_are_read_as_they_are(moods):
    check_natural(moods)


def test_types_that_are_not_are_read_as_their_text(moods):
    xml = moods.run("SELECT 1 FROM pg_config WHERE name = 'CONFIGURE' AND setting LIKE '%%with-libxml%%'")
    check_text(moods, [c for c in TEXT if c[0] != "xml" or xml])


def test_types_of_extensions_are_read_as_their_text(moods):
    if not moods.run("SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'"):
        pytest.skip("this server has no hstore")
    moods.run("CREATE EXTENSION IF NOT EXISTS hstore")
    check_text(moods, [("hstore", ["""'a=>1, "b c"=>NULL'"""]), ("hstore[]", ["ARRAY['a=>1'::hstore]"])])


def test_an_older_server_is_read_in_the_same_way(older):
    check_natural(older)
    check_text(older, [(kind, [v for v in values if (kind, v) != NEW]) for kind, values in TEXT])


def test_a_collation_that_takes_different_bytes_for_equal_is_known(older):
    older.run(
        "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        'CREATE TABLE texts (plain text, c text COLLATE "C", loose text COLLATE loose, n int)'
    )
    with connected(older.dsn, name="t") as connection:
        found = relation(connection, "texts")
    assert [c.name for c in found.columns if c.bytewise] == ["plain", "c"]


def test_values_that_a_natural_type_cannot_hold_are_told_and_read_as_text(moods):
    columns = [(kind, [value]) for kind, values in UNHELD for value in values]
    names = {f"c{at}" for at in range(len(columns))}
    with written(moods) as connection:
        fill(connection, columns)
        with pytest.raises(UnheldError) as told:
            read(moods)
        assert told.value.columns == names
        rows, _ = read(moods, told.value.columns)
        assert [rows[n].to_list() for n in sorted(names)] == [texts(connection, int(n[1:])) for n in sorted(names)]


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
ZONES = st.integers(-900, 900).map(lambda minutes: timezone(timedelta(minutes=minutes)))
ZONED = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=ZONES)  # noqa: DTZ001  # the zone is added
FAMILIES = {
    "int8": st.integers(-(2**63), 2**63 - 1),
    "float8": st.floats(),
    "float4": st.floats(width=32),
    "numeric(38,12)": st.decimals(-(10**25), 10**25, places=12, allow_nan=False),
    "text": TEXTS,
    "bytea": st.binary(max_size=9),
    "date": st.dates(),
    "time": st.times(),
    "timestamp": st.datetimes(),
    "timestamptz": ZONED,
    "text[]": st.lists(st.none() | TEXTS, max_size=4),
    "int4[]": st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=4),
    "float8[]": st.lists(st.floats(), max_size=3),
    "numeric(9,3)[]": st.lists(st.decimals(-999999, 999999, places=3), max_size=3),
    "timestamptz[]": st.lists(st.none() | ZONED, max_size=3),
    "bytea[]": st.lists(st.none() | st.binary(max_size=4), max_size=3),
}


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(*(st.none() | values for values in FAMILIES.values())), min_size=20, max_size=40))
def test_random_values_are_what_another_driver_reads(moods, values):
    with written(moods) as connection:
        fill(connection, [(kind, []) for kind in FAMILIES])
        connection.execute("DELETE FROM public.v")
        row = ", ".join(f"%s::{kind}" for kind in FAMILIES)
        connection.cursor().executemany(f"INSERT INTO public.v VALUES (DEFAULT, {row})", values)
        same = connection.cursor(binary=True).execute("SELECT * FROM public.v ORDER BY i").fetchall()
    rows, _ = read(moods)
    assert [list(map(plainly, row)) for row in rows.rows()] == [list(map(plainly, row)) for row in same]


def plainly(value):
    """In one form whichever driver read it, and NaN the same as itself."""
    if isinstance(value, list):
        return [plainly(v) for v in value]
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    return str(value) if isinstance(value, UUID) else repr(value)

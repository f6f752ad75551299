"""Whatever is written is what comes back, or is refused by its column's name; of PostgreSQL's own types, all."""

from __future__ import annotations

import importlib.util
import secrets
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from server import Database
from test_reading_types import MADE, NATURAL, NEW, TEXT, UNHELD, fill, written

import headrace as hr
from headrace.errors import ConfigError, DataError, SchemaError
from headrace.exact import to_text
from headrace.logical import parse_type
from headrace.schema import Schema
from headrace.systems.memory import MemorySource

_spec = importlib.util.spec_from_file_location("contract_values", Path(__file__).parents[1] / "contract" / "values.py")
assert _spec is not None
assert _spec.loader is not None
values = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(values)

TYPES = [t for t in map(parse_type, values.PLAIN + values.NESTED) if t.name not in ("date", "datetime", "time")]
_YEARS = 62_135_596_800  # seconds from the year 1 to 1970


def held(type):
    """Values that PostgreSQL's type for it can hold."""
    match type.name, type.args:
        case "duration", ("ns",):
            return st.integers(-(2**53), 2**53).map(lambda n: n * 1000)
        case "duration", ("ms",):
            return st.integers(-(2**53), 2**53)
        case (("string" | "categorical"), _):
            return values.text.filter(lambda t: "\0" not in t)
    return values.values(type)


COLUMNS = {
    **{
        str(t): held(t)
        for t in TYPES
        if "string" not in str(t).removeprefix("string") and str(t) != "list(datetime(ns, UTC))"
    },
    "list(string)": st.lists(st.none() | held(parse_type("string")), max_size=3),
    "date": st.integers(-719_162, 2_932_896),
    "time": st.integers(0, 86_400 * 10**6 - 1).map(lambda n: n * 1000),
    "datetime(ms)": st.integers(-_YEARS * 10**3, 253_402_300_799 * 10**3),
    "datetime(us)": st.integers(-_YEARS * 10**6, 253_402_300_799 * 10**6),
    "datetime(ns)": st.integers(-(2**53), 2**53).map(lambda n: n * 1000),
    "datetime(us, UTC)": st.integers(-_YEARS * 10**6, 253_402_300_799 * 10**6),
    "datetime(ms, America/New_York)": st.integers(-(2**40), 2**40),
}
"""JSON documents may hold a NUL: it is escaped there."""


def loaded(database: Database, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame, written and read back."""
    table = f"t{secrets.token_hex(4)}"
    destination = hr.PostgresDestination(dsn=database.dsn, table=table)
    hr.run(hr.Pipeline(name=table, source=MemorySource(frames=[frame]), destination=destination, write=hr.Append()))
    scan = destination.inspect(table).scan
    assert scan is not None
    return scan().collect()


@pytest.fixture(scope="module")
def target(postgres):
    with postgres.database() as made:
        yield made


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(st.data())
def test_random_values_of_every_type_come_back(target, data):
    rows = data.draw(st.lists(st.tuples(*(st.none() | v for v in COLUMNS.values())), min_size=8, max_size=12))
    series = [
        values.column(parse_type(type), [row[at] for row in rows]).alias(f"c{at}") for at, type in enumerate(COLUMNS)
    ]
    frame = pl.DataFrame([pl.Series("n", range(len(rows))), *series])
    back = loaded(target, frame).sort("n")
    assert back.schema == frame.schema
    schema = Schema.of_polars(frame.schema)
    texts = [to_text(pl.col(f.name), f.type) for f in schema]
    for name, left, right in zip(frame.columns, back.select(texts), frame.select(texts), strict=True):
        assert left.to_list() == right.to_list(), schema[name]


REFUSED = {
    "a NUL": pl.Series(["a\0b"]),
    "nanoseconds": pl.Series([1], dtype=pl.Int64).cast(pl.Datetime("ns")),
    "nanoseconds of a day": pl.Series([1], dtype=pl.Int64).cast(pl.Time),
    "nanoseconds of a span": pl.Series([1], dtype=pl.Int64).cast(pl.Duration("ns")),
    "a span without end": pl.Series([2**62], dtype=pl.Int64).cast(pl.Duration("ms")),
    "a day too far": pl.Series([2**31 - 1], dtype=pl.Int32).cast(pl.Date),
    "a list's NUL": pl.Series([["a\0"]]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_value_that_postgres_cannot_hold_is_refused_by_its_columns_name_and_nothing_is_kept(target, what):
    with pytest.raises(DataError) as told:
        loaded(target, pl.DataFrame({"fine": [1], "wrong": REFUSED[what]}))
    assert "'wrong'" in told.value.message
    made = "SELECT 'public.' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    assert target.run(f"{made} EXCEPT SELECT name FROM _headrace.tables") == []


@pytest.mark.parametrize("over", ["numeric(5,2)", "timestamp(0)", "numeric(5,2)[]", "two"])
def test_a_domain_takes_no_text_that_what_it_is_over_would_round(target, over):
    name = f"t{secrets.token_hex(4)}"
    target.run(
        f"CREATE SCHEMA {name}; SET search_path = {name}; CREATE DOMAIN two AS numeric(5,2);"
        f"CREATE DOMAIN d AS {over}; CREATE TABLE t (c d, l d[])"
    )
    for frame in (pl.DataFrame({"c": ["1.239"]}), pl.DataFrame({"l": [["1.239"]]})):
        destination = hr.PostgresDestination(dsn=target.dsn, table=f"{name}.t", adopt=True)
        write = hr.Append()
        pipeline = hr.Pipeline(name=name, source=MemorySource(frames=[frame]), destination=destination, write=write)
        with pytest.raises(SchemaError, match=frame.columns[0]):
            hr.run(pipeline)
        with pytest.raises(SchemaError), hr.postgres.connect(target.dsn) as db:
            db.insert(frame, f"{name}.t")


def test_years_before_one_and_after_9999_are_kept(target):
    days = pl.Series([-719_163, -719_528, 2_932_897, -1_000_000]).cast(pl.Int32)
    frame = pl.DataFrame({"d": days.cast(pl.Date), "t": (days.cast(pl.Int64) * 86_400_000).cast(pl.Datetime("ms"))})
    table = f"t{secrets.token_hex(4)}"
    destination = hr.PostgresDestination(dsn=target.dsn, table=table)
    hr.run(hr.Pipeline(name=table, source=MemorySource(frames=[frame]), destination=destination, write=hr.Append()))
    rows = target.run(f"SELECT d - date '1970-01-01', extract(epoch FROM t)::bigint / 86400, d::text FROM {table}")
    assert [row[:2] for row in rows] == [(d, d) for d in days]
    assert rows[0][2] == "0001-12-31 BC"


def copied(database: Database) -> bytes:
    """What COPY writes of the table."""
    with written(database) as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path = pg_catalog")
        with cursor.copy("COPY (SELECT * FROM public.v ORDER BY i) TO STDOUT") as copy:
            return b"".join(bytes(block) for block in copy)


def check_identical(source: Database, to: Database, columns, *steps) -> None:
    with written(source) as connection:
        fill(connection, columns)
    hr.run(
        hr.Pipeline(
            name="v",
            source=hr.PostgresSource(dsn=source.dsn, table="v"),
            destination=hr.PostgresDestination(dsn=to.dsn, table="v"),
            write=hr.Replace(),
            transforms=steps,
        )
    )
    kinds = (
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'v'::regclass AND attnum > 0 ORDER BY 1"
    )
    assert to.run(kinds) == source.run(kinds)
    assert copied(to) == copied(source)


def whole(columns, xml: bool):
    return [c for c in columns if c[0] != "xml" or xml]


ALL = [*((kind, items) for kind, items, _ in NATURAL), *TEXT, *UNHELD]


def test_every_type_goes_from_postgres_to_postgres_and_copy_writes_the_same(postgres):
    with postgres.database(MADE) as source, postgres.database(MADE) as to:
        xml = source.run("SELECT 1 FROM pg_config WHERE name = 'CONFIGURE' AND setting LIKE '%%with-libxml%%'")
        check_identical(source, to, whole(ALL, bool(xml)))


def test_every_type_goes_through_transforms_that_only_pass_it_on(postgres):
    steps = hr.sql("SELECT * FROM source WHERE i >= 0"), hr.python(lambda rows: rows.filter(pl.col("i") >= 0))
    with postgres.database(MADE) as source, postgres.database(MADE) as to:
        xml = source.run("SELECT 1 FROM pg_config WHERE name = 'CONFIGURE' AND setting LIKE '%%with-libxml%%'")
        check_identical(source, to, whole(ALL, bool(xml)), *steps)


def test_every_type_of_an_older_server_too(older_postgres):
    with older_postgres.database(MADE) as source, older_postgres.database(MADE) as to:
        check_identical(source, to, [(kind, [v for v in items if (kind, v) != NEW]) for kind, items in ALL])


def test_the_settings_of_a_database_change_nothing_that_is_written(postgres):
    with postgres.database() as source, postgres.database() as to:
        to.run(f"ALTER DATABASE {to.name} SET array_nulls = off")
        check_identical(source, to, [("text[]", ["'{a,NULL}'"]), ("bytea", [r"'\x00ff'"])])
        to.run(f"ALTER DATABASE {to.name} SET quote_all_identifiers = on")
        held = hr.PostgresDestination(dsn=to.dsn, table="v").inspect("v")
        assert held.schema is not None
        assert held.schema["c1"].name == "binary"


def test_a_type_that_the_target_does_not_have_is_refused_by_name(postgres):
    with postgres.database(MADE) as source, postgres.database() as to:
        with written(source) as connection:
            fill(connection, [("mood", ["'sad'"])])
        pipeline = hr.Pipeline(
            name="v",
            source=hr.PostgresSource(dsn=source.dsn, table="v"),
            destination=hr.PostgresDestination(dsn=to.dsn, table="v"),
            write=hr.Replace(),
        )
        with pytest.raises(ConfigError, match=r"'c0'.*public\.mood"):
            hr.run(pipeline)
        to.run(MADE)
        hr.run(pipeline)
        assert to.run("SELECT c0::text FROM v WHERE c0 IS NOT NULL") == [("sad",)]


@pytest.mark.parametrize("write", [hr.Append(), hr.Merge(keys=("id",))])
def test_more_columns_than_postgres_takes_are_refused_by_number_before_a_row_moves(target, write):
    def load(columns, dtype=pl.Int8):
        frame = pl.DataFrame({"id": [1]}).with_columns(pl.lit(1, dtype).alias(f"c{n}") for n in range(columns - 1))
        place = hr.PostgresDestination(dsn=target.dsn, table=f"wide_{write.type}")
        pipeline = hr.Pipeline(name="wide", source=MemorySource(frames=[frame]), destination=place, write=write)
        return hr.plan(pipeline) and hr.run(pipeline)

    with pytest.raises(hr.SchemaError, match="would have 1,591 columns, of at most 1,590"):
        load(1_591)
    with pytest.raises(hr.DataError, match="a row is larger than PostgreSQL takes"):
        load(1_590, pl.Int64)
    assert load(1_590).status == "loaded"


_FLOATS = {
    "v": "list(FLOAT)",
    "a": "array(FLOAT, 1)",
    "s": "struct(a: FLOAT)",
    "l": "list(struct(a: FLOAT))",
    "f": "FLOAT",
}


def floats(type):
    schema = {name: parse_type(text.replace("FLOAT", type)).polars() for name, text in _FLOATS.items()}
    return pl.DataFrame({"v": [[0.1]], "a": [[0.1]], "s": [{"a": 0.1}], "l": [[{"a": 0.1}]], "f": [0.1]}, schema=schema)


@pytest.fixture
def load_floats(postgres, tmp_path):
    """A run of a file more, whose floats are of the type, and what the table holds then."""
    with postgres.database() as database:
        destination = hr.PostgresDestination(dsn=database.dsn, table="t")
        source = hr.FileSource(path="*.parquet", base=tmp_path)

        def load(type):
            floats(type).write_parquet(tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet")
            hr.run(hr.Pipeline(name="p", source=source, destination=destination, write=hr.Append(), base=tmp_path))
            return destination.inspect("p").scan().collect()

        yield load, database


@pytest.mark.parametrize("types", [("float32", "float64"), ("float64", "float32")])
def test_a_float32_at_any_depth_is_the_same_number_in_a_column_of_float64(load_floats, types):
    load, _ = load_floats
    first, both = [load(type) for type in types]
    wide = floats("float64").schema
    assert first.rows() == floats(types[0]).rows()
    assert both.equals(pl.concat(floats(type).cast(wide) for type in types))


def test_a_float32_in_json_that_would_grow_into_another_number_is_refused(load_floats):
    load, database = load_floats
    load("float32")
    database.run("""UPDATE t SET s = '{"a": "0.1"}'""")  # as it was spelled once
    with pytest.raises(SchemaError, match="column 's' holds a float32 in JSON that would be another number"):
        load("float64")
    database.run("""UPDATE t SET s = '{"a": "0.5"}'""")
    load("float64")


def test_an_insert_of_float32_into_double_precision_is_the_same_number(postgres):
    with postgres.database("CREATE TABLE t (v double precision[])") as database:
        with hr.postgres.connect(database.dsn) as connection:
            for name in ("v", "a"):
                connection.insert(floats("float32").select(pl.col(name).alias("v")), "t")
        assert database.run("SELECT v FROM t") == [([0.10000000149011612],)] * 2

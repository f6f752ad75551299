"""Parquet files that SQL reads: DuckDB reads them itself, to the very same rows as by way of Polars, or not at all."""

import datetime as dt
import decimal
import os

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from polars.testing.parametric import column, dataframes

import headrace as hr
from headrace.errors import ConfigError, DataError, RejectedError, TransformError, UnavailableError
from headrace.flow import Range, Snapshot
from headrace.stream.direct import direct
from headrace.systems.files import FileSource, scan
from headrace.transform import query as queries
from headrace.transform.query import Query

PLAIN = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]
PLAIN += [pl.Boolean, pl.String, pl.Date, pl.Decimal(15, 2), pl.Decimal(38, 10), pl.Datetime("us")]
PLAIN += [pl.Datetime("us", "UTC"), pl.Datetime("ns")]


def batch(folder, path="*.parquet", **words):
    (one,) = FileSource(path=path, base=folder, **words).batches(Range(), Snapshot(), "in")
    return one


@pytest.fixture
def ways(monkeypatch):
    """The ways that queries have taken: how many frames DuckDB read itself in each attempt."""
    taken, run = [], Query._run
    monkeypatch.setattr(Query, "_run", lambda self, read: (taken.append(len(read)), run(self, read))[1])
    return taken


def result(one, text="SELECT * FROM t", **frames):
    return Query(text, {"t": one.frame.lazy, **frames}, {}).lazy().collect()


def again(one, text):
    """As a run does where DuckDB breaks off half-way."""
    try:
        return result(one, text)
    except UnavailableError:
        return result(one, text)


def _read(one, found, text="SELECT * FROM t"):
    query = Query(text, {"t": one.frame.lazy}, {})
    return pl.concat([pl.DataFrame(schema=query.schema), *query._run(found)])


@settings(max_examples=60, deadline=None)
@given(
    frame=dataframes(allowed_dtypes=PLAIN, allow_null=True, min_cols=1, max_cols=6, max_size=30),
    groups=st.integers(1, 40),
)
def test_what_duckdb_reads_itself_is_what_polars_reads(tmp_path_factory, frame, groups):
    folder = tmp_path_factory.mktemp("in")
    frame.write_parquet(folder / "a.parquet", row_group_size=groups)
    frame.reverse().write_parquet(folder / "b.parquet", compression="uncompressed")
    one = batch(folder)
    found = direct(one.frame.lazy)
    assert found is not None
    itself, streamed = _read(one, {"t": found}), _read(one, {})
    assert itself.schema == streamed.schema
    assert_frame_equal(itself, streamed, check_exact=True)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(PLAIN), groups=st.integers(1, 4), arrow=st.booleans())
def test_what_a_files_statistics_say_changes_no_answer(tmp_path_factory, data, dtype, groups, arrow):
    """DuckDB passes over row groups by them, and answers from them; they leave NaN out."""
    frame = data.draw(dataframes(cols=[column("v", dtype=dtype, allow_null=True)], min_size=1, max_size=12))
    folder = tmp_path_factory.mktemp("in")
    if arrow:
        pq.write_table(frame.to_arrow(), folder / "a.parquet", row_group_size=groups)
    else:
        frame.write_parquet(folder / "a.parquet", row_group_size=groups)
    one = batch(folder)
    at = data.draw(st.integers(0, frame.height - 1))
    chosen = f"(SELECT v AS c FROM t OFFSET {at} ROWS FETCH FIRST 1 ROWS ONLY)"
    sign = data.draw(st.sampled_from(["=", "<", ">", "<=", ">=", "<>", "IS DISTINCT FROM"]))
    for text in (
        f"SELECT count(*) AS n FROM t, {chosen} WHERE v {sign} c",
        "SELECT max(v) AS high, min(v) AS low, count(v) AS n, count(*) AS all FROM t",
        "SELECT count(*) AS n FROM t WHERE v IS NOT NULL",
    ):
        assert_frame_equal(_read(one, {"t": direct(one.frame.lazy)}, text), _read(one, {}, text), check_exact=True)


def _written(frame, path, writer):
    match writer:
        case "polars":
            frame.write_parquet(path)
        case "pyarrow":
            pq.write_table(frame.to_arrow(), path)
        case _:
            duckdb.sql(f"COPY frame TO '{path}'")


@pytest.mark.parametrize("writer", ["polars", "pyarrow", "duckdb"])
def test_nan_is_greater_than_all_whatever_the_statistics_say(tmp_path, ways, writer):
    frame = pl.DataFrame({"n": [1, 2, 3], "v": [1.0, 2.0, float("nan")]})
    _written(frame, tmp_path / "a.parquet", writer)
    one = batch(tmp_path)
    assert result(one, "SELECT n FROM t WHERE v > 5").rows() == [(3,)]
    assert result(one, "SELECT count(*) AS n FROM t WHERE v <= 2").rows() == [(2,)]
    assert result(one, "SELECT count(*) AS n FROM t WHERE isnan(v)").rows() == [(1,)]
    assert result(one, "SELECT CAST(max(v) AS VARCHAR) AS v FROM t").rows() == [("nan",)]
    assert ways == [0] * 4


@pytest.mark.parametrize("writer", ["polars", "pyarrow", "duckdb"])
def test_statistics_of_long_texts_are_cut_and_nobody_notices(tmp_path, ways, writer):
    texts = ["x" * 300 + end for end in ("b", "a", "c", "\U0010ffff")]
    _written(pl.DataFrame({"v": texts}), tmp_path / "a.parquet", writer)
    one = batch(tmp_path)
    assert result(one, "SELECT max(v) AS high, min(v) AS low FROM t").rows() == [(texts[3], texts[1])]
    assert result(one, f"SELECT count(*) AS n FROM t WHERE v >= '{texts[2]}'").rows() == [(2,)]
    assert ways == [1] * 2


def test_the_counts_are_those_of_a_pass(tmp_path, ways):
    for name in ("a", "b'c", "d \U0001f30a\n"):
        pl.DataFrame({"n": [1, 2, 3], "s": ["x", "y", None]}).write_parquet(tmp_path / f"{name}.parquet")
    one = batch(tmp_path)
    assert result(one, "SELECT s, sum(n) AS n FROM t WHERE n > 1 GROUP BY s ORDER BY s").rows() == [("y", 6), (None, 9)]
    assert ways == [1]
    counts = one.counts()
    assert (counts.rows, counts.files) == (9, 3)
    assert counts.bytes == sum(p.stat().st_size for p in tmp_path.iterdir())


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1], pa.timestamp("ms")),
        pa.array([dt.time(1, 2, 3)]),
        pa.array(["a"]).dictionary_encode(),
        pa.array([[1]]),
        pa.array([b"\0" * 16], pa.uuid()),
        pa.array([{"a": 1}]),
        pa.array([decimal.Decimal(1)], pa.decimal128(38, 0)),
    ],
    ids=lambda column: str(column.type),
)
def test_a_type_that_duckdb_may_see_otherwise_arrives_as_polars_reads_it(tmp_path, monkeypatch, column):
    pq.write_table(pa.table({"n": [1], "v": column}), tmp_path / "a.parquet")
    found = result(batch(tmp_path))
    monkeypatch.setattr(queries, "direct", lambda _frame: None)
    streamed = result(batch(tmp_path))
    assert found.schema == streamed.schema
    assert found.equals(streamed)


def test_types_that_differ_after_all_are_streamed(tmp_path, monkeypatch, ways):
    monkeypatch.setattr(scan, "_DIRECT", frozenset(["binary"]))
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT '{{}}'::JSON AS v) TO '{tmp_path}/a.parquet'")
    one = batch(tmp_path)
    assert result(one).equals(one.frame.lazy.collect())
    assert ways == [1, 0]


@pytest.mark.parametrize(
    "words",
    [
        {"rename": {"n": "m"}},
        {"add_columns": {"f": "file"}},
        {"types": {"n": "int32"}},
        {"path": "y=*/*.parquet"},
        {"path": "[[]x].parquet"},
    ],
    ids=str,
)
def test_rows_that_are_more_than_the_files_columns_are_streamed(tmp_path, ways, words):
    for place in ("a.parquet", "y=1/b.parquet", "[x].parquet"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        pl.DataFrame({"n": [1, 2]}).write_parquet(tmp_path / place)
    one = batch(tmp_path, **words)
    assert result(one).equals(one.frame.lazy.collect())
    assert ways == [0]


def test_files_of_two_shapes_are_streamed(tmp_path, ways):
    pl.DataFrame({"n": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"m": [1], "n": [2]}).write_parquet(tmp_path / "b.parquet")
    assert sorted(result(batch(tmp_path)).rows()) == [(1, None), (2, 1)]
    assert ways == [0]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM t LIMIT 1",
        "SELECT n FROM t UNION ALL (SELECT n FROM t LIMIT 2)",
        "WITH x AS (SELECT * FROM t FETCH FIRST 2 ROWS ONLY) SELECT * FROM x",
        "SELECT * FROM t USING SAMPLE 2 ROWS",
        "SELECT * FROM t TABLESAMPLE 1 PERCENT",
        "SELECT EXISTS (FROM t) AS e",
        "SELECT 1 AS e WHERE NOT EXISTS (FROM t WHERE n > 1)",
    ],
)
def test_what_may_stop_early_is_streamed(tmp_path, ways, text):
    """Only a stream knows whether it was read to its end."""
    pl.DataFrame({"n": [1, 2, 3]}).write_parquet(tmp_path / "a.parquet")
    result(batch(tmp_path), text)
    assert ways == [0]


@pytest.mark.parametrize("how", ["int96", "all int96", "names"])
def test_files_that_duckdb_sees_otherwise_than_the_first_are_streamed(tmp_path, ways, how):
    """It tells the types of the first file alone, and casts the others'."""
    first = pa.table({"v": pa.array([1001], pa.timestamp("ns"))})
    pq.write_table(first, tmp_path / "a.parquet", use_deprecated_int96_timestamps=how == "all int96")
    second = first.rename_columns(["w"]) if how == "names" else first
    pq.write_table(second, tmp_path / "b.parquet", use_deprecated_int96_timestamps="int96" in how)
    one = batch(tmp_path, rename={"w": "v"})
    assert result(one).equals(one.frame.lazy.collect())
    assert ways[-1] == 0


def test_a_run_counts_what_duckdb_reads_as_read(tmp_path, monkeypatch, ways):
    """It is not read once more to see that it was read, and the next run goes on behind it."""

    def unread(*_):
        raise AssertionError

    pl.DataFrame({"n": range(3)}).write_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(scan.Reading, "_read", unread)
    pipeline = hr.Pipeline(
        name="p",
        source=hr.FileSource(path=str(tmp_path / "*.parquet")),
        transforms=(hr.sql("FROM source"),),
        destination=hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t"),
        write=hr.Append(),
    )
    (commit,) = hr.run(pipeline).commits
    assert commit.counts["rows"] == 3
    assert hr.run(pipeline).status == "nothing_new"
    pl.DataFrame({"n": [3]}).write_parquet(tmp_path / "b.parquet")
    assert hr.run(pipeline).commits[0].counts["rows"] == 1
    assert ways == [1, 1]


def test_a_query_that_breaks_off_half_way_begins_again_by_the_stream(tmp_path, monkeypatch, ways):
    """As where a later row group is too much for DuckDB's memory."""
    pl.DataFrame({"n": range(3)}).write_parquet(tmp_path / "a.parquet")
    given = Query._run

    def broken(self, read):
        yield from given(self, read)
        if read:
            raise RejectedError("DuckDB has no memory left")

    monkeypatch.setattr(Query, "_run", broken)
    destination = hr.DuckDBDestination(path=str(tmp_path / "w.duckdb"), table="t")
    source = hr.FileSource(path=str(tmp_path / "a.parquet"))
    report = hr.run(
        hr.Pipeline(
            name="p", source=source, destination=destination, write=hr.Append(), transforms=(hr.sql("FROM source"),)
        ),
        retry=hr.Retry(wait_initial=0.01),
    )
    assert report.commits[0].counts["rows"] == 3
    assert ways == [1, 0]


def test_a_file_that_changes_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"n": [1]}).write_parquet(path)
    one = batch(tmp_path)
    mount = Query._mount

    def changed(*args):
        mount(*args)
        os.utime(path, ns=(1, 1))

    lazy = Query("SELECT * FROM t", {"t": one.frame.lazy}, {}).lazy()
    monkeypatch.setattr(Query, "_mount", changed)
    with pytest.raises(UnavailableError, match=r"'a\.parquet' changes while it is read"):
        lazy.collect()
    assert one.counts().rows == 0


@pytest.mark.parametrize("text", ["SELECT max(length(v)) AS n FROM t", "SELECT * FROM t"])
def test_a_file_that_is_broken_is_named(tmp_path, text):
    """Before the first row; after it the run begins again by the stream, which names it."""
    frame = pl.DataFrame({"n": range(300_000), "v": [str(n * 7919) for n in range(300_000)]})
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=50_000, compression="zstd")
    raw = bytearray((tmp_path / "a.parquet").read_bytes())
    raw[-200_000:-100_000] = b"\xff" * 100_000
    (tmp_path / "a.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"'a\.parquet' is no whole parquet file"):
        again(batch(tmp_path), text)


@pytest.mark.parametrize("at", [1, 900_000])
def test_a_query_that_fails_on_a_value_says_so(tmp_path, at):
    """In the first of what DuckDB gives, and later, where PyArrow calls whatever it is an OSError."""
    pl.DataFrame({"s": ["1"] * at + ["x"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(TransformError, match=r"failed on a value \(Conversion\)"):
        again(batch(tmp_path), "SELECT CAST(s AS INTEGER) AS n FROM t")


def test_sql_sees_no_other_file(tmp_path, ways):
    pl.DataFrame({"n": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"n": [2]}).write_parquet(tmp_path / "other.parq")
    one = batch(tmp_path)
    with pytest.raises((ConfigError, TransformError)):
        result(one, f"SELECT * FROM t UNION ALL SELECT * FROM read_parquet('{tmp_path / 'other.parq'}')")
    assert result(one).rows() == [(1,)]
    assert ways == [1]

"""Parquet files that SQL reads: DuckDB reads them itself, to the very same rows as by way of Polars, or not at all."""

import datetime as dt
import decimal
import os

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from polars.testing.parametric import dataframes

from headrace.errors import ConfigError, DataError, TransformError, UnavailableError
from headrace.flow import Range, Snapshot
from headrace.stream.direct import direct
from headrace.systems.files import FileSource
from headrace.transform import query as queries
from headrace.transform.query import Query

PLAIN = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64]
PLAIN += [pl.Boolean, pl.String, pl.Binary, pl.Date, pl.Decimal(15, 2), pl.Decimal(38, 10), pl.Datetime("us")]
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


def _read(one, found):
    query = Query("SELECT * FROM t", {"t": one.frame.lazy}, {})
    return pl.concat([pl.DataFrame(schema=query.schema), *query._run(found)])


@settings(max_examples=60, deadline=None)
@given(
    frame=dataframes(allowed_dtypes=PLAIN, allow_null=True, min_cols=1, max_cols=6, max_size=30),
    groups=st.integers(1, 40),
)
def test_what_duckdb_reads_itself_is_what_polars_reads(tmp_path_factory, frame, groups):
    folder = tmp_path_factory.mktemp("in")
    frame.write_parquet(folder / "a.parquet", row_group_size=groups)
    pq.write_table(frame.reverse().to_arrow(), folder / "b.parquet")
    one = batch(folder)
    found = direct(one.frame.lazy)
    assert found is not None
    itself, streamed = _read(one, {"t": found}), _read(one, {})
    assert itself.schema == streamed.schema
    assert_frame_equal(itself, streamed, check_exact=True)


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
    pl.DataFrame({"v": pl.Series([0], dtype=pl.Datetime("ms"))}).write_parquet(tmp_path / "a.parquet")
    one = batch(tmp_path)
    assert result(one).schema["v"] == pl.Datetime("ms")
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


@pytest.mark.parametrize("text", ["SELECT * FROM t LIMIT 1", "SELECT n FROM t UNION ALL (SELECT n FROM t LIMIT 2)"])
@pytest.mark.parametrize("sampled", [False, True])
def test_what_may_stop_early_is_streamed(tmp_path, ways, text, sampled):
    """Only a stream knows whether it was read to its end."""
    pl.DataFrame({"n": [1, 2, 3]}).write_parquet(tmp_path / "a.parquet")
    result(batch(tmp_path), "SELECT * FROM t USING SAMPLE 2 ROWS" if sampled else text)
    assert ways == [0]


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
    """Before the first row and after it: one batch of the result is 100,000 rows."""
    frame = pl.DataFrame({"n": range(300_000), "v": [str(n * 7919) for n in range(300_000)]})
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=50_000, compression="zstd")
    raw = bytearray((tmp_path / "a.parquet").read_bytes())
    raw[-200_000:-100_000] = b"\xff" * 100_000
    (tmp_path / "a.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"'a\.parquet' is no whole parquet file"):
        result(batch(tmp_path), text)


def test_a_query_that_fails_on_a_value_says_so(tmp_path):
    pl.DataFrame({"s": ["1", "x"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(TransformError, match="failed on a value"):
        result(batch(tmp_path), "SELECT CAST(s AS INTEGER) AS n FROM t")


def test_sql_sees_no_other_file(tmp_path, ways):
    pl.DataFrame({"n": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"n": [2]}).write_parquet(tmp_path / "other.parq")
    one = batch(tmp_path)
    with pytest.raises((ConfigError, TransformError)):
        result(one, f"SELECT * FROM t UNION ALL SELECT * FROM read_parquet('{tmp_path / 'other.parq'}')")
    assert result(one).rows() == [(1,)]
    assert ways == [1]

import duckdb
import polars as pl
import pytest

from headrace.errors import UnavailableError
from headrace.stream import FrameStream, original, reraise, scan_batches, scan_generator


class BoomError(Exception):
    """An exception of a user's."""


def broken(error):
    def batches():
        yield pl.DataFrame({"a": [1, 2]})
        raise error

    return scan_batches(batches, {"a": pl.Int64()})


@pytest.fixture
def con():
    with duckdb.connect() as connection:
        yield connection


def test_an_exception_inside_a_stream_comes_out_of_duckdb_as_it_was(con):
    error = UnavailableError("the file changed", hint="run again")
    con.register("rows", FrameStream(broken(error)))
    with pytest.raises(UnavailableError) as caught, reraise():
        con.execute("CREATE TABLE t AS SELECT * FROM rows")
    con.unregister("rows")
    assert caught.value is error


@pytest.mark.parametrize("_again", range(5))
def test_an_exception_survives_polars_over_duckdb_over_polars(con, _again):
    error = BoomError("secret cell")
    con.register("rows", FrameStream(broken(error)))

    def through_duckdb(_columns, _predicate, _n_rows, _batch_size):
        with reraise():
            yield con.sql("SELECT a + 1 AS a FROM rows").pl()

    outer = FrameStream(scan_generator(through_duckdb, {"a": pl.Int64()}))
    with duckdb.connect() as other:
        other.register("outer_rows", outer)
        with pytest.raises(BoomError) as caught, reraise():
            other.execute("SELECT sum(a) FROM outer_rows").fetchall()
        other.unregister("outer_rows")
    con.unregister("rows")
    assert caught.value is error


def test_what_polars_itself_raises_does_not_put_cells_into_duckdbs_message(con):
    frame = pl.LazyFrame({"a": ["1", "a secret"]}).select(pl.col("a").cast(pl.Int64))
    con.register("rows", FrameStream(frame))
    with pytest.raises(duckdb.Error) as caught:
        con.execute("SELECT * FROM rows").fetchall()
    con.unregister("rows")
    assert "secret" not in str(caught.value)
    assert isinstance(original(caught.value), pl.exceptions.InvalidOperationError)


def test_a_stream_opens_again_and_joins_itself(con):
    con.register("rows", FrameStream(lambda: pl.LazyFrame({"a": [1, 2, 3]})))
    for _ in range(2):
        assert con.execute("SELECT count(*) FROM rows AS x JOIN rows AS y USING (a)").fetchall() == [(3,)]
    con.unregister("rows")


def test_an_exception_that_is_not_of_a_stream_passes_unchanged(con):
    with pytest.raises(duckdb.CatalogException), reraise():
        con.execute("SELECT * FROM nowhere")


def test_batches_are_filtered_cut_and_chosen_as_asked():
    frame = scan_batches(
        lambda: iter([pl.DataFrame({"a": [1, 2], "b": [3, 4]}), pl.DataFrame({"a": [5, 6], "b": [7, 8]})]),
        {"a": pl.Int64(), "b": pl.Int64()},
    )
    assert frame.filter(pl.col("b") > 3).select("a").head(2).collect().to_series().to_list() == [2, 5]


def test_columns_are_picked_by_any_name():
    frame = pl.DataFrame({"": [1], "a": [2], "b": [3]})
    rows = scan_batches(lambda: iter([frame]), frame.schema)
    assert rows.select("", "b").collect().to_dict(as_series=False) == {"": [1], "b": [3]}
    assert rows.select("b", "a").collect().columns == ["b", "a"]
    assert rows.select(pl.len()).collect().item() == 1

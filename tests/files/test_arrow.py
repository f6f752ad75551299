"""Arrow IPC: what is damaged is refused before Polars sees it; what is whole arrives as Polars itself reads it."""

import datetime as dt
import decimal
import io
import random

import polars as pl
import pyarrow as pa
import pytest

from headrace.errors import DataError
from headrace.flow import Range, Snapshot
from headrace.systems.files import FileSource, arrow
from headrace.systems.files.paths import File

WAYS = {"file": ("write_ipc", "zstd"), "lz4": ("write_ipc", "lz4"), "plain": ("write_ipc", "uncompressed")} | {
    "stream": ("write_ipc_stream", "uncompressed")
}
TYPES = {
    "categorical": pl.Series(["a", "b", None], dtype=pl.Categorical),
    "enum": pl.Series(["a", "b", None], dtype=pl.Enum(["b", "a"])),
    "int128": pl.Series([1, 2**100, None], dtype=pl.Int128),
    "uint128": pl.Series([1, 2**127, None], dtype=pl.UInt128),
    "decimal": pl.Series([decimal.Decimal("1.25"), None, decimal.Decimal(-3)], dtype=pl.Decimal(38, 2)),
    "time": pl.Series([dt.time(1, 2, 3, 4), None, dt.time(23, 59, 59, 999_999)]),
    "duration": pl.Series([dt.timedelta(1), None, dt.timedelta(-1)], dtype=pl.Duration("ns")),
    "zoned": pl.Series([0, None, -(10**17)], dtype=pl.Datetime("us", "Europe/Vienna")),
    "null": pl.Series([None, None, None]),
    "array": pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Int8, 2)),
    "struct": pl.Series([{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
    "list": pl.Series([["a"], [], None], dtype=pl.List(pl.Categorical)),
    "binary": pl.Series([b"\0\xff", b"", None]),
    "float": pl.Series([float("nan"), -0.0, None], dtype=pl.Float32),
}


def batch(folder):
    (one,) = FileSource(path="*.arrow", base=folder).batches(Range(), Snapshot(), "in")
    return one


def listed(path):
    found = path.stat()
    return File(str(path), path.name, found.st_size, found.st_mtime_ns)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("type", TYPES)
def test_a_type_arrives_as_polars_itself_reads_it(tmp_path, type, way):
    method, compression = WAYS[way]
    frame = pl.DataFrame({"n": [1, 2, 3], "v": TYPES[type]})
    getattr(frame, method)(tmp_path / "a.arrow", compression=compression)
    found = arrow.scan(listed(tmp_path / "a.arrow"))
    assert found.collect_schema() == frame.schema
    assert found.collect().equals(frame)
    assert found.select("v").collect().equals(frame.select("v"))
    assert found.filter(pl.col("n") > 1).select("v").head(1).collect().equals(frame[1:2].select("v"))
    assert found.select(pl.len()).collect().item() == 3


def test_only_the_columns_that_are_asked_for_are_decoded(tmp_path):
    """A column that is damaged does not matter to who asks for another."""
    path = tmp_path / "a.arrow"
    pl.DataFrame({"n": [1], "v": ["a text that does not lie in its view"]}).write_ipc(path, compression="uncompressed")
    path.write_bytes(path.read_bytes().replace(b"not lie in", b"\xff" * 10))
    assert arrow.scan(listed(path)).select("n").collect().item() == 1
    assert arrow.scan(listed(path)).filter(pl.col("n") > 0).select(m=pl.col("n")).collect().item() == 1
    with pytest.raises(DataError, match=r"'a\.arrow': column 'v' holds what is no value of its type"):
        arrow.scan(listed(path)).collect()


@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_damaged_is_read_or_refused_in_our_own_words(tmp_path, capfd, way):
    """Polars panics at some of these files, and prints so; others it reads as what they are not."""
    method, compression = WAYS[way]
    raw = io.BytesIO()
    frame = pl.DataFrame({n: pl.concat([s] * 4) for n, s in TYPES.items() if "int128" not in n})
    getattr(frame, method)(raw, compression=compression)
    chance = random.Random(way)  # noqa: S311  # not for secrets
    refused = 0
    for case in range(60):
        data = bytearray(raw.getvalue())
        for _ in range(chance.choice([1, 1, 3, 20])):
            data[chance.randrange(8, len(data) - 8)] = chance.randrange(256)
        path = tmp_path / str(case) / "a.arrow"
        path.parent.mkdir()
        path.write_bytes(data)
        try:
            batch(path.parent).frame.lazy.collect()
        except DataError as error:
            refused += "'a.arrow'" in str(error)
    assert refused > 20
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_value_that_its_type_does_not_have_is_refused_by_column(tmp_path, streamed, nested):
    times = pa.array([1, 86_400_000_000]).view(pa.time64("us"))
    table = pa.table({"n": [1, 2], "t": pa.ListArray.from_arrays([0, 1, 2], times) if nested else times})
    with (pa.ipc.new_stream if streamed else pa.ipc.new_file)(tmp_path / "a.arrow", table.schema) as out:
        out.write_table(table)
    rows = batch(tmp_path).frame
    for query in (rows.lazy, rows.placed, rows.lazy.filter(pl.col("n") > 1)):
        with pytest.raises(DataError, match=r"'a\.arrow': column 't' holds what is no value of its type") as caught:
            query.collect()
        assert caught.value.details == {"file": "a.arrow", "column": "t"}
    assert rows.lazy.select("n").collect().height == 2


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([0], pa.timestamp("us", "+05:30")),
        pa.array([decimal.Decimal(10**50)], pa.decimal256(60, 0)),
        pa.RunEndEncodedArray.from_arrays([1], ["a"]),
        pa.array([None], pa.month_day_nano_interval()),
        pa.array([[1]], pa.list_view(pa.int64())),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
        pa.array([{"a": [0]}], pa.struct([("a", pa.list_(pa.timestamp("us", "+01:30")))])),
    ],
    ids=lambda column: str(column.type),
)
def test_a_type_that_polars_does_not_know_is_refused_by_column(tmp_path, capfd, column, streamed):
    table = pa.table({"n": [1], "v": column})
    new = pa.ipc.new_stream if streamed else pa.ipc.new_file
    with new(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="column 'v' of a type that cannot be read"):
        batch(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_two_columns_of_one_name_are_refused_by_it(tmp_path):
    table = pa.table([pa.array([1]), pa.array([2])], names=["v", "v"])
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="two columns 'v'"):
        batch(tmp_path)


def test_a_file_is_read_a_record_batch_at_a_time(tmp_path):
    table = pa.table({"v": list(range(1000))})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        for _ in range(5):
            writer.write_table(table)
    frames = arrow._frames(listed(tmp_path / "a.arrow"), ["v"])
    assert [frame.height for frame in frames] == [1000] * 5


@pytest.mark.parametrize(
    ("is_", "becomes"),
    [(b"1;b1;a", b"x;b1;a"), (b"1;b1;a", b"9;b1;a"), (b"0;0;u32;", b"0;0;u99;"), (b"enum", b"\xff\xfe\xff\xfe")],
)
def test_words_that_polars_would_panic_at_are_refused_before(tmp_path, capfd, is_, becomes):
    """Of what a column is called, and of its categories."""
    frame = pl.DataFrame({"enum": TYPES["enum"], "c": TYPES["categorical"]})
    frame.write_ipc(tmp_path / "a.arrow", compression="uncompressed")
    raw = (tmp_path / "a.arrow").read_bytes()
    assert is_ in raw
    (tmp_path / "a.arrow").write_bytes(raw.replace(is_, becomes))
    with pytest.raises(DataError, match=r"'a\.arrow' is no whole ipc file"):
        batch(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_what_pyarrow_does_not_know_for_another_reason_is_not_given_to_polars(tmp_path, monkeypatch):
    def refuses(*_):
        raise pa.ArrowNotImplementedError("Unsupported something")

    pl.DataFrame({"n": [1]}).write_ipc(tmp_path / "a.arrow")
    monkeypatch.setattr(arrow, "_reader", refuses)
    with pytest.raises(DataError, match="of a type that cannot be read"):
        batch(tmp_path)


def test_words_beside_a_column_that_are_no_utf_8_are_refused_before_polars(tmp_path, capfd):
    table = pa.table([pa.array([1])], pa.schema([pa.field("n", pa.int64(), metadata={b"note": b"\xff\xfe"})]))
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"'a\.arrow' is no whole ipc file"):
        batch(tmp_path)
    assert capfd.readouterr() == ("", "")

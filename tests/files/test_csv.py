import csv
import gzip
import io
from unittest import mock

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import ConfigError, DataError
from headrace.flow import Range, Snapshot
from headrace.systems.files import FileSource, grammar
from headrace.systems.files.blocks import Cutter
from headrace.systems.files.csv import CSVReader
from headrace.systems.files.grammar import Grammar, occurrences
from headrace.systems.files.paths import stat

BLOCKS = (1, 2, 5, 13, 64, 8 * 1024 * 1024)
texts = st.text(st.sampled_from("ab,;\"\n\r é日\ufeff\x00\t|'1"), max_size=6)


def batch(source, **range_words):
    (one,) = source.batches(Range(**range_words), Snapshot(), "in")
    return one


def read(folder, *, path="*", types=None, **words):
    """The rows with file and line, and the rejects as (file, line, rule, raw)."""
    one = batch(FileSource(path=path, base=folder, types=types or {}, **words))
    rows = one.frame.placed.collect()
    rejects = [(r["file"], r["line"], r["rules"][0], r["row"]) for f in one.rejects() for r in f.to_dicts()]
    return rows, rejects


def written(rows, end):
    """RFC 4180 by Python's csv; None is the unquoted empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_NOTNULL) if hasattr(csv, "QUOTE_NOTNULL") else None
    if writer is not None:
        writer.writerows(rows)
        return out.getvalue()
    return "".join(",".join("" if f is None else '"' + f.replace('"', '""') + '"' for f in row) + end for row in rows)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(st.none() | texts, min_size=3, max_size=3), max_size=6),
    end=st.sampled_from(["\n", "\r\n"]),
    block=st.sampled_from(BLOCKS),
    last=st.booleans(),
)
def test_what_python_writes_is_read_back_whatever_the_cut(tmp_path_factory, rows, end, block, last):
    folder = tmp_path_factory.mktemp("in")
    text = "a,b,c" + end + written(rows, end)
    (folder / "x.csv").write_bytes((text if last or not rows else text.removesuffix(end)).encode())
    found, rejects = read(folder, infer="all", types=dict.fromkeys("abc", "string"), delimiter=",", block=block)
    assert rejects == []
    assert found.select("a", "b", "c").rows() == [tuple(row) for row in rows]
    line, lines = 2, []
    for row in rows:
        lines.append(line)
        line += 1 + sum((f or "").count("\n") for f in row)
    assert found["_headrace_line"].to_list() == lines


@given(
    st.lists(st.sampled_from((b'"', b"\n", b"\xc3\xa9", b"\xc3", b"\x00", b"\xff")), max_size=40).map(b"".join),
    st.sampled_from((b'"', b"\n", b"\xff", b"\xc3\xa9")),
    st.integers(0, 90),
    st.none() | st.integers(0, 90),
)
def test_marks_of_a_block_are_counted_as_python_counts_them(data, mark, start, end):
    told = data.count(mark, start, len(data) if end is None else end)
    for few in (0, 30):
        with mock.patch.object(grammar, "_FEW", few):
            assert occurrences(data, mark, start, end) == told
    much = data * 1000
    assert occurrences(much, mark, start) == much.count(mark, start)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.text("ab1 é.", min_size=1, max_size=4), min_size=2, max_size=2), min_size=1, max_size=6),
    block=st.sampled_from(BLOCKS),
)
def test_plain_fields_are_what_the_csv_module_reads(tmp_path_factory, rows, block):
    folder = tmp_path_factory.mktemp("in")
    text = "a;b\n" + "".join(";".join(row) + "\n" for row in rows)
    (folder / "x.csv").write_text(text)
    found, rejects = read(folder, types={"a": "string", "b": "string"}, block=block)
    assert rejects == []
    assert found.select("a", "b").rows() == [tuple(r) for r in csv.reader(io.StringIO(text), delimiter=";")][1:]


MALFORMED = {
    "too few": ("1,2", "too few fields: 2 instead of 3"),
    "too many": ("1,2,3,4", "too many fields: 4 instead of 3"),
    "trailing delimiter": ("1,2,3,", "too many fields: 4 instead of 3"),
    "text after a quote": ('1,"x"y,3', "bad quote"),
    "quote in the middle": ('1,5" pipe,3', "bad quote"),
    "unclosed": ('1,"abc,3', "unclosed quote"),
    "bare carriage return": ("1,a\rb,3", "bad line end: a carriage return that no newline follows"),
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("at", [0, 3, 5])
@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_line_costs_itself_and_is_named(tmp_path, kind, at, block):
    line, reason = MALFORMED[kind]
    good = ["1,x,3", '2,"y\nz",3', "3,é,3", '4,"a ""q"" b",3', "5,,3"]
    lines = [*good[:at], line, *good[at:]]
    (tmp_path / "x.csv").write_text("id,b,c\n" + "\n".join(lines) + "\n")
    rows, rejects = read(tmp_path, types={"id": "int64"}, block=block)
    number = 2 + sum(1 + g.count("\n") for g in good[:at])
    assert rows["id"].to_list() == [1, 2, 3, 4, 5]
    assert rows["b"].to_list() == ["x", "y\nz", "é", 'a "q" b', None]
    (reject,) = rejects
    assert (reject[0], reject[1], reject[3]) == ("x.csv", number, line)
    assert reason in reject[2] or (kind == "unclosed" and reject[2] == "bad quote")


@pytest.mark.parametrize("block", BLOCKS)
def test_a_line_inside_the_text_of_a_malformed_record_is_no_record(tmp_path, block):
    (tmp_path / "x.csv").write_text('id,b\n1,x\n2,"a note\n77,never a row\nend",too many\n3,y\n')
    rows, rejects = read(tmp_path, types={"id": "int64"}, block=block)
    assert rows["id"].to_list() == [1, 3]
    assert rows["_headrace_line"].to_list() == [2, 6]
    (reject,) = rejects
    assert reject[1:] == (3, "too many fields: 3 instead of 2", '2,"a note\n77,never a row\nend",too many')


@pytest.mark.parametrize("block", BLOCKS)
def test_many_unclosed_quotes_cost_a_line_each(tmp_path, block):
    lines = [f"{i},ok" if i % 3 else f'{i},"open' for i in range(30)]
    (tmp_path / "x.csv").write_text("a,b\n" + "\n".join(lines))
    rows, rejects = read(tmp_path, types={"a": "int64"}, block=block)
    assert rows["a"].to_list() == [i for i in range(30) if i % 3]
    assert [r[1] for r in rejects] == [i + 2 for i in range(0, 30, 3)]


@pytest.mark.parametrize("length", [1, 400])
def test_an_unclosed_quote_does_not_swallow_a_file_beyond_the_longest_record(tmp_path, length):
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,"open\n' + "".join(f"{i},{'o' * length}\n" for i in range(2, 500)))
    reader = CSVReader(FileSource(path=str(path), delimiter=","), "csv", block=64, record_max=500)
    file = stat(path, "x.csv")
    pieces = list(reader.read(file, ("a", "b"), ("a", "b"), lambda p: p, head=reader.head(file)))
    assert sum(p.frame.height for p in pieces) == 498
    assert [r.line for p in pieces for r in p.bad] == [2]


@pytest.mark.parametrize("head", ["a,b\n1,2\n", "a,b\n1,2\n3,", ""])
def test_a_line_that_does_not_end_is_an_error_and_not_memory(tmp_path, head):
    path = tmp_path / "x.csv"
    path.write_text(head + "x" * 100_000)
    reader = CSVReader(FileSource(path=str(path), delimiter=","), "csv", block=64, record_max=100)
    file = stat(path, "x.csv")
    with pytest.raises(DataError, match=rf"x\.csv:{head.count(chr(10)) + 1}: a record of more than"):
        for _ in reader.read(file, ("a", "b"), ("a", "b"), lambda p: p, head=reader.head(file)):
            pass


def test_blocks_stay_small_and_end_with_a_record():
    record = b'1,"a\nb ""c""\n\n",\n'
    cutter, grammar = Cutter(io.BytesIO(record * 100), name="x", quote='"', size=64), Grammar(",", '"', 3)
    blocks = []
    while (block := cutter.cut()) is not None:
        blocks.append(block)
    assert b"".join(b.data for b in blocks) == record * 100
    assert max(len(b.data) for b in blocks) <= 64
    assert all(grammar.proves(b.data) for b in blocks)
    assert [b.line for b in blocks][:3] == [1, 13, 25]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_mark_at_the_beginning_of_a_block_is_a_letter(tmp_path, block):
    (tmp_path / "x.csv").write_text("a,b\n\ufeffx,1\n\ufeffy,2\n")
    rows, _ = read(tmp_path, block=block)
    assert rows["a"].to_list() == ["\ufeffx", "\ufeffy"]


@pytest.mark.parametrize("header", [True, False])
def test_a_header_of_very_many_fields_is_refused_in_a_few_words(tmp_path, header):
    (tmp_path / "x.csv").write_text("," * 100_000 + "\n")
    with pytest.raises(DataError, match=r"^the files have more than 10,000 columns\n +hint: .{0,100}$"):
        read(tmp_path, header=header)


@pytest.mark.parametrize("block", BLOCKS)
def test_blank_lines_are_no_records_and_count_as_lines(tmp_path, block):
    (tmp_path / "x.csv").write_text("a,b\n\n\r\n1,2\n" + "\n" * 5 + "3,4\n\n")
    rows, rejects = read(tmp_path, block=block)
    assert rejects == []
    assert rows["_headrace_line"].to_list() == [4, 10]


def test_invalid_utf8_is_a_reject_of_its_line(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a,b\n1,ok\n2,\xff\xfe\n3,ok\n")
    rows, rejects = read(tmp_path)
    assert rows["a"].to_list() == [1, 3]
    assert rejects == [("x.csv", 3, "wrong encoding", "2,\\xff\\xfe")]


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("ä,b\n1,2\n".encode("latin-1"), '"latin-1"'),
        ("a,b\n1,2\n".encode("utf-16"), '"encoding": "utf-16"'),
        ("a,b\n1,2\n".encode("utf-16-le"), '"encoding": "utf-16"'),
        (b"PK\x03\x04\x14\x00\x00\x00", "unpack it"),
    ],
)
def test_a_file_that_is_no_text_as_expected_is_told_what_it_is(tmp_path, data, hint):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(DataError, match=r"'a\.csv'") as caught:
        list(FileSource(path="*.csv", base=tmp_path).batches(Range(), Snapshot(), "in"))
    assert hint in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "idna"])
def test_a_file_that_its_encoding_cannot_read_is_named(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,\xc3\xa4\n")
    with pytest.raises(DataError, match=rf"'a\.csv' is not {encoding}"):
        read(tmp_path, encoding=encoding)


@pytest.mark.parametrize("encoding", ["base64", "rot13", "a\0"])
def test_what_is_no_encoding_of_texts_is_refused(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(ConfigError, match="unknown encoding"):
        read(tmp_path, encoding=encoding)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig"])
def test_other_encodings_are_decoded_as_they_stream(tmp_path, encoding, block):
    (tmp_path / "x.csv").write_bytes("a,b\n1,é\n2,ü\n".encode(encoding))
    rows, rejects = read(tmp_path, encoding=encoding, block=block)
    assert rows.select("a", "b").rows() == [(1, "é"), (2, "ü")]
    assert rejects == []


def test_a_byte_that_the_encoding_does_not_know_is_a_reject(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a,b\n1,x\n2,\x81\n3,y\n")
    rows, rejects = read(tmp_path, encoding="cp1252")
    assert rows["a"].to_list() == [1, 3]
    assert [(r[1], r[2]) for r in rejects] == [(3, "wrong encoding")]


@pytest.mark.parametrize("pack", ["gz", "zst"])
def test_archives_stream_and_a_cut_one_is_named(tmp_path, pack):
    data = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * 7919 % 1000003) for i in range(50_000))
    packed = gzip.compress(data) if pack == "gz" else pa.compress(data, codec="zstd", asbytes=True)
    path = tmp_path / f"x.csv.{pack}"
    path.write_bytes(packed)
    rows, _ = read(tmp_path, block=10_000)
    assert rows.height == 50_000
    path.write_bytes(packed[: len(packed) // 2])
    one = batch(FileSource(path="*", base=tmp_path, types={"a": "int64", "b": "int64"}))
    with pytest.raises(DataError, match=f"'x.csv.{pack}' is cut off"):
        one.frame.lazy.collect()


def test_marks_blank_lines_and_a_missing_last_newline_are_no_rows(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbf\r\na,b\r\n\r\n1,2\r\n\r\n\r\n3,4")
    rows, rejects = read(tmp_path)
    assert rows.columns[2:] == ["a", "b"]
    assert rows.rows() == [("x.csv", 4, 1, 2), ("x.csv", 7, 3, 4)]
    assert rejects == []


def test_a_blank_line_of_one_column_is_a_null(tmp_path):
    (tmp_path / "x.csv").write_text('a\n1\n\n""\n')
    rows, _ = read(tmp_path, types={"a": "string"})
    assert rows["a"].to_list() == ["1", None, ""]


@pytest.mark.parametrize("block", BLOCKS)
def test_lines_above_the_header_and_below_the_rows_are_passed_over(tmp_path, block):
    (tmp_path / "x.csv").write_text('Report "of\nthe day\na,b\n1,"x\ny"\n2,z\nTotal: "3\nend')
    rows, rejects = read(tmp_path, skip_rows=2, skip_footer=2, block=block)
    assert rows.rows() == [("x.csv", 4, 1, "x\ny"), ("x.csv", 6, 2, "z")]
    assert rejects == []


def test_empty_files_have_no_rows(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    (tmp_path / "c.csv").write_text("x,y\n")
    rows, _ = read(tmp_path)
    assert rows.rows() == [("b.csv", 2, 1, 2)]
    (tmp_path / "b.csv").unlink()
    (tmp_path / "c.csv").unlink()
    with pytest.raises(DataError, match="every file is empty"):
        read(tmp_path)


@pytest.mark.parametrize(("head", "what"), [("a,b,a", "repeats 'a'"), ("a,,c", "does not name column 2")])
def test_a_header_that_repeats_or_leaves_out_a_name_is_refused(tmp_path, head, what):
    (tmp_path / "x.csv").write_text(head + "\n1,2,3\n")
    with pytest.raises(DataError, match=what):
        read(tmp_path)


def test_files_without_a_header_take_given_or_numbered_names(tmp_path):
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")
    assert read(tmp_path, header=("p", "q"))[0].columns[2:] == ["p", "q"]
    assert read(tmp_path, header=False)[0].rows(named=True)[1]["column_2"] == 4


def test_columns_are_unioned_by_name_in_any_order_and_dialect(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n1,p\n")
    (tmp_path / "b.csv").write_text("new;x;id\nn;q;2\n")
    one = batch(FileSource(path="*", base=tmp_path))
    assert one.frame.lazy.collect().rows(named=True) == [
        {"id": 1, "x": "p", "new": None},
        {"id": 2, "x": "q", "new": "n"},
    ]
    assert set(one.news.facts["guessed"]["delimiter"]) == {",", ";"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_guessed_and_said(tmp_path, delimiter):
    rows = [["id", "text"], ["1", "a"], ["2", '"b,c;d|e"']]
    (tmp_path / "x.csv").write_text("".join(delimiter.join(r) + "\n" for r in rows))
    one = batch(FileSource(path="x.csv", base=tmp_path))
    assert one.frame.lazy.collect()["text"].to_list() == ["a", "b,c;d|e"]
    assert list(one.news.facts["guessed"]["delimiter"]) == [delimiter]
    given_one = batch(FileSource(path="x.csv", base=tmp_path, delimiter=delimiter))
    assert "guessed" not in given_one.news.facts


def test_without_quotes_a_quote_is_a_letter(tmp_path):
    (tmp_path / "x.csv").write_text('a,b\n1,5" pipe\n2,"x\n')
    rows, rejects = read(tmp_path, quote=None)
    assert rows["b"].to_list() == ['5" pipe', '"x']
    assert rejects == []


def test_a_wide_file_is_proven_too(tmp_path):
    names = [f"c{i}" for i in range(1500)]
    (tmp_path / "x.csv").write_text(",".join(names) + "\n" + ",".join(["é1"] * 1500) + "\n" + ",".join(["2"] * 1499))
    rows, rejects = read(tmp_path, delimiter=",")
    assert rows.height == 1
    assert rejects[0][2] == "too few fields: 1499 instead of 1500"


def test_only_the_columns_and_rows_that_are_asked_for_come(tmp_path):
    (tmp_path / "x.csv").write_text("id,b,c\n1,x,5\n2,y,bad\n3,z,7\n")
    one = batch(FileSource(path="x.csv", base=tmp_path, infer=1))
    assert one.frame.lazy.filter(pl.col("id") > 1).select("b").collect().to_series().to_list() == ["y", "z"]
    assert list(one.rejects()) == []  # no one has read c
    assert one.frame.lazy.select(pl.len()).collect().item() == 3
    assert one.frame.lazy.collect().height == 2
    (reject,) = [r for f in one.rejects() for r in f.to_dicts()]
    assert reject["line"] == 3


@pytest.mark.parametrize(
    "words",
    [{"delimiter": ",,"}, {"quote": ","}, {"infer": 0}, {"infer": 10**30}, {"path": ""}, {"skip_footer": -1}],
)
def test_a_dialect_that_cannot_be_is_refused(words):
    with pytest.raises(ConfigError):
        FileSource(**{"path": "x.csv", "delimiter": ",", **words})

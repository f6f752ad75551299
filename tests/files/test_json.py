import json
from decimal import Decimal

import pytest

from headrace.errors import DataError
from headrace.flow import Range, Snapshot
from headrace.systems.files import FileSource, arrays, ndjson
from headrace.systems.files.infer import KeyGuess


def batch(folder, text, name="x.ndjson", **words):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (one,) = FileSource(path=name, base=folder, **words).batches(Range(), Snapshot(), "in")
    return one


def rejects(one):
    return [(r["line"], r["rules"][0], r["row"]) for f in one.rejects() for r in f.to_dicts()]


@pytest.mark.parametrize("block", [1, 20, 8 * 1024 * 1024])
def test_a_malformed_line_is_a_reject_and_the_others_are_rows(tmp_path, block):
    lines = [
        '{"a": 1}',
        "",
        '{"a": 2',
        "[1]",
        '{"a": 3} {"a": 4}',
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        '{"a": "\\ud800"}',
        '{"a": 5}',
    ]
    one = batch(tmp_path, "\n".join(lines), block=block, types={"a": "int64"})
    assert one.frame.placed.collect().rows() == [("x.ndjson", 1, 1), ("x.ndjson", 9, 5)]
    assert [(r[0], r[2]) for r in rejects(one)] == [(i + 1, lines[i]) for i in range(2, 8)]


def test_numbers_stay_as_they_were_written(tmp_path):
    text = '{"n": 12345678901234567890, "f": 0.5, "d": 1.50}\n{"n": 2, "f": 1e3, "d": 0.12345678901234567890}\n'
    one = batch(tmp_path, text, types={"d": "decimal(30,20)"})
    assert one.news.facts["inferred"] == {"n": "decimal(38,0)", "f": "float64"}
    assert one.frame.lazy.collect().rows() == [
        (Decimal(12345678901234567890), 0.5, Decimal("1.50")),
        (Decimal(2), 1000.0, Decimal("0.12345678901234567890")),
    ]
    later = batch(tmp_path, '{"n": 1.5}\n{"n": 12345678901234567890}\n', infer=1)
    assert later.frame.lazy.collect()["n"].to_list() == [1.5]
    assert rejects(later)[0][0] == 2


def test_a_key_that_comes_late_does_not_vanish(tmp_path):
    text = '{"a": 1}\n' * 50 + '{"a": 2, "late": true}\n'
    assert batch(tmp_path, text, infer="all").frame.lazy.collect()["late"].to_list() == [None] * 50 + [True]
    one = batch(tmp_path, text, infer=10)
    assert one.frame.lazy.collect().height == 50
    assert rejects(one)[0][0] == 51
    assert "'late' first appears after the sample of 10 rows" in rejects(one)[0][1]
    told = batch(tmp_path, text, infer=10, types={"late": "bool"})
    assert told.frame.lazy.collect()["late"][50] is True


def test_kinds_are_not_mixed_up(tmp_path):
    rows = [
        {"zip": "0123", "day": "2024-01-01", "at": "2024-01-01T00:00:00Z", "ok": True, "o": {"p": [1, "x"]}, "m": 1},
        {"zip": "12345", "day": None, "ok": False, "o": [], "m": "x"},
    ]
    one = batch(tmp_path, "\n".join(map(json.dumps, rows)))
    assert one.news.facts["inferred"] == {
        "zip": "string", "day": "date", "at": "datetime(us, UTC)", "ok": "bool", "o": "json", "m": "string",
    }  # fmt: skip
    found = one.frame.lazy.collect()
    assert found["zip"].to_list() == ["0123", "12345"]
    assert json.loads(found["o"][0]) == {"p": [1, "x"]}


def test_structs_and_lists_are_read_as_declared(tmp_path):
    text = '{"s": {"a": 1, "b": "x"}, "l": [1, 2]}\n{"s": {"a": "no"}, "l": []}\n'
    one = batch(tmp_path, text, types={"s": "struct(a: int64, b: string)", "l": "list(int64)"})
    assert one.frame.lazy.collect().rows() == [({"a": 1, "b": "x"}, [1, 2])]
    assert rejects(one)[0][0] == 2


@pytest.mark.parametrize("other", ["", '{"k": null, "t": 1e1}\n'], ids=["alone", "beside what is risky"])
@pytest.mark.parametrize(
    "value",
    [
        r'{"p": "C:\\new\\table"}',
        r'["C:\\new"]',
        r'{"p": "\\u0041"}',
        r'{"p": "x\ty"}',
        r'{"a\"b": 1}',
        '{"p": 1.10, "q": [2.0, 3]}',
        "[[1.0]]",
        '{"t": "a, 1.5"}',
        '{"p": "/é", "q": [{}, [], null, true, -1]}',
        "{" + ", ".join(f'"k{n}": {n}' for n in range(33)) + "}",
        '{"p": [{' + ", ".join(f'"{n}": "a"' for n in range(60)) + '}, {"m": 1}]}',
    ],
)
@pytest.mark.parametrize("name", ["x.ndjson", "x.json"])
@pytest.mark.parametrize("beside", ["a: 1.5", r"C:\new", "plain"])  # the first looks like a fraction in a nested value
def test_a_nested_value_is_what_it_was_written_as(tmp_path, value, other, name, beside):
    text = f'{{"k": {value}, "t": {json.dumps(beside)}, "n": 1.5}}\n' * 2 + other
    text = text if name == "x.ndjson" else "[" + ",".join(text.splitlines()) + "]"
    one = batch(tmp_path, text, name=name, types={"k": "json", "t": "string", "n": "float64"})
    found = one.frame.lazy.collect()
    assert rejects(one) == []
    assert found["k"].to_list()[:2] == [value] * 2
    assert found["t"].to_list()[:2] == [beside] * 2


@pytest.mark.parametrize("value", [r'{"p": "C:\\new"}', '{"p": "a", "q": [1.5]}'])
def test_a_nested_value_that_is_not_asked_for_costs_nothing(value):
    reader = ndjson.JSONReader(FileSource(path="x"), "ndjson")
    line = f'{{"k": {value}, "n": 1.5, "t": "\\\\"}}'.encode()
    names = {"k": "k", "n": "n", "t": "t"}
    assert reader._fast(line, 1, names, {"n": "n", "t": "t"}, frozenset()) is not None
    assert reader._fast(line, 1, names, names, frozenset()) is None
    plain = b'{"k": {"p": "a", "q": [1]}, "n": 1.5, "t": "\\\\"}'
    assert reader._fast(plain, 1, names, names, frozenset()) is not None
    some = ", ".join(f'"p{n}": {n}' for n in range(32))
    assert (
        reader._fast(f'{{"k": {{{some}}}, "n": 1.5, "t": ""}}\n'.encode() * 9, 9, names, names, frozenset()) is not None
    )


@pytest.mark.parametrize("space", ["", "\n  "])
def test_a_json_array_is_rows_by_line(tmp_path, space):
    text = f'[{space}{{"a": 1, {space}"b": "x"}},{space}{{"a": 2, "b": "ü ]"}}{space}]\n'
    one = batch(tmp_path, text, name="x.json")
    assert one.frame.lazy.collect().rows() == [(1, "x"), (2, "ü ]")]
    assert one.frame.placed.collect()["_headrace_line"].to_list() == ([1, 1] if not space else [2, 4])


def test_one_object_is_one_row_and_an_empty_array_is_none(tmp_path):
    assert batch(tmp_path, '{"a": 1}', name="x.json").frame.lazy.collect().rows() == [(1,)]
    assert batch(tmp_path, "[]", name="x.json", types={"a": "int64"}).frame.lazy.collect().is_empty()


@pytest.mark.parametrize("text", ['[{"a": 1}', '[{"a": 1} {"a": 2}]', '[{"a": 1},]', '[{"a": 1}] x', '[{"a": }]', "5"])
def test_what_is_no_json_array_is_named_by_file_and_line(tmp_path, text):
    with pytest.raises(DataError, match=r"'x\.json' is no JSON from line 2 on"):
        batch(tmp_path, "\n" + text, name="x.json")


def test_a_record_of_an_array_that_cannot_be_read_is_rejected_by_line(tmp_path):
    one = batch(tmp_path, '[{"a": 1},\n{"a": 2, "a": 3},\n{"a": NaN},\n{"a": 4}]', name="x.json")
    assert one.frame.lazy.collect()["a"].to_list() == [1, 4]
    told = [(r["line"], r["rules"]) for f in one.rejects() for r in f.to_dicts()]
    assert told == [(2, ["a key that stands twice"]), (3, ["not JSON: NaN or Infinity"])]


@pytest.mark.parametrize("text", ['{"a": 1, "a": null}\n{"a": 4}', '{"a": 1, "a": 2}\n{"\\u0061": 4}'])
def test_a_key_that_stands_twice_is_found_beside_nulls_and_keys_with_escapes(tmp_path, text):
    one = batch(tmp_path, text)
    assert one.frame.lazy.collect()["a"].to_list() == [4]
    assert [(line, rule) for line, rule, _ in rejects(one)] == [(1, "a key that stands twice")]


@pytest.mark.parametrize("last", ["2", "2e1"])
def test_a_number_in_a_column_of_texts_is_as_it_was_written_whatever_stands_beside_it(tmp_path, last):
    one = batch(tmp_path, f'{{"a": 1.10, "b": 0}}\n{{"a": "x", "b": {last}}}')
    assert one.frame.lazy.collect()["a"].to_list() == ["1.10", "x"]


def test_an_object_of_thousands_of_rows_by_key_is_refused_as_such(tmp_path):
    text = "{" + ", ".join(f'"{n}": 1' for n in range(10_001)) + "}"
    with pytest.raises(DataError, match="more than 10,000 columns") as caught:
        batch(tmp_path, text, name="x.json")
    assert "array of objects" in caught.value.hint


def test_quarantined_records_go_through_the_same_parser(tmp_path):
    one = batch(tmp_path, '{"a": 1}\n{"a": \n')
    one.frame.lazy.collect()
    (frame,) = one.rejects()
    source = FileSource(path="*.ndjson", base=tmp_path)
    texts = frame.select("file", "line", "row")
    (still,) = _drained(source.reparse(texts, name="in")).rejects()
    assert still["id"].to_list() == frame["id"].to_list()
    mended = source.reparse(texts.with_columns(row=texts["row"] + "7}"))
    assert mended.frame.lazy.collect().rows() == [(7,)]


def _drained(one):
    one.frame.lazy.collect()
    return one


def test_no_number_is_rounded_and_no_sign_is_lost(tmp_path):
    one = batch(tmp_path, '{"a": 1.5, "z": -0, "n": 1}\n{"a": 9007199254740993, "z": 1.5, "n": 9007199254740993}\n')
    assert one.frame.lazy.collect().rows() == [("1.5", -0.0, 1), ("9007199254740993", 1.5, 9007199254740993)]
    assert str(one.frame.lazy.collect()["z"][0]) == "-0.0"
    one = batch(tmp_path, '{"a": 1.5}\n{"a": 9007199254740993}\n', infer=1)
    assert one.frame.lazy.collect()["a"].to_list() == [1.5]
    assert [line for line, *_ in rejects(one)] == [2]


@pytest.mark.parametrize("bad", ['{"a": "\\ud83d"}', '{"\\ud83d": 1, "a": "x"}', '{"a": {"b": "\\ud83d"}}'])
def test_half_of_a_surrogate_pair_in_the_sample_is_a_reject(tmp_path, bad):
    one = batch(tmp_path, '{"a": "x"}\n' + bad + "\n")
    assert one.frame.lazy.collect()["a"].to_list() == ["x"]
    assert [line for line, *_ in rejects(one)] == [2]


def test_a_file_without_a_readable_record_is_refused_by_its_first_line(tmp_path):
    with pytest.raises(DataError, match=r"x\.ndjson:2: not JSON") as caught:
        batch(tmp_path, '\n{"a": secret}\n')
    assert "secret" not in str(caught.value)


def test_reading_all_for_the_types_holds_no_more_than_a_few_values(tmp_path, monkeypatch):
    held = []
    look = KeyGuess._look
    monkeypatch.setattr(
        KeyGuess, "_look", lambda guess, kind: held.append(len(guess._waiting[kind])) or look(guess, kind)
    )
    lines = [f'{{"d": "2024-01-{n % 28 + 1:02}", "n": {n}, "big": {10**30 + n}}}' for n in range(3_000)]
    one = batch(tmp_path, "\n".join([*lines, '{"n": 0.5}']), infer="all")
    assert {n: str(t) for n, t in one.frame.lazy.collect_schema().items()} == {
        "d": "Date",
        "n": "Float64",
        "big": "Decimal(precision=38, scale=0)",
    }
    assert max(held) <= 1_000


@pytest.mark.parametrize("text", ['[{"a": "', '{"a": "'])
def test_a_record_that_does_not_end_is_an_error_and_not_memory(tmp_path, monkeypatch, text):
    monkeypatch.setattr(arrays, "RECORD_MAX", 2**20)
    with pytest.raises(DataError, match=r"x\.json:1: a record of more than 4 MiB"):
        batch(tmp_path, text + "x" * 20_000_000, name="x.json")


@pytest.mark.parametrize("depth", [700, 100_000])
def test_what_is_nested_too_deeply_is_a_reject_or_refused_with_its_line(tmp_path, depth):
    """The first is within what a parser takes, and not within what writes it as text again."""
    deep = '{"a": 1.5e1, "b": ' + '{"b": ' * depth + "1" + "}" * depth + "}"
    one = batch(tmp_path, f'{{"a": 2, "b": null}}\n{deep}\n')
    assert one.frame.lazy.collect()["a"].to_list() == [2]
    assert [(line, rule) for line, rule, _ in rejects(one)] == [(2, "nested too deeply")]
    if depth > 10_000:
        with pytest.raises(DataError, match=r"'x\.json': a value in line 2 is nested too deeply"):
            batch(tmp_path, f"[\n{deep}]", name="x.json")

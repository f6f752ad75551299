import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.config.jsonc import parse, plain, read
from headrace.errors import ConfigError


def test_comments_and_trailing_commas_are_allowed():
    text = '{ // a comment\n "a": [1, 2,], /* another\n one */ "b": "// none", }'
    assert plain(parse(text, "x.json")) == {"a": [1, 2], "b": "// none"}


def test_every_value_knows_its_line_and_column():
    node = parse('{\n  "a": {\n    "b": [1,\n    true]}}', "x.json")
    inner = node.value["a"].value["b"]
    assert str(inner.place) == "x.json:3:10"
    assert str(inner.value[1].place) == "x.json:4:5"
    assert str(node.value["a"].keys["b"]) == "x.json:3:5"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON, st.sampled_from([None, 2]), st.booleans())
def test_whatever_json_says_is_read_as_json_reads_it(value, indent, ascii_only):
    assert plain(parse(json.dumps(value, indent=indent, ensure_ascii=ascii_only), "x.json")) == value


@settings(deadline=None)
@given(st.text(max_size=30))
def test_a_text_is_read_or_refused_and_never_otherwise(text):
    with contextlib.suppress(ConfigError):
        json.dumps(plain(parse(text, "x.json")), allow_nan=False)


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ('{"a": 1 "b": 2}', "x.json:1:9", "',' or '}'"),
        ('{"a": 1,\n "a": 2}', "x.json:2:2", "twice"),
        ('{"a": tru}', "x.json:1:7", "'tru' is no JSON value"),
        ("{'a': 1}", "x.json:1:2", "double quotes"),
        ('{"a": 01}', "x.json:1:7", "'01'"),
        ('{"a": "x\ny"}', "x.json:1:9", "control character"),
        ('{"a": [1, 2}', "x.json:1:12", "']'"),
        ('{"a": [1, 2', "x.json:1:7", "ends before"),
        ('{"a" 1}', "x.json:1:6", "':'"),
        ('{"a": 1} x', "x.json:1:10", "after the end"),
        ("", "x.json:1:1", "ends where a value"),
        ("/* x", "x.json:1:1", "not closed"),
        ('{"a": NaN}', "x.json:1:7", "'NaN'"),
        ('{"a": 1e999}', "x.json:1:7", "too large"),
        ('{"a": ' + "9" * 5000 + "}", "x.json:1:7", "too large"),
        ('{"a": "\\ud800"}', "x.json:1:7", "surrogate"),
        ('{"a": True}', "x.json:1:7", "'True'"),
        ('{"a": .5}', "x.json:1:7", "no JSON value"),
        ("[" * 200, "x.json:1:102", "deep"),
        ("{,}", "x.json:1:2", "key in double quotes"),
    ],
)
def test_a_syntax_error_is_refused_with_its_line_and_column(text, where, said):
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.json")
    assert caught.value.message.startswith(f"{where}: ")
    assert said in caught.value.message
    assert caught.value.hint


def test_a_word_of_python_gets_its_json_word():
    with pytest.raises(ConfigError) as caught:
        parse('{"a": True}', "x.json")
    assert caught.value.hint == "did you mean true?"


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert plain(read(tmp_path / "x.json")) == {"a": 1}


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{\n"a": "\xff"}')
    with pytest.raises(ConfigError, match=r"x\.json:2: not UTF-8"):
        read(tmp_path / "x.json")

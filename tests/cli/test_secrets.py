"""What stands in the environment or in a file of its own is shown nowhere: ``${NAME}`` stands for it."""

import json

import pytest

import headrace as hr
from headrace.config import load
from headrace.secret import Secret, masked


def lay(folder, **keys):
    document = {
        "name": "orders",
        "source": {"type": "files", "path": {"env": "INBOX"}},
        "destination": {"type": "duckdb", "path": {"env": "WAREHOUSE"}, "table": {"file": "table"}},
        **keys,
    }
    (folder / "table").write_text("hush_hush\n")
    (folder / "orders.json").write_text(json.dumps(document))


@pytest.mark.parametrize("format", [(), ("--json",), ("--log-format", "json", "-v")])
def test_no_command_shows_a_value_that_stands_elsewhere(headrace, tmp_path, format):
    (tmp_path / "drawer").mkdir()
    (tmp_path / "drawer/a.csv").write_text("id,value\n1,2\n")
    places = {"INBOX": "drawer/*.csv", "WAREHOUSE": "../" + tmp_path.name + "/hunter2.duckdb"}
    lay(tmp_path)
    for args in (["check"], ["plan", "--explain"], ["run"], ["run"], ["history"], ["rejects"]):
        done = headrace(*args, "orders.json", *format, **places)
        assert done.code == 0, done.err
        said = done.out + done.err
        assert not [word for word in ("hunter2", "drawer", "hush_hush") if word in said], (args, said)
    assert "${WAREHOUSE}" in headrace("run", "orders.json", **places).out
    assert "${file table}" in headrace("run", "orders.json", **places).out


@pytest.mark.parametrize("format", [(), ("--json",), ("--log-format", "json", "-v")])
@pytest.mark.parametrize(
    "path", ["no_such_hunter2/x.csv", "/no_such/hunter2/*.csv", "./hunter2.csv", "~/../hunter2/a.csv"]
)
def test_no_error_shows_one(headrace, tmp_path, format, path):
    lay(tmp_path)
    done = headrace("run", "orders.json", *format, INBOX=path, WAREHOUSE="w.duckdb")
    assert done.code == 2
    assert "hunter2" not in done.out + done.err
    (tmp_path / "a.csv").write_text("id\n1\n")
    done = headrace("run", "orders.json", *format, INBOX="a.csv", WAREHOUSE="/proc/hunter2/w.duckdb")
    assert done.code == 1
    assert "hunter2" not in done.out + done.err
    assert "${WAREHOUSE}" in done.out + done.err


def test_the_library_shows_none_either(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("id\n1\n")
    monkeypatch.setenv("INBOX", "a.csv")
    monkeypatch.setenv("WAREHOUSE", "hunter2.duckdb")
    lay(tmp_path)
    events = []
    pipeline = load(tmp_path / "orders.json")
    said = [pipeline, hr.plan(pipeline), hr.check(pipeline), hr.run(pipeline, observers=(events.append,)), *events]
    assert "hunter2" not in repr(said) + "".join(map(str, said))
    monkeypatch.setenv("INBOX", "no_such_hunter2.csv")
    with pytest.raises(hr.ConfigError) as caught:
        hr.run(load(tmp_path / "orders.json"))
    assert "hunter2" not in str(caught.value) + repr(caught.value) + str(caught.value.to_dict())


def test_a_secret_is_found_as_a_word_and_nowhere_else():
    Secret("pass.word", {"env": "TOKEN"})
    Secret("abc", {"env": "SHORT"})
    assert masked("u:pass.word@host") == "u:${TOKEN}@host"
    assert masked(["xpass.wordx", "pass-word"]) == ["xpass.wordx", "pass-word"]
    assert masked({"a": "abc", "b": "abc d"}) == {"a": "${SHORT}", "b": "abc d"}

import copy
import json
import pickle
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass

import pytest

import headrace as hr
from headrace.config import Secret, decode, encode, load, load_all, settings, shapes

CSV = {"type": "files", "path": "in/*.csv"}
TARGET = {"type": "duckdb", "path": "w.duckdb", "table": "t"}


def write(folder, file="p.json", **keys):
    document = {"name": file.removesuffix(".json"), "source": CSV, "destination": TARGET, **keys}
    (folder / file).write_text(json.dumps(document, indent=1))
    return folder / file


def refused(path, **options):
    with pytest.raises(hr.ConfigError) as caught:
        load(path, **options)
    return caught.value


def test_an_unknown_key_is_refused_with_path_line_and_the_key_that_was_meant(tmp_path):
    (tmp_path / "p.json").write_text(
        '{"name": "p", "source": {"type": "files", "path": "x.csv"},\n'
        ' "destination": {"type": "duckdb", "pth": "w", "table": "t"}}'
    )
    error = refused(tmp_path / "p.json")
    first, second = error.details["errors"]
    assert first["message"] == 'destination has no "path"'
    assert second["path"] == "destination.pth"
    assert (second["line"], second["column"]) == (2, 36)
    assert second["hint"] == 'did you mean "path"?'


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path):
    error = refused(
        write(tmp_path, write={"type": "merg", "keys": ["a"]}, contract={"columns": {"a": {"nulable": True}}}, prams={})
    )
    assert {one["path"]: one["hint"] for one in error.details["errors"]} == {
        "write.type": 'did you mean "merge"?',
        "contract.columns.a.nulable": 'did you mean "nullable"?',
        "prams": 'did you mean "params"?',
    }


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"after": "a"}, "after", "expected a list of texts, found a text"),
        ({"after": [1]}, "after[0]", "expected a text, found a number"),
        ({"independent": "yes"}, "independent", "expected true or false, found a text"),
        ({"independent": 1}, "independent", "expected true or false, found a number"),
        ({"write": {"type": "merge", "keys": "id"}}, "write.keys", "expected a list of texts, found a text"),
        ({"write": "partitions"}, "write", 'write has no "by"'),
        ({"write": "upsert"}, "write", 'unknown "upsert"'),
        ({"write": {"keys": ["a"]}}, "write", 'the key "type" is missing'),
        ({"contract": {"max_rejects": 1.5}}, "contract.max_rejects", "expected a whole number, found a number"),
        ({"contract": {"max_rejects": True}}, "contract.max_rejects", "expected a whole number, found true"),
        ({"contract": {"on_violation": "quarantin"}}, "contract.on_violation", 'unknown "quarantin"'),
        ({"contract": {"columns": {"a": {"length": [1]}}}}, "contract.columns.a.length", "expected 2 values, found 1"),
        ({"contract": {"columns": {"a b": {"min": 1, "x": 2}}}}, 'contract.columns."a b".x', "unknown key"),
        ({"contract": None}, None, None),
        ({"name": None}, "name", "expected a text, found null"),
        ({"transforms": [{"pyhton": "t.py:f"}]}, "transforms[0].pyhton", "unknown key"),
        ({"transforms": [{"as": "x"}]}, "transforms[0]", "cannot tell what this is"),
        ({"transforms": ["t.py:f"]}, "transforms[0]", "expected an object, found a text"),
        ({"transforms": [{"sql_file": "no.sql"}]}, "transforms[0].sql_file", "there is no file 'no.sql'"),
        ({"transforms": [{"python": "no.py:f"}]}, "transforms[0].python", "there is no file 'no.py'"),
        ({"transforms": [{"python": "f"}]}, "transforms[0].python", "'f' is not file.py:name"),
        ({"name": "a b"}, "", "pipeline name 'a b' cannot be used"),
        ({"base": "/"}, "base", "unknown key"),
        (
            {"destination": {"type": "duckdb", "path": "w", "table": "t", "base": "/"}},
            "destination.base",
            "unknown key",
        ),
        ({"destination": {"type": "oracle"}}, "destination.type", 'unknown "oracle"'),
        ({"destination": {"connection": "w"}}, "destination.connection", 'there is no connection "w"'),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(tmp_path, keys, path, message):
    file = write(tmp_path, **keys)
    if path is None:
        assert load(file).contract is None
        return
    (only,) = refused(file).details["errors"]
    assert (only["path"], only["message"]) == (path, message)
    assert only["file"] == str(file)
    assert only["line"] > 0


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("double", "float64"),
        ("text", "string"),
        ("timestamp", "datetime(us)"),
        ("numeric(12,2)", "decimal(12,2)"),
        ("int46", "int64"),
    ],
)
def test_an_unknown_type_is_refused_at_its_key_with_the_one_that_was_meant(tmp_path, text, meant):
    types = {"a": "int64", "unit price": text}
    (only,) = refused(write(tmp_path, source={**CSV, "types": types})).details["errors"]
    assert (only["path"], only["message"]) == ('source.types."unit price"', f"unknown type {text!r}")
    assert only["hint"] == f"did you mean {meant!r}?"
    assert (tmp_path / "p.json").read_text().splitlines()[only["line"] - 1].strip() == f'"unit price": "{text}"'
    (only,) = refused(write(tmp_path, source={**CSV, "types": {"a": {"type": text}}})).details["errors"]
    assert only["path"] == "source.types.a.type"
    (only,) = refused(write(tmp_path, contract={"columns": {"a": {"type": text}}})).details["errors"]
    assert only["path"] == "contract.columns.a.type"


def test_a_type_like_none_is_told_them_all(tmp_path):
    (only,) = refused(write(tmp_path, contract={"columns": {"a": {"type": "xyzzy"}}})).details["errors"]
    assert "decimal(12,2), bool, string" in only["hint"]


def test_a_value_may_stand_in_the_environment_and_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("SINCE", "hunter2")
    pipeline = load(write(tmp_path, params={"since": {"env": "SINCE"}, "n": {"env": "NO_SUCH", "default": 3}}))
    assert pipeline.params == {"since": "hunter2", "n": 3}
    assert "hunter2" not in repr(pipeline)
    assert encode(pipeline)["params"] == {"since": {"env": "SINCE"}, "n": 3}


def test_a_value_may_stand_in_a_file_beside_the_pipeline(tmp_path):
    (tmp_path / "token").write_text("hunter2\n")
    pipeline = load(write(tmp_path, params={"token": {"file": "token"}}))
    assert pipeline.params == {"token": "hunter2"}
    assert isinstance(pipeline.params["token"], Secret)


def test_a_number_in_the_environment_is_read_as_a_number(tmp_path, monkeypatch):
    monkeypatch.setenv("MAX", "7")
    assert load(write(tmp_path, contract={"max_rejects": {"env": "MAX"}})).contract.max_rejects == 7
    monkeypatch.setenv("MAX", "hunter2")
    error = refused(write(tmp_path, contract={"max_rejects": {"env": "MAX"}}))
    assert "expected a whole number" in error.message
    assert "hunter2" not in str(error.to_dict())


def test_a_secret_of_no_known_word_is_not_told(tmp_path, monkeypatch):
    monkeypatch.setenv("W", "hunter2")
    error = refused(write(tmp_path, contract={"on_violation": {"env": "W"}}))
    assert "hunter2" not in str(error.to_dict())


def test_a_variable_that_is_not_set_is_named_with_its_path(tmp_path):
    error = refused(write(tmp_path, params={"since": {"env": "NO_SUCH_VARIABLE"}}))
    assert "params.since: the environment variable NO_SUCH_VARIABLE is not set" in error.message


def test_a_column_called_file_or_env_is_a_column(tmp_path):
    source = {**CSV, "rename": {"file": "name"}, "types": {"env": "string"}}
    pipeline = load(write(tmp_path, source=source, contract={"columns": {"env": {"type": "string"}}}))
    assert pipeline.source.rename == {"file": "name"}
    assert pipeline.contract.columns["env"].type == "string"


def test_a_secret_is_a_text_that_copies_keep_masked():
    secret = Secret("hunter2", {"env": "X"})
    for copied in (copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))):  # noqa: S301
        assert copied == "hunter2"
        assert copied.reference == {"env": "X"}
        assert "hunter2" not in repr([copied])


def test_a_word_stands_for_a_write_that_needs_no_keys(tmp_path):
    assert load(write(tmp_path, write="replace")).write == hr.Replace()


def test_relative_paths_start_from_the_pipelines_folder(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    pipeline = load(write(tmp_path))
    assert pipeline.base == pipeline.source.base == pipeline.destination.base == tmp_path


def test_defaults_are_merged_under_and_an_object_of_another_type_replaces(tmp_path):
    (tmp_path / "headrace.json").write_text(
        '{"defaults": {"params": {"a": 1, "b": 1}, "write": {"type": "merge", "keys": ["id"]}}}'
    )
    pipeline = load(write(tmp_path, params={"b": 2}))
    assert pipeline.params == {"a": 1, "b": 2}
    assert pipeline.write == hr.Merge(keys=("id",))
    assert load(write(tmp_path, write={"type": "partitions", "by": ["d"]})).write == hr.Partitions(by=("d",))
    assert load(write(tmp_path, write="append")).write == hr.Append()


def test_a_reference_replaces_the_value_of_the_defaults_whole(tmp_path, monkeypatch):
    def over(default, own):
        (tmp_path / "headrace.json").write_text(json.dumps({"defaults": {"destination": {**TARGET, "path": default}}}))
        return write(tmp_path, destination={"type": "duckdb", "table": "t", "path": own})

    dev = {"env": "NO_SUCH_VARIABLE", "default": "dev"}
    (tmp_path / "path.txt").write_text("prod")
    assert "NO_SUCH_PATH is not set" in refused(over(dev, {"env": "NO_SUCH_PATH"})).message
    monkeypatch.setenv("NO_SUCH_PATH", "prod")
    assert load(over(dev, {"env": "NO_SUCH_PATH"})).destination.path == "prod"
    assert load(over(dev, {"file": "path.txt"})).destination.path == "prod"
    assert load(over({"file": "path.txt"}, dev)).destination.path == "dev"


def test_names_that_are_the_users_own_are_merged_though_they_be_called_env_or_file(tmp_path):
    (tmp_path / "headrace.json").write_text('{"defaults": {"params": {"file": "a", "x": {"env": "X", "default": 1}}}}')
    assert load(write(tmp_path, params={"env": "b", "x": 2})).params == {"file": "a", "env": "b", "x": 2}


def test_the_merge_knows_all_objects_whose_keys_are_the_users_own():
    found, seen = set(), set()

    def look(annotation, key):
        options = shapes.members(annotation)
        maps = any((typing.get_origin(one) or one) in (dict, Mapping) for one in options)
        if maps and str not in options:  # of those that a text may stand for all keys are known: see is_reference
            found.add(key)
        for one in options:
            role = shapes.role_of(one)
            classes = [role.load(tag) for tag in role.tags] if role else [one] if is_dataclass(one) else []
            for cls in set(classes) - seen:
                seen.add(cls)
                for known in shapes.keys_of(cls).values():
                    look(known.type, known.key)
            for inner in typing.get_args(one):
                look(inner, key)

    look(hr.Pipeline, "")
    assert found == settings.NAMING


@pytest.mark.parametrize(
    ("defaults", "path", "adopt"),
    [
        ({"type": "duckdb", "path": "scratch"}, "prod", False),
        ({"path": "scratch", "adopt": True}, "prod", True),
        ({"type": "postgres", "dsn": "", "adopt": True}, "prod", False),
        ({"connection": "other", "adopt": True}, "prod", False),
    ],
)
def test_a_connection_that_a_pipeline_names_is_not_changed_by_the_defaults(tmp_path, defaults, path, adopt):
    connections = {"wh": {"type": "duckdb", "path": "prod"}, "other": {"type": "postgres", "dsn": ""}}
    (tmp_path / "headrace.json").write_text(
        json.dumps({"connections": connections, "defaults": {"destination": defaults}})
    )
    made = load(write(tmp_path, destination={"connection": "wh", "table": "t"})).destination
    assert (made.path, made.adopt) == (path, adopt)
    own = write(tmp_path, destination={"connection": "wh", "table": "t", "path": "own"})
    assert load(own).destination.path == "own"


def test_a_connection_of_the_defaults_is_not_that_of_another_type(tmp_path):
    shared = {"connections": {"wh": {"type": "postgres", "dsn": ""}}, "defaults": {"destination": {"connection": "wh"}}}
    (tmp_path / "headrace.json").write_text(json.dumps(shared))
    assert load(write(tmp_path)).destination.path == "w.duckdb"


def test_a_mistake_in_the_shared_file_is_told_where_it_stands(tmp_path):
    (tmp_path / "headrace.json").write_text('{"connections":\n {"w": {"type": "duckdb", "pth": "x"}}}')
    error = refused(write(tmp_path, destination={"connection": "w", "table": "t"}))
    (wrong,) = [one for one in error.details["errors"] if one["path"] == "destination.pth"]
    assert wrong["file"].endswith("headrace.json")
    assert wrong["line"] == 2


def test_a_mistake_that_several_pipelines_share_is_told_once(tmp_path):
    (tmp_path / "headrace.json").write_text('{"profiles": {"dev": {"wirte.by": "x"}}}')
    write(tmp_path, "a.json")
    write(tmp_path, "b.json")
    with pytest.raises(hr.ConfigError) as caught:
        load_all([str(tmp_path)], profile="dev")
    assert caught.value.message.count("wirte") == 1


def test_set_changes_a_key_and_beats_the_profile(tmp_path):
    (tmp_path / "headrace.json").write_text('{"profiles": {"dev": {"params.a": "dev", "destination.table": "dev_t"}}}')
    file = write(tmp_path, params={"a": "x"})
    assert load(file, profile="dev").params == {"a": "dev"}
    assert load(file, profile="dev").destination.table == "dev_t"
    assert load(file, profile="dev", set={"params.a": "set"}).params == {"a": "set"}
    (made,) = load_all([str(file)], set=["params.n=3", 'params."a.b"=3 apples', "contract.columns.id.nullable=false"])
    assert made.params == {"a": "x", "n": 3, "a.b": "3 apples"}
    assert made.contract.columns["id"].nullable is False


@pytest.mark.parametrize("key", ["connections.whh.path", 'connections."a b".path'])
def test_a_connection_that_only_an_override_names_is_refused(tmp_path, key):
    """It would be one that no pipeline uses, and the run would go where it went before."""
    (tmp_path / "headrace.json").write_text(
        json.dumps({"connections": {"wh": {"type": "duckdb", "path": "prod"}}, "profiles": {"dev": {key: "dev"}}})
    )
    file = write(tmp_path, destination={"connection": "wh", "table": "t"})
    for error in (refused(file, profile="dev"), refused(file, set={key: "dev"})):
        assert "there is no connection" in error.message
        assert ('did you mean "wh"' if "whh" in key else "as a whole") in error.hint
    assert refused(file, profile="dev").message.startswith(str(tmp_path / "headrace.json"))


@pytest.mark.parametrize(
    "dev",
    [
        {"connections.new": {"type": "duckdb", "path": "dev"}},
        {"connections.new": {"type": "duckdb", "path": "prod"}, "connections.new.path": "dev"},
        {"connections.new.path": "dev", "connections.new.type": "duckdb"},
    ],
)
def test_an_override_may_make_a_connection(tmp_path, dev):
    (tmp_path / "headrace.json").write_text(json.dumps({"profiles": {"dev": dev}}))
    file = write(tmp_path, destination={"connection": "new", "table": "t"})
    assert load(file, profile="dev").destination.path == "dev"


MANY = {
    "source": {"type": "postgres"},
    "destination": {"type": "postgres", "schema": "s"},
    "defaults": {"write": {"type": "merge", "keys": ["id"]}},
    "tables": {"a": {}},
}


@pytest.mark.parametrize("change", [{"defaults.write": "replace"}, {"defaults": {"cursor": "at"}}])
def test_set_of_defaults_is_refused_where_a_pipeline_has_its_own(tmp_path, change):
    """It changes headrace.json's, and the pipeline's own stand over these: nothing would come of it."""
    error = refused(write(tmp_path, **MANY), set=change)
    assert "p.json: its own defaults stand over those of headrace.json" in error.message
    assert "tables" in error.hint
    assert load(write(tmp_path), set={"defaults.write": "replace"}).write == hr.Replace()


def test_set_of_defaults_that_no_table_has_reaches_a_pipeline_of_many(tmp_path):
    assert load(write(tmp_path, **MANY), set={"defaults.destination.adopt": True}).destination.adopt


def test_the_environment_may_choose_the_profile(tmp_path, monkeypatch):
    (tmp_path / "headrace.json").write_text('{"profiles": {"dev": {"params.a": "dev"}}}')
    monkeypatch.setenv("HEADRACE_PROFILE", "dev")
    assert load(write(tmp_path)).params == {"a": "dev"}
    monkeypatch.setenv("HEADRACE_PROFILE", "deb")
    assert 'did you mean "dev"' in refused(tmp_path / "p.json").hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a", "there is no ="),
        ("a..b=1", "no path of keys"),
        ("=1", "no path of keys"),
        ("a.=1", "no path of keys"),
        ("prams.a=1", "unknown key"),
        ("name.x=1", "name is a text"),
        ("transforms[3].as=1", "transforms is a list of 0"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(tmp_path, text, said):
    with pytest.raises(hr.ConfigError, match=said):
        load_all([str(write(tmp_path, transforms=[]))], set=[text])


def test_a_pipeline_in_python_has_its_paths_from_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "pipe.py").write_text(
        "import headrace as hr\n"
        "orders = hr.Pipeline(name='orders', source=hr.FileSource(path='in/*.csv'), params={'a': 1},\n"
        "    destination=hr.DuckDBDestination(path='w.duckdb', table='orders'))\n"
    )
    pipeline = load(f"{tmp_path}/pipe.py:orders", set={"params.a": 2})
    assert pipeline.source.base == pipeline.destination.base == pipeline.base == tmp_path
    assert pipeline.params == {"a": 2}
    assert 'did you mean "orders"' in refused(f"{tmp_path}/pipe.py:order").hint
    assert "which pipeline" in refused(tmp_path / "pipe.py").message


def test_a_profile_is_refused_for_a_pipeline_in_python(tmp_path, monkeypatch):
    """It changes nothing there, and the run would go where it goes without it."""
    (tmp_path / "headrace.json").write_text('{"profiles": {"dev": {"params.a": 2}}}')
    (tmp_path / "pipe.py").write_text(
        "import headrace as hr\n"
        "orders = hr.Pipeline(name='orders', source=hr.FileSource(path='in/*.csv'),\n"
        "    destination=hr.DuckDBDestination(path='w.duckdb', table='orders'))\n"
    )
    for profile in ("dev", "nonsense"):
        error = refused(f"{tmp_path}/pipe.py:orders", profile=profile)
        assert error.message == f"profile {profile!r}: a pipeline in Python takes only its params from here"
        assert error.hint
    monkeypatch.setenv("HEADRACE_PROFILE", "dev")  # of a whole shell: the file may read it itself
    assert load(f"{tmp_path}/pipe.py:orders").params == {}


def test_a_folder_is_its_pipelines_and_says_the_mistakes_of_all(tmp_path):
    write(tmp_path, "b.json")
    write(tmp_path, "a.json")
    assert [one.name for one in load_all([str(tmp_path)])] == ["a", "b"]
    write(tmp_path, "a.json", x=1)
    write(tmp_path, "b.json", y=1)
    with pytest.raises(hr.ConfigError) as caught:
        load_all([str(tmp_path)])
    assert [one["path"] for one in caught.value.details["errors"]] == ["x", "y"]


def test_two_pipelines_of_one_name_are_refused(tmp_path):
    write(tmp_path, "a.json")
    write(tmp_path, "b.json", name="a")
    with pytest.raises(hr.ConfigError, match="two pipelines are called 'a'"):
        load_all([str(tmp_path)])


def test_what_is_encoded_decodes_to_an_equal_pipeline(tmp_path):
    pipeline = load(
        write(
            tmp_path,
            write={"type": "history", "keys": ["id"], "close_absent": True},
            contract={"columns": {"a": {"length": [1, None], "one_of": ["x"]}}, "rules": {"r": {"check": "a > 0"}}},
            transforms=[{"sql": "SELECT 1", "as": "one"}],
            commit_every="5GB",
        )
    )
    encoded = json.loads(json.dumps(encode(pipeline)))
    assert decode(encoded, base=tmp_path) == pipeline
    assert encoded["transforms"] == [{"sql": "SELECT 1", "as": "one"}]
    assert "independent" not in encoded


def test_a_table_source_finds_the_destination_of_the_pipeline_it_names(tmp_path):
    write(tmp_path, "orders.json", destination={**TARGET, "table": "orders"})
    daily = write(tmp_path, "daily.json", source={"type": "table", "of": "orders"})
    assert load(daily).source.destination == load(tmp_path / "orders.json").destination
    both = write(tmp_path, "both.json", source=None, sources={"a": CSV, "o": {"type": "table", "of": "order"}})
    (wrong,) = refused(both).details["errors"]
    assert (wrong["path"], wrong["hint"]) == ("sources.o.of", 'did you mean "orders"?')


def test_a_table_source_beside_no_sources_at_all_is_found_too(tmp_path):
    write(tmp_path, "orders.json", destination={**TARGET, "table": "orders"})
    daily = write(tmp_path, "daily.json", source={"type": "table", "of": "orders"}, sources={})
    assert load(daily).source.destination == load(tmp_path / "orders.json").destination

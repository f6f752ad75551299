import importlib.util
import json

import pytest
from jsonschema import Draft202012Validator

from headrace.config import json_schema

issue_spec = importlib.util.spec_from_file_location("issue", __file__.replace("test_schema", "issue"))
issue = importlib.util.module_from_spec(issue_spec)
issue_spec.loader.exec_module(issue)


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("text", [issue.DAILY_DELAY, issue.ORDERS, issue.SETTINGS])
def test_the_issues_documents_are_valid(validator, text):
    validator.validate(json.loads(text))


@pytest.mark.parametrize(
    "change",
    [
        {"wirte": "append"},
        {"write": "partitions"},
        {"write": {"type": "partitions"}},
        {"write": {"type": "merge", "keys": "id"}},
        {"write": {"type": "append", "keys": ["id"]}},
        {"after": "orders"},
        {"contract": {"on_violation": "quarantin"}},
        {"contract": {"columns": {"a": {"nulable": True}}}},
        {"transforms": [{"sql": 1}]},
        {"destination": {"type": "duckdb", "pth": "w", "table": "t"}},
        {"destination": {"type": "postgres", "path": "w", "table": "t"}},
        {"destination": {"connection": "w", "pth": "x"}},
        {"sources": {"a": {"type": "files"}}},
        {"base": "/"},
        {"params": {"since": "x"}, "name": 1},
    ],
)
def test_a_wrong_document_is_refused(validator, change):
    assert not validator.is_valid({**json.loads(issue.DAILY_DELAY), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"write": "append"},
        {"$schema": "headrace.schema.json"},
        {"name": {"env": "NAME"}},
        {"contract": {"max_rejects": {"env": "N", "default": 3}}},
        {"params": {"token": {"file": "token"}}},
    ],
)
def test_what_is_allowed_besides_is_valid(validator, change):
    validator.validate({**json.loads(issue.DAILY_DELAY), **change})


@pytest.mark.parametrize("change", [{"conections": {}}, {"profiles": {"dev": 1}}, {"connections": {"w": {}}}])
def test_a_wrong_shared_file_is_refused(validator, change):
    assert not validator.is_valid({"defaults": {}, **change})


def test_keys_carry_what_the_docstrings_say(validator):
    merge = validator.schema["$defs"]["Merge"]
    assert merge["description"].startswith("Update the rows whose `keys` (default: the source's primary key) exist")
    assert "settles repeated keys" in merge["properties"]["latest_by"]["description"]

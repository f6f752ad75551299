from pathlib import Path

from headrace.cli import command
from headrace.cli.guarantees import renewed
from headrace.cli.reference import markdown
from headrace.logical import _PLAIN, EXAMPLES, parse_type

_BRACKETED = {"decimal", "datetime", "duration", "time", "list", "array", "struct", "enum"}
ROOT = Path(__file__).parents[2]


def test_the_reference_is_what_the_code_says():
    assert (ROOT / "docs/reference.md").read_text() == markdown(), "make it again: see its first lines"


def test_the_guarantees_in_the_docs_are_those_that_plan_prints():
    document = (ROOT / "docs/guarantees.md").read_text()
    assert document == renewed(document), "make it again: make reference"


def test_every_type_has_an_example_that_is_one():
    words = {parse_type(example).name for example in EXAMPLES}
    also = {word.strip(" ;") for meaning in EXAMPLES.values() for word in meaning.replace("also", ",").split(",")}
    assert words | {word for word in also if word in _PLAIN} == {*_PLAIN, *_BRACKETED}


def test_every_command_and_option_is_explained():
    for name, one in command().commands.items():
        assert one.help, name
        for option in one.params:
            assert option.param_type_name == "argument" or option.help, (name, option.name)

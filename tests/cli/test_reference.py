from pathlib import Path

from headrace.cli import command
from headrace.cli.reference import markdown

ROOT = Path(__file__).parents[2]


def test_the_reference_is_what_the_code_says():
    assert (ROOT / "docs/reference.md").read_text() == markdown(), "make it again: see its first lines"


def test_every_command_and_option_is_explained():
    for name, one in command().commands.items():
        assert one.help, name
        for option in one.params:
            assert option.param_type_name == "argument" or option.help, (name, option.name)

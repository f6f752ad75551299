"""The command. It is thin: it reads options, calls the engine, and prints what comes back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from headrace.cli import signals, stderr

if TYPE_CHECKING:
    import click

__all__ = ["command", "main"]

_READER_GONE = 141


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0, an error's own code (2 config, 3 data, 4 unavailable, 5 conflict, 1 others),
    130 when interrupted.
    """
    given = list(sys.argv[1:] if args is None else args)
    stderr.take()
    with signals.listening():
        try:
            code = _code(given)
            signals.ignore()  # it has ended: what comes now changes nothing
        except KeyboardInterrupt:
            code = signals.INTERRUPTED
        except BaseException:
            if not signals.caught:
                raise
            code = signals.INTERRUPTED  # where it came in the middle of Polars, that makes a panic of it
        if signals.caught:
            signals.end(signals.caught[0])
    sys.exit(code)


def command() -> click.Group:
    """The command with all its subcommands."""
    from headrace.cli import commands, demo

    del demo  # importing it adds its own
    return commands.cli


def _code(args: list[str]) -> int:
    try:
        return _run(args)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; so do we
        return _READER_GONE
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def _run(args: list[str]) -> int:
    import click  # once signals are heard

    try:
        code = command().main(args=args, prog_name="headrace", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return signals.INTERRUPTED
    except click.ClickException as error:
        if "--json" in args:
            wrong: dict[str, Any] = {"type": "UsageError", "message": error.format_message(), "hint": "", "details": {}}
            click.echo(json.dumps({"error": {**wrong, "exit_code": error.exit_code}}))
        else:
            error.show()
        return error.exit_code
    return code if isinstance(code, int) else 0

"""What every command takes, and how a command's answer is printed."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from headrace.cli.signals import INTERRUPTED, caught
from headrace.errors import ConfigError
from headrace.frozen import frozen
from headrace.units import seconds

__all__ = ["Answer", "Common", "Duration", "common", "pipeline", "pipelines"]


@frozen(kw_only=True)
class Common:
    """The options of every command. `verbosity`: -1 quiet, 0, 1 verbose."""

    json: bool
    profile: str | None
    set: tuple[str, ...]
    log_format: str
    verbosity: int


@frozen(kw_only=True)
class Answer:
    """What a command says: a JSON document, and the same for people. `errors` go to stderr."""

    document: Any
    text: str = ""
    exit_code: int = 0
    errors: tuple[dict[str, Any], ...] = ()


class Duration(click.ParamType[float]):
    """A duration: ``90``, ``90s``, ``10m``, ``1h``, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        try:
            return seconds(value)
        except ConfigError as error:
            self.fail(f"{error.message}: {error.hint}", param, ctx)


pipelines = click.argument("targets", metavar="PIPELINE...", nargs=-1, required=True, type=click.Path())
pipeline = click.argument("target", metavar="PIPELINE", type=click.Path())

_OPTIONS = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, and nothing else there."),
    click.option("--profile", help="The profile of headrace.json; else the environment's HEADRACE_PROFILE."),
    click.option(
        "--set", "set_", multiple=True, metavar="KEY.PATH=VALUE", help="Override a key; VALUE is JSON, else text."
    ),
    click.option(
        "--log-format",
        envvar="HEADRACE_LOG_FORMAT",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How stderr is written; json: an object a line.",
    ),
    click.option(
        "-v", "--verbose", is_flag=True, help="Say more: a bug's traceback, what engines and child processes print."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
)


def common(empty: dict[str, Any] | None = None) -> Callable[[Callable[..., Answer]], Callable[..., int]]:
    """Give a command the common options, and print its Answer or its error.

    `empty` is what the JSON document holds beside ``error`` when the command fails.
    """

    def decorate(command: Callable[..., Answer]) -> Callable[..., int]:
        @functools.wraps(command)
        def wrapped(
            *,
            as_json: bool,
            profile: str | None,
            set_: tuple[str, ...],
            log_format: str,
            verbose: bool,
            quiet: bool,
            **rest: Any,
        ) -> int:
            options = Common(
                json=as_json, profile=profile, set=set_, log_format=log_format, verbosity=int(verbose) - int(quiet)
            )
            try:
                return _answered(lambda: command(options, **rest), options, empty or {})
            except KeyboardInterrupt:  # click would write an empty line, and that is no JSON
                return INTERRUPTED

        made: Callable[..., int] = wrapped
        for option in reversed(_OPTIONS):
            made = option(made)
        return made

    return decorate


def _answered(command: Callable[[], Answer], options: Common, empty: dict[str, Any]) -> int:
    from headrace.cli import logs, output, stderr

    if options.verbosity > 0:
        stderr.share()
    logs.begin(options)
    # With --json stdout belongs to the document: what a transform prints goes to stderr.
    guard = contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext()
    try:
        with guard:
            answer = command()
    except click.ClickException:
        raise
    except Exception as error:
        if caught:
            raise KeyboardInterrupt from error
        problem = output.problem(error, options)
        code = int(problem["exit_code"])
        answer = Answer(document={**empty, "error": problem}, exit_code=code, errors=(problem,))
    output.show(answer, options)
    return answer.exit_code

"""The commands. Each imports what it needs when it runs: ``--help`` pays for none of it."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli.options import Answer, Common, Duration, common, pipeline, pipelines
from headrace.cli.signals import caught
from headrace.errors import ConfigError, HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import polars as pl

    from headrace.events import Event, Observer
    from headrace.pipeline import Pipeline
    from headrace.report import CheckReport, NotKnown, Plan, Refused, RunReport

__all__ = ["cli", "reported"]


class _InOrder(click.Group):
    """Commands in the order in which they are written here, which is that of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="headrace", message="headrace %(version)s")
def cli() -> None:
    """Data pipelines that never lose and never double a row.

    PIPELINE is a .json file, a folder of them (a project), or file.py:name.
    """


def _load(targets: tuple[str, ...], options: Common) -> list[Pipeline]:
    from headrace.config import load_all

    return load_all(targets, profile=options.profile, set=options.set)


def _load_one(target: str, options: Common) -> Pipeline:
    found = _load((target,), options)
    if len(found) != 1:
        raise ConfigError(f"{target} is a folder of {len(found)} pipelines", hint="name one of its files")
    return found[0]


def _observers(options: Common) -> tuple[Observer, ...]:
    """Who watches a run: the log, and on a terminal the progress line."""
    from headrace.cli.logs import EventLog

    log = EventLog()
    if options.verbosity >= 0 and options.log_format == "text" and sys.stderr.isatty():
        from headrace.cli.progress import ProgressLine

        return (ProgressLine(), log)
    return (log,)


def reported(one: Pipeline, run: Callable[[tuple[Observer, ...]], RunReport], options: Common) -> RunReport:
    """The run's report; that of its failure where it fails."""
    from headrace.report import RunReport

    runs: list[str] = []

    def note(event: Event) -> None:
        if event.run not in runs:
            runs.append(event.run)

    try:
        return run((note, *_observers(options)))
    except Exception as error:  # in a project the others go on
        if caught:
            raise KeyboardInterrupt from error
        from headrace.cli import output

        run_id = runs[-1] if runs else ""
        failed = RunReport(pipeline=one.name, run=run_id, status="failed")
        if isinstance(error, HeadraceError):
            failed = RunReport.failed(one.name, error, run=run_id)
        return replace(failed, error=output.problem(error, options))


def _runs(reports: list[RunReport], options: Common) -> Answer:
    said = [str(report) for report in reports if report.error is None]
    errors = tuple(
        {**report.error, "message": f"{report.pipeline}: {report.error['message']}", "run": report.run}
        for report in reports
        if report.error is not None
    )
    return Answer(
        document={"runs": [report.to_dict() for report in reports]},
        text="\n".join(said) if options.verbosity >= 0 else "",
        exit_code=int(errors[0]["exit_code"]) if errors else 0,
        errors=errors,
    )


@cli.command()
@pipelines
@click.option("--full-refresh", is_flag=True, help="Read everything again and replace what is there.")
@click.option("--discard-history", is_flag=True, help="Allow a full refresh to drop the versions a history keeps.")
@click.option("--wait", type=Duration(), default=0.0, help="Wait this long for another run's lock, e.g. 10m.")
@click.option("--timeout", type=Duration(), help="Stop a run that takes longer, e.g. 1h.")
@click.option(
    "--retry", type=click.IntRange(min=1), metavar="N", help="Try a run up to N times while a system is unavailable."
)
@common({"runs": []})
def run(
    options: Common,
    *,
    targets: tuple[str, ...],
    full_refresh: bool,
    discard_history: bool,
    wait: float,
    timeout: float | None,
    retry: int | None,
) -> Answer:
    """Run pipelines: load what is new.

    Of a folder all of them are run, in the order that follows from what each writes and reads.
    """
    from headrace.project import Project

    project = Project.of(_load(targets, options))

    def one(pipeline: Pipeline) -> RunReport:
        from headrace import engine
        from headrace.retry import Retry

        return reported(
            pipeline,
            lambda observers: engine.run(
                pipeline,
                full_refresh=full_refresh,
                discard_history=discard_history,
                observers=observers,
                wait=wait,
                timeout=timeout,
                retry=Retry(attempts=retry) if retry else None,
            ),
            options,
        )

    return _runs(project.run(one), options)


@cli.command()
@pipelines
@click.option("--full-refresh", is_flag=True, help="Plan a run that reads everything again.")
@click.option("--explain", is_flag=True, help="Show the optimised query plan too.")
@common({"plans": []})
def plan(options: Common, *, targets: tuple[str, ...], full_refresh: bool, explain: bool) -> Answer:
    """Say all that `run` would do, and write nothing."""
    from headrace.project import Project

    project = Project.of(_load(targets, options))
    from headrace import engine

    return _looked("plans", project.look(lambda one: engine.plan(one, full_refresh=full_refresh, explain=explain)))


@cli.command()
@pipelines
@common({"checks": []})
def check(options: Common, *, targets: tuple[str, ...]) -> Answer:
    """Check all but the data: nothing is read.

    Config, files, transforms, contract and target.
    """
    from headrace.project import Project

    project = Project.of(_load(targets, options))
    from headrace import engine

    return _looked("checks", project.look(engine.check))


def _looked(key: str, reports: Sequence[Plan | CheckReport | NotKnown | Refused]) -> Answer:
    """What a look at each pipeline came to: one that cannot run does not hide the others."""
    from headrace.report import Refused

    errors = [one for one in reports if isinstance(one, Refused)]
    return Answer(
        document={key: [one.to_dict() for one in reports]},
        text="\n".join(str(one) for one in reports if not isinstance(one, Refused)),
        exit_code=int(errors[0].error["exit_code"]) if errors else 0,
        errors=tuple({**one.error, "message": f"{one.pipeline}: {one.error['message']}"} for one in errors),
    )


@cli.command()
@pipeline
@click.option("--step", metavar="NAME", help="The step (or source) to look at; default: the last.")
@click.option("--limit", type=click.IntRange(min=0), default=10, show_default=True, help="How many rows.")
@common()
def preview(options: Common, *, target: str, step: str | None, limit: int) -> Answer:
    """Show the first rows after any step; write nothing."""
    one = _load_one(target, options)
    from headrace import engine

    frame = engine.preview(one, step=step, limit=limit)
    columns = [{"name": name, "type": str(dtype)} for name, dtype in frame.schema.items()]
    document = {"pipeline": one.name, "step": step, "columns": columns, "rows": frame.to_dicts()}
    return Answer(document=document, text=_framed(frame))


def _framed(frame: pl.DataFrame) -> str:
    import polars as pl

    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=shutil.get_terminal_size((200, 24)).columns):
        return str(frame)


@cli.command()
@pipeline
@common()
def history(options: Common, *, target: str) -> Answer:
    """List commits and runs, newest first.

    Failed and empty ones too.
    """
    one = _load_one(target, options)
    from headrace import engine
    from headrace.cli.tables import history_text

    entries = engine.history(one)
    return Answer(document={"pipeline": one.name, "history": entries}, text=history_text(entries))


@cli.command()
@pipeline
@click.option(
    "--export", type=click.Path(dir_okay=False, path_type=Path), help="Write them to a CSV file, to be mended."
)
@common()
def rejects(options: Common, *, target: str, export: Path | None) -> Answer:
    """Show the quarantined rows with their reasons."""
    one = _load_one(target, options)
    from headrace import engine
    from headrace.cli.tables import rejects_json, rejects_text

    frame = engine.rejects(one)
    if export is not None:
        from headrace import disk
        from headrace.engine.quarantine import export as mendable

        with disk.translated(export):
            mendable(frame).write_csv(export)
        document = {"pipeline": one.name, "exported": str(export), "count": frame.height}
        return Answer(document=document, text=f"{frame.height:,} rejected rows written to {export}")
    return Answer(document={"pipeline": one.name, "rejects": rejects_json(frame)}, text=rejects_text(frame))


@cli.command()
@pipeline
@click.option("--from", "fixed", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The mended rows.")
@click.option("--discard", is_flag=True, help="Give the quarantined rows up; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why they are given up; kept in the ledger.")
@click.option("--wait", type=Duration(), default=0.0, help="Wait this long for another run's lock, e.g. 10m.")
@common({"runs": []})
def replay(
    options: Common, *, target: str, fixed: Path | None, discard: bool, reason: str | None, wait: float
) -> Answer:
    """Take the quarantined rows through again.

    Or give them up; in one commit.
    """
    if discard != (reason is not None):
        raise click.UsageError("--discard and --reason go together")
    if discard and fixed is not None:
        raise click.UsageError("give either --from or --discard")
    one = _load_one(target, options)
    from headrace.engine.quarantine import discard as give_up
    from headrace.engine.quarantine import replay as take_again

    def act(observers: tuple[Observer, ...]) -> RunReport:
        if reason is not None:
            return give_up(one, reason=reason, observers=observers, wait=wait)
        return take_again(one, fixed=fixed, observers=observers, wait=wait)

    return _runs([reported(one, act, options)], options)


@cli.command()
@common()
def schema(_options: Common) -> Answer:
    """Print the JSON Schema of the config.

    For an editor to complete it.
    """
    from headrace.config import json_schema

    document = json_schema()
    return Answer(document=document, text=json.dumps(document, indent=2, ensure_ascii=False))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common()
def completion(_options: Common, *, shell: str) -> Answer:
    """Print a shell's completion script.

    E.g. eval "$(headrace completion bash)".
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - the choice says so
    source = found(cli, {}, "headrace", "_HEADRACE_COMPLETE").source()
    return Answer(document={"shell": shell, "script": source}, text=source)

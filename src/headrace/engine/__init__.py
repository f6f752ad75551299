"""The engine: the verbs. One loop, stopped before `apply` by `plan`, `check` and `preview`.

hold the target -> inspect it -> make increments -> apply each -> confirm the sources -> record the run
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.engine.decisions import Reading, reading, refuse_start
from headrace.engine.increment import Context
from headrace.engine.opening import increments
from headrace.engine.running import drained, running, target, widened
from headrace.errors import ConfigError, UnheldError
from headrace.events import Observer
from headrace.flow import Snapshot
from headrace.report import CheckReport, Plan, RunReport
from headrace.retry import Retry
from headrace.transform import transform

if TYPE_CHECKING:
    import polars as pl

    from headrace.engine.bundle import Bundle
    from headrace.engine.increment import Increment
    from headrace.pipeline import Pipeline

__all__ = ["check", "history", "plan", "preview", "rejects", "run"]


def run(
    pipeline: Pipeline,
    *,
    full_refresh: bool = False,
    discard_history: bool = False,
    observers: Sequence[Observer] = (),
    wait: float = 0.0,
    timeout: float | None = None,
    retry: Retry | None = None,
) -> RunReport:
    """Load what is new, in commits that are applied wholly or not at all.

    `full_refresh` reads everything again into an emptied table, in one step (with `commit_every` in several: the
    first one empties the table, and a warning says so); where there is no row to read the table stays as it is, and a
    warning says so. `wait`: seconds to wait for another run of the same target. `timeout`: seconds after which the run
    stops between two batches, with nothing of the commit kept. `retry` says how often an UnavailableError is tried
    again.

    Raises HeadraceError: nothing of the failed commit is in the target, and the next run carries on.
    """
    with running(pipeline, observers=observers, wait=wait, timeout=timeout, retry=retry or Retry()) as this:

        def load() -> None:
            snapshot = this.inspect()
            refreshing = full_refresh and not this.commits
            refuse_start(pipeline, snapshot, full_refresh=refreshing, discard_history=discard_history)
            how = replace(
                reading(pipeline, full_refresh=refreshing), discard_history=discard_history, as_text=this.as_text
            )
            with closing(increments(pipeline, snapshot, how, this.context)) as all:
                for increment in all:
                    this.apply(increment)

        this.patient(retry or Retry()).call(lambda: this.heeding(load))
    return this.report()


def plan(pipeline: Pipeline, *, full_refresh: bool = False, explain: bool = False) -> Plan:
    """All that `run` would do now, without writing. Raises what `run` would raise before it reads rows."""
    from headrace.engine.planning import planned

    with _first(pipeline, full_refresh=full_refresh) as (increment, snapshot):
        return planned(pipeline, increment, snapshot, explain=explain)


def check(pipeline: Pipeline) -> CheckReport:
    """Whether the pipeline would run, as far as can be known without reading its data: config, files,
    the transforms' schema against contract and target. Raises what is wrong.
    """
    from headrace.engine.planning import ddl, schema_of

    with _first(pipeline, full_refresh=False) as (increment, _):
        return CheckReport(
            pipeline=pipeline.name,
            target=target(pipeline),
            schema=schema_of(increment),
            changes=ddl(pipeline, increment),
            warnings=increment.warnings,
        )


def preview(pipeline: Pipeline, *, step: str | None = None, limit: int = 10) -> pl.DataFrame:
    """The first rows of the result, or of the source or step called `step`. Writes nothing.

    Reads as if nothing had been loaded yet, so that there is something to see.
    """
    how = replace(reading(pipeline, full_refresh=False), batch_bytes=None)
    while True:
        try:
            return _previewed(pipeline, how, step=step, limit=limit)
        except UnheldError as error:  # as a run does: see Running.heed
            how = replace(how, as_text=widened(how.as_text, error))


def _previewed(pipeline: Pipeline, how: Reading, *, step: str | None, limit: int) -> pl.DataFrame:
    from headrace.engine.planning import chosen

    with closing(increments(pipeline, Snapshot(), how, Context(run="preview"))) as every, closing(next(every)) as made:
        increment, step = chosen(made, step)
        if step is None:
            lazy = increment.screen.lazy
        else:
            frames = {n: s.lazy for n, s in increment.rows.screens.items()}
            previous = next(iter(frames)) if len(frames) == 1 else None
            lazy = transform(
                pipeline.steps, frames, previous=previous, params=pipeline.params, base=pipeline.base, until=step
            ).lazy
        return drained(lambda: lazy.head(limit).collect(), increment)


def history(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Commits and runs of the pipeline, newest first."""
    return [dict(row) for row in pipeline.destination.history(pipeline.name)]


def rejects(pipeline: Pipeline) -> pl.DataFrame:
    """The rows now in quarantine, with the columns of `schema.REJECTS`."""
    return pipeline.destination.rejects(pipeline.name)


@contextmanager
def _first(pipeline: Pipeline, *, full_refresh: bool) -> Iterator[tuple[Increment | Bundle, Snapshot]]:
    """The first increment that a run would make now, and what it starts from."""
    if (hint := pipeline.destination.supports(pipeline.write.type)) is not None:
        raise ConfigError(f"{target(pipeline)} cannot take the write {pipeline.write.type!r}", hint=hint)
    snapshot = pipeline.destination.inspect(pipeline.name)
    refuse_start(pipeline, snapshot, full_refresh=full_refresh, discard_history=True)
    how = replace(reading(pipeline, full_refresh=full_refresh), discard_history=True)
    with closing(increments(pipeline, snapshot, how, Context(run="plan"))) as every, closing(next(every)) as increment:
        yield increment, snapshot

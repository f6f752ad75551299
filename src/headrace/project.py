"""A project: pipelines in the order that follows from what each writes and reads, side by side where none does.

An edge runs from a pipeline to those that must have run before it: the ones it names in ``after``, those whose
table it reads (a `table` source), and those that write a table or files which one of its sources reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from headrace import guard, interruption
from headrace.errors import ConfigError, HeadraceError
from headrace.frozen import frozen
from headrace.paths import Place

if TYPE_CHECKING:
    from headrace.pipeline import Pipeline
    from headrace.report import CheckReport, NotKnown, Plan, Refused, RunReport

    Look = Plan | CheckReport

__all__ = ["Project"]

_LISTEN = 0.1  # seconds between looks whether a signal has come


@frozen
class Project:
    """Pipelines and, by name, those that must have run before each."""

    pipelines: Sequence[Pipeline]
    before: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @staticmethod
    def of(pipelines: Iterable[Pipeline]) -> Project:
        """The project of these pipelines, in an order that can be run. A name in ``after`` that is not among
        them is taken to have run already. Raises ConfigError that names a cycle.
        """
        given = list(pipelines)
        before = {one.name: frozenset(_before(one, given)) for one in given}
        return Project(_ordered(given, before), before)

    def run(self, run: Callable[[Pipeline], RunReport]) -> list[RunReport]:
        """Run all of them; reports in the project's order.

        `run` gives a report for a failure too. What depends on a failed or skipped pipeline is skipped; the
        others go on. At most as many run at once as this process may use CPUs; two that use one DuckDB file
        (one writer, one configuration in a process) or one folder do not.
        """
        if len(self.pipelines) == 1:
            return [run(self.pipelines[0])]  # in this thread: Ctrl-C reaches it
        reports: dict[str, RunReport] = {}
        running: dict[Future[RunReport], Pipeline] = {}
        waiting = list(self.pipelines)
        pool = ThreadPoolExecutor(guard.cpu_count(), thread_name_prefix="headrace")
        try:
            while waiting or running:
                waiting = self._skip(waiting, reports)
                for pipeline in self._ready(waiting, reports, running.values()):
                    running[pool.submit(run, pipeline)] = pipeline
                    waiting.remove(pipeline)
                # Polars takes SIGINT over with SA_RESTART, so a wait without an end never hears of Ctrl-C.
                done, _ = wait(running, timeout=_LISTEN, return_when=FIRST_COMPLETED)
                for future in done:
                    reports[running.pop(future).name] = future.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)  # who interrupts does not want to wait for the others
            if interruption.came():
                wait(running)  # each breaks off, and puts that on record
            raise
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()
        return [reports[pipeline.name] for pipeline in self.pipelines]

    def look(self, look: Callable[[Pipeline], Look]) -> list[Look | NotKnown | Refused]:
        """`look` (a plan, a check) at each, in the order in which they would run; one that is refused does not stop
        the others.

        What fails because a pipeline before it has written nothing yet is not refused: it is not known yet. A plan
        that a pipeline before it will overtake says so.
        """
        from headrace.report import NotKnown, Plan, Refused

        found: dict[str, Look | NotKnown | Refused] = {}
        named = {one.name: one for one in self.pipelines}
        for one in self.pipelines:
            before = sorted(self.before[one.name] & named.keys() - {one.name})
            try:
                report = look(one)
            except HeadraceError as error:
                unwritten = [name for name in before if _unwritten(named[name])]
                found[one.name] = (
                    NotKnown(pipeline=one.name, before=unwritten, because=error.message)
                    if unwritten
                    else Refused(pipeline=one.name, error=error.to_dict())
                )
                continue
            found[one.name] = report
            moving = [name for name in before if getattr(found[name], "status", None) in ("load", "not_known")]
            if isinstance(report, Plan) and moving:
                said = f"as things are now: {', '.join(moving)} would run first, and change what this one reads"
                found[one.name] = replace(report, warnings=(*report.warnings, said))
        return [found[one.name] for one in self.pipelines]

    def _skip(self, waiting: Sequence[Pipeline], reports: dict[str, RunReport]) -> list[Pipeline]:
        """Report those that cannot run any more; gives the others. `waiting` is in order, so one pass will do."""
        from headrace.report import RunReport

        left = []
        for pipeline in waiting:
            bad = [name for name in self.before[pipeline.name] if name in reports and not _fine(reports[name])]
            if bad:
                because = f"{min(bad)} {reports[min(bad)].status}"
                reports[pipeline.name] = RunReport.skipped(pipeline.name, because=because)
            else:
                left.append(pipeline)
        return left

    def _ready(
        self, waiting: Sequence[Pipeline], reports: Mapping[str, RunReport], running: Iterable[Pipeline]
    ) -> list[Pipeline]:
        taken = {place for pipeline in running for place in _exclusive(pipeline)}
        ready = []
        for pipeline in waiting:
            places = _exclusive(pipeline)
            if self.before[pipeline.name] <= reports.keys() and not places & taken:
                ready.append(pipeline)
                taken |= places
        return ready


def _unwritten(pipeline: Pipeline) -> bool:
    """Whether the pipeline has made no commit yet."""
    try:
        return pipeline.destination.inspect(pipeline.name).number == 0
    except HeadraceError:
        return False


def _fine(report: RunReport) -> bool:
    return report.status in ("loaded", "nothing_new")


def _ordered(pipelines: Sequence[Pipeline], before: Mapping[str, frozenset[str]]) -> list[Pipeline]:
    """Each after those it depends on, else as given."""
    ordered: list[Pipeline] = []
    done: set[str] = set()
    left = list(pipelines)
    while left:
        ready = next((one for one in left if before[one.name] <= done), None)
        if ready is None:
            cycle = _cycle(left[0].name, before, done)
            raise ConfigError(
                f"the pipelines depend on each other in a circle: {' -> '.join(cycle)}",
                hint="an arrow reads: needs what the next one writes; take one of them away",
                details={"cycle": cycle},
            )
        ordered.append(ready)
        done.add(ready.name)
        left.remove(ready)
    return ordered


def _cycle(name: str, before: Mapping[str, frozenset[str]], done: set[str]) -> list[str]:
    seen: list[str] = []
    while name not in seen:
        seen.append(name)
        name = min(before[name] - done)
    return [*seen[seen.index(name) :], name]


def _before(pipeline: Pipeline, others: Sequence[Pipeline]) -> set[str]:
    found = {name for name in pipeline.after if any(other.name == name for other in others)}
    reads = _reads(pipeline)
    found |= {other.name for other in others if any(_meets(r, w) for r in reads for w in _writes(other))}
    itself = pipeline.name in pipeline.after or _called(pipeline) in reads
    return found if itself else found - {pipeline.name}  # a table may be read to be written: a query on the target


def _called(pipeline: Pipeline) -> Place:
    return Place(system="pipeline", where=pipeline.name)


def _reads(pipeline: Pipeline) -> list[Place]:
    return [place for source in pipeline.named_sources.values() for place in source.places()]


def _writes(pipeline: Pipeline) -> list[Place]:
    there = pipeline.destination.place()
    return [_called(pipeline)] if there is None else [_called(pipeline), there]


def _meets(read: Place, written: Place) -> bool:
    """Whether the one may be, or be in, the other."""
    if read.system != written.system or (read.name != written.name and None not in (read.name, written.name)):
        return False
    return read.where == written.where or _segments_meet(read.where.split("/"), written.where.split("/"))


def _segments_meet(pattern: Sequence[str], place: Sequence[str]) -> bool:
    if not pattern and not place:
        return True
    if pattern and pattern[0] == "**":
        return _segments_meet(pattern[1:], place) or (bool(place) and _segments_meet(pattern, place[1:]))
    if place and place[0] == "**":
        return _segments_meet(pattern, place[1:]) or (bool(pattern) and _segments_meet(pattern[1:], place))
    if not pattern or not place:
        return False
    return fnmatchcase(place[0], pattern[0]) and _segments_meet(pattern[1:], place[1:])


def _exclusive(pipeline: Pipeline) -> set[tuple[str, str]]:
    """What only one run of this process may use at a time: what is written, and what can be opened but once."""
    there = pipeline.destination.place()
    places = [place for place in _reads(pipeline) if place.exclusive] + ([there] if there is not None else [])
    return {(place.system, place.where) for place in places}

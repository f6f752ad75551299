"""What a run, a plan and a check say of themselves: values that read well and turn into JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields
from typing import Any, Literal

from headrace.errors import HeadraceError
from headrace.frozen import frozen
from headrace.secret import masked

__all__ = ["CheckReport", "CommitReport", "NotKnown", "Plan", "Refused", "RunReport", "Status"]

Status = Literal["loaded", "nothing_new", "failed", "skipped"]


_PLAIN = ("pipeline", "run", "status", "schema", "commits", "id")  # names and ids: nothing is made of a secret


class _Said:
    """What is said to people: without secrets."""

    def __post_init__(self) -> None:
        for one in fields(self):  # type: ignore[arg-type]  # each of them is a dataclass
            if one.name not in _PLAIN:
                object.__setattr__(self, one.name, masked(getattr(self, one.name)))


@frozen(kw_only=True)
class CommitReport(_Said):
    """One commit that a run applied. `counts`: rows, inserted, updated, deleted, rejected, dropped."""

    id: str
    number: int
    counts: Mapping[str, int]
    read: Mapping[str, Mapping[str, int]]
    changes: Sequence[str] = ()


@frozen(kw_only=True)
class RunReport(_Said):
    """What a run did. `status`: loaded, nothing_new, failed or skipped. `seconds` is wall time, `peak_mb` the
    process's greatest resident memory so far.
    """

    pipeline: str
    run: str
    status: Status
    target: str = ""
    started: str = ""
    seconds: float = 0.0
    peak_mb: int = 0
    commits: Sequence[CommitReport] = ()
    warnings: Sequence[str] = ()
    error: Mapping[str, Any] | None = None

    @staticmethod
    def failed(pipeline: str, error: HeadraceError, *, run: str = "") -> RunReport:
        """The report of a run that ended in `error`, or could not begin."""
        return error.report or RunReport(pipeline=pipeline, run=run, status="failed", error=error.to_dict())

    @staticmethod
    def skipped(pipeline: str, *, because: str) -> RunReport:
        """The report of a pipeline that was not run, and why."""
        return RunReport(pipeline=pipeline, run="", status="skipped", warnings=(because,))

    @property
    def counts(self) -> dict[str, int]:
        """The commits' counts, summed."""
        total: dict[str, int] = {}
        for commit in self.commits:
            for name, count in commit.counts.items():
                total[name] = total.get(name, 0) + count
        return total

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return {**asdict(self), "counts": self.counts}

    def __str__(self) -> str:
        where = f" {'into' if self.status == 'loaded' else 'for'} {self.target}" if self.target else ""
        lines = [f"{self.pipeline}: {self.status.replace('_', ' ')}{where}"]
        if self.commits:
            told = ", ".join(f"{count:,} {name}" for name, count in self.counts.items() if count)
            lines.append(f"  {told or 'no rows'}")
            lines.append(f"  commit {self.commits[-1].number}, {self.seconds:.1f} s, {self.peak_mb:,} MB at most")
        lines += [f"  {change}" for commit in self.commits for change in commit.changes]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        if self.error:
            lines.append(f"  error: {self.error['message']}")
            if self.error["hint"]:
                lines.append(f"  hint: {self.error['hint']}")
        return "\n".join(lines)


@frozen(kw_only=True)
class Plan(_Said):
    """What `run` would do now. Nothing was written to find out.

    `sources`: by name, what is new and what is known of it. `changes`: schema changes as DDL. `guarantee` and
    `because`: what holds whatever instant the run dies at, and why.
    """

    pipeline: str
    status: Literal["load", "nothing_new"]
    target: str
    write: Mapping[str, Any]
    sources: Mapping[str, Mapping[str, Any]]
    schema: Sequence[Mapping[str, str]]
    changes: Sequence[str]
    guarantee: str
    because: str
    commit: int
    warnings: Sequence[str] = ()
    query: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        write = " ".join([str(self.write["type"]), *(f"{k}={_words(v)}" for k, v in self.write.items() if k != "type")])
        lines = [f"{self.pipeline} -> {self.target}: {write}"]
        for name, facts in self.sources.items():
            lines.append(f"  source {name}")
            lines += [f"    {key}: {_fact(key, value)}" for key, value in facts.items() if value not in (None, [], {})]
        if self.status == "nothing_new":
            lines.append("  nothing is new: a run would write nothing")
        else:
            lines.append(f"  would be commit {self.commit}")
        if self.schema:  # of many tables, each says its own
            lines.append("  columns: " + ", ".join(f"{c['name']} {c['type']}" for c in self.schema))
        lines += [f"  schema change: {change}" for change in self.changes]
        lines.append(f"  guarantee: {self.guarantee}")
        lines.append(f"    because {self.because}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        if self.query:
            lines += ["  query plan:", *(f"    {line}" for line in self.query.splitlines())]
        return "\n".join(lines)


@frozen(kw_only=True)
class CheckReport(_Said):
    """A pipeline that would run, as far as can be known without reading its data."""

    pipeline: str
    target: str
    schema: Sequence[Mapping[str, str]]
    changes: Sequence[str] = ()
    warnings: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.pipeline}: ok, {len(self.schema)} columns into {self.target}"]
        lines += [f"  schema change: {change}" for change in self.changes]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


@frozen(kw_only=True)
class NotKnown(_Said):
    """What cannot be planned or checked yet: what the pipeline reads is still to be written by `before`."""

    pipeline: str
    before: Sequence[str]
    because: str
    status: Literal["not_known"] = "not_known"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.pipeline}: not known before {', '.join(self.before)} has run\n  because {self.because}"


@frozen(kw_only=True)
class Refused(_Said):
    """A pipeline of a project that would not run, and why."""

    pipeline: str
    error: Mapping[str, Any]
    status: Literal["refused"] = "refused"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


def _fact(key: str, value: Any) -> str:
    """What a plan knows of a source, on one line."""
    if key == "bounds":
        begin = "the beginning" if value["from"] is None else str(value["from"])
        return f"{value['column']} {'from' if value['inclusive'] or value['from'] is None else 'after'} {begin} on"
    return _words(value)


def _words(value: Any) -> str:
    """A JSON value on one line; long lists cut, with their length."""
    if isinstance(value, list | tuple):
        shown = ", ".join(_words(v) for v in value[:5])
        return shown + (f", … ({len(value):,} in all)" if len(value) > 5 else "")  # noqa: PLR2004 - for the eye
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_words(v)}" for k, v in value.items() if v is not None)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

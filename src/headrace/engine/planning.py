"""What an increment would do, in words: for `plan` and `check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.engine.bundle import Bundle
from headrace.engine.decisions import holds_versions
from headrace.engine.guarantees import guarantee
from headrace.engine.increment import Increment
from headrace.engine.running import target
from headrace.errors import ConfigError
from headrace.flow import Batch, Snapshot
from headrace.report import Plan
from headrace.traits import DestinationTraits, SourceTraits
from headrace.writes import Recompute, Replace

if TYPE_CHECKING:
    from headrace.pipeline import Pipeline

__all__ = ["chosen", "ddl", "planned", "schema_of"]

_LIMITS = ("max_rejects", "max_reject_share", "min_rows", "max_rows")
"""A contract's bounds on what is judged at once."""


def planned(pipeline: Pipeline, increment: Increment | Bundle, snapshot: Snapshot, *, explain: bool) -> Plan:
    """The plan that a run would carry out now."""
    promise, because = _promised(pipeline, increment)
    return Plan(
        pipeline=pipeline.name,
        status="nothing_new" if increment.empty else "load",
        target=target(pipeline),
        write={"type": "tables", "count": len(increment.parts)}
        if isinstance(increment, Bundle)
        else _write_words(increment),
        sources={n: _news_words(one, n) | _own_words(increment, one) for n, one in _by_source(increment)},
        schema=schema_of(increment),
        changes=ddl(pipeline, increment),
        guarantee=promise,
        because=because,
        commit=snapshot.number + 1,
        warnings=(
            *increment.warnings,
            *_unsaid(increment, snapshot),
            *_by_commit(pipeline, increment),
            *_notes(pipeline, increment),
        ),
        query=_explained(increment) if explain else None,
    )


def _unsaid(increment: Increment | Bundle, snapshot: Snapshot) -> tuple[str, ...]:
    """What a run must be told besides: see `decisions.refuse_start`."""
    of = (lambda _table: snapshot) if isinstance(increment, Increment) else snapshot.of
    if any(one.fresh and holds_versions(one.write, of(one.table)) for one in increment.changes):
        return ("a run is refused without --discard-history: it would lose the versions that the source no longer has",)
    return ()


def _by_commit(pipeline: Pipeline, increment: Increment | Bundle) -> tuple[str, ...]:
    """What of the contracts holds for each commit alone, where a load is cut into several."""
    if not pipeline.commit_every or not any(SourceTraits.of(s).cuts for s in pipeline.named_sources.values()):
        return ()
    contracts = () if increment.empty else pipeline.contracts.values()
    limits = [*(["fail"] if any(c.can("fail") for c in contracts) else [])]
    limits += [n for n in _LIMITS if any(getattr(c, n) is not None for c in contracts)]
    said = "commit_every: of the contract {} of each commit alone: those before one that fails stay"
    return (said.format(f"{', '.join(limits)} {'is' if len(limits) == 1 else 'are'}"),) if limits else ()


def chosen(made: Increment | Bundle, step: str | None) -> tuple[Increment, str | None]:
    """The increment to look into, and the step of it: of many tables the one that `step` names, else the first.

    Raises ConfigError.
    """
    if isinstance(made, Increment):
        return made, step
    if step is not None and step not in made.parts:
        raise ConfigError(f"there is no table {step!r}", hint=f"there are: {', '.join(made.parts)}")
    return made.parts[step or next(iter(made.parts))], None


def schema_of(increment: Increment | Bundle) -> list[dict[str, str]]:
    """The table's columns as JSON; of many tables none."""
    return increment.change.schema.to_json() if isinstance(increment, Increment) else []


def _explained(increment: Increment | Bundle) -> str | None:
    return increment.screen.lazy.explain() if isinstance(increment, Increment) else None


def _by_source(increment: Increment | Bundle) -> list[tuple[str, Increment]]:
    parts = [increment] if isinstance(increment, Increment) else list(increment.parts.values())
    return [(name, part) for part in parts for name in part.batches]


def _own_words(whole: Increment | Bundle, part: Increment) -> dict[str, Any]:
    """What of many tables each says for itself."""
    if isinstance(whole, Increment):
        return {}
    news = {} if part.empty else {"write": _write_words(part)}
    return {"into": part.change.table, "nothing_new": part.empty or None, **news}


def _promised(pipeline: Pipeline, increment: Increment | Bundle) -> tuple[str, str]:
    """The guarantee, and why; of many tables that of each write among them, and what all have in common."""
    misses = [f"{n}: {b.news.misses}" for n, b in increment.batches.items() if b.news.misses]
    if isinstance(increment, Increment):
        misses += [*_regrouping(increment), *_unseen_changes(increment)]
        return guarantee(increment.change.write, pipeline.destination, misses=misses)
    writes = {type(part.change.write): part.change.write for part in increment.parts.values()}
    told = [guarantee(write, pipeline.destination) for write in writes.values()]
    promise = "; ".join([*(p for p, _ in told), *([f"but not seen: {', '.join(misses)}"] if misses else [])])
    return promise, "; ".join([*(b for _, b in told), "all tables are of one snapshot and change in one commit"])


def _regrouping(increment: Increment) -> list[str]:
    """A recompute of the groups that new rows touch does not know the group that a row by a cursor was in before."""
    write = increment.change.write
    if not isinstance(write, Recompute) or increment.rows.transformed.why_all_groups(write.by) is not None:
        return []
    changing = {n: increment.pipeline.named_sources[n] for n in increment.drivers}
    return [
        f"{n}: that a changed row is no more in the group that it was in"
        for n, source in changing.items()
        if SourceTraits.of(source).cursor is not None
    ]


def _unseen_changes(increment: Increment) -> list[str]:
    """A look-up that cannot tell whether it has changed is no news by itself to a write that sees everything."""
    if not isinstance(increment.change.write, Replace | Recompute):
        return []
    looked = {n: b for n, b in increment.batches.items() if n not in increment.drivers}
    return [f"{n}: a change of it, before other sources have news" for n, b in looked.items() if b.news.empty is None]


def _write_words(increment: Increment) -> dict[str, Any]:
    write = increment.change.write
    words = {k: v for k, v in vars(write).items() if v not in ((), None, False)}
    if write.type == "recompute":
        rebuilt = increment.groups.rebuilt
        words["groups"] = f"all, because {rebuilt}" if rebuilt else "those that the new rows touch"
    if (census := increment.change.census) is not None:
        words["deletes"] = f"rows whose keys the source has no more, at most {census.max:.0%} of them"
    return {"type": write.type, **words}


def _news_words(increment: Increment, name: str) -> dict[str, Any]:
    batch = increment.batches[name]
    news = batch.news
    return {
        "reads": _reads(increment, batch),
        "files": [f.name for f in news.files],
        "rows": news.rows,
        "bytes": news.bytes,
        **news.facts,
    }


def _reads(increment: Increment, batch: Batch) -> str:
    if batch.complete or increment.change.fresh:
        return "all of it"
    if not isinstance(increment.change.write, Replace | Recompute):
        return "what is new"
    again = "the groups that it touches" if increment.change.groups else "all that was read before"
    return f"what is new, and with it {again}"


def ddl(pipeline: Pipeline, increment: Increment | Bundle) -> tuple[str, ...]:
    """The schema changes, in the destination's own words where it has such."""
    words = DestinationTraits.of(pipeline.destination).ddl
    return () if increment.empty else tuple(w for change in increment.changes for w in words(change))


def _notes(pipeline: Pipeline, increment: Increment | Bundle) -> tuple[str, ...]:
    """What the destination has to say of how it would carry the changes out."""
    notes = DestinationTraits.of(pipeline.destination).notes
    return () if increment.empty else tuple(word for change in increment.changes for word in notes(change))

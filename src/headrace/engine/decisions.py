"""Decisions: how a pipeline reads, and what is refused before anything is.

No row is read here and no clock asked; of files only the transforms' own text, for the fingerprint. `run` and `plan`
both go by what is decided here.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import field, fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import polars as pl

from headrace.engine.census import refuse_deletes
from headrace.engine.keys import refuse_parts
from headrace.errors import ConfigError
from headrace.frozen import frozen
from headrace.paths import rooted
from headrace.traits import DestinationTraits, SourceTraits
from headrace.units import size
from headrace.writes import Append, History, Merge, Partitions, Recompute, Replace, Write

if TYPE_CHECKING:
    from headrace.flow import Batch, Snapshot, TableChange
    from headrace.pipeline import Pipeline
    from headrace.protocols import Source
    from headrace.transform import Bound, Transformed

__all__ = [
    "Reading",
    "fingerprint",
    "holds_versions",
    "key_columns",
    "read_otherwise",
    "reading",
    "refuse_another",
    "refuse_mixing",
    "refuse_renamed",
    "refuse_sharing",
    "refuse_start",
    "refuse_unversioned",
    "refuse_was",
]


@frozen(kw_only=True)
class Reading:
    """How a run reads its sources.

    `drivers` are the sources whose news make a run worth while; the others are look-ups, read whole each time.
    `whole`: the transform sees everything read so far (replace, recompute). `full_refresh`: all is read from the
    beginning, whatever was read before, and `discard_history` that this may take a history's versions away. `anew`: all
    is written anew by a write that sees everything, though nothing may be new (a replay). `ties`: see `flow.Range`.
    `as_text` are, by source, the columns that an earlier attempt of the run found to hold values that their types
    cannot.
    """

    drivers: tuple[str, ...]
    whole: bool
    full_refresh: bool
    ties: Literal["again", "once"]
    batch_bytes: int | None
    discard_history: bool = False
    anew: bool = False
    as_text: Mapping[str, frozenset[str]] = field(default_factory=dict)


def reading(pipeline: Pipeline, *, full_refresh: bool) -> Reading:
    """How this pipeline reads."""
    named = pipeline.named_sources
    drivers = tuple(n for n, s in named.items() if SourceTraits.of(s).read == "new") or tuple(named)
    whole = isinstance(pipeline.write, Replace | Recompute)
    return Reading(
        drivers=drivers,
        whole=whole,
        full_refresh=full_refresh,
        ties="once" if isinstance(pipeline.write, Append) else "again",
        batch_bytes=size(pipeline.commit_every) if pipeline.commit_every and not whole else None,
    )


def key_columns(write: Write) -> tuple[str, ...]:
    """The columns that say which row of the target a row is, or which group it belongs to."""
    match write:
        case Merge(keys=keys) | History(keys=keys):
            return keys
        case Recompute(by=by):
            return by
    return ()


def refuse_start(pipeline: Pipeline, snapshot: Snapshot, *, full_refresh: bool, discard_history: bool) -> None:
    """Refuse what cannot go on from this snapshot. Raises ConfigError with the way out."""
    if full_refresh and holds_versions(pipeline.write, snapshot) and not discard_history:
        raise ConfigError(
            "a full refresh would lose the versions that the source no longer has: the table is a history's",
            hint="say --discard-history if that is meant",
        )
    refuse_deletes(pipeline)
    _refuse_dropping(pipeline)
    truncate = isinstance(pipeline.write, Replace) and pipeline.write.truncate
    if truncate and not DestinationTraits.of(pipeline.destination).truncates:
        raise ConfigError(
            "replace cannot truncate here: the destination has no TRUNCATE",
            hint='leave "truncate" out: the table is swapped in one step',
        )
    if pipeline.commit_every and (reason := _uncut(pipeline)):
        raise ConfigError(f"commit_every cannot cut this load: {reason}", hint="leave commit_every out")
    for name, source in pipeline.named_sources.items():
        _refuse_reread(pipeline.write, name, source)
        refuse_parts(pipeline.write, name, source)
        _refuse_latest(pipeline.write, name, source)
        if not full_refresh:
            refuse_another(pipeline, name, snapshot.identities.get(name), source.identity())


def holds_versions(write: Write, snapshot: Snapshot) -> bool:
    """Whether the table holds versions of keys: as the ledger knows, or, of a table that headrace did not make, as a
    history takes it over.
    """
    if snapshot.schema is None or not isinstance(write, History):
        return snapshot.versions
    return snapshot.versions or {write.valid_from, write.valid_to} <= set(snapshot.schema.names)


def refuse_unversioned(change: TableChange, snapshot: Snapshot) -> None:
    """Refuse another write than a history into a table that holds versions: it would take them for rows of its own.

    Raises ConfigError with the way out.
    """
    if snapshot.versions and not change.keeps_versions and not change.fresh:
        raise ConfigError(
            f"table {change.table!r} holds the versions that a history keeps, and {change.write.type} would take them"
            " for rows of its own",
            hint="use history, or another table; --full-refresh --discard-history gives the versions up",
        )


def refuse_another(pipeline: Pipeline, name: str, before: Any, now: Any) -> None:
    """Refuse to read on in another source than the one that was read. A mapping may lack what it takes an open source
    to know, or what an earlier version did not tell.

    Raises ConfigError with the way out.
    """
    if before is None or _same(before, now) or pipeline.was == name:
        return
    raise ConfigError(
        f"source {name!r} of {pipeline.name!r} is not the one that was read before",
        hint=f'if it is meant to go on from there, say "was": "{name}"; to begin anew, --full-refresh',
        details={"before": before, "now": now},
    )


def _same(before: Any, now: Any) -> bool:
    """Whether two identities may be of one source: either may lack what the other knows."""
    if isinstance(before, Mapping) and isinstance(now, Mapping) and (both := before.keys() & now.keys()):
        return all(before[key] == now[key] for key in both)
    return bool(before == now)


def refuse_renamed(pipeline: Pipeline, snapshot: Snapshot, drivers: Sequence[str]) -> None:
    """Refuse a driving source that may be one that was read under another name: it has no position, and its rows would
    be loaded again. A source that comes beside all those of the last commit is a new one, unless its identity is known.

    Raises ConfigError with the way out.
    """
    if isinstance(pipeline.write, Replace | Recompute):
        return  # they see everything anyway
    named, last = pipeline.named_sources, snapshot.record.get("read", snapshot.positions)
    gone = {n: i for n, i in snapshot.identities.items() if n in snapshot.positions and n not in named}
    for name in (n for n in drivers if n not in snapshot.positions):
        now = named[name].identity()
        if known := [n for n, i in gone.items() if n in last or (now is not None and _same(i, now))]:
            raise ConfigError(
                f"source {name!r} of {pipeline.name!r} has not been read before, and {known[0]!r}, which was, is not"
                " there any more: if they are one source, its rows would be loaded again",
                hint=f"call it {known[0]!r} as before; to load everything anew, --full-refresh; a source that takes"
                " another one's place has a pipeline of its own",
                details={"source": name, "before": known},
            )


def refuse_was(pipeline: Pipeline, names: Collection[str]) -> None:
    """Refuse a `was` that is none of the sources' names: it would come to nothing. Raises ConfigError."""
    if pipeline.was is not None and pipeline.was not in names:
        raise ConfigError(
            f'"was" of {pipeline.name!r} is {pipeline.was!r}, which is none of its sources: {", ".join(names)}',
            hint="it names a source whose path, table or query is another one now; a pipeline or a source that gets"
            " another name begins anew: give it the old one, or a table of its own",
        )


def refuse_sharing(pipeline: Pipeline, change: TableChange, snapshot: Snapshot) -> None:
    """Refuse a change that would take the rows of other pipelines away: they count as loaded, and would not come back.

    Raises ConfigError with the way out.
    """
    if not (others := snapshot.others - {pipeline.name}) or not change.takes_others:
        return
    what = "a full refresh" if change.fresh else f"this {change.write.type}"
    raise ConfigError(
        f"{what} would take away what {', '.join(map(repr, sorted(others)))} loaded into table"
        f" {change.table!r}, and these rows count as loaded",
        hint="give each pipeline a table of its own; or remove the table by hand, run this pipeline, then the others:"
        " all begin anew",
        details={"pipelines": sorted(others)},
    )


def _uncut(pipeline: Pipeline) -> str | None:
    """Why a load must be one commit; None where it may be several."""
    if isinstance(pipeline.write, Replace | Recompute | Partitions):
        return f"{pipeline.write.type} must see all new rows at once"
    if isinstance(pipeline.write, History) and pipeline.write.close_absent:
        return "close_absent must see all rows to know which keys are gone"
    news = [n for n, s in pipeline.named_sources.items() if SourceTraits.of(s).read == "new"]
    return f"{', '.join(news)} are read in step" if len(news) > 1 else None


def _refuse_dropping(pipeline: Pipeline) -> None:
    """A dropped row leaves no trace, and its key would pass for one that the source has no more."""
    closes = isinstance(pipeline.write, History) and pipeline.write.close_absent
    if closes and any(contract.can("drop") for contract in pipeline.contracts.values()):
        raise ConfigError(
            "close_absent would close the keys of rows that the contract drops, as if the source had them no more",
            hint='say "on_violation": "quarantine": the keys of rows in quarantine are not closed',
        )


def _refuse_latest(write: Write, name: str, source: Source) -> None:
    """`latest` over files that are each read once: only a write that sees the older rows too can honour it."""
    traits = SourceTraits.of(source)
    latest = traits.latest
    if latest is None or traits.read == "all" or isinstance(write, Replace | Recompute):
        return
    if not isinstance(write, Merge):
        raise ConfigError(
            f'source {name!r}: "latest" cannot be honoured by {write.type}: it does not see the rows read before',
            hint="use merge, recompute or replace; or leave it out",
        )
    same = set(write.keys) == set(latest.keys) and tuple(latest.by) == tuple(write.latest_by or latest.by)
    if not same or {"file", "line"} & set(latest.by):
        raise ConfigError(
            f'source {name!r}: "latest" and the merge must have the same keys, and "by" columns that the rows have',
            hint='say "latest_by" on the merge (with "add_columns" for file and line), and leave "latest" out',
        )


def _refuse_reread(write: Write, name: str, source: Source) -> None:
    """A changed file that is read again must find its old rows, to replace them."""
    named = SourceTraits.of(source).rereads
    if named is None or isinstance(write, Merge | Replace | Recompute):
        return
    if isinstance(write, Partitions) and set(write.by) <= named:
        return
    raise ConfigError(
        f'source {name!r}: "changed": "reread" would double a file\'s rows with {write.type}',
        hint='use merge, or partitions by the file: "add_columns": {"_file": "file"} and "by": ["_file"]',
    )


def refuse_mixing(pipeline: Pipeline, batches: Mapping[str, Batch], transformed: Transformed) -> tuple[str, ...]:
    """Refuse transforms that would be wrong over an increment; what is only suspected is a warning, returned.

    Raises ConfigError.
    """
    write = pipeline.write
    partial = [n for n, b in batches.items() if not b.complete]
    if isinstance(write, Append) and not partial:
        raise ConfigError(
            "append would load every row again at each run: no source is read incrementally",
            hint='use merge or replace, or give the source a "cursor"',
        )
    if isinstance(write, Replace | Recompute):
        return ()
    if len(partial) > 1 and not pipeline.independent:
        raise ConfigError(
            f"several sources are read incrementally ({', '.join(partial)}): new rows of one miss old ones of others",
            hint='say "read": "all" on the look-ups, or use recompute, or "independent": true if they never meet',
        )
    if isinstance(write, Append) and not transformed.relation.new:
        raise ConfigError(
            f"append would load the same rows at each run: the result has none of {', '.join(partial)}",
            hint="use merge or replace, or begin with the source that is read incrementally",
        )
    if pipeline.independent:
        return ()
    return tuple(_refuse_step(pipeline, step) for step in transformed.steps if step.relation.mixing)


def _refuse_step(pipeline: Pipeline, step: Bound) -> str:
    """A step over an increment whose rows are not proven to stand alone: refused in SQL, a warning in Python, but for a
    limit: the rows beyond it would lie behind a position that says that they were loaded.
    """
    reasons = ", ".join(step.relation.mixing)
    what = f"step {step.name!r} uses {reasons}, and the rows that it sees are only what is new"
    if step.certain or step.relation.limited:
        raise ConfigError(
            what,
            hint='use "write": {"type": "recompute", "by": […]}, or replace, or "independent": true if every '
            "increment stands alone",
        )
    if pipeline.commit_every:
        raise ConfigError(
            f"commit_every: transform {step.name!r} may look at several rows at once ({reasons})",
            hint='say "rows": true on it if each row stands alone',
        )
    return f'{what}; "recompute" would see all rows, and "rows": true says that each stands alone'


def fingerprint(pipeline: Pipeline) -> dict[str, Any]:
    """Short hashes: `config` of all that the pipeline says, `transforms` of what it makes of a row (the transforms' own
    text, params, contracts), `sources` by name of what a row of each is.
    """
    code = [_code(s, pipeline.base) for s in pipeline.steps]
    config = {
        f.name: _plain(getattr(pipeline, f.name)) for f in fields(pipeline) if f.name not in ("transforms", "base")
    }
    contracts = [pipeline.contract, *(SourceTraits.of(s).contract for s in pipeline.named_sources.values())]
    meaning = [code, _plain(pipeline.params), [_plain(c) for c in contracts]]
    rows = {name: _hash(_row(source)) for name, source in pipeline.named_sources.items()}
    return {"config": _hash(config), "transforms": _hash(meaning), "sources": rows}


def read_otherwise(pipeline: Pipeline, snapshot: Snapshot) -> str | None:
    """In words, the source whose rows are others than they were at the last commit, since it says otherwise how they
    are read; None: there is none, or the ledger is of a version that did not keep it.
    """
    before, now = snapshot.record.get("sources_fingerprint", {}), fingerprint(pipeline)["sources"]
    changed = [name for name, hashed in now.items() if before.get(name, hashed) != hashed]
    return f"how {changed[0]!r} is read has changed since the last commit" if changed else None


def _row(source: Source) -> Any:
    """What says how a source's rows are read: all but its contract, and what is `outward`; of a cursor only what
    becomes of rows without a value.
    """
    traits, plain = SourceTraits.of(source), _plain(source)
    aside = {*traits.outward, "contract", "cursor"}
    told = {k: v for k, v in plain.items() if k not in aside} if isinstance(plain, Mapping) else plain
    return [told, traits.cursor and traits.cursor.nulls]


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=repr).encode(), digest_size=8).hexdigest()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        body = {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name != "base"}
        return {"type": getattr(value, "type", type(value).__name__), **body}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, str | bytes | int | float | bool | None):
        return repr(value) if isinstance(value, str | bytes) else value
    if isinstance(value, date | time | timedelta | Decimal | UUID | Enum | PurePath):
        return repr(value)
    if isinstance(value, AbstractSet):
        return sorted(map(repr, value))
    if isinstance(value, pl.Expr):
        return str(value)
    return _source_text(value) if callable(value) else type(value).__name__


def _code(step: Any, base: Path | None) -> Any:
    reference = getattr(step, "python", None)
    if callable(reference):
        return _source_text(reference)
    if isinstance(reference, str):
        place = rooted(base, reference.rpartition(":")[0])
        return [reference, place.read_text("utf-8") if place.is_file() else ""]
    if step.sql_file is not None:
        place = rooted(base, step.sql_file)
        return place.read_text("utf-8") if place.is_file() else step.sql_file
    return step.sql


def _source_text(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return getattr(function, "__qualname__", type(function).__name__)

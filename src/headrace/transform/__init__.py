"""Transforms: functions of lazy frames and SELECTs, bound to frames by name. No row is read here; a Python
transform's file is executed, once.

Each step's result is bound under its ``as`` and as ``previous``; sources are never shadowed; the last result is
what is loaded. ``previous`` begins as the single source, or as the one that is read incrementally.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from headrace.errors import ConfigError, HeadraceError, TransformError, did_you_mean
from headrace.frozen import frozen
from headrace.paths import rooted
from headrace.pipeline import PythonStep, SQLStep, Step
from headrace.transform.lineage import Origin, Relation

if TYPE_CHECKING:
    from types import ModuleType

    from headrace.transform.query import Query

__all__ = ["Bound", "Transformed", "load_file", "load_function", "transform"]

_loading = threading.RLock()
"""Pipelines side by side may load one file: the second waits until the first has executed it."""


@frozen(kw_only=True)
class Bound:
    """A step with its result: the frame, its name, and what is proven of its rows.

    `certain`: its reasons are read off the SQL that runs; a Python step's mean only that nothing could be proven.
    `file` is where a Python step's function stands.
    """

    name: str
    lazy: pl.LazyFrame
    relation: Relation
    certain: bool
    file: str | None = None


@frozen(kw_only=True)
class Transformed:
    """All steps bound; `lazy` is the last result, `relation` what is proven of its rows."""

    lazy: pl.LazyFrame
    steps: tuple[Bound, ...]
    relation: Relation

    def why_all_groups(self, by: Sequence[str]) -> str | None:
        """Whether groups of `by` stand alone; None when it is proven, else the reason, in words.

        They do where the steps, over all rows, give for some groups just what they give over the rows of these groups,
        and where a group that new rows belong to is always among the groups of the new rows' own result.
        """
        return self.relation.why_all_groups(by)

    def blamed(self, error: BaseException) -> TransformError | None:
        """What broke off while rows were drawn, as the failure of a Python step; None where it is none's.

        For what comes from no line of theirs (a strict cast in Polars, an exit in what they import) all are named.
        """
        steps = [(s.name, s.file) for s in self.steps if not s.certain]
        for name, file in steps:
            if _place(error, file):
                return _failed(name, error, file)
        if not steps or not isinstance(error, pl.exceptions.PolarsError | SystemExit):
            return None
        where = " on a value" if isinstance(error, pl.exceptions.PolarsError) else ""
        named = " or ".join(repr(name) for name, _ in steps)
        return TransformError(f"transform {named} failed{where}", hint=_safe_hint(error))


def transform(
    steps: Sequence[Step],
    frames: Mapping[str, pl.LazyFrame],
    *,
    previous: str | None,
    params: Mapping[str, Any],
    base: Path | None = None,
    until: str | None = None,
    increments: frozenset[str] = frozenset(),
    origins: Mapping[str, Mapping[str, str]] | None = None,
) -> Transformed:
    """Bind the steps to the frames, in order, up to and with the step called `until` (None: all).

    `previous` names the frame that the first step may call ``previous``; `increments` are the frames that are only
    a part of what their source has; `origins` are the frames' (`Frame.origins`). Raises ConfigError (names, params,
    SQL that does not bind) and TransformError (a function that fails; ``__cause__`` is its exception).
    """
    known = {
        name: _Known(frame, _of_source(frame, (origins or {}).get(name, {}), new=name in increments))
        for name, frame in frames.items()
    }
    if previous is not None:
        known["previous"] = known[previous]
    if until is not None and until in frames:
        return Transformed(lazy=frames[until], steps=(), relation=known[until].relation)
    bound: list[Bound] = []
    for number, step in enumerate(steps, start=1):
        name = _name(step, number)
        if name in frames:
            raise ConfigError(f"step {name!r} has the name of a source", hint='sources are never shadowed: change "as"')
        done = _bind(step, name, known, params, base)
        bound.append(done)
        known[name] = known["previous"] = _Known(done.lazy, done.relation)
        if until in (name, str(number)):
            return Transformed(lazy=done.lazy, steps=tuple(bound), relation=done.relation)
    if until is not None:
        names = [*frames, *(b.name for b in bound)]
        raise ConfigError(
            f"there is no step {until!r}",
            hint=did_you_mean(until, names, otherwise=f"there are: {', '.join(names)}"),
        )
    if "previous" not in known:
        raise ConfigError(
            "several sources and no transform that joins them", hint="add a transform, or load each by its own pipeline"
        )
    last = known["previous"]
    return Transformed(lazy=last.lazy, steps=tuple(bound), relation=last.relation)


class _Known(NamedTuple):
    """A frame that steps can name, and what is proven of its rows."""

    lazy: pl.LazyFrame
    relation: Relation


def _of_source(frame: pl.LazyFrame, origins: Mapping[str, str], *, new: bool) -> Relation:
    schema = frame.collect_schema()
    relation = Relation.increment(schema) if new else Relation.look_up(schema)
    return replace(relation, origins={c: Origin(o, schema[c]) for c, o in origins.items() if c in schema})


def _name(step: Step, number: int) -> str:
    """What the step is called: as it says, else after what it runs."""
    if step.as_:
        return step.as_
    if isinstance(step, SQLStep):
        return Path(step.sql_file).stem if step.sql_file else f"sql_{number}"
    return step.python.rpartition(":")[2] if isinstance(step.python, str) else step.python.__name__


def _bind(step: Step, name: str, known: Mapping[str, _Known], params: Mapping[str, Any], base: Path | None) -> Bound:
    """The step's result, and what is proven of it where it reads rows that are new."""
    frames = {n: frame for n, (frame, _) in known.items()}
    if isinstance(step, SQLStep):
        from headrace.transform.lineage_expr import inconstant
        from headrace.transform.query import Query

        place = f" ({step.sql_file})" if step.sql_file else ""
        query = Query(_sql_text(step, base), frames, params, said=f"step {name!r}{place}")
        relations = {table: known[table].relation for table in query.syntax.tables}
        relation = _proven(
            relations.values(),
            query.schema,
            lambda: _selected(query, relations),
            lambda: inconstant(query.syntax.node),
        )
        return Bound(name=name, lazy=query.lazy(), relation=relation, certain=True)
    return _bind_function(step, name, known, params, base)


def _selected(query: Query, relations: Mapping[str, Relation]) -> Relation:
    from headrace.transform.lineage_keys import wide_key
    from headrace.transform.lineage_sql import of_select

    found = of_select(query.syntax, relations, list(query.schema))
    if found.new and (found.grouped or found.windowed) and not found.regrouping:
        schemas = {name: frame.collect_schema() for name, frame in query.frames.items()}
        if why := wide_key(query.syntax, schemas, query.params, query.text):
            return replace(found, regrouping=(why,))
    return found


def _bind_function(
    step: PythonStep, name: str, known: Mapping[str, _Known], params: Mapping[str, Any], base: Path | None
) -> Bound:
    from headrace.transform.lineage_polars import inconstant_function, of_function

    frames = {n: frame for n, (frame, _) in known.items()}
    function = load_function(step.python, base) if isinstance(step.python, str) else step.python
    reads, keywords = _arguments(function, name, frames, params)
    result = _call(function, name, [frames[r] for r in reads], keywords)
    schema = result.collect_schema()
    read = [known[r].relation for r in reads]
    call = partial(_call, function, name, keywords=keywords)  # what it does over stand-ins breaks off the proof alone

    def schemas() -> list[pl.Schema]:
        return [frames[r].collect_schema() for r in reads]

    relation = _proven(
        read,
        schema,
        lambda: of_function(call, schemas(), read, schema.names(), rows=step.rows),
        lambda: inconstant_function(call, schemas()),
    )
    return Bound(name=name, lazy=result, relation=relation, certain=False, file=_file(function))


def _proven(
    read: Collection[Relation], schema: pl.Schema, prove: Callable[[], Relation], inconstant: Callable[[], Relation]
) -> Relation:
    """What is proven of a step that reads these: of look-ups alone, only what in it is another at every run, and which
    columns have an origin where one has.
    """
    new, origins = any(r.new for r in read), any(r.origins for r in read)
    found = prove() if new or origins else Relation()
    if not new:
        found = replace(Relation.look_up(schema, [*read, inconstant()]), origins=found.origins)
    return found.typed(schema)


def _sql_text(step: SQLStep, base: Path | None) -> str:
    if (step.sql is None) == (step.sql_file is None):
        raise ConfigError("an SQL step takes either sql or sql_file")
    if step.sql is not None:
        return step.sql
    path = rooted(base, str(step.sql_file))
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            f"SQL file {path} cannot be read", hint="the path is relative to the pipeline's file"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"SQL file {path} is not UTF-8") from error


def _call(
    function: Callable[..., Any], name: str, frames: Sequence[pl.LazyFrame], keywords: Mapping[str, Any]
) -> pl.LazyFrame:
    try:
        result = _lazy(function(*frames, **keywords), name)
        result.collect_schema()
    except HeadraceError:
        raise
    except (Exception, SystemExit, pl.exceptions.PanicException) as error:  # a function that ends itself: not us
        raise _failed(name, error, _file(function)) from error
    return result


def _failed(name: str, error: BaseException, file: str | None) -> TransformError:
    return TransformError(f"transform {name!r} failed{_place(error, file)}", hint=_safe_hint(error))


def _lazy(result: Any, name: str) -> pl.LazyFrame:
    if isinstance(result, pl.DataFrame):
        return result.lazy()
    if isinstance(result, pl.LazyFrame):
        return result
    kind = type(result).__name__
    raise TransformError(f"transform {name!r} returned {kind}, not a LazyFrame", hint="return a pl.LazyFrame")


def _arguments(
    function: Callable[..., Any], name: str, known: Mapping[str, pl.LazyFrame], params: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Which frames and params a function takes, by its signature."""
    signature = inspect.signature(function).parameters.values()
    places = [p for p in signature if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    frames: list[str] = []
    for place in places:
        if place.name in known:
            frames.append(place.name)
        elif len(places) == 1 and "previous" in known:
            frames.append("previous")
        else:
            raise ConfigError(
                f"transform {name!r} takes {place.name!r}, and no frame has that name",
                hint=did_you_mean(place.name, known, otherwise=f"there are: {', '.join(sorted(known))}"),
            )
    keywords = [p for p in signature if p.kind is p.KEYWORD_ONLY]
    for keyword in keywords:
        if keyword.name not in params and keyword.default is keyword.empty:
            raise ConfigError(
                f"transform {name!r} takes the param {keyword.name!r}, and params have none", hint='add it to "params"'
            )
    if any(p.kind is p.VAR_KEYWORD for p in signature):
        return frames, dict(params)
    return frames, {k.name: params[k.name] for k in keywords if k.name in params}


def _file(function: Callable[..., Any]) -> str | None:
    """The file that holds the function."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else str(code.co_filename)


def _place(error: BaseException, file: str | None) -> str:
    """`` at file:line``: the innermost line of the file."""
    line = None if file is None else _line_in(error, file)
    return f" at {file}:{line}" if line is not None else ""


_CAST = re.compile(r"conversion from `[^`]*` to `[^`]*` failed in column '[^']*' for \d+ out of \d+ values")


def _safe_hint(error: BaseException) -> str:
    """What was raised, and what of Polars' words is safe: names of columns and types. Other texts may hold values."""
    kind = type(error).__name__
    if isinstance(error, pl.exceptions.ColumnNotFoundError):
        return f"{kind}: {str(error).splitlines()[0][:120]}"
    if found := _CAST.search(str(error)):
        return f"{kind}: {found[0]}"
    return f"it raised {kind}; `headrace run -v` shows its traceback"


def load_function(reference: str, base: Path | None) -> Callable[..., Any]:
    """The function that ``file.py:name`` (relative to `base`) or ``module:name`` names.

    A file is executed once in a process for as long as it does not change. Raises ConfigError.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise ConfigError(f"transform {reference!r} is not file.py:name", hint='write e.g. "transforms.py:clean"')
    module = load_file(rooted(base, place)) if place.endswith(".py") else _load_module(place)
    function = getattr(module, name, None)
    if not callable(function):
        named = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        hint = did_you_mean(name, named, otherwise=f"it has: {named[:20]}")
        raise ConfigError(f"{place} has no function {name!r}", hint=hint)
    return function  # type: ignore[no-any-return]


def load_file(path: Path) -> ModuleType:
    """The module in a file, executed once in a process for as long as it does not change. Raises ConfigError.

    What is executed is the text as it is now: Python's own cache knows a file by the second of its last change.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", hint="the path is relative to the pipeline's file") from error
    digest = hashlib.blake2b(str(path.resolve()).encode() + text, digest_size=8).hexdigest()
    key = f"headrace_file_{path.stem}_{digest}"
    with _loading:
        return sys.modules[key] if key in sys.modules else _executed(key, path, text)


def _executed(key: str, path: Path, text: bytes) -> ModuleType:
    spec = importlib.util.spec_from_file_location(key, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    sys.path.insert(0, str(path.parent.resolve()))  # a transform may import its neighbours, as a script may
    try:
        exec(compile(text, spec.origin or str(path), "exec", dont_inherit=True), vars(module))  # noqa: S102  # the user's own code
    except (Exception, SystemExit) as error:  # a script that ends itself does not end us
        del sys.modules[key]
        line = error.lineno if isinstance(error, SyntaxError) else _line_in(error, spec.origin)
        raise ConfigError(
            f"{path}:{line or 1} fails when it is imported ({type(error).__name__})", hint="run it by python to see why"
        ) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _line_in(error: BaseException, file: str | None) -> int | None:
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"module {name!r} cannot be imported", hint="install it, or give a file: file.py:name"
        ) from error

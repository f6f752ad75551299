"""From what a person names (a file, a folder, ``file.py:name``) to pipelines."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace.config.decode import FAILED, Decoder, join
from headrace.config.jsonc import Node, Place, node_of, read
from headrace.config.settings import FILE, Override, Settings, assign, merge, override
from headrace.config.shapes import DestinationRole, keys_of, near
from headrace.errors import ConfigError
from headrace.pipeline import Pipeline, Table

__all__ = ["PROFILE", "decode", "load", "load_all"]

PROFILE = "HEADRACE_PROFILE"
_SCHEMA = "headrace.schema.json"


def load(
    path: str | Path,
    *,
    profile: str | None = None,
    set: Mapping[str, Any] | None = None,
) -> Pipeline:
    """The pipeline of a JSON file, or of ``file.py:name``.

    `profile` is one of headrace.json's (default: the environment's HEADRACE_PROFILE); `set` maps dotted paths
    of keys to values, as ``--set`` does. Raises ConfigError with all mistakes of the file, each with its path,
    line and column.
    """
    overrides = tuple(
        dataclasses.replace(override(f"{key}=null"), value=_value(key, v)) for key, v in (set or {}).items()
    )
    found = _load(str(path), profile, overrides)
    if len(found) != 1:
        raise ConfigError(f"{path} is a folder of {len(found)} pipelines", hint="name one of its files")
    return found[0]


def load_all(targets: Iterable[str], *, profile: str | None = None, set: Sequence[str] = ()) -> list[Pipeline]:
    """The pipelines of files, folders and ``file.py:name``, in that order; a folder's by file name.

    `set` are texts ``key.path=value``. Raises ConfigError, with the mistakes of all the files.
    """
    overrides = tuple(override(text) for text in set)
    found: list[Pipeline] = []
    errors: list[ConfigError] = []
    for target in targets:
        try:
            found += _load(target, profile, overrides)
        except ConfigError as error:
            errors.append(error)
    _raise(errors)
    names: dict[str, int] = {}
    for pipeline in found:
        names[pipeline.name] = names.get(pipeline.name, 0) + 1
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"two pipelines are called {twice[0]!r}", hint="a name is what the ledger knows one by")
    return found


def decode(document: Mapping[str, Any], *, base: str | Path = ".") -> Pipeline:
    """The pipeline that a JSON object describes; relative paths start from `base`."""
    folder = Path(base)
    return _decode(node_of(document, Place("pipeline")), folder, Settings())


def _value(key: str, value: Any) -> Node:
    return node_of(value, Place(f"set {key}"))


def _raise(errors: Sequence[ConfigError]) -> None:
    """One error for all of them. A mistake in what several share is told once."""
    errors = list({error.message: error for error in errors}.values())
    if len(errors) == 1:
        raise errors[0]
    if errors:
        lines = "\n".join(f"{error.message}" + (f" ({error.hint})" if error.hint else "") for error in errors)
        every = [one for error in errors for one in error.details.get("errors", [error.to_dict()])]
        raise ConfigError(f"{len(errors)} pipelines are wrong\n{lines}", details={"errors": every})


def _load(target: str, profile: str | None, overrides: tuple[Override, ...]) -> list[Pipeline]:
    path = Path(target)
    file, _, name = target.rpartition(":")
    if file.endswith(".py"):
        if profile:  # the environment's is for the whole shell: a file may heed it itself
            raise ConfigError(
                f"profile {profile!r}: a pipeline in Python takes only its params from here",
                hint=f"leave it out, and read os.environ[{PROFILE!r}] in the file where that is meant",
            )
        return [_of_python(Path(file), name, overrides)]
    profile = profile or os.environ.get(PROFILE) or None
    if path.is_dir():
        settings = Settings.of(path, profile=profile, overrides=overrides)
        files = _files(path)
        if not files:
            raise ConfigError(f"{target}: there is no pipeline in this folder", hint="pipelines are its *.json files")
        return _of_files(files, settings, overrides)
    if path.suffix == ".py":
        raise ConfigError(f"{target}: which pipeline?", hint=f"name it: {target}:pipeline")
    if path.name == FILE:
        raise ConfigError(
            f"{target} is what pipelines share", hint=f"name a pipeline's file, or the folder {path.parent}"
        )
    if not path.exists():
        siblings = [str(one) for one in path.parent.glob("*.json") if one.name != FILE] if path.parent.is_dir() else []
        raise ConfigError(f"{target}: there is no such file or folder", hint=near(target, siblings))
    return _of_files([path], Settings.of(path.parent, profile=profile, overrides=overrides), overrides)


def _files(folder: Path) -> list[Path]:
    """A folder's pipelines, by name."""
    return sorted(one for one in folder.glob("*.json") if one.name not in (FILE, _SCHEMA))


def _of_files(files: Sequence[Path], settings: Settings, overrides: tuple[Override, ...]) -> list[Pipeline]:
    found: list[Pipeline] = []
    errors: list[ConfigError] = []
    for file in files:
        try:
            document = _document(file, settings, overrides)
            found.append(_decode(document, file.parent, settings, _Siblings(file.parent, settings, overrides)))
        except ConfigError as error:
            errors.append(error)
    _raise(errors)
    return found


def _document(file: Path, settings: Settings, overrides: tuple[Override, ...]) -> Node:
    """A file's document, over the defaults and under the overrides."""
    document = read(file)
    if isinstance(document.value, dict):
        document = merge(settings.defaults, document, settings.connections)
        _refuse_half(file, document, overrides)
        for one in (*settings.overrides, *(one for one in overrides if not one.shared)):
            document = assign(document, one)
    return document


def _refuse_half(file: Path, document: Node, overrides: tuple[Override, ...]) -> None:
    """A change of headrace.json's defaults that the pipeline's own, of its tables, stand over would come to nothing."""
    keys = keys_of(Table) if "defaults" in document.value else {}
    for one in overrides:
        if keys and one.path[0] == "defaults" and (len(one.path) == 1 or one.path[1] in keys):
            raise ConfigError(
                f"{one.value.place}: {file}: its own defaults stand over those of headrace.json, which this changes",
                hint='say it of each table: tables."NAME".KEY=…; or edit the pipeline\'s defaults',
            )


@dataclasses.dataclass
class _Siblings:
    """The other pipelines of a folder: where a `table` source finds what it reads."""

    folder: Path
    settings: Settings
    overrides: tuple[Override, ...]

    def destinations(self) -> dict[str, Node]:
        """The destinations by pipeline, not decoded. A file that is wrong is told when it is run itself."""
        found: dict[str, Node] = {}
        for file in _files(self.folder):
            with contextlib.suppress(ConfigError):
                items = _document(file, self.settings, self.overrides).value
                if isinstance(items, dict) and {"name", "destination"} <= items.keys():
                    found[str(items["name"].value)] = items["destination"]
        return found


def _bound(pipeline: Pipeline, document: Node, siblings: _Siblings, decoder: Decoder) -> Pipeline:
    """The pipeline, each `table` source with the destination of the pipeline that it names."""
    items = document.value
    many = pipeline.source is None
    nodes = items["sources"].value if many else {"source": items["source"]}
    known: dict[str, Node] | None = None
    sources = dict(pipeline.named_sources)
    for name, source in sources.items():
        of = getattr(source, "of", None)
        if of is None or getattr(source, "destination", None) is not None:
            continue
        known = siblings.destinations() if known is None else known
        path = f"sources.{name}" if many else "source"
        if of not in known:
            hint = near(of, known) or "it names a pipeline in the same folder"
            decoder.note(join(path, "of"), f"there is no pipeline {of!r} here", hint, nodes[name].place)
        elif (there := decoder.value(known[of], DestinationRole, "destination")) is not FAILED:
            sources[name] = dataclasses.replace(source, destination=there)  # type: ignore[type-var]
    if known is None:
        return pipeline
    if many:
        return dataclasses.replace(pipeline, sources=sources)
    return dataclasses.replace(pipeline, source=sources["source"])


def _decode(document: Node, folder: Path, settings: Settings, siblings: _Siblings | None = None) -> Pipeline:
    decoder = Decoder(folder.absolute(), settings.connections)
    if isinstance(document.value, dict):
        rest = {key: item for key, item in document.value.items() if key != "$schema"}
        pipeline = decoder.fields(Node(rest, document.place, document.keys), Pipeline, "")
        _check_files(document, folder, decoder)
        if siblings is not None and pipeline is not FAILED:
            pipeline = _bound(pipeline, document, siblings, decoder)
    else:
        pipeline = decoder.note("", f"expected an object, found {document.kind}", "a pipeline is {…}", document.place)
    decoder.finish()
    assert pipeline is not FAILED  # noqa: S101 - finish has raised
    made: Pipeline = pipeline
    return made


def _check_files(document: Node, folder: Path, decoder: Decoder) -> None:
    """Note transforms whose file is not there. The files are not run: that would import what they import."""
    steps = document.value.get("transforms")
    for at, step in enumerate(steps.value if steps and isinstance(steps.value, list) else ()):
        items = step.value if isinstance(step.value, dict) else {}
        path = f"transforms[{at}]"
        if "sql" in items and "sql_file" in items:
            decoder.note(path, "gives both sql and sql_file", "keep one of them", step.place)
        for key in ("sql_file", "python"):
            text = items[key].value if key in items else None
            if not isinstance(text, str):
                continue
            file = text if key == "sql_file" else text.rpartition(":")[0]
            if key == "python" and not (file and text.rpartition(":")[2].isidentifier()):
                decoder.note(
                    join(path, key), f"{text!r} is not file.py:name", "e.g. transforms.py:clean", items[key].place
                )
            elif (key == "sql_file" or file.endswith(".py")) and not (folder / file).is_file():
                hint = "the path is relative to the pipeline's file"
                decoder.note(join(path, key), f"there is no file {file!r}", hint, items[key].place)


def _of_python(file: Path, name: str, overrides: tuple[Override, ...]) -> Pipeline:
    """The `hr.Pipeline` called `name` in a file, relative paths from the file's folder."""
    if not file.is_file():
        raise ConfigError(f"{file}: there is no such file", hint="write file.py:name")
    from headrace.transform import load_file

    module = load_file(file)
    found = getattr(module, name, None)
    if not isinstance(found, Pipeline):
        pipelines = [key for key, value in vars(module).items() if isinstance(value, Pipeline)]
        raise ConfigError(f"{file} has no pipeline {name!r}", hint=near(name, pipelines) or "it is an hr.Pipeline")
    params = dict(found.params)
    for one in overrides:
        if one.path[0] != "params" or len(one.path) != 2:  # noqa: PLR2004 - params and a name
            message = f"{one.value.place}: a pipeline in Python takes only its params from here"
            raise ConfigError(message, hint="write --set params.name=value")
        params[one.path[1]] = one.value.value
    return _at(dataclasses.replace(found, params=params), file.parent.absolute())


def _at(pipeline: Pipeline, base: Path) -> Pipeline:
    """The pipeline with `base` for everything in it that has none."""

    def placed(thing: Any) -> Any:
        fields = {field.name for field in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else set()
        return dataclasses.replace(thing, base=base) if "base" in fields and thing.base is None else thing

    systems = {"destination": placed(pipeline.destination)}
    if pipeline.source is not None:
        systems["source"] = placed(pipeline.source)
    sources = {name: placed(source) for name, source in pipeline.sources.items()}
    made: Pipeline = placed(dataclasses.replace(pipeline, sources=sources, **systems))
    return made

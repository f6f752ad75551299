"""Answers on stdout, errors on stderr."""

from __future__ import annotations

import json
import math
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.secret import masked

if TYPE_CHECKING:
    from headrace.cli.options import Answer, Common

__all__ = ["bug", "jsonable", "legible", "show", "table"]

_LONGEST = 1_500  # characters of a line of an error
_WIDEST = 60  # characters of a cell that others follow


_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""What moves a terminal's cursor, or turns the order of what it shows; and what has no UTF-8."""
_ALONE = re.compile(r"[\ud800-\udfff]")
_OURS = str(Path(__file__).parent.parent)


def show(answer: Answer, options: Common) -> None:
    """Print the answer: the document with ``--json``, else its text; errors on stderr."""
    if options.json:
        document = json.dumps(jsonable(answer.document), ensure_ascii=False, indent=2)
        click.echo(_ALONE.sub(_escaped, document))
    elif answer.text:
        click.echo(legible(answer.text))
    for error in answer.errors:
        _error(error, options)


def legible(text: str) -> str:
    """The text with escapes for what would steer a terminal: names may hold anything. Lines and tabs stay."""
    return _STEERING.sub(_escaped, text)


def _line(text: str) -> str:
    """A message on its line; a list of mistakes (indented) goes on below it, a line within a name does not. Of a line
    without end (a name may be one) the middle is left out.
    """
    lines = legible(re.sub(r"\n(?!  )", r"\\n", text)).split("\n")
    shown = (x if len(x) <= _LONGEST else f"{x[: _LONGEST // 2]} … {x[-_LONGEST // 4 :]}" for x in lines)
    return "\n".join(shown)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _error(error: Mapping[str, Any], options: Common) -> None:
    error = masked(error)
    if options.log_format == "json":
        from headrace.cli import logs

        logs.error(error)
        return
    if options.json:
        return  # it is in the document
    click.echo(_line(f"error: {error['message']}"), err=True)
    if error.get("hint"):
        click.echo(_line(f"hint: {error['hint']}"), err=True)
    if options.verbosity > 0 and (frames := error.get("details", {}).get("traceback")):
        click.echo("".join(frames), err=True)


def problem(error: Exception, options: Common) -> dict[str, Any]:
    """An exception as an error. With -v a failed transform's has the traceback of the user's own exception."""
    from headrace.errors import HeadraceError, TransformError

    if not isinstance(error, HeadraceError):
        return bug(error, options)
    found = error.to_dict()
    if options.verbosity > 0 and isinstance(error, TransformError) and error.__cause__ is not None:
        cause = error.__cause__
        frames = [f for f in traceback.extract_tb(cause.__traceback__) if not f.filename.startswith(_OURS)]
        while frames and "site-packages" in frames[0].filename:  # the engine's, before it came to the user's code
            del frames[0]
        # What a library says may quote a cell; what the user's own `raise` says is what they wrote.
        own = bool(frames) and str(frames[-1].line).startswith("raise")
        said = traceback.format_exception_only(cause) if own else [f"{type(cause).__name__}\n"]
        found["details"] = {**found["details"], "traceback": [*traceback.format_list(frames), *said]}
    return found


def bug(error: Exception, options: Common) -> dict[str, Any]:
    """An exception that headrace did not raise on purpose, as an error. Its text is not shown: it may hold a
    cell's value.
    """
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {last[0].filename}:{last[0].lineno}" if last else ""
    return {
        "type": type(error).__name__,
        "message": f"this is a bug in headrace: {type(error).__name__}{where}",
        "hint": "please report it" + ("" if options.verbosity > 0 else "; -v shows the traceback"),
        "exit_code": 1,
        "details": {"traceback": traceback.format_tb(error.__traceback__)} if options.verbosity > 0 else {},
    }


def jsonable(value: Any) -> Any:
    """Plain JSON: what JSON has no word for becomes its text (NaN and infinities too)."""
    match value:
        case None | bool() | int() | str():
            return str(value) if type(value) is not str and isinstance(value, str) else value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case bytes():
            return value.hex()
        case _ if isinstance(value, Sequence | set | frozenset):
            return [jsonable(item) for item in value]
    return str(value)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, width: int | None = None) -> str:
    """Rows as aligned columns. Only the last one may be long, and is cut where the terminal ends."""
    cells = [[_short(_cell(row.get(name)), last=name == columns[-1]) for name in columns] for row in rows]
    widths = [max([len(column), *(len(line[at]) for line in cells)]) for at, column in enumerate(columns)]
    lines = [list(columns), *cells]
    texts = ["  ".join(cell.ljust(widths[at]) for at, cell in enumerate(line)).rstrip() for line in lines]
    return "\n".join(text if width is None or len(text) <= width else f"{text[: width - 1]}…" for text in texts)


def _short(text: str, *, last: bool) -> str:
    return text if last or len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return " ".join(str(value).split())

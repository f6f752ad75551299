"""Types from texts, strictly: a type is inferred only where every text of the sample is exactly one of its values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from headrace import exact
from headrace.logical import Type
from headrace.systems.files.layout import Column, strict

__all__ = ["Guess", "Guesses", "KeyGuess", "type_of"]

_UTC = Type("datetime", ("us", "UTC"))
_NAIVE = Type("datetime", ("us", None))
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_MOMENT = rf"{_DAY}[T ][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]{{1,6}})?)?"
_CANDIDATES: tuple[tuple[Type, str], ...] = (
    (Type("int64"), r"0|-?[1-9][0-9]*"),
    (Type("float64"), r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"),
    (Type("bool"), r"(?i)true|false"),
    (Type("date"), _DAY),
    (_NAIVE, _MOMENT),
    (_UTC, rf"{_MOMENT}(?:Z|[+-][0-9]{{2}}:?[0-9]{{2}})"),
)


_TOGETHER = 1_000
"""So many rows are looked at together: the samples of many small files cost no more than that of one."""
_BYTES = 4_194_304
_SHORT = 15
"""So many characters of a number are exactly an int64 and a float64, whatever they are."""


class Guess:
    """What one column's texts may still be, of how many `rows`; `texts` says whether there was any, `why` which row
    decided that they are no more than texts, where the first ones were.
    """

    def __init__(self, candidates: Sequence[tuple[Type, str]]) -> None:
        self.left = candidates
        self.rows = 0
        self.texts = False
        self.why: str | None = None

    @property
    def type(self) -> Type:
        """The type; a column without any text is a string."""
        return self.left[0][0] if self.texts and self.left else Type("string")


class Guesses:
    """What the texts of some columns may be. Fed a piece at a time; all columns are looked at in one step, since each
    step costs more than its thousand rows.
    """

    def __init__(self, names: Iterable[str], *, decimal: str = ".", only: Sequence[str] | None = None) -> None:
        self._decimal = decimal
        self._guesses = {n: Guess([(t, p) for t, p in _CANDIDATES if only is None or t.name in only]) for n in names}
        self._waiting: dict[str, list[pl.Series]] = {}
        self._rows = 0
        self._bytes = 0

    def rows(self, name: str) -> int:
        """How many rows of this column it was fed."""
        return self._guesses[name].rows + sum(map(len, self._waiting.get(name, ())))

    def feed(self, texts: pl.DataFrame) -> None:
        """Rule out what the texts (String) of the columns are not."""
        for column in texts.iter_columns():
            self._waiting.setdefault(column.name, []).append(column)
        self._rows += texts.height
        self._bytes += int(texts.estimated_size())
        if self._rows >= _TOGETHER or self._bytes >= _BYTES:
            self._look()

    def found(self) -> dict[str, Guess]:
        """What each column is."""
        self._look()
        return self._guesses

    def _look(self) -> None:
        by_height: dict[int, list[pl.Series]] = {}
        for pieces in self._waiting.values():
            texts = pl.concat(pieces) if len(pieces) > 1 else pieces[0]
            by_height.setdefault(len(texts), []).append(texts)
        self._waiting, self._rows, self._bytes = {}, 0, 0
        for height, columns in by_height.items():
            frame = pl.DataFrame(columns)
            self._judge(frame)
            for name in frame.columns:
                self._guesses[name].rows += height

    def _judge(self, frame: pl.DataFrame) -> None:
        asked = [n for n in frame.columns if self._guesses[n].left]
        firsts = frame.select(pl.col(asked).drop_nulls().first()).row(0, named=True) if asked and frame.height else {}
        names = [n for n in asked if firsts.get(n) is not None]
        for name in names:
            self._begin(self._guesses[name], firsts[name])
        pairs = [(n, t, p) for n in names for t, p in self._guesses[n].left]
        looks = [self._looks(n, t, p).all() for n, t, p in pairs]
        sure = [self._surely(n, t) for n, t, _ in pairs]
        answers = frame.select(e.alias(str(at)) for at, e in enumerate([*looks, *sure])).row(0) if pairs else ()
        left: dict[str, list[tuple[Type, str]]] = {n: [] for n in names}
        for at, (name, type, pattern) in enumerate(pairs):
            if answers[at] and (answers[len(pairs) + at] or self._fits(frame[name], type, pattern).all()):
                left[name].append((type, pattern))
        for name, types in left.items():
            if self._guesses[name].left and not types:
                self._guesses[name].why = self._decided(self._guesses[name], frame[name])
            self._guesses[name].left = types

    def _begin(self, guess: Guess, text: str) -> None:
        """What a column's first text does not look like goes without a look at the others: few types are left then."""
        if not guess.texts:
            guess.left = [(t, p) for t, p in guess.left if re.fullmatch(self._written(t, p), text)]
        guess.texts = True

    def _decided(self, guess: Guess, texts: pl.Series) -> str | None:
        """Why a column is text: the row at which the last type went; nothing where that was its first text."""
        looks = texts.to_frame().select(
            pl.arg_where(~self._looks(texts.name, t, p)).first().alias(str(at)) for at, (t, p) in enumerate(guess.left)
        )
        first = [
            (at if at is not None else int((~self._fits(texts, t, p)).arg_true()[0]), t)
            for at, (t, p) in zip(looks.row(0), guess.left, strict=True)
        ]
        at, type = max(first, key=lambda f: f[0])
        if not texts.head(at).count():
            return None
        return f"row {guess.rows + at + 1} of the sample is not exactly {type}"

    def _fits(self, texts: pl.Series, type: Type, pattern: str) -> pl.Series:
        """Whether each text is exactly a value of the type; a null is no text."""
        frame = texts.to_frame()
        looks = frame.select(self._looks(texts.name, type, pattern)).to_series()
        if not looks.all():
            return looks
        made = frame.select(exact.from_text(pl.col(texts.name), type, decimal=self._decimal))
        return strict(frame, made, Column(texts.name, type)).to_series().is_not_null() | texts.is_null()

    def _looks(self, name: str, type: Type, pattern: str) -> pl.Expr:
        """Whether each text looks like one of the type: asked of all types before any is converted."""
        return pl.col(name).str.contains(rf"^(?:{self._written(type, pattern)})$").fill_null(value=True)

    def _written(self, type: Type, pattern: str) -> str:
        return pattern.replace(r"\.", re.escape(self._decimal)) if type.name == "float64" else pattern

    @staticmethod
    def _surely(name: str, type: Type) -> pl.Expr:
        """Whether texts that look like the type are its values exactly, without a look at these."""
        if type.name not in ("int64", "float64"):
            return pl.lit(value=False)
        text = pl.col(name)
        return ((text.str.len_bytes() <= _SHORT) & ~text.str.contains("[eE]")).all()


def type_of(texts: Iterable[str | None]) -> Type:
    """The type of a few texts."""
    guesses = Guesses(["t"])
    guesses.feed(pl.DataFrame({"t": list(texts)}, schema={"t": pl.String}))
    return guesses.found()["t"].type


_WHOLE = re.compile(r"-?\d{1,38}", re.ASCII)
_LONGEST = 64
"""No date is as long."""


_BY_KIND = {"str": ("date", "datetime"), "number": ("int64", "float64")}


class KeyGuess:
    """What one key's values may be, from JSON's own kinds: only a text may be a date, and only a number a number."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._guesses = {kind: Guesses([kind], only=types) for kind, types in _BY_KIND.items()}
        self._waiting: dict[str, list[str]] = {kind: [] for kind in self._guesses}
        self._whole = True

    def feed(self, kind: str, value: Any) -> None:
        """Take one value into account: ``str``, ``number`` (as it was written), ``bool``, ``dict`` or ``list``."""
        self._kinds.add(kind)
        if kind in self._guesses:
            self._waiting[kind].append(value[: _LONGEST + 1])
            self._whole = self._whole and (kind == "str" or _WHOLE.fullmatch(value) is not None)
            if len(self._waiting[kind]) >= _TOGETHER:
                self._look(kind)

    def _look(self, kind: str) -> Guess:
        self._guesses[kind].feed(pl.DataFrame([pl.Series(kind, self._waiting[kind], dtype=pl.String)]))
        self._waiting[kind] = []
        return self._guesses[kind].found()[kind]

    @property
    def type(self) -> Type:
        """The type: string where the kinds are mixed, json for objects and arrays."""
        if self._kinds == {"bool"}:
            return Type("bool")
        if self._kinds and self._kinds <= {"dict", "list"}:
            return Type("json")
        if len(self._kinds) != 1:
            return Type("string")
        (kind,) = self._kinds
        found = self._look(kind).type
        return Type("decimal", (38, 0)) if (kind, found.name) == ("number", "string") and self._whole else found

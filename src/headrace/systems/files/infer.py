"""Types from texts, strictly: a type is inferred only where every text of the sample is exactly one of its values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from headrace import exact
from headrace.schema import Type
from headrace.systems.files.layout import Column, strict

__all__ = ["Guess", "KeyGuess"]

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


def _first_false(answers: pl.Series) -> int:
    return int((~answers).arg_true()[0])


_TOGETHER = 1_000
"""So many texts are looked at together: the samples of many small files cost no more than that of one."""
_BYTES = 65_536


class Guess:
    """What one column's texts may still be. Fed a piece at a time; `rows` counts what it was fed."""

    def __init__(self, *, decimal: str = ".", only: Sequence[str] | None = None) -> None:
        self._decimal = decimal
        self._left = [(t, p) for t, p in _CANDIDATES if only is None or t.name in only]
        self._any = False
        self._waiting: list[pl.Series] = []
        self._looked = 0
        self._why: str | None = None
        self.rows = 0

    def feed(self, texts: pl.Series) -> None:
        """Rule out what a text of `texts` (String) is not."""
        self.rows += len(texts)
        self._waiting.append(texts)
        if self.rows - self._looked >= _TOGETHER or texts.estimated_size() >= _BYTES:
            self._look()

    def _look(self) -> None:
        if not self._waiting:
            return
        texts, first_row = pl.concat(self._waiting), self._looked + 1
        self._waiting, self._looked = [], self.rows
        values = texts.drop_nulls().unique().alias("t")
        if values.is_empty():
            return
        self._any = True
        before = self._left
        looks = values.to_frame().select(self._looks(t, p).all().alias(str(t)) for t, p in before)
        self._left = [(t, p) for t, p in before if looks[str(t)][0] and self._fits(values, t, p).all()]
        if before and not self._left:
            first = [(_first_false(self._fits(texts.alias("t"), t, p)), t) for t, p in before]
            at, type = max(first, key=lambda f: f[0])
            if texts.head(at).count():
                self._why = f"row {first_row + at} of the sample is not exactly {type}"

    def _fits(self, values: pl.Series, type: Type, pattern: str) -> pl.Series:
        """Whether each text is exactly a value of the type; a null is no text."""
        frame = values.to_frame()
        looks = frame.select(self._looks(type, pattern)).to_series()
        if not looks.all():
            return looks
        made = frame.select(exact.from_text(pl.col("t"), type, decimal=self._decimal))
        return strict(frame, made, Column("t", type)).to_series().is_not_null() | values.is_null()

    def _looks(self, type: Type, pattern: str) -> pl.Expr:
        """Whether each text looks like one of the type: seen at once for all types, before any is converted."""
        if type.name == "float64" and self._decimal != ".":
            pattern = pattern.replace(r"\.", self._decimal)
        return pl.col("t").str.contains(rf"^(?:{pattern})$").fill_null(value=True)

    @property
    def why(self) -> str | None:
        """Why the column is text, where its first values were not: the row that decided it."""
        self._look()
        return self._why

    @property
    def type(self) -> Type:
        """The type; a column without any text is a string."""
        self._look()
        return self._left[0][0] if self._any and self._left else Type("string")

    @staticmethod
    def of(texts: Iterable[str | None]) -> Type:
        """The type of a few texts."""
        guess = Guess()
        guess.feed(pl.Series(list(texts), dtype=pl.String))
        return guess.type


_WHOLE = re.compile(r"-?\d{1,38}", re.ASCII)
_LONGEST = 64
"""No date is as long."""


class KeyGuess:
    """What one key's values may be, from JSON's own kinds: only a text may be a date, and only a number a number."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._guesses = {"str": Guess(only=("date", "datetime")), "number": Guess(only=("int64", "float64"))}
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
        self._guesses[kind].feed(pl.Series(self._waiting[kind], dtype=pl.String))
        self._waiting[kind] = []
        return self._guesses[kind]

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

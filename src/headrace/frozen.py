"""Frozen dataclasses that cost next to nothing to define.

`dataclasses` writes and compiles seven methods for each frozen class: close to a millisecond, and headrace has more
than a hundred such classes, so that made two thirds of the time in which it is imported. Here the methods are the same
for all classes. What `dataclasses` knows of a class (`fields`, `replace`, `asdict`, `is_dataclass`) it knows of these.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from typing import Any, NoReturn, TypeVar, dataclass_transform, overload

__all__ = ["frozen"]

T = TypeVar("T")


@overload
def frozen(cls: type[T], /) -> type[T]: ...
@overload
def frozen(*, kw_only: bool = False, eq: bool = True) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: Any = None, /, *, kw_only: bool = False, eq: bool = True) -> Any:
    """A decorator: as ``dataclass(frozen=True)``, to the letter, but that no other dataclass can be made from it.

    `kw_only` and `eq` are those of `dataclasses.dataclass`.
    """
    if cls is None:
        return lambda cls: frozen(cls) if eq and not kw_only else _made(cls, kw_only=kw_only, eq=eq)
    return _made(cls, kw_only=False, eq=True)


def _made(cls: Any, *, kw_only: bool, eq: bool) -> Any:
    own = vars(cls)
    methods: dict[str, Any] = {"__init__": _init, "__repr__": _repr, "__signature__": _Signature()}
    if eq:
        methods |= {"__eq__": _eq}
        if own.get("__hash__") is None:  # Python puts None there for a class with an __eq__ of its own
            cls.__hash__ = _hash
    for name, method in methods.items():
        if name not in own:
            setattr(cls, name, method)
    dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
    cls.__setattr__, cls.__delattr__ = _set, _delete
    cls.__fields = fields(cls)
    return cls


def _init(self: Any, *values: Any, **given: Any) -> None:
    cls, state = type(self), vars(self)
    places = iter(values)
    missing = []
    for one in cls.__fields:
        value = MISSING if one.kw_only or not one.init else next(places, MISSING)
        if value is MISSING and one.init:
            value = given.pop(one.name, MISSING)
        if value is MISSING:
            value = one.default if one.default_factory is MISSING else one.default_factory()
        if value is not MISSING:
            state[one.name] = value
        elif one.init:
            missing.append(one.name)
    if missing or given or next(places, MISSING) is not MISSING:
        raise TypeError(_misfit(cls, missing, given))
    if (after := getattr(self, "__post_init__", None)) is not None:
        after()


def _misfit(cls: type, missing: list[str], given: dict[str, Any]) -> str:
    """Why these arguments make no object, in Python's words."""
    if missing:
        names = ", ".join(map(repr, missing))
        return f"{cls.__name__}.__init__() missing {len(missing)} required argument(s): {names}"
    for name in given:
        known = any(one.name == name for one in fields(cls))
        what = "multiple values for argument" if known else "an unexpected keyword argument"
        return f"{cls.__name__}.__init__() got {what} {name!r}"
    return f"{cls.__name__}.__init__() was given too many positional arguments"


def _set(_self: Any, name: str, _value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(_self: Any, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _repr(self: Any) -> str:
    shown = (f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, one.name) for one in fields(self) if one.compare)


def _eq(self: Any, other: object) -> bool:
    return _compared(self) == _compared(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


class _Signature:
    """What `inspect.signature` and an editor's help show of a class."""

    def __get__(self, instance: object, cls: Any) -> inspect.Signature:
        sort = inspect.Parameter
        made = [
            sort(
                one.name,
                sort.KEYWORD_ONLY if one.kw_only else sort.POSITIONAL_OR_KEYWORD,
                default=_shown(one),
                annotation=one.type,
            )
            for one in fields(cls)
            if one.init
        ]
        return inspect.Signature(sorted(made, key=lambda p: p.kind))


def _shown(one: Field[Any]) -> Any:
    if one.default_factory is not MISSING:
        return one.default_factory()
    return inspect.Parameter.empty if one.default is MISSING else one.default

"""Frozen dataclasses that cost next to nothing to define.

`dataclasses` writes and compiles seven methods for each frozen class: close to a millisecond, and headrace has more
than a hundred such classes, so that made two thirds of the time in which it is imported. Here the methods are the same
for all classes. What `dataclasses` knows of a class (`fields`, `replace`, `asdict`, `is_dataclass`) it knows of these.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform, overload

__all__ = ["frozen"]

T = TypeVar("T")
_PARAMS = "__dataclass_params__"


@overload
def frozen(cls: type[T], /) -> type[T]: ...
@overload
def frozen(*, kw_only: bool = False, eq: bool = True) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: Any = None, /, *, kw_only: bool = False, eq: bool = True) -> Any:
    """A decorator: as ``dataclass(frozen=True)``, with its `kw_only` and `eq`.

    What is different: the class takes no ``InitVar`` and no ``__setattr__`` of its own, and an object takes a
    microsecond more to make.
    """
    return _made(cls, kw_only=kw_only, eq=eq) if cls else lambda cls: _made(cls, kw_only=kw_only, eq=eq)


def _made(cls: Any, *, kw_only: bool, eq: bool) -> Any:
    own = vars(cls)
    methods: dict[str, Any] = {"__repr__": _repr}
    if "__init__" not in own:
        methods |= {"__init__": _init, "__signature__": _Signature()}
    if eq:
        methods |= {"__eq__": _eq}
        if own.get("__hash__") is None:  # Python puts None there for a class with an __eq__ of its own
            cls.__hash__ = _hash
    for name, method in methods.items():
        if name not in own:
            setattr(cls, name, method)
    # one made from a frozen one must be frozen by `dataclasses` too; for the others that is the dearest part of it
    above = any(getattr(getattr(base, _PARAMS, None), "frozen", False) for base in cls.__mro__[1:])
    dataclass(init=False, repr=False, eq=False, frozen=above, kw_only=kw_only)(cls)
    getattr(cls, _PARAMS).frozen = True  # so that a frozen dataclass can be made from it
    cls.__setattr__, cls.__delattr__ = _set, _delete
    cls.__fields, cls.__frozen = fields(cls), cls
    cls.__names = frozenset(one.name for one in cls.__fields)
    cls.__compared = tuple(one.name for one in cls.__fields if one.compare)
    _refuse_disorder(cls)
    return cls


def _refuse_disorder(cls: Any) -> None:
    """Raises TypeError for a place without a default behind one that has it."""
    optional = False
    for one in cls.__fields:
        if one.kw_only or not one.init:
            continue
        has = one.default is not MISSING or one.default_factory is not MISSING
        if optional and not has:
            raise TypeError(f"non-default argument {one.name!r} follows default argument")
        optional = optional or has


def _init(self: Any, /, *values: Any, **given: Any) -> None:
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


def _misfit(cls: Any, missing: list[str], given: dict[str, Any]) -> str:
    """Why these arguments make no object, in Python's words."""
    if missing:
        names = ", ".join(map(repr, missing))
        return f"{cls.__name__}.__init__() missing {len(missing)} required argument(s): {names}"
    for name in given:
        what = "multiple values for argument" if name in cls.__names else "an unexpected keyword argument"
        return f"{cls.__name__}.__init__() got {what} {name!r}"
    return f"{cls.__name__}.__init__() was given too many positional arguments"


def _set(self: Any, name: str, value: object) -> None:
    cls = type(self)
    if cls is cls.__frozen or name in cls.__names:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(self, name, value)  # what a plain subclass has besides


def _delete(self: Any, name: str) -> None:
    cls = type(self)
    if cls is cls.__frozen or name in cls.__names:
        raise FrozenInstanceError(f"cannot delete field {name!r}")
    object.__delattr__(self, name)


def _repr(self: Any) -> str:
    shown = (f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _compared(self: Any) -> tuple[Any, ...]:
    cls, state = type(self), vars(self)
    return tuple([state[name] for name in cls.__compared])


def _eq(self: Any, other: object) -> bool:
    return _compared(self) == _compared(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


class _Signature:
    """What `inspect.signature` and an editor's help show of a class."""

    def __get__(self, instance: object, cls: Any) -> inspect.Signature | None:
        if instance is not None or cls.__init__ is not _init:
            return None  # Python looks for itself
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

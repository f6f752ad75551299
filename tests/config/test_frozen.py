"""`headrace.frozen` against what it stands for: a frozen dataclass."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from functools import cached_property
from typing import ClassVar

import pytest

import headrace as hr
from headrace.frozen import frozen


def classes(make, some):
    """The same classes by one decorator and the other."""

    @make
    class Point:
        kind: ClassVar[str] = "point"
        x: int
        y: int = 2
        tags: Mapping[str, int] = field(default_factory=dict, compare=False)
        secret: str = field(default="s", repr=False, metadata={"key": "k"})
        made: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

        def __post_init__(self):
            if self.x < 0:
                raise ValueError("negative")

        @cached_property
        def sum(self):
            return self.x + self.y

    @some
    class Named:
        name: str
        path: str | None = None

        def __hash__(self):
            return 7

    return Point, Named


MADE = classes(frozen, frozen(kw_only=True))
PLAIN = classes(dataclass(frozen=True), dataclass(frozen=True, kw_only=True))
WAYS = pytest.mark.parametrize("classes", [MADE, PLAIN], ids=["frozen", "dataclass"])


@frozen
class Kept:
    a: int
    b: tuple[int, ...] = ()


@WAYS
def test_an_object_has_its_fields_in_order_and_is_what_dataclasses_knows(classes):
    point, named = classes
    one = point(1, tags={"a": 1})
    assert list(vars(one)) == ["x", "y", "tags", "secret", "made"]
    assert dataclasses.asdict(one) == {"x": 1, "y": 2, "tags": {"a": 1}, "secret": "s", "made": []}
    assert dataclasses.replace(one, x=5) == point(5)
    assert [f.name for f in dataclasses.fields(named)] == ["name", "path"]
    assert dataclasses.is_dataclass(named)
    assert point(1).tags is not point(1).tags
    assert point.__match_args__ == ("x", "y", "tags", "secret")
    assert named.__match_args__ == ()
    assert (one.sum, one.kind) == (3, "point")


@WAYS
def test_equality_hash_and_repr(classes):
    point, named = classes
    assert point(1) == point(1, 2, {"other": 3})
    assert point(1) != point(2)
    assert point(1) != named(name="x")
    assert hash(point(1)) == hash(point(1, tags={"other": 3}))
    assert hash(named(name="x")) == 7
    assert repr(point(1)).endswith("Point(x=1, y=2, tags={})")


@WAYS
def test_it_is_frozen(classes):
    point, _ = classes
    one = point(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        one.x = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del one.x


@WAYS
def test_what_fits_no_field_is_a_type_error(classes):
    point, named = classes
    for wrong in (
        point,
        lambda: point(1, x=1),
        lambda: point(1, z=1),
        lambda: point(1, 2, {}, "s", 5),
        lambda: point(1, made=[]),
        lambda: named("x"),
        lambda: named(path="x"),
    ):
        with pytest.raises(TypeError, match=r"(Point|Named)\.__init__\(\)"):
            wrong()
    with pytest.raises(ValueError, match="negative"):
        point(-1)


@WAYS
def test_a_copy_is_equal(classes):
    point, _ = classes
    assert copy.copy(point(1)) == copy.deepcopy(point(1)) == point(1)


def test_it_can_be_pickled():
    assert pickle.loads(pickle.dumps(Kept(1, (2,)))) == Kept(1, (2,))  # noqa: S301  # our own bytes


def test_the_signature_is_that_of_a_dataclass():
    for made, plain in zip(MADE, PLAIN, strict=True):
        names = [[(p.name, p.kind) for p in inspect.signature(c).parameters.values()] for c in (made, plain)]
        assert names[0] == names[1]
    assert inspect.signature(hr.Pipeline).parameters["params"].default == {}


def test_one_without_equality_is_equal_to_itself_alone():
    @frozen(eq=False)
    class Alone:
        a: int = 1

    assert Alone() != Alone()
    assert len({Alone(), Alone()}) == 2


@pytest.mark.parametrize("make", [frozen, dataclass(frozen=True)])
def test_one_can_be_made_from_another(make):
    @make
    class More(Kept):
        c: int = 3

    assert More(1, (), 4) == More(1, c=4)
    assert [f.name for f in dataclasses.fields(More)] == ["a", "b", "c"]


@WAYS
def test_a_plain_subclass_has_attributes_and_an_init_of_its_own(classes):
    point, _ = classes

    class Near(point):
        def __init__(self, x):
            super().__init__(x)
            self.near = True

    one = Near(3)
    assert (one.x, one.near, list(inspect.signature(Near).parameters)) == (3, True, ["x"])
    assert one == Near(3)
    assert one != point(3)
    with pytest.raises(FrozenInstanceError):
        one.x = 4


@pytest.mark.parametrize("make", [frozen, dataclass(frozen=True)])
def test_a_place_without_a_default_behind_one_that_has_it_is_refused(make):
    with pytest.raises(TypeError, match="non-default argument 'b' follows default argument"):

        @make
        class Wrong:
            a: int = 1
            b: int  # type: ignore[misc]


def test_a_field_may_be_called_self():
    @frozen(kw_only=True)
    class Odd:
        self: int

    assert Odd(self=1).self == 1

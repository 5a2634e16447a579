"""Values behave as frozen dataclasses do."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, field, fields, replace

import pytest

from redkeep.model.values import Value


class Point(Value):
    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)
    secret: str = field(default="", repr=False)


class Point3(Point):
    z: int = 0


def test_values_are_compared_and_shown_by_their_fields() -> None:
    assert Point(1) == Point(1, 0, []) == Point(x=1)
    assert Point(1) != Point(2)
    assert Point(1) != (1, 0, [], "")
    assert Point(1).tags is not Point(1).tags
    assert repr(Point(1, secret="word")) == "Point(x=1, y=0, tags=[])"
    assert Point3(1, z=4) != Point3(1)
    assert [f.name for f in fields(Point3(1))] == ["x", "y", "tags", "secret", "z"]


def test_values_can_be_keys_and_changed_copies() -> None:
    class Name(Value):
        text: str

    class Pair(Value):
        first: Name
        second: str

    assert {Pair(Name("a"), "b"): 1}[Pair(Name("a"), "b")] == 1
    assert replace(Pair(Name("a"), "b"), second="c") == Pair(Name("a"), "c")
    assert copy.copy(Point(1, 2)) == pickle.loads(pickle.dumps(Point(1, 2))) == Point(1, 2)


def test_values_stay_what_they_are() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Point(1, w=2)  # type: ignore[call-arg]


def test_a_class_whose_first_values_are_made_by_several_threads() -> None:
    for _ in range(20):

        class Fresh(Value):
            number: int
            double: int = 0

        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(Fresh, range(8)))
        assert [value.number for value in made] == list(range(8))

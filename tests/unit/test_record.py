"""Records: what typing.NamedTuple does, they do, as far as we use it."""

import copy
from typing import NamedTuple

import pytest

from kopiatomic.record import Record


class Point(Record):
    """A place."""

    x: int
    y: int = 0
    name: str = "nowhere"

    @property
    def far(self) -> bool:
        """Whether it is far away."""
        return self.x > 100


class Same(NamedTuple):
    """The same, as Python makes it."""

    x: int
    y: int = 0
    name: str = "nowhere"


class Empty(Record):
    """Nothing."""


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((1,), {}),
        ((1, 2), {}),
        ((1, 2, "here"), {}),
        ((), {"x": 1}),
        ((1,), {"name": "here"}),
        ((), {"name": "here", "x": 5, "y": 6}),
    ],
)
def test_values_go_where_those_of_a_named_tuple_go(values, named):
    record, same = Point(*values, **named), Same(*values, **named)
    assert record == same
    assert (record.x, record.y, record.name) == (same.x, same.y, same.name)
    assert record._asdict() == same._asdict()
    assert repr(record) == repr(same).replace("Same", "Point")
    assert hash(record) == hash(same)
    assert tuple(record._replace(y=7)) == tuple(same._replace(y=7))
    assert type(record._replace(y=7)) is Point


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {}),
        ((), {"y": 1}),
        ((1, 2, "a", 4), {}),
        ((1,), {"x": 1}),
        ((1,), {"z": 1}),
        ((1, 2, "a"), {"z": 1}),
    ],
)
def test_values_that_do_not_fit_are_refused(values, named):
    for kind in (Point, Same):
        with pytest.raises(TypeError):
            kind(*values, **named)


def test_a_change_of_what_is_no_field_is_refused():
    with pytest.raises(TypeError, match="has only the fields x, y, name"):
        Point(1)._replace(z=1)


def test_a_record_does_not_change():
    point = Point(1)
    with pytest.raises(AttributeError):
        point.x = 2
    assert point == (1, 0, "nowhere")


def test_properties_and_unpacking_are_those_of_the_class():
    x, *rest = Point(200)
    assert (x, rest) == (200, [0, "nowhere"])
    assert Point(200).far
    assert not Point(1).far


def test_a_record_may_have_no_field():
    assert Empty() == ()
    with pytest.raises(TypeError):
        Empty(1)


class Kind(Point):
    """A kind of it, with more to know that is no field."""

    colour: str = "red"


def test_a_kind_of_a_record_has_the_fields_of_that_and_copies_are_equal():
    for copied in (copy.copy, copy.deepcopy):
        assert copied(Kind(1, 2)) == Point(1, 2)
        assert type(copied(Kind(1, 2))) is Kind
    assert (Kind(1).colour, Kind(1)._fields) == ("red", ("x", "y", "name"))

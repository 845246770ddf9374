"""``range``, ``linspace``, ``logspace`` and ``geomspace``, with numpy as the reference."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.parameters import parse_parameter
from tests.strategies import parameters

if TYPE_CHECKING:
    from airflow_hptuning.space.base import Parameter


def listed(kind: str, raw: Any) -> list[Any]:
    """Return all values of a parameter."""
    return list(parse_parameter("x", kind, raw).values())


@pytest.mark.parametrize("kind", ["linspace", "logspace", "geomspace"])
def test_values_equal_those_of_numpy(kind: str) -> None:
    """Values agree with numpy's to 1e-12, and both ends are exactly the given ones."""
    import numpy as np

    @given(parameters([kind]))
    def check(parameter: Parameter) -> None:
        arguments: Any = parameter.definition()[kind]
        keywords = {"base": arguments[3]} if len(arguments) > 3 else {}
        expected = getattr(np, kind)(*arguments[:3], **keywords).tolist()
        assert list(parameter.values()) == pytest.approx(expected, rel=1e-12, abs=1e-14)
        assert all(type(value) is float for value in parameter.values())
        if kind != "logspace":
            ends = [arguments[0], arguments[1]][: parameter.size]
            assert [parameter.value_at(0), parameter.value_at((parameter.size or 1) - 1)][: len(ends)] == ends

    check()


def test_range_equals_arange_where_the_step_divides() -> None:
    """Whole ranges agree with numpy.arange in values and type."""
    import numpy as np

    for start, stop, step in ((0, 10, 2), (10, 600, 50), (-5, 0, 1), (3, 4, 100)):
        assert listed("range", [start, stop, step]) == np.arange(start, stop, step).tolist()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("0:10:2", [0, 2, 4, 6, 8]),
        ("0:1:0.25", [0.0, 0.25, 0.5, 0.75]),
        ([0, 3.0, 1], [0.0, 1.0, 2.0]),
        # numpy.arange gives seven values here, the last one 1.8000000000000005.
        ("1.2:1.8:0.1", [1.2, 1.3, 1.4, 1.5, 1.6, 1.7]),
        ("0:0.3:0.1", [0.0, 0.1, 0.2]),
        ("0:1:3", [0]),
        ("1e-5:4e-5:1e-5", [1e-05, 2e-05, 3e-05]),
        ([10**17, 10**17 + 3, 1], [10**17, 10**17 + 1, 10**17 + 2]),
    ],
)
def test_ranges_exclude_their_end_exactly(raw: Any, expected: list[float]) -> None:
    """Deviation from numpy.arange: decimal arithmetic, no noise, never the end; whole numbers stay whole."""
    values = listed("range", raw)
    assert values == expected
    assert [type(value) for value in values] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        ("linspace", "0.001:0.1:5", [0.001, 0.02575, 0.0505, 0.07525, 0.1]),
        ("linspace", [0, 1, 5.0], [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("linspace", [3, 4, 1], [3.0]),
        ("logspace", "-4:-1:4", [0.0001, 0.001, 0.01, 0.1]),
        ("logspace", "0:3:4:2", [1.0, 2.0, 4.0, 8.0]),
        ("logspace", [0, 2, 3, 0.5], [1.0, 0.5, 0.25]),
        ("logspace", [-30, 30, 3], [1e-30, 1.0, 1e30]),
        ("geomspace", "0.001:0.1:3", [0.001, 0.01, 0.1]),
        ("geomspace", [1e-4, 1e-1, 4], [0.0001, 0.001, 0.01, 0.1]),
        ("geomspace", [-100, -1, 3], [-100.0, -10.0, -1.0]),
        ("geomspace", [1e-300, 1e300, 3], [1e-300, 1.0, 1e300]),
        ("geomspace", [5, 6, 1], [5.0]),
    ],
)
def test_values_without_noise(kind: str, raw: Any, expected: list[float]) -> None:
    """Values that decimals can write are exactly those."""
    assert listed(kind, raw) == expected


@pytest.mark.parametrize(
    ("kind", "raw", "message", "hint"),
    [
        ("range", [10, 0, -1], "`stop` of `range` must be more than `start`, but start is 10 and stop is 0", "Swap"),
        ("range", [3, 3, 1], "`stop` of `range` must be more than `start`", "`values`"),
        ("range", "0:10:0", "`step` of `range` must be more than 0, not 0", ""),
        ("range", "0:10:-1", "`step` of `range` must be more than 0, not -1", ""),
        ("range", [0, 1e300, 1e-5], "`range` has more than 1e+15 values", "`uniform`"),
        ("range", [1e16, 1e16 + 10, 0.5], "too close together", "fewer"),
        ("linspace", [1, 0, 5], "`stop` of `linspace` must be more than `start`", "Swap"),
        ("linspace", [0, 1, 0], "`num` of `linspace` must be a whole number from 1, not 0", ""),
        ("linspace", [0, 1, -3], "`num` of `linspace` must be a whole number from 1, not -3", ""),
        ("linspace", [0, 1, 2.5], "`num` of `linspace` must be a whole number from 1, not 2.5", ""),
        ("linspace", [1, 1 + 1e-12, 10**6], "too close together", "fewer"),
        ("logspace", [0, 1, 1.5], "`num` of `logspace` must be a whole number from 1", ""),
        ("logspace", [-1, -4, 4], "`stop` of `logspace` must be more than `start`", "Swap"),
        ("logspace", [0, 1, 3, 0], "`base` of `logspace` must be positive and not 1, not 0", ""),
        ("logspace", [0, 1, 3, -2], "`base` of `logspace` must be positive and not 1, not -2", ""),
        ("logspace", [0, 1, 3, 1], "`base` of `logspace` must be positive and not 1, not 1", ""),
        ("logspace", [32, 512, 5], "10 to the power of 512, which no float can hold", "`geomspace`"),
        ("logspace", [-400, 0, 5], "10 to the power of -400, which no float can hold", "`geomspace`"),
        ("logspace", [0, 1e-14, 10], "too close together", ""),
        ("geomspace", [0, 1, 3], "no ratio leads to 0 or across it", "`linspace`"),
        ("geomspace", [-1, 1, 3], "no ratio leads to 0 or across it", "same sign"),
        ("geomspace", [1, 0.1, 3], "`stop` of `geomspace` must be more than `start`", "Swap"),
        ("geomspace", [1, 2, 0], "`num` of `geomspace` must be a whole number from 1", ""),
    ],
)
def test_refused_ranges(kind: str, raw: Any, message: str, hint: str) -> None:
    """Whatever gives no list of different numbers is refused, with a hint where one helps."""
    with pytest.raises(SearchSpaceError) as caught:
        parse_parameter("x", kind, raw)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("raw", [[0, 10**12, 1], [0, 10**6, 1e-6], [-(10**9), 10**9, 0.001]])
def test_huge_ranges_are_never_built(raw: list[float]) -> None:
    """A range of 10^12 values answers by index, and its values survive the unit cube."""
    parameter = parse_parameter("x", "range", raw)
    assert parameter.size is not None
    assert parameter.size >= 10**12
    for index in (0, 1, 12_345_678_901, parameter.size - 2, parameter.size - 1):
        value = parameter.value_at(index)
        assert parameter.contains(value)
        assert parameter.decode(parameter.encode(value)) == value
    assert len(list(islice(parameter.values(), 3))) == 3


def test_exponents_that_look_like_values_are_shown_resolved() -> None:
    """The documented ``logspace: 0.01:0.1:5`` warns with the real values and names geomspace."""
    ((message, hint),) = parse_parameter("x", "logspace", "0.01:0.1:5").warnings()
    assert message == "`start` and `stop` of `logspace` are exponents: the values go from 1.02329 to 1.25893"
    assert hint == "For values from 0.01 to 0.1, write `geomspace: [0.01, 0.1, 5]`."
    assert parse_parameter("x", "logspace", "-2:-1:5").warnings() == []


@pytest.mark.parametrize(
    ("kind", "raw", "low", "high", "scale"),
    [
        ("range", "0:10:3", 0, 9, "linear"),
        ("linspace", [0, 1, 5], 0, 1, "linear"),
        ("logspace", "-4:-1:4", 0.0001, 0.1, "log"),
        ("logspace", [0, 3, 4, 0.5], 0.125, 1, "log"),
        ("geomspace", [1, 100, 3], 1, 100, "log"),
        ("geomspace", [-100, -1, 3], -100, -1, "linear"),
    ],
)
def test_bounds_are_those_of_the_values(kind: str, raw: Any, low: float, high: float, scale: str) -> None:
    """Bounds resolve exponents and exclude the end of a range, unlike Polyaxon's."""
    parameter = parse_parameter("x", kind, raw)
    assert (parameter.low, parameter.high, parameter.scale) == (low, high, scale)


def test_places_are_even_on_the_scale_of_the_kind() -> None:
    """Logarithmic kinds are encoded in logarithms, and points snap to the nearest value, the first of equals."""
    parameter = parse_parameter("x", "geomspace", [0.001, 0.1, 3])
    assert [parameter.encode(value)[0] for value in parameter.values()] == pytest.approx([0, 0.5, 1])
    assert [parameter.decode([place]) for place in (0.2, 0.25, 0.3, 0.8)] == [0.001, 0.001, 0.01, 0.1]


def test_values_between_the_listed_ones_do_not_belong() -> None:
    """Only listed values belong to the domain, whatever their type."""
    parameter = parse_parameter("x", "range", [0, 10, 2])
    assert parameter.contains(4)
    assert parameter.contains(4.0)
    assert not parameter.contains(3)
    assert not parameter.contains(10)
    assert not parameter.contains(math.nan)
    assert not parse_parameter("x", "geomspace", [1, 100, 3]).contains(-10)


@pytest.mark.parametrize(
    ("kind", "raw", "value", "place"),
    [
        ("range", [0, 10, 2], -3, 0.0),
        ("range", [0, 10, 2], 99.5, 1.0),
        ("geomspace", [1, 100, 3], -5, 0.0),
        ("geomspace", [1, 100, 3], 0, 0.0),
        ("geomspace", [1, 100, 3], 1e9, 1.0),
        ("geomspace", [-100, -1, 3], 5, 1.0),
    ],
)
def test_foreign_numbers_are_placed_at_the_nearest_end(kind: str, raw: Any, value: float, place: float) -> None:
    """A number from elsewhere (an earlier sweep with other bounds) still has a place in the cube."""
    assert parse_parameter("x", kind, raw).encode(value) == (place,)

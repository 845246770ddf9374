"""The search space as the product of its parameters."""

from __future__ import annotations

import json
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.search_space import SearchSpace
from tests.interpreters import outputs_of
from tests.strategies import FINITE_KINDS, LISTED_KINDS, build_parameter, build_space, spaces


@given(spaces(LISTED_KINDS, max_parameters=3))
def test_size_is_the_product_and_points_are_in_file_order(space: SearchSpace) -> None:
    """Points enumerate the Cartesian product in file order, the last parameter varying fastest."""
    sizes = [parameter.size or 0 for parameter in space.parameters]
    assert space.size == space.n_distinct
    expected = product(*(range(size) for size in sizes))
    for index, digits in zip(range(min(space.size or 0, 50)), expected, strict=False):
        values = [one.value_at(digit) for one, digit in zip(space.parameters, digits, strict=True)]
        assert space.point(index) == dict(zip(space.names, values, strict=True))


@given(spaces(LISTED_KINDS, max_parameters=3), st.data())
def test_point_is_a_bijection(space: SearchSpace, data: st.DataObject) -> None:
    """Different indexes are different configs, all of the space."""
    size = space.size or 0
    one, other = (data.draw(st.integers(0, size - 1)) for _ in range(2))
    same = space.identity(space.point(one)) == space.identity(space.point(other))
    assert same == (one == other)
    assert space.contains(space.point(one))


@given(spaces(), st.integers(0, 1000))
def test_samples_survive_the_cube(space: SearchSpace, seed: int) -> None:
    """A drawn config belongs to the space, and so does what its place in the cube decodes to."""
    config = space.sample(random.Random(seed))  # noqa: S311 - a test is no secret
    assert list(config) == list(space.names)
    assert space.contains(config)
    vector = space.encode(config)
    assert len(vector) == space.dimensions
    decoded = space.decode(vector)
    assert space.contains(decoded)
    assert space.encode(decoded) == pytest.approx(vector, abs=1e-6)


@given(spaces())
def test_columns_cover_the_cube(space: SearchSpace) -> None:
    """Each parameter has its own columns, in order, without gaps."""
    columns = [index for name in space.names for index in range(space.dimensions)[space.columns[name]]]
    assert columns == list(range(space.dimensions))


@given(spaces(FINITE_KINDS, max_parameters=2), st.data())
def test_support_points_can_be_drawn(space: SearchSpace, data: st.DataObject) -> None:
    """A finite support is enumerated without repetition, within the space."""
    count = space.n_distinct
    assert count is not None
    one, other = (data.draw(st.integers(0, count - 1)) for _ in range(2))
    assert space.contains(space.support_point(one))
    same = space.identity(space.support_point(one)) == space.identity(space.support_point(other))
    assert same == (one == other)


def test_a_space_of_10_to_the_12_answers_at_once() -> None:
    """Points of a huge space are computed, not listed."""
    axis = {"range": [0, 10**4, 1]}
    space = build_space({"a": axis, "b": axis, "c": axis})
    assert space.size == 10**12
    assert space.point(10**12 - 1) == {"a": 9999, "b": 9999, "c": 9999}
    assert space.point(123_456_789) == {"a": 1, "b": 2345, "c": 6789}


def test_sizes_with_distributions() -> None:
    """Continuous parameters have no size; quantised ones still bound the number of different configs."""
    space = build_space({"a": {"values": [1, 2]}, "b": {"quniform": [0, 1, 0.1]}})
    assert (space.size, space.n_distinct, space.is_listed, space.is_dense) == (None, 20, False, False)
    space = build_space({"a": {"pvalues": [["x", 0], ["y", 0.5], ["z", 0.5]]}})
    assert (space.size, space.n_distinct, space.is_listed) == (3, 2, False)
    space = build_space({"a": {"values": [1, 2]}, "b": {"uniform": [0, 1]}})
    assert (space.size, space.n_distinct, space.is_dense) == (None, None, True)
    space = build_space({"a": {"qnormal": [0, 1, 1]}})
    assert (space.size, space.n_distinct, space.is_dense) == (None, None, False)


def test_parameters_are_found_by_name() -> None:
    """Indexing gives the parameter; an unknown name is a KeyError."""
    space = build_space({"lr": {"uniform": [0, 1]}})
    assert space["lr"].kind == "uniform"
    with pytest.raises(KeyError):
        space["momentum"]


def test_contains_wants_exactly_the_parameters() -> None:
    """A config with a key too many or too few, or a foreign value, does not belong."""
    space = build_space({"a": {"values": [1, 2]}, "b": {"uniform": [0, 1]}})
    assert space.contains({"b": 0.5, "a": 1})
    assert not space.contains({"a": 1})
    assert not space.contains({"a": 1, "b": 0.5, "c": 0})
    assert not space.contains({"a": 3, "b": 0.5})


def test_broken_spaces_and_requests() -> None:
    """An empty space, a repeated name, an index or a point outside are errors."""
    with pytest.raises(SearchSpaceError, match="no parameter"):
        SearchSpace([])
    twice = build_parameter("a", {"values": [1]})
    with pytest.raises(SearchSpaceError, match="`a` is searched twice"):
        SearchSpace([twice, twice])
    space = build_space({"a": {"values": [1, 2]}})
    for index in (2, -1):
        with pytest.raises(IndexError, match="no config number"):
            space.point(index)
    with pytest.raises(ValueError, match="1 columns, not 2"):
        space.decode([0.5, 0.5])
    with pytest.raises(TypeError, match="`u` is continuous"):
        build_space({"u": {"uniform": [0, 1]}}).point(0)


def test_the_spaces_of_polyaxons_own_tests() -> None:
    """Points of Polyaxon's unit tests decode to the same configs, once placed in the unit cube."""
    space = build_space({"f1": {"values": [1, 2, 3]}, "f2": {"linspace": [1, 2, 5]}, "f3": {"range": [1, 5, 1]}})
    assert space.dimensions == 3
    assert [list(one.values()) for one in space.parameters] == [
        [1, 2, 3],
        [1, 1.25, 1.5, 1.75, 2],
        [1, 2, 3, 4],
    ]
    assert space.decode([0, 0.2, 1 / 3]) == {"f1": 1, "f2": 1.25, "f3": 2}
    space = build_space(
        {
            "f1": {"values": [1, 2, 3, 4, 5]},
            "f2": {"linspace": [1, 5, 5]},
            "f3": {"range": [1, 6, 1]},
            "f4": {"uniform": [1, 5]},
            "f5": {"values": ["a", "b", "c"]},
        }
    )
    assert space.dimensions == 7
    assert space["f5"].encode("a") == (1, 0, 0)
    decoded = space.decode([0, 0.8 / 4, 1 / 4, 2 / 4, 0, 0, 1])
    assert decoded == {"f1": 1, "f2": 2, "f3": 2, "f4": 3, "f5": "c"}


def test_drawing_is_the_same_in_another_process() -> None:
    """A fresh interpreter with another hash seed draws and encodes the same."""
    code = """
import json, random
from tests.strategies import build_space
values, pairs = ["x", {"k": 1}, [2]], [["u", .5], ["v", .5]]
space = build_space({"a": {"values": values}, "b": {"normal": [0, 1]}, "c": {"pvalues": pairs}})
rng = random.Random(7)
configs = [space.sample(rng) for _ in range(20)]
print(json.dumps([configs, [space.encode(config) for config in configs]]))
"""
    outputs = outputs_of(code)
    assert len(outputs) == 1
    assert len(json.loads(outputs.pop())[0]) == 20

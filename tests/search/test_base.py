"""Random streams and distinct drawing."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.search.base import count_distinct, distinct_configs, permutation, stream
from tests.interpreters import outputs_of
from tests.strategies import FINITE_KINDS, build_space, spaces

if TYPE_CHECKING:
    from airflow_hptuning.space.search_space import SearchSpace


def test_streams_are_the_same_everywhere() -> None:
    """A stream depends on seed and names by value: these numbers must never change."""
    assert [stream(0).random(), stream(7, "hyperband", 3).random()] == [0.9594540598682906, 0.4529499862762866]


def test_streams_of_different_purposes_differ() -> None:
    """Seeds and names are told apart, also by type and by where one word ends; 0 is a seed."""
    purposes: list[tuple[int | str, ...]] = [
        (0,),
        (1,),
        ("1",),
        (1, "a"),
        (1, "a", "b"),
        (1, "ab"),
        (1, "a", 2),
        (1, "a2"),
        (12, "a"),
        (1, 2),
        (1, "2"),
    ]
    assert len({stream(purpose[0], *purpose[1:]).random() for purpose in purposes}) == len(purposes)


def test_streams_ignore_the_hash_seed() -> None:
    """A fresh interpreter with another hash seed has the same stream."""
    code = "from airflow_hptuning.search.base import stream; print(stream('s', 'x', 1).random())"
    outputs = outputs_of(code)
    assert {float(output) for output in outputs} == {stream("s", "x", 1).random()}


@given(st.integers(0, 200), st.integers())
def test_permutation_is_one(size: int, seed: int) -> None:
    """All numbers below the size occur once."""
    assert sorted(permutation(size, stream(seed))) == list(range(size))


def test_permutations_are_equally_likely() -> None:
    """All six orders of three occur alike: 6000 shuffles, 5 standard deviations, fixed seed."""
    rng = stream(11)
    counts = Counter(tuple(permutation(3, rng)) for _ in range(6000))
    sigma = (6000 * 1 / 6 * 5 / 6) ** 0.5
    assert len(counts) == 6
    assert all(abs(count - 1000) < 5 * sigma for count in counts.values())


def test_a_permutation_of_10_to_the_20_starts_at_once() -> None:
    """Only what was moved is kept."""
    assert len(set(islice(permutation(10**20, stream(1)), 100))) == 100


@given(spaces(FINITE_KINDS, max_parameters=2), st.integers())
def test_finite_spaces_are_exhausted_exactly(space: SearchSpace, seed: int) -> None:
    """Drawing gives every config of a finite space once, then ends, whatever the probabilities."""
    count = space.n_distinct or 0
    wanted = min(count, 300)
    configs = list(islice(distinct_configs(space, stream(seed)), wanted + 1 if count <= 300 else wanted))
    assert len(configs) == wanted
    assert len({space.identity(config) for config in configs}) == wanted
    assert all(space.contains(config) for config in configs)


def test_improbable_configs_are_reached() -> None:
    """A value with a probability of 10^-12 does not make the search endless."""
    space = build_space({"a": {"pvalues": [["x", 1 - 1e-12], ["y", 1e-12]]}, "b": {"values": [1, 2]}})
    configs = list(distinct_configs(space, stream(1)))
    assert sorted((config["a"], config["b"]) for config in configs) == [("x", 1), ("x", 2), ("y", 1), ("y", 2)]


def test_a_space_without_known_bound_ends_too() -> None:
    """A coarse quantised normal has only a few values that ever occur."""
    space = build_space({"a": {"qnormal": [0, 1, 5]}})
    configs = list(distinct_configs(space, stream(1)))
    assert {-5.0, 0.0} <= {config["a"] for config in configs} <= {-10.0, -5.0, 0.0, 5.0}
    assert count_distinct(space, stream(1), 100) == len(configs)


def test_unwanted_configs_are_left_out() -> None:
    """Configs that were seen are not drawn, and those drawn are noted."""
    space = build_space({"a": {"values": [1, 2, 3, 4]}})
    seen = {space.identity({"a": 2})}
    assert sorted(config["a"] for config in distinct_configs(space, stream(1), seen)) == [1, 3, 4]
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("matrix", "most", "expected"),
    [
        ({"a": {"uniform": [0, 1]}}, 50, 50),
        ({"a": {"values": [1, 2]}, "b": {"range": [0, 5, 1]}}, 50, 10),
        ({"a": {"values": [1, 2]}, "b": {"range": [0, 5, 1]}}, 5, 5),
    ],
)
def test_count_distinct(matrix: dict[str, dict[str, object]], most: int, expected: int) -> None:
    """The number of configs that a space can give is known before they are drawn."""
    assert count_distinct(build_space(matrix), stream(1), most) == expected

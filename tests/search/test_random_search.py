"""Random search."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.search.random_search import RandomSearch
from tests.strategies import build_space, spaces

_PATH = Path(__file__).resolve().parents[3] / "shared" / "polyaxon" / "validation_vectors.json"

_VECTORS: list[dict[str, Any]] = json.loads(_PATH.read_text())["random_suggestions"] if _PATH.exists() else []


@given(spaces(), st.integers(0, 30), st.integers(0, 30), st.integers())
def test_fewer_are_a_prefix_of_more(space: Any, fewer: int, more: int, seed: int) -> None:
    """A trial depends on its number only, not on how many are asked for, nor on n_experiments."""
    fewer, more = sorted((fewer, more))
    search = RandomSearch(space, 30, seed)
    assert search.suggestions(0, fewer) == search.suggestions(0, more)[:fewer]
    assert search.suggestions(fewer, more) == search.suggestions(0, more)[fewer:]
    assert RandomSearch(space, max(fewer, 1), seed).suggestions() == search.suggestions(0, max(fewer, 1))


@given(spaces(), st.integers(1, 40), st.integers())
def test_configs_are_distinct_and_counted(space: Any, count: int, seed: int) -> None:
    """The total is exact: as many different configs as asked for, or all there are."""
    search = RandomSearch(space, count, seed)
    suggestions = search.suggestions()
    assert len(suggestions) == search.total <= count
    assert [one.trial for one in suggestions] == list(range(search.total))
    assert len({space.identity(one.params) for one in suggestions}) == search.total
    assert search.total == count or space.n_distinct is None or space.n_distinct == search.total


@pytest.mark.parametrize(
    ("matrix", "total"),
    [
        ({"a": {"values": [1, 2]}, "b": {"range": [1, 3, 1]}}, 4),
        ({"a": {"pvalues": [[1, 0.1], [2, 0.6]]}, "b": {"range": [1, 3, 1]}}, 4),
        ({"a": {"values": [1, 2, 3]}, "b": {"linspace": [1, 2, 5]}, "c": {"range": [1, 5, 1]}}, 10),
        ({"a": {"values": [1, 2]}, "b": {"uniform": [0, 1]}}, 10),
        # Polyaxon never came back from these: fewer configs exist than it assumed.
        ({"a": {"pvalues": [["x", 0.0], ["y", 1.0]]}}, 1),
        ({"a": {"quniform": [0, 1, 0.5]}}, 2),
        ({"a": {"values": [1, 1, 2]}}, 2),
    ],
)
def test_totals(matrix: dict[str, dict[str, object]], total: int) -> None:
    """Ten trials at most, and no more than there are configs."""
    search = RandomSearch(build_space(matrix), 10, 1)
    assert search.total == len(search.suggestions()) == total


def test_seeds_differ_and_zero_is_one() -> None:
    """Deviation: Polyaxon took seed 0 for no seed."""
    space = build_space({"a": {"uniform": [0, 1]}})
    sequences = [RandomSearch(space, 5, seed).suggestions() for seed in (0, 1, "0", "nightly")]
    assert RandomSearch(space, 5, 0).suggestions() == sequences[0]
    assert len({one[0].params["a"] for one in sequences}) == 4


def test_ten_thousand_suggestions() -> None:
    """Many trials of a mixed space are distinct and complete."""
    space = build_space(
        {
            "lr": {"loguniform": [-7, -1]},
            "units": {"values": [32, 64, 128]},
            "act": {"pvalues": [["relu", 0.1], ["tanh", 0.9]]},
            "q": {"quniform": [0, 1, 0.1]},
        }
    )
    suggestions = RandomSearch(space, 10_000, 3).suggestions()
    assert len({space.identity(one.params) for one in suggestions}) == 10_000


@pytest.mark.parametrize("vector", _VECTORS, ids=lambda vector: vector["matrix"])
def test_vectors_of_polyaxon_but_for_the_sequence(vector: dict[str, Any]) -> None:
    """Count, distinctness and membership agree with Polyaxon's suggestions.

    Deviation: Polyaxon drew from numpy.random.RandomState, we draw from random.Random, so sequences differ.
    """
    import yaml

    space = build_space(yaml.safe_load(vector["matrix"]))
    ours = RandomSearch(space, vector["n"], vector["seed"]).suggestions()
    theirs = [{name: value for name, value in one.items() if name in space.names} for one in vector["suggestions"]]
    assert len(ours) == len(theirs)
    assert len({space.identity(one.params) for one in ours}) == len(ours)
    assert all(space.contains(one) for one in theirs)


@pytest.mark.skipif(not _VECTORS, reason="the shared folder with Polyaxon's vectors is not beside the repository")
def test_exhausted_vector_is_the_whole_space() -> None:
    """Where Polyaxon tried the whole space, so do we."""
    vector = _VECTORS[1]
    space = build_space({"a": {"values": [1, 2]}, "b": {"range": [1, 3, 1]}})
    ours = RandomSearch(space, vector["n"], vector["seed"]).suggestions()
    assert {tuple(one.params.values()) for one in ours} == {(one["a"], one["b"]) for one in vector["suggestions"]}


def test_draws_of_a_parameter_are_independent_of_repetition() -> None:
    """First draws over many seeds follow the probabilities: 2000 seeds, 5 standard deviations."""
    space = build_space({"a": {"pvalues": [["x", 0.25], ["y", 0.75]]}})
    first = [RandomSearch(space, 1, seed).suggestions()[0].params["a"] for seed in range(2000)]
    assert abs(first.count("x") - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75)


def test_a_request_for_nothing_is_refused() -> None:
    """At least one trial."""
    with pytest.raises(ValueError, match="at least 1, not 0"):
        RandomSearch(build_space({"a": {"values": [1]}}), 0, 1)

"""Grid search."""

from __future__ import annotations

import pytest

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.search.grid_search import GridSearch
from airflow_hptuning.trials import ActiveTrial, CompletedTrial
from tests.strategies import build_space


def test_grid_is_in_file_order() -> None:
    """Deviation from Polyaxon, whose database reordered the keys: file order, the last key varying fastest."""
    search = GridSearch(build_space({"lr": {"values": [0.1, 0.01]}, "act": {"values": ["relu", "tanh"]}}))
    assert [one.params for one in search.suggestions()] == [
        {"lr": 0.1, "act": "relu"},
        {"lr": 0.1, "act": "tanh"},
        {"lr": 0.01, "act": "relu"},
        {"lr": 0.01, "act": "tanh"},
    ]
    assert [one.trial for one in search.suggestions()] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("matrix", "n_experiments", "total"),
    [
        ({"a": {"values": [1, 2, 3]}}, 10, 3),
        ({"a": {"values": [1, 2, 3]}, "b": {"linspace": [1, 2, 5]}, "c": {"range": [1, 5, 1]}}, 10, 10),
        ({"a": {"values": [1, 2, 3]}, "b": {"linspace": [1, 2, 5]}, "c": {"range": [1, 5, 1]}}, None, 60),
        ({"a": {"values": [1, 2, 3]}}, 1, 1),
    ],
)
def test_totals_of_polyaxons_own_tests(
    matrix: dict[str, dict[str, object]], n_experiments: int | None, total: int
) -> None:
    """The number of trials is the smaller of the grid and the request."""
    search = GridSearch(build_space(matrix), n_experiments)
    assert search.total == len(search.suggestions()) == total


def test_slices_of_a_huge_grid() -> None:
    """A grid of 10^12 configs is never built; any part of it comes at once."""
    axis = {"range": [0, 10**4, 1]}
    space = build_space({"a": axis, "b": axis, "c": axis})
    assert [one.params["c"] for one in GridSearch(space, 5).suggestions()] == [0, 1, 2, 3, 4]
    search = GridSearch(space)
    assert search.total == 10**12
    (last,) = search.suggestions(10**12 - 1)
    assert (last.trial, last.params) == (10**12 - 1, {"a": 9999, "b": 9999, "c": 9999})
    assert [one.trial for one in search.suggestions(7, 9)] == [7, 8]
    assert search.suggest([], [], 1)[0].trial == 0


def test_trials_that_have_started_are_passed_over() -> None:
    """Suggestions fill the gaps in order."""
    search = GridSearch(build_space({"a": {"range": [0, 6, 1]}}))
    finished, active = [CompletedTrial(0, {"a": 0}, 1.0)], [ActiveTrial(2, {"a": 2})]
    assert [one.trial for one in search.suggest(finished, active, 3)] == [1, 3, 4]


@pytest.mark.parametrize("definition", [{"uniform": [0, 1]}, {"pvalues": [["a", 0.5], ["b", 0.5]]}])
def test_distributions_are_refused(definition: dict[str, object]) -> None:
    """The message is Polyaxon's; pvalues count as a distribution."""
    with pytest.raises(SearchSpaceError, match="`lr` defines a distribution, and it cannot be used with grid search"):
        GridSearch(build_space({"x": {"values": [1]}, "lr": definition}))


def test_a_request_for_nothing_is_refused() -> None:
    """At least one trial."""
    with pytest.raises(ValueError, match="at least 1, not 0"):
        GridSearch(build_space({"a": {"values": [1]}}), 0)

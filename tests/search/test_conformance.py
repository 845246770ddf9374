"""Every algorithm against the conformance kit."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_hptuning.search.bayesian import BayesianOptimization
from airflow_hptuning.search.grid_search import GridSearch
from airflow_hptuning.search.hyperband import Hyperband
from airflow_hptuning.search.random_search import RandomSearch
from airflow_hptuning.space.parameters import PARAMETER_KINDS
from airflow_hptuning.trials import Direction, Metric
from tests.kits.algorithms import CHECKS, Factory
from tests.strategies import LISTED_KINDS, spaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_hptuning.search.base import SearchAlgorithm
    from airflow_hptuning.space.search_space import SearchSpace


def grid(space: SearchSpace, seed: int, direction: Direction) -> SearchAlgorithm:
    """Build a grid search; it needs neither seed nor direction."""
    del seed, direction
    return GridSearch(space, 20)


def random(space: SearchSpace, seed: int, direction: Direction) -> SearchAlgorithm:
    """Build a random search; it needs no direction."""
    del direction
    return RandomSearch(space, 20, seed)


def hyperband(space: SearchSpace, seed: int, direction: Direction) -> SearchAlgorithm:
    """Build a Hyperband of three brackets."""
    return Hyperband(space, 9, Fraction(3), "int", Metric("loss", direction), seed)


def hyperband_fraction(space: SearchSpace, seed: int, direction: Direction) -> SearchAlgorithm:
    """Build a Hyperband with a broken reduction factor and merged rungs."""
    return Hyperband(space, 5, Fraction("1.7"), "int", Metric("loss", direction), seed)


def bayesian(space: SearchSpace, seed: int, direction: Direction) -> SearchAlgorithm:
    """Build a short Bayesian optimisation."""
    return BayesianOptimization(space, 4, 4, Metric("loss", direction), seed)


FACTORIES: dict[Factory, tuple[str, ...]] = {
    grid: LISTED_KINDS,
    random: tuple(PARAMETER_KINDS),
    hyperband: tuple(PARAMETER_KINDS),
    hyperband_fraction: tuple(PARAMETER_KINDS),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_algorithm_conforms(factory: Factory, check: Callable[[Factory, Any], None], data: st.DataObject) -> None:
    """Each algorithm passes each check on any space that it admits."""
    check(factory, data.draw(spaces(FACTORIES[factory], max_parameters=3)))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@settings(max_examples=6)
@given(space=spaces(max_parameters=3))
def test_bayesian_optimisation_conforms(check: Callable[[Factory, Any], None], space: SearchSpace) -> None:
    """It passes the same checks; fewer spaces, for it fits a model for each suggestion."""
    check(bayesian, space)

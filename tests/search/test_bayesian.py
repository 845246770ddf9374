"""Bayesian optimisation: what holds on every space."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from airflow_hptuning.search.bayesian import BayesianOptimization
from airflow_hptuning.trials import ActiveTrial, CompletedTrial, Direction, Metric, TrialState
from tests.strategies import build_space

LOSS = Metric("loss", Direction.MINIMIZE)
MIXED = {
    "lr": {"loguniform": [-7, -1]},
    "units": {"quniform": [16, 64, 16]},
    "act": {"pvalues": [["relu", 0.3], ["tanh", 0.7]]},
}


def optimization(space: dict[str, Any], initial: int = 4, iterations: int = 8) -> BayesianOptimization:
    """An optimisation with fixed settings."""
    return BayesianOptimization(build_space(space), initial, iterations, LOSS, seed=3)


def run(algorithm: BayesianOptimization, loss: Any) -> list[CompletedTrial]:
    """Run a whole search, one trial after the other."""
    done: list[CompletedTrial] = []
    while suggestions := algorithm.suggest(done, [], 1):
        (one,) = suggestions
        value = loss(dict(one.params))
        state = TrialState.SUCCEEDED if value is not None else TrialState.FAILED
        done.append(CompletedTrial(one.trial, one.params, value, state))
    return done


@pytest.mark.parametrize(
    "loss",
    [
        lambda params: math.log(params["lr"]) ** 2 + params["units"],
        lambda _: 1.0,
        lambda params: None if params["act"] == "relu" else params["lr"],
        lambda params: math.nan if params["units"] == 16 else params["units"],
    ],
    ids=["smooth", "all equal", "some fail", "some nan"],
)
def test_total_without_repetition(loss: Any) -> None:
    """Exactly as many trials as asked for, all different, whatever the outcomes are."""
    done = run(optimization(MIXED), loss)
    assert [trial.trial for trial in done] == list(range(12))
    assert len({tuple(trial.params.items()) for trial in done}) == 12


def test_a_small_space_ends_the_search() -> None:
    """Six points, six trials."""
    space = {"a": {"values": [1, 2, 3]}, "b": {"values": ["x", "y"]}}
    assert len(run(optimization(space, 2, 20), lambda params: params["a"])) == 6


def test_pending_trials_are_not_proposed_again() -> None:
    """Suggestions made while others run differ from them and from each other."""
    algorithm = optimization(MIXED, 4, 30)
    done = run(optimization(MIXED, 4, 2), lambda params: params["lr"])
    active: list[ActiveTrial] = []
    for _ in range(5):
        (one,) = algorithm.suggest(done, active, 1)
        active.append(ActiveTrial(one.trial, one.params))
    known: list[CompletedTrial | ActiveTrial] = [*done, *active]
    seen = [tuple(trial.params.items()) for trial in known]
    assert len(set(seen)) == len(seen)


def test_it_finds_the_minimum_of_a_bowl() -> None:
    """Fifteen model-based trials come closer than 0.02 in two dimensions."""
    space = {"x": {"uniform": [0, 1]}, "y": {"uniform": [0, 1]}}
    done = run(optimization(space, 5, 15), lambda p: (p["x"] - 0.3) ** 2 + (p["y"] - 0.7) ** 2)
    assert min(trial.value for trial in done if trial.value is not None) < 0.02**2


def test_the_same_in_another_process() -> None:
    """Suggestions depend on their arguments only."""
    code = "from tests.search.test_bayesian import *; print(run(optimization(MIXED), lambda p: p['lr'])[-1].params)"
    results = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(results) == 1

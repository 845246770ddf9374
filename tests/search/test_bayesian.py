"""Bayesian optimisation: what holds on every space."""

from __future__ import annotations

import json
import math
import warnings
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - tests of numerical code
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_hptuning import load_spec, suggest
from airflow_hptuning.planning import algorithm_of
from airflow_hptuning.search.acquisition import Acquisition
from airflow_hptuning.search.bayesian import BayesianOptimization
from airflow_hptuning.trials import (
    ActiveTrial,
    CompletedTrial,
    Direction,
    Failure,
    FailureClass,
    Metric,
    TrialRecord,
    TrialState,
)
from tests.interpreters import outputs_of
from tests.strategies import build_space, spaces

if TYPE_CHECKING:
    from airflow_hptuning.space.search_space import SearchSpace

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
    assert len(outputs_of(code)) == 1


@settings(max_examples=20)
@given(space=spaces(max_parameters=3), values=st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=9, max_size=9))
def test_no_space_gives_a_config_twice(space: SearchSpace, values: list[float | None]) -> None:
    """Whatever the parameters and the outcomes are: trials differ, and stop only where there are no more."""
    algorithm = BayesianOptimization(space, 3, 6, LOSS, seed=1)
    done: list[CompletedTrial] = []
    active: list[ActiveTrial] = []
    while suggestions := algorithm.suggest(done, active, 1):
        active.append(ActiveTrial(suggestions[0].trial, suggestions[0].params))
        if len(active) == 3:
            one = active.pop(0)
            value = values[one.trial]
            state = TrialState.FAILED if value is None else TrialState.SUCCEEDED
            done.append(CompletedTrial(one.trial, one.params, value, state))
    known: list[CompletedTrial | ActiveTrial] = [*done, *active]
    tried = [space.identity(trial.params) for trial in known]
    assert len(set(tried)) == len(tried)
    assert len(tried) == 9 or not space.is_dense
    if space.n_distinct is not None:
        assert len(tried) == min(9, space.n_distinct)


SPACES: dict[str, dict[str, Any]] = {
    "one dimension": {"x": {"uniform": [0, 1]}},
    "twenty dimensions": {f"x{number}": {"uniform": [-5, 5]} for number in range(20)},
    "categories only": {f"c{number}": {"values": ["a", "b", "c", "d"]} for number in range(6)},
    "one config": {"c": {"values": ["only"]}, "n": {"range": [1, 2, 1]}},
    "every kind": {
        "values": {"values": [1, "a", True]},
        "pvalues": {"pvalues": [["x", 0.1], ["y", 0.9]]},
        "range": {"range": [1, 9, 2]},
        "linspace": {"linspace": [0, 1, 5]},
        "logspace": {"logspace": [-4, 0, 9]},
        "geomspace": {"geomspace": [1, 64, 7]},
        "uniform": {"uniform": [0, 1]},
        "quniform": {"quniform": [0, 10, 0.5]},
        "loguniform": {"loguniform": [-9, 0]},
        "qloguniform": {"qloguniform": [0, 5, 1]},
        "normal": {"normal": [0, 1]},
        "qnormal": {"qnormal": [0, 10, 1]},
        "lognormal": {"lognormal": [0, 1]},
        "qlognormal": {"qlognormal": [0, 2, 1]},
    },
}


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("name", SPACES)
def test_any_space_without_a_warning(name: str, count: int) -> None:
    """A suggestion of the space, JSON in and out, and a quiet log, after one trial or many."""
    space = build_space(SPACES[name])
    algorithm = BayesianOptimization(space, count, 100, LOSS, seed=1)
    done = [CompletedTrial(one.trial, one.params, float(one.trial % 7)) for one in algorithm.suggestions(0, count)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = algorithm.suggest(done, [], 2)
    assert len(found) == (0 if name == "one config" else 2)
    for one in found:
        assert space.contains(one.params)
        json.dumps(one.to_json(), allow_nan=False)


def test_five_hundred_observations() -> None:
    """The largest sweeps still get suggestions, without a warning."""
    space = build_space({f"x{number}": {"uniform": [0, 1]} for number in range(6)})
    rng = Random(0)  # noqa: S311 - a test is no secret
    done = [
        CompletedTrial(trial, params, sum((value - 0.4) ** 2 for value in params.values()))
        for trial, params in ((trial, space.sample(rng)) for trial in range(500))
    ]
    algorithm = BayesianOptimization(space, 500, 10, LOSS, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (one,) = algorithm.suggest(done, [], 1)
    assert max(abs(value - 0.4) for value in one.params.values()) < 0.25


def test_a_repeated_outcome_is_no_trouble() -> None:
    """Two trials at nearly the same place with different values are noise, not an error."""
    space = build_space({"x": {"uniform": [0, 1]}})
    done = [CompletedTrial(trial, {"x": 0.5 + trial * 1e-12}, float(trial % 2)) for trial in range(8)]
    assert BayesianOptimization(space, 8, 5, LOSS, seed=1).suggest(done, [], 1)


def test_failed_trials_are_avoided() -> None:
    """A region where everything fails counts as bad as the worst value seen."""
    space = build_space({"x": {"uniform": [0, 1]}})
    done = run(
        BayesianOptimization(space, 6, 14, LOSS, seed=1), lambda params: None if params["x"] < 0.5 else params["x"]
    )
    failed = [trial for trial in done[6:] if trial.state is TrialState.FAILED]
    assert len(failed) <= 5
    assert min(trial.value for trial in done if trial.value is not None) < 0.55


def test_a_failed_trial_counts_whatever_it_reported() -> None:
    """Its last value would mislead; a skipped trial says nothing, and neither is proposed again."""
    space = build_space({"x": {"values": [1, 2, 3, 4]}})
    done = [
        CompletedTrial(0, {"x": 1}, -100.0, TrialState.FAILED),
        CompletedTrial(1, {"x": 2}, 5.0),
        CompletedTrial(2, {"x": 3}, None, TrialState.SKIPPED),
    ]
    (one,) = BayesianOptimization(space, 3, 5, LOSS, seed=1).suggest(done, [], 5)
    assert one.params == {"x": 4}
    assert one.info["known"] == [0, 1]
    assert one.info["predicted"]["mean"] > 0


def test_a_suggestion_says_why() -> None:
    """Source, trials known and pending, length scales, prediction in the metric's own unit, acquisition value."""
    done = run(optimization(MIXED, 6, 2), lambda params: 1000 + params["units"])
    (one,) = optimization(MIXED, 6, 9).suggest(done, [ActiveTrial(8, {"lr": 0.1, "units": 16, "act": "relu"})], 1)
    assert one.trial == 9
    info = one.info
    assert info["source"] == "model"
    assert (info["known"], info["pending"]) == (list(range(8)), [8])
    assert set(info["length_scales"]) == set(MIXED)
    assert 900 < info["predicted"]["mean"] < 1200
    assert info["predicted"]["std"] > 0
    assert info["acquisition"]["function"] == "auto"


def test_a_suggestion_has_the_number_that_is_asked_for() -> None:
    """Also when trials in between are lost."""
    done = run(optimization(MIXED, 4, 2), lambda params: params["lr"])
    one = optimization(MIXED, 4, 8).suggestion(9, done, [])
    assert one is not None
    assert one.trial == 9
    small = build_space({"x": {"values": [1, 2]}})
    tried = [CompletedTrial(trial, {"x": trial + 1}, 1.0) for trial in range(2)]
    assert BayesianOptimization(small, 2, 5, LOSS, seed=1).suggestion(2, tried, []) is None


def test_logspace_can_be_searched() -> None:
    """The best of nine powers is found, though it is far from the exponents."""
    space = {"x": {"logspace": [-8, 0, 9]}, "y": {"uniform": [0, 1]}}
    done = run(optimization(space, 4, 11), lambda params: abs(math.log10(params["x"]) + 3) + params["y"])
    assert min(done, key=lambda trial: trial.value or 0).params["x"] == pytest.approx(1e-3)


@pytest.mark.parametrize("acquisition", [Acquisition("ucb", kappa=1.2), Acquisition("poi")], ids=["ucb", "poi"])
def test_no_trial_is_spent_on_what_is_known(acquisition: Acquisition) -> None:
    """A greedy acquisition function leaves a maximum that it has found, and finds the better category."""
    space = build_space({"x": {"uniform": [0, 1]}, "kind": {"values": ["a", "b", "c"]}})
    levels = {"a": 0.3, "b": 0.0, "c": 0.9}

    def loss(params: dict[str, Any]) -> float:
        return float((params["x"] - 0.3) ** 2 + levels[params["kind"]])

    algorithm = BayesianOptimization(space, 4, 26, LOSS, seed=3, acquisition=acquisition)
    # The initial trials show nothing of the better category but a bad place.
    done = [
        CompletedTrial(trial, params, loss(params))
        for trial, params in enumerate(
            [{"x": 0.3, "kind": "a"}, {"x": 0.4, "kind": "a"}, {"x": 0.95, "kind": "b"}, {"x": 0.6, "kind": "c"}]
        )
    ]
    used = set()
    while suggestions := algorithm.suggest(done, [], 1):
        (one,) = suggestions
        used.add(one.info["acquisition"]["function"])
        done.append(CompletedTrial(one.trial, one.params, loss(dict(one.params))))
    assert used == {acquisition.kind, "auto"}
    assert min(trial.value for trial in done if trial.value is not None) < 1e-3


def test_a_lucky_value_is_not_the_incumbent() -> None:
    """Of many noisy trials, one far better than its neighbours does not draw all others to it."""
    space = build_space({"x": {"uniform": [0, 1]}})
    rng = np.random.default_rng(0)
    done = [
        CompletedTrial(trial, {"x": x}, (x - 0.7) ** 2 + float(rng.normal(0, 0.05)))
        for trial, x in enumerate(np.linspace(0, 1, 40).tolist())
    ]
    lucky = CompletedTrial(40, {"x": 0.101}, -0.05)
    (one,) = BayesianOptimization(space, 41, 5, LOSS, seed=1).suggest([*done, lucky], [], 1)
    assert one.params["x"] > 0.5


def test_the_initial_design_spreads() -> None:
    """Sixteen points of two dimensions: one in each sixteenth of each axis, as a Sobol sequence has them."""
    space = build_space({"x": {"uniform": [0, 1]}, "y": {"loguniform": [0, 16]}})
    design = BayesianOptimization(space, 16, 0, LOSS, seed=5).suggestions(0, 16)
    assert sorted(int(one.params["x"] * 16) for one in design) == list(range(16))
    assert sorted(int(math.log(one.params["y"])) for one in design) == list(range(16))
    assert [one.params for one in BayesianOptimization(space, 16, 0, LOSS, seed=5).suggestions(4, 8)] == [
        one.params for one in design[4:8]
    ]


def test_earlier_sweeps_are_data() -> None:
    """Their trials inform the model, are not counted, and may be tried again."""
    space = build_space({"x": {"uniform": [0, 1]}})
    earlier = tuple(CompletedTrial(trial, {"x": trial / 20}, (trial / 20 - 0.3) ** 2) for trial in range(21))
    algorithm = BayesianOptimization(space, 1, 5, LOSS, seed=1, earlier=earlier)
    (first,) = algorithm.suggestions(0, 1)
    (second,) = algorithm.suggest([CompletedTrial(0, first.params, (first.params["x"] - 0.3) ** 2)], [], 1)
    assert second.info["known"] == [0]
    assert abs(second.params["x"] - 0.3) < 0.15


SPEC = """
version: 1
kind: group
hptuning:
  seed: 1
  bo:
    n_initial_trials: 2
    n_iterations: 4
    metric: {name: loss, optimization: minimize}
    utility_function: {acquisition_function: ei, eps: 1.2, gaussian_process: {kernel: rbf, length_scale: 1.0}}
  matrix: {lr: {uniform: [0, 1]}, act: {pvalues: [[relu, 0.1], [tanh, 0.9]]}}
run: {cmd: "train {{ lr }} {{ act }}"}
"""


def test_suggesting_without_airflow() -> None:
    """Design first, then the model; running trials are pending; the end of the sweep is the end."""
    spec = load_spec(SPEC)
    first = suggest(spec, [], 2)
    assert len(first) == 2
    trials: list[dict[str, Any]] = [
        {"params": first[0], "metrics": {"loss": 0.3}},
        {"params": first[1], "state": "running"},
    ]
    found = suggest(spec, trials, 4)
    assert len(found) == 4
    assert all(one not in first for one in found)
    assert suggest(spec, [*trials, *({"params": one, "state": "failed"} for one in found)], 1) == []


def test_records_can_be_handed_back() -> None:
    """What trials leave is what ``suggest`` takes; a failure of the infrastructure is no observation."""
    spec = load_spec(SPEC)
    first, second = suggest(spec, [], 2)
    evicted = Failure(FailureClass.EVICTED, "the node went away")
    records = [
        TrialRecord(0, first, TrialState.SUCCEEDED, metrics={"loss": 0.3}, info={"source": "initial design"}).to_json(),
        TrialRecord(1, second, TrialState.FAILED, failure=evicted).to_json(),
    ]
    assert TrialRecord.from_json(records[0]).info == {"source": "initial design"}
    algorithm = algorithm_of(spec, seed=0)
    skipped = CompletedTrial(1, second, None, TrialState.SKIPPED)
    expected = algorithm.suggest([CompletedTrial(0, first, 0.3), skipped], [], 2)
    assert suggest(spec, records, 2) == [dict(one.params) for one in expected]


def test_polyaxons_first_space() -> None:
    """REFERENCE appendix A: three features on their own axes; a point decodes to the nearest feasible values."""
    space = build_space({"a": {"values": [1, 2, 3]}, "b": {"linspace": [1, 2, 5]}, "c": {"range": [1, 5, 1]}})
    assert space.dimensions == 3
    # [1, 1.2, 2] in Polyaxon's unscaled coordinates; ours are scaled to the unit interval.
    assert space.decode([0.0, 0.2, 1 / 3]) == {"a": 1, "b": 1.25, "c": 2}
    assert LOSS.direction.sign * np.array([1, 2, 3]) == pytest.approx([-1, -2, -3])


@pytest.mark.parametrize(
    ("point", "params"),
    [
        ([0.0, 0.05, 0.25, 0.5, 0, 0, 1], {"a": 1, "b": 1, "c": 2, "d": 3, "e": "c"}),
        ([0.0, 0.2, 0.5, 0.5, 0, 1, 0], {"a": 1, "b": 2, "c": 3, "d": 3, "e": "b"}),
    ],
)
def test_polyaxons_second_space(point: list[float], params: dict[str, Any]) -> None:
    """REFERENCE appendix A: five features in seven dimensions, categories one-hot.

    Polyaxon rounds to the nearest feasible value on the raw axis, where the points are [1, 1.2, 2, 3, …] and
    [1, 1.8, 3, 3, …].
    """
    space = build_space(
        {
            "a": {"values": [1, 2, 3, 4, 5]},
            "b": {"linspace": [1, 5, 5]},
            "c": {"range": [1, 6, 1]},
            "d": {"uniform": [1, 5]},
            "e": {"values": ["a", "b", "c"]},
        }
    )
    assert space.dimensions == 7
    assert space.encode({"a": 1, "b": 1, "c": 1, "d": 1, "e": "a"})[-3:] == [1, 0, 0]
    assert space.decode(point) == params

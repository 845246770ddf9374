"""Hyperband: drawing, ranking, promotion."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.search.base import distinct_configs, stream
from airflow_hptuning.search.hyperband import Hyperband, rank
from airflow_hptuning.trials import CompletedTrial, Direction, Metric, TrialState
from tests.interpreters import outputs_of
from tests.kits.algorithms import run
from tests.strategies import build_space, completed

if TYPE_CHECKING:
    import random

_FINISHED = [state for state in TrialState if state.is_finished]

_results = st.builds(
    CompletedTrial,
    trial=st.integers(0, 80),
    params=st.just({"x": 0.5}),
    value=st.none() | st.floats(),
    state=st.sampled_from(_FINISHED),
)


def search(
    space: Any = None,
    *,
    max_resource: int = 81,
    factor: str = "3",
    direction: Direction = Direction.MAXIMIZE,
    seed: int | str = 0,
) -> Hyperband:
    """Build a Hyperband over one uniform parameter, with whole resources."""
    space = space or build_space({"x": {"uniform": [0, 1]}})
    return Hyperband(space, max_resource, Fraction(factor), "int", Metric("loss", direction), seed)


def result(trial: int, value: float | None, state: TrialState = TrialState.SUCCEEDED) -> CompletedTrial:
    """Build a result of a trial."""
    return CompletedTrial(trial, {"x": trial}, value, state)


def test_initial_trials() -> None:
    """A bracket starts with its number of configs, its least resource, and numbers of its own."""
    hyperband = search()
    for bracket in hyperband.brackets:
        trials = hyperband.initial(bracket.bracket)
        assert len(trials) == bracket.rungs[0].trials
        assert [one.trial for one in trials] == [bracket.first_trial + index for index in range(len(trials))]
        assert {(one.resource, one.bracket, one.rung) for one in trials} == {
            (bracket.rungs[0].resource, bracket.bracket, 0)
        }
    assert hyperband.initial(4, 5) == hyperband.initial(4)[:5]


@given(st.integers() | st.text())
def test_brackets_do_not_repeat_each_other(seed: int | str) -> None:
    """Deviation: Polyaxon's brackets started the same sequence again; ours have independent streams."""
    hyperband = search(max_resource=27, seed=seed)
    configs = [one.params["x"] for bracket in range(4) for one in hyperband.initial(bracket)]
    assert len(set(configs)) == len(configs) == 27 + 12 + 6 + 4


def test_brackets_share_a_finite_space() -> None:
    """Where the space has enough configs no bracket repeats one of another; where it has not, none is idle."""
    enough = search(build_space({"a": {"range": [0, 143, 1]}}))
    configs = [one.params["a"] for bracket in range(5) for one in enough.initial(bracket)]
    assert sorted(configs) == list(range(143))
    few = search(build_space({"a": {"range": [0, 20, 1]}}))
    for bracket in few.brackets:
        own = [one.params["a"] for one in few.initial(bracket.bracket)]
        assert len(set(own)) == len(own) == bracket.rungs[0].trials


def test_brackets_are_independent_of_each_other() -> None:
    """The configs of a bracket of a continuous space come from a stream of (seed, bracket) alone."""
    hyperband = search(seed=3)
    expected = next(distinct_configs(hyperband.space, stream(3, "hyperband", 2)))
    assert hyperband.initial(2)[0].params == expected


def test_rungs_of_small_spaces() -> None:
    """A space of six configs has smaller rungs, with a warning, and runs to its end."""
    hyperband = search(build_space({"a": {"values": [1, 2, 3, 4, 5, 6]}}))
    assert [rung.trials for rung in hyperband.brackets[0].rungs] == [6, 2, 1]
    assert "fewer configs" in hyperband.warnings()[0][0]
    suggested, _ = run(hyperband, failing=lambda _: False)
    assert len(suggested) == sum(bracket.trials for bracket in hyperband.brackets)


def test_unlisted_spaces_are_counted_too() -> None:
    """A coarse quantised normal has few configs, although nobody can say how many."""
    hyperband = search(build_space({"a": {"qnormal": [0, 1, 1]}}))
    assert hyperband.brackets[0].rungs[0].trials < 20
    suggested, _ = run(hyperband, failing=lambda _: False)
    assert max(one.resource or 0 for one in suggested) == 81


def test_promotion_keeps_the_config_and_raises_the_resource() -> None:
    """The best third go on, in the order of their rank, with new numbers and the resource of the next rung."""
    hyperband = search(direction=Direction.MINIMIZE)
    first = hyperband.initial(4)
    promoted = hyperband.promote(4, 0, completed(first, lambda params: params["x"]))
    best = sorted(first, key=lambda one: one.params["x"])[:27]
    assert [one.params for one in promoted] == [one.params for one in best]
    assert [one.trial for one in promoted] == list(range(81, 108))
    assert {(one.resource, one.bracket, one.rung) for one in promoted} == {(3, 4, 1)}
    assert [one.config_id for one in promoted] == [one.config_id for one in best]


def test_the_last_rung_promotes_nobody() -> None:
    """Deviation: Polyaxon ran one rung more than max_iter allows."""
    hyperband = search()
    assert hyperband.promote(0, 0, completed(hyperband.initial(0), lambda params: params["x"])) == []


@given(st.lists(_results, max_size=90), st.randoms(use_true_random=False))
def test_promotion_ignores_the_order_of_results(results: list[CompletedTrial], shuffler: random.Random) -> None:
    """Whatever the results, their order does not matter; nobody is promoted twice, nor without a finite value."""
    hyperband = search()
    promoted = hyperband.promote(4, 0, results)
    shuffled = list(results)
    shuffler.shuffle(shuffled)
    assert hyperband.promote(4, 0, shuffled) == promoted
    ranked = {
        one.trial
        for one in results
        if one.value is not None
        and math.isfinite(one.value)
        and one.state in {TrialState.SUCCEEDED, TrialState.STOPPED}
    }
    assert len(promoted) == min(27, len(ranked))
    assert [one.trial for one in promoted] == list(range(81, 81 + len(promoted)))


@given(st.lists(_results, max_size=30, unique_by=lambda one: one.trial))
def test_maximising_mirrors_minimising(results: list[CompletedTrial]) -> None:
    """Ranking x to be maximised is ranking -x to be minimised."""
    mirrored = [
        CompletedTrial(one.trial, one.params, None if one.value is None else -one.value, one.state) for one in results
    ]
    up = [one.trial for one in rank(results, Direction.MAXIMIZE)]
    down = [one.trial for one in rank(mirrored, Direction.MINIMIZE)]
    assert up == down


def test_ranking() -> None:
    """Values first, equals by number; then those without a finite value, failed ones among them, by number."""
    results = [
        result(0, math.nan),
        result(1, 0.5),
        result(2, 0.9, TrialState.FAILED),
        result(3, None),
        result(4, 0.7, TrialState.STOPPED),
        result(5, 0.5),
        result(6, math.inf),
        result(7, None, TrialState.SKIPPED),
    ]
    assert [one.trial for one in rank(results, Direction.MAXIMIZE)] == [4, 1, 5, 0, 2, 3, 6, 7]
    assert [one.trial for one in rank(results, Direction.MINIMIZE)] == [1, 5, 4, 0, 2, 3, 6, 7]


def test_places_of_failed_trials_stay_free() -> None:
    """When fewer have a value than the next rung has places, fewer go on; when none has, the bracket ends."""
    hyperband = search(max_resource=9)
    first = hyperband.initial(2)
    results = [
        CompletedTrial(one.trial, one.params, 1.0 if one.trial < 2 else None, TrialState.SUCCEEDED) for one in first
    ]
    assert [one.params for one in hyperband.promote(2, 0, results)] == [one.params for one in first[:2]]
    assert hyperband.promote(2, 0, completed(first, lambda _: 1.0, TrialState.FAILED)) == []
    assert hyperband.promote(2, 0, []) == []


def test_results_of_other_rungs_are_left_out() -> None:
    """Deviation: Polyaxon ranked all experiments of the group from the second reduction on."""
    hyperband = search()
    first = hyperband.initial(4)
    second = hyperband.promote(4, 0, completed(first, lambda params: params["x"]))
    results = completed(second, lambda params: -params["x"])
    everything = completed(first, lambda _: 100.0) + results + completed(hyperband.initial(3), lambda _: 100.0)
    assert hyperband.promote(4, 1, everything) == hyperband.promote(4, 1, results)


def test_a_whole_search() -> None:
    """81/3 runs 206 trials; brackets start side by side, and each sends its best config to the top."""
    hyperband = search()
    assert [one.bracket for one in hyperband.suggest([], [], 130)] == [4] * 81 + [3] * 34 + [2] * 15
    suggested, finished = run(hyperband, concurrency=10, failing=lambda _: False)
    assert len(suggested) == 206
    assert sorted(one.trial for one in suggested) == list(range(206))
    for bracket in range(1, 5):
        own = [one for one in finished if one.bracket == bracket]
        best = rank([one for one in own if one.rung == 0], Direction.MAXIMIZE)[0]
        assert best.params in [one.params for one in own if one.resource == 81]


def test_a_bracket_waits_for_its_rung_only() -> None:
    """A rung starts when the rung before has ended, whatever other brackets do."""
    hyperband = search(max_resource=9)
    first = hyperband.initial(2)
    ended = completed(first[:-1], lambda params: params["x"])
    assert all(one.bracket != 2 or one.rung == 0 for one in hyperband.suggest(ended, [], 100))
    ended = completed(first, lambda params: params["x"])
    assert [one.rung for one in hyperband.suggest(ended, [], 100) if one.bracket == 2] == [1, 1, 1]


def test_unknown_brackets() -> None:
    """Asking for a bracket that is not there is an error."""
    with pytest.raises(ValueError, match="there is no bracket 9"):
        search().initial(9)


def test_a_search_is_the_same_in_another_process() -> None:
    """A fresh interpreter with another hash seed suggests and promotes the same."""
    code = """
import json
from tests.search.test_hyperband import search
from tests.strategies import build_space, completed
space = build_space({"a": {"values": ["x", "y", [1]]}, "b": {"loguniform": [-5, 0]}})
hyperband = search(space, seed="night")
first = hyperband.initial(3)
second = hyperband.promote(3, 0, completed(first, lambda params: params["b"]))
print(json.dumps([one.to_json() for one in first + second]))
"""
    outputs = outputs_of(code)
    assert len(outputs) == 1
    assert len(json.loads(outputs.pop())) == 34 + 11

"""When to stop: worked examples of every rule, and properties of the running curves."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.search.early_stopping import (
    CURVE_POINTS,
    Budget,
    Goal,
    Policy,
    PolicyKind,
    RunningCurve,
    StopCause,
    StopReason,
    budget_exhausted,
    evaluation_step,
    goal_reached,
    should_stop_trial,
    without_improvement,
)
from airflow_hptuning.trials import Direction

MAXIMIZE, MINIMIZE = Direction.MAXIMIZE, Direction.MINIMIZE
ACCURACY = Goal("accuracy", 0.9)
LOSS = Goal("loss", 0.05, MINIMIZE)
VALUES = st.floats(-1e6, 1e6)


def curve(*values: float, direction: Direction = MAXIMIZE, first: float = 1) -> RunningCurve:
    """A curve with one value per step."""
    made = RunningCurve(direction)
    for number, value in enumerate(values):
        made.add(first + number, value)
    return made


@pytest.mark.parametrize(
    ("metric", "value", "goal"),
    [
        ("accuracy", 0.9, ACCURACY),
        ("accuracy", 0.95, ACCURACY),
        ("accuracy", 0.8999, None),
        ("loss", 0.05, LOSS),
        ("loss", 0.01, LOSS),
        ("loss", 0.2, None),
        ("accuracy", math.nan, None),
        ("accuracy", math.inf, None),
        ("loss", -math.inf, None),
        ("loss", None, None),
        ("precision", 1.0, None),
    ],
)
def test_goals_are_alternatives_and_inclusive(metric: str, value: float | None, goal: Goal | None) -> None:
    """Either goal of the documented example will do; a diverged value reaches none."""
    assert goal_reached([ACCURACY, LOSS], metric, value) is goal


def test_goals_read_as_in_the_file() -> None:
    """The text says which way is better."""
    assert [str(ACCURACY), str(LOSS)] == ["accuracy >= 0.9", "loss <= 0.05"]


OTHERS = [curve(0.1, 0.5), curve(0.2, 0.4), curve(0.3, 0.1), curve(0.4, 0.8), curve(0.5, 0.9)]
"""Best so far at step 2: 0.5, 0.4, 0.3, 0.8, 0.9 (median 0.5); running means: 0.3, 0.3, 0.2, 0.6, 0.7 (0.42)."""


@pytest.mark.parametrize(
    ("kind", "own", "ends"),
    [
        (PolicyKind.MEDIAN, (0.49, 0.1), True),
        (PolicyKind.MEDIAN, (0.1, 0.5), False),
        (PolicyKind.MEDIAN, (0.6, 0.0), False),
        (PolicyKind.AVERAGE, (0.1, 0.41), True),
        (PolicyKind.AVERAGE, (0.1, 0.43), False),
        (PolicyKind.MEDIAN, (math.nan, math.nan), True),
        (PolicyKind.AVERAGE, (math.nan, math.nan), True),
    ],
)
def test_median_and_average_worked_example(kind: PolicyKind, own: tuple[float, ...], *, ends: bool) -> None:
    """The trial's best so far counts, against the others' best (median) or mean (average) so far."""
    policy = Policy("accuracy", kind=kind)
    assert (should_stop_trial(policy, curve(*own), OTHERS, 2) is not None) is ends


def test_policies_minimise_too() -> None:
    """With the signs turned, worse is more."""
    others = [curve(loss, direction=MINIMIZE) for loss in (1.0, 2.0, 3.0, 4.0, 5.0)]
    policy = Policy("loss", MINIMIZE)
    assert should_stop_trial(policy, curve(3.0, direction=MINIMIZE), others, 1) is None
    text = should_stop_trial(policy, curve(3.1, direction=MINIMIZE), others, 1)
    assert text == "median policy: loss was 3.1 at best, worse than the median of 5 other trials at step 1 (3)"


@pytest.mark.parametrize(
    ("own", "percent", "ends"),
    [
        (1, 30, True),  # 10 trials, the worst 3 go
        (3, 30, True),
        (4, 30, False),
        (1, 10, True),
        (2, 10, False),
        (1, 9, False),  # a tenth of a trial is none
        (2, 29, True),  # 2.9 trials are 2
        (3, 29, False),
    ],
)
def test_truncation_worked_example(own: int, percent: float, *, ends: bool) -> None:
    """The worst percent of all trials at the step end, rounded down."""
    others = [curve(value) for value in range(1, 11) if value != own]
    policy = Policy("accuracy", kind=PolicyKind.TRUNCATION, percent=percent)
    assert (should_stop_trial(policy, curve(own), others, 1) is not None) is ends


def test_truncation_spares_ties() -> None:
    """Equal trials are not told apart by chance."""
    policy = Policy("accuracy", kind=PolicyKind.TRUNCATION, percent=50)
    assert should_stop_trial(policy, curve(1), [curve(1) for _ in range(9)], 1) is None


@pytest.mark.parametrize("kind", PolicyKind)
def test_only_trials_that_came_as_far_are_compared(kind: PolicyKind) -> None:
    """Too few comparable trials decide nothing, however many have begun."""
    policy = Policy("accuracy", kind=kind, percent=50, min_trials=5)
    ahead = [curve(1, 2, 3) for _ in range(4)]
    behind = [curve(9, 9) for _ in range(20)]
    own = curve(0, 0, 0)
    assert should_stop_trial(policy, own, [*ahead, *behind], 3) is None
    assert should_stop_trial(policy, own, [*ahead, curve(1, 2, 3), *behind], 3) is not None
    assert should_stop_trial(policy, own, [*ahead, *behind], 2) is not None


@pytest.mark.parametrize(
    ("own", "others", "previous", "step"),
    [
        (6, (6, 7, 8), 0, 6),  # level with the others
        (6, (4, 4, 5), 0, 4),  # ahead of them: judged where they are
        (6, (4, 4, 5), 4, None),  # once
        (7, (5, 6, 6), 4, None),  # not before two of them have come to the next even step
        (8, (6, 7, 8), 4, 6),
        (6, (4, 9), 0, None),  # too few others
        (1, (9, 9, 9), 0, None),  # before the first evaluation
    ],
)
def test_a_trial_that_is_ahead_is_judged_where_the_others_are(
    own: int, others: tuple[int, ...], previous: float, step: float | None
) -> None:
    """Trials side by side are compared, whichever of them is a report ahead."""
    policy = Policy("loss", evaluation_interval=2, min_trials=3)
    curves = [curve(*[1.0] * length) for length in others]
    assert evaluation_step(policy, curve(*[1.0] * own), curves, previous) == step


@pytest.mark.parametrize("kind", PolicyKind)
def test_a_trial_that_has_caught_up_goes_on(kind: PolicyKind) -> None:
    """It began badly, but is further than the others now, and better than they were."""
    policy = Policy("accuracy", kind=kind, percent=50, min_trials=3)
    others = [curve(0.5, 0.6) for _ in range(3)]
    assert should_stop_trial(policy, curve(0.1, 0.2, 0.7), others, 2) is None
    assert should_stop_trial(policy, curve(0.1, 0.2, 0.3), others, 2) is not None


def test_a_trial_resumed_later_is_not_compared_with_its_beginning() -> None:
    """Curves that start after the step say nothing about it."""
    policy = Policy("accuracy", min_trials=1)
    assert should_stop_trial(policy, curve(0, 0), [curve(5, 5, first=10)], 2) is None


@pytest.mark.parametrize(
    ("previous", "step", "due"),
    [(0, 4, False), (0, 5, True), (5, 9, False), (5, 10, True), (5, 27, True), (0, 0, False)],
)
def test_evaluation_interval_counts_steps(previous: float, step: float, *, due: bool) -> None:
    """Every interval is evaluated at most once, also where steps leap."""
    assert Policy("loss", evaluation_interval=5).is_due(previous, step) is due


def test_running_curve_by_hand() -> None:
    """Best and mean so far; NaN counts for neither; a report without a step is one step further."""
    made = RunningCurve(MAXIMIZE)
    steps = [made.add(step, value) for step, value in [(1, 0.2), (None, 0.6), (2, math.nan), (5, 0.1), (3, 0.9)]]
    assert steps == [1, 2, 2, 5, 5]
    assert [(point.step, point.best) for point in made.points] == [(1, 0.2), (2, 0.6), (5, 0.9)]
    assert [point.mean for point in made.points] == pytest.approx([0.2, 0.4, 0.45])
    assert made.at(4) == made.points[1]
    assert made.at(0.5) is None
    assert made.at(6) is None


@given(st.lists(VALUES, min_size=1, max_size=3 * CURVE_POINTS), st.sampled_from(Direction))
def test_running_curves_are_bounded_and_exact_at_the_end(values: list[float], direction: Direction) -> None:
    """However long the curve, few points are kept, in order, and its end is exact; JSON keeps all of it."""
    made = curve(*values, direction=direction)
    assert len(made.points) <= CURVE_POINTS
    steps = [point.step for point in made.points]
    assert steps == sorted(set(steps))
    end = made.at(len(values))
    assert end is not None
    assert end.best == (max(values) if direction is MAXIMIZE else min(values))
    assert end.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert RunningCurve.from_json(direction, made.to_json()).points == made.points


@given(st.lists(VALUES, min_size=2, max_size=30), st.sampled_from([PolicyKind.MEDIAN, PolicyKind.TRUNCATION]))
def test_policies_never_end_the_best_trial(values: list[float], kind: PolicyKind) -> None:
    """And truncation ends no more than its percent."""
    policy = Policy("loss", MINIMIZE, kind, min_trials=1, percent=40)
    curves = [curve(value, direction=MINIMIZE) for value in values]
    ended = [
        value
        for number, value in enumerate(values)
        if should_stop_trial(policy, curves[number], curves[:number] + curves[number + 1 :], 1)
    ]
    assert min(values) not in ended
    assert kind is PolicyKind.MEDIAN or len(ended) <= len(values) * 0.4


@pytest.mark.parametrize(
    ("budget", "state", "cause"),
    [
        (Budget(), {"finished": 99, "failed": 99, "since_best": 99, "started": 0, "now": 1e9}, None),
        (Budget(max_hours=2), {"started": 100, "now": 100 + 7199}, None),
        (Budget(max_hours=2), {"started": 100, "now": 100 + 7200}, StopCause.MAX_HOURS),
        (Budget(max_hours=2), {"started": None, "now": 1e9}, None),
        (Budget(max_failures=3), {"finished": 3, "failed": 3}, None),
        (Budget(max_failures=3), {"finished": 4, "failed": 4}, StopCause.MAX_FAILURES),
        (Budget(max_failures=0), {"finished": 1, "failed": 1}, StopCause.MAX_FAILURES),
        (Budget(max_failure_percent=20), {"finished": 4, "failed": 4}, None),
        (Budget(max_failure_percent=20), {"finished": 5, "failed": 1}, None),
        (Budget(max_failure_percent=20), {"finished": 5, "failed": 2}, StopCause.MAX_FAILURES),
        (Budget(patience=3), {"since_best": 2}, None),
        (Budget(patience=3), {"since_best": 3}, StopCause.PATIENCE),
    ],
)
def test_budgets(budget: Budget, state: dict[str, Any], cause: StopCause | None) -> None:
    """More failures than allowed, a percentage only after five trials, time and patience inclusive."""
    found = budget_exhausted(budget, **state)
    assert (found and found[0]) == cause


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        ([], 0),
        ([(1, None), (2, None)], 0),
        ([(1, 5.0), (2, 6.0), (3, 7.0)], 2),
        ([(3, 7.0), (1, 8.0), (2, 6.0)], 1),
        ([(1, 5.0), (2, 5.0), (3, None), (4, math.nan)], 3),
    ],
)
def test_patience_counts_trials_after_the_best(ended: list[tuple[float, float | None]], expected: int) -> None:
    """In the order of their ends; an equal value is no improvement, and before any value nothing counts."""
    assert without_improvement(ended, MINIMIZE) == expected


def test_reasons_travel_as_json() -> None:
    """And whatever a person has put there is a manual stop."""
    reason = StopReason(StopCause.GOAL, "trial 2 reached loss <= 0.05", 12.5, 2, "loss", 0.04)
    assert StopReason.from_json(reason.to_json()) == reason
    assert StopReason.from_json("enough").text == "stopped by hand: enough"
    for odd in (True, {}, {"cause": "boredom"}, {"cause": ["goal"]}, 7, [1]):
        assert StopReason.from_json(odd) == StopReason(StopCause.MANUAL, "stopped by hand")

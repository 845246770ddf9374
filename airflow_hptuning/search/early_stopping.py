"""When to stop: goals and budgets end a sweep, policies end a single trial. Pure functions of what is known.

A *goal* is reached by a finite value at least as good as it (inclusive). Goals are alternatives.

A *policy* ends a trial whose curve is hopeless. Write ``best(t, s)`` for the best and ``mean(t, s)`` for the mean of
the finite values that trial ``t`` reported up to step ``s``. The trials to compare with, ``C(s)``, are all other
trials of the sweep, running or not, that reported at step ``s`` or later. At step ``s``, with at least ``min_trials``
of them, a trial ``t`` is ended by

- ``median``: if ``best(t, s)`` is worse than the median of ``best(c, s)`` over ``C(s)``;
- ``average``: if ``best(t, s)`` is worse than the average of ``mean(c, s)`` over ``C(s)``;
- ``truncation``: if it is among the worst ``floor(percent / 100 * (|C(s)| + 1))`` by ``best``; ties go on.

A policy is evaluated when a report's step enters a new interval of ``evaluation_interval`` steps, so for the first
time at step ``evaluation_interval``. A report without a step counts one step further than the one before it. A trial
that has reported nothing but NaN and infinities is worse than every other.

A *budget* ends the sweep when more trials have failed than it allows, after ``patience`` finished trials without an
improvement, or when its time is up.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from attrs import define, field, frozen

from airflow_hptuning.trials import Direction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CURVE_POINTS = 200
"""Most points that a running curve keeps."""

FAILURES_JUDGED_AFTER = 5
"""Finished trials before a percentage of failures means anything."""

SECONDS_PER_HOUR = 3600


class StopCause(StrEnum):
    """Why a sweep ends before its time."""

    GOAL = "goal"
    MAX_HOURS = "max_hours"
    MAX_FAILURES = "max_failures"
    PATIENCE = "patience"
    BUILD = "build"
    MANUAL = "manual"


@frozen
class StopReason:
    """Why a sweep ends before its time: what the stop marker holds.

    Attributes:
        cause: The kind of reason.
        text: One sentence for people, without a full stop.
        at: When it was found, in seconds since the epoch.
        trial: The trial that found it.
        metric: The metric of the goal.
        value: The value that reached the goal.
    """

    cause: StopCause
    text: str
    at: float | None = None
    trial: int | None = None
    metric: str | None = None
    value: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the reason as a JSON object, all fields present."""
        return {
            "cause": self.cause.value,
            "text": self.text,
            "at": self.at,
            "trial": self.trial,
            "metric": self.metric,
            "value": self.value,
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Rebuild a reason from ``to_json``; anything else was put there by a person, and is a manual stop."""
        if isinstance(data, Mapping) and data.get("cause") in list(StopCause):
            return cls(**dict(data) | {"cause": StopCause(data["cause"])})
        words = data if isinstance(data, str) else ""
        return cls(StopCause.MANUAL, f"stopped by hand: {words}" if words else "stopped by hand")


@frozen
class Goal:
    """A value of a metric at which the sweep has found what it was looking for.

    Attributes:
        metric: Name of the metric.
        value: The value that is good enough.
        direction: Which way is better.
    """

    metric: str
    value: float
    direction: Direction = Direction.MAXIMIZE

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.direction is Direction.MAXIMIZE else '<='} {self.value:g}"


class PolicyKind(StrEnum):
    """What a trial is compared with."""

    MEDIAN = "median"
    AVERAGE = "average"
    TRUNCATION = "truncation"


@frozen
class Policy:
    """When to end a single trial.

    Attributes:
        metric: Metric that is compared.
        direction: Which way is better.
        kind: What it is compared with.
        evaluation_interval: Steps between evaluations.
        min_trials: How many trials must be comparable.
        percent: For truncation: the part to end.
    """

    metric: str
    direction: Direction = Direction.MAXIMIZE
    kind: PolicyKind = PolicyKind.MEDIAN
    evaluation_interval: float = 1
    min_trials: int = 5
    percent: float = 0

    def is_due(self, previous: float, step: float) -> bool:
        """Whether a report at ``step`` calls for an evaluation, after one at ``previous`` (at first 0)."""
        return step // self.evaluation_interval > previous // self.evaluation_interval


@frozen
class Budget:
    """Limits of a sweep; None is no limit.

    Attributes:
        max_hours: Hours from the start of the run.
        max_failures: Failed trials that the sweep bears.
        max_failure_percent: Part of the finished trials that may have failed, judged after at least five.
        patience: Finished trials after the best one.
    """

    max_hours: float | None = None
    max_failures: int | None = None
    max_failure_percent: float | None = None
    patience: int | None = None


@frozen
class StoppingRules:
    """All rules of a sweep.

    Attributes:
        goals: Any of them ends the sweep.
        policies: Any of them ends a trial.
        budget: Limits that end the sweep.
    """

    goals: tuple[Goal, ...] = ()
    policies: tuple[Policy, ...] = ()
    budget: Budget = field(factory=Budget)


@frozen
class RunningPoint:
    """What a trial had come to at a step.

    Attributes:
        step: The step.
        best: Best finite value so far, or None.
        mean: Mean of the finite values so far, or None.
    """

    step: float
    best: float | None
    mean: float | None


@define
class RunningCurve:
    """Best and mean so far of one metric of one trial, in a bounded number of points.

    Attributes:
        direction: Which way is better.
        points: In the order of their steps, which never go back.
    """

    direction: Direction
    points: list[RunningPoint] = field(factory=list)
    _count: int = 0
    _sum: float = 0.0

    @property
    def reach(self) -> float:
        """The last step; minus infinity before the first report."""
        return self.points[-1].step if self.points else -math.inf

    def add(self, step: float | None, value: float) -> float:
        """Take in a report and return its step."""
        last = self.points[-1] if self.points else RunningPoint(0, None, None)
        at = last.step + 1 if step is None or not math.isfinite(step) else max(step, self.reach)
        best = last.best
        if math.isfinite(value):
            self._count += 1
            self._sum += value
            sign = self.direction.sign
            best = value if best is None or sign * value > sign * best else best
        mean = self._sum / self._count if self._count else None
        if self.points and at == last.step:
            self.points.pop()
        self.points.append(RunningPoint(at, best, mean))
        if len(self.points) > CURVE_POINTS:
            # The last point says how far the trial has come, so it stays.
            self.points = [*self.points[:-1:2], self.points[-1]]
        return at

    def at(self, step: float) -> RunningPoint | None:
        """Return what the trial had come to at a step; None if it is not there yet, or began later."""
        if self.reach < step:
            return None
        position = bisect_right(self.points, step, key=lambda point: point.step)
        return self.points[position - 1] if position else None

    def to_json(self) -> list[list[float | None]]:
        """Return the points as JSON."""
        return [[point.step, point.best, point.mean] for point in self.points]

    @classmethod
    def from_json(cls, direction: Direction, data: Iterable[Sequence[Any]]) -> Self:
        """Rebuild what ``to_json`` wrote, to compare with."""
        return cls(direction, [RunningPoint(step, best, mean) for step, best, mean in data])


def goal_reached(goals: Iterable[Goal], metric: str, value: float | None) -> Goal | None:
    """Return the first goal that a value of a metric reaches; NaN and infinities reach none."""
    if value is None or not math.isfinite(value):
        return None
    return next((g for g in goals if g.metric == metric and g.direction.reached(value, g.value)), None)


def evaluation_step(policy: Policy, own: RunningCurve, others: Iterable[RunningCurve], previous: float) -> float | None:
    """Return the step at which a trial is to be judged now, or None if no evaluation is due.

    That is its last step, or, if it is ahead, the last one that ``min_trials`` others have come to: of trials that run
    side by side, one that is always a little ahead would else never be judged.

    Args:
        policy: The policy.
        own: Curve of the trial.
        others: Curves of the other trials, as far as they are known.
        previous: The step of the last evaluation, at first 0.
    """
    reached = sorted((other.reach for other in others), reverse=True)
    if len(reached) < policy.min_trials:
        return None
    step = min(own.reach, *reached[: policy.min_trials])
    return step if policy.is_due(previous, step) else None


def should_stop_trial(policy: Policy, own: RunningCurve, others: Iterable[RunningCurve], step: float) -> str | None:
    """Say why a trial should end at a step, or None if it should go on.

    The trial's best value of all counts, also where it has come further than the step: one that has caught up goes on.

    Args:
        policy: The policy.
        own: Curve of the trial.
        others: Curves of the other trials; those that have not come to the step are left out.
        step: The step of the evaluation.
    """
    mine = own.points[-1] if own.at(step) else None
    comparable = [point for point in (other.at(step) for other in others) if point is not None]
    if mine is None or len(comparable) < policy.min_trials:
        return None
    sign = policy.direction.sign

    def score(value: float | None) -> float:
        return -math.inf if value is None else sign * value

    best = score(mine.best)
    if policy.kind is PolicyKind.TRUNCATION:
        return _truncated(policy, best, [score(point.best) for point in comparable], step)
    if policy.kind is PolicyKind.MEDIAN:
        limit = statistics.median(score(point.best) for point in comparable)
    else:
        means = [score(point.mean) for point in comparable if point.mean is not None]
        limit = statistics.fmean(means) if means else -math.inf
    if best >= limit:
        return None
    shown = "nothing" if mine.best is None else f"{mine.best:g}"
    return (
        f"{policy.kind} policy: {policy.metric} was {shown} at best, worse than the {policy.kind} of"
        f" {len(comparable)} other trials at step {step:g} ({sign * limit:g})"
    )


def _truncated(policy: Policy, best: float, others: Sequence[float], step: float) -> str | None:
    trials = len(others) + 1
    # Multiplied first: 0.29 * 100 is less than 29.
    ended = math.floor(policy.percent * trials / 100)
    better = sum(other > best for other in others)
    if better < trials - ended:
        return None
    return (
        f"truncation policy: {policy.metric} was among the worst {policy.percent:g} % of {trials} trials"
        f" at step {step:g}"
    )


def without_improvement(ended: Iterable[tuple[float, float | None]], direction: Direction) -> int:
    """Return how many trials have finished since the best one; 0 while none has a value.

    Args:
        ended: End (seconds since the epoch) and value of each finished trial; None for one without a value.
        direction: Which way is better.
    """
    best: float | None = None
    since = 0
    for _, value in sorted(ended, key=lambda item: item[0]):
        finite = value if value is not None and math.isfinite(value) else None
        if finite is not None and (best is None or direction.sign * finite > direction.sign * best):
            best, since = finite, 0
        elif best is not None:
            since += 1
    return since


def budget_exhausted(
    budget: Budget,
    *,
    finished: int = 0,
    failed: int = 0,
    since_best: int = 0,
    started: float | None = None,
    now: float | None = None,
) -> tuple[StopCause, str] | None:
    """Say which limit a sweep has passed, or None.

    Args:
        budget: The limits.
        finished: Trials that have ended in any way, but not those that were never started.
        failed: Those of them that have failed for good.
        since_best: Those that have ended since the best one did.
        started: When the run started; None leaves the time out.
        now: The present time.
    """
    if budget.max_hours is not None and started is not None and now is not None:
        hours = (now - started) / SECONDS_PER_HOUR
        if hours >= budget.max_hours:
            return StopCause.MAX_HOURS, f"the budget of {budget.max_hours:g} hours is used up"
    if budget.max_failures is not None and failed > budget.max_failures:
        return StopCause.MAX_FAILURES, f"{failed} trials have failed, more than the {budget.max_failures} allowed"
    percent = budget.max_failure_percent
    if percent is not None and finished >= FAILURES_JUDGED_AFTER and 100 * failed > percent * finished:
        return (
            StopCause.MAX_FAILURES,
            f"{failed} of {finished} finished trials have failed, more than {percent:g} %",
        )
    if budget.patience is not None and since_best >= budget.patience:
        return StopCause.PATIENCE, f"{since_best} trials have finished without an improvement"
    return None

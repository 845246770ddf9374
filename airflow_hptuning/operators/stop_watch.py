"""What one trial watches while it runs: goals, policies, budgets, and whether the sweep is being stopped.

This module decides and imports nothing of Airflow: it asks and tells the other tasks through a ``Board``. A task has
``stopping.RunBoard``; whatever else watches a trial (such as a trigger, with calls in a thread) can bring its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from airflow_hptuning.runners.pod_script import STEP_FAILED
from airflow_hptuning.search.early_stopping import (
    Budget,
    Policy,
    RunningCurve,
    StopCause,
    StoppingRules,
    StopReason,
    budget_exhausted,
    evaluation_step,
    goal_reached,
    should_stop_trial,
    without_improvement,
)
from airflow_hptuning.trials import TrialState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk.types import Logger

    from airflow_hptuning.metrics import Observation
    from airflow_hptuning.trials import Metric, TrialRecord

LIVE = "live"
"""Key of a trial's running curves, which the policies of other trials compare with."""

ENDED = "ended"
"""Key of when a trial ended, and with which value, which the patience of others counts."""

POLL_SECONDS = 2.0
"""How often a running trial looks for the marker."""

LAZY_POLL_SECONDS = 5.0
"""How often it does in a sweep that only a person can stop."""

LIVE_SECONDS = 2.0
"""How often, at most, a running trial publishes its curves and is compared; rarer where that takes many requests."""

COMPARING = 0.05
"""Part of its time, at most, that a trial spends on its policies: in a sweep of thousands the curves are long."""

READS_PER_SECOND = 4
"""How many mapped tasks a trial reads per second, at most, for its policies."""

STOP_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL: with the polls, everything has ended ten seconds after the goal."""


SHOWN_LINES = 10
"""Lines of a failed build step that the reason of the stop has."""


class BoardError(ConnectionError):
    """The board did not answer; it may later."""


class Board(Protocol):
    """What the trials of one run know of, and tell, each other. Every call may raise ``BoardError``."""

    @property
    def me(self) -> str:
        """Name of the watched trial's task instance."""

    @property
    def mapped_tasks(self) -> int:
        """How many mapped tasks the trials of the sweep are spread over: requests that ``read`` makes."""

    def marker(self) -> StopReason | None:
        """Return why the run is being stopped, or None."""

    def put(self, reason: StopReason) -> None:
        """Put the marker up."""

    def skip_rest(self) -> None:
        """Skip every task of the run that has not started, mapped or not."""

    def count(self, *states: str) -> int:
        """Return how many trials' tasks are in one of these states."""

    def publish(self, key: str, value: Any) -> None:
        """Tell the other trials something, in place of what was told before."""

    def read(self, key: str) -> list[Any]:
        """Return what all trials have told under a key."""


class StopWatch:
    """Tells one trial when to end, and everyone when it finds a reason to.

    Args:
        rules: Goals, policies and budget of the sweep.
        board: The board of the run.
        trial: Number of the trial.
        objective: Metric whose improvement the patience waits for.
        mode: ``last`` or ``best`` value of it.
        started: When the run started, in seconds since the epoch.
        log: Where to say what happens.
        clock: The time.
    """

    def __init__(
        self,
        rules: StoppingRules,
        board: Board,
        *,
        trial: int,
        log: Logger,
        objective: Metric | None = None,
        mode: str = "last",
        started: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._board = board
        self._trial = trial
        self._objective = objective
        self._mode = mode
        self._started = started
        self._log = log
        self._clock = clock
        has_rules = rules != StoppingRules()
        self._poll_seconds = POLL_SECONDS if has_rules else LAZY_POLL_SECONDS
        self._poll_at = clock()
        self._reason: StopReason | None = None
        self._must_tell = False
        self._comparison = _Comparison(rules.policies, board, clock) if rules.policies else None

    @property
    def reason(self) -> StopReason | None:
        """Why the sweep is being stopped, as far as this trial knows."""
        return self._reason

    def before_start(self) -> StopReason | None:
        """Say why the trial must not start: the sweep is, or must now be, stopped."""
        found = self._board.marker()
        if found is not None:
            self._reason = found
            # Airflow was starting this one when the rest was skipped; there may be more of its kind.
            self._board.skip_rest()
        else:
            self._stop_if(self._out_of_time() or self._out_of_failures(failed=0, finished=0))
        return self._reason

    def observe(self, observation: Observation) -> None:
        """Take in a metric: if it reaches a goal, the sweep is stopped at once."""
        self._test_goal(observation.name, observation.value)
        if self._comparison is not None:
            self._comparison.observe(observation)

    def check(self) -> str | None:
        """Say why the trial must end now, or None; to be asked about every second."""
        if self._reason is None:
            try:
                verdict = self._look()
            except BoardError as error:
                # An API server that does not answer for a while must not end a trial of many hours.
                self._log.warning("Could not look whether to stop: %s", error)
                return None
            if verdict is not None:
                return verdict
        return None if self._reason is None else f"early stopping: {self._reason.text}"

    def finished(self, record: TrialRecord, *, will_retry: bool = False) -> None:
        """Take in how the trial ended; the last test of goals and budgets that it can do.

        Args:
            record: The record of the trial.
            will_retry: Whether it has failed, but will be tried again.
        """
        try:
            self._test_end(record, will_retry=will_retry)
        except BoardError as error:
            # The result of the trial must not be lost for a test that others repeat.
            self._log.warning("Could not look whether to stop the sweep: %s", error)

    def _test_end(self, record: TrialRecord, *, will_retry: bool) -> None:
        if self._comparison is not None:
            self._comparison.publish()
        if record.state is not TrialState.FAILED:
            for name, value in record.metrics.items():
                self._test_goal(name, value)
        if not will_retry and self._rules.budget.patience is not None and self._objective is not None:
            value = None if record.failure else record.value_of(self._objective.name, self._mode)
            self._board.publish(ENDED, [record.ended, value])
        if self._reason is None:
            failed = int(record.failure is not None and not will_retry)
            self._stop_if(
                self._out_of_build(record, will_retry=will_retry)
                or self._out_of_time()
                or self._out_of_failures(failed=failed, finished=int(not will_retry))
                or self._out_of_patience()
            )
        elif self._must_tell and self._board.marker() is None:
            # Airflow did not answer, or the task that holds it started at that very moment, which cleared its XComs.
            self._tell(self._reason)

    def is_stopped(self) -> bool:
        """Whether the sweep is being stopped; looks again, for a trial that asks whether to try once more."""
        if self._reason is None:
            self._reason = self._board.marker()
        return self._reason is not None

    def announce(self, reason: StopReason) -> None:
        """Stop the sweep, unless it already is."""
        self._reason = reason
        try:
            found = self._board.marker()
            if found is None:
                self._log.info("The sweep is stopped: %s", reason.text)
                self._tell(reason)
            else:
                self._reason = found
        except BoardError as error:
            # The trial ends all the same, and tries once more then.
            self._must_tell = True
            self._log.warning("Could not tell that the sweep is stopped: %s", error)

    def _tell(self, reason: StopReason) -> None:
        """Put the marker up, then skip all that has not started: whatever slips through finds the marker."""
        self._must_tell = True
        self._board.put(reason)
        self._board.skip_rest()

    def _look(self) -> str | None:
        now = self._clock()
        if now >= self._poll_at:
            self._poll_at = now + self._poll_seconds
            self._reason = self._board.marker()
            if self._reason is not None and self._reason.cause is StopCause.MANUAL:
                # A person put up the marker, and cannot skip the rest.
                self._board.skip_rest()
        if self._reason is None:
            self._stop_if(self._out_of_time())
        if self._reason is None and self._comparison is not None:
            return self._comparison.verdict()
        return None

    def _test_goal(self, metric: str, value: float | None) -> None:
        goal = None if self._reason else goal_reached(self._rules.goals, metric, value)
        if goal is not None and value is not None:
            text = f"trial {self._trial} reached {goal} with {value:g}"
            self.announce(StopReason(StopCause.GOAL, text, self._clock(), self._trial, metric, value))

    def _stop_if(self, exhausted: tuple[StopCause, str] | None) -> None:
        if exhausted is not None:
            cause, text = exhausted
            self.announce(StopReason(cause, text, self._clock(), self._trial))

    def _out_of_build(self, record: TrialRecord, *, will_retry: bool) -> tuple[StopCause, str] | None:
        """Whether a build step has failed in the trial's container, as it would in all others.

        Once it has worked for another trial the step is not to blame, but something that may come and go.
        """
        failure = record.failure
        if failure is None or will_retry or not failure.reason.startswith(STEP_FAILED) or self._board.count("success"):
            return None
        # The last line is that of the reason.
        lines = failure.log_tail[-SHOWN_LINES - 1 : -1]
        return StopCause.BUILD, "\n".join([f"{failure.reason}. Its last lines:", *lines])

    def _out_of_time(self) -> tuple[StopCause, str] | None:
        return budget_exhausted(
            Budget(max_hours=self._rules.budget.max_hours), started=self._started, now=self._clock()
        )

    def _out_of_failures(self, *, failed: int, finished: int) -> tuple[StopCause, str] | None:
        """Whether too many trials have failed; the numbers are those of this task, which Airflow sees running."""
        budget = self._rules.budget
        if budget.max_failures is None and budget.max_failure_percent is None:
            return None
        others_failed = self._board.count("failed")
        others_finished = others_failed + self._board.count("success")
        return budget_exhausted(
            Budget(max_failures=budget.max_failures, max_failure_percent=budget.max_failure_percent),
            failed=others_failed + failed,
            finished=others_finished + finished,
        )

    def _out_of_patience(self) -> tuple[StopCause, str] | None:
        patience = self._rules.budget.patience
        if patience is None or self._objective is None:
            return None
        ended = [(at, value) for at, value in self._board.read(ENDED) if at is not None]
        since = without_improvement(ended, self._objective.direction)
        return budget_exhausted(Budget(patience=patience), since_best=since)


class _Comparison:
    """The policies of one trial: its own curves, published for the others, against theirs."""

    def __init__(self, policies: Sequence[Policy], board: Board, clock: Callable[[], float]) -> None:
        self._policies = policies
        self._board = board
        self._clock = clock
        self._curves = {policy.metric: RunningCurve(policy.direction) for policy in policies}
        self._evaluated = [0.0] * len(policies)
        self._has_news = False
        self._next = clock()
        self._seconds = max(LIVE_SECONDS, board.mapped_tasks / READS_PER_SECOND)

    def observe(self, observation: Observation) -> None:
        curve = self._curves.get(observation.name)
        if curve is not None:
            curve.add(observation.step, observation.value)
            self._has_news = True

    def publish(self) -> None:
        """Let the other trials see the curves, with whose they are, so that nobody is compared with itself."""
        if self._has_news:
            curves = {name: curve.to_json() for name, curve in self._curves.items()}
            self._board.publish(LIVE, {"of": self._board.me, "curves": curves})
            self._has_news = False

    def verdict(self) -> str | None:
        """Publish, and compare where an evaluation is due; at most every few seconds."""
        began = self._clock()
        if not self._has_news or began < self._next:
            return None
        try:
            return self._compare()
        finally:
            now = self._clock()
            self._next = max(began + self._seconds, now + (now - began) / COMPARING)

    def _compare(self) -> str | None:
        self.publish()
        due = [
            number
            for number, policy in enumerate(self._policies)
            if self._curves[policy.metric].points
            and policy.is_due(self._evaluated[number], self._curves[policy.metric].reach)
        ]
        if not due:
            return None
        others = [live["curves"] for live in self._board.read(LIVE) if live["of"] != self._board.me]
        for number in due:
            policy = self._policies[number]
            own = self._curves[policy.metric]
            theirs = [RunningCurve.from_json(policy.direction, curves.get(policy.metric, ())) for curves in others]
            step = evaluation_step(policy, own, theirs, self._evaluated[number])
            if step is None:
                continue
            self._evaluated[number] = step
            reason = should_stop_trial(policy, own, theirs, step)
            if reason is not None:
                return reason
        return None

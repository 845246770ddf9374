"""Ending a sweep before its time: one mechanism for every cause, algorithm and runner.

The *stop marker* is an XCom with the key ``stop`` on the first task of the run that suggests. Whoever finds a reason
puts it there, and then has Airflow skip whatever of the run has not started, in one call. Running trials look for the
marker every other second and end their processes; a task that starts looks first and skips itself, so that it does not
matter who overtakes whom: a task that Airflow was just starting, or trials that were just mapped, find the marker.

One XCom on a task that is known beforehand, rather than one of the trial that found the reason, because a look then
costs one small request, however many mapped tasks the sweep has; and so that a person can put it there too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError, AirflowSkipException
from attrs import frozen

from airflow_hptuning.search.early_stopping import (
    Budget,
    Goal,
    Policy,
    PolicyKind,
    RunningCurve,
    StopCause,
    StoppingRules,
    StopReason,
    budget_exhausted,
    goal_reached,
    should_stop_trial,
    without_improvement,
)
from airflow_hptuning.trials import TrialState

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from airflow_hptuning.metrics import Observation
    from airflow_hptuning.planning import SweepPlan
    from airflow_hptuning.polyaxonfile.spec import SweepSpec
    from airflow_hptuning.trials import Metric, TrialRecord

MARKER = "stop"
"""Key of the stop marker."""

LIVE = "live"
"""Key of a trial's running curves, which the policies of other trials compare with."""

ENDED = "ended"
"""Key of when a trial ended, and with which value, which the patience of others counts."""

KEPT_TASKS = frozenset({"build", "collect", "reap"})
"""Tasks that run, or finish, although the sweep is stopped."""

POLL_SECONDS = 2.0
"""How often a running trial looks for the marker."""

LAZY_POLL_SECONDS = 5.0
"""How often it does in a sweep that only a person can stop."""

LIVE_SECONDS = 2.0
"""How often, at most, a running trial publishes its curves and is compared; rarer where that takes many requests."""

READS_PER_SECOND = 4
"""How many mapped tasks a trial reads per second, at most, for its policies."""

STOP_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL: with the polls, everything has ended ten seconds after the goal."""

_PAIRS_AT_ONCE = 1000
_NOT_TO_SKIP = frozenset({"running", "success", "failed", "skipped", "removed"})


def stopping_rules(spec: SweepSpec) -> StoppingRules:
    """Return the goals, policies and budget of a sweep."""
    limits = spec.airflow.budget
    failures = limits.max_failures
    return StoppingRules(
        goals=tuple(
            Goal(entry.metric, entry.value, entry.optimization)
            for entry in spec.early_stopping
            if entry.value is not None
        ),
        policies=tuple(
            Policy(
                metric=entry.metric,
                direction=entry.optimization,
                kind=PolicyKind(entry.policy.kind),
                evaluation_interval=entry.policy.evaluation_interval,
                min_trials=entry.policy.min_trials,
                percent=entry.policy.percent or 0,
            )
            for entry in spec.early_stopping
            if entry.policy is not None
        ),
        budget=Budget(
            max_hours=limits.max_hours,
            max_failures=failures.count if failures else None,
            max_failure_percent=failures.percent if failures else None,
            patience=limits.patience,
        ),
    )


def skip_in_run(pairs: Sequence[tuple[str, int]]) -> None:
    """Skip task instances of this run that are neither running nor finished: the server does so in one statement.

    This is the only place that sends Airflow's internal ``SkipDownstreamTasks``, which despite its name is good for
    any task of the run. It takes queued and deferred tasks and those that wait for another try as well.

    Args:
        pairs: Task id and map index; -1 for a task that is not mapped, or not expanded yet.
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import SkipDownstreamTasks

    for first in range(0, len(pairs), _PAIRS_AT_ONCE):
        task_runner.SUPERVISOR_COMMS.send(SkipDownstreamTasks(tasks=list(pairs[first : first + _PAIRS_AT_ONCE])))


def find_stop(ti: RuntimeTaskInstanceProtocol, pairs: Sequence[tuple[str, str]]) -> StopReason | None:
    """Return why the run is being stopped, or None.

    Args:
        ti: The running task.
        pairs: Id of each task that suggests, with the id of the mapped task of its trials.
    """
    found = ti.xcom_pull(task_ids=pairs[0][0], key=MARKER, map_indexes=-1)
    return None if found is None else StopReason.from_json(found)


@frozen
class Board:
    """What the tasks of one run know of, and tell, each other.

    Attributes:
        ti: The running task.
        pairs: Id of each task that suggests, with the id of the mapped task of its trials.
        task_ids: Ids of all tasks that are skipped when the run is stopped.
    """

    ti: RuntimeTaskInstanceProtocol
    pairs: Sequence[tuple[str, str]]
    task_ids: Sequence[str]

    @classmethod
    def of(cls, context: Context) -> Board:
        """Return the board of the run that a task is part of."""
        dag = context["dag"]
        # The task that collects knows where all results are, so nobody else needs to be told.
        pairs: Sequence[tuple[str, str]] = getattr(dag.get_task("collect"), "pairs")  # noqa: B009 - typed as any operator
        return cls(context["ti"], pairs, sorted(set(dag.task_ids) - KEPT_TASKS))

    @property
    def trial_task_ids(self) -> list[str]:
        """Ids of the mapped tasks of all trials."""
        return [trial for _, trial in self.pairs]

    def marker(self) -> StopReason | None:
        """Return why the run is being stopped, or None."""
        return find_stop(self.ti, self.pairs)

    def put(self, reason: StopReason) -> None:
        """Put the marker up."""
        from airflow.sdk.execution_time.xcom import XCom

        XCom.set(
            key=MARKER,
            value=reason.to_json(),
            dag_id=self.ti.dag_id,
            task_id=self.pairs[0][0],
            run_id=self.ti.run_id,
        )

    def skip_rest(self) -> None:
        """Skip every task of the run that has not started, mapped or not."""
        states = self.ti.get_task_states(dag_id=self.ti.dag_id, task_ids=list(self.task_ids), run_ids=[self.ti.run_id])
        skip_in_run(list(_not_started(states.get(self.ti.run_id, {}), self.task_ids)))

    def count(self, *states: str) -> int:
        """Return how many trials' tasks are in one of these states."""
        return self.ti.get_ti_count(
            dag_id=self.ti.dag_id, task_ids=self.trial_task_ids, run_ids=[self.ti.run_id], states=list(states)
        )

    def publish(self, key: str, value: Any) -> None:
        """Tell the other trials something."""
        self.ti.xcom_push(key, value)

    def read(self, key: str) -> list[Any]:
        """Return what all trials have told under a key."""
        found = self.ti.xcom_pull(task_ids=self.trial_task_ids, key=key)
        return [value for value in found if value is not None]


def _not_started(states: Mapping[str, str | None], task_ids: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Task id and map index of the instances to skip, from Airflow's ``{"id" or "id_index": state}``."""
    known = set(task_ids)
    for key, state in states.items():
        if state in _NOT_TO_SKIP:
            continue
        task_id, _, index = key.rpartition("_")
        if key in known:
            yield key, -1
        elif task_id in known and index.isdecimal():
            yield task_id, int(index)


def skip_if_stopped(context: Context) -> None:
    """Skip the task that starts, if its run is being stopped; for tasks that suggest.

    Raises:
        AirflowSkipException: The run is being stopped.
    """
    board = Board.of(context)
    reason = board.marker()
    if reason is not None:
        # Airflow was starting this one when the rest was skipped; there may be more of its kind.
        board.skip_rest()
        raise AirflowSkipException(f"the sweep is stopped: {reason.text}")


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
        log: logging.Logger,
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
        self._has_announced = False
        self._comparison = _Comparison(rules.policies, board, clock) if rules.policies else None

    @classmethod
    def of(cls, context: Context, spec: SweepSpec, trial: int, log: logging.Logger) -> StopWatch:
        """Return the watch of a trial.

        Args:
            context: The context of the trial's task.
            spec: The sweep.
            trial: Number of the trial.
            log: Where to say what happens.
        """
        started = context["dag_run"].start_date
        return cls(
            stopping_rules(spec),
            Board.of(context),
            trial=trial,
            log=log,
            objective=spec.objective,
            mode=spec.airflow.metrics.value,
            started=started.timestamp() if started else None,
        )

    @property
    def reason(self) -> StopReason | None:
        """Why the sweep is being stopped, as far as this trial knows."""
        return self._reason

    def before_start(self) -> None:
        """Skip the trial if the sweep is, or must now be, stopped.

        Raises:
            AirflowSkipException: It is.
        """
        found = self._board.marker()
        if found is not None:
            self._reason = found
            # Airflow was starting this one when the rest was skipped; there may be more of its kind.
            self._board.skip_rest()
        else:
            self._spend(self._out_of_time() or self._out_of_failures(failed=0, finished=0))
        if self._reason is not None:
            raise AirflowSkipException(f"the sweep is stopped: {self._reason.text}")

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
            except AirflowRuntimeError as error:
                # An API server that does not answer for a while must not end a trial of many hours.
                self._log.warning("Could not look whether to stop: %s", error)
                return None
            if verdict is not None:
                return verdict
        return None if self._reason is None else f"early stopping: {self._reason.text}"

    def finished(self, record: TrialRecord) -> None:
        """Take in how the trial ended; the last test of goals and budgets that it can do."""
        if self._comparison is not None:
            self._comparison.publish()
        if record.state is not TrialState.FAILED:
            for name, value in record.metrics.items():
                self._test_goal(name, value)
        if self._rules.budget.patience is not None and self._objective is not None:
            value = None if record.failure else record.value_of(self._objective.name, self._mode)
            self._board.publish(ENDED, [record.ended, value])
        if self._has_announced and self._reason is not None and self._board.marker() is None:
            # The task that holds it started at that very moment, which cleared its XComs.
            self._board.put(self._reason)
        if self._reason is None:
            self._spend(
                self._out_of_time()
                or self._out_of_failures(failed=int(record.failure is not None), finished=1)
                or self._out_of_patience()
            )

    def is_stopped(self) -> bool:
        """Whether the sweep is being stopped; looks again, for a trial that asks whether to try once more."""
        if self._reason is None:
            self._reason = self._board.marker()
        return self._reason is not None

    def announce(self, reason: StopReason) -> None:
        """Stop the sweep, unless it already is: put the marker up, then skip all that has not started."""
        self._reason = self._board.marker()
        if self._reason is not None:
            return
        self._reason = reason
        self._has_announced = True
        self._log.info("The sweep is stopped: %s", reason.text)
        # In this order: whatever slips through the skipping finds the marker when it starts.
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
            self._spend(self._out_of_time())
        if self._reason is None and self._comparison is not None:
            return self._comparison.verdict()
        return None

    def _test_goal(self, metric: str, value: float | None) -> None:
        goal = None if self._reason else goal_reached(self._rules.goals, metric, value)
        if goal is not None and value is not None:
            text = f"trial {self._trial} reached {goal} with {value:g}"
            self.announce(StopReason(StopCause.GOAL, text, self._clock(), self._trial, metric, value))

    def _spend(self, exhausted: tuple[StopCause, str] | None) -> None:
        if exhausted is not None:
            cause, text = exhausted
            self.announce(StopReason(cause, text, self._clock(), self._trial))

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
        self._seconds = max(LIVE_SECONDS, len(board.trial_task_ids) / READS_PER_SECOND)

    def observe(self, observation: Observation) -> None:
        curve = self._curves.get(observation.name)
        if curve is not None:
            curve.add(observation.step, observation.value)
            self._has_news = True

    def publish(self) -> None:
        """Let the other trials see the curves, with whose they are, so that nobody is compared with itself."""
        if self._has_news:
            curves = {name: curve.to_json() for name, curve in self._curves.items()}
            self._board.publish(LIVE, {"of": self._me(), "curves": curves})
            self._has_news = False

    def verdict(self) -> str | None:
        """Publish, and compare where an evaluation is due; at most every few seconds."""
        if not self._has_news or self._clock() < self._next:
            return None
        self._next = self._clock() + self._seconds
        self.publish()
        due = [
            number
            for number, policy in enumerate(self._policies)
            if self._curves[policy.metric].points
            and policy.is_due(self._evaluated[number], self._curves[policy.metric].reach)
        ]
        if not due:
            return None
        others = [live["curves"] for live in self._board.read(LIVE) if live["of"] != self._me()]
        for number in due:
            policy = self._policies[number]
            own = self._curves[policy.metric]
            self._evaluated[number] = own.reach
            theirs = [RunningCurve.from_json(policy.direction, curves.get(policy.metric, ())) for curves in others]
            reason = should_stop_trial(policy, own, theirs, own.reach)
            if reason is not None:
                return reason
        return None

    def _me(self) -> list[Any]:
        return [self._board.ti.task_id, self._board.ti.map_index]


def stop_summary(reason: StopReason, shape: SweepPlan, records: Sequence[TrialRecord]) -> dict[str, Any]:
    """Return what a run's summary says of its early end, as a JSON object.

    Args:
        reason: Why it ended.
        shape: What would have run.
        records: What did run, or was suggested.

    Returns:
        The reason with ``saved``: trials that were not started, and the resource that they would have used (Hyperband;
        None for the other searches).
    """
    started = [record for record in records if record.started is not None]
    planned = sum(rung.trials * rung.resource for bracket in shape.brackets for rung in bracket.rungs)
    used = sum(record.resource or 0 for record in started)
    saved = {
        "trials": max(0, shape.trials - len(started)),
        "resource": max(0, planned - used) if shape.brackets else None,
    }
    return reason.to_json() | {"saved": saved}

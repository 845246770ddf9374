"""Ending a sweep before its time: one mechanism for every cause, algorithm and runner.

The *stop marker* is an XCom with the key ``stop`` on the first task of the run that suggests. Whoever finds a reason
puts it there, and then has Airflow skip whatever of the run has not started, in one call. Running trials look for the
marker every other second and end their processes; a task that starts looks first and skips itself, so that it does not
matter who overtakes whom: a task that Airflow was just starting, or trials that were just mapped, find the marker.

One XCom on a task that is known beforehand, rather than one of the trial that found the reason, because a look then
costs one small request, however many mapped tasks the sweep has; and so that a person can put it there too.

This module is how tasks ask and tell each other through Airflow; what a trial makes of it is in ``stop_watch``.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError, AirflowSkipException
from attrs import frozen

from airflow_hptuning.operators.stop_watch import BoardError, StopWatch
from airflow_hptuning.planning import stopping_rules
from airflow_hptuning.search.early_stopping import StopReason

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.types import Logger, RuntimeTaskInstanceProtocol

    from airflow_hptuning.operators.stop_watch import Board
    from airflow_hptuning.planning import SweepPlan
    from airflow_hptuning.polyaxonfile.spec import SweepSpec
    from airflow_hptuning.trials import TrialRecord

MARKER = "stop"
"""Key of the stop marker."""

NO_STOP: dict[str, Any] = {}
"""What the marker holds as long as nobody has a reason."""

KEPT_TASKS = frozenset({"build", "collect", "reap"})
"""Tasks that run, or finish, although the sweep is stopped."""

_PAIRS_AT_ONCE = 1000
_NOT_TO_SKIP = frozenset({"running", "success", "failed", "skipped", "removed"})


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
    return StopReason.from_json(found) if found else None


@contextmanager
def asking(*errors: type[Exception]) -> Iterator[None]:
    """Name an error of Airflow's server as those who ask a board know it.

    Args:
        errors: What the server's errors look like where the question is asked.
    """
    try:
        yield
    except errors as error:
        raise BoardError(str(error)) from error


@frozen
class RunBoard:
    """The board of one run, as a running task of it reaches it.

    Attributes:
        ti: The running task.
        pairs: Id of each task that suggests, with the id of the mapped task of its trials.
        task_ids: Ids of all tasks that are skipped when the run is stopped.
    """

    ti: RuntimeTaskInstanceProtocol
    pairs: Sequence[tuple[str, str]]
    task_ids: Sequence[str]

    @classmethod
    def of(cls, context: Context) -> RunBoard:
        """Return the board of the run that a task is part of."""
        dag = context["dag"]
        # The task that collects knows where all results are, so nobody else needs to be told.
        pairs: Sequence[tuple[str, str]] = getattr(dag.get_task("collect"), "pairs")  # noqa: B009 - typed as any operator
        return cls(context["ti"], pairs, sorted(set(dag.task_ids) - KEPT_TASKS))

    @property
    def me(self) -> str:
        """Name of the running task instance."""
        return f"{self.ti.task_id}[{self.ti.map_index}]"

    @property
    def mapped_tasks(self) -> int:
        """How many mapped tasks the trials are spread over."""
        return len(self.pairs)

    @asking(AirflowRuntimeError)
    def marker(self) -> StopReason | None:
        """Return why the run is being stopped, or None."""
        return find_stop(self.ti, self.pairs)

    @asking(AirflowRuntimeError)
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

    @asking(AirflowRuntimeError)
    def skip_rest(self) -> None:
        """Skip every task of the run that has not started, mapped or not."""
        # All of the run: thousands of ids would not fit into the request's address.
        states = self.ti.get_task_states(dag_id=self.ti.dag_id, run_ids=[self.ti.run_id])
        trials = set(self._trial_task_ids)
        skip_in_run(list(_not_started(states.get(self.ti.run_id, {}), self.task_ids, trials)))

    @asking(AirflowRuntimeError)
    def count(self, *states: str) -> int:
        """Return how many trials' tasks are in one of these states."""
        return self.ti.get_ti_count(
            dag_id=self.ti.dag_id, task_ids=self._trial_task_ids, run_ids=[self.ti.run_id], states=list(states)
        )

    @asking(AirflowRuntimeError)
    def publish(self, key: str, value: Any) -> None:
        """Tell the other trials something."""
        self.ti.xcom_push(key, value)

    @asking(AirflowRuntimeError)
    def read(self, key: str) -> list[Any]:
        """Return what all trials have told under a key."""
        found = self.ti.xcom_pull(task_ids=self._trial_task_ids, key=key)
        return [value for value in found if value is not None]

    @property
    def _trial_task_ids(self) -> list[str]:
        return [trial for _, trial in self.pairs]


def _not_started(
    states: Mapping[str, str | None], task_ids: Sequence[str], trials: Container[str]
) -> Iterator[tuple[str, int]]:
    """Task id and map index of the instances to skip, from Airflow's ``{"id" or "id_index": state}``."""
    known = set(task_ids)
    for key, state in states.items():
        task_id, _, index = key.rpartition("_")
        # The pod of a deferred trial runs: its trigger ends it, and keeps its metrics.
        if state in _NOT_TO_SKIP or (state == "deferred" and task_id in trials):
            continue
        if key in known:
            yield key, -1
        elif task_id in known and index.isdecimal():
            yield task_id, int(index)


def stop_watch(context: Context, spec: SweepSpec, trial: int, log: Logger) -> StopWatch:
    """Return the watch of a trial that a task runs.

    Args:
        context: The context of the trial's task.
        spec: The sweep.
        trial: Number of the trial.
        log: Where to say what happens.
    """
    started = context["dag_run"].start_date
    return watch_of(spec, RunBoard.of(context), trial, started.timestamp() if started else None, log)


def watch_of(spec: SweepSpec, board: Board, trial: int, started: float | None, log: Logger) -> StopWatch:
    """Return the watch of a trial, whoever runs it.

    Args:
        spec: The sweep.
        board: The board of the run.
        trial: Number of the trial.
        started: When the run started, in seconds since the epoch.
        log: Where to say what happens.
    """
    return StopWatch(
        stopping_rules(spec),
        board,
        trial=trial,
        log=log,
        objective=spec.objective,
        mode=spec.airflow.metrics.value,
        started=started,
    )


def watch_from_start(context: Context, spec: SweepSpec, trial: int, log: Logger) -> StopWatch:
    """As ``stop_watch``, for a trial that is about to start, or to be suggested.

    Raises:
        AirflowSkipException: The run is being stopped, or must now be.
    """
    watch = stop_watch(context, spec, trial, log)
    reason = watch.before_start()
    if reason is not None:
        raise AirflowSkipException(f"the sweep is stopped: {reason.text}")
    return watch


def skip_if_stopped(context: Context) -> None:
    """Skip the task that starts, if its run is being stopped; for tasks that suggest.

    Raises:
        AirflowSkipException: The run is being stopped.
    """
    board = RunBoard.of(context)
    reason = board.marker()
    if reason is not None:
        # Airflow was starting this one when the rest was skipped; there may be more of its kind.
        board.skip_rest()
        raise AirflowSkipException(f"the sweep is stopped: {reason.text}")
    if board.ti.task_id == board.pairs[0][0]:
        # Airflow logs an error for an XCom that is not there, and every running trial looks for this one.
        board.ti.xcom_push(MARKER, NO_STOP)


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

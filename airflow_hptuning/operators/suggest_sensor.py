"""The task of one iteration of Bayesian optimisation: it waits for its turn, then suggests one more trial.

The tasks of the iterations form a chain, so that one of them waits at a time. What it needs of the trials it reads in
a number of requests that does not grow with the sweep: each task leaves the *history*, the trials that had ended when
it suggested, to the next one, which reads only what was unfinished then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowSkipException
from attrs import define, field

from airflow_hptuning.operators.stopping import RunBoard, skip_if_stopped, skip_in_run, stop_watch
from airflow_hptuning.operators.sweep import completed, pull_list, task_states, without_result
from airflow_hptuning.trials import ActiveTrial, CompletedTrial, Suggestion, TrialRecord, TrialState
from airflow_hptuning.triggers import TurnTrigger, has_ended, unfinished

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from airflow_hptuning.operators.sweep import Sweep

HISTORY = "history"
"""Key under which a task leaves what it knew."""

Pair = tuple[str, str]
"""Id of a task that suggests, with the id of the mapped task of its trials."""


@define
class _Known:
    """What a task knows of the trials before it.

    Attributes:
        finished: Trials that had ended when an earlier task looked.
        suggested: The suggestions of the other trials, by the pair of tasks that they belong to.
        states: Airflow's states of their tasks.
    """

    finished: list[CompletedTrial]
    suggested: dict[Pair, list[Suggestion]]
    states: Mapping[str, str | None] = field(factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever suggested."""
        return not self.finished and not any(self.suggested.values())

    def counts(self, before: int | None) -> dict[str, int]:
        """Return the number of trials by the id of their task, of those that are numbered before a trial."""
        return {
            task_id: len(suggestions)
            for (_, task_id), suggestions in self.suggested.items()
            if suggestions and (before is None or suggestions[0].trial < before)
        }


class SuggestSensor(BaseSensorOperator):
    """Waits until a place is free, and returns the next suggestion as its XCom.

    It looks once in the worker and then waits in the triggerer. When nothing is left to suggest it skips itself and
    everything after it in one call; so it does when it fails for good, so that nothing waits for it.

    Args:
        sweep: The sweep.
        trial: Number of the trial to suggest.
        barrier: Number of a trial, where the sweep is to be repeatable: those before it must have ended, and only
            they are known; those between it and ``trial`` count as running. None waits for any free place.
    """

    ui_color = "#d7e8f7"

    def __init__(self, *, sweep: Sweep, trial: int, barrier: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sweep = sweep
        self.trial = trial
        self.barrier = barrier

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return a list of one suggestion, as a JSON object; or wait in the triggerer."""
        try:
            return self._take_turn(context)
        except AirflowSkipException:
            raise
        except Exception:
            if context["ti"].try_number > context["ti"].max_tries:
                self._skip_rest(context)
            raise

    def resume(self, context: Context, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Look again: what the trigger saw may have changed."""
        return self.execute(context)

    def _take_turn(self, context: Context) -> list[dict[str, Any]]:
        reason = stop_watch(context, self.sweep.spec, self.trial, self.log).before_start()
        if reason is not None:
            raise AirflowSkipException(f"the sweep is stopped: {reason.text}")
        ti = context["ti"]
        known = self._look(ti, RunBoard.of(context).pairs)
        if known.is_empty:
            self._skip_rest(context)
            raise AirflowSkipException("nothing was suggested before this task: see why there")
        counts = known.counts(self.barrier)
        left = unfinished(known.states, counts)
        limit = 0 if self.barrier is not None else self.sweep.spec.concurrency - 1
        if sum(left.values()) > limit:
            self.log.info("%d trials are unfinished; waiting until there are %d", sum(left.values()), limit)
            waited_for = {task_id: counts[task_id] for task_id in left}
            self.defer(
                trigger=TurnTrigger(dag_id=ti.dag_id, run_id=ti.run_id, trials=waited_for, limit=limit),
                method_name="resume",
            )
        return self._suggest(context, known)

    def _suggest(self, context: Context, known: _Known) -> list[dict[str, Any]]:
        from airflow_hptuning.search.bayesian import BayesianOptimization

        ti = context["ti"]
        algorithm = self.sweep.algorithm(context["run_id"])
        if not isinstance(algorithm, BayesianOptimization):
            raise TypeError(f"{algorithm.name} has no iterations")
        finished, running = self._trials(ti, known)
        # Of the trials beside this one nothing may be known, or the suggestion would depend on how fast they are.
        beside = [one for one in finished if self.barrier is not None and one.trial >= self.barrier]
        suggestion = algorithm.suggestion(
            self.trial,
            [one for one in finished if one not in beside],
            [*running, *(ActiveTrial(one.trial, one.params) for one in beside)],
        )
        if suggestion is None:
            self._skip_rest(context)
            raise AirflowSkipException("the search space is exhausted: every config has been tried")
        # The model may have taken a while.
        skip_if_stopped(context)
        self._leave_history(ti, known, finished, running)
        self.log.info("Suggestion %s: %s", suggestion.label, dict(suggestion.info))
        return [suggestion.to_json()]

    def _leave_history(
        self,
        ti: RuntimeTaskInstanceProtocol,
        known: _Known,
        finished: Sequence[CompletedTrial],
        running: Sequence[ActiveTrial],
    ) -> None:
        numbers = {one.trial for one in running}
        still_open = [pair for pair, found in known.suggested.items() if numbers & {one.trial for one in found}]
        ended = [
            [one.trial, dict(one.params), one.value, one.state.value]
            for one in finished
            if not any(one.trial == other.trial for pair in still_open for other in known.suggested[pair])
        ]
        ti.xcom_push(HISTORY, {"finished": ended, "open": still_open})

    def _skip_rest(self, context: Context) -> None:
        """Skip the trial of this task and all later iterations, in one call."""
        pairs = RunBoard.of(context).pairs
        rest = [task_id for pair in pairs[_position(pairs, self.task_id) :] for task_id in pair]
        skip_in_run([(task_id, -1) for task_id in rest if task_id != self.task_id])

    def _look(self, ti: RuntimeTaskInstanceProtocol, pairs: Sequence[Pair]) -> _Known:
        """Return what the trials of the tasks before this one have come to."""
        before = list(pairs[: _position(pairs, self.task_id)])
        history = ti.xcom_pull(task_ids=before[-1][0], key=HISTORY, map_indexes=-1) if before else None
        finished: list[CompletedTrial] = []
        if history is not None:
            # The task before this one has suggested since.
            before = [*((suggesting, trial) for suggesting, trial in history["open"]), before[-1]]
            finished = [
                CompletedTrial(trial, params, value, TrialState(state))
                for trial, params, value, state in history["finished"]
            ]
        suggested = {
            pair: [Suggestion.from_json(item) for found in pull_list(ti, pair[0]) for item in found] for pair in before
        }
        return _Known(finished, suggested, task_states(ti, [task_id for _, task_id in before]))

    def _trials(self, ti: RuntimeTaskInstanceProtocol, known: _Known) -> tuple[list[CompletedTrial], list[ActiveTrial]]:
        """Return the trials that have ended, and those that have not."""
        done: list[TrialRecord] = []
        running: list[ActiveTrial] = []
        for (_, task_id), suggestions in known.suggested.items():
            records = {item["trial"]: TrialRecord.from_json(item) for item in pull_list(ti, task_id)}
            for index, one in enumerate(suggestions):
                # Its task's state decides: a trial that waits for another try has left a record as well.
                if has_ended(known.states, task_id, index):
                    state = known.states.get(f"{task_id}_{index}")
                    done.append(records.get(one.trial) or without_result(one, state))
                else:
                    running.append(ActiveTrial(one.trial, one.params))
        return [*known.finished, *completed(self.sweep, done)], running


def _position(pairs: Sequence[Pair], task_id: str) -> int:
    return [suggesting for suggesting, _ in pairs].index(task_id)

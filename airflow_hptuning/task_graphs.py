"""The tasks of a sweep, for each search algorithm: what the graph in the UI shows.

Grid and random search are ``suggest`` → mapped ``trial`` → ``collect``. Hyperband has a group per bracket, side by
side, and in it a group per rung. Bayesian optimisation has a group for the initial design and one per iteration; what
waits for its turn there is the chain of the tasks that suggest, and no trial holds it up. ``collect`` comes after every
trial, whatever happened.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup, TriggerRule
from attrs import define, field

from airflow_hptuning.operators.build import BuildEnvironmentOperator
from airflow_hptuning.operators.build_image import BuildImageOperator
from airflow_hptuning.operators.collect import CollectOperator
from airflow_hptuning.operators.halving import HalvingOperator, SuggestRungOperator
from airflow_hptuning.operators.pod_trial import PodTrialOperator
from airflow_hptuning.operators.reap import ReapOperator
from airflow_hptuning.operators.suggest import SuggestOperator
from airflow_hptuning.operators.suggest_sensor import SuggestSensor
from airflow_hptuning.operators.trial import LocalTrialOperator

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_hptuning.operators.sweep import Sweep
    from airflow_hptuning.operators.trial_base import TrialOperator
    from airflow_hptuning.planning import SweepPlan
    from airflow_hptuning.search.hyperband import Bracket, Rung

POOL_PREFIX = "hptuning__"
"""Pools of this name belong to one sweep; the plugin creates and resizes them."""

INFRASTRUCTURE_RETRIES = 2
"""How often a trial is retried that failed through no fault of its own, where the file does not say."""

SHORT_RETRY_DELAY = timedelta(seconds=5)
"""A task that suggests depends on Airflow's own servers only, and one that reaps holds up the end of the run."""


def is_spread(shape: SweepPlan) -> bool:
    """Whether several mapped tasks hold trials that run side by side, so that no limit of one task holds for all."""
    return bool(shape.brackets) or len(shape.batches) > 1


@define
class SweepTasks:
    """Builds the tasks of one sweep inside the current DAG.

    Attributes:
        sweep: The sweep.
        shape: Its plan.
        pairs: Id of each task that suggests, with the id of the mapped task of its trials.
        trials: All mapped trial tasks.
    """

    sweep: Sweep
    shape: SweepPlan
    pairs: list[tuple[str, str]] = field(factory=list)
    trials: list[MappedOperator] = field(factory=list)
    build: BaseOperator | None = None

    def add(self) -> None:
        """Add all tasks to the DAG of the context."""
        self.build = self._build()
        if self.shape.brackets:
            for bracket in self.shape.brackets:
                self._bracket(bracket)
        elif self.shape.initial:
            self._iterations()
        else:
            self._batches()
        collect = CollectOperator(
            task_id="collect",
            sweep=self.sweep,
            pairs=self.pairs,
            trigger_rule=TriggerRule.ALL_DONE,
            retries=0,
        )
        self.trials >> collect
        collect.dag.add_result(collect.output)
        if self.shape.runner == "kubernetes":
            # A teardown: it runs however the run ends, and does not decide how.
            reap = ReapOperator(
                task_id="reap", sweep=self.sweep, retries=INFRASTRUCTURE_RETRIES, retry_delay=SHORT_RETRY_DELAY
            )
            collect >> reap.as_teardown()

    def _build(self) -> BaseOperator | None:
        """The task that runs the build steps once; on Kubernetes the trials run them unless they make an image."""
        if not self.shape.build:
            return None
        if self.shape.runner == "local":
            return BuildEnvironmentOperator(task_id="build", sweep=self.sweep)
        delay = self.sweep.spec.airflow.trial.retry_delay
        return BuildImageOperator(task_id="build", sweep=self.sweep, retries=INFRASTRUCTURE_RETRIES, retry_delay=delay)

    def _batches(self) -> list[BaseOperator]:
        """Suggest → trials, once for every list that Airflow can map over; returns the tasks that suggest."""
        suggesting: list[BaseOperator] = []
        for number, batch in enumerate(self.shape.batches):
            group = None if len(self.shape.batches) == 1 else TaskGroup(f"batch_{number:03d}")
            suggest = SuggestOperator(
                task_id="suggest", sweep=self.sweep, first=batch.first, count=batch.size, task_group=group
            )
            self._first(suggest)
            # Earlier batches first.
            self._trials(suggest, group, priority=len(self.shape.batches) - number)
            suggesting.append(suggest)
        return suggesting

    def _iterations(self) -> None:
        """Bayesian optimisation: the initial design, then a chain of tasks that each suggest one trial."""
        with TaskGroup("initial"):
            upstream = self._batches()
        initial, at_once = self.shape.initial, self.shape.concurrency
        for number in range(self.shape.iterations):
            with TaskGroup(f"iteration_{number:03d}") as group:
                suggest = SuggestSensor(
                    task_id="suggest",
                    sweep=self.sweep,
                    trial=initial + number,
                    barrier=initial + number // at_once * at_once if self.sweep.spec.airflow.bo_synchronous else None,
                    # One that was killed must not end the search.
                    trigger_rule=TriggerRule.ALL_DONE,
                    retries=INFRASTRUCTURE_RETRIES,
                    retry_delay=SHORT_RETRY_DELAY,
                )
                self._trials(suggest, group, priority=1)
            upstream >> suggest
            upstream = [suggest]

    def _bracket(self, bracket: Bracket) -> None:
        """One bracket of Hyperband: rungs one after the other, each halved into the next."""
        last = len(bracket.rungs) - 1
        halvings: list[HalvingOperator] = []
        with TaskGroup(f"bracket_{bracket.bracket}"):
            sources: list[BaseOperator] = []
            for position, rung in enumerate(bracket.rungs):
                with TaskGroup(f"rung_{rung.rung}") as group:
                    if position == 0 or rung.trials > self.shape.max_map_length:
                        sources = self._rung_sources(bracket, rung, group, halvings)
                    # Deeper brackets are longer chains, so theirs go first.
                    trials = [
                        self._trials(source, group, priority=bracket.bracket + 1, suffix=f"_{part:03d}")
                        if len(sources) > 1
                        else self._trials(source, group, priority=bracket.bracket + 1)
                        for part, source in enumerate(sources)
                    ]
                    if position < last:
                        halve = self._halve(bracket, rung, trials, group)
                        halvings.append(halve)
                        sources = [halve]
        self._tell_what_follows(halvings)

    def _rung_sources(
        self, bracket: Bracket, rung: Rung, group: TaskGroup, halvings: list[HalvingOperator]
    ) -> list[BaseOperator]:
        """The tasks that suggest a rung's trials: for the first rung, and for a rung too long for one list."""
        parts = range(0, rung.trials, self.shape.max_map_length)
        previous = self.pairs[-_parts_before(bracket, rung, self.shape.max_map_length) :] if halvings else []
        sources: list[BaseOperator] = []
        for part, first in enumerate(parts):
            suggest = SuggestRungOperator(
                task_id="suggest" if len(parts) == 1 else f"suggest_{part:03d}",
                sweep=self.sweep,
                bracket=bracket.bracket,
                rung=rung.rung,
                first=first,
                count=self.shape.max_map_length,
                pairs=previous,
                task_group=group,
            )
            if halvings:
                halvings[-1] >> suggest
            else:
                self._first(suggest)
            sources.append(suggest)
        return sources

    def _halve(self, bracket: Bracket, rung: Rung, trials: list[MappedOperator], group: TaskGroup) -> HalvingOperator:
        halve = HalvingOperator(
            task_id="halve",
            sweep=self.sweep,
            bracket=bracket.bracket,
            rung=rung.rung,
            pairs=self.pairs[-len(trials) :],
            trigger_rule=TriggerRule.ALL_DONE,
            task_group=group,
        )
        trials >> halve
        return halve

    def _tell_what_follows(self, halvings: list[HalvingOperator]) -> None:
        """Each halving knows its direct followers, and all that is skipped when its bracket ends there."""
        for halve in halvings:
            halve.followers = sorted(halve.downstream_task_ids)
            halve.later = sorted(task.task_id for task in halve.get_flat_relatives() if task.task_id != "collect")

    def _first(self, suggest: BaseOperator) -> None:
        if self.build is not None:
            self.build >> suggest

    def _trials(
        self, source: BaseOperator, group: TaskGroup | None, *, priority: int, suffix: str = ""
    ) -> MappedOperator:
        """The mapped trials of what a task suggests."""
        spec = self.sweep.spec
        settings = spec.airflow.trial
        operator: type[TrialOperator] = LocalTrialOperator
        watching: dict[str, Any] = {}
        if self.shape.runner == "kubernetes":
            operator = PodTrialOperator
            # What holds trials of several mapped tasks to the concurrency in a shared pool counts no deferred tasks.
            shares = bool(spec.airflow.pool) and is_spread(self.shape)
            watching = {"deferrable": spec.airflow.kubernetes.deferrable and not shares}
        trial = operator.partial(
            task_id=f"trial{suffix}",
            task_group=group,
            sweep=self.sweep,
            build_task_id=self.build.task_id if self.build else None,
            pool=spec.airflow.pool or f"{POOL_PREFIX}{self.shape.dag_id}",
            # The pool is the promise; this holds it where a shared pool has more slots.
            max_active_tis_per_dagrun=self.shape.concurrency,
            retries=INFRASTRUCTURE_RETRIES if settings.retries is None else settings.retries,
            retry_delay=settings.retry_delay,
            priority_weight=priority,
            weight_rule="absolute",
            map_index_template="{{ task.trial_label }}",
            **watching,
        ).expand(suggestion=_result(source))
        self.pairs.append((source.task_id, trial.task_id))
        self.trials.append(trial)
        return trial


def _parts_before(bracket: Bracket, rung: Rung, length: int) -> int:
    """How many mapped tasks the rung before this one has."""
    before = next(r for r in reversed(bracket.rungs) if r.rung < rung.rung)
    return -(-before.trials // length)


def _result(task: BaseOperator) -> Any:
    return task.output

"""From a spec to what will run: the search algorithm and the shape of the sweep.

This is the only module that speaks both vocabularies, the polyaxonfile's (``max_iter``, ``eta``, matrix) and the
field's (``max_resource``, ``reduction_factor``, search space). A plan is plain data: the DAG builder, the command
line and the docs read it, and nothing here runs anything.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from attrs import evolve, frozen

from airflow_hptuning.errors import UnsupportedError
from airflow_hptuning.polyaxonfile.spec import (
    BayesianSpec,
    EnvironmentSpec,
    GridSearchSpec,
    HyperbandSpec,
    RandomSearchSpec,
    SweepSpec,
)
from airflow_hptuning.runners.pods import PodSettings, quantities
from airflow_hptuning.search.early_stopping import Budget, Goal, Policy, PolicyKind, StoppingRules
from airflow_hptuning.search.grid_search import GridSearch
from airflow_hptuning.search.hyperband import Bracket, Hyperband, Rung
from airflow_hptuning.search.random_search import RandomSearch
from airflow_hptuning.trials import ActiveTrial, CompletedTrial, FailureClass, Metric, Params, TrialState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_hptuning.search.base import SearchAlgorithm

MAX_MAP_LENGTH = 1024
"""Airflow's default of ``[core] max_map_length``: the longest list that a task may hand to a mapped one."""

DEFAULT_RUNNER = "kubernetes"
"""Where trials run when neither the file nor Airflow's ``[hptuning] default_runner`` says so."""


@frozen
class Batch:
    """Trials that are mapped together.

    Attributes:
        first: Number of the first trial.
        size: How many trials; at most Airflow's ``max_map_length``.
    """

    first: int
    size: int


@frozen
class SweepPlan:
    """The shape of a sweep, before anything runs.

    Attributes:
        dag_id: Id of the DAG.
        search: ``grid``, ``random``, ``hyperband`` or ``bo``.
        trials: How many trials at most.
        concurrency: How many of them at once.
        batches: Mapped groups of a grid or random sweep, and of an initial design; empty for Hyperband.
        brackets: Brackets of Hyperband, deepest first; empty for the others.
        initial: Size of the initial design (Bayesian optimisation), else 0.
        iterations: Model-based trials after it (Bayesian optimisation), else 0.
        runner: ``local`` or ``kubernetes``.
        build: Whether a build task comes first; pods run the build steps themselves, unless they make an image.
        max_map_length: The longest list that a task may hand to a mapped one.
    """

    dag_id: str
    search: str
    trials: int
    concurrency: int
    batches: tuple[Batch, ...] = ()
    brackets: tuple[Bracket, ...] = ()
    initial: int = 0
    iterations: int = 0
    runner: str = DEFAULT_RUNNER
    build: bool = False
    max_map_length: int = MAX_MAP_LENGTH

    @property
    def tasks(self) -> int:
        """How many task instances Airflow will schedule: trials, and what builds, suggests, halves, collects, reaps."""
        halvings = sum(len(bracket.rungs) - 1 for bracket in self.brackets)
        suggestions = len(self.batches) + self.iterations
        suggestions += sum(self._rung_suggestions(rung) for bracket in self.brackets for rung in bracket.rungs)
        return self.trials + suggestions + halvings + int(self.build) + 1 + int(self.runner == "kubernetes")

    def _rung_suggestions(self, rung: Rung) -> int:
        # The halving before a later rung suggests its trials, if they fit into one list.
        parts = math.ceil(rung.trials / self.max_map_length)
        return parts if rung.rung == 0 or parts > 1 else 0


def dag_id_of(spec: SweepSpec) -> str:
    """Return the DAG id of a sweep: ``airflow.dag_id``, else the file's name, else the sweep's."""
    if spec.airflow.dag_id:
        return spec.airflow.dag_id
    stem = Path(spec.path).stem if spec.path else (spec.name or "sweep")
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem) or "sweep"


def algorithm_of(spec: SweepSpec, seed: int | str) -> SearchAlgorithm:
    """Build the search algorithm of a sweep.

    Args:
        spec: The sweep.
        seed: Seed to use when the file gives none, such as the run's id: a repeated task must suggest the same.
    """
    seed = seed if spec.seed is None else spec.seed
    settings = spec.algorithm
    match settings:
        case GridSearchSpec():
            return GridSearch(spec.space, settings.n_experiments)
        case RandomSearchSpec():
            return RandomSearch(spec.space, settings.n_experiments, seed)
        case HyperbandSpec():
            return Hyperband(
                spec.space,
                max_resource=settings.max_iter,
                reduction_factor=settings.eta,
                resource_type=settings.resource.type,
                metric=Metric(settings.metric.name, settings.metric.optimization),
                seed=seed,
            )
        case BayesianSpec():
            return _bayesian(spec, settings, seed)
        case _:
            assert_never(settings)


def _bayesian(spec: SweepSpec, settings: BayesianSpec, seed: int | str) -> SearchAlgorithm:
    # Here, because these modules load numpy and scipy.
    from airflow_hptuning.search.acquisition import Acquisition
    from airflow_hptuning.search.bayesian import BayesianOptimization
    from airflow_hptuning.search.gaussian_process import GaussianProcessSettings

    utility = settings.utility_function
    weights = {"kappa": utility.kappa, "eps": utility.eps}
    model = utility.gaussian_process
    return BayesianOptimization(
        spec.space,
        n_initial_trials=settings.n_initial_trials,
        n_iterations=settings.n_iterations,
        metric=Metric(settings.metric.name, settings.metric.optimization),
        seed=seed,
        acquisition=Acquisition(
            utility.acquisition_function, **{name: value for name, value in weights.items() if value is not None}
        ),
        gaussian_process=GaussianProcessSettings()
        if model is None
        else GaussianProcessSettings(
            kernel=model.kernel,
            length_scale=model.length_scale,
            nu=model.nu,
            n_restarts_optimizer=model.n_restarts_optimizer,
        ),
        n_warmup=utility.n_warmup,
        n_iter=utility.n_iter,
    )


def plan(spec: SweepSpec, *, runner: str | None = None, max_map_length: int = MAX_MAP_LENGTH) -> SweepPlan:
    """Return what a sweep will run.

    Args:
        spec: The sweep.
        runner: Where trials run, unless the file says so; None takes the default.
        max_map_length: Airflow's ``[core] max_map_length``; longer searches are split into batches.
    """
    settings, runner = spec.algorithm, spec.airflow.runner or runner or DEFAULT_RUNNER
    builds_once = runner == "local" or spec.airflow.build.mode == "image"
    common: dict[str, Any] = {
        "dag_id": dag_id_of(spec),
        "search": spec.search,
        "concurrency": spec.concurrency,
        "runner": runner,
        "build": bool(spec.build and spec.build.build_steps) and builds_once,
        "max_map_length": max_map_length,
    }
    if isinstance(settings, BayesianSpec):
        total = settings.n_initial_trials + settings.n_iterations
        distinct = spec.space.n_distinct
        total = total if distinct is None else min(total, distinct)
        initial = min(settings.n_initial_trials, total)
        return SweepPlan(
            **common,
            trials=total,
            batches=_batches(initial, max_map_length),
            initial=initial,
            iterations=total - initial,
        )
    algorithm = algorithm_of(spec, seed=0)
    if isinstance(algorithm, Hyperband):
        trials = sum(rung.trials for bracket in algorithm.brackets for rung in bracket.rungs)
        return SweepPlan(**common, trials=trials, brackets=algorithm.brackets)
    if isinstance(algorithm, (GridSearch, RandomSearch)):
        return SweepPlan(**common, trials=algorithm.total, batches=_batches(algorithm.total, max_map_length))
    raise UnsupportedError(f"cannot plan {spec.search}")


def _batches(trials: int, length: int) -> tuple[Batch, ...]:
    return tuple(Batch(first, min(length, trials - first)) for first in range(0, trials, length))


def resumes(spec: SweepSpec) -> bool:
    """Whether a promoted trial continues from its config's checkpoint."""
    return isinstance(spec.algorithm, HyperbandSpec) and spec.algorithm.resume


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


def pod_settings(spec: SweepSpec) -> PodSettings:
    """Return what a sweep asks of Kubernetes: `environment`, with `airflow.kubernetes` on top.

    Raises:
        UnsupportedError: The file names no image.
    """
    ours, build = spec.airflow.kubernetes, spec.build
    if build is None or build.image is None:
        raise UnsupportedError("trials on Kubernetes need an image: give `build.image`")
    common = common_settings(spec, spec.environment, build.image)
    return evolve(
        common,
        env=ours.env,
        env_from=[*common.env_from, *ours.env_from],
        security_context=ours.security_context,
        volumes=ours.volumes,
        volume_mounts=ours.volume_mounts,
        service_account=ours.service_account or common.service_account,
        image_pull_policy=ours.image_pull_policy,
        image_pull_secrets=ours.image_pull_secrets or common.image_pull_secrets,
        max_restarts=(spec.environment and spec.environment.max_restarts) or 0,
        pod_template=ours.pod_template or {},
        steps=build.build_steps,
    )


def common_settings(spec: SweepSpec, theirs: EnvironmentSpec | None, image: str) -> PodSettings:
    """Return what pods of trials and builds have in common: an `environment` of the file, and whose pods they are."""
    ours, theirs = spec.airflow.kubernetes, theirs or EnvironmentSpec()
    env_from = [{"secretRef": {"name": name}} for name in theirs.secret_refs or ()]
    env_from += [{"configMapRef": {"name": name}} for name in theirs.config_map_refs or ()]
    return PodSettings(
        image=image,
        namespace=ours.namespace,
        resources=quantities(theirs.resources.model_dump(exclude_none=True) if theirs.resources else {}),
        env_from=env_from,
        labels=(theirs.labels or {}) | ours.labels,
        annotations=(theirs.annotations or {}) | ours.annotations,
        node_selector=theirs.node_selector or {},
        affinity=theirs.affinity,
        tolerations=theirs.tolerations or (),
        service_account=theirs.service_account,
        priority_class=ours.priority_class,
        image_pull_secrets=theirs.image_pull_secrets or (),
    )


def suggest(spec: SweepSpec, trials: Sequence[Mapping[str, Any]], n: int = 1) -> list[dict[str, Any]]:
    """Suggest the next configs of a sweep, without Airflow.

    Args:
        spec: The sweep.
        trials: What is known of earlier trials: mappings with ``params``, ``state`` (default ``succeeded``) and
            ``metrics``; as ``TrialRecord.to_json`` writes them, or less. Running ones count as pending points, and
            one that failed through its infrastructure (``failure``) as never run.
        n: How many configs.

    Returns:
        Up to ``n`` configs; fewer when the search is at its end.
    """
    objective = spec.objective
    finished: list[CompletedTrial] = []
    active: list[ActiveTrial] = []
    for number, trial in enumerate(trials):
        state = TrialState(trial.get("state", TrialState.SUCCEEDED))
        params: Params = trial["params"]
        trial_number = trial.get("trial", number)
        if not state.is_finished:
            active.append(ActiveTrial(trial_number, params))
            continue
        failure = trial.get("failure")
        if failure and FailureClass(failure["class"]).is_infrastructure:
            # It says nothing of its config.
            state = TrialState.SKIPPED
        value = (trial.get("metrics") or {}).get(objective.name) if objective else None
        finished.append(
            CompletedTrial(
                trial_number,
                params,
                value,
                state,
                trial.get("resource"),
                trial.get("bracket"),
                trial.get("rung"),
            )
        )
    algorithm = algorithm_of(spec, seed=spec.digest)
    return [dict(suggestion.params) for suggestion in algorithm.suggest(finished, active, n)]

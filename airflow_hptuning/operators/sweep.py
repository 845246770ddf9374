"""What the tasks of a sweep share: its spec, and where its results are."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from airflow_hptuning.planning import algorithm_of, resumes
from airflow_hptuning.trials import (
    CompletedTrial,
    Failure,
    FailureClass,
    Suggestion,
    TrialRecord,
    TrialState,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from airflow_hptuning.polyaxonfile.spec import SweepSpec
    from airflow_hptuning.search.base import SearchAlgorithm


@frozen(eq=False, str=False)
class Sweep:
    """A spec on its way to its tasks.

    Airflow writes the text of this object into the serialised DAG, which makes the file's digest part of it: a change
    of the file, and nothing else, is a new DAG version.

    Attributes:
        dag_id: Id of the DAG.
        spec: The parsed polyaxonfile.
    """

    dag_id: str
    spec: SweepSpec = field(repr=False)

    def __str__(self) -> str:
        return f"{self.dag_id}@sha256:{self.spec.digest}"

    def algorithm(self, run_id: str) -> SearchAlgorithm:
        """Return the search algorithm of a run; without a seed in the file, the run's id is the seed."""
        return algorithm_of(self.spec, seed=f"{self.dag_id}/{run_id}")


def data_path() -> Path:
    """Return the folder for what the local runner writes: ``[hptuning] data_path``, or below AIRFLOW_HOME."""
    from airflow.configuration import AIRFLOW_HOME, conf

    return Path(conf.get("hptuning", "data_path", fallback="") or Path(AIRFLOW_HOME) / "hptuning")


def working_dir(spec: SweepSpec) -> str | None:
    """Return the folder trials start in: the file's own, unless ``airflow.local.working_dir`` names one."""
    home = Path(spec.path).resolve().parent if spec.path else None
    chosen = spec.airflow.local.working_dir
    if home is None:
        return chosen
    return str(home / chosen) if chosen else str(home)


def outputs_folder(sweep: Sweep, run_id: str, suggestion: Suggestion) -> str:
    """Return where a trial writes, below the outputs of all sweeps.

    Each trial has a folder of its own, except that the trials of a config that resumes through its rungs share one.
    """
    if resumes(sweep.spec) and suggestion.bracket is not None:
        leaf = f"bracket-{suggestion.bracket}-config-{suggestion.config_id}"
    else:
        leaf = f"trial-{suggestion.trial:05d}"
    # Airflow's run ids have colons and plus signs.
    run = re.sub(r"[^A-Za-z0-9_.-]", "_", run_id)
    return f"{sweep.dag_id}/{run}/{leaf}"


def pull_list(ti: RuntimeTaskInstanceProtocol, task_id: str) -> list[Any]:
    """Return all results of a task, mapped or not, in the order of the map; without holes."""
    # A list of ids: Airflow then returns a list, whatever the number of results.
    return [value for value in ti.xcom_pull(task_ids=[task_id]) if value is not None]


def gather(ti: RuntimeTaskInstanceProtocol, pairs: Sequence[tuple[str, str]]) -> list[TrialRecord]:
    """Collect the record of every trial that was suggested, also of those whose task could not leave one.

    Args:
        ti: The running task.
        pairs: Id of each task that suggests, with the id of the mapped task of its trials.

    Returns:
        One record per suggestion, by trial number.
    """
    records: list[TrialRecord] = []
    for suggesting, trial in pairs:
        suggestions = [Suggestion.from_json(item) for found in pull_list(ti, suggesting) for item in found]
        done = {item["trial"]: TrialRecord.from_json(item) for item in pull_list(ti, trial)}
        states = {} if len(done) == len(suggestions) else task_states(ti, [trial])
        records.extend(
            done.get(suggestion.trial) or without_result(suggestion, states.get(f"{trial}_{index}"))
            for index, suggestion in enumerate(suggestions)
        )
    return sorted(records, key=lambda record: record.trial)


def task_states(ti: RuntimeTaskInstanceProtocol, task_ids: Sequence[str]) -> Mapping[str, str]:
    """Return the states of tasks of this run, mapped ones as ``id_index``."""
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=list(task_ids), run_ids=[ti.run_id])
    found: Mapping[str, str] = states.get(ti.run_id, {})
    return found


def without_result(suggestion: Suggestion, task_state: str | None) -> TrialRecord:
    """Return the record of a trial whose task left none: what Airflow knows of the task tells which kind it was."""
    common: dict[str, Any] = {
        "trial": suggestion.trial,
        "params": suggestion.params,
        "resource": suggestion.resource,
        "bracket": suggestion.bracket,
        "rung": suggestion.rung,
        "info": suggestion.info,
    }
    if task_state in {"failed", "success", "running", "up_for_retry", "restarting"}:
        reason = f"the task ended without a result (its state is {task_state}): killed, or marked by hand"
        return TrialRecord(**common, state=TrialState.FAILED, failure=Failure(FailureClass.INFRASTRUCTURE, reason))
    return TrialRecord(**common, state=TrialState.SKIPPED)


def completed(sweep: Sweep, records: Sequence[TrialRecord]) -> list[CompletedTrial]:
    """Return what the search algorithm may know of finished trials.

    A failed one has no value; one that failed through no fault of its own says nothing of its config, as if skipped.
    """
    objective, mode = sweep.spec.objective, sweep.spec.airflow.metrics.value
    counting = {TrialState.SUCCEEDED, TrialState.STOPPED}
    return [
        CompletedTrial(
            record.trial,
            record.params,
            record.value_of(objective.name, mode) if objective and record.state in counting else None,
            _meaning(record),
            record.resource,
            record.bracket,
            record.rung,
        )
        for record in records
    ]


def _meaning(record: TrialRecord) -> TrialState:
    if record.failure is not None and record.failure.failure_class.is_infrastructure:
        return TrialState.SKIPPED
    return record.state


class Throttle:
    """Says yes at most once per interval.

    Args:
        seconds: The interval.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = time.monotonic() + seconds

    def __call__(self) -> bool:
        """Whether the interval has passed since the last yes."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True

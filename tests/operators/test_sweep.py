"""What tasks read of each other: records, also of trials whose task could leave none."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_hptuning import load_spec
from airflow_hptuning.operators.sweep import Sweep, completed, gather, outputs_folder
from airflow_hptuning.trials import Suggestion, TrialRecord, TrialState

TEXT = """
version: 1
kind: group
hptuning:
  hyperband: {max_iter: 9, eta: 3, resume: true, resource: {name: steps, type: int}, metric: {name: loss}}
  matrix: {x: {uniform: [0, 1]}}
run: {cmd: "train {{ x }} {{ steps }}"}
"""


class FakeTaskInstance:
    """Answers as Airflow's task instance does, from plain data."""

    dag_id = "dag"
    run_id = "run"

    def __init__(self, results: dict[str, list[Any]], states: dict[str, str]) -> None:
        self.results = results
        self.states = states

    def xcom_pull(self, *, task_ids: list[str]) -> list[Any]:
        """Return the results of tasks; None for a task without one."""
        return [value for task_id in task_ids for value in self.results.get(task_id, [None])]

    def get_task_states(self, *, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, dict[str, str]]:
        """Return the states of mapped tasks."""
        assert (dag_id, run_ids) == (self.dag_id, [self.run_id])
        return {self.run_id: {name: s for name, s in self.states.items() if name.rpartition("_")[0] in task_ids}}


def test_every_suggestion_has_a_record() -> None:
    """Stored results, killed tasks, skipped ones, and ones that Airflow never made."""
    suggestions = [Suggestion(number, {"x": number}) for number in range(4)]
    stored = TrialRecord(2, {"x": 2}, TrialState.SUCCEEDED, metrics={"loss": 0.5})
    ti: Any = FakeTaskInstance(
        {"suggest": [[s.to_json() for s in suggestions]], "trial": [stored.to_json()]},
        {"trial_0": "failed", "trial_1": "skipped", "trial_2": "success"},
    )
    records = gather(ti, [("suggest", "trial")])
    assert [record.state for record in records] == ["failed", "skipped", "succeeded", "skipped"]
    assert records[2] == stored
    assert records[0].failure is not None
    assert records[0].failure.failure_class == "infrastructure"


def test_no_suggestion_no_record() -> None:
    """A suggest task that failed leaves nothing."""
    ti: Any = FakeTaskInstance({}, {})
    assert gather(ti, [("suggest", "trial")]) == []


def test_a_failed_trial_has_no_value() -> None:
    """Its last metric would mislead a search."""
    sweep = Sweep("dag", load_spec(TEXT))
    failed = TrialRecord(0, {"x": 0}, TrialState.FAILED, metrics={"loss": 0.1})
    good = TrialRecord(1, {"x": 1}, TrialState.SUCCEEDED, metrics={"loss": 0.2})
    assert [trial.value for trial in completed(sweep, [failed, good])] == [None, 0.2]


@pytest.mark.parametrize("resume", [True, False])
def test_outputs_are_shared_only_along_a_resumed_config(resume: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """With ``resume`` a promoted config finds its checkpoint; without it nothing of earlier rungs."""
    sweep = Sweep("dag", load_spec(TEXT.replace("resume: true", f"resume: {resume}".lower())))
    first = outputs_folder(sweep, "manual__2026-01-01T00:00:00+00:00", Suggestion(0, {"x": 1}, 1, 2, 0))
    later = outputs_folder(sweep, "manual__2026-01-01T00:00:00+00:00", Suggestion(9, {"x": 1}, 3, 2, 1))
    assert (first == later) is resume
    assert ":" not in first

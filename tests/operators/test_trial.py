"""The task of a trial on the local runner: real processes, a fake Airflow around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time import task_runner
from attrs import define, field

from airflow_hptuning import build_dag, load_spec
from airflow_hptuning.operators.stopping import MARKER
from airflow_hptuning.operators.sweep import Sweep
from airflow_hptuning.operators.trial import LocalTrialOperator
from airflow_hptuning.search.early_stopping import StopCause, StopReason
from airflow_hptuning.trials import Suggestion, TrialRecord, TrialState
from tests.fakes import FakeRun, FakeStateStore

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import DAG

TEXT = """
version: 1
kind: group
hptuning:
  concurrency: 2
  matrix: {x: {range: [0, 4, 1]}}
  early_stopping: [{metric: loss, value: 0.05, optimization: minimize}]
run:
  cmd: COMMAND
airflow: {runner: local, trial: {retries: 1}}
"""

HYPERBAND = """
version: 1
kind: group
hptuning:
  hyperband: {max_iter: 9, eta: 3, resume: true, resource: {name: steps, type: int}, metric: {name: loss}}
  matrix: {x: {uniform: [0, 1]}}
run:
  cmd: COMMAND; echo loss={{ steps }} {{ x }}
airflow: {runner: local, outputs: {path: OUTPUTS}}
"""

FOUND = StopReason(StopCause.GOAL, "trial 9 reached loss <= 0.05 with 0.01")


@define
class Started:
    """The start of a DAG run."""

    start_date: None = None


@define
class Overtaken(FakeRun):
    """A run that is stopped just after a trial has looked for the marker."""

    def send(self, msg: Any) -> Any:
        """Answer a message, then put the marker up."""
        answer = super().send(msg)
        self.xcoms["suggest", -1, MARKER] = FOUND.to_json()
        return answer


@define
class Night:
    """A sweep of four trials, whose tasks a test runs one by one.

    Attributes:
        command: What the trials run.
        text: The sweep.
        run: The state of the run on the server.
        dag: The DAG of the sweep.
    """

    command: str
    text: str = TEXT
    run: FakeRun = field(factory=FakeRun)
    dag: DAG = field(init=False)

    def __attrs_post_init__(self) -> None:
        """All trials are mapped, and none has started."""
        self.dag = build_dag(self.text.replace("COMMAND", self.command))
        self.run.states = {("suggest", -1): "success", ("collect", -1): None, **{("trial", i): None for i in range(4)}}

    def trial(self, number: int, attempt: int = 1, **place: Any) -> TrialRecord:
        """Run a trial's task, and return what it returned."""
        self.run.states["trial", number] = "running"
        params = {"x": 0.5} if place else {"x": number}
        suggestion = Suggestion(number, params, **place).to_json()
        sweep = Sweep("sweep", load_spec(self.text.replace("COMMAND", self.command)))
        operator = LocalTrialOperator(task_id="trial", sweep=sweep, suggestion=suggestion)
        ti = self.run.task_instance(operator, number, try_number=attempt, max_tries=1)
        context: Any = {
            "ti": ti,
            "dag": self.dag,
            "dag_run": Started(),
            "run_id": self.run.run_id,
            "task_state_store": FakeStateStore(),
        }
        return TrialRecord.from_json(operator.execute(context))

    def marker(self) -> StopReason | None:
        """Return the stop marker."""
        found = self.run.xcoms.get(("suggest", -1, MARKER))
        return None if found is None else StopReason.from_json(found)

    def stored(self, number: int) -> TrialRecord:
        """Return the record that a failing trial has stored."""
        return TrialRecord.from_json(self.run.xcoms["trial", number, "return_value"])

    def waiting(self) -> list[int]:
        """Trials that Airflow may still start."""
        return [index for (task, index), state in self.run.states.items() if task == "trial" and state is None]


@pytest.fixture
def night(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Night:
    """A sweep whose server answers this process; the parameter is the command of its trials."""
    made = Night(request.param)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made.run, raising=False)
    return made


@pytest.mark.parametrize("night", ["echo loss=0.01; exec sleep 60"], indirect=True)
def test_the_trial_that_reaches_the_goal_is_stopped_too(night: Night) -> None:
    """It keeps the metrics that it had, its task succeeds, and the others are skipped."""
    record = night.trial(1)
    marker = night.marker()
    assert marker is not None
    assert (record.state, record.metrics, record.note) == (
        TrialState.STOPPED,
        {"loss": 0.01},
        f"early stopping: {marker.text}",
    )
    assert (marker.cause, marker.trial) == (StopCause.GOAL, 1)
    assert night.waiting() == []
    assert night.run.states["collect", -1] is None


@pytest.mark.parametrize("night", ["echo loss={{ x }}; echo loss=0.01"], indirect=True)
def test_goal_in_the_last_trial(night: Night) -> None:
    """A trial that ends as it reaches the goal has succeeded; there is nobody to skip, and one marker all the same."""
    night.run.states |= {("trial", i): "success" for i in range(3)}
    assert night.trial(3).state is TrialState.SUCCEEDED
    marker = night.marker()
    assert marker is not None
    assert marker.trial == 3
    assert [state for (task, _), state in night.run.states.items() if task == "trial"] == [*["success"] * 3, "running"]


@pytest.mark.parametrize("night", ["exit 3"], indirect=True)
def test_a_failed_trial_is_tried_again(night: Night) -> None:
    """As often as the file says, and its record is stored each time."""
    with pytest.raises(AirflowException, match="user_code") as first:
        night.trial(0)
    assert not isinstance(first.value, AirflowFailException)
    assert night.stored(0).state is TrialState.FAILED
    with pytest.raises(AirflowFailException):
        night.trial(0, attempt=2)
    assert night.stored(0).attempt == 2
    assert night.marker() is None


@pytest.mark.parametrize("night", ["exit 3"], indirect=True)
def test_a_stopped_sweep_waits_for_no_other_try(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another trial reaches the goal while this one fails."""
    overtaken = Overtaken(states=night.run.states)
    night.run = overtaken
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", overtaken)
    with pytest.raises(AirflowFailException):
        night.trial(0)
    assert night.stored(0).state is TrialState.FAILED


@pytest.mark.parametrize("night", ["if [ {{ x }} = 0 ]; then exit 3; fi; echo loss=0.01"], indirect=True)
def test_goal_in_a_retry(night: Night) -> None:
    """A second try may reach the goal, and the first one's failure does not count."""
    night.run.states["trial", 2] = "up_for_retry"
    assert night.trial(1, attempt=2).state is TrialState.SUCCEEDED
    marker = night.marker()
    assert marker is not None
    assert marker.trial == 1
    assert night.run.states["trial", 2] == "skipped"


@pytest.mark.parametrize("night", ["touch MARK; echo loss=1"], indirect=True)
def test_goal_reached_while_a_task_is_queued(night: Night, tmp_path: Path) -> None:
    """Airflow starts it although it was skipped: nothing runs, and it skips itself and what was mapped late."""
    night.command = night.command.replace("MARK", str(tmp_path / "ran"))
    night.run.xcoms["suggest", -1, MARKER] = FOUND.to_json()
    with pytest.raises(AirflowSkipException, match="trial 9 reached"):
        night.trial(0)
    assert not (tmp_path / "ran").exists()
    assert night.waiting() == []


def test_a_missing_checkpoint_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promoted trial that finds nothing in its config's folder starts from scratch; the one after it does not."""
    text = HYPERBAND.replace("OUTPUTS", str(tmp_path))
    made = Night("echo epoch >> $HPTUNING_OUTPUTS_PATH/checkpoint", text)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made.run, raising=False)
    promoted = made.trial(1, resource=3, bracket=2, rung=1)
    assert promoted.note == "no checkpoint in the outputs directory: the trial starts from scratch"
    assert made.trial(2, resource=9, bracket=2, rung=2).note is None
    assert made.trial(3, resource=3, bracket=1, rung=0).note is None, "nobody expects a checkpoint in a first rung"
    assert len(list(tmp_path.rglob("checkpoint"))) == 2, "one folder per bracket and config"

"""The task and the trigger of a trial on Kubernetes: what they need no cluster for."""

from __future__ import annotations

import asyncio
import importlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.triggers.base import TaskSuccessEvent

from airflow_hptuning import build_dag, load_spec
from airflow_hptuning.operators import pod_trigger
from airflow_hptuning.operators.pod_board import TriggerBoard, _Known
from airflow_hptuning.operators.pod_trial import RECORD, PodTrialOperator
from airflow_hptuning.operators.pod_trigger import PodJob, PodTrialTrigger
from airflow_hptuning.operators.stopping import MARKER, NO_STOP
from airflow_hptuning.operators.sweep import Sweep
from airflow_hptuning.search.early_stopping import StopCause, StopReason
from airflow_hptuning.trials import Failure, FailureClass, Suggestion, TrialRecord, TrialState
from tests.fakes import FakeRun, FakeStateStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.triggers.base import TriggerEvent

TEXT = """
version: 1
kind: group
hptuning:
  concurrency: 2
  hyperband: {max_iter: 9, eta: 3, resume: true, resource: {name: steps, type: int}, metric: {name: loss}}
  matrix: {x: {values: [1, 2, 3, 4]}}
build: {image: "train:1", env_vars: [[A, b]]}
environment:
  resources: {memory: {limits: 512}, gpu: {limits: 1}}
  secret_refs: [tokens]
run: {cmd: "train {{ x }} {{ steps }}"}
airflow:
  runner: kubernetes
  kubernetes: {namespace: tuning, conn_id: gpu_cluster, labels: {team: "vision lab"}}
  outputs: {path: "s3://bucket/sweeps/"}
  trial: {timeout: 1h}
"""
SUGGESTION = Suggestion(7, {"x": 3}, resource=9, bracket=2, rung=1)
PAIRS = [["suggest", "trial"]]
GOAL = StopReason(StopCause.GOAL, "found", 1.0, 2, "loss", 0.1)


class Started:
    """The start of a DAG run."""

    start_date = None


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRun]:
    """A run whose server answers this process."""
    found = FakeRun(states={("suggest", -1): "success", **{("trial", i): "deferred" for i in range(4)}})
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", found, raising=False)
    _Known.runs.clear()
    yield found
    _Known.runs.clear()


def operator() -> PodTrialOperator:
    """Return the task of a trial."""
    sweep = Sweep("sweep", load_spec(TEXT))
    return PodTrialOperator(task_id="trial", sweep=sweep, suggestion=SUGGESTION.to_json(), deferrable=True)


def context(run: FakeRun, task: Any, store: FakeStateStore | None = None, **fields: Any) -> Any:
    """Return the context of a task that runs."""
    ti = run.task_instance(task, 3, **{"try_number": 2, "max_tries": 2} | fields)
    dag = build_dag(TEXT)
    store = store or FakeStateStore()
    return {"ti": ti, "dag": dag, "dag_run": Started(), "run_id": run.run_id, "task_state_store": store}


def test_arguments_of_the_pod_operator_are_plain_data(run: FakeRun) -> None:
    """Connection, namespace, name and labels, and a manifest with all that the file asks for."""
    task = operator()
    arguments = task.pod_arguments(SUGGESTION, context(run, task))
    assert (arguments["kubernetes_conn_id"], arguments["namespace"]) == ("gpu_cluster", "tuning")
    assert arguments["random_name_suffix"] is False
    manifest = arguments["pod_template_dict"]
    assert arguments["labels"] == manifest["metadata"]["labels"]
    assert arguments["labels"]["hptuning/try"] == "2"
    assert arguments["labels"]["team"].startswith("vision-lab-"), "made valid"
    (container,) = manifest["spec"]["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert container["image"] == "train:1"
    assert container["resources"] == {"limits": {"memory": "512Mi", "nvidia.com/gpu": "1"}}
    assert container["envFrom"] == [{"secretRef": {"name": "tokens"}}]
    assert (variables["A"], variables["HPTUNING_RESOURCE"]) == ("b", "9")
    assert variables["HPTUNING_OUTPUTS_PATH"].startswith("s3://bucket/sweeps/sweep/run/bracket-2-config-")
    assert container["command"][4:] == ["train 3 9", container["command"][5], "yes"], "it should resume"
    assert manifest["spec"]["activeDeadlineSeconds"] == 3600 + 600 + 120


def test_the_pod_operator_builds_the_pod(run: FakeRun) -> None:
    """What Airflow's own operator makes of the arguments is the manifest, with its labels."""
    task = operator()
    ctx = context(run, task)
    pod = task._pod_operator(SUGGESTION, ctx).build_pod_request_obj(ctx, dry_run=True)
    manifest = task.pod_arguments(SUGGESTION, ctx)["pod_template_dict"]
    assert pod.metadata.name == manifest["metadata"]["name"]
    assert pod.metadata.labels.items() >= {**manifest["metadata"]["labels"], "kubernetes_pod_operator": "True"}.items()
    (container,) = pod.spec.containers
    assert container.command == manifest["spec"]["containers"][0]["command"]
    assert container.resources.limits == {"memory": "512Mi", "nvidia.com/gpu": "1"}
    assert container.termination_message_path == "/dev/termination-log"


def test_a_result_that_was_stored_is_not_computed_again(run: FakeRun) -> None:
    """The worker that ended the trial was lost before it could say so: the next try says it."""
    task, store = operator(), FakeStateStore()
    record = TrialRecord(7, {"x": 3}, TrialState.SUCCEEDED, metrics={"loss": 0.5}, started=1.0, ended=2.0)
    task._store(record, context(run, task, store))
    operator().execute(context(run, task, store, try_number=3))
    assert run.xcoms["trial", 3, "return_value"] == record.to_json()


def test_a_cleared_trial_forgets_its_result(run: FakeRun) -> None:
    """Whoever clears a trial wants it to run again; Airflow then raises the number of tries."""
    task, store = operator(), FakeStateStore()
    store.set(RECORD, {"life": 2, "record": {}})
    assert task._stored(context(run, task, store, max_tries=5)) is None
    assert task._stored(context(run, task)) is None


def test_a_trigger_is_rebuilt_from_plain_values() -> None:
    """The triggerer has the class path and arguments only."""
    job = PodJob(TEXT, "sweep", "run", "trial", 3, SUGGESTION.to_json(), 1, "pod", "tuning", "gpu_cluster", 1.5)
    path, arguments = PodTrialTrigger.of(job, [("suggest", "trial")]).serialize()
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**arguments)
    assert again.serialize() == (path, arguments)
    assert PodJob(**again.job) == job
    assert again.pairs == PAIRS


class FakeWatch:
    """Ends at once with a given failure, or well."""

    def __init__(self, failure: Failure | None) -> None:
        state = TrialState.FAILED if failure else TrialState.SUCCEEDED
        self.record = TrialRecord(7, {"x": 3}, state, failure=failure, started=1.0, ended=2.0)

    async def watch(self, *_: Any) -> TrialRecord:
        """Return the record; in place of ``PodJob.watch``."""
        return self.record


@pytest.mark.parametrize("failure", [None, Failure(FailureClass.USER_CODE, "exit code 3")], ids=["well", "failed"])
def test_a_task_does_not_go_back_before_its_worker_has_reported(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch, failure: Failure | None
) -> None:
    """Airflow fails a task that is queued again before it knows of the deferral; one that ends well is not queued."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    watched = FakeWatch(failure)
    monkeypatch.setattr(PodJob, "watch", watched.watch)
    monkeypatch.setattr(pod_trigger, "_mark", watched.watch)
    monkeypatch.setattr(pod_trigger, "asyncio", SimpleNamespace(sleep=sleep))
    job = PodJob(TEXT, "sweep", "run", "trial", 3, SUGGESTION.to_json(), 1, "pod", "tuning", "gpu_cluster", 1.5)
    trigger = PodTrialTrigger.of(job, PAIRS)

    async def first_event() -> TriggerEvent:
        async for event in trigger.run():
            return event
        raise AssertionError("no event")

    event = asyncio.run(first_event())
    assert run.xcoms["trial", 3, "return_value"] == watched.record.to_json()
    if failure is None:
        assert isinstance(event, TaskSuccessEvent)
        assert slept == []
    else:
        assert event.payload["record"] == watched.record.to_json()
        assert len(slept) == 1
        assert pod_trigger.RESUME_AFTER - 2 < slept[0] <= pod_trigger.RESUME_AFTER


def board(map_index: int = 0) -> TriggerBoard:
    """Return the board of a trial's trigger."""
    return TriggerBoard("sweep", "run", "trial", map_index, PAIRS)


def test_the_marker_is_asked_for_once_for_all_trials(run: FakeRun) -> None:
    """Within a second; who puts it up tells those in the same process at once."""
    run.xcoms["suggest", -1, MARKER] = NO_STOP
    assert [board(i).marker() for i in range(4)] == [None] * 4
    assert len(run.sent) == 1
    board(1).put(GOAL)
    assert board(2).marker() == GOAL
    assert run.xcoms["suggest", -1, MARKER] == GOAL.to_json()
    assert len(run.sent) == 2


def test_trials_tell_each_other_by_way_of_the_server(run: FakeRun) -> None:
    """What a trial that has ended told is read once; what a running one tells, each time."""
    board(0).publish("live", 10)
    board(1).publish("live", 11)
    run.states["trial", 0] = "success"
    run.states["trial", 3] = "scheduled"
    assert board(2).read("live") == [10, 11]
    run.sent.clear()
    board(1).publish("live", 12)
    assert board(2).read("live") == [10, 12]
    asked = [(msg.task_id, msg.map_index) for msg in run.sent if type(msg).__name__ == "GetXCom"]
    assert asked == [("trial", 1), ("trial", 2)]


def test_trials_are_counted_by_state(run: FakeRun) -> None:
    """As the budgets of a sweep need it."""
    run.states["trial", 0] = "failed"
    assert (board().count("failed"), board().count("failed", "deferred")) == (1, 4)

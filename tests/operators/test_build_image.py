"""From a file to the image of its trials: what is built, by which pod, and what a failure means for the sweep."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.execution_time import task_runner
from attrs import define

from airflow_hptuning import build_dag, load_spec
from airflow_hptuning.operators import build_image
from airflow_hptuning.operators.build_image import BuildImageOperator, image_build
from airflow_hptuning.operators.stop_watch import BoardError
from airflow_hptuning.operators.stopping import MARKER
from airflow_hptuning.runners.registry import Reference
from airflow_hptuning.search.early_stopping import StopCause, StopReason
from airflow_hptuning.trials import Failure, FailureClass, Outcome
from tests.fake_registry import running_registry
from tests.fakes import FakeRun

SWEEP = """
version: 1
kind: group
hptuning: {matrix: {a: {values: [1, 2]}}}
run: {cmd: echo}
build:
  image: python:3.12
  build_steps: [make]
  env_vars: [[MODE, fast]]
  lang_env: C.UTF-8
  environment: {resources: {memory: {limits: 512}}, node_selector: {disk: ssd}, tolerations: [{operator: Exists}]}
environment: {resources: {gpu: {limits: 1}}}
airflow:
  dag_id: Digits_Nightly
  kubernetes: {namespace: tuning, labels: {team: vision}, security_context: {runAsUser: 1000}, env: {A: b}}
  build: {mode: image, registry: "registry:5000/team"}
"""


def test_an_image_is_built_as_the_file_asks() -> None:
    """The build's own environment holds for the builder, not that of the trials; the pods are of the same team."""
    build = image_build(load_spec(SWEEP))
    assert build is not None
    assert build.repository == "registry:5000/team/digits-nightly"
    assert (build.base, build.steps, build.env) == ("python:3.12", ("make",), {"LANG": "C.UTF-8", "MODE": "fast"})
    pod = build.settings
    assert pod.resources == {"limits": {"memory": "512Mi"}}
    assert (pod.node_selector, pod.tolerations) == ({"disk": "ssd"}, ({"operator": "Exists"},))
    assert (pod.namespace, pod.labels, pod.security_context, pod.env) == ("tuning", {"team": "vision"}, None, {})


@pytest.mark.parametrize("change", [("mode: image", "mode: inline"), ("[make]", "[]"), ("image: python:3.12", "")])
def test_nothing_to_build(change: tuple[str, str]) -> None:
    """No image without steps, without one to start from, or where the steps run in line."""
    assert image_build(load_spec(SWEEP.replace(*change))) is None


def operator(text: str = SWEEP) -> BuildImageOperator:
    """Return the task that builds, as the DAG has it."""
    found = build_dag(text.replace("dag_id:", "runner: kubernetes\n  dag_id:")).task_dict["build"]
    assert isinstance(found, BuildImageOperator)
    return found


def test_an_image_that_is_there_is_not_built() -> None:
    """The registry has the tag: no pod is started, and no cluster is asked for anything."""
    with running_registry() as registry:
        task = operator(SWEEP.replace('"registry:5000/team"', f'"{registry.host}/team", insecure: true'))
        build = image_build(task.sweep.spec)
        assert build is not None
        registry.path = Reference.parse(build.image).path
        assert task.execute({}) == build.image


def outcome(failure: Failure | None = None, *, exit_code: int | None = 1, timed_out: bool = False) -> Outcome:
    """Return how a build ended."""
    return Outcome(exit_code, 0.0, 1.0, ("cc: not found",), timed_out=timed_out, failure=failure)


EVICTED = Failure(FailureClass.EVICTED, "the pod was evicted")


@pytest.mark.parametrize(
    ("ended", "attempt", "again", "words"),
    [
        (outcome(exit_code=2), 1, False, "exit code 2"),
        (outcome(timed_out=True, exit_code=None), 1, False, "its time was up"),
        (outcome(Failure(FailureClass.IMAGE, "no such image")), 1, False, "image: no such image"),
        (outcome(EVICTED), 2, True, "evicted: the pod was evicted"),
        (outcome(EVICTED), 3, False, "evicted: the pod was evicted"),
    ],
)
def test_a_failing_build(
    monkeypatch: pytest.MonkeyPatch, ended: Outcome, attempt: int, *, again: bool, words: str
) -> None:
    """The cluster's failures are tried again; then, and for all others, the rest of the run is skipped."""
    run = FakeRun(states={("suggest", -1): None, ("trial", -1): None, ("collect", -1): None})
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", run, raising=False)
    task = operator()
    ti = run.task_instance(BaseOperator(task_id="build"), try_number=attempt, max_tries=2)
    with pytest.raises(AirflowException, match="cc: not found") as caught:
        task._check(ended, {"dag": task.dag, "ti": ti})
    assert isinstance(caught.value, AirflowFailException) is not again
    assert words in str(caught.value)
    assert {at for at, state in run.states.items() if state} == (set() if again else {("suggest", -1), ("trial", -1)})
    assert (("suggest", -1, MARKER) in run.xcoms) is not again


def test_a_build_that_went_well_goes_on() -> None:
    """Exit code 0, and nothing else."""
    operator()._check(outcome(exit_code=0), {})


@define
class FakeBoard:
    """A board that answers with a marker, or not at all."""

    answer: StopReason | None = None

    def marker(self) -> StopReason | None:
        """Return the marker."""
        if self.answer is None:
            raise BoardError("no answer")
        return self.answer


def test_only_a_new_stop_ends_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the marker of the failure that somebody has cleared, and not an API server that does not answer."""
    monkeypatch.setattr(build_image, "LAZY_POLL_SECONDS", 0.0)
    board = FakeBoard()
    asked: Any = build_image._asks(board, since=100.0)  # type: ignore[arg-type] # of a board it needs the marker
    assert asked() is None
    board.answer = StopReason(StopCause.BUILD, "it failed", at=99.0)
    assert asked() is None
    board.answer = StopReason(StopCause.MANUAL, "enough", at=None)
    assert asked() == "the sweep is stopped: enough"

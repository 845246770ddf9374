"""Taking turns in Bayesian optimisation: who waits, for what, and what is skipped at the end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, AirflowSkipException, ErrorType, TaskDeferred
from airflow.sdk.execution_time import comms, task_runner
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning import build_dag
from airflow_hptuning.operators.stopping import MARKER
from airflow_hptuning.operators.suggest_sensor import HISTORY, SuggestSensor
from airflow_hptuning.search.early_stopping import StopCause, StopReason
from airflow_hptuning.trials import Failure, FailureClass, Suggestion, TrialRecord, TrialState
from airflow_hptuning.triggers import FINISHED, TurnTrigger, unfinished
from tests.fakes import FakeRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.sdk import DAG

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: 3
  seed: 2
  bo: {n_initial_trials: 4, n_iterations: 5, metric: {name: loss, optimization: minimize}}
  matrix: {x: {uniform: [0, 1]}, y: {values: [1, 2, 3]}}
run: {cmd: "train {{ x }} {{ y }}"}
airflow: {runner: local}
"""
SYNCHRONOUS = SWEEP.replace("runner: local", "runner: local, bo_synchronous: true")
STATES = ("none", "scheduled", "queued", "running", "deferred", "up_for_retry", "restarting", *sorted(FINISHED))


@define
class Loop:
    """A run of a sweep whose server answers this process."""

    dag: DAG
    run: FakeRun = field(factory=FakeRun)

    def __attrs_post_init__(self) -> None:
        """A run that has just started."""
        self.run.states = {(task_id, -1): None for task_id in self.dag.task_ids}

    def context(self, task_id: str, **fields: Any) -> Any:
        """The context of a task that runs."""
        self.run.states[task_id, -1] = "running"
        task: Any = self.dag.task_dict[task_id]
        started = SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=UTC))
        return {
            "ti": self.run.task_instance(task, **fields),
            "dag": self.dag,
            "run_id": self.run.run_id,
            "dag_run": started,
        }

    def suggest(self, task_id: str, **fields: Any) -> list[dict[str, Any]]:
        """Run a task that suggests, with what Airflow does when it ends, and map its trials."""
        context = self.context(task_id, **fields)
        task: Any = self.dag.task_dict[task_id]
        found: list[dict[str, Any]] = task.execute(context)
        self.run.states[task_id, -1] = "success"
        self.run.xcoms[task_id, -1, "return_value"] = found
        trial = task_id.replace("suggest", "trial")
        del self.run.states[trial, -1]
        for index in range(len(found)):
            self.run.states[trial, index] = "queued"
        return found

    def deferred(self, task_id: str) -> TurnTrigger:
        """Run a task that must wait, and return its trigger."""
        with pytest.raises(TaskDeferred) as caught:
            self.suggest(task_id)
        trigger = caught.value.trigger
        assert isinstance(trigger, TurnTrigger)
        return trigger

    def end(self, task_id: str, index: int = 0, *, state: TrialState = TrialState.SUCCEEDED, **fields: Any) -> None:
        """End a trial."""
        source = self.run.xcoms[task_id.replace("trial", "suggest"), -1, "return_value"][index]
        one = Suggestion.from_json(source)
        record = TrialRecord(one.trial, one.params, state, metrics={"loss": one.params["x"]}, **fields)
        self.run.xcoms[task_id, index, "return_value"] = record.to_json()
        self.run.states[task_id, index] = "failed" if state is TrialState.FAILED else "success"

    def skipped(self) -> set[str]:
        """The tasks that are skipped."""
        return {task_id for (task_id, _), state in self.run.states.items() if state == "skipped"}

    def skips(self) -> int:
        """How many calls have skipped tasks."""
        return sum(isinstance(message, comms.SkipDownstreamTasks) for message in self.run.sent)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A run of the sweep."""
    return started(SWEEP, monkeypatch)


def started(text: str, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A run of a sweep."""
    made = Loop(build_dag(text))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made.run, raising=False)
    return made


@given(states=st.lists(st.sampled_from(STATES), max_size=6), expected=st.integers(0, 8))
def test_a_trial_is_unfinished_until_its_task_has_ended_for_good(states: list[str], expected: int) -> None:
    """Deferred tasks, those that wait for another try, and those that Airflow has not made yet are unfinished."""
    shown = {f"trial_{index}": None if state == "none" else state for index, state in enumerate(states)}
    left = unfinished(shown, {"trial": expected}).get("trial", 0)
    assert left == expected - sum(state in FINISHED for state in states[:expected])


def test_a_task_that_was_skipped_before_it_was_mapped_holds_nothing_up() -> None:
    """It has no instances but itself."""
    assert unfinished({"trial": "skipped"}, {"trial": 5}) == {}
    assert unfinished({"trial": None}, {"trial": 5}) == {"trial": 5}
    assert unfinished({}, {"trial": 5}) == {"trial": 5}


def test_it_waits_for_a_free_place(loop: Loop) -> None:
    """Four initial trials, three places: the next suggestion comes when two are unfinished, knowing the others."""
    assert [one["trial"] for one in loop.suggest("initial.suggest")] == [0, 1, 2, 3]
    trigger = loop.deferred("iteration_000.suggest")
    assert (trigger.trials, trigger.limit) == ({"initial.trial": 4}, 2)
    loop.end("initial.trial", 1)
    loop.end("initial.trial", 3)
    (fifth,) = loop.suggest("iteration_000.suggest")
    assert fifth["trial"] == 4
    assert (fifth["info"]["known"], fifth["info"]["pending"]) == ([1, 3], [0, 2])

    trigger = loop.deferred("iteration_001.suggest")
    assert (trigger.trials, trigger.limit) == ({"initial.trial": 4, "iteration_000.trial": 1}, 2)
    loop.end("iteration_000.trial")
    (sixth,) = loop.suggest("iteration_001.suggest")
    assert (sixth["info"]["known"], sixth["info"]["pending"]) == ([1, 3, 4], [0, 2])


def test_the_trigger_waits_as_the_task_does(loop: Loop) -> None:
    """It survives a server that is away, and fires when few enough are left."""
    loop.suggest("initial.suggest")
    trigger = loop.deferred("iteration_000.suggest")
    path, arguments = trigger.serialize()
    assert path == "airflow_hptuning.triggers.TurnTrigger"
    again = TurnTrigger(**arguments | {"poll_seconds": 0.001})
    answer = loop.run.send

    def broken() -> None:
        raise AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    moments: Iterator[Callable[[], None]] = iter(
        [lambda: None, broken, lambda: loop.end("initial.trial", 0), lambda: loop.end("initial.trial", 1)]
    )

    @define
    class Eventful:
        """A server on which something happens before each answer."""

        def send(self, msg: Any) -> Any:
            """Answer a message."""
            next(moments)()
            return answer(msg)

    task_runner.SUPERVISOR_COMMS = Eventful()  # type: ignore[assignment]

    async def first() -> Any:
        async for event in again.run():
            return event.payload
        return None

    assert asyncio.run(first()) == {"unfinished": 2}


def test_it_looks_again_after_the_trigger(loop: Loop) -> None:
    """A trial may have been cleared meanwhile."""
    loop.suggest("initial.suggest")
    task = loop.dag.task_dict["iteration_000.suggest"]
    assert isinstance(task, SuggestSensor)
    with pytest.raises(TaskDeferred):
        task.resume(loop.context(task.task_id), {"unfinished": 2})


def test_requests_do_not_grow_with_the_sweep(loop: Loop) -> None:
    """Each task reads what was open when the one before suggested, and nothing older."""
    loop.suggest("initial.suggest")
    for index in range(4):
        loop.end("initial.trial", index)
    counts = []
    for number in range(5):
        loop.run.sent.clear()
        (suggestion,) = loop.suggest(f"iteration_{number:03d}.suggest")
        counts.append(len(loop.run.sent))
        loop.end(f"iteration_{number:03d}.trial")
        assert suggestion["info"]["known"] == list(range(4 + number))
    assert counts[1:] == [counts[1]] * 4
    assert max(counts) <= 8


def test_the_history_is_a_short_cut_only(loop: Loop) -> None:
    """Without it (the task before was killed) everything is read, and the suggestion is the same."""
    loop.suggest("initial.suggest")
    for index in range(4):
        loop.end("initial.trial", index)
    for number in range(2):
        loop.suggest(f"iteration_{number:03d}.suggest")
        loop.end(f"iteration_{number:03d}.trial")
    first = loop.suggest("iteration_002.suggest")
    del loop.run.xcoms["iteration_001.suggest", -1, HISTORY]
    loop.run.states["iteration_002.trial", -1] = None
    assert loop.suggest("iteration_002.suggest") == first


def test_what_a_failed_trial_says(loop: Loop) -> None:
    """The user's failure is data, one of the infrastructure is not, and one that is to be retried is running."""
    loop.suggest("initial.suggest")
    user, cluster = (Failure(kind, "exit code 1") for kind in (FailureClass.USER_CODE, FailureClass.INFRASTRUCTURE))
    loop.end("initial.trial", 0)
    loop.end("initial.trial", 1, state=TrialState.FAILED, failure=user)
    loop.end("initial.trial", 2, state=TrialState.FAILED, failure=cluster)
    loop.end("initial.trial", 3, state=TrialState.FAILED, failure=cluster)
    loop.run.states["initial.trial", 3] = "up_for_retry"
    (suggestion,) = loop.suggest("iteration_000.suggest")
    assert (suggestion["info"]["known"], suggestion["info"]["pending"]) == ([0, 1], [3])


def test_synchronous_rounds_know_what_came_before_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at once, all after the same trials; a trial of the own round is pending though it has ended."""
    loop = started(SYNCHRONOUS, monkeypatch)
    loop.suggest("initial.suggest")
    for index in range(3):
        loop.end("initial.trial", index)
    assert loop.deferred("iteration_000.suggest").limit == 0
    loop.end("initial.trial", 3)
    found = []
    for number in range(3):
        found += loop.suggest(f"iteration_{number:03d}.suggest")
        if number != 1:
            loop.end(f"iteration_{number:03d}.trial")
    assert [one["info"]["known"] for one in found] == [[0, 1, 2, 3]] * 3
    assert [one["info"]["pending"] for one in found] == [[], [4], [4, 5]]
    assert loop.deferred("iteration_003.suggest").trials == {"iteration_001.trial": 1}


def test_an_exhausted_space_ends_the_sweep_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """No config is left: the task skips itself, its trial and all later iterations."""
    loop = started(SWEEP.replace("{uniform: [0, 1]}", "{qnormal: [0, 0.01, 1]}"), monkeypatch)
    names = len(loop.suggest("initial.suggest"))
    for index in range(names):
        loop.end("initial.trial", index)
    ended = None
    for number in range(5):
        try:
            loop.suggest(f"iteration_{number:03d}.suggest")
        except AirflowSkipException as error:
            assert "exhausted" in str(error)  # noqa: PT017 - how many come before depends on the space
            ended = number
            break
        loop.end(f"iteration_{number:03d}.trial")
    assert ended is not None
    assert loop.skips() == 1
    later = {f"iteration_{number:03d}.{kind}" for number in range(ended, 5) for kind in ("suggest", "trial")}
    assert loop.skipped() == later - {f"iteration_{ended:03d}.suggest"}


def test_a_stopped_sweep_suggests_no_more(loop: Loop) -> None:
    """Whether the marker was there before, or came while the model was busy."""
    loop.suggest("initial.suggest")
    for index in range(4):
        loop.end("initial.trial", index)
    reason = StopReason(StopCause.GOAL, "trial 1 reached its goal")
    loop.run.xcoms["initial.suggest", -1, MARKER] = reason.to_json()
    with pytest.raises(AirflowSkipException, match="trial 1 reached its goal"):
        loop.suggest("iteration_000.suggest")
    assert {"iteration_000.trial", "iteration_004.suggest"} <= loop.skipped()
    assert "collect" not in loop.skipped()


def test_a_goal_that_is_reached_while_the_model_is_busy(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its suggestion is not made."""
    loop.suggest("initial.suggest")
    for index in range(4):
        loop.end("initial.trial", index)
    answer, looks = loop.run.send, []

    @define
    class Late:
        """A server on which the marker appears after the first look."""

        def send(self, msg: Any) -> Any:
            """Answer a message."""
            found = answer(msg)
            if isinstance(msg, comms.GetXCom) and msg.key == MARKER:
                looks.append(msg)
                loop.run.xcoms["initial.suggest", -1, MARKER] = StopReason(StopCause.GOAL, "reached").to_json()
            return found

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Late())
    with pytest.raises(AirflowSkipException, match="reached"):
        loop.suggest("iteration_000.suggest")
    assert len(looks) == 2
    assert "iteration_000.trial" in loop.skipped()


def test_without_an_initial_design_nothing_is_tried(loop: Loop) -> None:
    """The build has failed, for instance: all iterations are skipped, none waits."""
    loop.run.states["initial.suggest", -1] = "upstream_failed"
    with pytest.raises(AirflowSkipException, match="nothing was suggested"):
        loop.suggest("iteration_000.suggest")
    assert {"iteration_000.trial", "iteration_004.trial"} <= loop.skipped()


@pytest.mark.parametrize(("attempt", "skips"), [(1, 0), (3, 1)])
def test_a_task_that_fails_for_good_leaves_nobody_waiting(loop: Loop, attempt: int, skips: int) -> None:
    """The last try skips the rest, so that nothing is upstream_failed."""
    loop.suggest("initial.suggest")
    for index in range(4):
        loop.end("initial.trial", index)
    loop.run.xcoms["initial.trial", 0, "return_value"] = {"trial": "no record"}
    with pytest.raises(KeyError):
        loop.suggest("iteration_000.suggest", try_number=attempt, max_tries=2)
    assert loop.skips() == skips
    assert ("iteration_000.trial" in loop.skipped()) is bool(skips)

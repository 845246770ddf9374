"""Ending a sweep before its time: the marker, the skipping, and what every trial does about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError, AirflowSkipException, ErrorType
from airflow.sdk.execution_time import comms, task_runner
from attrs import define, evolve, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import TypeAdapter

from airflow_hptuning import build_dag, load_spec
from airflow_hptuning.metrics import Observation
from airflow_hptuning.operators import stopping
from airflow_hptuning.operators.build import fail_sweep
from airflow_hptuning.operators.stop_watch import LAZY_POLL_SECONDS, StopWatch
from airflow_hptuning.operators.stopping import (
    MARKER,
    RunBoard,
    skip_if_stopped,
    skip_in_run,
    stop_summary,
)
from airflow_hptuning.planning import plan, stopping_rules
from airflow_hptuning.search.early_stopping import (
    Budget,
    Goal,
    Policy,
    PolicyKind,
    StopCause,
    StoppingRules,
    StopReason,
)
from airflow_hptuning.trials import Direction, Failure, FailureClass, Metric, TrialRecord, TrialState
from tests.fakes import FakeRun

if TYPE_CHECKING:
    from collections.abc import Iterator

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: 2
  matrix: {x: {values: [0, 1, 2]}}
  early_stopping:
    - {metric: accuracy, value: 0.9}
    - {metric: loss, optimization: minimize, policy: {kind: truncation, percent: 30, evaluation_interval: 4}}
    - {metric: f1, value: 0.8, policy: {kind: average, min_trials: 3}}
run: {cmd: "train {{ x }}"}
airflow: {runner: local, budget: {max_hours: 8, max_failures: 20%, patience: 7}}
"""

HYPERBAND = """
version: 1
kind: group
hptuning:
  matrix: {x: {uniform: [0, 1]}}
  hyperband: {max_iter: 9, eta: 3, resource: {name: steps, type: int}, metric: {name: loss, optimization: minimize}}
run: {cmd: "train {{ x }} {{ steps }}"}
airflow: {runner: local}
"""

LOSS = Metric("loss", Direction.MINIMIZE)
GOAL = StoppingRules(goals=(Goal("loss", 0.0, Direction.MINIMIZE),))
PAIRS = (("suggest", "trial"), ("halve", "later.trial"))
SUGGEST = BaseOperator(task_id="suggest")
TRIAL = BaseOperator(task_id="trial")


@define
class Clock:
    """A clock that a test turns."""

    now: float = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@define
class SlowRun(FakeRun):
    """A run whose server takes a second for each slice of a sequence."""

    clock: Clock = field(factory=Clock)

    def send(self, msg: Any) -> Any:
        """Answer a message."""
        if isinstance(msg, comms.GetXComSequenceSlice):
            self.clock.now += 1
        return super().send(msg)


@define
class Sweep:
    """A run with a mapped task of trials, and the tasks that would come after it."""

    run: FakeRun = field(factory=FakeRun)
    clock: Clock = field(factory=Clock)

    def __attrs_post_init__(self) -> None:
        """The states of a run whose trials were just mapped."""
        later = [("halve", -1), ("later.trial", -1), ("collect", -1), ("build", -1)]
        self.run.states = {("suggest", -1): "success", **{("trial", i): None for i in range(6)}}
        self.run.states |= dict.fromkeys(later)

    def watch(self, trial: int, rules: StoppingRules = GOAL, **kwargs: Any) -> StopWatch:
        """The watch of a trial that starts."""
        self.run.states["trial", trial] = "running"
        board = RunBoard(self.run.task_instance(TRIAL, trial), PAIRS, ["suggest", "trial", "halve", "later.trial"])
        return StopWatch(rules, board, trial=trial, log=TRIAL.log, objective=LOSS, clock=self.clock, **kwargs)

    def wait(self, seconds: float = 3) -> None:
        """Let the time pass until the next look is due."""
        self.clock.now += seconds

    def marker(self) -> StopReason | None:
        """Return the stop marker."""
        found = self.run.xcoms.get(("suggest", -1, MARKER))
        return None if found is None else StopReason.from_json(found)

    def skipped(self) -> set[tuple[str, int]]:
        """The task instances that are skipped."""
        return {at for at, state in self.run.states.items() if state == "skipped"}


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A run whose server answers this process."""
    made = Sweep()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made.run, raising=False)
    return made


def loss(value: float, step: float | None = None) -> Observation:
    """A report."""
    return Observation("loss", step, value)


def record_of(trial: int, state: TrialState, value: float | None = None, ended: float = 0.0) -> TrialRecord:
    """The record of a trial that ended."""
    failure = Failure(FailureClass.USER_CODE, "exit code 1") if state is TrialState.FAILED else None
    metrics = {} if value is None else {"loss": value}
    return TrialRecord(trial, {}, state, metrics=metrics, started=0.0, ended=ended, failure=failure)


@pytest.mark.filterwarnings("ignore:Using .httpx.")  # Airflow's own, when its server is imported
def test_airflow_still_knows_the_internal_message() -> None:
    """If this fails, Airflow has changed what ``skip_in_run`` relies on: see its docstring."""
    message = comms.SkipDownstreamTasks(tasks=[("trial", 3), ("later.trial", -1)])
    assert isinstance(TypeAdapter(comms.ToSupervisor).validate_json(message.model_dump_json()), type(message))
    # The server's part of the bargain: what it does not skip.
    from airflow.api_fastapi.execution_api.routes import task_instances

    names = task_instances.ti_skip_downstream.__code__.co_names
    assert {"RUNNING", "SUCCESS", "FAILED", "SKIPPED", "map_index"} <= set(names)
    assert not {"QUEUED", "DEFERRED", "UP_FOR_RETRY"} & set(names)


def test_skipping_goes_in_few_messages(sweep: Sweep) -> None:
    """Databases bound the parameters of a statement, so long lists are cut."""
    skip_in_run([("trial", index) for index in range(2500)])
    assert [len(message.tasks) for message in sweep.run.sent] == [1000, 1000, 500]
    skip_in_run([])
    assert len(sweep.run.sent) == 3


def test_rules_come_from_the_file() -> None:
    """Goals, policies and budget in the words of the other layers."""
    rules = stopping_rules(load_spec(SWEEP))
    assert rules == StoppingRules(
        goals=(Goal("accuracy", 0.9), Goal("f1", 0.8)),
        policies=(
            Policy("loss", Direction.MINIMIZE, PolicyKind.TRUNCATION, evaluation_interval=4, percent=30),
            Policy("f1", kind=PolicyKind.AVERAGE, min_trials=3),
        ),
        budget=Budget(max_hours=8, max_failure_percent=20, patience=7),
    )


@pytest.mark.parametrize("text", [SWEEP, HYPERBAND])
def test_everything_but_the_end_is_skipped(text: str) -> None:
    """The board of a task knows all tasks that suggest, try and halve, and leaves ``collect`` alone."""
    dag = build_dag(text)
    ti = FakeRun().task_instance(BaseOperator(task_id="trial"))
    board = RunBoard.of({"dag": dag, "ti": ti})
    assert set(board.task_ids) == set(dag.task_ids) - {"collect"}
    assert {task_id for pair in board.pairs for task_id in pair} <= set(board.task_ids)


def test_a_goal_ends_the_sweep_at_once(sweep: Sweep) -> None:
    """Marker, skipping in one message, and the end of the trial that reached it and of one that runs beside it."""
    first, second = sweep.watch(0), sweep.watch(1)
    first.before_start()
    second.before_start()
    sweep.run.states["trial", 2] = "queued"
    sweep.run.states["trial", 3] = "up_for_retry"
    sweep.run.states["trial", 4] = "deferred"
    first.observe(loss(0.5))
    assert (first.check(), second.check(), sweep.marker()) == (None, None, None)
    first.observe(loss(-1.0))
    reason = sweep.marker()
    assert reason == StopReason(StopCause.GOAL, "trial 0 reached loss <= 0 with -1", sweep.clock.now, 0, "loss", -1.0)
    assert sweep.skipped() == {
        ("trial", 2),
        ("trial", 3),
        ("trial", 5),
        ("halve", -1),
        ("later.trial", -1),
    }
    assert first.check() == "early stopping: trial 0 reached loss <= 0 with -1"
    assert second.check() is None, "it looks every other second"
    sweep.wait()
    assert second.check() == first.check()
    skips = [message for message in sweep.run.sent if isinstance(message, comms.SkipDownstreamTasks)]
    assert len(skips) == 1


def test_looks_are_rare(sweep: Sweep) -> None:
    """One small request every other second, one every five in a sweep that only a person can stop."""
    for rules, seconds in ((GOAL, 60), (StoppingRules(), 60)):
        watch = sweep.watch(0, rules)
        sweep.run.sent.clear()
        for _ in range(seconds):
            sweep.wait(1)
            assert watch.check() is None
        assert len(sweep.run.sent) == seconds // (2 if rules is GOAL else LAZY_POLL_SECONDS)


def test_a_late_starter_skips_itself_and_the_rest(sweep: Sweep) -> None:
    """A trial that Airflow was just starting, and those that were mapped after the skipping."""
    sweep.watch(0).observe(loss(-1))
    sweep.run.states |= {("later.trial", 0): None, ("later.trial", 1): None}
    assert sweep.watch(1).before_start() == sweep.marker()
    assert {("later.trial", 0), ("later.trial", 1)} <= sweep.skipped()


def test_two_that_reach_the_goal_together_agree(sweep: Sweep) -> None:
    """The first marker stays."""
    first, second = sweep.watch(0), sweep.watch(1)
    first.observe(loss(-1))
    second.observe(loss(-2))
    assert second.check() == first.check()
    marker = sweep.marker()
    assert marker is not None
    assert marker.trial == 0
    second.finished(record_of(1, TrialState.STOPPED, -2))
    assert sweep.marker() == marker


def test_goal_is_tested_when_a_trial_ends(sweep: Sweep) -> None:
    """A value that came by another way than the output counts too, unless the trial failed."""
    sweep.watch(0).finished(record_of(0, TrialState.FAILED, -1))
    assert sweep.marker() is None
    sweep.watch(1).finished(record_of(1, TrialState.SUCCEEDED, -1))
    assert sweep.marker() is not None


def test_a_lost_marker_is_put_up_again(sweep: Sweep) -> None:
    """The task that holds the marker may start at that very moment, and Airflow then clears its XComs."""
    watch = sweep.watch(0)
    watch.observe(loss(-1))
    sweep.run.xcoms.clear()
    watch.finished(record_of(0, TrialState.STOPPED, -1))
    assert sweep.marker() is not None
    assert watch.is_stopped()


def test_a_person_can_put_up_the_marker(sweep: Sweep) -> None:
    """Running trials end, and the first that looks skips the rest."""
    watch = sweep.watch(0, StoppingRules())
    sweep.run.xcoms["suggest", -1, MARKER] = "enough"
    sweep.wait(LAZY_POLL_SECONDS)
    assert watch.check() == "early stopping: stopped by hand: enough"
    assert ("later.trial", -1) in sweep.skipped()
    assert not {("collect", -1), ("build", -1)} & sweep.skipped()


@define
class Outage:
    """A server that does not answer."""

    def send(self, msg: Any) -> Any:
        """Refuse a message."""
        raise AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"of": str(type(msg))}))


def test_an_outage_ends_no_trial(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while it runs, nor when it reaches the goal; the sweep is stopped when the server is back."""
    watch = sweep.watch(0)
    with monkeypatch.context() as patch:
        patch.setattr(task_runner, "SUPERVISOR_COMMS", Outage())
        sweep.wait()
        assert watch.check() is None
        watch.observe(loss(-1))
        assert watch.check() is not None
    assert sweep.marker() is None
    watch.finished(record_of(0, TrialState.STOPPED, -1))
    assert sweep.marker() is not None
    assert ("trial", 5) in sweep.skipped()


def test_an_outage_at_the_end_loses_no_result(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial has its result, and the next one makes the test again."""
    watch = sweep.watch(0, StoppingRules(GOAL.goals, budget=Budget(max_failures=1, patience=1)))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Outage())
    watch.finished(record_of(0, TrialState.FAILED))
    assert watch.reason is None


def test_max_hours_ends_running_trials_and_those_that_start(sweep: Sweep) -> None:
    """From the start of the run, by whoever looks first."""
    rules = StoppingRules(budget=Budget(max_hours=1))
    watch = sweep.watch(0, rules, started=sweep.clock.now)
    watch.before_start()
    assert watch.check() is None
    sweep.wait(3601)
    assert watch.check() == "early stopping: the budget of 1 hours is used up"
    marker = sweep.watch(1, rules, started=0).before_start()
    assert marker is not None
    assert marker == sweep.marker()
    assert marker.cause is StopCause.MAX_HOURS


def test_max_failures_counts_all_trials_but_no_retries(sweep: Sweep) -> None:
    """Airflow's own counts, and the trial that is ending."""
    rules = StoppingRules(budget=Budget(max_failures=2))
    for trial in range(2):
        sweep.watch(trial, rules).finished(record_of(trial, TrialState.FAILED))
        sweep.run.states["trial", trial] = "failed"
    sweep.watch(2, rules).finished(record_of(2, TrialState.FAILED), will_retry=True)
    assert sweep.marker() is None
    sweep.watch(2, rules).finished(record_of(2, TrialState.FAILED))
    marker = sweep.marker()
    assert marker is not None
    assert marker.text == "3 trials have failed, more than the 2 allowed"


def test_failures_that_end_together_are_noticed_by_the_next_that_starts(sweep: Sweep) -> None:
    """Two ends at the same moment do not see each other."""
    rules = StoppingRules(budget=Budget(max_failures=1))
    both = [sweep.watch(trial, rules) for trial in range(2)]
    for trial, watch in enumerate(both):
        watch.finished(record_of(trial, TrialState.FAILED))
    assert sweep.marker() is None
    sweep.run.states |= {("trial", 0): "failed", ("trial", 1): "failed"}
    reason = sweep.watch(2, rules).before_start()
    assert reason is not None
    assert reason.text == "2 trials have failed, more than the 1 allowed"


def test_a_broken_build_step_ends_the_sweep(sweep: Sweep) -> None:
    """In the container of one trial it speaks for all, unless it has worked for one, or will be tried again."""
    lines = ("what went wrong", "hptuning: build step 1 of 2 failed (exit code 3): make")
    failure = Failure(FailureClass.USER_CODE, lines[1].removeprefix("hptuning: "), lines)
    record = evolve(record_of(0, TrialState.FAILED), failure=failure)
    sweep.watch(0, StoppingRules()).finished(record, will_retry=True)
    sweep.watch(0, StoppingRules()).finished(record_of(0, TrialState.FAILED))
    sweep.run.states["trial", 1] = "success"
    sweep.watch(0, StoppingRules()).finished(record)
    assert sweep.marker() is None
    sweep.run.states["trial", 1] = None
    sweep.watch(0, StoppingRules()).finished(record)
    marker = sweep.marker()
    assert marker is not None
    assert (marker.cause, marker.trial) == (StopCause.BUILD, 0)
    assert marker.text == "build step 1 of 2 failed (exit code 3): make. Its last lines:\nwhat went wrong"
    assert ("trial", 1) in sweep.skipped()


def test_a_failed_build_skips_everything_and_says_why(sweep: Sweep) -> None:
    """No task of the run is left to find out by itself that its build has failed."""
    dag = build_dag(SWEEP)
    ti = sweep.run.task_instance(BaseOperator(task_id="build"))
    sweep.run.states = {("suggest", -1): None, ("trial", -1): None, ("collect", -1): None}
    context: Any = {"dag": dag, "ti": ti}
    with pytest.raises(AirflowFailException, match="no space left"):
        fail_sweep("no space left", context, TRIAL.log)
    marker = sweep.marker()
    assert marker is not None
    assert (marker.cause, marker.text) == (StopCause.BUILD, "no space left")
    assert sweep.skipped() == {("suggest", -1), ("trial", -1)}


def test_patience_waits_for_an_improvement(sweep: Sweep) -> None:
    """Trials that ended after the best one, in the order of their ends."""
    rules = StoppingRules(budget=Budget(patience=2))
    for trial, value in enumerate([3.0, 1.0, 2.0]):
        sweep.watch(trial, rules).finished(record_of(trial, TrialState.SUCCEEDED, value, ended=float(trial)))
    assert sweep.marker() is None
    sweep.watch(3, rules).finished(record_of(3, TrialState.FAILED, ended=3.0))
    marker = sweep.marker()
    assert marker is not None
    assert marker.cause is StopCause.PATIENCE


def test_policy_ends_one_trial_and_not_the_sweep(sweep: Sweep) -> None:
    """Five good trials publish their curves; the hopeless sixth ends, compared at its own step."""
    rules = StoppingRules(policies=(Policy("loss", Direction.MINIMIZE, evaluation_interval=2),))
    for trial in range(5):
        watch = sweep.watch(trial, rules)
        for step in range(1, 9):
            watch.observe(loss(1 / step, step))
        watch.finished(record_of(trial, TrialState.SUCCEEDED, 1 / 8))
    hopeless = sweep.watch(5, rules)
    hopeless.observe(loss(0.9, 1))
    assert hopeless.check() is None, "no evaluation is due"
    hopeless.observe(loss(0.8, 2))
    assert hopeless.check() is None, "nor so soon"
    sweep.wait()
    assert hopeless.check() == (
        "median policy: loss was 0.8 at best, worse than the median of 5 other trials at step 2 (0.5)"
    )
    assert sweep.marker() is None
    assert sweep.skipped() == set()


def test_policy_judges_a_trial_that_is_always_ahead(sweep: Sweep) -> None:
    """Trials side by side: the hopeless one reports first each time, and ends by what the others had come to."""
    rules = StoppingRules(policies=(Policy("loss", Direction.MINIMIZE, evaluation_interval=2, min_trials=3),))
    *others, hopeless = [sweep.watch(trial, rules) for trial in range(4)]
    verdicts = []
    for step in range(1, 5):
        for watch, value in [(hopeless, 50.0), *((other, 1.0) for other in others)]:
            watch.observe(loss(value, step))
            verdicts.append(watch.check())
        sweep.wait()
    assert [verdict for verdict in verdicts if verdict] == [
        "median policy: loss was 50 at best, worse than the median of 3 other trials at step 2 (1)"
    ]


def test_comparing_takes_a_small_part_of_a_trials_time(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the curves of all trials take two seconds to read, they are read every forty."""
    slow = SlowRun(states=sweep.run.states, clock=sweep.clock)
    sweep.run = slow
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", slow)
    watch = sweep.watch(0, StoppingRules(policies=(Policy("loss", Direction.MINIMIZE),)))
    began = sweep.clock.now
    for step in range(1, 201):
        sweep.wait(1)
        watch.observe(loss(1 / step, step))
        assert watch.check() is None
    reads = sum(isinstance(message, comms.GetXComSequenceSlice) for message in slow.sent)
    # Two mapped tasks are read each time.
    assert 2 < reads / 2 < (sweep.clock.now - began) / 40 + 1


def test_policy_does_not_compare_a_trial_with_itself(sweep: Sweep) -> None:
    """What it published itself is not another trial's curve."""
    rules = StoppingRules(policies=(Policy("loss", Direction.MINIMIZE, min_trials=1),))
    watch = sweep.watch(0, rules)
    for step in range(1, 5):
        watch.observe(loss(float(step), step))
        sweep.wait()
        assert watch.check() is None


def test_tasks_that_suggest_skip_themselves(sweep: Sweep) -> None:
    """A goal that was reached while Airflow was starting them."""
    dag = build_dag(HYPERBAND)
    ti = sweep.run.task_instance(dag.get_task("bracket_1.rung_0.suggest"))  # type: ignore[arg-type]
    first = RunBoard.of({"dag": dag, "ti": ti}).pairs[0][0]
    sweep.run.states = {(first, -1): "success", ("bracket_0.rung_0.trial", 0): "queued"}
    context: Any = {"dag": dag, "ti": ti}
    skip_if_stopped(context)
    sweep.run.xcoms[first, -1, MARKER] = StopReason(StopCause.GOAL, "found").to_json()
    with pytest.raises(AirflowSkipException, match="found"):
        skip_if_stopped(context)
    assert sweep.skipped() == {("bracket_0.rung_0.trial", 0)}


def test_map_indexes_are_told_from_task_ids() -> None:
    """Airflow joins both with an underscore, and parts of long rungs are numbered as well."""
    states = {"suggest_001": None, "trial_001": None, "trial_001_12": None, "trial_000_3": "running", "other_1": None}
    trials = {"trial_000", "trial_001"}
    found = set(stopping._not_started(states, ["suggest_001", *trials], trials))
    assert found == {("suggest_001", -1), ("trial_001", -1), ("trial_001", 12)}


def test_a_deferred_trial_is_left_to_its_trigger() -> None:
    """The pod of a deferred trial runs, and its metrics must be kept; a task that waits to suggest has nothing."""
    states = {"suggest_001": "deferred", "trial_001_1": "deferred", "trial_001_2": "up_for_retry"}
    found = set(stopping._not_started(states, ["suggest_001", "trial_001"], {"trial_001"}))
    assert found == {("suggest_001", -1), ("trial_001", 2)}


def test_summary_says_what_was_saved() -> None:
    """Trials that never started, and for Hyperband the resource they would have used."""
    shape = plan(load_spec(HYPERBAND))
    reason = StopReason(StopCause.GOAL, "found", 1.0, 2)
    ran = TrialRecord(0, {}, TrialState.STOPPED, resource=3, started=1.0)
    waiting = TrialRecord(1, {}, TrialState.SKIPPED, resource=3)
    found = stop_summary(reason, shape, [ran, waiting])
    # 9@1 3@3 1@9, 5@3 1@9, 3@9
    assert found["saved"] == {"trials": 22 - 1, "resource": 9 + 9 + 9 + 15 + 9 + 27 - 3}
    assert (found["cause"], found["trial"]) == ("goal", 2)
    assert stop_summary(reason, plan(load_spec(SWEEP)), [])["saved"] == {"trials": 3, "resource": None}


class Stopping(RuleBasedStateMachine):
    """Trials that start, report, end, fail and are tried again in any order, whatever the scheduler overtakes."""

    def __init__(self) -> None:
        super().__init__()
        self.sweep = Sweep()
        self.limits = StoppingRules(goals=GOAL.goals, budget=Budget(max_failures=2))
        self.running: dict[int, StopWatch] = {}
        self.first: StopReason | None = None
        self.must_stop = False
        task_runner.SUPERVISOR_COMMS = self.sweep.run  # type: ignore[assignment]

    def teardown(self) -> None:
        """Take the fake away."""
        del task_runner.SUPERVISOR_COMMS

    @property
    def states(self) -> dict[tuple[str, int], str | None]:
        """States of the task instances."""
        return self.sweep.run.states

    def choose(self, trial: int) -> int:
        """One of the running trials."""
        return sorted(self.running)[trial % len(self.running)]

    @rule(trial=st.integers(0, 5), overtakes=st.booleans())
    def start(self, trial: int, *, overtakes: bool) -> None:
        """Airflow starts a trial, maybe one that it has already read before it was skipped."""
        allowed = {None, "up_for_retry", *(["skipped"] if overtakes else [])}
        if self.states["trial", trial] not in allowed:
            return
        watch = self.sweep.watch(trial, self.limits)
        was_stopped = self.sweep.marker() is not None
        if watch.before_start() is not None:
            assert self.sweep.marker() is not None
            self.states["trial", trial] = "skipped"
        else:
            assert not was_stopped, "no trial starts any more"
            self.running[trial] = watch

    @precondition(lambda self: self.running)
    @rule(trial=st.integers(0, 5), value=st.sampled_from([2.0, 1.0, 1e-9, 0.0, -1.0, float("nan")]))
    def report(self, trial: int, value: float) -> None:
        """A trial reports a value."""
        self.running[self.choose(trial)].observe(loss(value))
        self.must_stop |= value <= 0

    @precondition(lambda self: self.running)
    @rule(trial=st.integers(0, 5))
    def look(self, trial: int) -> None:
        """The runner of a trial asks whether to go on, late enough for a look."""
        self.sweep.wait()
        number = self.choose(trial)
        verdict = self.running[number].check()
        assert (verdict is not None) == (self.sweep.marker() is not None)
        if verdict is not None:
            self.running.pop(number).finished(record_of(number, TrialState.STOPPED))
            self.states["trial", number] = "success"

    @precondition(lambda self: self.running)
    @rule(trial=st.integers(0, 5), value=st.sampled_from([3.0, 0.0]))
    def end(self, trial: int, value: float) -> None:
        """A trial ends well."""
        number = self.choose(trial)
        self.running.pop(number).finished(record_of(number, TrialState.SUCCEEDED, value))
        self.states["trial", number] = "success"
        self.must_stop |= value <= 0

    @precondition(lambda self: self.running)
    @rule(trial=st.integers(0, 5), will_retry=st.booleans())
    def fail(self, trial: int, *, will_retry: bool) -> None:
        """A trial fails, for good or to be tried again."""
        number = self.choose(trial)
        watch = self.running.pop(number)
        watch.finished(record_of(number, TrialState.FAILED), will_retry=will_retry)
        retries = will_retry and not watch.is_stopped()
        self.states["trial", number] = "up_for_retry" if retries else "failed"

    @invariant()
    def there_is_one_end(self) -> None:
        """The first reason stays, it comes when it must, and nothing waits to be started after it."""
        failed = sum(state == "failed" for state in self.states.values())
        marker = self.sweep.marker()
        if self.first is None:
            self.first = marker
        assert marker == self.first
        assert (marker is not None) or not self.must_stop
        if marker is not None:
            waiting = [at for at, state in self.states.items() if state in {None, "up_for_retry"}]
            assert waiting == [("collect", -1), ("build", -1)]
            assert marker.cause is StopCause.GOAL or failed > 2
        else:
            assert failed <= 2


TestStopping = Stopping.TestCase


@pytest.fixture(autouse=True)
def _without_comms() -> Iterator[None]:
    """No test leaves a fake behind."""
    yield
    assert not isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), FakeRun)

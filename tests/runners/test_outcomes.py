"""Tests of records made of outcomes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_hptuning.metrics import MetricLog, Observation, describe
from airflow_hptuning.runners.outcomes import record
from airflow_hptuning.trials import (
    Direction,
    Failure,
    FailureClass,
    Metric,
    Outcome,
    Suggestion,
    TrialRecord,
    TrialState,
)

LOSS = Metric("loss", Direction.MINIMIZE)
SUGGESTION = Suggestion(4, {"lr": 0.1}, resource=9, bracket=1, rung=0)


def made(*values: float, objective: Metric | None = LOSS, mode: str = "last", **outcome: Any) -> TrialRecord:
    """Make the record of a trial that reported these losses."""
    log = MetricLog({"loss": Direction.MINIMIZE})
    for value in values:
        log.add(Observation("loss", None, value))
    fields: dict[str, Any] = {"exit_code": 0, "started": 1.0, "ended": 3.5, "log_tail": ("the end",)}
    ended = Outcome(**fields | outcome)
    return record(
        SUGGESTION, ended, log, objective=objective, mode=mode, attempt=2, metrics_hint=describe(["loss"], None)
    )


def test_a_trial_that_succeeded() -> None:
    """The record holds all of suggestion, outcome and metrics."""
    result = made(3.0, 1.0, 2.0)
    assert result.state is TrialState.SUCCEEDED
    assert result.failure is None
    assert (result.trial, result.params, result.resource, result.bracket, result.rung) == (4, {"lr": 0.1}, 9, 1, 0)
    assert (result.metrics, result.best) == ({"loss": 2.0}, {"loss": 1.0})
    assert len(result.curve["loss"]) == 3
    assert (result.started, result.ended, result.attempt) == (1.0, 3.5, 2)
    assert TrialRecord.from_json(result.to_json()) == result


@pytest.mark.parametrize(
    ("outcome", "kind", "reason"),
    [
        ({"exit_code": 1}, FailureClass.USER_CODE, "exit code 1"),
        ({"exit_code": 255}, FailureClass.USER_CODE, "exit code 255"),
        ({"exit_code": -11}, FailureClass.USER_CODE, "ended by SIGSEGV (exit code -11)"),
        ({"exit_code": 139}, FailureClass.USER_CODE, "ended by SIGSEGV (exit code 139)"),
        ({"exit_code": -15}, FailureClass.USER_CODE, "ended by SIGTERM (exit code -15)"),
        ({"exit_code": -9}, FailureClass.OOM, "killed by SIGKILL, most likely by the kernel's out-of-memory killer"),
        ({"exit_code": 137}, FailureClass.OOM, "killed by SIGKILL, most likely by the kernel's out-of-memory killer"),
        ({"exit_code": None}, FailureClass.INFRASTRUCTURE, "it ended without an exit status"),
        ({"exit_code": -9, "timed_out": True}, FailureClass.TIMEOUT, "its time was up after 2 s"),
        (
            {"exit_code": None, "failure": Failure(FailureClass.USER_CODE, "no such directory")},
            FailureClass.USER_CODE,
            "no such directory",
        ),
    ],
)
def test_failures(outcome: dict[str, Any], kind: FailureClass, reason: str) -> None:
    """Each way to end badly has its class and a reason; the metrics are kept."""
    result = made(2.0, **outcome)
    assert result.state is TrialState.FAILED
    assert result.failure == Failure(kind, reason, ("the end",))
    assert result.metrics == {"loss": 2.0}


def test_no_metric() -> None:
    """A good end without the objective is a failure that says what was looked for and what was seen."""
    log = MetricLog()
    log.add(Observation("Loss", None, 1.0))
    ended = Outcome(0, 1.0, 2.0, ("Loss: 1",))
    hint = describe(["loss"], None)
    failure = record(SUGGESTION, ended, log, objective=LOSS, metrics_hint=hint).failure
    assert failure is not None
    assert failure.failure_class is FailureClass.NO_METRIC
    assert failure.reason == f"it ended well but never reported loss; looked for {hint}; seen instead: Loss"
    assert failure.log_tail == ("Loss: 1",)
    other = made().failure
    assert other is not None
    assert other.reason.endswith("no metric was seen")


def test_many_other_metrics_are_not_all_named() -> None:
    """The reason stays readable."""
    log = MetricLog()
    for number in range(30):
        log.add(Observation(f"m{number:02}", None, 1.0))
    failure = record(SUGGESTION, Outcome(0, 1.0, 2.0), log, objective=LOSS).failure
    assert failure is not None
    assert failure.reason.endswith("m08, m09 and 20 more")


@pytest.mark.parametrize(
    ("values", "mode", "reason"),
    [
        ((1.0, math.nan), "last", "the last value of loss was NaN or infinite"),
        ((1.0, math.inf), "last", "the last value of loss was NaN or infinite"),
        ((math.nan, math.nan), "best", "every value of loss was NaN or infinite"),
        ((math.nan, 1.0), "last", None),
        ((1.0, math.nan), "best", None),
    ],
)
def test_diverged_trials(values: tuple[float, ...], mode: str, reason: str | None) -> None:
    """A value that cannot be ranked is a failure; in mode best any finite value counts."""
    result = made(*values, mode=mode)
    assert (result.failure.reason if result.failure else None) == reason
    assert result.metrics.keys() == {"loss"}
    if result.failure:
        assert result.failure.failure_class is FailureClass.NO_METRIC


def test_without_an_objective_a_good_end_is_enough() -> None:
    """A sweep that ranks by nothing demands nothing."""
    assert made(objective=None).state is TrialState.SUCCEEDED
    assert made(objective=None, exit_code=1).state is TrialState.FAILED


@pytest.mark.parametrize("exit_code", [0, -15, -9, None])
def test_a_stopped_trial(exit_code: int | None) -> None:
    """A trial that was ended on request is neither a success nor a failure, and keeps metrics and reason."""
    result = made(2.0, exit_code=exit_code, stopped="goal reached")
    assert result.state is TrialState.STOPPED
    assert (result.failure, result.note, result.metrics) == (None, "goal reached", {"loss": 2.0})

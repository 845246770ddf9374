"""Outcomes: how a process ended and what it reported become the record of the trial."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final, Protocol

from airflow_hptuning.trials import Failure, FailureClass, TrialRecord, TrialState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_hptuning.trials import Metric, Outcome, Point, Suggestion

_SHELL_SIGNAL_BASE: Final = 128
"""A shell exits with this plus the number of the signal that ended its command."""

_MOST_NAMES: Final = 10


class Reported(Protocol):
    """What a trial has reported: a ``metrics.MetricLog``."""

    @property
    def last(self) -> Mapping[str, float | None]:
        """Last value of each metric; None where it was NaN or infinite."""

    @property
    def best(self) -> Mapping[str, float]:
        """Best finite value of each metric whose direction is known."""

    @property
    def curve(self) -> Mapping[str, tuple[Point, ...]]:
        """Points of each metric."""


def record(
    suggestion: Suggestion,
    outcome: Outcome,
    log: Reported,
    *,
    objective: Metric | None,
    mode: str = "last",
    attempt: int = 1,
    metrics_hint: str = "",
) -> TrialRecord:
    """Return the record of a trial that has ended; its metrics are kept however it ended.

    Args:
        suggestion: What was tried.
        outcome: How its process ended.
        log: What it reported.
        objective: The metric without which a trial has failed; None demands none.
        mode: Whether the ``last`` or the ``best`` value of the objective counts.
        attempt: Number of the try, from 1.
        metrics_hint: What was looked for in the output (``metrics.describe``), for the message that it was
            not there.
    """
    failure = _failure(outcome) or _missing(outcome, log, objective, mode, metrics_hint)
    state = TrialState.FAILED if failure else TrialState.SUCCEEDED
    if outcome.stopped is not None and outcome.failure is None:
        state, failure = TrialState.STOPPED, None
    return TrialRecord(
        trial=suggestion.trial,
        params=suggestion.params,
        state=state,
        resource=suggestion.resource,
        bracket=suggestion.bracket,
        rung=suggestion.rung,
        metrics=dict(log.last),
        best=dict(log.best),
        curve=dict(log.curve),
        started=outcome.started,
        ended=outcome.ended,
        attempt=attempt,
        failure=failure,
        note=outcome.stopped,
        info=suggestion.info,
    )


def _failure(outcome: Outcome) -> Failure | None:
    if outcome.failure is not None:
        found = outcome.failure
        return Failure(found.failure_class, found.reason, found.log_tail or outcome.log_tail)
    if outcome.timed_out:
        seconds = outcome.ended - outcome.started
        return Failure(FailureClass.TIMEOUT, f"its time was up after {seconds:.0f} s", outcome.log_tail)
    if outcome.exit_code is None:
        return Failure(FailureClass.INFRASTRUCTURE, "it ended without an exit status", outcome.log_tail)
    if outcome.exit_code == 0:
        return None
    return _of_exit_code(outcome.exit_code, outcome.log_tail)


def _of_exit_code(code: int, log_tail: tuple[str, ...]) -> Failure:
    number = -code if code < 0 else code - _SHELL_SIGNAL_BASE
    if number == signal.SIGKILL:
        reason = "killed by SIGKILL, most likely by the kernel's out-of-memory killer"
        return Failure(FailureClass.OOM, reason, log_tail)
    name = _signal_name(number)
    reason = f"exit code {code}" if name is None else f"ended by {name} (exit code {code})"
    return Failure(FailureClass.USER_CODE, reason, log_tail)


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


def _missing(
    outcome: Outcome,
    log: Reported,
    objective: Metric | None,
    mode: str,
    metrics_hint: str,
) -> Failure | None:
    if objective is None:
        return None
    name = objective.name
    if (log.best if mode == "best" else log.last).get(name) is not None:
        return None
    if name in log.last:
        which = "every value" if mode == "best" else "the last value"
        reason = f"{which} of {name} was NaN or infinite"
    else:
        looked = f"; looked for {metrics_hint}" if metrics_hint else ""
        reason = f"it ended well but never reported {name}{looked}{_seen(log)}"
    return Failure(FailureClass.NO_METRIC, reason, outcome.log_tail)


def _seen(log: Reported) -> str:
    if not log.last:
        return "; no metric was seen"
    names = sorted(log.last)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"; seen instead: {', '.join(names[:_MOST_NAMES])}{more}"

"""Trials: the words and values that every layer shares.

A *config* is a point of the search space; a *trial* is one config evaluated with one resource. A config that is
promoted through the rungs of a bracket has several trials. All values here are frozen, hold native Python types,
and travel as JSON (``to_json`` / ``from_json``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from attrs import Factory, field, frozen

Params = Mapping[str, Any]
"""Parameter values by name: native Python values, as they came out of the YAML or the search."""


class TrialState(StrEnum):
    """Where a trial is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """Started, then ended by early stopping; its metrics are kept."""
    SKIPPED = "skipped"
    """Never started."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to the trial."""
        return self not in {TrialState.PENDING, TrialState.RUNNING}


class Direction(StrEnum):
    """Whether a larger or a smaller value of a metric is better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"

    @property
    def sign(self) -> int:
        """1 to maximise, -1 to minimise: ``sign * value`` is to be maximised."""
        return 1 if self is Direction.MAXIMIZE else -1

    def reached(self, value: float, goal: float) -> bool:
        """Whether ``value`` is at least as good as ``goal`` (inclusive; a NaN reaches nothing)."""
        return self.sign * value >= self.sign * goal


class FailureClass(StrEnum):
    """Why a trial failed."""

    USER_CODE = "user_code"
    OOM = "oom"
    EVICTED = "evicted"
    IMAGE = "image"
    UNSCHEDULABLE = "unschedulable"
    TIMEOUT = "timeout"
    NO_METRIC = "no_metric"
    INFRASTRUCTURE = "infrastructure"

    @property
    def is_infrastructure(self) -> bool:
        """Whether the user's code is innocent, so that another try may succeed."""
        return self in {FailureClass.EVICTED, FailureClass.UNSCHEDULABLE, FailureClass.INFRASTRUCTURE}


@frozen
class Metric:
    """A metric by name, and which way is better."""

    name: str
    direction: Direction = Direction.MAXIMIZE


def config_id(params: Params) -> str:
    """Return the stable id of a config: ten hexadecimal digits that depend on its values only.

    Args:
        params: The searched values, without the resource and the constants of the file.
    """
    text = json.dumps(params, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@frozen
class Suggestion:
    """A config to evaluate, as a search algorithm proposes it.

    Attributes:
        trial: Number of the trial in its sweep, from 0.
        params: The searched values.
        resource: Amount of the resource the trial may use (Hyperband), in the unit of the file.
        bracket: Bracket of the trial (Hyperband).
        rung: Rung of the trial in its bracket, from 0 (Hyperband).
        info: Why the algorithm proposes it, for people (Bayesian optimisation).
    """

    trial: int
    params: Params
    resource: float | int | None = None
    bracket: int | None = None
    rung: int | None = None
    info: Mapping[str, Any] = Factory(dict)

    @property
    def config_id(self) -> str:
        """The stable id of the config."""
        return config_id(self.params)

    @property
    def label(self) -> str:
        """A short text for people, such as ``#12 lr=0.013 act=relu``."""
        shown = dict(self.params)
        words = [f"{name}={_short(value)}" for name, value in shown.items()]
        if self.resource is not None:
            words.append(f"@{_short(self.resource)}")
        text = " ".join([f"#{self.trial}", *words])
        return text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 1] + "…"

    def to_json(self) -> dict[str, Any]:
        """Return the suggestion as a JSON object without its empty fields."""
        fields = {
            "trial": self.trial,
            "params": dict(self.params),
            "resource": self.resource,
            "bracket": self.bracket,
            "rung": self.rung,
            "info": dict(self.info) or None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a suggestion from ``to_json``."""
        return cls(**data)


_LABEL_LENGTH = 200
"""Airflow keeps up to 250 characters of a rendered map index."""

_VALUE_LENGTH = 40
"""A width at which several values still fit a line."""


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    return text if len(text) <= _VALUE_LENGTH else text[: _VALUE_LENGTH - 1] + "…"


@frozen
class CompletedTrial:
    """What an algorithm may know of a finished trial.

    Attributes:
        trial: Number of the trial.
        params: The searched values.
        value: Value of the objective metric as the sweep reads it (last or best); None when it has none.
        state: A finished state.
        resource, bracket, rung: As in the suggestion.
    """

    trial: int
    params: Params
    value: float | None
    state: TrialState = field(default=TrialState.SUCCEEDED)
    resource: float | int | None = None
    bracket: int | None = None
    rung: int | None = None

    @state.validator
    def _check_state(self, _: Any, state: TrialState) -> None:
        if not state.is_finished:
            raise ValueError(f"a completed trial cannot be {state.value}")


@frozen
class ActiveTrial:
    """What an algorithm may know of a trial that has no result yet."""

    trial: int
    params: Params


@frozen
class Failure:
    """Why a trial failed.

    Attributes:
        failure_class: The kind of failure.
        reason: One sentence for people.
        log_tail: The last lines of the trial's output.
    """

    failure_class: FailureClass
    reason: str
    log_tail: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the failure as a JSON object."""
        return {"class": self.failure_class.value, "reason": self.reason, "log_tail": list(self.log_tail)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a failure from ``to_json``."""
        return cls(FailureClass(data["class"]), data["reason"], tuple(data["log_tail"]))


Point = tuple[float | None, float | None]
"""One point of a learning curve: step (None when the script gave none) and value (None for NaN and infinities)."""


@frozen
class TrialRecord:
    """The result of one trial: what its task stores as its XCom.

    Attributes:
        trial: Number of the trial in its sweep, from 0.
        params: The searched values.
        state: Where the trial ended (or is).
        resource, bracket, rung: As in the suggestion.
        metrics: Last value of each metric; None where it was NaN or infinite.
        best: Best value of each metric whose direction the file names.
        curve: At most 200 points per metric, in the order of arrival.
        started, ended: Seconds since the epoch.
        attempt: Number of the try, from 1.
        failure: Why it failed, if it did.
        note: What else a reader should know (such as why it was stopped).
        info: Why the algorithm proposed it, as in the suggestion.
    """

    trial: int
    params: Params
    state: TrialState
    resource: float | int | None = None
    bracket: int | None = None
    rung: int | None = None
    metrics: Mapping[str, float | None] = Factory(dict)
    best: Mapping[str, float] = Factory(dict)
    curve: Mapping[str, tuple[Point, ...]] = Factory(dict)
    started: float | None = None
    ended: float | None = None
    attempt: int = 1
    failure: Failure | None = None
    note: str | None = None
    info: Mapping[str, Any] = Factory(dict)

    @property
    def config_id(self) -> str:
        """The stable id of the config."""
        return config_id(self.params)

    @property
    def duration(self) -> float | None:
        """Seconds from start to end; None when the trial never ran."""
        return None if self.started is None or self.ended is None else self.ended - self.started

    def value_of(self, metric: str, mode: str = "last") -> float | None:
        """Return the ``last`` or ``best`` finite value of a metric, or None."""
        value = (self.best if mode == "best" else self.metrics).get(metric)
        return value if value is not None and math.isfinite(value) else None

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object, all fields present."""
        return {
            "trial": self.trial,
            "config_id": self.config_id,
            "params": dict(self.params),
            "resource": self.resource,
            "bracket": self.bracket,
            "rung": self.rung,
            "state": self.state.value,
            "metrics": dict(self.metrics),
            "best": dict(self.best),
            "curve": {name: [list(point) for point in points] for name, points in self.curve.items()},
            "started": self.started,
            "ended": self.ended,
            "attempt": self.attempt,
            "failure": self.failure.to_json() if self.failure else None,
            "note": self.note,
            "info": dict(self.info),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a record from ``to_json``; fields that a reader may leave out are optional."""
        fields = {name: value for name, value in data.items() if name != "config_id"}
        curve = {
            name: tuple((point[0], point[1]) for point in points) for name, points in (data.get("curve") or {}).items()
        }
        failure = Failure.from_json(data["failure"]) if data.get("failure") else None
        return cls(**fields | {"state": TrialState(data["state"]), "curve": curve, "failure": failure})


@frozen
class TrialCommand:
    """What a runner must run for one trial: neutral, so that every runner can serve it.

    Attributes:
        command: One shell script, to be run by ``/bin/bash -c`` (``/bin/sh`` where there is no bash).
        env: Environment variables that the trial gets on top of the runner's own.
        outputs_path: Directory (or prefix) for what the trial writes.
        image: Container image of the trial, where the runner uses one.
    """

    command: str
    env: Mapping[str, str]
    outputs_path: str
    image: str | None = None


@frozen
class Outcome:
    """How the process of a trial ended, whatever runner ran it.

    Attributes:
        exit_code: Exit status; None when it was ended before it had one.
        started, ended: Seconds since the epoch.
        log_tail: The last lines of its output.
        timed_out: Whether its time was up.
        stopped: Why it was ended on request, or None.
        failure: The runner's own finding (such as an unusable shell), or None.
    """

    exit_code: int | None
    started: float
    ended: float
    log_tail: tuple[str, ...] = ()
    timed_out: bool = False
    stopped: str | None = None
    failure: Failure | None = None

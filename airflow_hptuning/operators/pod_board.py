"""The board of a run, as a trigger reaches it.

A trigger cannot skip tasks; that is left to whoever resumes or starts next and finds the marker. It can read XComs
one by one only, and hundreds of trials are watched by one process: so what cannot change is kept, and what may is
asked for once for all trials of a run.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowRuntimeError
from attrs import field, frozen

from airflow_hptuning.operators.stopping import MARKER, asking
from airflow_hptuning.search.early_stopping import StopReason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MARKER_AGE = 1.0
"""Seconds for which a look at the marker holds for all trials of the run in this process."""

_ENDED = frozenset({"success", "failed", "skipped", "removed", "upstream_failed"})
_MOST_RUNS = 100

_ERRORS = (AirflowRuntimeError, TypeError)
"""The task SDK raises the latter for an answer that is an error."""


class _Known:
    """What this process knows of one run."""

    runs: ClassVar[dict[tuple[str, str], _Known]] = {}

    def __init__(self) -> None:
        self.marker: StopReason | None = None
        self.marker_at = 0.0
        self.told: dict[tuple[str, str, int], Any] = {}

    @classmethod
    def of(cls, dag_id: str, run_id: str) -> _Known:
        if (dag_id, run_id) not in cls.runs and len(cls.runs) >= _MOST_RUNS:
            del cls.runs[next(iter(cls.runs))]
        return cls.runs.setdefault((dag_id, run_id), _Known())


@frozen
class TriggerBoard:
    """The board of one run, for a trigger that watches one of its trials.

    Attributes:
        dag_id, run_id, task_id, map_index: The task instance of the trial.
        pairs: Id of each task that suggests, with the id of the mapped task of its trials.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    pairs: Sequence[Sequence[str]]
    _known: _Known = field(init=False, repr=False, eq=False)

    @_known.default
    def _shared(self) -> _Known:
        return _Known.of(self.dag_id, self.run_id)

    @property
    def me(self) -> str:
        """Name of the trial's task instance."""
        return f"{self.task_id}[{self.map_index}]"

    @property
    def mapped_tasks(self) -> int:
        """How many mapped tasks the trials are spread over."""
        return len(self.pairs)

    @asking(*_ERRORS)
    def marker(self) -> StopReason | None:
        """Return why the run is being stopped, or None; as of a second ago at most."""
        now = time.monotonic()
        if self._known.marker_at == 0 or now > self._known.marker_at + MARKER_AGE:
            # Before the question: the other trials need not ask while it is under way.
            self._known.marker_at = now
            found = self._get(MARKER, self.pairs[0][0], -1)
            self._known.marker = StopReason.from_json(found) if found else None
        return self._known.marker

    @asking(*_ERRORS)
    def put(self, reason: StopReason) -> None:
        """Put the marker up."""
        self._set(MARKER, reason.to_json(), self.pairs[0][0], -1)
        self._known.marker, self._known.marker_at = reason, time.monotonic()

    def skip_rest(self) -> None:
        """Leave it to the next task that runs: it finds the marker and skips the rest."""

    @asking(*_ERRORS)
    def count(self, *states: str) -> int:
        """Return how many trials' tasks are in one of these states."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        return RuntimeTaskInstance.get_ti_count(
            dag_id=self.dag_id, task_ids=self._trial_task_ids, run_ids=[self.run_id], states=list(states)
        )

    @asking(*_ERRORS)
    def publish(self, key: str, value: Any) -> None:
        """Tell the other trials something."""
        self._set(key, value, self.task_id, self.map_index)

    @asking(*_ERRORS)
    def read(self, key: str) -> list[Any]:
        """Return what all trials have told under a key."""
        found = [self._told(key, *instance) for instance in self._instances()]
        return [value for value in found if value is not None]

    def _told(self, key: str, task_id: str, map_index: int, state: str | None) -> Any:
        place = (key, task_id, map_index)
        if place in self._known.told:
            return self._known.told[place]
        value = self._get(key, task_id, map_index)
        if state in _ENDED:
            # It will tell nothing new.
            self._known.told[place] = value
        return value

    def _instances(self) -> Iterator[tuple[str, int, str | None]]:
        """Task id, map index and state of the trials that may have told something."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        states = RuntimeTaskInstance.get_task_states(
            dag_id=self.dag_id, task_ids=self._trial_task_ids, run_ids=[self.run_id]
        )
        known = set(self._trial_task_ids)
        for name, state in (states.get(self.run_id) or {}).items():
            task_id, _, index = name.rpartition("_")
            if task_id in known and index.isdecimal() and state not in {None, "scheduled", "queued", "skipped"}:
                yield task_id, int(index), state

    @property
    def _trial_task_ids(self) -> list[str]:
        return [trial for _, trial in self.pairs]

    def _get(self, key: str, task_id: str, map_index: int) -> Any:
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_one(key=key, dag_id=self.dag_id, task_id=task_id, run_id=self.run_id, map_index=map_index)

    def _set(self, key: str, value: Any, task_id: str, map_index: int) -> None:
        from airflow.sdk.execution_time.xcom import XCom

        XCom.set(key, value, dag_id=self.dag_id, task_id=task_id, run_id=self.run_id, map_index=map_index)

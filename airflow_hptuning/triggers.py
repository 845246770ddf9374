"""The trigger of a task that waits for its turn to suggest, and the one rule that says whose turn it is.

A trial is *unfinished* until its task has ended for good. That includes a deferred task, whose pod runs, and one that
waits for another try.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

FINISHED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task that has ended for good."""

POLL_SECONDS = 1.0
"""How often the trigger looks: one small request each."""


def has_ended(states: Mapping[str, str | None], task_id: str, index: int) -> bool:
    """Return whether a trial's task has ended for good.

    Args:
        states: Airflow's ``{"id" or "id_index": state}`` of one run.
        task_id: Id of the mapped task, which may not be mapped yet.
        index: Which of its trials.
    """
    # A task that was skipped before it was mapped has no instances but itself.
    return states.get(task_id) in FINISHED or states.get(f"{task_id}_{index}") in FINISHED


def unfinished(states: Mapping[str, str | None], trials: Mapping[str, int]) -> dict[str, int]:
    """Return how many trials of each mapped task have not ended; tasks that have all ended are left out.

    Args:
        states: As above.
        trials: Number of trials by the id of their mapped task.
    """
    left = {
        task_id: sum(not has_ended(states, task_id, index) for index in range(count))
        for task_id, count in trials.items()
    }
    return {task_id: count for task_id, count in left.items() if count}


class TurnTrigger(BaseTrigger):
    """Fires when few enough trials are unfinished.

    Args:
        dag_id: The DAG.
        run_id: The run.
        trials: Number of trials by the id of their mapped task: those that are waited for.
        limit: How many of them may be unfinished.
        poll_seconds: How often to look.
    """

    def __init__(
        self, *, dag_id: str, run_id: str, trials: dict[str, int], limit: int, poll_seconds: float = POLL_SECONDS
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dag_id = dag_id
        self.run_id = run_id
        self.trials = trials
        self.limit = limit
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        arguments = {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "trials": self.trials,
            "limit": self.limit,
            "poll_seconds": self.poll_seconds,
        }
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is the task's turn."""
        while True:
            try:
                left = sum(unfinished(await asyncio.to_thread(self._states), self.trials).values())
            except AirflowRuntimeError as error:
                # The database may be away for a while; the sweep must not fail of it.
                self.log.warning("Could not look for the trials: %s", error)
            else:
                if left <= self.limit:
                    yield TriggerEvent({"unfinished": left})  # type: ignore[no-untyped-call]
                    return
            await asyncio.sleep(self.poll_seconds)

    def _states(self) -> Mapping[str, str | None]:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        found = RuntimeTaskInstance.get_task_states(
            dag_id=self.dag_id, task_ids=list(self.trials), run_ids=[self.run_id]
        )
        states: Mapping[str, str | None] = found.get(self.run_id, {})
        return states

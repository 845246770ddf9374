"""Hand-written stand-ins for what tests cannot have for real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow.sdk.api.datamodels._generated import TaskInstanceState
from airflow.sdk.execution_time import comms
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from attrs import define, field

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

UNTOUCHED_BY_SKIP = {"running", "success", "failed"}
"""States that Airflow's server leaves alone when a task asks it to skip others."""


@define
class FakeStateStore:
    """The store of a task's own state."""

    values: dict[str, Any] = field(factory=dict)

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.values[key] = value

    def get(self, key: str) -> Any:
        """Return a value, or None."""
        return self.values.get(key)


@define
class FakeRun:
    """What Airflow's server keeps of one DAG run; answers the messages of its tasks as the server would.

    To be put in the place of ``task_runner.SUPERVISOR_COMMS``.

    Attributes:
        states: State by task id and map index (-1 for a task that is not mapped).
        xcoms: Value by task id, map index and key.
        sent: All messages, in their order.
    """

    dag_id: str = "sweep"
    run_id: str = "run"
    states: dict[tuple[str, int], str | None] = field(factory=dict)
    xcoms: dict[tuple[str, int, str], Any] = field(factory=dict)
    sent: list[Any] = field(factory=list)

    def task_instance(self, task: BaseOperator, map_index: int = -1, **fields: Any) -> RuntimeTaskInstance:
        """Return Airflow's own task instance, as a running task has it."""
        return RuntimeTaskInstance.model_construct(
            id=uuid4(),
            task=task,
            task_id=task.task_id,
            dag_id=self.dag_id,
            run_id=self.run_id,
            map_index=map_index,
            **{"try_number": 1, "max_tries": 0} | fields,
        )

    def send(self, msg: Any) -> Any:
        """Answer a message."""
        self.sent.append(msg)
        return getattr(self, f"_{type(msg).__name__}")(msg)

    def _SetXCom(self, msg: comms.SetXCom) -> None:  # noqa: N802 - named after the message
        index = -1 if msg.map_index is None else msg.map_index
        if (msg.task_id, index) not in self.states:
            raise LookupError(f"no task instance {msg.task_id}[{index}]")
        self.xcoms[msg.task_id, index, msg.key] = msg.value

    def _GetXCom(self, msg: comms.GetXCom) -> comms.XComResult:  # noqa: N802 - as above
        index = -1 if msg.map_index is None else msg.map_index
        return comms.XComResult(key=msg.key, value=self.xcoms.get((msg.task_id, index, msg.key)))

    def _GetXComSequenceSlice(  # noqa: N802 - as above
        self, msg: comms.GetXComSequenceSlice
    ) -> comms.XComSequenceSliceResult:
        found = {at: value for at, value in self.xcoms.items() if at[0] == msg.task_id and at[2] == msg.key}
        return comms.XComSequenceSliceResult(root=[found[at] for at in sorted(found)])

    def _GetTaskStates(self, msg: comms.GetTaskStates) -> comms.TaskStatesResult:  # noqa: N802 - as above
        found = {
            task_id if index < 0 else f"{task_id}_{index}": state
            for (task_id, index), state in self.states.items()
            if msg.task_ids is None or task_id in msg.task_ids
        }
        return comms.TaskStatesResult(task_states={self.run_id: found})

    def _GetTICount(self, msg: comms.GetTICount) -> comms.TICount:  # noqa: N802 - as above
        tasks, states = msg.task_ids or [], [TaskInstanceState(state) for state in msg.states or []]
        return comms.TICount(count=sum(at[0] in tasks and state in states for at, state in self.states.items()))

    def _SkipDownstreamTasks(self, msg: comms.SkipDownstreamTasks) -> None:  # noqa: N802 - as above
        for task in msg.tasks:
            at = task if isinstance(task, tuple) else (task, -1)
            if at in self.states and self.states[at] not in UNTOUCHED_BY_SKIP:
                self.states[at] = "skipped"

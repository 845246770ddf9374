"""The trigger that watches the pod of one trial, so that hundreds of running pods hold no worker.

A trial that ends well is done when its trigger says so: its record becomes the task's XCom and the task a success,
without another process. A trial that failed goes back to a worker, which alone can fail with a reason, or try again.
Where a trigger finds a reason to stop the sweep it puts up the marker; the next task that starts, or fails, skips the
rest.
"""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent
from attrs import asdict, frozen

from airflow_hptuning.operators.observer import TrialObserver
from airflow_hptuning.operators.pod_board import TriggerBoard
from airflow_hptuning.operators.pod_client import AsyncPod
from airflow_hptuning.operators.stop_watch import STOP_GRACE, BoardError
from airflow_hptuning.operators.stopping import watch_of
from airflow_hptuning.planning import pod_settings
from airflow_hptuning.polyaxonfile.parser import load_spec
from airflow_hptuning.runners.pod_watch import PodUnreachableError, PodWatch
from airflow_hptuning.runners.pods import CONTAINER
from airflow_hptuning.trials import Suggestion, TrialState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow_hptuning.operators.stop_watch import Board, StopWatch
    from airflow_hptuning.polyaxonfile.spec import SweepSpec
    from airflow_hptuning.trials import TrialRecord

CHECKED = {"already_checked": "True"}
"""Label of a pod whose result is known: the KubernetesPodOperator's, so that nobody takes it up again."""

RESULT = "return_value"
"""Key of the XCom that is a task's result."""

LIVE_METRICS = "metrics"
"""Key of the XCom with the latest metrics of a running trial."""

_FOR_EVER = 3600.0

RESUME_AFTER = 8.0
"""Seconds from the start of a trigger before it sends its task back to a worker.

The worker that started the pod may report up to five seconds late that its task has been deferred. Airflow's scheduler
takes that report for the end of a task which is queued again by then, and fails it: without a retry's delay, a line in
its log, or a reason.
"""


@lru_cache(maxsize=64)
def _spec(text: str) -> SweepSpec:
    # Triggers have no DAG files; the text of the polyaxonfile is small, and the same for all trials of a sweep.
    return load_spec(text)


@frozen
class PodJob:
    """The pod of one trial, and all that is needed to watch it, as plain values.

    Attributes:
        polyaxonfile: The text of the sweep's file.
        dag_id, run_id, task_id, map_index: The task instance of the trial.
        suggestion: What is tried, as JSON.
        attempt: Number of the try, from 1.
        pod, namespace: The pod.
        conn_id: Airflow connection to the cluster.
        run_started: When the run started, in seconds since the epoch.
    """

    polyaxonfile: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    suggestion: dict[str, Any]
    attempt: int
    pod: str
    namespace: str
    conn_id: str
    run_started: float | None

    @property
    def client(self) -> AsyncPod:
        """A client for the pod."""
        return AsyncPod(self.pod, self.namespace, self.conn_id, CONTAINER)

    def stop_watch(self, board: Board, log: Any) -> StopWatch:
        """Return what tells the trial when to end."""
        return watch_of(_spec(self.polyaxonfile), board, self.suggestion["trial"], self.run_started, log)

    async def watch(
        self, client: AsyncPod, watch: StopWatch, log: Any, publish: Callable[[dict[str, Any]], None]
    ) -> TrialRecord:
        """Watch the pod to its end and return the trial's record; the pod is left, unless it had to be stopped.

        Args:
            client: The pod.
            watch: Tells the trial when to end.
            log: Where the trial's lines go.
            publish: Called with the latest metrics, now and then.
        """
        spec = _spec(self.polyaxonfile)
        timeout, settings = spec.airflow.trial.timeout, spec.airflow.kubernetes
        observer = TrialObserver(
            spec,
            Suggestion.from_json(self.suggestion),
            watch,
            show=lambda line: log.info("%s", line),
            publish=publish,
        )
        pod = PodWatch(
            client,
            on_lines=observer.on_lines,
            on_restart=observer.restart,
            should_stop=watch.check,
            timeout=timeout.total_seconds() if timeout else None,
            startup_timeout=settings.startup_timeout.total_seconds(),
            grace=STOP_GRACE,
            max_restarts=pod_settings(spec).max_restarts,
            say=lambda text: log.info("%s", text),
        )
        outcome = await pod.run()
        observer.restore(pod.summary)
        return observer.record(outcome, attempt=self.attempt, has_started=pod.has_started)


class PodTrialTrigger(BaseTrigger):
    """Watches the pod of one trial.

    Args:
        job: The fields of a ``PodJob``.
        pairs: Id of each task that suggests, with the id of the mapped task of its trials.
    """

    def __init__(self, job: dict[str, Any], pairs: list[list[str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is not typed
        self.job = job
        self.pairs = pairs

    @classmethod
    def of(cls, job: PodJob, pairs: Any) -> PodTrialTrigger:
        """Return the trigger of a job."""
        return cls(asdict(job), [list(pair) for pair in pairs])

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what rebuilds the trigger in the triggerer."""
        return f"{type(self).__module__}.{type(self).__name__}", {"job": self.job, "pairs": self.pairs}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: how the trial ended."""
        began = time.monotonic()
        job = PodJob(**self.job)
        board = TriggerBoard(job.dag_id, job.run_id, job.task_id, job.map_index, self.pairs)
        watch = job.stop_watch(board, self.log)
        client = job.client

        def publish(metrics: dict[str, Any]) -> None:
            self._tell(board, LIVE_METRICS, metrics)

        try:
            record = await job.watch(client, watch, self.log, publish)
            if not self._is_done(record, watch, board):
                await asyncio.sleep(max(0.0, began + RESUME_AFTER - time.monotonic()))
                event = {"record": record.to_json(), "pod": job.pod, "namespace": job.namespace}
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # as above
                return
            await _mark(client)
        finally:
            await client.close()
        yield TaskSkippedEvent() if record.state is TrialState.SKIPPED else TaskSuccessEvent()
        # When Airflow has stored the event it cancels this trigger, and ``on_kill`` deletes the pod: not before, as
        # another triggerer may have to watch the pod again should this one die now.
        await asyncio.sleep(_FOR_EVER)

    def _is_done(self, record: TrialRecord, watch: StopWatch, board: TriggerBoard) -> bool:
        """Store the record of the trial; return whether the trial needs no worker any more."""
        if record.failure is None:
            watch.finished(record)
        # Not as the event's own XCom: Airflow 3.3 would store that one as the text of its JSON. And a failed one's as
        # well: if the sweep is stopped now, its task is skipped before a worker can fail it.
        is_stored = record.state is TrialState.SKIPPED or self._tell(board, RESULT, record.to_json())
        return is_stored and record.failure is None

    def _tell(self, board: TriggerBoard, key: str, value: Any) -> bool:
        try:
            board.publish(key, value)
        except BoardError as error:
            self.log.warning("Could not store %s: %s", key, error)
            return False
        return True

    async def on_kill(self) -> None:
        """Delete the pod: the trial's result is stored, or somebody has cleared, marked or skipped its task."""
        client = PodJob(**self.job).client
        try:
            await client.delete(STOP_GRACE)
        finally:
            await client.close()


async def _mark(client: AsyncPod) -> None:
    try:
        await client.mark(CHECKED)
    except PodUnreachableError:
        # It only matters if the pod outlives this trigger, and the trial is then cleared.
        return

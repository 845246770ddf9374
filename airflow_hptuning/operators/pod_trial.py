"""The task of one trial on Kubernetes: a KubernetesPodOperator's pod, watched by a trigger."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_hptuning.operators.pod_calls import connection_id, delete_pod, hook_of, operator_arguments
from airflow_hptuning.operators.stop_watch import STOP_GRACE
from airflow_hptuning.operators.stopping import RunBoard
from airflow_hptuning.operators.sweep import outputs_folder, pull_list
from airflow_hptuning.operators.trial_base import TrialOperator
from airflow_hptuning.planning import pod_settings, resumes
from airflow_hptuning.polyaxonfile.template import trial_command
from airflow_hptuning.runners.pods import DEFAULT_OUTPUTS, LABEL, Place, pod_name, trial_labels, trial_pod
from airflow_hptuning.trials import Failure, FailureClass, Suggestion, TrialRecord, TrialState

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_hptuning.operators.pod_trigger import PodJob

_CONFLICT = 409
_INVALID = frozenset({400, 422})

RECORD = "record"
"""Key of the task state store for the record of a trial that has ended."""

_GONE = 60.0
"""Seconds to wait for a pod that was deleted."""

_DEADLINE_MARGIN = 120.0
"""Seconds that Kubernetes leaves a pod beyond its time limits before it ends it without us."""


class PodTrialOperator(TrialOperator):
    """Runs one trial as a pod, which a KubernetesPodOperator builds.

    The pod has one name for each try, so that it cannot be started twice; a try that finds a pod of an earlier one,
    whose worker or triggerer was lost, takes it up where it is.

    Args:
        deferrable: Whether a trigger watches the pod, so that it holds no worker.
        kwargs: As for ``TrialOperator``.
    """

    ui_color = "#d9e8f0"

    def __init__(self, *, deferrable: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self._pod: tuple[str, str] | None = None

    def execute(self, context: Context) -> None:
        """Start the pod, and leave the rest to the trigger; or watch it here, if the task is not deferrable."""
        suggestion = Suggestion.from_json(self.suggestion)
        stored = self._stored(context)
        if stored is not None:
            # An earlier try ended the trial, and was lost before it could say so.
            self._finish(stored, context)
            return
        watch = self.watch_from_start(context)
        try:
            self._start(suggestion, context)
        except PodRefusedError as error:
            self._finish(_refused(suggestion, error, context["ti"].try_number), context)
            return
        job = self._job(context)
        if self.deferrable:
            from airflow_hptuning.operators.pod_trigger import PodTrialTrigger

            self.defer(trigger=PodTrialTrigger.of(job, RunBoard.of(context).pairs), method_name="resume")
        client = job.client

        def publish(metrics: dict[str, Any]) -> None:
            context["task_state_store"].set("metrics", metrics)

        self._finish(asyncio.run(job.watch(client, watch, self.log, publish)), context)

    def resume(self, context: Context, event: dict[str, Any]) -> None:
        """Finish a trial that failed, which its trigger cannot."""
        self._pod = (event["pod"], event["namespace"])
        self._finish(TrialRecord.from_json(event["record"]), context)

    def on_kill(self) -> None:
        """Delete the pod: the task was killed, cleared, marked, or timed out."""
        self._delete()

    def _finish(self, record: TrialRecord, context: Context) -> None:
        watch = self.watch(context)
        watch.finished(record, will_retry=self.will_retry(record, context))
        if watch.is_stopped():
            # Who found the reason may have been a trigger, which cannot.
            RunBoard.of(context).skip_rest()
        if record.state is not TrialState.SKIPPED:
            # Before the pod goes: without either there would be no result.
            self._store(record, context)
            context["ti"].xcom_push("return_value", record.to_json())
        self._delete()
        if record.state is TrialState.SKIPPED:
            raise AirflowSkipException(f"the sweep is stopped: {record.note}")
        self.fail(record, watch, context)

    def _store(self, record: TrialRecord, context: Context) -> None:
        """Keep the record where a retry finds it: Airflow empties the task's XComs when one starts."""
        if record.failure is None:
            context["task_state_store"].set(RECORD, {"life": context["ti"].max_tries, "record": record.to_json()})

    def _stored(self, context: Context) -> TrialRecord | None:
        """Return what an earlier try has kept, unless somebody has cleared the task since."""
        stored: Any = context["task_state_store"].get(RECORD)
        if not isinstance(stored, dict) or stored.get("life") != context["ti"].max_tries:
            return None
        return TrialRecord.from_json(stored["record"])

    # --- the pod ---

    def _start(self, suggestion: Suggestion, context: Context) -> None:
        """Start the trial's pod, unless an earlier try has."""
        from kubernetes.client import ApiException

        operator = self._pod_operator(suggestion, context)
        # A KubernetesPodOperator knows the connection's namespace, and cluster policies that change pods.
        pod = operator.build_pod_request_obj(context)
        pod.spec.restart_policy = operator.pod_template_dict["spec"]["restartPolicy"]
        namespace = pod.metadata.namespace
        try:
            found = self._existing(operator, namespace, context)
            if found is not None:
                self.log.info("Taking up the pod %s of an earlier try", found)
                self._pod = (found, namespace)
                return
            self._pod = (pod.metadata.name, namespace)
            operator.client.create_namespaced_pod(namespace, pod)
        except ApiException as error:
            if error.status == _CONFLICT:
                return
            raise PodRefusedError(error) from error
        self.log.info("Started the pod %s in %s for trial %s", pod.metadata.name, namespace, suggestion.label)

    def _pod_operator(self, suggestion: Suggestion, context: Context) -> Any:
        from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

        arguments = self.pod_arguments(suggestion, context)
        return KubernetesPodOperator(task_id=self.task_id, **arguments)

    def pod_arguments(self, suggestion: Suggestion, context: Context) -> dict[str, Any]:
        """Return the arguments of the KubernetesPodOperator that builds the trial's pod: plain data."""
        spec, ti, place = self.sweep.spec, context["ti"], self._place(context)
        settings = pod_settings(spec)
        base = (spec.airflow.outputs.path or DEFAULT_OUTPUTS).rstrip("/")
        command = trial_command(
            spec,
            suggestion,
            sweep=place.sweep,
            run_id=place.run_id,
            outputs_path=f"{base}/{outputs_folder(self.sweep, place.run_id, suggestion)}",
            attempt=ti.try_number,
        )
        name = pod_name(place, trial=suggestion.trial, attempt=ti.try_number)
        labels = trial_labels(place, suggestion, attempt=ti.try_number, life=ti.max_tries)
        timeout = spec.airflow.trial.timeout
        margin = spec.airflow.kubernetes.startup_timeout.total_seconds() + _DEADLINE_MARGIN
        manifest = trial_pod(
            command,
            settings if not self.build_task_id else settings.with_image(*pull_list(ti, self.build_task_id)),
            name=name,
            labels=labels,
            grace=STOP_GRACE,
            resume=bool(suggestion.rung) and resumes(spec),
            deadline=timeout.total_seconds() + margin if timeout else None,
        )
        return operator_arguments(spec, manifest)

    def _place(self, context: Context) -> Place:
        ti = context["ti"]
        index = -1 if ti.map_index is None else ti.map_index
        return Place(self.sweep.dag_id, context["run_id"], ti.task_id, index)

    def _job(self, context: Context) -> PodJob:
        from airflow_hptuning.operators.pod_trigger import PodJob

        if self._pod is None:
            raise RuntimeError("the pod has not been started")
        place, started = self._place(context), context["dag_run"].start_date
        return PodJob(
            polyaxonfile=self.sweep.spec.text,
            dag_id=place.sweep,
            run_id=place.run_id,
            task_id=place.task_id,
            map_index=place.map_index,
            suggestion=dict(self.suggestion),
            attempt=context["ti"].try_number,
            pod=self._pod[0],
            namespace=self._pod[1],
            conn_id=connection_id(self.sweep.spec),
            run_started=started.timestamp() if started else None,
        )

    def _existing(self, operator: Any, namespace: str, context: Context) -> str | None:
        """Return the pod of this trial that an earlier try has left, if it still runs or was not yet read.

        A pod of the time before somebody cleared the task is ended first: it must not run beside the new one.
        """
        ti, selector = context["ti"], f"{self._place(context).selector},already_checked!=True"
        deadline = time.monotonic() + _GONE
        while True:
            pods = operator.client.list_namespaced_pod(namespace, label_selector=selector).items
            leaving = [pod for pod in pods if pod.metadata.deletion_timestamp is not None]
            others = [pod for pod in pods if pod not in leaving]
            for pod in others:
                if pod.metadata.labels.get(LABEL + "life") == str(ti.max_tries):
                    name: str = pod.metadata.name
                    return name
                delete_pod(operator.hook, pod.metadata.name, namespace, self.log)
            if not pods or time.monotonic() > deadline:
                return None
            time.sleep(1)

    def _delete(self) -> None:
        if self._pod is not None:
            delete_pod(hook_of(self.sweep.spec), *self._pod, self.log)


class PodRefusedError(Exception):
    """Kubernetes refused to make the pod.

    Args:
        error: What it said.
    """

    def __init__(self, error: Any) -> None:
        words = " ".join(str(error.body or error.reason or error).split())[:500]
        super().__init__(f"Kubernetes refused the pod ({error.status} {error.reason}): {words}")
        self.is_invalid = error.status in _INVALID


def _refused(suggestion: Suggestion, error: PodRefusedError, attempt: int) -> TrialRecord:
    kind = FailureClass.USER_CODE if error.is_invalid else FailureClass.INFRASTRUCTURE
    return TrialRecord(
        trial=suggestion.trial,
        params=suggestion.params,
        state=TrialState.FAILED,
        resource=suggestion.resource,
        bracket=suggestion.bracket,
        rung=suggestion.rung,
        attempt=attempt,
        failure=Failure(kind, str(error)),
    )

"""The last task of a sweep on Kubernetes: no pod outlives its run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_hptuning.operators.pod_calls import delete_pod, hook_of, namespace_of
from airflow_hptuning.runners.pods import run_selector

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_hptuning.operators.sweep import Sweep

PATIENCE = 240.0
"""Seconds to wait for pods to go: a kubelet that could not pull an image took more than one minute."""


class ReapOperator(BaseOperator):
    """Deletes every pod that carries the run's labels; a teardown, so it runs however the run ended.

    Args:
        sweep: The sweep.
    """

    ui_color = "#eeeeee"

    def __init__(self, *, sweep: Sweep, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sweep = sweep

    def execute(self, context: Context) -> int:
        """Return how many pods were left."""
        hook = hook_of(self.sweep.spec)
        namespace = namespace_of(self.sweep.spec, hook)
        selector = run_selector(self.sweep.dag_id, context["run_id"])
        deadline, reaped = time.monotonic() + PATIENCE, set()
        while pods := hook.core_v1_client.list_namespaced_pod(namespace, label_selector=selector).items:
            for pod in pods:
                if pod.metadata.name not in reaped:
                    reaped.add(pod.metadata.name)
                    delete_pod(hook, pod.metadata.name, namespace, self.log)
                    self.log.info("Deleted the pod %s (%s)", pod.metadata.name, pod.status.phase)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(pods)} pods do not go: {', '.join(pod.metadata.name for pod in pods)}")
            time.sleep(1)
        return len(reaped)

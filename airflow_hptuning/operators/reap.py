"""The last task of a sweep on Kubernetes: no pod outlives its run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_hptuning.planning import pod_settings
from airflow_hptuning.runners.pods import run_selector

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_hptuning.operators.sweep import Sweep

PATIENCE = 60.0
"""Seconds to wait for pods to go."""

_NOT_FOUND = 404


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
        from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
        from kubernetes.client import ApiException

        hook = KubernetesHook(conn_id=self.sweep.spec.airflow.kubernetes.conn_id or "kubernetes_default")
        namespace = pod_settings(self.sweep.spec).namespace or hook.get_namespace() or "default"
        selector = run_selector(self.sweep.dag_id, context["run_id"])
        client, deadline, reaped = hook.core_v1_client, time.monotonic() + PATIENCE, set()
        while pods := client.list_namespaced_pod(namespace, label_selector=selector).items:
            for pod in pods:
                if pod.metadata.name in reaped:
                    continue
                reaped.add(pod.metadata.name)
                try:
                    client.delete_namespaced_pod(pod.metadata.name, namespace, grace_period_seconds=1)
                except ApiException as error:
                    if error.status != _NOT_FOUND:
                        raise
                self.log.info("Deleted the pod %s (%s)", pod.metadata.name, pod.status.phase)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(pods)} pods do not go: {', '.join(pod.metadata.name for pod in pods)}")
            time.sleep(1)
        return len(reaped)

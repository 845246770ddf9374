"""What tasks ask of Kubernetes themselves, through Airflow's hook; a pod that is watched has ``pod_client``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_hptuning.operators.stop_watch import STOP_GRACE
from airflow_hptuning.planning import pod_settings

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_hptuning.polyaxonfile.spec import SweepSpec

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the namespace that it is in."""

_NOT_FOUND = 404


def connection_id(spec: SweepSpec) -> str:
    """Return the Airflow connection to the cluster of a sweep."""
    return spec.airflow.kubernetes.conn_id or "kubernetes_default"


def hook_of(spec: SweepSpec) -> Any:
    """Return Airflow's hook for the cluster of a sweep."""
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    return KubernetesHook(conn_id=connection_id(spec))


def namespace_of(spec: SweepSpec, hook: Any) -> str:
    """Return the namespace of a sweep's pods, by the KubernetesPodOperator's rules."""
    named: str | None = pod_settings(spec).namespace or hook.get_namespace()
    if named is None and OWN_NAMESPACE.exists():
        named = OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    return named or "default"


def operator_arguments(spec: SweepSpec, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the KubernetesPodOperator that builds a pod from its manifest: plain data."""
    return {
        "kubernetes_conn_id": connection_id(spec),
        "namespace": spec.airflow.kubernetes.namespace,
        "name": manifest["metadata"]["name"],
        "random_name_suffix": False,
        "labels": manifest["metadata"]["labels"],
        "pod_template_dict": manifest,
        "do_xcom_push": False,
    }


def delete_pod(hook: Any, name: str, namespace: str, log: Logger) -> None:
    """Delete a pod; fine if it is gone, and said if it cannot be: the task that reaps tries once more."""
    from kubernetes.client import ApiException

    try:
        hook.core_v1_client.delete_namespaced_pod(name, namespace, grace_period_seconds=round(STOP_GRACE))
    except ApiException as error:
        if error.status != _NOT_FOUND:
            log.warning("Could not delete the pod %s: %s", name, error)

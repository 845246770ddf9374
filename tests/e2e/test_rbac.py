"""The rights that ``docker/kubernetes/rbac.yaml`` gives, on a real API server: enough for all we do, and no more."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import yaml
from kubernetes import client  # noqa: TID253 - tests that have a cluster
from kubernetes.client import ApiException  # noqa: TID253 - as above

from airflow_hptuning.operators.pod_client import AsyncPod
from airflow_hptuning.runners.pods import CONTAINER, PodSettings, pod_manifest
from tests.live_airflow import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live_cluster import Cluster

pytestmark = pytest.mark.e2e

MANIFEST = Path(__file__).resolve().parents[2] / "docker" / "kubernetes" / "rbac.yaml"
ALLOWED = {
    ("pods", "create"),
    ("pods", "get"),
    ("pods", "list"),
    ("pods", "patch"),
    ("pods", "delete"),
    ("pods/log", "get"),
    ("events", "list"),
}
RESOURCES = (
    "pods", "pods/log", "pods/exec", "pods/attach", "pods/portforward", "pods/eviction", "pods/status", "events",
    "secrets", "configmaps", "serviceaccounts", "serviceaccounts/token", "services", "persistentvolumeclaims", "nodes",
    "namespaces",
)  # fmt: skip
VERBS = ("create", "get", "list", "watch", "patch", "update", "delete", "deletecollection")


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace with the objects of the manifest in it."""
    name = f"hptuning-rbac-{uuid4().hex[:8]}"
    cluster.core.create_namespace({"metadata": {"name": name}})
    try:
        rbac = client.RbacAuthorizationV1Api(cluster.core.api_client)
        make = {
            "ServiceAccount": cluster.core.create_namespaced_service_account,
            "Role": rbac.create_namespaced_role,
            "RoleBinding": rbac.create_namespaced_role_binding,
        }
        for document in yaml.safe_load_all(MANIFEST.read_text()):
            # kubectl would fill in the namespace of a subject that names none.
            for subject in document.get("subjects", ()):
                subject.setdefault("namespace", name)
            make[document["kind"]](name, document)
        eventually(lambda: service_accounts(cluster, name) >= {"default", "hptuning"}, what="the service accounts")
        yield name
    finally:
        cluster.core.delete_namespace(name)


def service_accounts(cluster: Cluster, namespace: str) -> set[str]:
    """Return the names of the service accounts of a namespace."""
    return {account.metadata.name for account in cluster.core.list_namespaced_service_account(namespace).items}


@pytest.fixture(scope="module")
def kubeconfig(cluster: Cluster, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the service account of the manifest reaches the cluster with."""
    request = {"spec": {"audiences": None, "expirationSeconds": 3600}}
    answer = cluster.core.create_namespaced_service_account_token("hptuning", namespace, request)
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{"name": "hptuning", "user": {"token": answer.status.token}}]
    for context in config["contexts"]:
        context["context"] |= {"user": "hptuning", "namespace": namespace}
    path: Path = tmp_path_factory.mktemp("rbac") / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def connection(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An Airflow connection of that service account."""
    extra = f"%7B%22kube_config_path%22%3A%20%22{kubeconfig}%22%7D"
    monkeypatch.setenv("AIRFLOW_CONN_RBAC", f"kubernetes://?__extra__={extra}")
    return "rbac"


def core(connection: str) -> Any:
    """Return the API as a task reaches it."""
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    return KubernetesHook(conn_id=connection).core_v1_client


def test_rights_are_those_and_no_others(connection: str, namespace: str) -> None:
    """The API server's own word for each resource and verb."""
    reviews = client.AuthorizationV1Api(core(connection).api_client)

    def may(resource: str, verb: str, where: str) -> bool:
        kind, _, part = resource.partition("/")
        wanted = {"namespace": where, "verb": verb, "resource": kind, "subresource": part}
        review = {"spec": {"resourceAttributes": wanted}}
        return bool(reviews.create_self_subject_access_review(review).status.allowed)

    assert {(r, v) for r in RESOURCES for v in VERBS if may(r, v, namespace)} == ALLOWED
    assert not any(may(resource, verb, "default") for resource, verb in ALLOWED)


def test_all_that_tasks_and_triggers_do(connection: str, namespace: str) -> None:
    """A pod is made, found, watched, read, marked, and deleted, by the plugin's own clients."""
    api = core(connection)
    pod = pod_manifest(
        ["/bin/sh", "-c", "echo loss=0.5"],
        {},
        PodSettings("python:3.11", service_account="hptuning-trial"),
        name="trial",
        labels={"hptuning/sweep": "rbac"},
        grace=1,
    )
    api.create_namespaced_pod(namespace, pod)

    async def watch() -> bytes:
        found = AsyncPod("trial", namespace, connection, CONTAINER)
        try:
            deadline = time.monotonic() + 60
            while ((await found.read() or {}).get("status") or {}).get("phase") != "Succeeded":
                assert time.monotonic() < deadline
                await asyncio.sleep(0.5)
            assert {event["reason"] for event in await found.events()} >= {"Scheduled", "Started"}
            await found.mark({"already_checked": "True"})
            return b"".join([chunk async for chunk in found.log()])
        finally:
            await found.delete(1)
            await found.close()

    assert asyncio.run(watch()) == b"loss=0.5\n"
    eventually(
        lambda: not api.list_namespaced_pod(namespace, label_selector="hptuning/sweep=rbac").items,
        seconds=30,
        what="the end of the pod",
    )


def test_the_manifest_for_the_chart_is_accepted(cluster: Cluster, namespace: str) -> None:
    """A dry run on the server, where schema and admission speak."""
    rbac = client.RbacAuthorizationV1Api(cluster.core.api_client)
    document = yaml.safe_load(MANIFEST.with_name("airflow-chart.yaml").read_text())
    made = rbac.create_namespaced_role_binding(namespace, document, dry_run="All", field_manager="test")
    assert {subject.namespace for subject in made.subjects} == {"airflow"}


def test_trials_get_no_token(cluster: Cluster, namespace: str) -> None:
    """The service account for user code mounts none."""
    account = cluster.core.read_namespaced_service_account("hptuning-trial", namespace)
    assert account.automount_service_account_token is False


def test_what_is_refused(connection: str, namespace: str) -> None:
    """A call, not only a review: no secret can be read, and no pod elsewhere."""
    api = core(connection)
    with pytest.raises(ApiException) as caught:
        api.list_namespaced_secret(namespace)
    assert caught.value.status == 403
    with pytest.raises(ApiException) as caught:
        api.list_namespaced_pod("default")
    assert caught.value.status == 403

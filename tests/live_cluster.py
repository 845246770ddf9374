"""A real Kubernetes for tests: what its administrator sees of the pods of sweeps."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self

from kubernetes import client, config  # noqa: TID253 - only tests that have a cluster load this module's users

from tests.live_airflow import eventually

if TYPE_CHECKING:
    from pathlib import Path

NAMESPACE = "hptuning"
"""Namespace that the fixture makes for trials."""
IMAGE = "python:3.11"
"""An image that every node of the fixture has."""


class Cluster:
    """A cluster.

    Args:
        kubeconfig: Configuration of its administrator.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.limited = kubeconfig.with_name("kubeconfig-limited")
        self.core = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))

    def pods(self, sweep: str | None = None, namespace: str = NAMESPACE) -> list[Any]:
        """Return the pods of a sweep, or all."""
        selector = f"hptuning/sweep={sweep}" if sweep else ""
        found: list[Any] = self.core.list_namespaced_pod(namespace, label_selector=selector).items
        return found

    def trial_pod(self, sweep: str, trial: int) -> Any | None:
        """Return the pod of a trial, or None if it has none now."""
        found = [pod for pod in self.pods(sweep) if pod.metadata.labels["hptuning/trial"] == str(trial)]
        return found[0] if found else None

    def delete(self, name: str, grace: int = 0) -> None:
        """Delete a pod as somebody else would."""
        self.core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=grace)

    def connect(self) -> None:
        """Make the network between pods and this machine exist: the node makes it for the first pod it starts."""
        container = client.V1Container(name="main", image=IMAGE, command=["true"])
        pod = client.V1Pod(
            metadata=client.V1ObjectMeta(generate_name="connect-"),
            spec=client.V1PodSpec(containers=[container], restart_policy="Never"),
        )
        name = self.core.create_namespaced_pod(NAMESPACE, pod).metadata.name
        eventually(lambda: self.core.read_namespaced_pod(name, NAMESPACE).status.pod_ip, what="the first pod's address")
        self.delete(name)

    def record(self, sweep: str) -> PodHistory:
        """Return what records the pods of a sweep while it runs."""
        return PodHistory(self, sweep)


class PodHistory:
    """Every pod that a sweep ever had, by name, with the times of its container. Use as a context manager."""

    def __init__(self, cluster: Cluster, sweep: str) -> None:
        self._cluster = cluster
        self._sweep = sweep
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self.pods: dict[str, Any] = {}
        self.most_running = 0
        self.last_running = 0.0
        """When a container was last seen to run, in seconds since the epoch."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._ended.is_set():
            pods = self._cluster.pods(self._sweep)
            self.pods |= {pod.metadata.name: pod for pod in pods}
            running = sum(_is_running(pod) for pod in pods)
            self.most_running = max(self.most_running, running)
            self.last_running = time.time() if running else self.last_running
            self._ended.wait(0.3)

    def by_trial(self) -> dict[int, list[str]]:
        """Return the names of the pods that each trial had."""
        found: dict[int, list[str]] = {}
        for name, pod in self.pods.items():
            found.setdefault(int(pod.metadata.labels["hptuning/trial"]), []).append(name)
        return found


def _is_running(pod: Any) -> bool:
    return any(status.state.running is not None for status in pod.status.container_statuses or [])


def wait_until_gone(cluster: Cluster, sweep: str, *, seconds: float = 30) -> float:
    """Wait until no pod of a sweep is left; return how long that took, in seconds."""
    started = time.monotonic()
    while pods := cluster.pods(sweep):
        if time.monotonic() > started + seconds:
            raise AssertionError(f"left after {seconds} s: {[(p.metadata.name, p.status.phase) for p in pods]}")
        time.sleep(0.2)
    return time.monotonic() - started

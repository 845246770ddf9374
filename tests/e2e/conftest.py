"""One Airflow for all end-to-end tests of the local runner, and one for those on Kubernetes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.live_airflow import LiveAirflow
from tests.live_cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

POD_SETTINGS = {
    "AIRFLOW__HPTUNING__DEFAULT_RUNNER": "kubernetes",
    "AIRFLOW__CORE__PARALLELISM": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
}
"""A lost worker, and a lost scheduler with all that it ran, are noticed after seconds, not minutes."""


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    """A running Airflow with an empty dags folder; lists of more than 8 are split into batches."""
    home: Path = tmp_path_factory.mktemp("airflow")
    with LiveAirflow(home, {"AIRFLOW__CORE__MAX_MAP_LENGTH": "8"}) as airflow:
        yield airflow


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The Kubernetes cluster of ``KUBECONFIG``, as its administrator; trials have ``kubeconfig-limited`` beside it."""
    path = os.environ.get("KUBECONFIG")
    if not path:
        pytest.skip("KUBECONFIG names no cluster")
    found = Cluster(Path(path))
    # What a run that was cut off has left.
    for pod in found.pods():
        if pod.metadata.labels.get("hptuning/sweep", "").startswith("pods_"):
            found.delete(pod.metadata.name)
    return found


@pytest.fixture(scope="session")
def live_pods(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    """A running Airflow whose trials are pods, with the rights of the limited service account."""
    home: Path = tmp_path_factory.mktemp("airflow-pods")
    with LiveAirflow(home, POD_SETTINGS | {"KUBECONFIG": str(cluster.limited)}) as airflow:
        yield airflow

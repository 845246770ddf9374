"""What must hold when parts of Airflow die under a sweep of pods: one result for each trial, and no pod twice."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import POD_SETTINGS
from tests.e2e.test_pods import script, sweep
from tests.live_airflow import LiveAirflow, eventually, most_at_once
from tests.live_cluster import NAMESPACE

if TYPE_CHECKING:
    from tests.live_cluster import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SLOW = script("""
    import time
    from airflow_hptuning.tracking import get_params, log_metrics

    for i in range(20):
        log_metrics(step=i, loss=get_params()["x"] / (i + 1))
        time.sleep(0.5)
""")

SYNC = "namespace: hptuning, deferrable: false,"


def kill_worker(live: LiveAirflow, dag_id: str, run_id: str) -> bool:
    """Kill the worker of a running trial with all that it has forked; return whether there was one."""
    running = {i["id"] for i in live.task_instances(dag_id, run_id) if i["state"] == "running" and i["map_index"] >= 0}
    for pid, title in _processes().items():
        if any(f"LocalExecutor: {task_instance}" in title for task_instance in running):
            for victim in [*_children(pid), pid]:
                os.kill(victim, signal.SIGKILL)
            return True
    return False


def _processes() -> dict[int, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            found[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
    return found


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def test_killed_parts_of_airflow_cost_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Triggerer, scheduler and a worker are killed under two sweeps, one deferrable, one not, and started again."""
    settings = POD_SETTINGS | {"KUBECONFIG": str(cluster.limited)}
    deferrable = sweep(cmd=SLOW, search="random_search: {n_experiments: 6}").replace("retries: 0", "retry_delay: 2s")
    with LiveAirflow(tmp_path, settings) as live:
        live.add("pods_chaos.yaml", deferrable)
        live.add("pods_chaos_sync.yaml", deferrable.replace("namespace: hptuning,", SYNC))
        names = ("pods_chaos", "pods_chaos_sync")
        for name in names:
            live.wait_for_dag(name)
        with cluster.record("pods_chaos") as first, cluster.record("pods_chaos_sync") as second:
            runs = {name: live.trigger(name) for name in names}

            def has_three(name: str) -> bool:
                return [pod.status.phase for pod in cluster.pods(name)].count("Running") == 3

            for name in names:
                eventually(partial(has_three, name), what=f"three running pods of {name}")
            live.kill_component("triggerer")
            live.start_component("triggerer")
            eventually(lambda: kill_worker(live, names[1], runs[names[1]]), what="a worker to kill")
            eventually(lambda: len(first.pods) > 3, what="the next pod")
            live.kill_component("scheduler")
            live.start_component("scheduler")
            for name, run_id in runs.items():
                assert live.wait_for_run(name, run_id, seconds=400) == "success"
        for name, history in zip(names, (first, second), strict=True):
            records = live.records(name, runs[name])
            assert [record["state"] for record in records] == ["succeeded"] * 6
            assert [record["trial"] for record in records] == list(range(6))
            assert all(len(record["curve"]["loss"]) == 20 for record in records)
            assert {trial: len(pods) for trial, pods in history.by_trial().items()} == dict.fromkeys(range(6), 1)
            assert most_at_once([(r["started"], r["ended"]) for r in records]) <= 3
            assert not cluster.pods(name, NAMESPACE)

"""Searches on pods: early ends, Hyperband that resumes, Bayesian optimisation."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_pods import script, states, sweep
from tests.live_airflow import eventually, most_at_once

if TYPE_CHECKING:
    from pathlib import Path

    from tests.live_airflow import LiveAirflow
    from tests.live_cluster import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

log = logging.getLogger(__name__)

GOALS = "early_stopping: [{metric: accuracy, value: 0.9}, {metric: loss, value: 0.05, optimization: minimize}]\n  "

HYPERBAND = (
    "hyperband: {max_iter: 9, eta: 3, resume: true, resource: {name: epochs, type: int},"
    " metric: {name: loss, optimization: minimize}}"
)

BO = "bo: {n_initial_trials: 3, n_iterations: 3, metric: {name: loss, optimization: minimize}}"

# Ignores SIGTERM, as a training that is deep in a library does: only SIGKILL ends it. Whichever trials come first, one
# of three running ones is the first to reach the goal.
REACHES_THE_GOAL = script("""
    import os, signal, time
    from airflow_hptuning.tracking import log_metrics

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reaches = 6 + 30 * (int(os.environ["HPTUNING_TRIAL_ID"]) % 3)
    for step in range(300):
        log_metrics(step=step, accuracy=0.95 if step == reaches else 0.1, loss=1.0)
        time.sleep(0.5)
""")

RESUMES = script("""
    import json, os, time
    from airflow_hptuning.tracking import get_outputs_path, get_params, log_metrics

    time.sleep(3)  # long enough for others to start beside it
    params = get_params()
    checkpoint = os.path.join(get_outputs_path(), "checkpoint.json")
    done = json.load(open(checkpoint))["epochs"] if os.path.exists(checkpoint) else 0
    for epoch in range(done, params["epochs"]):
        log_metrics(step=epoch, loss=abs(params["x"] - 0.3) + 1 / (epoch + 1))
    json.dump({"epochs": params["epochs"]}, open(checkpoint, "w"))
""")

BOWL = script("""
    import os, sys, time
    from airflow_hptuning.tracking import get_params, log_metrics

    time.sleep(1)
    if os.environ["HPTUNING_TRIAL_ID"] == "1":
        sys.exit(2)
    log_metrics(loss=(get_params()["x"] - 0.3) ** 2)
""")


def records(live: LiveAirflow, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    """Return the records of all mapped trials of a run, by trial number."""
    found = [
        live.xcom(dag_id, run_id, i["task_id"], i["map_index"])
        for i in live.task_instances(dag_id, run_id)
        if i["task_id"].rpartition(".")[2].startswith("trial") and i["state"] in {"success", "failed"}
    ]
    return sorted(found, key=lambda record: record["trial"])


@pytest.mark.parametrize(
    ("name", "search"),
    [
        ("pods_stop_random", "random_search: {n_experiments: 8}"),
        ("pods_stop_hyperband", HYPERBAND),
        ("pods_stop_bo", BO),
    ],
)
def test_a_goal_ends_all_pods(live_pods: LiveAirflow, cluster: Cluster, name: str, search: str) -> None:
    """One trial reaches the goal: the other pods end, keep their metrics, and nothing else starts."""
    live_pods.add(f"{name}.yaml", sweep(cmd=REACHES_THE_GOAL, search=GOALS + search, concurrency=3))
    with cluster.record(name) as history:
        live_pods.wait_for_dag(name)
        run_id = live_pods.trigger(name)
        eventually(lambda: len(history.pods) >= 3, what="three pods")
        assert live_pods.wait_for_run(name, run_id) == "success"
        assert not cluster.pods(name)
        time.sleep(2)
        assert not cluster.pods(name)
    found = records(live_pods, name, run_id)
    stop = live_pods.xcom(name, run_id, "collect")["stop"]
    log.info("%s: the last container ended %.1f s after the goal", name, history.last_running - stop["at"])
    assert len(history.pods) == 3, "nothing starts after the goal"
    assert states(live_pods, name, run_id) <= {"success", "skipped"}
    assert [record["state"] for record in found] == ["stopped"] * 3
    assert [record["trial"] for record in found if record["best"]["accuracy"] == 0.95] == [stop["trial"]]
    assert (stop["cause"], stop["metric"], stop["value"]) == ("goal", "accuracy", 0.95)
    assert all(len(record["curve"]["accuracy"]) > 3 for record in found), "metrics are kept"


def test_hyperband_resumes_from_a_volume(live_pods: LiveAirflow, cluster: Cluster, tmp_path: Path) -> None:
    """A promoted config finds its checkpoint on the mounted volume, and trains what is added only.

    The pool is shared and has more slots than the sweep may use: the sweep holds its concurrency all the same.
    """
    pool = {"name": "pods_shared", "slots": 16, "include_deferred": True}
    live_pods.api("POST", "pools", pool)
    volume = (
        f'  kubernetes: {{namespace: hptuning, volumes: [{{name: out, hostPath: {{path: "{tmp_path}"}}}}],'
        " volume_mounts: [{name: out, mountPath: /outputs}]}\n  outputs: {path: /outputs}\n"
        f"  pool: {pool['name']}\n"
    )
    text = sweep(cmd=RESUMES, search=HYPERBAND, concurrency=3)
    text = "".join(volume if "kubernetes: {" in line else line for line in text.splitlines(keepends=True))
    live_pods.add("pods_hyperband.yaml", text)
    with cluster.record("pods_hyperband") as history:
        run_id, state = live_pods.run("pods_hyperband", seconds=600)
    assert state == "success"
    found = records(live_pods, "pods_hyperband", run_id)
    sizes = Counter((record["bracket"], record["rung"], record["resource"]) for record in found)
    assert sizes == {(2, 0, 1): 9, (2, 1, 3): 3, (2, 2, 9): 1, (1, 0, 3): 5, (1, 1, 9): 1, (0, 0, 9): 3}
    for record in found:
        before = 0 if record["rung"] == 0 else record["resource"] // 3
        assert [point[0] for point in record["curve"]["loss"]] == list(range(before, record["resource"]))
        assert record["note"] is None
    assert len(history.pods) == len(found)
    assert most_at_once([(record["started"], record["ended"]) for record in found]) <= 3
    assert live_pods.xcom("pods_hyperband", run_id, "collect")["best"]["resource"] == 9


def test_bayesian_optimisation_on_pods(live_pods: LiveAirflow, cluster: Cluster) -> None:
    """Initial design and iterations, one trial failing: as many trials as planned, none twice, no pod left."""
    live_pods.add("pods_bo.yaml", sweep(cmd=BOWL, search=BO, concurrency=2))
    run_id, state = live_pods.run("pods_bo", seconds=600)
    assert state == "success"
    found = records(live_pods, "pods_bo", run_id)
    assert [record["trial"] for record in found] == list(range(6))
    assert len({record["config_id"] for record in found}) == 6
    assert [record["trial"] for record in found if record["state"] == "failed"] == [1]
    assert most_at_once([(record["started"], record["ended"]) for record in found]) <= 2
    assert "upstream_failed" not in states(live_pods, "pods_bo", run_id)
    assert not cluster.pods("pods_bo")

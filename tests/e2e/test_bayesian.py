"""Bayesian optimisation on the local runner, in a real Airflow."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.live_airflow import airflow_in, eventually, most_at_once

if TYPE_CHECKING:
    from pathlib import Path

    from tests.live_airflow import LiveAirflow

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

SCRIPT = """
import json, os, sys, time
from airflow_hptuning.tracking import get_params, log_metrics

params = get_params()
trial = int(os.environ["HPTUNING_TRIAL_ID"])
time.sleep(2)
if trial == int(sys.argv[1]):
    sys.exit("this trial always fails")
log_metrics(loss=abs(params["lr"] - 0.01) + (params["activation"] == "tanh"))
"""

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: {concurrency}
  seed: 11
  bo:
    n_initial_trials: {initial}
    n_iterations: {iterations}
    metric: {{name: loss, optimization: minimize}}
    utility_function:
      acquisition_function: ucb
      kappa: 1.2
      gaussian_process: {{kernel: matern, length_scale: 1.0, nu: 1.9, n_restarts_optimizer: 0}}
  matrix:
    lr: {{loguniform: [-9, -1]}}
    units: {{linspace: "16:128:8"}}
    activation: {{pvalues: [[relu, 0.1], [tanh, 0.9]]}}
run: {{cmd: python bayesian.py {failing}}}
airflow: {{bo_synchronous: {synchronous}, max_active_runs: 2}}
"""

QUICK_RECOVERY = {
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
}


def outcome(live: LiveAirflow, dag_id: str, run_id: str) -> tuple[Counter[tuple[str, str]], list[dict[str, Any]]]:
    """How many tasks of each kind are in each state, and the records of all trials by number."""
    instances = live.task_instances(dag_id, run_id)
    states = Counter((i["task_id"].rpartition(".")[2], str(i["state"])) for i in instances)
    records = [
        live.xcom(dag_id, run_id, i["task_id"], i["map_index"])
        for i in instances
        if i["task_id"].endswith("trial") and i["map_index"] >= 0 and i["state"] in {"success", "failed"}
    ]
    return states, sorted(records, key=lambda record: record["trial"])


def test_a_sweep_survives_its_scheduler_and_triggerer(tmp_path: Path) -> None:
    """Both are killed in mid-loop, and one trial fails on purpose: all run, none twice, at most three at once."""
    with airflow_in(tmp_path, QUICK_RECOVERY) as live:
        live.add("bayesian.py", SCRIPT)
        live.add(".airflowignore", "bayesian.py\n")
        live.add("survivor.yaml", SWEEP.format(concurrency=3, initial=4, iterations=6, failing=5, synchronous="false"))
        live.wait_for_dag("survivor")
        run_id = live.trigger("survivor")

        def in_mid_loop() -> bool:
            states = {i["task_id"]: i["state"] for i in live.task_instances("survivor", run_id)}
            return states["iteration_001.suggest"] == "success" and states["iteration_004.suggest"] is None

        eventually(in_mid_loop, what="the middle of the loop")
        live.kill_component("triggerer")
        live.kill_component("scheduler")
        live.start_component("scheduler")
        live.start_component("triggerer")
        assert live.wait_for_run("survivor", run_id) == "success"
        states, records = outcome(live, "survivor", run_id)
        assert states == {
            ("suggest", "success"): 7,
            ("trial", "success"): 9,
            ("trial", "failed"): 1,
            ("collect", "success"): 1,
        }
        summary = live.xcom("survivor", run_id, "collect")
    assert [record["trial"] for record in records] == list(range(10))
    assert len({record["config_id"] for record in records}) == 10
    assert [record["trial"] for record in records if record["state"] == "failed"] == [5]
    assert summary["states"] == {"succeeded": 9, "failed": 1}
    assert most_at_once([(record["started"], record["ended"]) for record in records]) <= 3
    assert {record["info"]["source"] for record in records[:4]} == {"initial design"}
    for record in records[4:]:
        info = record["info"]
        assert info["source"] == "model"
        assert len(info["pending"]) <= 2, "with its own at most three are unfinished"
        assert sorted([*info["known"], *info["pending"]]) == list(range(record["trial"]))


def test_a_synchronous_sweep_repeats_itself(live: LiveAirflow) -> None:
    """Two runs with the same seed suggest the same, though trials run side by side and end as they like."""
    live.add("bayesian.py", SCRIPT)
    with (live.dags / ".airflowignore").open("a") as ignored:
        ignored.write("bayesian.py\n")
    live.add("same.yaml", SWEEP.format(concurrency=2, initial=2, iterations=4, failing=3, synchronous="true"))
    live.wait_for_dag("same")
    runs = [live.trigger("same") for _ in range(2)]
    suggested = []
    for run_id in runs:
        assert live.wait_for_run("same", run_id) == "success"
        _, records = outcome(live, "same", run_id)
        suggested.append([(record["trial"], record["params"], record["info"]) for record in records])
    assert [trial for trial, _, _ in suggested[0]] == list(range(6))
    assert suggested[0] == suggested[1]
    assert [info.get("pending") for _, _, info in suggested[0][2:]] == [[], [2], [], [4]]

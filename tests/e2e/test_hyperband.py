"""Hyperband on the local runner, in a real Airflow."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.live_airflow import most_at_once

if TYPE_CHECKING:
    from tests.live_airflow import LiveAirflow

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

SCRIPT = """
import json, os, sys
from airflow_hptuning.tracking import get_outputs_path, get_params, log_metrics

params = get_params()
if params["x"] > 0.9:
    sys.exit("this config always fails")
checkpoint = os.path.join(get_outputs_path(), "checkpoint.json")
done = json.load(open(checkpoint))["epochs"] if os.path.exists(checkpoint) else 0
for epoch in range(done, params["epochs"]):
    log_metrics(step=epoch, loss=abs(params["x"] - 0.3) + 1 / (epoch + 1))
print("trained", params["epochs"] - done, "epochs from", done, "with", sys.argv[1])
json.dump({"epochs": params["epochs"]}, open(checkpoint, "w"))
"""

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: 4
  seed: 5
  hyperband:
    max_iter: 9
    eta: 3
    resume: true
    resource: {name: epochs, type: int}
    metric: {name: loss, optimization: minimize}
  matrix:
    x: {uniform: [0, 1]}
run:
  cmd: python halving.py --epochs={{ epochs }}
"""


@pytest.fixture(scope="module")
def records(live: LiveAirflow) -> list[dict[str, Any]]:
    """The records of one run of 9/3, by trial number."""
    live.add("halving.py", SCRIPT)
    live.add("halving.yaml", SWEEP)
    run_id, state = live.run("halving")
    assert state == "success"
    instances = live.task_instances("halving", run_id)
    assert not [i for i in instances if i["state"] == "upstream_failed"]
    found = [
        live.xcom("halving", run_id, i["task_id"], i["map_index"])
        for i in instances
        if ".trial" in i["task_id"] and i["state"] in {"success", "failed"}
    ]
    summary = live.xcom("halving", run_id, "collect")
    assert summary["best"]["resource"] == 9, "the winner of a run without early ends got everything"
    return sorted(found, key=lambda record: record["trial"])


def test_rungs_have_the_sizes_of_the_schedule(records: list[dict[str, Any]]) -> None:
    """9@1 3@3 1@9, 5@3 1@9, 3@9; failing trials do not block their rungs."""
    sizes = Counter((record["bracket"], record["rung"], record["resource"]) for record in records)
    assert sizes == {(2, 0, 1): 9, (2, 1, 3): 3, (2, 2, 9): 1, (1, 0, 3): 5, (1, 1, 9): 1, (0, 0, 9): 3}
    assert any(record["state"] == "failed" for record in records), "the seed has configs that fail"


def test_the_best_of_a_rung_go_on(records: list[dict[str, Any]]) -> None:
    """Each rung's survivors are the best of the rung before."""
    for bracket, rung in ((2, 0), (2, 1), (1, 0)):
        ranked = sorted(
            (r for r in records if (r["bracket"], r["rung"], r["state"]) == (bracket, rung, "succeeded")),
            key=lambda r: r["metrics"]["loss"],
        )
        following = [r["config_id"] for r in records if (r["bracket"], r["rung"]) == (bracket, rung + 1)]
        assert [r["config_id"] for r in ranked[: len(following)]] == following


def test_promoted_trials_resume_from_their_own_checkpoint(records: list[dict[str, Any]]) -> None:
    """The command has the rung's own resource, and only what is added is trained."""
    for record in records:
        if record["state"] == "succeeded":
            before = {0: 0, 1: record["resource"] // 3, 2: record["resource"] // 3}[record["rung"]]
            steps = [point[0] for point in record["curve"]["loss"]]
            assert steps == list(range(before, record["resource"]))
            assert record["note"] is None


def test_concurrency_holds_across_brackets(records: list[dict[str, Any]]) -> None:
    """Brackets run side by side, within one limit."""
    assert most_at_once([(record["started"], record["ended"]) for record in records]) <= 4

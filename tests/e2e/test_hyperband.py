"""Hyperband on the local runner, in a real Airflow."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from airflow_hptuning.search.schedule import schedule
from tests.live_airflow import most_at_once

if TYPE_CHECKING:
    from tests.live_airflow import LiveAirflow

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

Records = list[dict[str, Any]]

SCRIPT = """
import json, os, random, sys, time
from airflow_hptuning.tracking import get_outputs_path, get_params, log_metrics

params = get_params()
checkpoint = os.path.join(get_outputs_path(), "checkpoint.json")
state = json.load(open(checkpoint)) if os.path.exists(checkpoint) else {"x": params["x"], "epochs": 0}
print("found", json.dumps(state))
# One trial in four, whatever its config; the salt spares the last rungs.
if random.Random("66/" + os.environ["HPTUNING_TRIAL_ID"]).random() < 0.25:
    sys.exit("bad luck")
assert state["x"] == params["x"], "the checkpoint of another config"
assert int(sys.argv[1]) == params["epochs"], "the command of another rung"
for epoch in range(state["epochs"], params["epochs"]):
    log_metrics(step=epoch, loss=abs(params["x"] - 0.3) + 1 / (epoch + 1))
    state["epochs"] += 1
time.sleep(0.3)
json.dump(state, open(checkpoint, "w"))
"""

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: 4
  seed: 5
  hyperband:
    max_iter: 27
    eta: 3
    resume: true
    resource: {name: epochs, type: int}
    metric: {name: loss, optimization: minimize}
  matrix:
    x: {uniform: [0, 1]}
run:
  cmd: python halving.py {{ epochs }}
"""


@pytest.fixture(scope="module")
def records(live: LiveAirflow) -> Records:
    """The records of one run of 27/3 in which a quarter of the trials fail, by trial number."""
    live.add("halving.py", SCRIPT)
    live.add("halving.yaml", SWEEP)
    run_id, state = live.run("halving")
    assert state == "success"
    instances = live.task_instances("halving", run_id)
    assert {i["state"] for i in instances} <= {"success", "failed", "skipped"}
    found = [
        live.xcom("halving", run_id, i["task_id"], i["map_index"])
        for i in instances
        if ".trial" in i["task_id"] and i["state"] in {"success", "failed"}
    ]
    summary = live.xcom("halving", run_id, "collect")
    assert summary["best"]["resource"] == 27, "the winner got everything"
    return sorted(found, key=lambda record: record["trial"])


def rung_of(records: Records, bracket: int, rung: int) -> Records:
    """The records of a rung."""
    return [record for record in records if (record["bracket"], record["rung"]) == (bracket, rung)]


def ranked(records: Records) -> Records:
    """Those that succeeded, from the best to the worst."""
    valued = [record for record in records if record["state"] == "succeeded"]
    return sorted(valued, key=lambda record: record["metrics"]["loss"])


def test_a_quarter_of_failures_ends_no_bracket(records: Records) -> None:
    """27@1 9@3 3@9 1@27 and so on: each bracket gets to its top, and fails nowhere but in the script."""
    sizes = Counter((record["bracket"], record["rung"], record["resource"]) for record in records)
    assert sizes == {
        (bracket.bracket, rung.rung, rung.resource): rung.trials
        for bracket in schedule(27, 3, "int")
        for rung in bracket.rungs
    }
    failed = [record for record in records if record["state"] == "failed"]
    assert len(failed) == 17
    assert {record["failure"]["class"] for record in failed} == {"user_code"}
    assert {record["rung"] for record in failed} == {0, 1, 2}


def test_the_best_of_a_rung_go_on(records: Records) -> None:
    """Each rung's survivors are the best of the rung before, in their order; a failed one is never among them."""
    for bracket in schedule(27, 3, "int"):
        for rung in bracket.rungs[1:]:
            best = ranked(rung_of(records, bracket.bracket, rung.rung - 1))
            following = rung_of(records, bracket.bracket, rung.rung)
            assert [record["config_id"] for record in following] == [
                record["config_id"] for record in best[: rung.trials]
            ]


def test_promoted_trials_resume_from_their_own_checkpoint(records: Records) -> None:
    """Only what is added is trained: the epochs of a config's trials, one after the other, are its last resource."""
    epochs: dict[tuple[int, str], list[int]] = {}
    for record in records:
        if record["state"] == "succeeded":
            config = epochs.setdefault((record["bracket"], record["config_id"]), [])
            config.extend(step for step, _ in record["curve"]["loss"])
            assert config == list(range(record["resource"]))
            assert record["note"] is None


def test_concurrency_holds_across_brackets(records: Records) -> None:
    """Brackets run side by side, within one limit."""
    assert most_at_once([(record["started"], record["ended"]) for record in records]) <= 4

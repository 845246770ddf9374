"""What Hyperband makes of interruptions: a scheduler that dies, a person who clears a trial."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.live_airflow import LiveAirflow, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

SCRIPT = '''
"""Train in epochs with a checkpoint; say in a file of its own that it has started, and how far it came."""
import json, os, sys, time
from airflow_hptuning.tracking import get_outputs_path, get_params, log_metrics

params = get_params()
notes = os.path.join(os.path.dirname(__file__), "started")
os.makedirs(notes, exist_ok=True)
attempts = os.path.join(notes, os.environ["HPTUNING_SWEEP"] + "-" + os.environ["HPTUNING_TRIAL_ID"])
with open(attempts, "a") as file:
    file.write(str(os.getpgid(0)) + "\\n")
mended = os.path.join(notes, os.environ["HPTUNING_SWEEP"] + "-mended")
if os.environ["HPTUNING_TRIAL_ID"] in os.environ.get("LUCKLESS", "") and not os.path.exists(mended):
    sys.exit("not mended yet")
checkpoint = os.path.join(get_outputs_path(), "checkpoint.json")
done = json.load(open(checkpoint)) if os.path.exists(checkpoint) else 0
for epoch in range(done, params["epochs"]):
    time.sleep(float(os.environ["SECONDS_PER_EPOCH"]))
    log_metrics(step=epoch, loss=params["x"] + 1 / (epoch + 1))
    with open(checkpoint + ".new", "w") as file:
        json.dump(epoch + 1, file)
    os.replace(checkpoint + ".new", checkpoint)
'''

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: 3
  seed: 1
  hyperband:
    max_iter: 3
    eta: 3
    resume: true
    resource: {name: epochs, type: int}
    metric: {name: loss, optimization: minimize}
  matrix:
    x: {range: [0, 5, 1]}
run: {cmd: python recovering.py}
airflow:
"""

INTERRUPTED = SWEEP + '  local: {env: {SECONDS_PER_EPOCH: "4"}}\n'
CLEARED = SWEEP + '  local: {env: {SECONDS_PER_EPOCH: "0", LUCKLESS: "%s"}}\n'


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    """An Airflow whose scheduler may be killed; a new one notices soon that the old one is gone."""
    settings = {
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    }
    with LiveAirflow(tmp_path_factory.mktemp("airflow"), settings) as live:
        live.add("recovering.py", SCRIPT)
        live.add(".airflowignore", "recovering.py\n")
        yield live


def records(live: LiveAirflow, dag_id: str, run_id: str) -> dict[int, dict[str, Any]]:
    """The record of every trial that ran, by its number."""
    found = [
        live.xcom(dag_id, run_id, instance["task_id"], instance["map_index"])
        for instance in live.task_instances(dag_id, run_id)
        if ".trial" in instance["task_id"] and instance["state"] in {"success", "failed"}
    ]
    return {record["trial"]: record for record in found}


def attempts(live: LiveAirflow, dag_id: str, trial: int) -> list[int]:
    """Process group of every time that a trial was started."""
    path = live.dags / "started" / f"{dag_id}-{trial}"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_alive(group: int) -> bool:
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_scheduler_loses_nothing(own: LiveAirflow) -> None:
    """SIGKILL for it and its workers amid the first rungs, then a new one: the same trials, the same winner."""
    own.add("interrupted.yaml", INTERRUPTED)
    own.wait_for_dag("interrupted")
    run_id = own.trigger("interrupted")
    eventually(lambda: attempts(own, "interrupted", 1), what="two running trials")
    own.kill_component("scheduler", signal.SIGKILL)
    groups = [group for trial in range(6) for group in attempts(own, "interrupted", trial)]
    eventually(lambda: not any(map(is_alive, groups)), seconds=30, what="the end of the orphaned trials")
    assert own.run_state("interrupted", run_id) == "running"
    own.start_component("scheduler")
    assert own.wait_for_run("interrupted", run_id) == "success"

    found = records(own, "interrupted", run_id)
    sizes = [(one["bracket"], one["rung"], one["resource"]) for one in found.values()]
    assert sorted(sizes) == [(0, 0, 3), (0, 0, 3), (1, 0, 1), (1, 0, 1), (1, 0, 1), (1, 1, 3)]
    assert {one["state"] for one in found.values()} == {"succeeded"}
    best = min((found[trial] for trial in range(3)), key=lambda one: one["metrics"]["loss"])
    assert found[3]["config_id"] == best["config_id"]
    assert [step for step, _ in found[3]["curve"]["loss"]] == [1, 2], "it went on from its checkpoint"
    assert any(len(attempts(own, "interrupted", trial)) > 1 for trial in range(6)), "something was interrupted"


def test_clearing_a_failed_trial_ranks_its_rung_again(own: LiveAirflow) -> None:
    """A failed trial that would have been the best is cleared with what follows: its config goes on this time."""
    own.add("cleared.yaml", CLEARED % "0")
    run_id, state = own.run("cleared")
    assert state == "success"
    before = records(own, "cleared", run_id)
    values = {trial: before[trial]["params"]["x"] for trial in range(3)}
    assert before[0]["state"] == "failed"
    assert before[3]["params"]["x"] == min(values[1], values[2])

    (own.dags / "started" / "cleared-mended").touch()
    own.clear("cleared", run_id, [["bracket_1.rung_0.trial", 0]])
    assert own.wait_for_run("cleared", run_id) == "success"
    after = records(own, "cleared", run_id)
    assert {trial: len(attempts(own, "cleared", trial)) for trial in range(6)} == {0: 2, 1: 1, 2: 1, 3: 2, 4: 1, 5: 1}
    assert after[0]["state"] == "succeeded"
    assert after[3]["params"]["x"] == min(values.values())
    summary = own.xcom("cleared", run_id, "collect")
    assert summary["states"] == {"succeeded": 6}


def test_a_rung_without_a_value_ends_its_bracket_only(own: LiveAirflow) -> None:
    """The other bracket and ``collect`` are not held up, and the bracket goes on once its trials are cleared."""
    own.add("hopeless.yaml", CLEARED % "0, 1, 2")
    run_id, state = own.run("hopeless")
    assert state == "success"
    states = {i["task_id"]: i["state"] for i in own.task_instances("hopeless", run_id)}
    assert states["bracket_1.rung_0.halve"] == "success"
    assert states["bracket_1.rung_1.trial"] == "skipped"
    assert "Bracket 1 ends at rung 0: no trial has a value" in own.task_log(
        "hopeless", run_id, "bracket_1.rung_0.halve"
    )
    summary = own.xcom("hopeless", run_id, "collect")
    assert (summary["best"]["bracket"], summary["states"]) == (0, {"succeeded": 2, "failed": 3})

    (own.dags / "started" / "hopeless-mended").touch()
    own.clear("hopeless", run_id, [["bracket_1.rung_0.trial", index] for index in range(3)])
    assert own.wait_for_run("hopeless", run_id) == "success"
    assert own.xcom("hopeless", run_id, "collect")["states"] == {"succeeded": 6}

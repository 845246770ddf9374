"""Early stopping in a real Airflow: how fast a sweep ends, and that it always ends the same way."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.stop_race import markers, processes_of, repeat
from tests.live_airflow import LiveAirflow, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

SECONDS_TO_END = 30.0
"""From the line with the metric to the end of the last process. The promise is 10; a busy machine is given more."""

RACES = 5
"""Repetitions of the race; 50 in the campaign, ``python -m benchmarks.stop_race``."""

SCRIPT = '''
"""Each trial says where it runs; the third to start reaches the goal, the others train on, one deaf to SIGTERM."""
import json, os, signal, subprocess, sys, time

folder = sys.argv[1]
for place in range(100):
    try:
        file = os.open(os.path.join(folder, f"{place}.json"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        continue
    break
os.write(file, json.dumps({"group": os.getpgid(0), "trial": int(os.environ["HPTUNING_TRIAL_ID"])}).encode())
if place == 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "600"])
deadline = time.time() + 300
while time.time() < deadline:
    print("accuracy=0.5 loss=0.7", flush=True)
    time.sleep(2)
    if place == 2:
        with open(os.path.join(folder, "reached"), "w") as reached:
            reached.write(str(time.time()))
        print("accuracy=0.93 loss=0.2", flush=True)
        time.sleep(600)
'''

GOALS = """
  early_stopping:
    - {metric: accuracy, value: 0.9, optimization: maximize}
    - {metric: loss, value: 0.05, optimization: minimize}
"""
"""The goals of Polyaxon's own examples."""

SEARCHES = {
    "stop_grid": "matrix: {x: {range: [0, 12, 1]}}",
    "stop_random": "seed: 3\n  random_search: {n_experiments: 7}\n  matrix: {x: {uniform: [0, 1]}}",
    "stop_hyperband": (
        "seed: 3\n  hyperband: {max_iter: 9, eta: 3, resource: {name: steps, type: int}, metric: {name: loss,"
        " optimization: minimize}}\n  matrix: {x: {uniform: [0, 1]}}"
    ),
    "stop_bo": (
        "seed: 3\n  bo: {n_initial_trials: 4, n_iterations: 5, metric: {name: loss, optimization: minimize}}"
        "\n  matrix: {x: {uniform: [0, 1]}}"
    ),
}

ALL_FAIL = """
version: 1
kind: group
hptuning: {concurrency: 2, matrix: {x: {range: [0, 30, 1]}}}
run: {cmd: "echo no luck; exit 3"}
airflow:
  budget: {max_failures: 3}
  metrics: {objective: {name: loss, optimization: minimize}}
"""

BUDGET = """
version: 1
kind: group
hptuning: {concurrency: 2, matrix: {x: {range: [0, 20, 1]}}}
run: {cmd: "echo loss={{ x }}; sleep %s"}
airflow:
  budget: {%s}
  metrics: {objective: {name: loss, optimization: minimize}}
"""

POLICY = """
version: 1
kind: group
hptuning:
  concurrency: 4
  matrix: {x: {values: [1, 2, 3, 50]}}
  early_stopping:
    - {metric: loss, optimization: minimize, policy: {kind: median, evaluation_interval: 2, min_trials: 2}}
run:
  cmd: for step in $(seq 1 20); do echo step=$step loss={{ x }}; sleep 1; done
"""

BY_HAND = """
version: 1
kind: group
hptuning: {concurrency: 1, matrix: {x: {values: [0, 1, 2]}}}
run:
  cmd: echo loss=1; echo $$ > by_hand-{{ x }}; sleep 600
airflow:
  metrics: {objective: {name: loss, optimization: minimize}}
"""


def sweep_of(name: str, folder: Path) -> str:
    """The polyaxonfile of a sweep whose third trial to start reaches the goal."""
    return (
        "version: 1\nkind: group\n"
        f"hptuning:\n  concurrency: 3\n  {SEARCHES[name]}{GOALS}"
        f"run: {{cmd: python3 goal.py {folder}}}\n"
    )


@pytest.fixture(scope="module", autouse=True)
def _script(live: LiveAirflow) -> None:
    live.add("goal.py", SCRIPT)
    with (live.dags / ".airflowignore").open("a") as ignored:
        ignored.write("goal.py\n")


def groups_alive(groups: set[int]) -> list[int]:
    """Processes of these groups that are not dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) in groups and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_for(check: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """As ``eventually``, but looking ten times a second, for what is measured."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def task_states(live: LiveAirflow, dag_id: str, run_id: str) -> Counter[str]:
    """How many task instances are in each state."""
    return Counter(str(instance["state"]) for instance in live.task_instances(dag_id, run_id))


def all_records(live: LiveAirflow, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    """The records of all trials of a run, whatever group they are in."""
    instances = live.task_instances(dag_id, run_id)
    tasks = {i["task_id"] for i in instances if i["map_index"] >= 0}
    return [record for task in sorted(tasks) for record in live.records(dag_id, run_id, task)]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_goal_ends_everything_within_seconds(
    live: LiveAirflow, tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    """The third trial reaches the goal: all processes go, nothing else starts, and every state is right."""
    live.add(f"{name}.yaml", sweep_of(name, tmp_path))
    live.wait_for_dag(name)
    run_id = live.trigger(name)
    wait_for((tmp_path / "reached").exists, seconds=120, what="the goal")
    places = [json.loads((tmp_path / f"{place}.json").read_text()) for place in range(3)]
    groups = {place["group"] for place in places}
    wait_for(lambda: not groups_alive(groups), seconds=60, what="the end of the processes")
    seconds = time.time() - float((tmp_path / "reached").read_text())
    record_property("seconds_to_end", round(seconds, 1))
    print(f"{name}: the last process was gone {seconds:.1f} s after the goal")  # noqa: T201 - a measured number
    assert seconds <= SECONDS_TO_END
    assert live.wait_for_run(name, run_id) == "success"
    assert processes_of(run_id) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.json", "1.json", "2.json", "reached"]

    records = {record["trial"]: record for record in all_records(live, name, run_id)}
    trials = [place["trial"] for place in places]
    assert sorted(records) == sorted(trials)
    assert {record["state"] for record in records.values()} == {"stopped"}
    assert [records[trial]["metrics"]["accuracy"] for trial in trials] == [0.5, 0.5, 0.93]
    assert all(f"trial {trials[2]} reached accuracy >= 0.9" in record["note"] for record in records.values())
    summary = live.xcom(name, run_id, "collect")
    assert summary["best"]["trial"] == trials[2]
    assert (summary["stop"]["cause"], summary["stop"]["trial"], summary["stop"]["value"]) == ("goal", trials[2], 0.93)
    planned = {"stop_grid": 12, "stop_random": 7, "stop_hyperband": 22, "stop_bo": 9}[name]
    assert summary["stop"]["saved"]["trials"] == planned - 3
    states = task_states(live, name, run_id)
    assert set(states) == {"success", "skipped"}
    assert markers(live, name, run_id) == 1


def test_a_hopeless_sweep_ends_by_its_budget(live: LiveAirflow) -> None:
    """Four of thirty trials fail, one or two may be running then; the run fails and says why."""
    live.add("stop_failures.yaml", ALL_FAIL)
    run_id, state = live.run("stop_failures")
    assert state == "failed"
    states = task_states(live, "stop_failures", run_id)
    assert set(states) == {"success", "skipped", "failed"}
    assert 4 + 1 <= states["failed"] <= 6 + 1, "and `collect`"
    assert "more than the 3 allowed" in live.task_log("stop_failures", run_id, "collect")
    summary = live.xcom("stop_failures", run_id, "collect")
    assert summary["stop"]["cause"] == "max_failures"
    assert summary["failures"]["user_code"]["count"] == states["failed"] - 1


def test_time_and_patience_end_a_sweep(live: LiveAirflow) -> None:
    """Both are successes, as trials have values: of those that ended, or that were running when the time was up."""
    live.add("stop_patience.yaml", BUDGET % ("0.1", "patience: 3"))
    live.add("stop_hours.yaml", BUDGET % ("600", "max_hours: 0.01"))
    runs = {}
    for name in ("stop_patience", "stop_hours"):
        live.wait_for_dag(name)
        runs[name] = live.trigger(name)
    for name, run_id in runs.items():
        assert live.wait_for_run(name, run_id) == "success"
        assert set(task_states(live, name, run_id)) == {"success", "skipped"}
    patience, hours = (live.xcom(name, run_id, "collect") for name, run_id in runs.items())
    assert (patience["stop"]["cause"], patience["best"]["trial"]) == ("patience", 0)
    assert patience["stop"]["text"].endswith("trials have finished without an improvement")
    assert 4 <= patience["states"]["succeeded"] <= 6, "the best, three more, and whoever was running or starting"
    assert (hours["stop"]["cause"], hours["states"]) == ("max_hours", {"stopped": 2, "skipped": 18})


def test_trials_that_reach_the_goal_together_end_the_sweep_once(live: LiveAirflow) -> None:
    """The race, again and again: one marker, one clean end, no strange state, nothing left (see the benchmark)."""
    ends = repeat(live, RACES)
    assert ends.total() == RACES


def test_a_policy_ends_the_hopeless_trial_only(live: LiveAirflow) -> None:
    """The trial whose loss is far worse than the others' is stopped; the rest trains to the end."""
    live.add("stop_policy.yaml", POLICY)
    run_id, state = live.run("stop_policy")
    assert state == "success"
    records = all_records(live, "stop_policy", run_id)
    assert records[3]["state"] == "stopped"
    assert records[3]["note"].startswith("median policy: loss was 50 at best")
    assert records[0]["state"] == "succeeded"
    assert live.xcom("stop_policy", run_id, "collect")["stop"] is None


def test_a_person_ends_a_sweep(live: LiveAirflow) -> None:
    """By editing the XCom `stop` of the task that suggests: the running trial ends, the others are skipped.

    With it emptied, and the others cleared, the sweep goes on; their trials are ended by hand once more.
    """
    live.add("stop_by_hand.yaml", BY_HAND)
    live.wait_for_dag("stop_by_hand")
    run_id = live.trigger("stop_by_hand")
    pid_file = live.dags / "by_hand-0"
    eventually(pid_file.exists, what="the first trial")
    group = int(pid_file.read_text())
    path = f"dags/stop_by_hand/dagRuns/{urllib.parse.quote(run_id)}/taskInstances/suggest/xcomEntries/stop"
    live.api("PATCH", path, {"value": "enough for today", "map_index": -1})
    assert live.wait_for_run("stop_by_hand", run_id) == "success"
    assert not groups_alive({group})
    summary = live.xcom("stop_by_hand", run_id, "collect")
    assert summary["stop"]["text"] == "stopped by hand: enough for today"
    assert summary["states"] == {"stopped": 1, "skipped": 2}

    live.api("PATCH", path, {"value": {}, "map_index": -1})
    live.clear("stop_by_hand", run_id, [["trial", 1], ["trial", 2]])
    eventually((live.dags / "by_hand-1").exists, what="the second trial")
    live.api("PATCH", path, {"value": True, "map_index": -1})
    assert live.wait_for_run("stop_by_hand", run_id) == "success"
    summary = live.xcom("stop_by_hand", run_id, "collect")
    assert (summary["stop"]["text"], summary["states"]) == ("stopped by hand", {"stopped": 2, "skipped": 1})


def test_marking_the_run_failed_ends_its_processes(live: LiveAirflow) -> None:
    """Airflow's own way to stop a run leaves nothing behind either."""
    live.add("stop_marked.yaml", BY_HAND.replace("by_hand-", "marked-"))
    live.wait_for_dag("stop_marked")
    run_id = live.trigger("stop_marked")
    pid_file = live.dags / "marked-0"
    eventually(pid_file.exists, what="the first trial")
    group = int(pid_file.read_text())
    live.api("PATCH", f"dags/stop_marked/dagRuns/{urllib.parse.quote(run_id)}", {"state": "failed"})
    eventually(lambda: not groups_alive({group}), seconds=30, what="the end of the processes")
    assert not (live.dags / "marked-1").exists()

"""Sweeps on the local runner, in a real Airflow: what the README promises."""

from __future__ import annotations

import os
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.live_airflow import LiveAirflow, eventually, most_at_once

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

SCRIPT = """
import json, os, sys, time
from polyaxon_client.tracking import Experiment

experiment = Experiment()
params = experiment.get_params()
started = time.time()
with open(os.path.join(experiment.get_outputs_path(), "seen.json"), "w") as seen:
    json.dump({"params": params, "argv": sys.argv[1:]}, seen)
time.sleep(float(os.environ.get("SECONDS", "0.5")))
x = float(params["x"])
for step in range(3):
    experiment.log_metrics(step=step, loss=(x - 2) ** 2 + 1 / (step + 1))
"""

GRID = """
version: 1
kind: group
hptuning:
  concurrency: 2
  matrix:
    x: {linspace: "0:4:5"}
    kind: {values: [plain, "with blank's and $HOME {{ x }}"]}
run:
  cmd: python3 script.py --x={{ x }} --kind={{ kind | quote }}
airflow:
  metrics: {objective: {name: loss, optimization: minimize}}
"""

RANDOM = """
version: 1
kind: group
declarations: {base: 3}
hptuning:
  concurrency: 3
  seed: 7
  random_search: {n_experiments: 6}
  matrix:
    x: {uniform: [0, 4]}
    act: {pvalues: [[relu, 0.3], [tanh, 0.7]]}
  early_stopping:
    - {metric: loss, value: -100, optimization: minimize}
run:
  cmd: python3 script.py --x={{ x }} --act={{ act }} --base={{ base }}
airflow:
  tags: [nightly]
  owner: ada
"""

SOME_FAIL = """
version: 1
kind: group
hptuning:
  concurrency: 4
  matrix:
    x: {values: [0, 1, 2, 3]}
run:
  # Trial 1 fails until the file `repaired` exists; trial 3 reports no metric; trial 2 takes too long.
  cmd: >-
    if [ {{ x }} = 1 ] && [ ! -e repaired ]; then echo about to fail; exit 3; fi;
    if [ {{ x }} = 2 ]; then sleep 300; fi;
    if [ {{ x }} = 3 ]; then echo nothing to see; exit 0; fi;
    echo loss={{ x }}
airflow:
  metrics: {objective: {name: loss, optimization: minimize}}
  trial: {timeout: 4s}
"""

ALL_FAIL = """
version: 1
kind: group
hptuning: {concurrency: 2, matrix: {x: {values: [0, 1]}}}
run: {cmd: "exit {{ x + 4 }}"}
airflow:
  metrics: {objective: {name: loss, optimization: minimize}}
"""

BUILT = """
version: 1
kind: group
hptuning: {concurrency: 1, matrix: {x: {values: [1, 2]}}}
build:
  image: python:3.11
  env_vars: [[GREETING, hello]]
  build_steps:
    - echo "$GREETING" > "$VIRTUAL_ENV/built"
run:
  cmd: >-
    test "$(cat "$VIRTUAL_ENV/built")" = hello &&
    python -c "from airflow_hptuning.tracking import log_metrics; log_metrics(loss={{ x }})"
airflow:
  metrics: {objective: {name: loss, optimization: minimize}}
"""

LONG = """
version: 1
kind: group
hptuning: {concurrency: 1, matrix: {x: {values: [0, 1]}}}
run:
  cmd: echo $$ > pid-{{ x }}; (trap '' TERM; sleep 600) & sleep 600
airflow:
  metrics: {objective: {name: loss, optimization: minimize}}
"""

FILES = {
    "grid": GRID,
    "random": RANDOM,
    "some_fail": SOME_FAIL,
    "all_fail": ALL_FAIL,
    "built": BUILT,
    "long": LONG,
}


@pytest.fixture(scope="session")
def runs(live: LiveAirflow) -> dict[str, str]:
    """Every sweep dropped into the running Airflow, and one run of each started."""
    live.add("script.py", SCRIPT)
    live.add(".airflowignore", "script.py\n")
    for name, text in FILES.items():
        live.add(f"{name}.yaml", text)
    for name in FILES:
        live.wait_for_dag(name)
    return {name: live.trigger(name) for name in FILES}


def finished(live: LiveAirflow, runs: dict[str, str], name: str) -> list[dict[str, Any]]:
    """Wait for a sweep and return the records of its trials."""
    live.wait_for_run(name, runs[name])
    return live.records(name, runs[name])


def spans(records: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """When each trial ran, by the trials' own clocks."""
    return [(record["started"], record["ended"]) for record in records]


def test_grid_runs_in_batches_and_holds_its_concurrency(live: LiveAirflow, runs: dict[str, str]) -> None:
    """Ten points become two batches (of at most 8), never more than two trials run at once, the best is found."""
    live.wait_for_run("grid", runs["grid"])
    records = [
        record
        for batch in ("batch_000", "batch_001")
        for record in live.records("grid", runs["grid"], f"{batch}.trial")
    ]
    xs = [0.0, 1.0, 2.0, 3.0, 4.0]
    kinds = ["plain", "with blank's and $HOME {{ x }}"]
    expected = [{"x": x, "kind": kind} for x, kind in product(xs, kinds)]
    assert [record["params"] for record in records] == expected
    assert {record["state"] for record in records} == {"succeeded"}
    assert most_at_once(spans(records)) <= 2
    summary = live.xcom("grid", runs["grid"], "collect")
    assert summary["best"]["params"]["x"] == 2.0
    assert summary["best"]["value"] == pytest.approx(1 / 3)
    assert summary["states"]["succeeded"] == 10
    labels = {
        instance["rendered_map_index"]
        for instance in live.task_instances("grid", runs["grid"])
        if instance["task_id"] == "batch_000.trial"
    }
    assert "#0 x=0 kind=plain" in labels


def test_params_reach_the_script_unchanged(live: LiveAirflow, runs: dict[str, str]) -> None:
    """Quotes, dollars, blanks and braces survive in POLYAXON_PARAMS, and in the command with ``| quote``."""
    live.wait_for_run("grid", runs["grid"])
    files = sorted((live.home / "hptuning" / "outputs" / "grid").rglob("trial-00001/seen.json"))
    assert len(files) == 1
    text = files[0].read_text()
    assert r"""with blank's and $HOME {{ x }}""" in text
    assert '"--kind=with blank\'s and $HOME {{ x }}"' in text


def test_random_search_is_seeded_and_reports_curves(live: LiveAirflow, runs: dict[str, str]) -> None:
    """Six distinct configs, three at once at most, with learning curves from Polyaxon's own client calls."""
    records = finished(live, runs, "random")
    assert len({record["config_id"] for record in records}) == len(records) == 6
    assert most_at_once(spans(records)) <= 3
    for record in records:
        assert [point[0] for point in record["curve"]["loss"]] == [0, 1, 2]
        assert record["metrics"]["loss"] == pytest.approx((record["params"]["x"] - 2) ** 2 + 1 / 3)
    dag = live.api("GET", "dags/random/details")
    assert {tag["name"] for tag in dag["tags"]} >= {"hptuning", "random", "nightly"}
    assert dag["owners"] == ["ada"]


def test_pool_is_created_with_the_concurrency(live: LiveAirflow, runs: dict[str, str]) -> None:
    """The run's start has made the sweep's own pool, which also counts deferred tasks."""
    finished(live, runs, "random")
    pool = live.api("GET", "pools/hptuning__random")
    assert (pool["slots"], pool["include_deferred"]) == (3, True)


def test_failures_are_told_apart_and_cleared_trials_merge(live: LiveAirflow, runs: dict[str, str]) -> None:
    """Exit 3, silence and a time-out are three classes; a cleared trial runs again alone, and the results merge."""
    run_id = runs["some_fail"]
    before = {record["params"]["x"]: record for record in finished(live, runs, "some_fail")}
    assert live.run_state("some_fail", run_id) == "success"
    assert before[0]["state"] == "succeeded"
    classes = {x: record["failure"]["class"] for x, record in before.items() if record["failure"]}
    assert classes == {1: "user_code", 2: "timeout", 3: "no_metric"}
    assert "about to fail" in before[1]["failure"]["log_tail"]
    assert "loss" in before[3]["failure"]["reason"]
    attempts = {i["map_index"]: i["try_number"] for i in live.task_instances("some_fail", run_id)}
    assert attempts[1] == 1, "the user's own failures are not retried"

    (live.dags / "repaired").touch()
    live.clear("some_fail", run_id, [["trial", 1]])
    eventually(
        lambda: (
            live.xcom("some_fail", run_id, "collect")["states"].get("succeeded") == 2
            and live.run_state("some_fail", run_id) == "success"
        ),
        what="the cleared trial's result",
    )
    after = {record["params"]["x"]: record for record in live.records("some_fail", run_id)}
    assert after[1]["state"] == "succeeded"
    assert after[1]["config_id"] == before[1]["config_id"]
    assert [after[x]["started"] for x in (0, 2, 3)] == [before[x]["started"] for x in (0, 2, 3)]


def test_a_run_without_success_fails_and_says_why(live: LiveAirflow, runs: dict[str, str]) -> None:
    """``collect`` fails the run, and its log names the failures."""
    assert live.wait_for_run("all_fail", runs["all_fail"]) == "failed"
    summary = live.xcom("all_fail", runs["all_fail"], "collect")
    assert summary["states"]["failed"] == 2
    assert summary["best"] is None
    assert "None of the 2 trials succeeded" in live.task_log("all_fail", runs["all_fail"], "collect")


def test_build_steps_make_the_trials_environment(live: LiveAirflow, runs: dict[str, str]) -> None:
    """Trials run in the environment that the build steps made, where tracking works too."""
    records = finished(live, runs, "built")
    assert [record["metrics"] for record in records] == [{"loss": 1.0}, {"loss": 2.0}]


def test_marking_a_trial_failed_ends_its_processes(live: LiveAirflow, runs: dict[str, str]) -> None:
    """The whole process group goes within seconds, children that ignore SIGTERM included; the next trial starts."""
    pid_file = live.dags / "pid-0"
    eventually(pid_file.exists, what="the first long trial")
    group = int(pid_file.read_text())
    assert processes_of(group)
    mark(live, "long", runs["long"], 0)
    eventually(lambda: not processes_of(group), seconds=30, what="the end of the trial's processes")
    eventually((live.dags / "pid-1").exists, what="the second trial")
    second = int((live.dags / "pid-1").read_text())
    mark(live, "long", runs["long"], 1)
    eventually(lambda: not processes_of(second), seconds=30, what="the end of the second trial's processes")
    assert live.wait_for_run("long", runs["long"]) == "failed"
    assert live.xcom("long", runs["long"], "collect")["states"] == {"failed": 2}


def mark(live: LiveAirflow, dag_id: str, run_id: str, map_index: int) -> None:
    """Mark a running trial as failed, as a person does in the UI."""
    live.api("PATCH", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/trial/{map_index}", {"new_state": "failed"})


def processes_of(group: int) -> list[int]:
    """Return the live processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_code_tab_shows_the_polyaxonfile(live: LiveAirflow, runs: dict[str, str]) -> None:
    """The source that Airflow keeps of the DAG is the YAML itself."""
    assert runs
    assert live.api("GET", "dagSources/grid")["content"] == GRID
    details = live.api("GET", "dags/grid/details")
    assert (details["relative_fileloc"], Path(details["fileloc"]).name) == ("grid.yaml", "grid.yaml")


def test_a_broken_file_has_an_import_error_of_its_own(live: LiveAirflow, runs: dict[str, str]) -> None:
    """Line, column, path and hint of every problem; other sweeps go on, and repairing it brings the DAG."""
    broken = GRID.replace("linspace:", "linspce:").replace("concurrency: 2", "concurrency: 0")
    path = live.add("broken.yaml", broken)
    live.add("foreign.yaml", "kind: Deployment\nmetadata: {name: not ours}\n")

    def import_error() -> str:
        errors = {error["filename"]: error["stack_trace"] for error in live.import_errors()}
        assert "foreign.yaml" not in errors
        assert not set(errors) & {f"{name}.yaml" for name in runs}
        text: str = errors.get("broken.yaml", "")
        return text

    text = eventually(import_error, what="the import error")
    assert "broken.yaml:5:" in text
    assert "broken.yaml:7:" in text
    assert "concurrency" in text
    assert "linspace" in text
    path.write_text(GRID)
    eventually(lambda: "broken" in live.dag_ids(), what="the repaired DAG")
    eventually(lambda: not import_error(), what="the end of the import error")


def test_only_a_change_of_the_file_makes_a_new_version(live: LiveAirflow, runs: dict[str, str]) -> None:
    """Parsing the same file again keeps the version; an edit makes exactly one more."""
    finished(live, runs, "random")
    path = live.dags / "random.yaml"
    os.utime(path)
    time.sleep(12)  # two more parses
    assert versions(live, "random") == [1]
    path.write_text(RANDOM.replace("python3 script.py", "python3 -u script.py"))
    eventually(lambda: versions(live, "random") == [1, 2], what="the second version")
    time.sleep(12)
    assert versions(live, "random") == [1, 2]


def versions(live: LiveAirflow, dag_id: str) -> list[int]:
    """Return the version numbers that Airflow has of a DAG."""
    found = live.api("GET", f"dags/{dag_id}/dagVersions")["dag_versions"]
    return sorted(version["version_number"] for version in found)

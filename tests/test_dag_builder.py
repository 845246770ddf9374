"""DAGs: their shape as snapshots, their settings, and what a parse may import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.definitions.mappedoperator import MappedOperator

from airflow_hptuning import build_dag, load_spec, task_graphs
from airflow_hptuning.errors import PolyaxonfileError
from airflow_hptuning.operators.suggest_sensor import SuggestSensor
from airflow_hptuning.planning import plan
from airflow_hptuning.plugin import pools

SNAPSHOTS = Path(__file__).parent / "snapshots"

GRID = """
version: 1
kind: group
hptuning:
  concurrency: 3
  matrix: {lr: {geomspace: "0.001:0.1:3"}, act: {values: [relu, tanh]}}
run: {cmd: "python train.py --lr={{ lr }} --act={{ act }}"}
airflow: {metrics: {objective: {name: loss, optimization: minimize}}}
"""

BUILT = GRID.replace("run:", "build: {image: python, build_steps: [pip install x]}\nrun:")
IMAGE = BUILT.replace(
    "airflow: {", "airflow: {runner: kubernetes, build: {mode: image, registry: registry.example.com/team}, "
)
LARGE = GRID.replace('geomspace: "0.001:0.1:3"', 'range: "0:2000:1"')
HYPERBAND = GRID.replace(
    "  matrix:",
    "  hyperband: {max_iter: 9, eta: 3, resource: {name: steps, type: int}, metric: {name: loss,"
    " optimization: minimize}}\n  matrix:",
)
BO = GRID.replace(
    "  matrix:",
    "  bo: {n_initial_trials: 4, n_iterations: 3, metric: {name: loss, optimization: minimize}}\n  matrix:",
)
NIGHTLY = (
    GRID
    + """
tags: [digits]
"""
).replace(
    "airflow: {",
    """airflow: {schedule: "0 2 * * *", timezone: Europe/Berlin, start_date: 2026-01-01, catchup: true, owner: ada,
  tags: [nightly], pool: gpu, max_active_runs: 2, trial: {retries: 5, retry_delay: 90s}, """,
)


def shape(dag: Any) -> dict[str, Any]:
    """The structure of a DAG: what a reader of its graph sees."""
    return {
        task.task_id: {
            "operator": task.task_type if not task.is_mapped else task.operator_class.__name__,
            "mapped": task.is_mapped,
            "trigger_rule": str(task.trigger_rule.value),
            "upstream": sorted(task.upstream_task_ids),
        }
        for task in sorted(dag.tasks, key=lambda task: task.task_id)
    }


@pytest.mark.parametrize("name", ["grid", "built", "image", "large", "hyperband", "bo"])
def test_structure(name: str) -> None:
    """The graph of each kind of sweep is the one on file (delete the file to write it anew)."""
    text = {"grid": GRID, "built": BUILT, "image": IMAGE, "large": LARGE, "hyperband": HYPERBAND, "bo": BO}[name]
    found = json.dumps(shape(build_dag(text)), indent=1) + "\n"
    path = SNAPSHOTS / f"{name}.json"
    if not path.exists():
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(found)
        pytest.fail(f"{path.name} was missing and is written now: look at it, then run again")
    assert found == path.read_text()


@pytest.mark.parametrize(
    "text", [GRID, BUILT, LARGE, HYPERBAND, HYPERBAND.replace("max_iter: 9", "max_iter: 2000"), BO]
)
def test_plan_counts_the_tasks_of_the_dag(text: str) -> None:
    """What ``plan`` announces is what Airflow will schedule: the trials, and every task that is not mapped."""
    for runner in ("local", "kubernetes"):
        on_runner = text.replace("airflow: {", f"airflow: {{runner: {runner}, ")
        if "build:" not in text:
            on_runner += "build: {image: python}\n"
        planned = plan(load_spec(on_runner))
        assert planned.tasks - planned.trials == sum(not task.is_mapped for task in build_dag(on_runner).tasks)


def test_serialisation_is_deterministic() -> None:
    """Processes with other hash seeds serialise the same DAG; a comment in the file makes another."""
    code = (
        "import sys, json; from airflow_hptuning import build_dag;"
        "from airflow.serialization.serialized_objects import DagSerialization;"
        "print(json.dumps(DagSerialization.to_dict(build_dag(sys.argv[1])), sort_keys=True))"
    )

    def serialised(text: str, seed: str) -> str:
        env = os.environ | {"PYTHONHASHSEED": seed}
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, text],
            env=env, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return result.stdout.strip().splitlines()[-1]

    assert serialised(NIGHTLY, "1") == serialised(NIGHTLY, "2")
    assert serialised(NIGHTLY, "1") != serialised(NIGHTLY + "# a note\n", "1")


def test_trials_hold_the_concurrency() -> None:
    """Own pool and limit per run; the DAG's own cap does not stand in the way."""
    dag = build_dag(GRID)
    trial = dag.task_dict["trial"]
    assert (trial.pool, trial.max_active_tis_per_dagrun) == ("hptuning__sweep", 3)
    assert dag.max_active_tasks > 3
    assert trial.retries == 2


@pytest.mark.parametrize(("text", "limit"), [(GRID, 3 + 4), (LARGE, 3), (HYPERBAND, 3)])
def test_a_shared_pool_does_not_lift_the_concurrency(text: str, limit: int) -> None:
    """Batches and brackets run side by side, and a mapped task's own limit knows nothing of the other tasks."""
    dag = build_dag(text.replace("airflow: {", "airflow: {pool: gpu, "))
    assert dag.max_active_tasks == limit
    assert build_dag(text).max_active_tasks > 3, "the sweep's own pool has as many slots"


@pytest.mark.parametrize(("text", "is_spread"), [(GRID, False), (LARGE, True), (HYPERBAND, True), (BO, False)])
def test_pods_in_a_shared_pool(text: str, is_spread: bool) -> None:  # noqa: FBT001 - a column of the table
    """The DAG's own cap counts no deferred tasks; a mapped task's own limit does, and so does the sweep's own pool."""

    def deferrable(airflow: str) -> set[bool]:
        dag: Any = build_dag(
            text.replace("airflow: {", f"build: {{image: train:1}}\nairflow: {{runner: kubernetes, {airflow}")
        )
        trials = [task for task in dag.tasks if task.task_type == "PodTrialOperator"]
        return {task.partial_kwargs["deferrable"] for task in trials}

    assert deferrable("") == {True}
    assert deferrable("pool: gpu, ") == {not is_spread}
    assert deferrable("kubernetes: {deferrable: false}, ") == {False}


def test_settings_reach_the_dag() -> None:
    """Schedule with time zone, start, catch-up, owner, tags, pool, retries."""
    dag = build_dag(NIGHTLY)
    assert dag.catchup is True
    assert dag.max_active_runs == 2
    assert set(dag.tags) == {"hptuning", "grid", "digits", "nightly"}
    assert dag.start_date == datetime(2025, 12, 31, 23, tzinfo=UTC)
    assert "0 2 * * *" in str(vars(dag.timetable))
    trial = dag.task_dict["trial"]
    assert (trial.pool, trial.retries, trial.retry_delay, trial.owner) == (
        "gpu",
        5,
        timedelta(seconds=90),
        "ada",
    )


def test_what_cannot_run_is_said() -> None:
    """An import error that names what is missing and what works."""
    with pytest.raises(PolyaxonfileError, match="Kubernetes need an image") as caught:
        build_dag(GRID.replace("airflow: {", "airflow: {runner: kubernetes, "))
    assert caught.value.problems[0].hint


def test_a_long_initial_design_is_split() -> None:
    """Lists are as long as Airflow can map over; the first iteration comes after all of them."""
    text = BO.replace("n_initial_trials: 4", "n_initial_trials: 1500").replace(
        "{values: [relu, tanh]}", '{range: "0:900:1"}'
    )
    dag = build_dag(text)
    parts = {"initial.batch_000.suggest", "initial.batch_001.suggest"}
    assert dag.task_dict["iteration_000.suggest"].upstream_task_ids == parts


@pytest.mark.parametrize(("synchronous", "barriers"), [("false", [None] * 5), ("true", [4, 4, 4, 7, 7])])
def test_rounds_of_a_synchronous_sweep(synchronous: str, barriers: list[int | None]) -> None:
    """As many as may run at once suggest after the same trials; otherwise nothing is waited for but a free place."""
    text = BO.replace("n_iterations: 3", "n_iterations: 5").replace("relu, tanh", "relu, tanh, elu")
    dag = build_dag(text.replace("airflow: {", f"airflow: {{bo_synchronous: {synchronous}, "))
    chain = [dag.task_dict[f"iteration_{number:03d}.suggest"] for number in range(5)]
    assert [task.barrier for task in chain if isinstance(task, SuggestSensor)] == barriers


@pytest.mark.parametrize(
    ("text", "build"),
    [
        (IMAGE, "BuildImageOperator"),
        (IMAGE.replace("build_steps: [pip install x]", "build_steps: []"), None),
        (IMAGE.replace("mode: image", "mode: inline"), None),
        (IMAGE.replace("runner: kubernetes", "runner: local"), "BuildEnvironmentOperator"),
    ],
)
def test_what_builds(text: str, build: str | None) -> None:
    """An image only where there is one to build and a cluster that runs it; trials take what was built."""
    dag = build_dag(text)
    assert (dag.task_dict["build"].task_type if "build" in dag.task_dict else None) == build
    trial = dag.task_dict["trial"]
    assert isinstance(trial, MappedOperator)
    assert trial.partial_kwargs["build_task_id"] == (build and "build")


def test_user_text_cannot_become_markup() -> None:
    """Pipes and backticks of the file do not break the table of the DAG's page."""
    dag = build_dag(GRID.replace("relu, tanh", "'a`b|c'"))
    assert dag.doc_md is not None
    assert "`['a\\'b\\|c']`" in dag.doc_md or "a'b\\|c" in dag.doc_md


def test_pool_prefix_is_one() -> None:
    """The plugin must not import the builder, so the prefix stands in both."""
    assert task_graphs.POOL_PREFIX == pools.POOL_PREFIX


@pytest.mark.parametrize("text", [GRID, HYPERBAND, BO, IMAGE], ids=["grid", "hyperband", "bo", "pods"])
def test_parsing_imports_nothing_heavy(tmp_path: Path, text: str) -> None:
    """A DAG file's parse loads no numpy, scipy, scikit-learn or Kubernetes client."""
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    code = (
        "import sys; from airflow_hptuning import build_dag; build_dag(sys.argv[1]);"
        "heavy = {'numpy', 'scipy', 'sklearn', 'kubernetes', 'kubernetes_asyncio', 'pandas'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr

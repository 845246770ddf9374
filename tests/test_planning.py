"""From spec to plan: counts, batches, ids, seeds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from airflow_hptuning import load_spec, plan, suggest
from airflow_hptuning.plan_report import describe
from airflow_hptuning.planning import Batch, algorithm_of, dag_id_of

if TYPE_CHECKING:
    from airflow_hptuning.polyaxonfile.spec import SweepSpec

OBJECTIVE = "airflow: {metrics: {objective: {name: loss, optimization: minimize}}}"


def sweep(hptuning: str, extra: str = OBJECTIVE) -> SweepSpec:
    """A spec with the given ``hptuning`` section."""
    return load_spec(f"version: 1\nkind: group\nhptuning: {hptuning}\nrun: {{cmd: echo}}\n{extra}\n")


@pytest.mark.parametrize(
    ("hptuning", "search", "trials", "tasks"),
    [
        ("{matrix: {a: {values: [1, 2]}, b: {range: '0:3:1'}}}", "grid", 6, 8),
        ("{grid_search: {n_experiments: 4}, matrix: {a: {range: '0:100:1'}}}", "grid", 4, 6),
        ("{grid_search: {n_experiments: 9}, matrix: {a: {values: [1, 2]}}}", "grid", 2, 4),
        ("{random_search: {n_experiments: 10}, matrix: {a: {values: [1, 2, 3]}}}", "random", 3, 5),
        ("{random_search: {n_experiments: 10}, matrix: {a: {uniform: [0, 1]}}}", "random", 10, 12),
    ],
)
def test_counts(hptuning: str, search: str, trials: int, tasks: int) -> None:
    """The number of trials and of task instances is known before the run."""
    shape = plan(sweep(hptuning), runner="local")
    assert (shape.search, shape.trials, shape.tasks) == (search, trials, tasks)
    assert plan(sweep(hptuning)).tasks == tasks + 1, "pods need a task that reaps what is left of them"
    assert plan(sweep(hptuning, "airflow: {runner: local}")).tasks == tasks, "the file's own word counts"


def test_hyperband_of_the_documentation_has_206_trials() -> None:
    """81/3 starts 81/34/15/8/5 configs; five brackets of their own."""
    spec = sweep(
        "{hyperband: {max_iter: 81, eta: 3, resource: {name: steps, type: int}, metric: {name: loss,"
        " optimization: minimize}}, matrix: {lr: {uniform: [0, 0.9]}}}",
        "",
    )
    shape = plan(spec)
    assert [bracket.rungs[0].trials for bracket in shape.brackets] == [81, 34, 15, 8, 5]
    assert shape.trials == 206


def test_bayesian_total_does_not_depend_on_concurrency() -> None:
    """Initial design plus iterations; a small space ends it earlier."""
    text = (
        "{concurrency: 5, bo: {n_initial_trials: 4, n_iterations: 6, metric: {name: loss, optimization: minimize},"
        " utility_function: {acquisition_function: ucb, kappa: 1.2, gaussian_process: {}}}, matrix: {lr: %s}}"
    )
    shape = plan(sweep(text % "{uniform: [0, 1]}", ""))
    assert (shape.trials, shape.initial, shape.iterations) == (10, 4, 6)
    shape = plan(sweep(text % "{values: [1, 2, 3, 4, 5, 6]}", ""))
    assert (shape.trials, shape.initial, shape.iterations) == (6, 4, 2)


def test_long_searches_are_split() -> None:
    """Airflow maps over at most ``max_map_length`` items, so 10,000 trials are batches."""
    spec = sweep("{matrix: {a: {range: '0:100:1'}, b: {range: '0:100:1'}}}")
    shape = plan(spec, max_map_length=1024)
    assert shape.trials == 10_000
    assert shape.batches[0] == Batch(0, 1024)
    assert shape.batches[-1] == Batch(9216, 784)
    assert sum(batch.size for batch in shape.batches) == 10_000


@pytest.mark.parametrize(
    ("path", "extra", "expected"),
    [
        (None, "name: digits", "digits"),
        (None, "", "sweep"),
        ("my sweep.v2.yaml", "", "my_sweep.v2"),
        ("file.yaml", "airflow: {dag_id: chosen}", "chosen"),
    ],
)
def test_dag_id(path: str | None, extra: str, expected: str) -> None:
    """The file's own choice, else its name, made fit for Airflow."""
    spec = sweep("{matrix: {a: {values: [1]}}}", extra)
    assert dag_id_of(evolve(spec, path=path)) == expected


def test_seed_of_the_file_wins_over_the_runs() -> None:
    """Seed 0 is a seed; without one, each run has its own."""
    seeded = sweep("{seed: 0, random_search: {n_experiments: 5}, matrix: {a: {uniform: [0, 1]}}}")
    free = sweep("{random_search: {n_experiments: 5}, matrix: {a: {uniform: [0, 1]}}}")
    assert algorithm_of(seeded, "run-1") == algorithm_of(seeded, "run-2")
    first, again, other = (
        [suggestion.params for suggestion in algorithm_of(free, run).suggest([], [], 5)]
        for run in ("run-1", "run-1", "run-2")
    )
    assert first == again
    assert first != other


def test_describe_is_plain_json_of_a_stable_shape() -> None:
    """What ``plan --output json`` prints; a million-point grid lists its first thousand configs."""
    spec = sweep("{matrix: {a: {range: '0:1000:1'}, b: {range: '0:1000:1'}}}")
    shape = json.loads(json.dumps(describe(spec)))
    assert list(shape) == [
        "dag_id",
        "search",
        "trials",
        "concurrency",
        "runner",
        "parameters",
        "configs",
        "brackets",
        "cost",
        "iterations",
        "tasks",
        "warnings",
    ]
    assert len(shape["configs"]) == 1000
    assert shape["configs"][1] == {"a": 0, "b": 1}
    assert list(shape["parameters"][0]) == ["name", "kind", "size", "values", "low", "high", "scale"]


def test_suggest_continues_a_search_without_airflow() -> None:
    """Running and finished trials are known; the next configs are new; the end is the end."""
    spec = sweep("{matrix: {a: {values: [1, 2, 3]}}}")
    trials = [
        {"params": {"a": 1}, "state": "succeeded", "metrics": {"loss": 0.5}},
        {"params": {"a": 2}, "state": "running"},
    ]
    assert suggest(spec, [], 2) == [{"a": 1}, {"a": 2}]
    assert suggest(spec, trials, 5) == [{"a": 3}]
    assert suggest(spec, [*trials, {"params": {"a": 3}}], 1) == []

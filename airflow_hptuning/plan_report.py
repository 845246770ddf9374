"""What a sweep would run, as the command line says it: parameters, configs, rungs, cost, tasks, warnings."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_hptuning.planning import SweepPlan, algorithm_of, plan, resumes
from airflow_hptuning.search.grid_search import GridSearch
from airflow_hptuning.search.random_search import RandomSearch
from airflow_hptuning.search.simulation import critical_path, makespan

if TYPE_CHECKING:
    from airflow_hptuning.polyaxonfile.spec import SweepSpec
    from airflow_hptuning.space.parameters import Parameter

SHOWN_CONFIGS = 1000
"""How many configs a plan lists."""

SHOWN_VALUES = 1000
"""How many values of one parameter a plan lists."""


def describe(spec: SweepSpec, *, runner: str | None = None) -> dict[str, Any]:
    """Return the plan of a sweep as the command line prints it with ``--output json``; the shape is stable.

    Args:
        spec: The sweep.
        runner: Where trials run, unless the file says so.
    """
    shape = plan(spec, runner=runner)
    return {
        "dag_id": shape.dag_id,
        "search": shape.search,
        "trials": shape.trials,
        "concurrency": shape.concurrency,
        "runner": shape.runner,
        "parameters": [_describe_parameter(parameter) for parameter in spec.space.parameters],
        "configs": _configs(spec),
        "brackets": [
            {
                "bracket": bracket.bracket,
                "rungs": [
                    {"rung": rung.rung, "trials": rung.trials, "resource": rung.resource} for rung in bracket.rungs
                ],
            }
            for bracket in shape.brackets
        ],
        "cost": _cost(shape, resume=resumes(spec)),
        "iterations": shape.iterations,
        "tasks": shape.tasks,
        "warnings": [str(problem) for problem in spec.warnings],
    }


def _cost(shape: SweepPlan, *, resume: bool) -> dict[str, float] | None:
    """What Hyperband's trials cost and how long they take, in units of the resource."""
    if not shape.brackets:
        return None
    slots = shape.concurrency
    path = critical_path(shape.brackets, resume=resume)
    return {
        "resource": path.work,
        "longest_chain": path.chain,
        "bound": path.bound(slots),
        "side_by_side": makespan(shape.brackets, slots, resume=resume),
        "one_by_one": makespan(shape.brackets, slots, sequential=True, resume=resume),
    }


def _describe_parameter(parameter: Parameter) -> dict[str, Any]:
    values = None if parameter.size is None else list(islice(parameter.values(), SHOWN_VALUES))
    return {
        "name": parameter.name,
        "kind": parameter.kind,
        "size": parameter.size,
        "values": values,
        "low": parameter.low,
        "high": parameter.high,
        "scale": parameter.scale,
    }


def _configs(spec: SweepSpec) -> list[dict[str, Any]]:
    """The configs that are known before the run: those of a grid, and of a random search with a seed."""
    if spec.search == "grid" or (spec.search == "random" and spec.seed is not None):
        algorithm = algorithm_of(spec, seed=0)
        if isinstance(algorithm, (GridSearch, RandomSearch)):
            return [dict(suggestion.params) for suggestion in algorithm.suggestions(0, SHOWN_CONFIGS)]
    return []

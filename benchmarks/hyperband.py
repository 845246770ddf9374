"""How long Hyperband takes, and how well it searches.

- ``makespan``: 27/3 with trials that take as many seconds as their resource, at concurrency 4, on a real Airflow:
  against the physical bound with the per-task overhead of bare Airflow, which a hand-written DAG of the same 69 sleeps
  without any rungs measures on the same Airflow, and against the same sweep with brackets one after the other.
- ``simulate``: the same for 81/3 and several concurrencies without Airflow: no overhead, just the order of the trials.
- ``quality``: what it finds at an equal budget, against Optuna and random search (see ``learning_curves``).

Usage: python -m benchmarks.hyperband makespan [--rounds 1] [--seconds 1]
       python -m benchmarks.hyperband simulate
       python -m benchmarks.hyperband quality [--seeds 10]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from airflow_hptuning.search.schedule import Bracket, schedule
from airflow_hptuning.search.simulation import critical_path, makespan

CONCURRENCY = 4
MAX_RESOURCE = 27
FACTOR = 3

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: {concurrency}
  seed: 1
  hyperband:
    max_iter: {max_resource}
    eta: {factor}
    resource: {{name: units, type: int}}
    metric: {{name: loss, optimization: minimize}}
  matrix:
    x: {{uniform: [0, 1]}}
run:
  cmd: sleep {{{{ {seconds} * units }}}}; echo loss={{{{ x }}}}
airflow:
  dag_id: {dag_id}
"""

ONE_BY_ONE = """
from itertools import pairwise
from pathlib import Path

from airflow_hptuning import build_dag

dag = build_dag(Path(__file__).with_name("one_by_one.txt").read_text())
for bracket, following in pairwise({brackets}):
    dag.get_task(f"bracket_{{bracket}}.rung_{{bracket}}.trial") >> dag.get_task(f"bracket_{{following}}.rung_0.suggest")
"""

BARE = """
import time

from airflow.sdk import dag, task


@dag(schedule=None, max_active_tasks={concurrency} + 4)
def bare():
    @task
    def durations():
        return {durations}

    @task(max_active_tis_per_dagrun={concurrency})
    def trial(duration):
        time.sleep(duration)
        return {{"loss": 1.0}}

    @task(trigger_rule="all_done")
    def gather(results):
        return len(list(results))

    gather(trial.expand(duration=durations()))


bare()
"""


def measure(seconds: float, rounds: int) -> dict[str, list[float]]:
    """Return the makespans of the bare DAG, the sweep, and the sweep with brackets one after the other."""
    from benchmarks.overhead import makespan as makespan_of
    from tests.live_airflow import LiveAirflow

    brackets = schedule(MAX_RESOURCE, FACTOR, "int")
    trials = [rung.resource for bracket in brackets for rung in bracket.rungs for _ in range(rung.trials)]
    # The longest first, so that no slot is idle at the end.
    durations = sorted((seconds * resource for resource in trials), reverse=True)
    settings = {
        "concurrency": CONCURRENCY,
        "max_resource": MAX_RESOURCE,
        "factor": FACTOR,
        "seconds": seconds,
    }
    seen: dict[str, list[float]] = {"bare": [], "side_by_side": [], "one_by_one": []}
    with tempfile.TemporaryDirectory() as folder, LiveAirflow(Path(folder)) as live:
        live.add("bare.py", BARE.format(concurrency=CONCURRENCY, durations=durations))
        live.add("side_by_side.yaml", SWEEP.format(**settings, dag_id="side_by_side"))
        live.add("one_by_one.txt", SWEEP.format(**settings, dag_id="one_by_one"))
        live.add("one_by_one.py", ONE_BY_ONE.format(brackets=[bracket.bracket for bracket in brackets]))
        for dag_id in seen:
            live.wait_for_dag(dag_id)
        for number in range(rounds):
            # Forth and back, as an Airflow that has just started is slower.
            for dag_id in list(seen)[:: -1 if number % 2 else 1]:
                seen[dag_id].append(makespan_of(live, dag_id))
                print(f"round {number + 1}: {dag_id} {seen[dag_id][-1]:.1f} s", flush=True)
    return seen


def report_makespan(seconds: float, rounds: int) -> None:
    """Measure, and print a table."""
    brackets = schedule(MAX_RESOURCE, FACTOR, "int")
    path = critical_path(brackets)
    trials = sum(bracket.trials for bracket in brackets)
    seen = {name: median(spans) for name, spans in measure(seconds, rounds).items()}
    work, chain = seconds * path.work, seconds * path.chain
    overhead = (CONCURRENCY * seen["bare"] - work) / trials
    depth = len(brackets[0].rungs)
    physical = max(work / CONCURRENCY, chain)
    bound = max((work + trials * overhead) / CONCURRENCY, chain + depth * overhead)
    simulated = {flag: seconds * makespan(brackets, CONCURRENCY, sequential=flag) for flag in (False, True)}
    print(f"\n27/3, {trials} trials of {seconds:g} s per unit, concurrency {CONCURRENCY}, {rounds} rounds")
    print(f"bare Airflow: {seen['bare']:.1f} s, so {overhead:.2f} s of overhead per task in its slot\n")
    print("| | seconds | ratio to the bound with overhead |\n|---|---|---|")
    print(f"| bound max(W/c, chain) | {physical:.1f} | {physical / bound:.3f} |")
    print(f"| bound with the overhead of bare Airflow | {bound:.1f} | 1.000 |")
    for name, flag in (("side_by_side", False), ("one_by_one", True)):
        words = name.replace("_", " ")
        print(f"| brackets {words}, simulated without overhead | {simulated[flag]:.1f} | |")
        print(f"| brackets {words}, measured | {seen[name]:.1f} | {seen[name] / bound:.3f} |")
    print(f"\none by one / side by side: {seen['one_by_one'] / seen['side_by_side']:.2f}")


def report_simulation() -> None:
    """Print what 81/3 takes in units of the resource."""
    brackets: tuple[Bracket, ...] = schedule(81, 3, "int")
    print(
        "| resume | concurrency | bound | side by side | to bound | one by one | saved |\n|---|---|---|---|---|---|---|"
    )
    for resume in (False, True):
        path = critical_path(brackets, resume=resume)
        for slots in (2, 5, 10, 25):
            ours = makespan(brackets, slots, resume=resume)
            theirs = makespan(brackets, slots, sequential=True, resume=resume)
            bound = path.bound(slots)
            print(
                f"| {'yes' if resume else 'no'} | {slots} | {bound:g} | {ours:g} | {ours / bound:.3f} | {theirs:g} |"
                f" {1 - ours / theirs:.0%} |"
            )


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["makespan", "simulate", "quality"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    if args.what == "makespan":
        report_makespan(args.seconds, args.rounds)
    elif args.what == "simulate":
        report_simulation()
    else:
        from benchmarks.learning_curves import report_quality

        report_quality(args.seeds)


if __name__ == "__main__":
    main()

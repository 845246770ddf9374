"""What a sweep costs on top of Airflow itself: makespan against a hand-written DAG, on one Airflow, in one run.

The sweep has 40 trials of two seconds at concurrency 2. The hand-written DAG does the same work the shortest way
(a task that returns a list, a mapped task that sleeps, a task that gathers). Rounds alternate between both, so that a
noisy machine disturbs both alike.

Usage: python -m benchmarks.overhead [--rounds 3] [--trials 40] [--seconds 2] [--concurrency 2]
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import datetime
from pathlib import Path
from statistics import median

from tests.live_airflow import LiveAirflow

HAND_WRITTEN = """
import time

from airflow.sdk import dag, task


@dag(schedule=None, max_active_tasks={concurrency} + 4)
def hand_written():
    @task
    def configs():
        return list(range({trials}))

    @task(max_active_tis_per_dagrun={concurrency})
    def trial(config):
        time.sleep({seconds})
        return {{"config": config, "loss": 1.0}}

    @task(trigger_rule="all_done")
    def gather(results):
        return len(list(results))

    gather(trial.expand(config=configs()))


hand_written()
"""

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: {concurrency}
  matrix:
    x: {{range: [0, {trials}, 1]}}
run:
  cmd: sleep {seconds}; echo loss={{{{ x }}}}
airflow:
  metrics: {{objective: {{name: loss, optimization: minimize}}}}
"""


def makespan(live: LiveAirflow, dag_id: str) -> float:
    """Run a DAG and return the seconds from its run's start to its end."""
    run_id, state = live.run(dag_id, seconds=1200)
    if state != "success":
        raise RuntimeError(f"{dag_id} ended as {state}")
    info = live.run_info(dag_id, run_id)
    start, end = (datetime.fromisoformat(info[name]) for name in ("start_date", "end_date"))
    return (end - start).total_seconds()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--concurrency", type=int, default=2)
    args = parser.parse_args()
    sizes = {"trials": args.trials, "seconds": args.seconds, "concurrency": args.concurrency}
    seen: dict[str, list[float]] = {"hand_written": [], "sweep": []}
    with tempfile.TemporaryDirectory() as folder, LiveAirflow(Path(folder)) as live:
        live.add("hand_written.py", HAND_WRITTEN.format(**sizes))
        live.add("sweep.yaml", SWEEP.format(**sizes))
        for dag_id in seen:
            live.wait_for_dag(dag_id)
        for number in range(args.rounds):
            for dag_id, spans in seen.items():
                spans.append(makespan(live, dag_id))
                print(f"round {number + 1}: {dag_id} {spans[-1]:.1f} s", flush=True)
    ideal = args.trials * args.seconds / args.concurrency
    print(f"\n{args.trials} trials of {args.seconds:g} s at concurrency {args.concurrency} (ideal {ideal:g} s)\n")
    print("| DAG | median makespan, s | rounds, s | ratio |")
    print("|---|---|---|---|")
    base = median(seen["hand_written"])
    for dag_id, spans in seen.items():
        rounds = ", ".join(f"{span:.1f}" for span in spans)
        print(f"| {dag_id} | {median(spans):.1f} | {rounds} | {median(spans) / base:.3f} |")


if __name__ == "__main__":
    main()

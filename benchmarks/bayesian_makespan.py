"""How long Bayesian optimisation takes on a real Airflow: one trial at a time, and five in flight.

25 trials of 20 s, five of them the initial design, on the local runner. The ideal is 500 s and 100 s; the rest is what
Airflow needs to start tasks and to go from one suggestion to the next. Target: at least 4 times as fast with five.

Usage: python -m benchmarks.bayesian_makespan [--trials 25] [--seconds 20]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from tests.live_airflow import LiveAirflow, airflow_in

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: {concurrency}
  seed: 1
  bo: {{n_initial_trials: 5, n_iterations: {iterations}, metric: {{name: loss, optimization: minimize}}}}
  matrix: {{x: {{uniform: [0, 1]}}, y: {{uniform: [0, 1]}}}}
run: {{cmd: "sleep {seconds}; echo loss={{{{ x }}}}"}}
"""


def makespan(live: LiveAirflow, concurrency: int, trials: int, seconds: float) -> float:
    """Run one sweep and return the seconds from the start of the run to its end."""
    name = f"bayesian_{concurrency}"
    live.add(f"{name}.yaml", SWEEP.format(concurrency=concurrency, iterations=trials - 5, seconds=seconds))
    run_id, state = live.run(name, seconds=trials * (seconds + 60))
    if state != "success":
        raise RuntimeError(f"{name} has ended as {state}")
    info = live.run_info(name, run_id)
    start, end = (datetime.fromisoformat(info[key]) for key in ("start_date", "end_date"))
    return (end - start).total_seconds()


def main() -> int:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(description="Makespan of Bayesian optimisation by concurrency.")
    parser.add_argument("--trials", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    print("| concurrency | makespan, s | ideal, s | overhead per iteration, s | times as fast |\n|---|---|---|---|---|")
    first: float | None = None
    with tempfile.TemporaryDirectory(prefix="hptuning-") as home, airflow_in(Path(home)) as live:
        for concurrency in (1, 5):
            took = makespan(live, concurrency, arguments.trials, arguments.seconds)
            first = first or took
            ideal = arguments.trials * arguments.seconds / concurrency
            overhead = (took - ideal) / (arguments.trials - 5)
            print(f"| {concurrency} | {took:.0f} | {ideal:.0f} | {overhead:.1f} | {first / took:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

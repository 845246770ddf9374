"""What watching costs: CPU and requests of a sweep with stopping rules against the same sweep without any.

50 trials of 10 seconds report a loss twice a second, four at once. ``plain`` has no rule (its trials only look now and
then whether a person has stopped the sweep), ``goal`` has a goal that is never reached, ``goal_and_median`` a median
policy as well, which is evaluated every other step and ends nobody. CPU is that of all of Airflow's processes with all
their children, trials included; requests are those to Airflow's execution API, from its own access log.

Usage: python -m benchmarks.watching [--rounds 1] [--trials 50]
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from attrs import frozen

from benchmarks.overhead import makespan
from tests.live_airflow import LiveAirflow

if TYPE_CHECKING:
    from collections.abc import Mapping

CONCURRENCY = 4
STEPS = 20

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: {concurrency}
  matrix:
    x: {{range: [0, {trials}, 1]}}
{rules}run:
  cmd: for step in $(seq 1 {steps}); do echo step=$step loss=1; sleep 0.5; done
airflow:
  metrics: {{objective: {{name: loss, optimization: minimize}}}}
"""

GOAL = """  early_stopping:
    - {metric: loss, value: 0, optimization: minimize}
"""
MEDIAN = """    - {metric: loss, optimization: minimize, policy: {kind: median, evaluation_interval: 2}}
"""
SWEEPS = {"plain": "", "goal": GOAL, "goal_and_median": GOAL + MEDIAN}

_REQUEST = re.compile(r"method=(\w+) path=(/execution/\S*)")
_KINDS = {"/heartbeat": "heartbeat", "/stop": "look for the marker", "/live": "curves", "/slice": "curves"}


@frozen
class Cost:
    """What one run cost.

    Attributes:
        seconds: Its makespan.
        cpu: CPU seconds of Airflow and the trials.
        requests: Requests to the execution API, by kind.
    """

    seconds: float
    cpu: float
    requests: Mapping[str, int]


def cpu_of(live: LiveAirflow) -> float:
    """Return the CPU seconds of all processes of an Airflow, and of those of their children that have ended."""
    leaders = {process.pid for process in live.processes.values()}
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            # It has ended meanwhile; its parent has its time now.
            continue
        if int(fields[3]) in leaders:
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def requests_of(log: str) -> Counter[str]:
    """Count the requests to the execution API by kind."""
    found: Counter[str] = Counter()
    for method, path in _REQUEST.findall(log):
        kind = next((name for ending, name in _KINDS.items() if path.endswith(ending)), "other")
        found["curves" if method == "POST" and path.endswith("/live") else kind] += 1
    return found


def cost_of(live: LiveAirflow, dag_id: str) -> Cost:
    """Run a sweep, and return what it cost."""
    cpu, seen = cpu_of(live), len(live.process_log("api-server"))
    seconds = makespan(live, dag_id)
    return Cost(seconds, cpu_of(live) - cpu, requests_of(live.process_log("api-server")[seen:]))


def idle_cpu(live: LiveAirflow, seconds: float) -> float:
    """Return the CPU seconds that Airflow uses per second while nothing runs."""
    before = cpu_of(live)
    time.sleep(seconds)
    return (cpu_of(live) - before) / seconds


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--trials", type=int, default=50)
    args = parser.parse_args()
    costs: dict[str, list[Cost]] = {name: [] for name in SWEEPS}
    with tempfile.TemporaryDirectory() as folder, LiveAirflow(Path(folder)) as live:
        for name, rules in SWEEPS.items():
            text = SWEEP.format(concurrency=CONCURRENCY, trials=args.trials, steps=STEPS, rules=rules)
            live.add(f"{name}.yaml", text)
        for name in SWEEPS:
            live.wait_for_dag(name)
        idle = idle_cpu(live, 20)
        print(f"idle: {idle:.2f} CPU s per s", flush=True)
        for number in range(args.rounds):
            for name, found in costs.items():
                found.append(cost_of(live, name))
                print(f"round {number + 1}: {name} {found[-1]}", flush=True)
    kinds = sorted({kind for found in costs.values() for cost in found for kind in cost.requests})
    print(f"\n{args.trials} trials of {STEPS / 2:g} s, {CONCURRENCY} at once; idle Airflow: {idle:.2f} CPU s per s\n")
    print(f"| sweep | makespan, s | CPU, s | CPU without idle, s | requests | {' | '.join(kinds)} |")
    print("|---|---|---|---|---|" + "---|" * len(kinds))
    for name, found in costs.items():
        seconds, cpu = median(c.seconds for c in found), median(c.cpu for c in found)
        own = median(c.cpu - idle * c.seconds for c in found)
        counts = [median(c.requests.get(kind, 0) for c in found) for kind in kinds]
        cells = " | ".join(f"{count:g}" for count in counts)
        print(f"| {name} | {seconds:.0f} | {cpu:.0f} | {own:.0f} | {sum(counts):g} | {cells} |")


if __name__ == "__main__":
    main()

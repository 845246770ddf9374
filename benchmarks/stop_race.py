"""Many trials reach the goal at the same moment, again and again: every run must have exactly one clean end.

Runs go two at a time, so that they also get into each other's way. The test suite does the same, a few times.

Usage: python -m benchmarks.stop_race [--repetitions 50]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any

from tests.live_airflow import LiveAirflow

DAG_ID = "stop_race"
TRIALS = 10
AT_ONCE = 2

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: 4
  matrix: {x: {range: [0, 10, 1]}}
  early_stopping: [{metric: loss, value: 0.05, optimization: minimize}]
run:
  # All that run reach the goal at the next full twelve seconds; the first ends at that moment, others train on.
  cmd: python3 -c "import time; time.sleep(12 - time.time() % 12); print('loss=0.01', flush=True); time.sleep({{ x }})"
airflow: {pool: default_pool, max_active_runs: 2, trial: {retries: 1, retry_delay: 1s}}
"""


class StrangeEndError(AssertionError):
    """A run ended in another way than it must."""


def repeat(live: LiveAirflow, repetitions: int) -> Counter[tuple[str, ...]]:
    """Run the race, and return how often its trials ended in which states.

    Raises:
        StrangeEndError: One of the runs had no clean end.
    """
    live.add(f"{DAG_ID}.yaml", SWEEP)
    live.wait_for_dag(DAG_ID)
    ends: Counter[tuple[str, ...]] = Counter()
    for first in range(0, repetitions, AT_ONCE):
        runs = [live.trigger(DAG_ID) for _ in range(min(AT_ONCE, repetitions - first))]
        for run_id in runs:
            if (state := live.wait_for_run(DAG_ID, run_id)) != "success":
                raise StrangeEndError(f"{run_id} ended as {state}")
            ends[_end_of(live, run_id)] += 1
        print(f"{first + len(runs)} of {repetitions} runs: {dict(ends)}", flush=True)
    return ends


def _end_of(live: LiveAirflow, run_id: str) -> tuple[str, ...]:
    instances = live.task_instances(DAG_ID, run_id)
    # Where Airflow's lists are short, the trials are spread over several mapped tasks.
    ran = [(i["task_id"], i["map_index"]) for i in instances if i["map_index"] >= 0 and i["state"] == "success"]
    records = [live.xcom(DAG_ID, run_id, *at) for at in ran]
    stop = live.xcom(DAG_ID, run_id, "collect")["stop"]
    reached = {record["trial"] for record in records if record["metrics"].get("loss") == 0.01}
    expected: dict[str, tuple[Any, Any]] = {
        "states of the tasks": ({str(i["state"]) for i in instances} | {"skipped"}, {"success", "skipped"}),
        "states of the records": ({r["state"] for r in records} | {"stopped", "succeeded"}, {"stopped", "succeeded"}),
        "trials after the goal": (max(len(records) - 4, 0), 0),
        "cause": (stop["cause"], "goal"),
        "trial that reached the goal": (stop["trial"] in reached, True),
        "trials that were saved": (stop["saved"]["trials"], TRIALS - len(records)),
        "markers": (markers(live, DAG_ID, run_id), 1),
        "processes left": (processes_of(run_id), []),
    }
    wrong = {what: found for what, (found, wanted) in expected.items() if found != wanted}
    if wrong:
        raise StrangeEndError(f"{run_id}: {wrong}")
    return tuple(sorted(record["state"] for record in records))


def markers(live: LiveAirflow, dag_id: str, run_id: str) -> int:
    """Return how many stop markers a run has."""
    run = urllib.parse.quote(run_id)
    entries = live.api("GET", f"dags/{dag_id}/dagRuns/{run}/taskInstances/~/xcomEntries?xcom_key=stop&limit=100")
    return len([entry for entry in entries["xcom_entries"] if entry["key"] == "stop"])


def processes_of(run_id: str) -> list[int]:
    """Return the ids of all living processes of the trials of a run (on Linux)."""
    wanted = f"HPTUNING_RUN_ID={run_id}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            # It has ended meanwhile, or belongs to somebody else.
            continue
        if wanted in environment:
            found.append(int(folder.name))
    return found


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=50)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, LiveAirflow(Path(folder)) as live:
        ends = repeat(live, args.repetitions)
    print(f"{ends.total()} clean ends in {time.monotonic() - began:.0f} s\n")
    print("| states of the trials that ran | runs |\n|---|---|")
    for states, count in ends.most_common():
        print(f"| {', '.join(f'{number} {state}' for state, number in Counter(states).items())} | {count} |")


if __name__ == "__main__":
    main()

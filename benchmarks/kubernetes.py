"""What a sweep of pods costs on top of Airflow's own pod operator: makespan, worker slots and memory, on one cluster.

The sweep has 300 trials at concurrency 20. The hand-written DAG does the same work with the same settings: a task that
returns a list, a mapped deferrable KubernetesPodOperator with the same command, image, poll intervals and concurrency,
and a task that gathers. Its pods report through XCom's side-car nowhere: it learns no metric at all. Rounds alternate.

By hand, not in CI: with KUBECONFIG set to the administrator of the fixture,
``python -m benchmarks.kubernetes [--rounds 1] [--trials 300] [--seconds 1] [--concurrency 20]``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from statistics import median

from tests.live_airflow import LiveAirflow
from tests.live_cluster import Cluster

HAND_WRITTEN = """
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import dag, task


@dag(schedule=None, max_active_tasks={concurrency} + 4)
def hand_written():
    @task
    def arguments():
        return [["sleep {seconds}; echo loss=%d" % number] for number in range({trials})]

    @task(trigger_rule="all_done")
    def gather():
        return "done"

    trial = KubernetesPodOperator.partial(
        task_id="trial",
        namespace="hptuning",
        image="python:3.11",
        cmds=["/bin/sh", "-c"],
        name="by-hand",
        deferrable=True,
        poll_interval=1,
        startup_check_interval_seconds=1,
        log_events_on_startup=False,
        max_active_tis_per_dagrun={concurrency},
    ).expand(arguments=arguments())
    trial >> gather()


hand_written()
"""

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: {concurrency}
  matrix:
    x: {{range: [0, {trials}, 1]}}
build: {{image: "python:3.11"}}
run:
  cmd: sleep {seconds}; echo loss={{{{ x }}}}
airflow:
  runner: kubernetes
  kubernetes: {{namespace: hptuning}}
  metrics: {{objective: {{name: loss, optimization: minimize}}}}
"""


class Usage:
    """Tasks that hold a worker, and memory of Airflow's processes, while a DAG runs."""

    def __init__(self, live: LiveAirflow, cluster: Cluster) -> None:
        self._live = live
        self._cluster = cluster
        self._ended = threading.Event()
        self.running: list[int] = []
        self.memory: list[float] = []
        self.most_pods = 0

    def watch(self, dag_id: str, run_id: str) -> None:
        """Sample until ``stop``."""
        while not self._ended.wait(3.0):
            states = [i["state"] for i in self._live.task_instances(dag_id, run_id)]
            pods = sum(pod.status.phase == "Running" for pod in self._cluster.pods())
            self.most_pods = max(self.most_pods, pods)
            if pods >= 10:
                self.running.append(states.count("running"))
                self.memory.append(sum(_pss(p.pid) for p in self._live.processes.values()))

    def stop(self) -> None:
        """End the sampling."""
        self._ended.set()


def _pss(pid: int) -> float:
    """Proportional memory of a process and all that it has forked, in MB."""
    total = 0.0
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return total
    return total + sum(_pss(int(child)) for child in children)


def measure(live: LiveAirflow, cluster: Cluster, dag_id: str) -> tuple[float, Usage]:
    """Run a DAG; return the seconds from its start to its end, and what it used."""
    run_id = live.trigger(dag_id)
    usage = Usage(live, cluster)
    watcher = threading.Thread(target=usage.watch, args=(dag_id, run_id), daemon=True)
    watcher.start()
    state = live.wait_for_run(dag_id, run_id, seconds=3600)
    usage.stop()
    watcher.join()
    if state != "success":
        raise RuntimeError(f"{dag_id} ended as {state}")
    info = live.run_info(dag_id, run_id)
    start, end = (datetime.fromisoformat(info[name]) for name in ("start_date", "end_date"))
    if dag_id == "sweep":
        records = live.records(dag_id, run_id)
        lost = [r for r in records if r["state"] != "succeeded" or r["metrics"] != {"loss": float(r["params"]["x"])}]
        print(f"sweep: {len(records)} results, {len(lost)} of them wrong", flush=True)
    return (end - start).total_seconds(), usage


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--concurrency", type=int, default=20)
    args = parser.parse_args()
    sizes = {"trials": args.trials, "seconds": args.seconds, "concurrency": args.concurrency}
    cluster = Cluster(Path(os.environ["KUBECONFIG"]))
    settings = {"KUBECONFIG": str(cluster.limited), "AIRFLOW__HPTUNING__DEFAULT_RUNNER": "kubernetes"}
    seen: dict[str, list[tuple[float, Usage]]] = {"hand_written": [], "sweep": []}
    with tempfile.TemporaryDirectory() as folder, LiveAirflow(Path(folder), settings) as live:
        live.add("hand_written.py", HAND_WRITTEN.format(**sizes))
        live.add("sweep.yaml", SWEEP.format(**sizes))
        for dag_id in seen:
            live.wait_for_dag(dag_id)
        for number in range(args.rounds):
            for dag_id, runs in seen.items():
                runs.append(measure(live, cluster, dag_id))
                print(f"round {number + 1}: {dag_id} {runs[-1][0]:.1f} s", flush=True)
                time.sleep(5)
    print(f"\n{args.trials} pods of {args.seconds:g} s at concurrency {args.concurrency}\n")
    print(
        "| DAG | makespan, s | ratio | most pods | tasks on a worker while 10 or more pods run (median) | memory, MB |"
    )
    print("|---|---|---|---|---|---|")
    base = median(span for span, _ in seen["hand_written"])
    for dag_id, runs in seen.items():
        span = median(span for span, _ in runs)
        usages = [usage for _, usage in runs]
        running = median(sample for usage in usages for sample in usage.running or [0])
        memory = median(sample for usage in usages for sample in usage.memory or [0])
        most = max(usage.most_pods for usage in usages)
        print(f"| {dag_id} | {span:.1f} | {span / base:.3f} | {most} | {running:g} | {memory:.0f} |")


if __name__ == "__main__":
    main()

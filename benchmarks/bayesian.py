"""What Bayesian optimisation finds: regret after a number of trials, beside its peers, on five tasks.

Tasks: Branin, Hartmann-6, a mixed function (two numbers, an integer and a category that shift and scale a Branin), and
two real tunings on data that ships with scikit-learn. Every optimizer gets the same task, trials and seeds, its own
defaults, and ten initial points; trials of the synthetic tasks are free of noise. Regret is the best value found minus
the optimum (synthetic) or minus the best value that any run in the results found (real).

The peers (``requirements/benchmarks.txt``) belong into an environment of their own: hypertune's dependencies pin
packages that Airflow uses. Whoever is not installed is left out, and the table says so. Numerical libraries run on one
thread (for PyTorch set OMP_NUM_THREADS=1). Runs append to a file of JSON lines, so that several processes can share a
benchmark; ``--table`` prints it.

Usage: python -m benchmarks.bayesian [--tasks branin,hartmann6] [--optimizers ours,optuna-gp] [--seeds 0:10]
           [--trials 50] [--output FILE]
       python -m benchmarks.bayesian --table FILE
       python -m benchmarks.bayesian --latency [--optimizers ours,optuna-gp]

``--latency`` measures the seconds of a suggestion when 200 trials are known.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from benchmarks.bayesian_peers import OPTIMIZERS, missing
from benchmarks.bayesian_tasks import TASKS, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from benchmarks.bayesian_peers import Optimizer

N_INITIAL = 10
LATENCY_TRIALS = 200


def run(task: Task, optimizer: Callable[..., Optimizer], seed: int, trials: int) -> dict[str, Any]:
    """Run one sweep and return its best values after each trial, and the seconds per model-based suggestion."""
    started = optimizer(task.space, seed, N_INITIAL, trials)
    clock = _Clock()
    best, curve = math.inf, []
    waiting: list[Any] = []
    asked = 0
    for trial in range(trials):
        while asked < trials and len(waiting) < started.concurrency:
            with clock.running(asked >= N_INITIAL):
                waiting.append(started.ask())
            asked += 1
        params = waiting.pop(0)
        value = task.objective(params)
        # Some peers fit their model when they are told a value.
        with clock.running(trial + 1 >= N_INITIAL):
            started.tell(params, value)
        best = min(best, value)
        curve.append(best)
    return {"curve": curve, "seconds": clock.total / max(1, trials - N_INITIAL)}


class _Clock:
    """Adds up seconds."""

    def __init__(self) -> None:
        self.total = 0.0

    @contextmanager
    def running(self, counts: bool) -> Iterator[None]:  # noqa: FBT001 - the only argument
        before = time.perf_counter()
        yield
        if counts:
            self.total += time.perf_counter() - before


def latency(optimizer: Callable[..., Optimizer], rounds: int = 5) -> float:
    """Return the median seconds of one suggestion when 200 trials of Hartmann-6 are known."""
    task = TASKS["hartmann6"]
    started = optimizer(task.space, 0, LATENCY_TRIALS, LATENCY_TRIALS + rounds)
    seconds = []
    for trial in range(LATENCY_TRIALS + rounds):
        before = time.perf_counter()
        params = started.ask()
        started.tell(params, task.objective(params))
        if trial >= LATENCY_TRIALS:
            seconds.append(time.perf_counter() - before)
    return median(seconds)


def table(records: Sequence[dict[str, Any]], trials: int | None = None) -> Iterable[str]:
    """Yield the lines of a markdown table per task, the best optimizer first."""
    for name in dict.fromkeys(record["task"] for record in records):
        chosen = [record for record in records if record["task"] == name]
        length = min(trials or math.inf, *(len(record["curve"]) for record in chosen))
        length = int(length)
        known = TASKS[name].optimum
        best_seen = min(record["curve"][-1] for record in chosen)
        optimum = min(known, best_seen) if known is not None else best_seen
        yield f"\n### {name}: regret after {length} trials (optimum {optimum:.6g})\n"
        yield "| optimizer | seeds | median | mean ± SE | s/suggestion |"
        yield "|---|---|---|---|---|"
        rows = []
        for optimizer in dict.fromkeys(record["optimizer"] for record in chosen):
            mine = [record for record in chosen if record["optimizer"] == optimizer]
            regrets = [record["curve"][length - 1] - optimum for record in mine]
            error = stdev(regrets) / math.sqrt(len(regrets)) if len(regrets) > 1 else math.nan
            seconds = fmean(record["seconds"] for record in mine)
            row = f"{len(mine)} | {median(regrets):.2g} | {fmean(regrets):.2g} ± {error:.1g} | {seconds:.3f} |"
            rows.append((median(regrets), f"| {optimizer} | {row}"))
        yield from (row for _, row in sorted(rows))


def _seeds(text: str) -> range:
    first, _, last = text.rpartition(":")
    return range(int(first or 0), int(last))


def _words(text: str) -> list[str]:
    return text.split(",")


def main() -> int:
    """Run what the command line names, or print a table of earlier runs."""
    parser = argparse.ArgumentParser(description="Regret of Bayesian optimisation beside its peers.")
    parser.add_argument("--tasks", type=_words, default=list(TASKS))
    parser.add_argument("--optimizers", type=_words, default=list(OPTIMIZERS))
    parser.add_argument("--seeds", type=_seeds, default=range(10), help="number of seeds, or first:last")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--output", type=Path, help="file of JSON lines to append to")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and run nothing")
    parser.add_argument("--latency", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        records = [json.loads(line) for line in arguments.table.read_text().splitlines()]
        # A run that was repeated counts once.
        latest = {(one["task"], one["optimizer"], one["seed"]): one for one in records}
        print("\n".join(table(list(latest.values()))))
        return 0
    with threadpool_limits(1):
        return _measure(arguments)


def _measure(arguments: argparse.Namespace) -> int:
    absent = {name: reason for name in arguments.optimizers if (reason := missing(name))}
    for name, reason in absent.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    present = [name for name in arguments.optimizers if name not in absent]
    if arguments.latency:
        print("| optimizer | s/suggestion, 200 trials known |\n|---|---|")
        for name in present:
            print(f"| {name} | {latency(OPTIMIZERS[name]):.3f} |", flush=True)
        return 0
    print("\n".join(table(list(_runs(arguments, present)))))
    return 0


def _runs(arguments: argparse.Namespace, optimizers: Sequence[str]) -> Iterable[dict[str, Any]]:
    for task in arguments.tasks:
        for optimizer in optimizers:
            for seed in arguments.seeds:
                record = {"task": task, "optimizer": optimizer, "seed": seed}
                record |= run(TASKS[task], OPTIMIZERS[optimizer], seed, arguments.trials)
                if arguments.output:
                    with arguments.output.open("a") as file:
                        file.write(json.dumps(record) + "\n")
                yield record


if __name__ == "__main__":
    sys.exit(main())

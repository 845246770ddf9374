"""Runs the example sweeps on the Airflow of the quickstart and shows how they go."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tools.quickstart.server import QuickstartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from airflow_hptuning.trials import Metric
    from tools.quickstart.api import Api

_APPEAR_SECONDS = 120
_RUN_SECONDS = 900
_ENDED = {"success", "failed"}
_DONE = {"success", "failed", "skipped", "upstream_failed", "removed"}


class RunApi(Protocol):
    """What is asked of Airflow about one run."""

    def run_state(self, dag_id: str, run_id: str, /) -> str:
        """Return the state of a run."""

    def tasks(self, dag_id: str, run_id: str, /) -> list[dict[str, Any]]:
        """Return all task instances of a run."""

    def result(self, dag_id: str, run_id: str, task_id: str, map_index: int, /) -> Any:
        """Return what a task instance returned."""


@dataclass
class Progress:
    """How one run of a sweep goes.

    Attributes:
        dag_id: The sweep.
        run_id: The run.
        objective: The metric that ranks its trials, if it names one.
        state: State of the run.
        counts: Trials by Airflow's state of their tasks.
        planned: How many trials it has, as far as its file tells; later rungs of Hyperband appear as they begin.
        total: How many there are.
        best: The best value so far, and its trial.
    """

    dag_id: str
    run_id: str
    objective: Metric | None
    planned: int = 0
    state: str = "queued"
    counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    best: tuple[float, int] | None = None
    _read: set[tuple[str, int]] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.state in _ENDED

    def refresh(self, api: RunApi) -> None:
        """Ask Airflow how the run goes."""
        self.state = api.run_state(self.dag_id, self.run_id)
        trials = [task for task in api.tasks(self.dag_id, self.run_id) if _is_trial(task)]
        self.total = max(self.planned, len(trials))
        self.counts = Counter(task["state"] or "waiting" for task in trials)
        for task in trials:
            at = (task["task_id"], task["map_index"])
            if task["state"] in _DONE and at not in self._read:
                self._read.add(at)
                self._consider(api.result(self.dag_id, self.run_id, *at))

    def _consider(self, record: Any) -> None:
        if self.objective is None or not isinstance(record, dict) or record["state"] != "succeeded":
            return
        value = (record.get("metrics") or {}).get(self.objective.name)
        if value is None:
            return
        if self.best is None or self.objective.direction.sign * (value - self.best[0]) > 0:
            self.best = (value, record["trial"])

    def __str__(self) -> str:
        done = sum(count for state, count in self.counts.items() if state in _DONE)
        words = [f"{self.dag_id}: {done}/{self.total or '?'} done"]
        if self.counts["running"]:
            words.append(f"{self.counts['running']} running")
        if self.counts["failed"]:
            words.append(f"{self.counts['failed']} failed")
        if self.best and self.objective:
            words.append(f"best {self.objective.name} {self.best[0]:.4f} (#{self.best[1]})")
        return ", ".join(words)


def _is_trial(task: dict[str, Any]) -> bool:
    return bool(task["task_id"].rpartition(".")[2] == "trial" and task["map_index"] >= 0)


def wait_for_dags(api: Api, dag_ids: Iterable[str], say: Callable[[str], None]) -> None:
    """Return when Airflow knows the DAGs.

    Raises:
        QuickstartError: A file has an error, or the DAGs do not appear.
    """
    wanted = set(dag_ids)
    say("Waiting for the DAGs to appear: " + ", ".join(sorted(wanted)))
    deadline = time.monotonic() + _APPEAR_SECONDS
    while missing := wanted - api.dag_ids():
        errors = api.import_errors()
        if errors:
            text = "\n".join(f"{name}:\n{trace}" for name, trace in errors)
            raise QuickstartError(f"Airflow cannot read a file of the dags folder.\n{text}")
        if time.monotonic() > deadline:
            raise QuickstartError(
                f"{', '.join(sorted(missing))} did not appear within {_APPEAR_SECONDS} s;"
                " see .quickstart/logs/dag-processor.log"
            )
        time.sleep(0.5)


def run_sweeps(api: Api, files: Iterable[Path], say: Callable[[str], None]) -> bool:
    """Run one sweep per polyaxonfile, all at once; print each leaderboard; return whether all succeeded."""
    runs = [_started(api, path) for path in files]
    say("Started " + ", ".join(f"{run.dag_id} ({run.run_id})" for run in runs))
    _watch(api, runs)
    succeeded = [_report(api, run, say) for run in runs]
    return all(succeeded)


def _started(api: Api, path: Path) -> Progress:
    from airflow_hptuning import load_spec
    from airflow_hptuning.planning import plan

    spec = load_spec(path)
    return Progress(path.stem, api.trigger(path.stem), spec.objective, plan(spec).trials)


def _watch(api: Api, runs: list[Progress]) -> None:
    deadline = time.monotonic() + _RUN_SECONDS
    told = ""
    while not all(run.is_over for run in runs):
        for run in runs:
            run.refresh(api)
        told = _show(" | ".join(str(run) for run in runs), told)
        if time.monotonic() > deadline:
            raise QuickstartError(f"The sweeps are not over after {_RUN_SECONDS} s; look at {api.address}")
        time.sleep(1)
    if sys.stdout.isatty():
        print()


def _show(line: str, told: str) -> str:
    """Show a line in place on a terminal, and only what changed in a log."""
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="", flush=True)
    elif line != told:
        print(line, flush=True)
    return line


def _report(api: Api, run: Progress, say: Callable[[str], None]) -> bool:
    summary = api.result(run.dag_id, run.run_id, "collect")
    page = f"{api.address}/dags/{run.dag_id}/runs/{run.run_id}"
    if run.state == "success" and isinstance(summary, dict):
        say(f"\n{run.dag_id}\n{summary.get('leaderboard', '(no leaderboard)')}\n{page}")
        return True
    say(f"\n{run.dag_id}: the run ended as {run.state}; its tasks and their logs: {page}")
    return False

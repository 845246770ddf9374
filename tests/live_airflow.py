"""A real Airflow for tests and benchmarks: scheduler, API server, dag-processor and triggerer, each a process.

Everything listens on 127.0.0.1, on free ports, in a folder of its own; ``stop`` ends what ``start`` started.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
FINISHED = {"success", "failed"}


class NotReachedError(AssertionError):
    """What a test waited for did not come."""


def free_port() -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(check: Callable[[], T], *, seconds: float = 120, what: str = "the condition") -> T:
    """Wait until ``check`` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise NotReachedError(f"{what} did not come within {seconds} s; last seen: {found!r}")
        time.sleep(0.5)


class LiveAirflow:
    """One Airflow installation with its processes.

    Args:
        home: An empty folder for AIRFLOW_HOME; DAG files go to ``home / "dags"``.
        settings: More environment variables, such as ``AIRFLOW__CORE__PARALLELISM``.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token: str | None = None
        self.env = self._environment() | dict(settings or {})

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"http://127.0.0.1:{self.port}"

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": "for tests only, nobody else listens",
            "AIRFLOW__API_AUTH__JWT_SECRET": "for tests only, nobody else listens!",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__FILE_PARSING_SORT_MODE": "modified_time",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "1",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "1",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__SCHEDULER__PARSING_PRE_IMPORT_MODULES": "True",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__HPTUNING__DEFAULT_RUNNER": "local",
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, seconds: float = 180) -> None:
        """Make the database, start all processes, and wait until each reports healthy."""
        self.command("db", "migrate")
        for component in COMPONENTS:
            self.start_component(component)
        try:
            eventually(self._healthy, seconds=seconds, what="a healthy Airflow")
        except NotReachedError as error:
            tails = "\n".join(f"--- {name}\n{self.process_log(name)[-2000:]}" for name in COMPONENTS)
            self.stop()
            raise NotReachedError(f"{error}\n{tails}") from None

    def start_component(self, component: str) -> None:
        """Start one process of Airflow."""
        with (self.home / f"{component}.log").open("ab") as log:
            self.processes[component] = subprocess.Popen(
                [sys.executable, "-m", "airflow", component],
                env=self.env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill_component(self, component: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """End one process of Airflow with everything it started."""
        process = self.processes.pop(component)
        if process.poll() is None:
            os.killpg(process.pid, sig)
        process.wait(30)

    def stop(self) -> None:
        """End all processes: politely, then not."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 20
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            # The group may hold children of a process that is gone already.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait(10)
        self.processes.clear()

    def process_log(self, component: str) -> str:
        """Return what a process has printed."""
        path = self.home / f"{component}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def command(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``airflow …`` against this installation."""
        result = subprocess.run(
            [sys.executable, "-m", "airflow", *args],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if check and result.returncode:
            raise RuntimeError(f"airflow {' '.join(args)} failed:\n{result.stdout}\n{result.stderr}")
        return result

    def _healthy(self) -> bool:
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise NotReachedError(f"{name} has ended")
        try:
            health = self.api("GET", "monitor/health")
        except (OSError, KeyError):
            return False
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all((health.get(part) or {}).get("status") == "healthy" for part in parts)

    def token(self) -> str:
        """Return a token of an administrator."""
        if self._token is None:
            with urllib.request.urlopen(f"{self.url}/auth/token", timeout=30) as answer:
                self._token = json.load(answer)["access_token"]
        return self._token

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call Airflow's REST API and return the answer's JSON."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token()}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise OSError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error
        return json.loads(text) if text else None

    def add(self, name: str, text: str) -> Path:
        """Write a file into the dags folder."""
        path = self.dags / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def dag_ids(self) -> set[str]:
        """Return the ids of the DAGs that Airflow shows."""
        return {dag["dag_id"] for dag in self.api("GET", "dags?limit=500")["dags"]}

    def wait_for_dag(self, dag_id: str, *, seconds: float = 120) -> None:
        """Wait until a DAG appears; its file's import error fails the test at once."""

        def appeared() -> bool:
            for error in self.import_errors():
                if Path(error["filename"]).stem == dag_id:
                    raise NotReachedError(error["stack_trace"])
            return dag_id in self.dag_ids()

        eventually(appeared, seconds=seconds, what=f"the DAG {dag_id}")

    def import_errors(self) -> list[dict[str, Any]]:
        """Return the import errors that Airflow shows."""
        errors: list[dict[str, Any]] = self.api("GET", "importErrors?limit=500")["import_errors"]
        return errors

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run and return its id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        run_id: str = self.api("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"]
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        state: str = self.run_info(dag_id, run_id)["state"]
        return state

    def run_info(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return what the API says of a run."""
        info: dict[str, Any] = self.api("GET", f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}")
        return info

    def wait_for_run(self, dag_id: str, run_id: str, *, seconds: float = 300) -> str:
        """Wait until a run has ended and return its state."""

        def state() -> str | None:
            now = self.run_state(dag_id, run_id)
            return now if now in FINISHED else None

        return eventually(lambda: state() or "", seconds=seconds, what=f"the end of {dag_id}/{run_id}")

    def run(self, dag_id: str, *, seconds: float = 300) -> tuple[str, str]:
        """Wait for a DAG, run it to its end, and return the run's id and state."""
        self.wait_for_dag(dag_id)
        run_id = self.trigger(dag_id)
        return run_id, self.wait_for_run(dag_id, run_id, seconds=seconds)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run."""
        found: list[dict[str, Any]] = []
        base = f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances"
        while True:
            page = self.api("GET", f"{base}?limit=500&offset={len(found)}")
            found.extend(page["task_instances"])
            if len(found) >= page["total_entries"]:
                return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """Return the result of a task."""
        run = urllib.parse.quote(run_id)
        path = f"dags/{dag_id}/dagRuns/{run}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.api("GET", f"{path}?map_index={map_index}&deserialize=true")["value"]

    def records(self, dag_id: str, run_id: str, task_id: str = "trial") -> list[dict[str, Any]]:
        """Return the records that the trials of a mapped task have left, by trial number."""
        run = urllib.parse.quote(run_id)
        indexes = [
            instance["map_index"]
            for instance in self.task_instances(dag_id, run_id)
            if instance["task_id"] == task_id and instance["state"] in {"success", "failed"}
        ]
        del run
        return sorted((self.xcom(dag_id, run_id, task_id, i) for i in indexes), key=lambda r: r["trial"])

    def task_log(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, attempt: int = 1) -> str:
        """Return the log of a task as one text."""
        run = urllib.parse.quote(run_id)
        path = f"dags/{dag_id}/dagRuns/{run}/taskInstances/{task_id}/logs/{attempt}"
        content = self.api("GET", f"{path}?map_index={map_index}&full_content=true")["content"]
        # A structured line has its text as "event", and an error's own text elsewhere.
        return "\n".join(str(line["event"]) + str(line.get("error_detail") or "") for line in content)

    def clear(self, dag_id: str, run_id: str, task_ids: list[Any], *, downstream: bool = True) -> None:
        """Clear tasks of a run (``[task_id]`` or ``[(task_id, map_index)]``)."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": task_ids,
            "only_failed": False,
            "reset_dag_runs": True,
            "include_downstream": downstream,
        }
        self.api("POST", f"dags/{dag_id}/clearTaskInstances", body)


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """Return the largest number of spans (start, end) that overlap; touching ends do not."""
    events = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


@contextmanager
def airflow_in(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[LiveAirflow]:
    """Start an Airflow in a folder, and stop it afterwards."""
    with LiveAirflow(home, settings) as live:
        yield live

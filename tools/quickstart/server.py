"""Starts and stops the Airflow of the quickstart: scheduler, DAG processor, triggerer and API server.

It is what ``airflow standalone`` runs, with three differences: the log servers (which would listen on all
addresses) are left out, each component logs to a file of its own, and it goes on when this program ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools.quickstart.api import Api
from tools.quickstart.processes import MARK, Process, end, is_free, owner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
_NEEDED = {"metadatabase", "scheduler", "dag_processor", "triggerer"}
_START_SECONDS = 240


class QuickstartError(RuntimeError):
    """Something that the person at the keyboard must know; the message is all they see."""


@dataclass(frozen=True)
class Running:
    """The Airflow that was started, as ``state.json`` remembers it."""

    mark: str
    port: int
    processes: tuple[Process, ...]

    @property
    def address(self) -> str:
        """Where its page is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def dead(self) -> list[str]:
        """Names of the components that no longer run."""
        return [process.name for process in self.processes if not process.is_alive]


@dataclass(frozen=True)
class Server:
    """The Airflow below one folder.

    Attributes:
        home: Airflow's home: its database, logs and settings, and our own ``state.json``.
        dags: The folder with the sweeps.
    """

    home: Path
    dags: Path

    def running(self) -> Running | None:
        """Return the Airflow that runs here, whole or in part, or None."""
        started = self._remembered()
        return started if started and len(started.dead) < len(started.processes) else None

    def start(self, port: int, say: Callable[[str], None]) -> Running:
        """Start Airflow, or find it running, and return when it is healthy.

        Raises:
            QuickstartError: The port is taken, or Airflow did not start.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        with self._alone():
            running = self.running()
            if running and not running.dead:
                self._wait(running, say)
                return running
            if running:
                say(f"Of the Airflow that ran here, {', '.join(running.dead)} ended: starting it anew")
                self.stop()
            if not is_free(port):
                other = f"make quickstart PORT={port + 1}"
                raise QuickstartError(f"Port {port} is taken by {owner_of(port)}.\nChoose another: {other}")
            try:
                running = self._launch(port, say)
                self._wait(running, say)
            except BaseException:  # Ctrl-C too: half an Airflow is of no use to anyone.
                self.stop()
                raise
            return running

    def stop(self) -> list[str]:
        """End exactly what was started here and return the names of what was running."""
        started = self._remembered()
        ended = end(started.processes, started.mark) if started else []
        self._state.unlink(missing_ok=True)
        return ended

    def log(self, component: str) -> Path:
        """Return the path of a component's log."""
        return self.home / "logs" / f"{component}.log"

    def tail(self, component: str, lines: int = 25) -> str:
        """Return the last lines of a component's log."""
        try:
            text = self.log(component).read_text(errors="replace")
        except FileNotFoundError:
            return "(it wrote nothing)"
        return "\n".join(text.splitlines()[-lines:])

    def environment(self, mark: str, port: int) -> dict[str, str]:
        """Return the environment of all components.

        Airflow settings of the shell are left out: they may name somebody's real database.
        """
        left_out = ("AIRFLOW_", "AIRFLOW__", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        scripts = Path(sys.executable).parent
        return kept | {
            MARK: mark,
            "SPT_NOENV": "1",  # Airflow renames its processes; this keeps their environment readable.
            "PATH": f"{scripts}{os.pathsep}{kept.get('PATH', '')}",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "PYTHONUNBUFFERED": "1",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__CORE__AUTH_MANAGER": (
                "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
            ),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__HPTUNING__DEFAULT_RUNNER": "local",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "SCARF_ANALYTICS": "false",
        }

    @property
    def _state(self) -> Path:
        return self.home / "state.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder: of two quickstarts that start together, the second finds what the first made."""
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _launch(self, port: int, say: Callable[[str], None]) -> Running:
        mark = uuid.uuid4().hex
        environment = self.environment(mark, port)
        (self.home / "logs").mkdir(exist_ok=True)
        say("Preparing Airflow's database (SQLite)")
        with self.log("database").open("w") as log:
            prepared = subprocess.run(
                [self._airflow, "db", "migrate"],
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if prepared.returncode:
            advice = "`make clean` removes it, to begin anew."
            raise QuickstartError(f"Airflow could not prepare its database; {advice}\n{self.tail('database')}")
        say("Starting Airflow: " + ", ".join(COMPONENTS))
        running = Running(mark, port, ())
        for name, arguments in COMPONENTS.items():
            process = self._spawn(name, arguments, environment)
            running = Running(mark, port, (*running.processes, process))
            self._remember(running)
        return running

    def _spawn(self, name: str, arguments: tuple[str, ...], environment: dict[str, str]) -> Process:
        with self.log(name).open("w") as log:
            child = subprocess.Popen(
                [self._airflow, *arguments],
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for us only.
            )
        return Process.of(name, child.pid)

    def _remembered(self) -> Running | None:
        try:
            state = json.loads(self._state.read_text())
            processes = tuple(Process(**process) for process in state["processes"])
            return Running(state["mark"], state["port"], processes)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _remember(self, running: Running) -> None:
        state = {
            "mark": running.mark,
            "port": running.port,
            "processes": [process.to_json() for process in running.processes],
        }
        draft = self._state.with_suffix(".new")
        draft.write_text(json.dumps(state, indent=2))
        draft.replace(self._state)

    @property
    def _airflow(self) -> str:
        return str(Path(sys.executable).with_name("airflow"))

    def _wait(self, running: Running, say: Callable[[str], None]) -> None:
        api = Api(running.address)
        deadline = time.monotonic() + _START_SECONDS
        told = ""
        while True:
            health = api.health()
            waiting = sorted(_NEEDED - {name for name, state in health.items() if state == "healthy"})
            if not waiting:
                return
            if running.dead:
                name = running.dead[0]
                raise QuickstartError(
                    f"Airflow's {name} ended. The end of its log ({self.log(name)}):\n{self.tail(name)}"
                )
            if time.monotonic() > deadline:
                raise QuickstartError(self._late(waiting))
            now = ", ".join(waiting) if health else "api-server"
            if now != told:
                say(f"Waiting for {now}")
                told = now
            time.sleep(0.5)

    def _late(self, waiting: list[str]) -> str:
        tails = "\n".join(f"--- {name}\n{self.tail(name, 12)}" for name in COMPONENTS)
        late = f"Airflow is not healthy after {_START_SECONDS} s ({', '.join(waiting)})"
        return f"{late}. The ends of its logs:\n{tails}"

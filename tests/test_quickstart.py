"""The quickstart starts, finds and ends processes: exactly its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_hptuning.trials import Direction, Metric
from tools.quickstart.processes import MARK, Process, end, is_free, marked, owner_of, start_time
from tools.quickstart.server import COMPONENTS, QuickstartError, Running, Server
from tools.quickstart.sweeps import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP
linux_only = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")


@pytest.fixture
def mark() -> str:
    """A mark that no other process carries."""
    return uuid.uuid4().hex


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A server in a folder of its own, that has never run."""
    return Server(tmp_path / "home", tmp_path / "dags")


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that this test listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def spawn(mark: str, code: str = SLEEP) -> subprocess.Popen[str]:
    """Start a marked process in a session of its own, and return when it is up."""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, MARK: mark},
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    assert child.stdout.readline() == "up\n"
    child.stdout.close()
    return child


def test_end_ends_what_was_started(mark: str) -> None:
    """A process that was started is ended, and named."""
    child = spawn(mark)
    assert end([Process.of("worker", child.pid)], mark) == ["worker"]
    assert child.wait() == -signal.SIGTERM


def test_end_leaves_a_process_alone_that_only_has_the_same_id(mark: str) -> None:
    """An id that was used again belongs to somebody else."""
    child = spawn("somebody else")
    assert end([Process("worker", child.pid, "long ago")], mark, grace=0.1) == []
    assert start_time(child.pid) is not None
    child.kill()
    child.wait()


@linux_only
def test_end_finds_descendants_that_left_the_group(mark: str) -> None:
    """A trial in a process group of its own is found by its mark, even if its leader is long gone."""
    orphan = spawn(mark)
    assert marked(mark) == [orphan.pid]
    assert end([], mark) == []
    assert marked(mark) == []
    assert orphan.wait() == -signal.SIGTERM


def test_end_insists(mark: str) -> None:
    """A process that ignores the polite signal is ended all the same."""
    child = spawn(mark, STUBBORN)
    end([Process.of("worker", child.pid)], mark, grace=0.3)
    assert child.wait() == -signal.SIGKILL


def test_a_process_that_ended_is_not_alive(mark: str) -> None:
    """A process is alive until it ends, and its remains do not count."""
    child = spawn(mark)
    process = Process.of("worker", child.pid)
    before = process.is_alive
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert (before, process.is_alive) == (True, False)
    child.wait()


@linux_only
def test_owner_of_a_port_is_named(listener: int) -> None:
    """Who sits on a port is told with its id and its command."""
    assert not is_free(listener)
    assert f"process {os.getpid()} (" in owner_of(listener)


def test_taken_port_stops_the_start(server: Server, listener: int) -> None:
    """A port that is taken is reported with another to take, before anything is started."""
    with pytest.raises(QuickstartError, match=rf"Port {listener} is taken .*\n.*PORT={listener + 1}"):
        server.start(listener, lambda _: None)
    assert server.running() is None


def test_stop_where_nothing_runs_does_nothing(server: Server) -> None:
    """Stopping twice, or before the first start, is no error."""
    assert server.stop() == []


def test_server_remembers_what_it_started(server: Server, mark: str) -> None:
    """What was started is found again by another program, until it is stopped."""
    child = spawn(mark)
    server.home.mkdir()
    state = {"mark": mark, "port": 8080, "processes": [Process.of("scheduler", child.pid).to_json()]}
    (server.home / "state.json").write_text(json.dumps(state))
    running = server.running()
    assert isinstance(running, Running)
    assert (running.address, running.dead) == ("http://127.0.0.1:8080", [])
    assert server.stop() == ["scheduler"]
    assert server.running() is None
    assert child.wait() == -signal.SIGTERM


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"mark": 1, "port": 2, "processes": [3]}'])
def test_damaged_memory_counts_as_none(server: Server, text: str) -> None:
    """A state file that was cut short stands for nothing that runs."""
    server.home.mkdir()
    (server.home / "state.json").write_text(text)
    assert server.running() is None
    assert server.stop() == []


def test_airflow_settings_of_the_shell_do_not_leak(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickstart never works on a database that the shell happens to name, and listens on this machine only."""
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environment = server.environment("mark", 8080)
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in environment
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["AIRFLOW_HOME"] == str(server.home)
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert environment["AIRFLOW__HPTUNING__DEFAULT_RUNNER"] == "local"


def test_no_component_serves_its_logs_to_the_network() -> None:
    """Scheduler and triggerer would serve logs on all addresses."""
    for name in ("scheduler", "triggerer"):
        assert "--skip-serve-logs" in COMPONENTS[name]


class FakeApi:
    """An Airflow with one run of three trials: two ended, one running."""

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Say that the run runs."""
        assert (dag_id, run_id) == ("sweep", "manual__1")
        return "running"

    def tasks(self, _dag_id: str, _run_id: str) -> list[dict[str, object]]:
        """Return the tasks of the run, of which three are trials."""
        states = ["success", "failed", "running"]
        trials = [{"task_id": "trial", "map_index": n, "state": state} for n, state in enumerate(states)]
        return [{"task_id": "suggest", "map_index": -1, "state": "success"}, *trials]

    def result(self, _dag_id: str, _run_id: str, _task_id: str, map_index: int) -> object:
        """Return the record of a trial; the failed one had logged the better value."""
        values = {0: ("succeeded", 0.9), 1: ("failed", 0.99)}
        state, accuracy = values[map_index]
        return {"trial": map_index, "state": state, "metrics": {"accuracy": accuracy}}


def test_progress_counts_trials_and_shows_the_best() -> None:
    """The progress line counts trials only, and a failed trial is never the best."""
    progress = Progress("sweep", "manual__1", Metric("accuracy", Direction.MAXIMIZE))
    progress.refresh(FakeApi())
    assert str(progress) == "sweep: 2/3 done, 1 running, 1 failed, best accuracy 0.9000 (#0)"
    assert not progress.is_over


class FakeHyperband(FakeApi):
    """Two rungs have begun, whose trials have the same map indexes; the second one's is better."""

    def tasks(self, _dag_id: str, _run_id: str) -> list[dict[str, object]]:
        """Return the trial of each rung."""
        return [{"task_id": f"rung_{n}.trial", "map_index": 0, "state": "success"} for n in range(2)]

    def result(self, _dag_id: str, _run_id: str, task_id: str, _map_index: int) -> object:
        """Return the record of a trial."""
        number, accuracy = {"rung_0.trial": (0, 0.7), "rung_1.trial": (9, 0.8)}[task_id]
        return {"trial": number, "state": "succeeded", "metrics": {"accuracy": accuracy}}


def test_progress_reads_every_rung_and_knows_what_is_to_come() -> None:
    """Trials of rungs that have not begun count as planned."""
    progress = Progress("sweep", "manual__1", Metric("accuracy", Direction.MAXIMIZE), planned=22)
    progress.refresh(FakeHyperband())
    assert str(progress) == "sweep: 2/22 done, best accuracy 0.8000 (#9)"

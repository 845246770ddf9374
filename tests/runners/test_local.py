"""Tests of the local runner, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_hptuning.runners.lines import TAIL_LINES
from airflow_hptuning.runners.local import TRIAL_SITE, LocalRunner
from airflow_hptuning.trials import FailureClass
from tests.kits.runners import Lines, RunnerConformance, command

if TYPE_CHECKING:
    from tests.kits.runners import MakeRunner


class TestConformance(RunnerConformance):
    """The local runner does what every runner must."""

    @pytest.fixture
    def make_runner(self) -> MakeRunner:
        """Make local runners."""
        return LocalRunner


def wait_until_gone(pid: int) -> None:
    """Wait for a process to end; a test that waits for ever fails by its time limit."""
    while is_running(pid):
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended but is not reaped does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def wait_for_numbers(path: Path, count: int) -> list[int]:
    """Wait until a file holds that many process ids."""
    while not path.exists() or len(numbers := path.read_text(encoding="utf-8").split()) < count:
        time.sleep(0.02)
    return [int(number) for number in numbers]


# One that ignores SIGTERM, and one whose parent has gone; both write their process ids first.
FAMILY = """
(trap '' TERM; sh -c 'echo $PPID' >> {pids}; while :; do sleep 0.05; done) &
( (sh -c 'echo $PPID' >> {pids}; exec sleep 60) & ) &
"""


def test_the_whole_group_ends_with_a_stop(tmp_path: Path) -> None:
    """Grandchildren that ignore the signal or lost their parent end with the trial."""
    pids = tmp_path / "pids"
    script = FAMILY.format(pids=pids) + "sleep 60"
    runner = LocalRunner(grace=0.5)
    outcome = runner.run(
        command(script),
        on_line=Lines(),
        should_stop=lambda: "goal" if pids.exists() and len(pids.read_text(encoding="utf-8").split()) == 2 else None,
    )
    assert outcome.stopped == "goal"
    assert not any(is_running(pid) for pid in wait_for_numbers(pids, 2))


def test_processes_left_behind_are_ended(tmp_path: Path) -> None:
    """What a trial leaves running holding its output does not hang it, and is ended with a word in the log."""
    pids = tmp_path / "pids"
    lines = Lines()
    outcome = LocalRunner(grace=0.5).run(command(FAMILY.format(pids=pids) + "echo done"), on_line=lines)
    assert outcome.exit_code == 0
    assert lines[0] == "done"
    assert "left processes behind" in lines[-1]
    assert not any(is_running(pid) for pid in wait_for_numbers(pids, 2))


def test_a_quiet_process_left_behind_is_ended(tmp_path: Path) -> None:
    """So is one that does not hold the output."""
    pids = tmp_path / "pids"
    script = f"sleep 60 > /dev/null 2>&1 & echo $! > {pids}"
    LocalRunner(grace=0.5).run(command(script), on_line=Lines())
    assert not is_running(wait_for_numbers(pids, 1)[0])


def test_a_short_afterlife_is_granted() -> None:
    """What a process substitution prints just after the shell has ended is seen, without a complaint."""
    lines = Lines()
    LocalRunner().run(command("(sleep 0.3; echo late) & echo done"), on_line=lines)
    assert lines == ["done", "late"]


def test_a_process_that_left_the_group_does_not_hang_the_trial(tmp_path: Path) -> None:
    """One in a session of its own that keeps the output open is let go."""
    pids = tmp_path / "pids"
    outcome = LocalRunner(grace=0.5).run(command(f"setsid sleep 60 & echo $! > {pids}; sleep 0.2"), on_line=Lines())
    assert outcome.exit_code == 0
    for pid in wait_for_numbers(pids, 1):
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_trial_that_closes_its_output_runs_on() -> None:
    """The end of the output is not the end of the trial."""
    outcome = LocalRunner().run(command("exec >&- 2>&-; sleep 0.3; exit 7"), on_line=Lines())
    assert outcome.exit_code == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_signals_are_negative_exit_codes(number: signal.Signals) -> None:
    """A trial that a signal ended says which."""
    assert LocalRunner().run(command(f"kill -{number.value} $$"), on_line=Lines()).exit_code == -number


def test_many_lines() -> None:
    """A hundred thousand lines arrive, none lost; the outcome keeps the last ones."""
    lines = Lines()
    outcome = LocalRunner().run(command("seq 100000"), on_line=lines)
    assert lines == [str(number) for number in range(1, 100_001)]
    assert outcome.log_tail == tuple(lines[-TAIL_LINES:])


def test_a_huge_line_is_bounded() -> None:
    """A line of megabytes costs no memory, and the next one is whole."""
    lines = Lines()
    LocalRunner().run(command("head -c 20000000 /dev/zero | tr '\\0' x; echo; echo next"), on_line=lines)
    assert len(lines) == 2
    assert len(lines[0]) < 200_000
    assert lines[1] == "next"


def test_a_progress_bar_is_seen_while_it_is_drawn(tmp_path: Path) -> None:
    """Carriage returns are not waited on for ever: this trial ends only after its bar was seen."""
    seen = tmp_path / "seen"
    script = f"printf '\\r10%%\\r20'; until test -e '{seen}'; do sleep 0.05; done; printf '%%\\n'"
    lines = Lines("\r10%", seen.touch)
    outcome = LocalRunner().run(command(script), on_line=lines)
    assert lines == ["\r10%", "\r20%"]
    assert outcome.log_tail == ("10%", "20%")


def test_the_outcome_keeps_what_is_shown() -> None:
    """The tail has neither colours nor states of a progress bar that were drawn over."""
    outcome = LocalRunner().run(command("printf '\\033[31mred\\033[0m\\n\\r1%%\\r2%%\\n'"), on_line=Lines())
    assert outcome.log_tail == ("red", "2%")


def environment_of_a_trial(runner: LocalRunner, **env: str) -> dict[str, str]:
    """Run a trial that prints its environment."""
    lines = Lines()
    runner.run(command("env -0 | tr '\\n\\0' ' \\n'", **env), on_line=lines)
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_the_environment_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial inherits the worker's environment without Airflow's secrets."""
    secret = {
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW_CONN_DB",
        "AIRFLOW_VAR_TOKEN",
        "AIRFLOW_HOME",
        "_AIRFLOW_PROCESS_CONTEXT",
        "_AIRFLOW__STARTUP_MSG",
        "__AIRFLOW_SUPERVISOR_FD",
    }
    for name in secret:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "sweep")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    env = environment_of_a_trial(LocalRunner())
    assert not secret & set(env)
    assert (env["AIRFLOW_CTX_DAG_ID"], env["CUDA_VISIBLE_DEVICES"]) == ("sweep", "3")
    assert env["PYTHONUNBUFFERED"] == "1"
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_the_file_may_give_what_is_not_inherited() -> None:
    """What the file or the trial sets is set, whatever its name."""
    env = environment_of_a_trial(LocalRunner(env={"AIRFLOW_VAR_X": "given", "PATH": os.environ["PATH"]}))
    assert (env["AIRFLOW_VAR_X"], env["PATH"]) == ("given", os.environ["PATH"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, [str(TRIAL_SITE)]), ({"PYTHONPATH": "/a:/b"}, ["/a", "/b", str(TRIAL_SITE)])],
)
def test_trial_site_is_last(given: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules for trials come after all that the user has on the path."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert environment_of_a_trial(LocalRunner(env=given))["PYTHONPATH"].split(":") == expected


def test_python_is_the_interpreter_of_the_worker() -> None:
    """The command ``python`` runs what the worker runs, with its packages."""
    lines = Lines()
    LocalRunner().run(command("python -c 'import sys, attrs; print(sys.executable)'"), on_line=lines)
    assert [Path(line).parent for line in lines] == [Path(sys.executable).parent]


def test_working_dir_and_outputs(tmp_path: Path) -> None:
    """The trial starts in its directory, and the directory of its outputs exists."""
    lines = Lines()
    (tmp_path / "work").mkdir()
    outputs = tmp_path / "a" / "b"
    runner = LocalRunner(working_dir=str(tmp_path / "work"))
    runner.run(command(f"pwd; test -d '{outputs}' && echo there", outputs=outputs), on_line=lines)
    assert lines == [str(tmp_path / "work"), "there"]


def test_a_prefix_is_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of an object store is left alone."""
    monkeypatch.chdir(tmp_path)
    LocalRunner().run(command("true", outputs="s3://bucket/x"), on_line=Lines())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "directory", "kind", "reason"),
    [
        ("true", "missing", FailureClass.USER_CODE, "working directory does not exist"),
        ("echo \0", ".", FailureClass.USER_CODE, "null byte"),
        (": " + "x" * 3_000_000, ".", FailureClass.USER_CODE, "too long"),
    ],
)
def test_a_trial_that_cannot_start(
    script: str,
    directory: str,
    kind: FailureClass,
    reason: str,
    tmp_path: Path,
) -> None:
    """What prevents the start is a finding of the outcome, not an exception."""
    outcome = LocalRunner(working_dir=str(tmp_path / directory)).run(command(script), on_line=Lines())
    assert outcome.exit_code is None
    assert outcome.failure is not None
    assert outcome.failure.failure_class is kind
    assert reason in outcome.failure.reason


def test_outputs_that_cannot_be_made(tmp_path: Path) -> None:
    """A directory of outputs that cannot be made is not the user's code's fault."""
    (tmp_path / "file").touch()
    outcome = LocalRunner().run(command("true", outputs=tmp_path / "file" / "below"), on_line=Lines())
    assert outcome.failure is not None


def test_an_exception_of_the_caller_ends_the_trial(tmp_path: Path) -> None:
    """When a callback raises, the trial has ended by the time the exception arrives."""
    pids = tmp_path / "pids"

    def fail() -> None:
        raise RuntimeError("stop here")

    script = FAMILY.format(pids=pids) + f"until test $(wc -l < {pids}) = 2; do sleep 0.05; done; echo go; sleep 60"
    with pytest.raises(RuntimeError, match="stop here"):
        LocalRunner(grace=0.5).run(command(script), on_line=Lines("go", fail))
    assert not any(is_running(pid) for pid in wait_for_numbers(pids, 2))


def test_descriptors_are_not_leaked() -> None:
    """Neither we nor the trial hold what was opened for the run."""
    LocalRunner().run(command("true"), on_line=Lines())
    before = sorted(Path("/proc/self/fd").iterdir())
    lines = Lines()
    for _ in range(5):
        LocalRunner().run(command("ls /proc/self/fd"), on_line=lines)
        LocalRunner(working_dir="/nowhere").run(command("true"), on_line=Lines())
        LocalRunner().run(command("\0"), on_line=Lines())
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    # 0, 1, 2, and the one that lists them.
    assert lines[:4] == ["0", "1", "2", "3"]
    assert len(lines) == 20


def test_without_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not tell of an exit, it is asked for."""
    monkeypatch.delattr(os, "pidfd_open")
    lines = Lines()
    assert LocalRunner().run(command("echo x; exec >&- 2>&-; exit 3"), on_line=lines).exit_code == 3
    assert lines == ["x"]


def test_signal_handlers_are_left_alone() -> None:
    """The handlers of the process that runs the trial stay what they were."""
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM)
    before = [signal.getsignal(number) for number in watched]
    inside: list[object] = []
    LocalRunner().run(command("echo x"), on_line=lambda _: inside.extend(map(signal.getsignal, watched)))
    assert inside == before == [signal.getsignal(number) for number in watched]


WORKER = """
import signal, sys
from airflow_hptuning.runners.local import LocalRunner
from airflow_hptuning.trials import TrialCommand

runner = LocalRunner(grace=1)
def on_term(signum, frame):
    {handler}
signal.signal(signal.SIGTERM, on_term)
{prelude}
outcome = runner.run(TrialCommand(sys.argv[1], {{}}, ""), on_line=lambda line: print(line, flush=True))
print(outcome.exit_code, outcome.stopped, outcome.failure and outcome.failure.reason, flush=True)
"""


def start_worker(script: str, handler: str = "runner.kill()", prelude: str = "") -> subprocess.Popen[str]:
    """Start another process that runs a trial, as a task of Airflow does, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER.format(handler=handler, prelude=prelude), script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def output_of(worker: subprocess.Popen[str]) -> str:
    """Wait for a worker and return its last line."""
    out, _ = worker.communicate()
    return out.splitlines()[-1]


def test_a_term_handler_that_kills(tmp_path: Path) -> None:
    """Airflow's handler calls on_kill and returns: the trial ends and the runner reports it."""
    pids = tmp_path / "pids"
    worker = start_worker(FAMILY.format(pids=pids) + "sleep 60")
    members = wait_for_numbers(pids, 2)
    worker.terminate()
    assert output_of(worker).startswith("-15 None the task was killed")
    assert not any(is_running(pid) for pid in members)


def test_a_term_handler_that_raises(tmp_path: Path) -> None:
    """A handler that raises ends the trial as well."""
    pids = tmp_path / "pids"
    worker = start_worker(FAMILY.format(pids=pids) + "sleep 60", handler="runner.kill(); sys.exit(9)")
    members = wait_for_numbers(pids, 2)
    worker.terminate()
    worker.communicate()
    assert worker.returncode == 9
    assert not any(is_running(pid) for pid in members)


def test_the_group_of_the_worker_is_not_the_group_of_the_trial(tmp_path: Path) -> None:
    """A signal to the worker's group, as Airflow's supervisor sends it, reaches the trial by our hand only."""
    ready = tmp_path / "ready"
    script = f"trap 'echo term' TERM; touch {ready}; for n in 1 2 3; do sleep 0.2; done; exit 5"
    worker = start_worker(script, handler="pass")
    while not ready.exists():
        time.sleep(0.02)
    os.killpg(worker.pid, signal.SIGTERM)
    assert output_of(worker) == "5 None None"


def test_the_trial_does_not_outlive_a_killed_worker(tmp_path: Path) -> None:
    """When the worker is killed without a word, the guard ends all of the trial."""
    pids = tmp_path / "pids"
    worker = start_worker(FAMILY.format(pids=pids) + "sleep 60")
    members = wait_for_numbers(pids, 2)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.communicate()
    for pid in members:
        wait_until_gone(pid)


def test_a_worker_killed_at_any_moment_leaves_nothing(tmp_path: Path) -> None:
    """Also when it dies while it starts the trial."""
    started = tmp_path / "started"
    marker = f"hptuning-{os.getpid()}-{time.monotonic_ns()}"
    for delay in (0.0, 0.001, 0.002, 0.004, 0.008):
        prelude = (
            "import os, threading, time\n"
            f"threading.Thread(target=lambda: (time.sleep({delay}), os.kill(os.getpid(), 9)), daemon=True).start()"
        )
        worker = start_worker(f": {marker}; touch {started}; sleep 60", prelude=prelude)
        worker.communicate()
    while any(marker in text for text in command_lines()):
        time.sleep(0.05)


def command_lines() -> list[str]:
    """Return the command lines of all processes but this one's workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
    return found


def test_a_lost_exit_status_is_not_success() -> None:
    """Where SIGCHLD is ignored the exit status is lost; that is said, and nothing is made up."""
    worker = start_worker("exit 3", prelude="signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    last = output_of(worker)
    assert last.startswith("None None the exit status was lost")


def test_runners_in_threads() -> None:
    """Several trials may run at once in one process."""
    results: list[int | None] = []

    def run(code: int) -> None:
        results.append(LocalRunner().run(command(f"seq 100; exit {code}"), on_line=Lines()).exit_code)

    threads = [threading.Thread(target=run, args=(code,)) for code in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result for result in results if result is not None) == list(range(8))

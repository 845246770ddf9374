"""The script around a trial's command, run by a real shell as a container runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_hptuning.runners.pod_script import container_command

SHELLS = [shell for shell in ("/bin/sh", "/bin/bash") if Path(shell).exists()]


def start(command: str, tmp_path: Path, *, shell: str = "/bin/sh", **options: Any) -> subprocess.Popen[str]:
    """Start the script in an environment like a container's: with little in it."""
    words = container_command(command, **options)
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "TMPDIR": str(tmp_path),
        "HPTUNING_OUTPUTS_PATH": str(tmp_path / "outputs"),
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [shell, *words[1:]],
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(command: str, tmp_path: Path, **options: Any) -> tuple[int, list[str]]:
    """Run the script; return exit code and lines."""
    with start(command, tmp_path, **options) as process:
        out, _ = process.communicate(timeout=60)
        return process.returncode, out.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_code(tmp_path: Path, shell: str, code: int) -> None:
    """The command's exit code is the container's."""
    assert run(f"echo here; exit {code}", tmp_path, shell=shell) == (code, ["here"])


def test_bash_where_there_is_one(tmp_path: Path) -> None:
    """Commands may use what bash has beyond sh."""
    assert run("a=(x y); echo ${a[1]}", tmp_path) == (0, ["y"])


def test_outputs_directory_is_made(tmp_path: Path) -> None:
    """It is there when the command starts."""
    assert run('cd "$HPTUNING_OUTPUTS_PATH" && echo there', tmp_path) == (0, ["there"])


def test_a_missing_checkpoint_is_said(tmp_path: Path) -> None:
    """A trial that should continue says that it cannot; one that can says nothing."""
    said = ["hptuning: no checkpoint in the outputs directory: the trial starts from scratch", "train"]
    assert run("echo train", tmp_path, resume=True) == (0, said)
    (tmp_path / "outputs" / "checkpoint").touch()
    assert run("echo train", tmp_path, resume=True) == (0, ["train"])


def test_tracking_can_be_imported(tmp_path: Path) -> None:
    """Ours and Polyaxon's spelling, although nothing of ours is installed."""
    code = (
        "from polyaxon_client.tracking import Experiment; import airflow_hptuning.tracking as t;"
        "Experiment().log_metrics(step=1, loss=0.5); print(t.__file__.startswith('{}'))"
    )
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    # -S: without the packages of the interpreter, among which ours is installed for development.
    command = f'{python} -S -c "{code.format(tmp_path)}" 2>/dev/null'
    assert run(command, tmp_path) == (0, ['{"step": 1, "loss": 0.5}', "True"])


def test_build_steps_run_before_the_command(tmp_path: Path) -> None:
    """In their order, each announced."""
    code, lines = run("cat made", tmp_path, steps=["echo one > made", "echo two >> made"])
    assert (code, lines[-2:]) == (0, ["one", "two"])
    assert lines[0] == "hptuning: build step 1 of 2: echo one > made"


def test_a_failing_build_step_ends_it(tmp_path: Path) -> None:
    """The command does not run, and the last line says which step failed."""
    code, lines = run("echo command", tmp_path, steps=["true", "echo oh no; exit 3", "true"])
    assert code == 3
    assert lines[-2:] == ["oh no", "hptuning: build step 2 of 3 failed (exit code 3): echo oh no; exit 3"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_signal_reaches_all_processes(tmp_path: Path, shell: str) -> None:
    """A command that handles SIGTERM says goodbye, and its exit code counts; its children get the signal too."""
    command = (
        "(trap 'echo child; exit 0' TERM; echo ready; while :; do sleep 0.05; done) & "
        "trap 'wait; echo bye; exit 7' TERM; while :; do sleep 0.05; done"
    )
    with start(command, tmp_path, shell=shell) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 7
        assert [line for line in out.splitlines() if line in {"child", "bye"}] == ["child", "bye"]


def test_an_object_store_is_no_directory(tmp_path: Path) -> None:
    """A prefix such as s3:// is left to the trial."""
    code, lines = run("ls", tmp_path, resume=True)
    assert (code, lines[0][:9]) == (0, "hptuning:")
    words = container_command("ls", resume=True)
    env = {"PATH": "/usr/bin:/bin", "HPTUNING_OUTPUTS_PATH": "s3://bucket/x"}
    again = subprocess.run(words, env=env, capture_output=True, text=True, cwd=tmp_path / "outputs", check=True)
    assert again.stdout == ""


def test_arguments_fit(tmp_path: Path) -> None:
    """Linux takes no argument above 128 KiB."""
    assert max(len(word) for word in container_command("true")) < 64 * 1024
    assert run("true", tmp_path)[0] == 0

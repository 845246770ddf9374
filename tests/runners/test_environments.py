"""Tests of built environments, with real virtual environments and without a network."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from airflow_hptuning.errors import BuildError
from airflow_hptuning.runners.environments import build_environment, environment_variables
from airflow_hptuning.runners.local import LocalRunner
from airflow_hptuning.trials import TrialCommand
from tests.kits.runners import Lines


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One root for the tests that need no other, as a build takes seconds."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="module")
def venv(root: Path) -> Path:
    """An environment that two steps have changed."""
    steps = ['echo "VALUE = \'$GREETING\'" > "$VIRTUAL_ENV/greeting.txt"', "python -m pip --version"]
    return build_environment(steps, [("GREETING", "hi")], root=root, on_line=Lines())


def run(venv: Path, script: str) -> Lines:
    """Run a trial in an environment."""
    lines = Lines()
    LocalRunner(env=environment_variables(venv)).run(
        TrialCommand(script, {"HPTUNING_TRIAL_ID": "x"}, ""), on_line=lines
    )
    return lines


def test_steps_run_in_the_environment(venv: Path) -> None:
    """The steps see its Python and their variables; pip is there without a network."""
    assert (venv / "greeting.txt").read_text() == "VALUE = 'hi'\n"
    assert run(venv, "python -c 'import sys; print(sys.prefix)'; command -v pip") == [str(venv), f"{venv}/bin/pip"]


def test_trials_report_from_it(venv: Path) -> None:
    """Our tracking and Polyaxon's spelling of it can be imported, although nothing is installed."""
    script = """python - <<'END'
import importlib.util
assert importlib.util.find_spec("attrs") is None
from airflow_hptuning.tracking import log_metrics
from polyaxon_client.tracking import Experiment
log_metrics(loss=1)
Experiment().log_metrics(loss=2)
END"""
    assert run(venv, script) == ['{"loss": 1.0}', '{"loss": 2.0}']


def test_an_environment_is_built_once(venv: Path, root: Path) -> None:
    """The same steps give the same environment without running again."""
    lines = Lines()
    steps = ['echo "VALUE = \'$GREETING\'" > "$VIRTUAL_ENV/greeting.txt"', "python -m pip --version"]
    assert build_environment(steps, [("GREETING", "hi")], root=root, on_line=lines) == venv
    assert lines == []


def test_what_goes_into_it_tells_environments_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, variables, image, and the files that the steps name make another environment."""
    cheap(monkeypatch)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("a")

    def build(step: str, image: str | None = None, **variables: str) -> Path:
        return build_environment(
            [step],
            variables.items(),
            root=tmp_path / "root",
            image=image,
            on_line=Lines(),
            working_dir=str(tmp_path),
        )

    first = build("cat requirements.txt")
    assert build("cat requirements.txt") == first
    others = {
        build("cat  requirements.txt"),
        build("cat requirements.txt", "image"),
        build("cat requirements.txt", A="1"),
    }
    requirements.write_text("b")
    others.add(build("cat requirements.txt"))
    assert len(others | {first}) == 5


def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make virtual environments without pip, which takes most of the time."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setattr("airflow_hptuning.runners.environments._CREATE", "{python} -m venv --without-pip {venv}")


def test_a_failing_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the step and shows its last lines; nothing is left, and the next build starts anew."""
    cheap(monkeypatch)
    switch = tmp_path / "switch"
    steps = ["echo first", f"echo working; test -e {switch}", "echo third"]
    lines = Lines()
    with pytest.raises(BuildError, match=r"build step 2 of 3 failed \(exit code 1\): echo working; .*\nworking$"):
        build_environment(steps, root=tmp_path / "root", on_line=lines)
    assert lines == [
        "hptuning: build step 1 of 3: echo first",
        "first",
        f"hptuning: build step 2 of 3: {steps[1]}",
        "working",
    ]
    assert [path.suffix for path in (tmp_path / "root").iterdir()] == [".lock"]
    switch.touch()
    lines.clear()
    assert build_environment(steps, root=tmp_path / "root", on_line=lines).is_dir()
    assert lines[-1] == "third"


def test_the_remains_of_a_build_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed build left behind is removed; so is an environment whose Python has gone."""
    cheap(monkeypatch)
    venv = build_environment(["true"], root=tmp_path, on_line=Lines())
    (venv / ".complete").unlink()
    (venv / "half").touch()
    assert build_environment(["true"], root=tmp_path, on_line=Lines()) == venv
    assert not (venv / "half").exists()
    (venv / "bin" / "python").unlink()
    lines = Lines()
    build_environment(["true"], root=tmp_path, on_line=lines)
    assert lines == ["hptuning: build step 1 of 1: true"]


def test_concurrent_builds_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many tasks that need the same environment one builds it, and all get it whole."""
    cheap(monkeypatch)
    count = tmp_path / "count"
    found: list[tuple[Path, bool]] = []

    def build() -> None:
        venv = build_environment([f"echo x >> {count}; sleep 0.3"], root=tmp_path / "root", on_line=Lines())
        found.append((venv, (venv / ".complete").exists()))

    threads = [threading.Thread(target=build) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count.read_text() == "x\n"
    assert len(set(found)) == 1
    assert found[0][1]


def test_variables_of_the_build_hold_for_trials_too(tmp_path: Path) -> None:
    """They are those of the image in Polyaxon; they cannot replace the environment's own."""
    variables = environment_variables(tmp_path, [("LANG", "C"), ("PATH", "/nowhere")])
    assert variables["LANG"] == "C"
    assert variables["PATH"].startswith(f"{tmp_path}/bin:")
    assert variables["VIRTUAL_ENV"] == str(tmp_path)

"""The command line, called as a person calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_hptuning.cli import get_cli_commands, main

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
version: 1
kind: group
hptuning: {matrix: {lr: {geomspace: "0.001:0.1:3"}, act: {values: [relu, tanh]}}}
run: {cmd: "python train.py --lr={{ lr }} --act={{ act }}"}
airflow: {metrics: {objective: {name: loss, optimization: minimize}}}
"""

BAD = """
version: 1
kind: group
hptuning: {concurency: 2, matrix: {lr: {uniform: [1]}}}
run: {cmd: echo}
"""

HYPERBAND = """
version: 1
kind: group
hptuning:
  concurrency: 4
  hyperband:
    max_iter: 81
    eta: 3
    resource: {name: steps, type: int}
    metric: {name: loss, optimization: minimize}
  matrix: {lr: {uniform: [0, 0.9]}}
run: {cmd: "train --steps={{ steps }} --lr={{ lr }}"}
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Polyaxonfiles on disk."""
    paths = {}
    for name, text in {"good": GOOD, "bad": BAD, "hyperband": HYPERBAND}.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        paths[name] = str(path)
    return paths


def test_validate_accepts_a_good_file(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and one line."""
    assert main(["validate", files["good"]]) == 0
    assert capsys.readouterr().out == f"{files['good']}: valid\n"


def test_validate_prints_every_problem(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and each problem with its place, as text and as JSON."""
    assert main(["validate", files["good"], files["bad"]]) == 1
    text = capsys.readouterr().out
    assert f"error: {files['bad']}:4:" in text
    assert "concurrency" in text
    assert main(["validate", files["bad"], "--output", "json"]) == 1
    problems = json.loads(capsys.readouterr().out)
    errors = [problem for problem in problems if problem["severity"] == "error"]
    assert {problem["path"] for problem in errors} >= {"hptuning.concurency", "hptuning.matrix.lr.uniform"}
    assert list(problems[0]) == ["file", "line", "column", "path", "severity", "message", "hint"]


def test_a_missing_file_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a traceback."""
    assert main(["validate", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml" in capsys.readouterr().out


def test_plan_shows_parameters_and_configs(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A grid's plan lists its configs."""
    assert main(["plan", files["good"], "--runner", "local"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "good: grid search, 6 trials, 1 at once, 8 tasks in Airflow (local runner)"
    assert any(line.split() == ["1", "0.001", "tanh"] for line in lines)


def test_a_reader_may_leave_early(files: dict[str, str]) -> None:
    """``| head`` ends the command without a traceback."""
    command = [
        sys.executable,
        "-c",
        "import sys; from airflow_hptuning.cli import main; sys.exit(main())",
        "plan",
        files["good"],
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, b"")


def test_plan_counts_the_tasks_of_the_runner(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods unless told otherwise, by the command or by Airflow's setting in the environment."""
    counts = {}
    for setting in ("local", None):
        monkeypatch.delenv("AIRFLOW__HPTUNING__DEFAULT_RUNNER", raising=False)
        if setting:
            monkeypatch.setenv("AIRFLOW__HPTUNING__DEFAULT_RUNNER", setting)
        assert main(["plan", files["good"], "-o", "json"]) == 0
        shape = json.loads(capsys.readouterr().out)
        counts[shape["runner"]] = shape["tasks"]
    assert counts == {"local": 8, "kubernetes": 9}


def test_plan_prints_the_rung_table(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Hyperband's plan has every rung, the total, and what brackets side by side save."""
    assert main(["plan", files["hyperband"]]) == 0
    text = capsys.readouterr().out
    assert "206 trials" in text
    assert ["4", "0", "81", "1"] in [line.split() for line in text.splitlines()]
    # Nobody can do 1902 units of work on 4 slots in less than 475.5.
    assert "1902 for all trials, 121 for the longest chain" in text
    assert "less than 475.5 is impossible" in text
    assert main(["plan", files["hyperband"], "-o", "json"]) == 0
    shape = json.loads(capsys.readouterr().out)
    assert [bracket["rungs"][0]["trials"] for bracket in shape["brackets"]] == [81, 34, 15, 8, 5]
    assert list(shape["cost"]) == ["resource", "longest_chain", "bound", "side_by_side", "one_by_one"]
    assert shape["cost"]["bound"] <= shape["cost"]["side_by_side"] < shape["cost"]["one_by_one"]


def test_plan_of_a_bad_file_prints_its_problems(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, with exit code 1."""
    assert main(["plan", files["bad"]]) == 1
    assert "concurency" in capsys.readouterr().err


def test_wrong_calls_exit_with_2() -> None:
    """As command lines do."""
    with pytest.raises(SystemExit) as caught:
        main(["plan"])
    assert caught.value.code == 2


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """For editors."""
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["hptuning"]


def test_the_command_works_without_airflow(files: dict[str, str]) -> None:
    """Neither Airflow nor any heavy package is imported."""
    code = (
        "import sys; from airflow_hptuning.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'airflow', 'numpy', 'scipy', 'sklearn', 'kubernetes'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "plan", files["good"]], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_airflow_gets_the_same_commands() -> None:
    """``airflow hptuning …`` has the commands of ``airflow-hptuning``."""
    (group,) = get_cli_commands()
    assert {command.name for command in group.subcommands} == {"validate", "plan", "schema"}

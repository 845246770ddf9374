"""The examples that readers copy: every polyaxonfile of ``dags/`` and of the documentation is a good one."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_hptuning.planning import plan, resumes
from airflow_hptuning.polyaxonfile.parser import find_problems, is_polyaxonfile, load_spec, parse_text
from airflow_hptuning.polyaxonfile.template import render_command
from airflow_hptuning.search.base import stream
from airflow_hptuning.trials import Direction

if TYPE_CHECKING:
    from airflow_hptuning.errors import Problem

ROOT = Path(__file__).resolve().parents[1]
DAGS = ROOT / "dags"
EXAMPLES = sorted(path for path in DAGS.iterdir() if path.suffix in {".yaml", ".yml", ".json"})
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of a page in one language, with the line that each begins on."""
    text = page.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start()) + 1, match[1]) for match in found]


DOCUMENTED = [
    pytest.param(text, id=f"{page.relative_to(ROOT)}:{line}")
    for page in PAGES
    for line, text in blocks(page, "yaml")
    if is_polyaxonfile(text)
]


def _messages(problems: tuple[Problem, ...] | list[Problem]) -> list[str]:
    return [str(problem) for problem in problems]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_has_no_problems(path: Path) -> None:
    """An example has neither errors nor warnings."""
    assert _messages(find_problems(path)) == []


@pytest.mark.parametrize("text", DOCUMENTED)
def test_documented_file_has_no_problems(text: str) -> None:
    """A complete polyaxonfile of the documentation can be read as it stands, without a warning."""
    assert _messages(parse_text(text).warnings) == []


def test_documentation_shows_complete_files() -> None:
    """The pages that teach by example have examples, so that the test above tests something."""
    pages = {str(parameter.id).rpartition(":")[0] for parameter in DOCUMENTED}
    assert {"README.md", "docs/index.md", "docs/quickstart.md", "docs/nightly.md"} <= pages


@pytest.mark.parametrize(
    ("page", "line", "text"),
    [(page.name, line, text) for page in PAGES for line, text in blocks(page, "python")],
)
def test_documented_python_compiles(page: str, line: int, text: str) -> None:
    """Python in the documentation is Python."""
    ast.parse(text, filename=f"{page}:{line}")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_a_small_sweep_that_ranks_by_accuracy(path: Path) -> None:
    """The examples take a minute: eight trials, two at once; more of them where most are short."""
    spec = load_spec(path)
    shape = plan(spec)
    trials = 22 if shape.search == "hyperband" else 8
    assert (shape.dag_id, shape.trials, shape.concurrency) == (path.stem, trials, 2)
    assert spec.objective is not None
    assert (spec.objective.name, spec.objective.direction) == ("accuracy", Direction.MAXIMIZE)


def test_random_example_says_when_it_has_reached_its_goal() -> None:
    """The random example names two goals, of which either will do."""
    goals = [(goal.metric, goal.value) for goal in load_spec(DAGS / "digits_random.yaml").early_stopping]
    assert goals == [("accuracy", 0.995), ("loss", 0.01)]


def test_hyperband_example_trains_only_what_a_rung_adds(tmp_path: Path) -> None:
    """Its script resumes from its checkpoint, and reports exactly what it would have without the interruption."""
    spec = load_spec(DAGS / "digits_hyperband.yaml")
    assert resumes(spec)
    config = spec.space.sample(stream(0, "any"))

    def reports(epochs: int, outputs: str) -> list[str]:
        words = render_command(spec, config, resource=epochs).split()
        environment = os.environ | {"HPTUNING_OUTPUTS_PATH": str(tmp_path / outputs)}
        command = [sys.executable, *words[1:]]
        done = subprocess.run(command, cwd=DAGS, env=environment, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if line.startswith("{")]

    resumed = [line for epochs in (1, 3) for line in reports(epochs, "promoted")]
    assert resumed == reports(3, "at once")
    assert [json.loads(line)["step"] for line in resumed] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # Airflow's own
def test_training_script_is_no_dag_file() -> None:
    """Airflow is told not to look for DAGs in the program that trials run."""
    from airflow._shared.module_loading.file_discovery import find_path_from_directory

    listed = {Path(path).name for path in find_path_from_directory(DAGS, ".airflowignore", "glob")}
    assert "digits_grid.yaml" in listed
    assert "train_digits.py" not in listed


def test_training_script_runs_and_reports() -> None:
    """The command of the grid example trains, and reports both metrics after every epoch, the same every time."""
    spec = load_spec(DAGS / "digits_grid.yaml")
    command = render_command(spec, spec.space.point(5))
    words = command.replace("--epochs=15", "--epochs=2").split()
    assert words[:2] == ["python", "train_digits.py"]
    first, second = (
        subprocess.run([sys.executable, *words[1:]], cwd=DAGS, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == second
    reports = [json.loads(line) for line in first.splitlines()]
    assert [report["step"] for report in reports] == [1, 2]
    assert all({"loss", "accuracy"} <= set(report) for report in reports)

"""Polyaxonfiles of our own, one or more for every feature: valid ones, and invalid ones with their problems."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_hptuning import load_spec, plan
from airflow_hptuning.errors import Severity
from airflow_hptuning.polyaxonfile.parser import dump, find_problems, parse_text

FILES = Path(__file__).resolve().parents[1] / "polyaxonfiles"

TRIALS = {"every_kind": 5, "hyperband": 69, "bayesian": 15, "every_section": 3, "settings_era": 1}


@pytest.mark.parametrize("path", sorted(FILES.glob("valid/*.yaml")), ids=lambda path: path.stem)
def test_valid(path: Path) -> None:
    """It is read, has its number of trials, and survives being written and read."""
    spec = load_spec(path)
    assert plan(spec).trials == TRIALS[path.stem]
    assert parse_text(dump(spec)) == spec


@pytest.mark.parametrize("path", sorted(FILES.glob("invalid/*.yaml")), ids=lambda path: path.stem)
def test_invalid(path: Path) -> None:
    """All its problems, with places and hints, are those on file beside it."""
    problems = find_problems(path)
    assert any(problem.severity is Severity.ERROR for problem in problems)
    found = "".join(f"{problem.severity}: {str(problem).removeprefix(f'{path}:')}\n" for problem in problems)
    assert found == path.with_suffix(".problems").read_text()

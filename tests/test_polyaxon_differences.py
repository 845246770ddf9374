"""Differences from Polyaxon 0.x in how a file is read: the rows of docs/polyaxon.md that no other test holds."""

from __future__ import annotations

import textwrap

import pytest

from airflow_hptuning.errors import PolyaxonfileError, Severity
from airflow_hptuning.polyaxonfile.parser import parse_text
from airflow_hptuning.polyaxonfile.template import render_command, resolve_params

BO = """
bo:
  n_initial_trials: 3
  n_iterations: 2
  metric: {name: loss, optimization: minimize}
"""


def sweep(matrix: str, search: str = "", *, command: str = "train", top: str = "") -> str:
    """Return the text of a polyaxonfile with a matrix and a search algorithm."""
    parts = [
        "version: 1\nkind: group",
        textwrap.dedent(top).strip(),
        "hptuning:",
        "  matrix:",
        textwrap.indent(textwrap.dedent(matrix).strip(), "    "),
        textwrap.indent(textwrap.dedent(search).strip(), "  "),
        f"run:\n  cmd: {command}",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def errors(text: str) -> list[str]:
    """Return the errors of a file, each with its place."""
    with pytest.raises(PolyaxonfileError) as caught:
        parse_text(text, file="sweep.yaml")
    return [str(problem) for problem in caught.value.problems if problem.severity is Severity.ERROR]


@pytest.mark.parametrize(
    "top",
    [
        "params: {lr: 5, layers: 3}",
        "declarations: {lr: 5, layers: 3}",
        """
        inputs:
          - {name: lr, type: float, is_optional: true, default: 5.0}
          - {name: layers, type: int, is_optional: true, default: 3}
        """,
    ],
    ids=["params", "declarations", "inputs"],
)
def test_a_searched_key_wins_over_a_constant(top: str) -> None:
    """A constant with the name of a searched key is left out, and a warning says so."""
    spec = parse_text(sweep("lr: {values: [1, 2]}", top=top, command='"train {{ lr }} {{ layers }}"'))
    assert resolve_params(spec, {"lr": 2}) == {"lr": 2, "layers": 3}
    assert render_command(spec, {"lr": 2}) == "train 2 3"
    assert any("lr" in str(warning) for warning in spec.warnings)


@pytest.mark.parametrize(
    "domain", ["pvalues: [[relu, 0.1], [tanh, 0.9]]", "normal: [0, 1]", "qloguniform: [0, 5, 1]", "logspace: -4:-1:4"]
)
def test_bayesian_optimisation_takes_every_kind(domain: str) -> None:
    """Bayesian optimisation may search what its documentation shows, and everything else."""
    assert parse_text(sweep(f"x: {{{domain}}}", BO)).search == "bo"


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        ("range: 1:5:1", [1, 2, 3, 4]),
        ("linspace: 0:1:3", [0.0, 0.5, 1.0]),
        ("values: [1e-3, 1e-4]", [0.001, 0.0001]),
        ("geomspace: 1e-3:1e-1:3", [0.001, 0.01, 0.1]),
    ],
)
def test_numbers_are_read_as_they_are_meant(domain: str, values: list[float]) -> None:
    """A colon makes no base-60 number, and an exponent needs no dot."""
    assert list(parse_text(sweep(f"x:\n  {domain}")).space["x"].values()) == pytest.approx(values)


def test_unknown_keys_are_refused_with_a_suggestion() -> None:
    """A misspelt key, wherever it is, names what was probably meant."""
    (first,) = errors(sweep("lr: {values: [1]}", "concurency: 2"))
    assert "concurency" in first
    assert "concurrency" in first.replace("concurency", "")
    (second,) = errors(sweep("lr: {valeus: [1]}"))
    assert "values" in second


def test_undefined_names_are_refused() -> None:
    """A command that uses a name that nobody defines is an error of the file."""
    (error,) = errors(sweep("lr: {values: [1]}", command='"train {{ lr }} {{ momentum }}"'))
    assert "momentum" in error


@pytest.mark.parametrize(
    ("search", "missing"),
    [
        ("hyperband: {max_iter: 9, resource: {name: epochs}, metric: {name: loss}}", "eta"),
        ("hyperband: {max_iter: 9, eta: 3, resource: {name: epochs}}", "metric"),
        ("hyperband: {max_iter: 9, eta: 1, resource: {name: epochs}, metric: {name: loss}}", "eta"),
        ("bo: {n_iterations: 2, metric: {name: loss}}", "n_initial_trials"),
        ("random_search: {}", "n_experiments"),
        ("concurrency: 0", "concurrency"),
    ],
)
def test_missing_and_absurd_fields_have_a_message(search: str, missing: str) -> None:
    """What Polyaxon noticed at run time, if at all, is an error of the file that names the field."""
    assert any(missing in error for error in errors(sweep("lr: {uniform: [0, 1]}", search)))


def test_all_problems_are_reported_at_once() -> None:
    """Every error of a file is there, with line and column."""
    text = sweep("lr: {uniform: 5}\nunits: {vaules: [1]}", "concurrency: 0", command='"train {{ x }}"')
    found = errors(text)
    lines = text.splitlines()
    wanted = {1 + next(n for n, line in enumerate(lines) if word in line) for word in ("lr:", "vaules", "concurrency")}
    assert wanted <= {int(error.split(":")[1]) for error in found}
    assert all(int(error.split(":")[2]) > 0 for error in found)


def test_settings_era_files_are_read_with_a_warning() -> None:
    """A file of 2018 runs, and a warning shows how to spell it today."""
    spec = parse_text("""
version: 1
kind: group
settings:
  concurrency: 3
  seed: 1
  matrix:
    lr: {values: [0.1, 0.2, 0.3]}
  random_search: {n_experiments: 2}
declarations: {batch_size: 128}
run:
  image: python:3.6
  cmd: train --lr={{ lr }} --batch-size={{ batch_size }}
""")
    assert (spec.search, spec.concurrency, spec.seed) == ("random", 3, 1)
    assert spec.build is not None
    assert spec.build.image == "python:3.6"
    assert any("hptuning" in str(warning) for warning in spec.warnings)


@pytest.mark.parametrize("more", ["kind: group\n", "---\nversion: 1\n"], ids=["key", "document"])
def test_duplicates_are_refused(more: str) -> None:
    """Neither the last of two keys nor the last of two documents wins in silence."""
    assert errors(sweep("lr: {values: [1]}") + more)


def test_the_command_is_rendered_for_each_rung() -> None:
    """A promoted config gets its new resource in the command, too."""
    text = sweep(
        "lr: {values: [1, 2, 3]}",
        "hyperband: {max_iter: 9, eta: 3, resource: {name: epochs, type: int}, metric: {name: loss}}",
        command='"train {{ lr }} --epochs={{ epochs }}"',
    )
    spec = parse_text(text)
    commands = [render_command(spec, {"lr": 2}, resource) for resource in (1, 3, 9)]
    assert commands == ["train 2 --epochs=1", "train 2 --epochs=3", "train 2 --epochs=9"]

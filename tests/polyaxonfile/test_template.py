"""Templates: constants, searched values as data, quoting, and what a trial's command and environment hold."""

from __future__ import annotations

import json
import shlex
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.errors import PolyaxonfileError, Severity, TemplateError
from airflow_hptuning.polyaxonfile.parser import parse_text
from airflow_hptuning.polyaxonfile.sections import sanitise
from airflow_hptuning.polyaxonfile.template import literal, render_command, resolve_params, trial_command
from airflow_hptuning.trials import Suggestion

if TYPE_CHECKING:
    from airflow_hptuning.polyaxonfile.spec import SweepSpec

SEARCH = "hptuning: {matrix: {x: {values: [1, 2]}}, random_search: {n_experiments: 2}}"
HYPERBAND = """
hptuning:
  matrix: {x: {values: [1, 2]}}
  hyperband:
    max_iter: 9
    eta: 3
    resource: {name: steps, type: int}
    metric: {name: loss, optimization: minimize}
"""


def spec_of(command: object, *, top: str = "", search: str = SEARCH) -> SweepSpec:
    """Return the sweep with a command and further sections."""
    parts = ["version: 1", "kind: group", textwrap.dedent(top), search, f"run: {{cmd: {json.dumps(command)}}}"]
    return parse_text("\n".join(parts))


def problems(command: object, *, top: str = "") -> list[str]:
    """Return the errors of a file that is wrong."""
    with pytest.raises(PolyaxonfileError) as caught:
        spec_of(command, top=top)
    return [problem.message for problem in caught.value.problems if problem.severity is Severity.ERROR]


# --- constants -------------------------------------------------------------------------------------------------


def test_constants_refer_to_each_other_and_to_searched_values() -> None:
    """In any order of the file; what comes out is read as a literal."""
    spec = spec_of("run {{ c }}", top="params: {c: '{{ b + 1 }}', b: '{{ a * 10 }}', a: '{{ x }}'}")
    assert resolve_params(spec, {"x": 2}) == {"a": 2, "b": 20, "c": 21, "x": 2}
    assert render_command(spec, {"x": 2}) == "run 21"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("True", True),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ("(1, 2)", [1, 2]),
        ("{'a': 1}", {"a": 1}),
        ("'quoted'", "quoted"),
        ("010", "010"),
        ("relu", "relu"),
        ("1 + 1", "1 + 1"),
        ("{1, 2}", "{1, 2}"),
        ("3j", "3j"),
        ("b'x'", "b'x'"),
        ("__import__('os')", "__import__('os')"),
        ("[" * 5_000, "[" * 5_000),
        ("9" * 400, "9" * 400),
    ],
)
def test_literals(text: str, value: object) -> None:
    """A text is the Python literal that it spells, if JSON knows it too; else it stays text."""
    found = literal(text)
    assert found == value
    assert type(found) is type(value)


def test_nested_constants() -> None:
    """Mappings and lists can be used, and templates within them are rendered."""
    spec = spec_of("run {{ opt.lr }} {{ layers[1] }}", top="params: {opt: {lr: '{{ x / 10 }}'}, layers: [8, 16]}")
    assert render_command(spec, {"x": 1}) == "run 0.1 16"


def test_declared_text_stays_text() -> None:
    """An input of type str keeps what looks like a number."""
    inputs = "inputs: [{name: code, type: str}]\nparams: {code: '010'}"
    assert resolve_params(spec_of("run {{ code }}", top=inputs), {"x": 1})["code"] == "010"
    inputs = "inputs: [{name: code, type: str}]\nparams: {code: '1e-3'}"
    assert resolve_params(spec_of("run {{ code }}", top=inputs), {"x": 1})["code"] == "1e-3"


@pytest.mark.parametrize(("value", "shown"), [("true", "run --fast"), ("false", "run ")])
def test_flags(value: str, shown: str) -> None:
    """A flag is its option, or nothing."""
    top = f"inputs: [{{name: fast, type: bool, is_flag: true}}]\nparams: {{fast: {value}}}"
    assert render_command(spec_of("run {{ fast }}", top=top), {"x": 1}) == shown


def test_circles_are_named() -> None:
    """Constants that need each other are a problem of the file, not an endless loop."""
    (message,) = problems("run {{ a }}", top="params: {a: '{{ b }}', b: '{{ a }}'}")
    assert message == "constants refer to each other in a circle: a → b → a"


# --- searched values are data ----------------------------------------------------------------------------------


def test_searched_text_is_not_rendered() -> None:
    """Braces in a value of the matrix are characters."""
    spec = spec_of("run {{ x | quote }} {{ y }}", top="params: {y: 'got {{ x }}'}")
    hostile = "{{ 7 * 7 }}{% raw %}{{ y }}"
    assert render_command(spec, {"x": hostile}) == f"run {shlex.quote(hostile)} got {hostile}"
    assert resolve_params(spec, {"x": hostile})["x"] == hostile


def test_searched_text_is_not_read_as_a_literal() -> None:
    """`"010"` and `"1e-3"` of the matrix are text, as written."""
    assert resolve_params(spec_of("run {{ x }}"), {"x": "1e-3"}) == {"x": "1e-3"}


@given(st.text(max_size=40))
def test_quoted_values_are_one_word(value: str) -> None:
    """The shell gets back exactly what was searched."""
    command = render_command(spec_of("run {{ x | quote }} end"), {"x": value})
    assert shlex.split(command) == ["run", value, "end"]


# --- names and limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run {{ y }}", "`y` is not defined"),
        ("run {{ ops.a.outputs.b }}", "references to other runs (`ops.…`) are not supported"),
        ("run {% set y = 1 %}", "the tag `{% set %}` is not supported"),
        ("run {% include 'x' %}", "the tag `{% include %}` is not supported"),
        ("run {{ x | nothing }}", "the template is not valid: No filter named 'nothing'."),
    ],
)
def test_wrong_templates_are_problems(command: str, message: str) -> None:
    """They are found when the file is read, with the place of the command."""
    assert message in problems(command)


@pytest.mark.parametrize(
    "expression",
    ["''.__class__.__mro__", "x.__class__.__subclasses__()", "lipsum.__globals__", "cycler.__init__", "self._env"],
)
def test_the_sandbox_holds(expression: str) -> None:
    """Python's internals are out of reach."""
    assert problems(f"run {{{{ {expression} }}}}")


@pytest.mark.parametrize(
    "expression",
    ["'a' * 1000000", "9 ** 99999", "'%9999999d' % 1", "'a'.center(99999999)", "range(99999999) | list | length"],
)
def test_huge_results_are_refused(expression: str) -> None:
    """Before they are computed."""
    assert problems(f"run {{{{ {expression} }}}}")


def test_a_name_may_be_missing_where_the_template_says_so() -> None:
    """`default` and `is defined` are no use of an undefined name."""
    spec = spec_of("run {{ y | default(3) }}{% if z is defined %} {{ z }}{% endif %}")
    assert render_command(spec, {"x": 1}) == "run 3"


def test_a_value_that_breaks_the_template_is_a_template_error() -> None:
    """What fails only for some values fails for these trials, with the reason."""
    spec = spec_of("run {{ 1 / (x - 5) }}")
    with pytest.raises(TemplateError, match="ZeroDivisionError"):
        render_command(spec, {"x": 5})


# --- the command -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ("train   --a=1\n   --b=2", "train --a=1 --b=2"),
        ("train \\\n  --a=1 \\\n  --b=2", "train --a=1 --b=2"),
        ("train --a=1\\", "train --a=1"),
        ("a; b && c || d", "a; b && c || d"),
        ("echo 'two   blanks'", "echo 'two blanks'"),
        ("\t\n \\ ", ""),
    ],
)
def test_sanitising(written: str, command: str) -> None:
    """A command becomes one line, as Polyaxon made it."""
    assert sanitise(written) == command


def test_the_items_of_a_list_are_joined() -> None:
    """With &&, each sanitised, empty ones left out."""
    spec = spec_of(["echo  start", "", "train \\\n --x={{ x }}"])
    assert render_command(spec, {"x": 2}) == "echo start && train --x=2"


# --- what a runner gets ----------------------------------------------------------------------------------------


def test_trial_command() -> None:
    """The environment names the trial, its values and its directory; the build's variables are in it too."""
    top = """
    logging: {level: warning}
    params: {batch: 64}
    build: {image: "python:3.12", env_vars: [[MODE, fast]], lang_env: C.UTF-8}
    """
    spec = spec_of("train {{ x }} {{ steps }} {{ batch }}", top=top, search=HYPERBAND)
    suggestion = Suggestion(trial=7, params={"x": 2}, resource=3)
    command = trial_command(spec, suggestion, sweep="mnist", run_id="r1", outputs_path="/out/7", attempt=2)
    assert command.command == "train 2 3 64"
    assert command.image == "python:3.12"
    assert command.outputs_path == "/out/7"
    env = dict(command.env)
    info = json.loads(env.pop("POLYAXON_EXPERIMENT_INFO"))
    assert info["experiment_name"] == "mnist.r1.7"
    params = {"batch": 64, "x": 2, "steps": 3}
    assert json.loads(env.pop("POLYAXON_PARAMS")) == json.loads(env.pop("POLYAXON_DECLARATIONS")) == params
    assert env == {
        "MODE": "fast",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "LANGUAGE": "C.UTF-8",
        "POLYAXON_RUN_OUTPUTS_PATH": "/out/7",
        "POLYAXON_LOG_LEVEL": "WARN",
        "HPTUNING_TRIAL_ID": "7",
        "HPTUNING_SWEEP": "mnist",
        "HPTUNING_RUN_ID": "r1",
        "HPTUNING_OUTPUTS_PATH": "/out/7",
        "HPTUNING_ATTEMPT": "2",
        "HPTUNING_RESOURCE": "3",
    }


def test_a_trial_keeps_its_ids() -> None:
    """The ids come from the names, so that another try has the same."""
    spec = spec_of("train {{ x }}")
    first, again = (
        trial_command(spec, Suggestion(trial=1, params={"x": 1}), sweep="s", run_id="r", outputs_path="o", attempt=n)
        for n in (1, 2)
    )
    assert first.env["POLYAXON_EXPERIMENT_INFO"] == again.env["POLYAXON_EXPERIMENT_INFO"]
    assert "HPTUNING_RESOURCE" not in first.env
    assert first.image is None

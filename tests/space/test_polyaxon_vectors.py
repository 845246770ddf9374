"""Single parameters as polyaxon-schemas 0.6.1 read them, and where we deviate on purpose."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.parameters import Parameter, parse_parameter

_PATH = Path(__file__).resolve().parents[3] / "shared" / "polyaxon" / "validation_vectors.json"

_VECTORS: list[dict[str, Any]] = json.loads(_PATH.read_text())["matrix"] if _PATH.exists() else []

_BELONG_TO_THE_PARSER = {
    # How many options an entry has is for the parser to say.
    "{values: [1], range: '0:3:1'}",
    "{}",
    "{values: null, range: '0:3:1'}",
}

_REFUSED = "refused"
"""Our value of ``ok`` where Polyaxon accepted, so that nothing else can be compared."""

# What deviates: (vector or kind, field) -> (our value or ..., why).
DEVIATIONS: dict[tuple[str, str], tuple[Any, str]] = {
    ("{values: [3, 1, 2, 2]}", "length"): (3, "a repeated value would be tried twice by the grid"),
    ("{values: [3, 1, 2, 2]}", "values"): ([3, 1, 2], "as above"),
    ("{pvalues: [[a, 1.0]]}", "ok"): (True, "a certain value is a sensible probability"),
    ("{range: '0:10:-1'}", "ok"): (_REFUSED, "it has no value, and sampling crashed"),
    ("{linspace: [0, 1, 5.0]}", "length"): (5, "5.0 is 5; it crashed when used"),
    ("{linspace: [0, 1, 5.0]}", "values"): ([0.0, 0.25, 0.5, 0.75, 1.0], "as above"),
    ("{linspace: [0, 1, 2.5]}", "ok"): (_REFUSED, "it crashed when used"),
    ("{uniform: [1, 0]}", "ok"): (_REFUSED, "swapped bounds are a mistake; it drew from (0, 1]"),
    ("{normal: [0, -1]}", "ok"): (_REFUSED, "it crashed when sampled"),
    ("pvalues", "is_categorical"): (True, "probabilities do not make texts numbers"),
    ("pvalues", "values"): (..., "the values can be listed, although the grid does not take them"),
    ("range", "max"): (..., "the excluded end is no value; the bound is the last one"),
    ("logspace", "min"): (..., "exponents are no bounds of the values"),
    ("logspace", "max"): (..., "as above"),
    ("quniform", "min"): (..., "the bounds are known"),
    ("quniform", "max"): (..., "as above"),
    ("loguniform", "min"): (..., "as above"),
    ("loguniform", "max"): (..., "as above"),
    ("qloguniform", "min"): (..., "as above"),
    ("qloguniform", "max"): (..., "as above"),
}

_SINGLE = [vector for vector in _VECTORS if vector["yaml"] not in _BELONG_TO_THE_PARSER]
_FIELDS = ("is_distribution", "is_continuous", "is_categorical", "min", "max", "length", "values")


def describe(parameter: Parameter) -> dict[str, Any]:
    """Return a parameter in the words of the vectors."""
    return {
        "is_distribution": parameter.is_distribution,
        "is_continuous": parameter.is_continuous,
        "is_categorical": parameter.is_categorical,
        "min": parameter.low,
        "max": parameter.high,
        "length": parameter.size,
        "values": None if parameter.size is None else list(parameter.values()),
    }


def parse(vector: dict[str, Any]) -> Parameter | None:
    """Parse the entry of a vector; None when it is refused."""
    ((option, raw),) = vector["parsed"].items()
    try:
        return parse_parameter("x", option, raw)
    except SearchSpaceError:
        return None


def deviation(vector: dict[str, Any], name: str) -> tuple[Any, str] | None:
    """Return the row of the table about a field of a vector, if there is one."""
    (option,) = vector["parsed"]
    return DEVIATIONS.get((vector["yaml"], name)) or DEVIATIONS.get((option, name))


def agrees(expected: Any, got: Any) -> bool:
    """Whether a value of Polyaxon is ours; errors of distributions about their length count as none."""
    if isinstance(expected, str) and expected.startswith("!"):
        return got is None
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(agrees, expected, got))
    if isinstance(expected, float):
        return isinstance(got, float | int) and math.isclose(expected, got, rel_tol=1e-12)
    return bool(expected == got)


@pytest.mark.skipif(not _VECTORS, reason="the shared folder with Polyaxon's vectors is not beside the repository")
def test_vectors_are_there() -> None:
    """The file holds what the tests below are made from."""
    assert len(_SINGLE) == len(_VECTORS) - len(_BELONG_TO_THE_PARSER) >= 45


@pytest.mark.parametrize("vector", _SINGLE, ids=lambda vector: vector["yaml"])
def test_vector(vector: dict[str, Any]) -> None:
    """A vector holds apart from the rows of the table of deviations."""
    parameter = parse(vector)
    row = deviation(vector, "ok")
    expected = vector["ok"] if row is None else row[0] is not _REFUSED
    assert (parameter is not None) == expected
    if parameter is None or not vector["ok"]:
        return
    ours = describe(parameter)
    for name in _FIELDS:
        row = deviation(vector, name)
        if row is None:
            assert agrees(vector[name], ours[name]), name
        elif row[0] is not ...:
            assert agrees(row[0], ours[name]), name


@pytest.mark.parametrize("key", DEVIATIONS, ids=" ".join)
@pytest.mark.skipif(not _VECTORS, reason="the shared folder with Polyaxon's vectors is not beside the repository")
def test_deviation_is_real(key: tuple[str, str]) -> None:
    """Every row of the table is about something that really differs in some vector."""
    subject, name = key
    differs = []
    for vector in _SINGLE:
        if subject not in (vector["yaml"], *vector["parsed"]):
            continue
        parameter = parse(vector)
        if name == "ok":
            differs.append(vector["ok"] != (parameter is not None))
        elif vector["ok"] and parameter is not None:
            differs.append(not agrees(vector[name], describe(parameter)[name]))
    assert any(differs)


@pytest.mark.parametrize(
    "vector",
    [vector for vector in _SINGLE if vector["ok"] and isinstance(vector["sample_seed1"], list)],
    ids=lambda vector: vector["yaml"],
)
def test_samples_of_polyaxon_lie_in_the_domain(vector: dict[str, Any]) -> None:
    """Polyaxon's draws are values of ours; the sequence differs, since we do not use numpy's generator."""
    parameter = parse(vector)
    if parameter is None:
        # A row of the table: the vector is refused.
        assert deviation(vector, "ok") is not None
        return
    for value in vector["sample_seed1"]:
        if parameter.is_categorical:
            assert parameter.contains(value)
        else:
            # Through the cube, since Polyaxon's multiples and powers carry noise; within [0, 1], as nothing clips.
            nearest = parameter.decode(parameter.encode(value if parameter.is_continuous else snap(parameter, value)))
            assert math.isclose(nearest, value, rel_tol=1e-9, abs_tol=1e-12)


def snap(parameter: Parameter, value: float) -> Any:
    """Return the listed value nearest to a number."""
    return min(parameter.values(), key=lambda one: abs(one - value))

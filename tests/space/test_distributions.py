"""Distributions, plain and quantised. Statistical tests have fixed seeds and state their tolerance in sigmas."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import Any

import pytest

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.parameters import parse_parameter
from tests.kits.parameters import samples

_COUNT = 20_000


@pytest.mark.parametrize(
    ("kind", "raw", "transform", "mean", "deviation"),
    [
        ("uniform", [2, 6], float, 4, 4 / math.sqrt(12)),
        ("loguniform", [-7, -1], math.log, -4, 6 / math.sqrt(12)),
        ("normal", [3, 2], float, 3, 2),
        ("lognormal", [-1, 0.5], math.log, -1, 0.5),
        # Rounding down lowers the mean by half a step, as long as steps are small.
        ("quniform", [2, 6, 0.01], lambda value: value + 0.005, 4, 4 / math.sqrt(12)),
        ("qnormal", [3, 2, 0.01], lambda value: value + 0.005, 3, 2),
        ("qloguniform", [2, 8, 0.01], lambda value: math.log(value + 0.005), 5, 6 / math.sqrt(12)),
        ("qlognormal", [5, 0.5, 0.01], lambda value: math.log(value + 0.005), 5, 0.5),
    ],
)
def test_moments(kind: str, raw: list[float], transform: Any, mean: float, deviation: float) -> None:
    """Mean and deviation (of the logarithm, where that has the law) agree within 5 standard errors."""
    drawn = [transform(value) for value in samples(parse_parameter("x", kind, raw), _COUNT, seed=3)]
    assert abs(fmean(drawn) - mean) < 5 * deviation / math.sqrt(_COUNT)
    # The standard error of a standard deviation is at most sigma / sqrt(2 n) for these laws.
    assert abs(stdev(drawn) - deviation) < 5 * deviation / math.sqrt(2 * _COUNT)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([0, 1, 0.1], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ([0, 10, 3], [0.0, 3.0, 6.0, 9.0]),
        ([1, 10, 3], [0.0, 3.0, 6.0, 9.0]),
        ([-0.55, 0.1, 0.25], [-0.75, -0.5, -0.25, 0.0]),
        ([0.1, 0.2, 1], [0.0]),
    ],
)
def test_quniform_rounds_down_to_clean_multiples(raw: list[float], expected: list[float]) -> None:
    """As in Polyaxon the end is never reached and 8.0 stays a float; deviation: 0.3, not 0.30000000000000004."""
    parameter = parse_parameter("x", "quniform", raw)
    assert sorted(set(samples(parameter, 2000))) == expected
    assert [parameter.support_at(index) for index in range(parameter.support or 0)] == expected
    assert (parameter.low, parameter.high) == (expected[0], expected[-1])


def test_quniform_rounds_down_every_draw() -> None:
    """The same stream gives the plain value and its multiple below, as Polyaxon floored."""
    plain = samples(parse_parameter("x", "uniform", [0, 10]), 200)
    rounded = samples(parse_parameter("x", "quniform", [0, 10, 3]), 200)
    assert rounded == [3.0 * math.floor(value / 3) for value in plain]


def test_the_documented_qloguniform() -> None:
    """``qloguniform: [0, 0.8, 0.1]`` gives 1.0 to 2.2: e^0 to below e^0.8, in tenths, without noise."""
    parameter = parse_parameter("x", "qloguniform", [0, 0.8, 0.1])
    expected = [number / 10 for number in range(10, 23)]
    assert sorted(set(samples(parameter, 5000))) == expected
    assert parameter.support == len(expected)
    assert parameter.warnings() == []


def test_qloguniform_ignores_the_noise_of_exponentials() -> None:
    """Bounds given as logarithms of 2 and 8 mean 2 and 8, and 8 is not drawn."""
    parameter = parse_parameter("x", "qloguniform", [math.log(2), math.log(8), 1])
    assert [parameter.support_at(index) for index in range(parameter.support or 0)] == [2, 3, 4, 5, 6, 7]


def test_qlognormal_is_a_quantised_lognormal_and_says_so() -> None:
    """Deviation: Polyaxon ignored q and took the exponential twice."""
    parameter = parse_parameter("x", "qlognormal", [0, 1, 0.5])
    plain = samples(parse_parameter("x", "lognormal", [0, 1]), 200)
    assert samples(parameter, 200) == [0.5 * math.floor(value / 0.5) for value in plain]
    ((message, _),) = parameter.warnings()
    assert "Polyaxon ignored q and took the exponential twice" in message


def test_logarithms_that_look_like_values_are_shown_resolved() -> None:
    """Bounds in (0, 1) of a logarithmic distribution warn with the real values and what to write instead."""
    for kind, raw in (("loguniform", [0.001, 0.1]), ("qloguniform", [0.001, 0.1, 0.5])):
        message, hint = parse_parameter("x", kind, raw).warnings()[0]
        assert message == "`low` and `high` are natural logarithms: the values go from 1.001 to 1.10517"
        assert hint == (
            "For values from 0.001 to 0.1, write [-6.908, -2.303], or list some with `geomspace: [0.001, 0.1, 10]`."
        )
    assert parse_parameter("x", "loguniform", [-7, -1]).warnings() == []
    assert parse_parameter("x", "uniform", [0.001, 0.1]).warnings() == []


def test_rounding_below_the_bound_is_named() -> None:
    """A lower bound that is no multiple of q leads to a value below it, which the file's author may not expect."""
    ((message, _),) = parse_parameter("x", "quniform", [1, 10, 3]).warnings()
    assert message == "values are rounded down to multiples of q: the smallest is 0, below 1"
    assert parse_parameter("x", "quniform", [-0.5, 1, 0.1]).warnings() == []


@pytest.mark.parametrize(
    ("kind", "raw", "message", "hint"),
    [
        ("uniform", [1, 0], "`high` must be more than `low`, but low is 1 and high is 0", "Swap"),
        ("uniform", [1, 1], "`high` must be more than `low`", "`values`"),
        ("uniform", [-1.7e308, 1.7e308], "farther apart than floats can hold", ""),
        ("quniform", [0, 1, 0], "`q` must be more than 0, not 0", ""),
        ("quniform", [0, 1, -0.1], "`q` must be more than 0, not -0.1", ""),
        ("quniform", [0, 1, 1e-13], "`q` is 1e-13, too small beside the values", "Use `uniform`"),
        ("qnormal", [0, 1, 1e-300], "too small beside the values", "Use `normal`"),
        ("qlognormal", [80, 75, 1e-280], "too small beside the values", "Use `lognormal`"),
        ("loguniform", [2, 1], "`high` must be more than `low`", "Swap"),
        ("loguniform", [0, 1000], "the values go from e^0 to e^1000, which floats cannot hold", "logarithms"),
        ("loguniform", [-1000, 0], "which floats cannot hold", "logarithms"),
        ("normal", [0, 0], "`scale` must be more than 0, not 0", "standard deviation"),
        ("normal", [0, -1], "`scale` must be more than 0, not -1", "standard deviation"),
        ("normal", [0, 1e308], "reaches beyond the floats", "smaller"),
        ("lognormal", [0, 100], "which floats cannot hold", "logarithms"),
        ("lognormal", [0, 0], "`scale` must be more than 0", ""),
        ("qnormal", [0, 1, 0], "`q` must be more than 0", ""),
    ],
)
def test_refused_distributions(kind: str, raw: Any, message: str, hint: str) -> None:
    """Whatever describes no distribution over floats is refused, with a hint where one helps."""
    with pytest.raises(SearchSpaceError) as caught:
        parse_parameter("x", kind, raw)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_legitimate_normal_that_polyaxon_once_refused() -> None:
    """``normal: [66, 0.1]`` has a scale below its loc, and that is fine (an issue of Polyaxon's users)."""
    assert parse_parameter("x", "normal", [66, 0.1]).is_continuous


@pytest.mark.parametrize(
    ("kind", "raw", "low", "high", "scale"),
    [
        ("uniform", [0, 1], 0, 1, "linear"),
        ("loguniform", [0, 1], 1, math.e, "log"),
        ("normal", [0, 1], None, None, "normal"),
        ("lognormal", [0, 1], None, None, "lognormal"),
        ("quniform", [0, 1, 0.25], 0, 0.75, "linear"),
        ("qloguniform", [0, 1, 1], 1, 2, "log"),
        ("qnormal", [0, 1, 1], None, None, "normal"),
        ("qlognormal", [0, 1, 1], None, None, "lognormal"),
    ],
)
def test_bounds_are_those_of_the_values(
    kind: str, raw: list[float], low: float | None, high: float | None, scale: str
) -> None:
    """Bounds of logarithmic kinds are exponentials; normal kinds have none."""
    parameter = parse_parameter("x", kind, raw)
    assert (parameter.low, parameter.high, parameter.scale) == (low, high, scale)


def test_places_are_linear_logarithmic_or_quantiles() -> None:
    """The middle of the cube is the middle, the geometric middle, or the median."""
    assert parse_parameter("x", "uniform", [2, 6]).decode([0.5]) == 4
    assert parse_parameter("x", "loguniform", [0, 2]).decode([0.5]) == pytest.approx(math.e)
    assert parse_parameter("x", "normal", [3, 2]).decode([0.5]) == pytest.approx(3)
    assert parse_parameter("x", "lognormal", [1, 2]).decode([0.5]) == pytest.approx(math.e)
    assert parse_parameter("x", "normal", [0, 1]).encode(1.0)[0] == pytest.approx(0.8413447460685429)


def test_negative_values_do_not_belong_to_lognormal_kinds() -> None:
    """A lognormal value is positive; its multiple of q can be zero."""
    assert not parse_parameter("x", "lognormal", [0, 1]).contains(0)
    assert parse_parameter("x", "qlognormal", [0, 1, 1]).contains(0)
    assert not parse_parameter("x", "qlognormal", [0, 1, 1]).contains(-1)


def test_a_support_without_bounds_cannot_be_listed() -> None:
    """Normal kinds have no first multiple."""
    parameter = parse_parameter("x", "qnormal", [0, 1, 1])
    assert parameter.support is None
    with pytest.raises(TypeError, match="has no first value"):
        parameter.support_at(0)

"""Acquisition functions: values against simulation, stability, gradients."""

from __future__ import annotations

import math

import numpy as np  # noqa: TID253 - tests of numerical code
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.search.acquisition import KINDS, Acquisition, log_h

means = st.floats(-20, 20)
stds = st.floats(-7, 1).map(lambda power: 10.0**power)


@given(kind=st.sampled_from(KINDS), mean=means, std=stds, best=means)
def test_scores_are_finite(kind: str, mean: float, std: float, best: float) -> None:
    """Also where the value itself has long underflowed; the value is never negative, except that of ucb."""
    acquisition = Acquisition(kind)
    assert math.isfinite(float(acquisition.score(mean, std, best)))
    value = float(acquisition.value(mean, std, best))
    assert math.isfinite(value)
    assert kind == "ucb" or value >= 0


@pytest.mark.parametrize("z", [-1e8, -1e5, -1e4, -9999.0, -50.0, -1.0, -0.999, 0.0, 3.0, 40.0])
def test_log_h_is_continuous_where_its_formula_changes(z: float) -> None:
    """It rises with z, without a jump."""
    here, above = float(log_h(z)), float(log_h(z + abs(z) * 1e-7 + 1e-9))
    assert here <= above <= here + abs(z) * abs(z) * 1e-6 + 1e-6


@pytest.mark.parametrize(
    ("mean", "std", "best"), [(0.0, 1.0, 0.5), (1.0, 0.2, 0.5), (-1.0, 0.7, 0.4), (0.3, 2.0, -1.0)]
)
def test_values_equal_a_simulation(mean: float, std: float, best: float) -> None:
    """Improvement and its probability over a million draws, within five standard errors."""
    draws = np.random.default_rng(1).normal(mean, std, 1_000_000)
    for kind, eps, sample in (
        ("auto", 0.0, np.maximum(draws - best, 0.0)),
        ("ei", 0.3, np.maximum(draws - best - 0.3, 0.0)),
        ("poi", 0.3, (draws > best + 0.3).astype(float)),
    ):
        value = float(Acquisition(kind, eps=eps).value(mean, std, best))
        assert abs(value - sample.mean()) < 5 * sample.std() / 1000


def test_polyaxons_formulas() -> None:
    """REFERENCE 6.4, evaluated by hand for mean 1, std 0.5, best 1.2."""
    assert Acquisition("ucb", kappa=1.2).value(1.0, 0.5, 1.2) == pytest.approx(1.6)
    z = (1.0 - 1.2 - 0.1) / 0.5
    cumulative, density = 0.5 * math.erfc(-z / math.sqrt(2)), math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    assert Acquisition("poi", eps=0.1).value(1.0, 0.5, 1.2) == pytest.approx(cumulative)
    assert Acquisition("ei", eps=0.1).value(1.0, 0.5, 1.2) == pytest.approx(-0.3 * cumulative + 0.5 * density)


@given(kind=st.sampled_from(KINDS), mean=st.floats(-3, 3), std=st.floats(0.05, 3), best=st.floats(-3, 3))
def test_slopes_are_the_derivatives(kind: str, mean: float, std: float, best: float) -> None:
    """By mean and by standard deviation, against central differences."""
    acquisition = Acquisition(kind, eps=0.1)
    score, by_mean, by_std = acquisition.slopes(mean, std, best)
    step = 1e-5 * std

    def at(a: float, b: float) -> float:
        return float(acquisition.score(a, b, best))

    assert score == pytest.approx(at(mean, std))
    assert by_mean == pytest.approx((at(mean + step, std) - at(mean - step, std)) / (2 * step), rel=1e-4, abs=1e-6)
    assert by_std == pytest.approx((at(mean, std + step) - at(mean, std - step)) / (2 * step), rel=1e-4, abs=1e-6)


@given(kind=st.sampled_from(["auto", "ei", "poi"]), gap=st.floats(0, 10), power=st.floats(-6, 0))
def test_slopes_are_finite_far_from_the_incumbent(kind: str, gap: float, power: float) -> None:
    """Where the model is sure that nothing is gained, a climb still knows the way."""
    _, by_mean, by_std = Acquisition(kind).slopes(-gap, 10.0**power, 0.0)
    assert math.isfinite(by_mean)
    assert math.isfinite(by_std)
    assert by_mean > 0


def test_an_unknown_function_is_refused() -> None:
    """With the ones there are."""
    with pytest.raises(ValueError, match="must be one of auto, ucb, ei, poi"):
        Acquisition("best")

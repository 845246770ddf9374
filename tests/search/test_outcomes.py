"""Standardised outcomes: monotone, invertible, calm."""

from __future__ import annotations

import math
import warnings

import numpy as np  # noqa: TID253 - tests of numerical code
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import yeojohnson  # noqa: TID253 - the reference

from airflow_hptuning.search.outcomes import OutcomeTransform, yeo_johnson

values = st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=30)


@given(metrics=values, sign=st.sampled_from([1, -1]))
def test_better_stays_better(metrics: list[float], sign: int) -> None:
    """The order of the outcomes is that of the metrics, in the metric's direction; nothing warns, all is finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transform = OutcomeTransform.fit(metrics, sign)
        outcomes = transform.forward(metrics)
    assert np.isfinite(outcomes).all()
    order = np.argsort(sign * np.array(metrics), kind="stable")
    assert (np.diff(outcomes[order]) >= -1e-9).all()


@given(metrics=st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=30), sign=st.sampled_from([1, -1]))
def test_there_and_back(metrics: list[float], sign: int) -> None:
    """Predictions can be told in the metric's own unit."""
    transform = OutcomeTransform.fit(metrics, sign)
    spread = max(metrics) - min(metrics)
    assert transform.inverse(transform.forward(metrics)) == pytest.approx(metrics, rel=1e-6, abs=1e-6 * spread + 1e-9)


def test_outcomes_are_standardised() -> None:
    """Mean 0, variance 1."""
    outcomes = OutcomeTransform.fit([3.0, 1.0, 4.0, 1.0, 5.0, 900.0], -1).forward([3.0, 1.0, 4.0, 1.0, 5.0, 900.0])
    assert (outcomes.mean(), outcomes.std()) == pytest.approx((0.0, 1.0), abs=1e-9)


def test_a_long_tail_is_pulled_in() -> None:
    """One diverged run does not make all others look alike."""
    metrics = [0.1, 0.2, 0.3, 0.4, 0.5, 1e4]
    outcomes = OutcomeTransform.fit(metrics, -1).forward(metrics)
    plain = (np.array(metrics) - np.mean(metrics)) / np.std(metrics)
    assert np.ptp(outcomes[:5]) > 1000 * np.ptp(plain[:5])


@pytest.mark.parametrize("metrics", [[5.0], [2.0, 2.0, 2.0], [0.0], [1e300, -1e300]])
def test_equal_and_extreme_values(metrics: list[float]) -> None:
    """All equal outcomes are zero; huge ones are no trouble."""
    outcomes = OutcomeTransform.fit(metrics, 1).forward(metrics)
    assert np.isfinite(outcomes).all()
    assert len(set(metrics)) > 1 or not outcomes.any()


@given(power=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0]), y=st.floats(-50, 50))
def test_the_power_transform_is_scipys(power: float, y: float) -> None:
    """Yeo and Johnson's, for both signs."""
    assert float(yeo_johnson(np.array([y]), power)[0]) == pytest.approx(float(yeojohnson(np.array([y]), power)[0]))


def test_a_prediction_beyond_the_transform_is_finite() -> None:
    """A model may expect more than a negative power can reach."""
    metrics = [1.0, 1.1, 1.2, 1.3, 500.0]
    transform = OutcomeTransform.fit(metrics, 1)
    assert all(math.isfinite(value) for value in transform.inverse([-30.0, 30.0]))

"""The Gaussian process: covariance functions, posterior, fit, and all gradients."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - tests of numerical code
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process.kernels import RBF, Matern  # noqa: TID253 - the reference

from airflow_hptuning.search.covariance import covariance
from airflow_hptuning.search.gaussian_process import (
    GaussianProcess,
    GaussianProcessSettings,
    LogPosterior,
    fit,
    pair_distances,
)

if TYPE_CHECKING:
    from airflow_hptuning.search.covariance import Array

COLUMNS = [slice(0, 1), slice(1, 4), slice(4, 5)]
"""A number, a category of three values, a number."""


def data(n: int, seed: int = 0) -> tuple[Array, Array]:
    """Observations of a smooth function."""
    rng = np.random.default_rng(seed)
    x = np.hstack([rng.random((n, 1)), np.eye(3)[rng.integers(3, size=n)], rng.random((n, 1))])
    y = np.sin(5 * x[:, 0]) + x[:, 1] + x[:, 4] ** 2
    return x, (y - y.mean()) / (y.std() or 1.0)


def process(settings_: GaussianProcessSettings | None = None, n: int = 12) -> GaussianProcess:
    """A process with given hyperparameters."""
    x, y = data(n)
    return GaussianProcess(
        x=x,
        y=y,
        theta=np.log([1.3, 0.6, 0.9, 1.4, 1e-6]),
        settings=settings_ or GaussianProcessSettings(),
        columns=COLUMNS,
        noise=np.zeros(n),
    )


@pytest.mark.parametrize("nu", [0.5, 1.0, 1.5, 1.9, 2.5, 4.2, 15.0, math.inf])
def test_covariance_functions_are_scikit_learns(nu: float) -> None:
    """At all distances, also those that are read from a table."""
    distance = np.concatenate([[0.0], 10.0 ** np.linspace(-6, 1.3, 60)])
    reference = RBF() if math.isinf(nu) else Matern(nu=nu)
    expected = reference(np.zeros((1, 1)), distance[:, None])[0]
    assert covariance(distance**2, nu)[0] == pytest.approx(expected, abs=1e-8)


@given(nu=st.sampled_from([0.5, 1.2, 1.5, 1.9, 2.5, 7.0, math.inf]), u=st.floats(1e-3, 30))
def test_slope_of_the_covariance(nu: float, u: float) -> None:
    """Against central differences."""
    step = 1e-5 * u
    around = covariance(np.array([u - step, u + step]), nu)[0]
    assert covariance(np.array([u]), nu)[1][0] == pytest.approx(
        (around[1] - around[0]) / (2 * step), rel=1e-3, abs=1e-8
    )


@pytest.mark.parametrize("nu", [0.5, 1.9, 2.5, math.inf])
def test_gradient_of_the_posterior_density(nu: float) -> None:
    """By every hyperparameter, against central differences; the extra noise of an observation included."""
    x, y = data(15)
    noise = np.where(np.arange(15) < 3, 0.1, 0.0)
    chosen = GaussianProcessSettings(kernel="rbf") if math.isinf(nu) else GaussianProcessSettings(nu=nu)
    density = LogPosterior(y, pair_distances(x, COLUMNS), chosen, noise)
    theta = np.log([0.8, 0.5, 1.7, 0.9, 1e-3])
    _, gradient = density(theta)
    for i, slope in enumerate(gradient):
        step = np.zeros(5)
        step[i] = 1e-5
        assert slope == pytest.approx((density(theta + step)[0] - density(theta - step)[0]) / 2e-5, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("nu", [1.5, 1.9, 2.5, math.inf])
def test_gradients_of_the_prediction(nu: float) -> None:
    """Mean and standard deviation by the point, against central differences."""
    chosen = GaussianProcessSettings(kernel="rbf") if math.isinf(nu) else GaussianProcessSettings(nu=nu)
    model = process(chosen)
    point = np.array([0.31, 0.2, 0.5, 0.3, 0.77])
    mean, std, by_mean, by_std = model.gradients(point)
    assert (mean, std) == pytest.approx([values[0] for values in model.predict(point[None])])
    for i in range(5):
        step = np.zeros(5)
        step[i] = 1e-5
        above, below = model.predict((point + step)[None]), model.predict((point - step)[None])
        assert by_mean[i] == pytest.approx((above[0][0] - below[0][0]) / 2e-5, rel=1e-3, abs=1e-5)
        assert by_std[i] == pytest.approx((above[1][0] - below[1][0]) / 2e-5, rel=1e-3, abs=1e-5)


def test_it_interpolates_and_knows_what_it_does_not_know() -> None:
    """At observations the mean is theirs and the deviation is that of the noise; far away only the level is known."""
    model = process()
    mean, std = model.predict(model.x)
    assert mean == pytest.approx(model.y, abs=1e-3)
    assert std.max() < 2e-3
    mean, std = model.predict(np.full((1, 5), 200.0))
    # There the function is 1.3 around a level of prior variance 1, of which the observations say what they can.
    gram = 1.0 + 1.3 * covariance(((model.x[:, None] - model.x) ** 2 / [0.36, *[0.81] * 3, 1.96]).sum(axis=2), 2.5)[0]
    weights = np.linalg.solve(gram + 1e-6 * np.eye(12), np.ones(12))
    assert (mean[0], std[0] ** 2) == pytest.approx((weights @ model.y, 2.3 - weights.sum()), rel=1e-4)


def test_the_average_of_crowded_observations_is_not_the_level() -> None:
    """Twenty good values in one place and four bad ones elsewhere: far from all of them the model expects bad ones."""
    rng = np.random.default_rng(0)
    x = np.vstack([0.1 + 0.01 * rng.random((20, 2)), [[0.1, 0.9], [0.5, 0.5], [0.9, 0.1], [0.5, 0.1]]])
    y = np.array([1.0] * 20 + [-1.0] * 4)
    model = GaussianProcess(
        x=x,
        y=(y - y.mean()) / y.std(),
        theta=np.log([1.0, 0.2, 0.2, 1e-5]),
        settings=GaussianProcessSettings(),
        columns=[slice(0, 1), slice(1, 2)],
        noise=np.zeros(24),
    )
    assert model.predict(np.array([[0.95, 0.95]]))[0][0] < -0.5


@settings(max_examples=30)
@given(seed=st.integers(0, 1000))
def test_variances(seed: int) -> None:
    """Never negative, and no observation raises one."""
    model = process()
    rng = np.random.default_rng(seed)
    points = rng.random((20, 5))
    _, before = model.predict(points)
    _, after = model.conditioned(rng.random((3, 5)), np.zeros(3)).predict(points)
    assert (after > 0).all()
    assert (after <= before + 1e-9).all()


def test_categories_are_equally_far_from_each_other() -> None:
    """Their columns share a length scale."""
    x = np.hstack([np.full((3, 1), 0.5), np.eye(3), np.full((3, 1), 0.5)])
    assert len(set(pair_distances(x, COLUMNS)[1])) == 1


@pytest.mark.parametrize("chosen", [{}, {"kernel": "rbf", "length_scale": 1.0}, {"nu": 1.9, "n_restarts_optimizer": 2}])
def test_the_fit_finds_what_matters(chosen: dict[str, Any]) -> None:
    """The rugged number has the shortest length scale; the fit is no worse than the function at its starts."""
    rng = np.random.default_rng(1)
    x = np.hstack([rng.random((40, 1)), np.eye(3)[rng.integers(3, size=40)], rng.random((40, 1))])
    y = np.sin(12 * x[:, 0]) + 0.1 * x[:, 1]
    y = (y - y.mean()) / y.std()
    model = fit(x, y, COLUMNS, settings=GaussianProcessSettings(**chosen), rng=rng)
    assert model.length_scales[0] < 0.5 * min(model.length_scales[1:])
    assert model.noise_variance < 0.01


def test_the_fit_learns_noise() -> None:
    """Of pure noise it makes noise."""
    rng = np.random.default_rng(2)
    x = rng.random((60, 2))
    y = rng.normal(size=60)
    model = fit(x, y, [slice(0, 1), slice(1, 2)], settings=GaussianProcessSettings(), rng=rng)
    assert model.noise_variance > 0.2


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_equal_or_repeated_observations_are_no_trouble(n: int) -> None:
    """No warning, no failure, finite predictions."""
    x = np.tile(data(1)[0], (n, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit(x, np.zeros(n), COLUMNS, settings=GaussianProcessSettings(), rng=np.random.default_rng(0))
        mean, std = model.predict(data(5)[0])
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()


@pytest.mark.parametrize("wrong", [{"kernel": "linear"}, {"nu": 0.0}, {"length_scale": -1.0}])
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    """A kernel that there is, positive numbers."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GaussianProcessSettings(**wrong)

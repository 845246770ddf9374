"""What a point promises: the acquisition function over the unit cube, while trials are pending.

The outcomes of pending trials are drawn from the model, jointly and several times. Each of these *fantasies* is a
version of the data in which they have ended; the acquisition function is averaged over the versions (Snoek,
Larochelle and Adams, Practical Bayesian Optimization of Machine Learning Algorithms, 2012, section 3.2). The places of
pending trials thus promise nothing more, and what they will tell of their neighbourhood is reckoned with. All
versions share their points, so the factorised covariance serves all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np  # noqa: TID253 - the Bayesian modules are where numpy lives
from attrs import frozen
from scipy.special import ndtri  # noqa: TID253 - the Bayesian modules are where numpy lives

from airflow_hptuning.search.maximizer import sobol

if TYPE_CHECKING:
    from airflow_hptuning.search.acquisition import Acquisition
    from airflow_hptuning.search.covariance import Array
    from airflow_hptuning.search.gaussian_process import GaussianProcess

_FANTASIES = 16
"""Versions of the outcomes of the pending trials."""
_TINY = 1e-6
_DIGITS = 9
"""Points of the unit cube that agree to so many digits are the same."""


@frozen(eq=False)
class Promise:
    """The acquisition function over the cube: what is maximised.

    Attributes:
        posterior: The model, with fantasies of the pending trials.
        acquisition: The acquisition function.
        best: The incumbent of each fantasy, shape (k,); k is 1 without pending trials.
        blocked: Keys of the points that trials have.
    """

    posterior: GaussianProcess
    acquisition: Acquisition
    best: Array
    blocked: frozenset[bytes]

    def scores(self, x: Array) -> Array:
        """Return the score of each row, -inf where a trial already is."""
        taken = [key in self.blocked for key in row_keys(x)]
        return np.where(taken, -np.inf, self.averages(x))

    def averages(self, x: Array) -> Array:
        """Return the score of each row, averaged over the fantasies."""
        mean, std = self.posterior.predict(x)
        scores = np.asarray(self.acquisition.score(mean.reshape(len(x), len(self.best)), std[:, None], self.best))
        averages: Array = self.acquisition.average(scores)[0]
        return averages

    def slopes(self, point: Array) -> tuple[float, Array]:
        """Return score and gradient at one point."""
        mean, std, mean_slope, std_slope = self.posterior.gradients(point)
        pairs = zip(mean.reshape(-1), self.best, strict=True)
        scores, by_mean, by_std = np.array([self.acquisition.slopes(float(m), std, float(b)) for m, b in pairs]).T
        score, weights = self.acquisition.average(scores)
        slope = (weights * by_mean) @ mean_slope.reshape(len(self.best), len(point))
        return float(score), slope + (weights @ by_std) * std_slope


def promise_of(
    model: GaussianProcess,
    places: Array,
    *,
    acquisition: Acquisition,
    best: float,
    blocked: frozenset[bytes],
    rng: np.random.Generator,
) -> Promise:
    """Return the acquisition function while trials are pending.

    Args:
        model: The model of the finished trials.
        places: The points of the pending ones, shape (q, d).
        acquisition: The acquisition function.
        best: The incumbent.
        blocked: Keys of the points that trials have.
        rng: Source of the fantasies.
    """
    if not len(places):
        return Promise(model, acquisition, np.array([best]), blocked)
    normals = ndtri(np.clip(sobol(_FANTASIES, len(places), rng), _TINY, 1.0 - _TINY))
    outcomes = model.fantasies(places, normals)
    return Promise(model.conditioned(places, outcomes), acquisition, np.maximum(best, outcomes.max(axis=0)), blocked)


def row_keys(x: Array) -> list[bytes]:
    """Return a key per row: points that agree to so many digits have the same."""
    # Adding zero turns -0.0, which rounding can give, into 0.0.
    return [row.tobytes() for row in np.round(x, _DIGITS) + 0.0]

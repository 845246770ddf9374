"""Acquisition functions: how much a point is worth trying, given the posterior there.

Notation: ``mean`` and ``std`` are the posterior of the standardised outcome (to be maximised), ``best`` is the
incumbent, ``eps`` the improvement asked for and ``z = (mean - best - eps) / std``. Phi and phi are distribution and
density of the standard normal.

=======  ============================================  ==========================================================
name     value                                         maximised as
=======  ============================================  ==========================================================
``ucb``  mean + kappa std                              itself (Srinivas et al., GP Optimization in the Bandit
                                                       Setting, 2010)
``ei``   (mean - best - eps) Phi(z) + std phi(z)       its logarithm (Jones, Schonlau and Welch, Efficient Global
                                                       Optimization, 1998)
``poi``  Phi(z)                                        its logarithm (Kushner, 1964)
``auto`` ei with eps 0                                 its logarithm (Ament et al., Unexpected Improvements to
                                                       Expected Improvement for Bayesian Optimization, 2023)
=======  ============================================  ==========================================================

A logarithm has the same maximiser, and it still has a slope where the value itself has underflowed to zero. That
is nearly everywhere once the model is sure of itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np  # noqa: TID253 - the Bayesian modules are where numpy lives
from attrs import frozen
from scipy.special import erfcx, log_ndtr, ndtr  # noqa: TID253 - the Bayesian modules are where numpy lives

KINDS = ("auto", "ucb", "ei", "poi")

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_SQRT_HALF_PI = math.sqrt(0.5 * math.pi)
_SQRT_2 = math.sqrt(2.0)
_FAR = -1e4
"""Below this z the expansion of h for large |z| has more digits than the difference it replaces."""
_NEAR = -1.0


def log_h(z: Any) -> Any:
    """Return log(phi(z) + z Phi(z)), the logarithm of the expected improvement of a unit normal.

    Equation 9 of Ament et al.: for z <= -1 the sum cancels; there h(z) = phi(z) (1 - |z| R) with the Mills ratio
    R = Phi(z) / phi(z). For large |z|, 1 - |z| R = z^-2 - 3 z^-4 + ...
    """
    z = np.asarray(z, dtype=float)
    near = np.maximum(z, _NEAR)
    direct = np.log(np.exp(-0.5 * near * near - _LOG_SQRT_2PI) + near * ndtr(near))
    middle = np.clip(z, _FAR, _NEAR)
    tail = np.log1p(middle * _mills(middle))
    squares = np.minimum(z, _FAR) ** 2
    expansion = np.log1p(-3.0 / squares) - np.log(squares)
    return np.where(z > _NEAR, direct, -0.5 * z * z - _LOG_SQRT_2PI + np.where(z > _FAR, tail, expansion))


def log_h_slope(z: float) -> float:
    """Return the derivative of log h, Phi / h, without an exponential that could underflow."""
    if z > _NEAR:
        return float(ndtr(z) / (math.exp(-0.5 * z * z - _LOG_SQRT_2PI) + z * ndtr(z)))
    if z > _FAR:
        mills = float(_mills(z))
        return mills / (1.0 + z * mills)
    return -z - 2.0 / z


def log_phi_slope(z: float) -> float:
    """Return the derivative of log Phi, phi / Phi."""
    return 1.0 / float(_mills(z)) if z < 0.0 else math.exp(-0.5 * z * z - _LOG_SQRT_2PI) / float(ndtr(z))


def _mills(z: Any) -> Any:
    return _SQRT_HALF_PI * erfcx(-z / _SQRT_2)


@frozen
class Acquisition:
    """One acquisition function with its settings.

    Attributes:
        kind: ``auto``, ``ucb``, ``ei`` or ``poi``.
        kappa: Weight of the standard deviation (ucb).
        eps: Improvement asked for, in standard deviations of the outcome (ei, poi).
    """

    kind: str = "auto"
    kappa: float = 1.96
    eps: float = 0.0

    def __attrs_post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"acquisition function is {self.kind!r}; it must be one of {', '.join(KINDS)}")

    def value(self, mean: Any, std: Any, best: Any) -> Any:
        """Return the acquisition value itself, as people know it: shape of ``mean`` and ``std``, which is > 0."""
        score = self.score(mean, std, best)
        return score if self.kind == "ucb" else np.exp(score)

    def score(self, mean: Any, std: Any, best: Any) -> Any:
        """Return what is maximised: the value (ucb) or its logarithm."""
        if self.kind == "ucb":
            return mean + self.kappa * std
        z = self._z(mean, std, best)
        return log_ndtr(z) if self.kind == "poi" else np.log(std) + log_h(z)

    def slopes(self, mean: float, std: float, best: float) -> tuple[float, float, float]:
        """Return the score and its derivatives by mean and by std.

        Both logarithms depend on z, with dz/dmean = 1 / std and dz/dstd = -z / std.
        """
        if self.kind == "ucb":
            return mean + self.kappa * std, 1.0, self.kappa
        z = self._z(mean, std, best)
        if self.kind == "poi":
            by_z = log_phi_slope(z)
            return float(log_ndtr(z)), by_z / std, -by_z * z / std
        by_z = log_h_slope(z)
        return math.log(std) + float(log_h(z)), by_z / std, (1.0 - by_z * z) / std

    def average(self, scores: Any) -> tuple[Any, Any]:
        """Return the score of the average value over the last axis, and the weight of each score's slope in it."""
        if self.kind == "ucb":
            return scores.mean(axis=-1), np.full(scores.shape, 1.0 / scores.shape[-1])
        largest = scores.max(axis=-1, keepdims=True)
        shares = np.exp(scores - largest)
        total = shares.sum(axis=-1, keepdims=True)
        return (largest + np.log(total / scores.shape[-1]))[..., 0], shares / total

    def _z(self, mean: Any, std: Any, best: Any) -> Any:
        margin = self.eps if self.kind in {"ei", "poi"} else 0.0
        return (mean - best - margin) / std

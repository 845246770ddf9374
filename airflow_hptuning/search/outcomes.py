"""Outcomes as a Gaussian process likes them: larger is better, mean 0, variance 1, no long tail.

Objectives of tuning have long tails on the bad side (a diverged run, a learning rate that is far off). Without a
transform these few values take the whole variance, and the good values, which matter, all look alike. So: a robust
scale from the quartiles first, then Yeo and Johnson's power transform (A new family of power transformations to
improve normality or symmetry, 2000) when the skewness is large, then mean and variance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np  # noqa: TID253 - the Bayesian modules are where numpy lives
from attrs import frozen
from scipy.optimize import minimize_scalar  # noqa: TID253 - the Bayesian modules are where numpy lives

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_hptuning.search.covariance import Array

_LARGE_SKEWNESS = 0.5
_POWERS = (-1.0, 3.0)
"""Where the power is sought. Beyond it the long tail would be squeezed into one value."""
_NORMAL_QUARTILES = 1.349
"""Distance of the quartiles of a normal distribution, in standard deviations."""
_SMALLEST_SCALE = 1e-4
"""Of the robust spread, as a part of the range."""
_EDGE = 1e-9


@frozen
class OutcomeTransform:
    """An increasing map from metric values (times the direction's sign) to standardised outcomes, and back.

    Attributes:
        sign: 1 when the metric is to be maximised, -1 when it is to be minimised.
        unit: Divisor that keeps squares of huge values finite.
        location, scale: Median and robust spread.
        power: The Yeo-Johnson power; 1 changes nothing.
        mean, std: Of the values after the power.
    """

    sign: int
    unit: float
    location: float
    scale: float
    power: float
    mean: float
    std: float

    @classmethod
    def fit(cls, values: Sequence[float], sign: int) -> OutcomeTransform:
        """Fit the transform to the finite metric values of a sweep, at least one."""
        raw = sign * np.asarray(values, dtype=float)
        unit = float(np.abs(raw).max()) or 1.0
        raw = raw / unit
        location = float(np.median(raw))
        low, high = np.quantile(raw, [0.25, 0.75])
        # Where most values are equal the quartiles say nothing.
        scale = max(float(high - low) / _NORMAL_QUARTILES, _SMALLEST_SCALE * float(np.ptp(raw))) or 1.0
        centred = (raw - location) / scale
        power = _best_power(centred) if abs(_skewness(centred)) > _LARGE_SKEWNESS else 1.0
        straight = yeo_johnson(centred, power)
        std = float(straight.std())
        return cls(sign, unit, location, scale, power, float(straight.mean()), std if std > _EDGE else 1.0)

    def forward(self, values: Sequence[float] | Array) -> Array:
        """Return standardised outcomes of metric values."""
        centred = (self.sign * np.asarray(values, dtype=float) / self.unit - self.location) / self.scale
        return (yeo_johnson(centred, self.power) - self.mean) / self.std

    def inverse(self, outcomes: Sequence[float] | Array) -> Array:
        """Return the metric values of standardised outcomes."""
        straight = np.asarray(outcomes, dtype=float) * self.std + self.mean
        centred = _inverse_yeo_johnson(straight, self.power)
        return self.sign * self.unit * (centred * self.scale + self.location)


def yeo_johnson(y: Array, power: float) -> Array:
    """Return the Yeo-Johnson transform: for y < 0 it mirrors the one of -y with the power 2 - power."""
    size = np.log1p(np.abs(y))
    return np.where(y >= 0.0, _box_cox(size, power), -_box_cox(size, 2.0 - power))


def _inverse_yeo_johnson(t: Array, power: float) -> Array:
    size = np.where(t >= 0.0, _inverse_box_cox(np.abs(t), power), _inverse_box_cox(np.abs(t), 2.0 - power))
    return np.sign(t) * np.expm1(size)


def _box_cox(log_value: Array, power: float) -> Array:
    return log_value if abs(power) < _EDGE else np.expm1(power * log_value) / power


def _inverse_box_cox(t: Array, power: float) -> Array:
    if abs(power) < _EDGE:
        return t
    # A negative power has a limit that the transform approaches and a model may pass; and nothing exceeds a double.
    return np.minimum(np.log1p(np.maximum(power * t, _EDGE - 1.0)) / power, _LARGEST_LOG)


_LARGEST_LOG = 200.0


def _skewness(y: Array) -> float:
    deviation = y - y.mean()
    variance = float((deviation**2).mean())
    return float((deviation**3).mean()) / variance**1.5 if variance > 0.0 else 0.0


def _best_power(y: Array) -> float:
    """Return the power of largest profile likelihood (equation 3.1 of Yeo and Johnson)."""
    jacobian = float((np.sign(y) * np.log1p(np.abs(y))).sum())

    def loss(power: float) -> float:
        variance = float(yeo_johnson(y, power).var())
        return 0.5 * len(y) * math.log(max(variance, 1e-300)) - (power - 1.0) * jacobian

    return float(minimize_scalar(loss, bounds=_POWERS, method="bounded", options={"xatol": 1e-3}).x)

"""Gaussian process regression for Bayesian optimisation, conditioned by scikit-learn's regressor.

Notation (the code uses these names):

=========== =========== ===========================================================================
name        shape       meaning
=========== =========== ===========================================================================
n, d, p               - observations, columns of the unit cube, parameters of the search space
x           (n, d)      encoded configs, each column in [0, 1]
y           (n,)        standardised outcome, to be maximised; (n, k) for k versions of what is not known yet
noise       (n,)        extra variance of each observation on top of the learned one
columns     p slices    the columns of each parameter; they share one length scale
scales      (p,)        length scales, by parameter
squared     (p, n(n-1)/2) squared distances by parameter, of each pair of observations i > j
u           any         squared scaled distance: sum over parameters of squared / scales**2
theta       (p + 2,)    log signal variance, log scales, log noise variance
=========== =========== ===========================================================================

The covariance is ``signal * k(u) + level`` with the Matérn or RBF function k (Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2006, chapter 4). The constant ``level`` is the prior variance of the function's mean,
which is thus unknown and integrated out (section 2.7 there). The average of the outcomes would be a bad guess of that
mean: a search crowds its observations where they are good, and wherever there are none the model would promise their
average.

A categorical parameter is one-hot, and because its columns share a length scale, all its values are equally far from
each other. Theta is a maximum a posteriori estimate: the marginal likelihood (Algorithm 2.1 and equation 5.9 there)
with normal priors on its logarithms, in the manner of Hvarfner, Hellsten and Nardi, Vanilla Bayesian Optimization
Performs Great in High Dimensions, 2024: long length scales unless the data object, so that a few observations in many
dimensions do not look like noise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - the Bayesian modules are where numpy lives
from attrs import field, frozen
from scipy.linalg import lapack, solve_triangular  # noqa: TID253 - the Bayesian modules are where numpy lives
from scipy.optimize import minimize  # noqa: TID253 - the Bayesian modules are where numpy lives
from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: TID253 - as above
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern  # noqa: TID253 - as above

from airflow_hptuning.search.covariance import Array, covariance

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_VARIANCE = 1e-14
"""Posterior variances are clamped to this, here and nowhere else: rounding can make them negative."""

_LARGEST_NU = 15.0
"""Above it the Matérn function is close to its limit, the RBF, and its Bessel functions overflow at small distances."""
_FAILED = 1e25
"""Objective value where the covariance cannot be factorised."""


@frozen
class Priors:
    """Normal priors on theta and on the function's mean, and the bounds of theta.

    Attributes:
        log_scale: Mean of a log length scale for a space of one parameter; it grows by half of log p, as the
            distances in the unit cube do.
        log_scale_std, log_signal_std: Standard deviations.
        log_noise, log_noise_std: Mean and standard deviation of the log noise variance.
        level: Variance of the function's mean, in units of the outcome's variance.
    """

    log_scale: float = -1.2
    log_scale_std: float = 0.7
    log_signal_std: float = 1.5
    log_noise: float = math.log(1e-5)
    log_noise_std: float = 3.0
    level: float = 1.0

    def parameters(self, p: int) -> tuple[Array, Array]:
        """Return means and standard deviations of theta."""
        mean = [0.0, *[self.log_scale + 0.5 * math.log(p)] * p, self.log_noise]
        std = [self.log_signal_std, *[self.log_scale_std] * p, self.log_noise_std]
        return np.array(mean), np.array(std)

    @staticmethod
    def bounds(p: int) -> Array:
        """Return lower and upper bounds of theta; a smaller noise would spoil the factorisation."""
        return np.log([(1e-3, 1e4), *[(5e-3, 1e3)] * p, (1e-8, 2.0)])


@frozen
class GaussianProcessSettings:
    """The covariance family, and where its fit starts.

    Attributes:
        kernel: ``matern`` or ``rbf``.
        length_scale: Start value of every length scale, in the unit cube; None starts at the prior's mode.
        nu: Smoothness of the Matérn family.
        n_restarts_optimizer: Further starts of the fit, drawn from the priors.
        priors: What is believed before the data.
    """

    kernel: str = "matern"
    length_scale: float | None = None
    nu: float = 2.5
    n_restarts_optimizer: int = 0
    priors: Priors = field(factory=Priors)

    def __attrs_post_init__(self) -> None:
        if self.kernel not in {"matern", "rbf"}:
            raise ValueError(f"kernel is {self.kernel!r}; it must be matern or rbf")
        if not self.nu > 0 or (self.length_scale is not None and not self.length_scale > 0):
            raise ValueError(f"nu {self.nu!r} and length_scale {self.length_scale!r} must be positive")

    @property
    def smoothness(self) -> float:
        """The nu of the covariance function: infinite for the RBF."""
        return math.inf if self.kernel == "rbf" or self.nu > _LARGEST_NU else self.nu


# --- Posterior ---------------------------------------------------------------------------------------------------


@frozen(eq=False)
class GaussianProcess:
    """A fitted process: posterior mean, standard deviation and their gradients.

    Attributes:
        x, y: The observations.
        theta: As in the notation table.
        settings: The covariance family.
        columns: The columns of each parameter.
    """

    x: Array
    y: Array
    theta: Array
    settings: GaussianProcessSettings
    columns: Sequence[slice]
    noise: Array
    _column_scales: Array = field(init=False)
    _regressor: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        widths = [columns.stop - columns.start for columns in self.columns]
        scales = np.repeat(self.length_scales, widths)
        object.__setattr__(self, "_column_scales", scales)
        nu = self.settings.smoothness
        family = RBF(1.0, "fixed") if math.isinf(nu) else Matern(1.0, "fixed", nu=nu)
        # Columns divided by their scales make the process isotropic: the regressor's own kernels serve. It only
        # conditions; its optimiser knows neither shared length scales nor priors and warns at its bounds.
        regressor = GaussianProcessRegressor(
            ConstantKernel(self.signal, "fixed") * family + ConstantKernel(self._level, "fixed"),
            alpha=self.noise_variance + self.noise,
            optimizer=None,
        )
        object.__setattr__(self, "_regressor", regressor.fit(self.x / scales, self.y))

    @property
    def signal(self) -> float:
        """Prior variance of the function around its mean."""
        return float(np.exp(self.theta[0]))

    @property
    def length_scales(self) -> Array:
        """Length scales by parameter, shape (p,)."""
        return np.exp(self.theta[1:-1])

    @property
    def noise_variance(self) -> float:
        """Variance of an ordinary observation."""
        return float(np.exp(self.theta[-1]))

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return posterior mean and standard deviation at ``points``, shape (m, d) to (m,) or (m, k), and (m,)."""
        scaled = points / self._column_scales
        k = self._covariance(scaled, self._regressor.X_train_)
        mean = k @ self._regressor.alpha_
        half = solve_triangular(self._regressor.L_, k.T, lower=True, check_finite=False)
        return mean, self._std(np.einsum("ij,ij->j", half, half))

    def gradients(self, point: Array) -> tuple[Array, float, Array, Array]:
        """Return mean, standard deviation and their gradients at one point.

        Shapes (d,) to (), (), (d,), (d,); the first and the third are (k,) and (k, d) with k versions of y.
        """
        difference = point / self._column_scales - self._regressor.X_train_
        k, slope = covariance(np.einsum("ij,ij->i", difference, difference), self._nu)
        k = self.signal * k + self._level
        derivative = (2.0 * self.signal * slope)[:, None] * difference / self._column_scales
        weights, _ = lapack.dpotrs(self._regressor.L_, k, lower=1)
        std = float(self._std(k @ weights))
        alpha = self._regressor.alpha_
        return alpha.T @ k, std, alpha.T @ derivative, -(weights @ derivative) / std

    def fantasies(self, points: Array, normals: Array) -> Array:
        """Return joint draws of the function at ``points``, shapes (q, d) and (k, q) to (q, k).

        Args:
            points: Where.
            normals: Independent standard normal numbers.
        """
        scaled = points / self._column_scales
        k = self._covariance(scaled, self._regressor.X_train_)
        half = solve_triangular(self._regressor.L_, k.T, lower=True, check_finite=False)
        joint = self._covariance(scaled, scaled) - half.T @ half
        # Eigenvalues rather than a Cholesky factor: points next to each other make it singular.
        values, vectors = np.linalg.eigh(joint)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        draws: Array = (k @ self._regressor.alpha_)[:, None] + root @ normals.T
        return draws

    def conditioned(self, points: Array, values: Array) -> GaussianProcess:
        """Return the process with further observations, (q,) or (q, k), and the same theta."""
        known = self.y if values.ndim == 1 else np.repeat(self.y[:, None], values.shape[1], axis=1)
        return GaussianProcess(
            x=np.vstack([self.x, points]),
            y=np.concatenate([known, values]),
            theta=self.theta,
            settings=self.settings,
            columns=self.columns,
            noise=np.concatenate([self.noise, np.zeros(len(points))]),
        )

    @property
    def _nu(self) -> float:
        return self.settings.smoothness

    @property
    def _level(self) -> float:
        return self.settings.priors.level

    def _covariance(self, a: Array, b: Array) -> Array:
        return self.signal * covariance(_squared_distances(a, b), self._nu)[0] + self._level

    def _std(self, explained: Any) -> Any:
        return np.sqrt(np.maximum(self.signal + self._level - explained, MIN_VARIANCE))


def _squared_distances(a: Array, b: Array) -> Array:
    # Differences rather than |a|^2 + |b|^2 - 2ab: near an observation the latter loses half of the digits.
    result = np.zeros((len(a), len(b)))
    for column in range(a.shape[1]):
        difference = np.subtract.outer(a[:, column], b[:, column])
        difference *= difference
        result += difference
    return result


# --- Fit ---------------------------------------------------------------------------------------------------------


@frozen(eq=False)
class LogPosterior:
    """The log posterior density of theta (up to a constant) and its gradient."""

    y: Array
    squared: Array
    settings: GaussianProcessSettings
    noise: Array
    _pairs: tuple[Any, Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_pairs", np.tril_indices(len(self.y), -1))

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Return value and gradient; a covariance that cannot be factorised is as unlikely as can be."""
        likelihood, gradient = self.likelihood(theta)
        mean, std = self.settings.priors.parameters(len(theta) - 2)
        z = (theta - mean) / std
        return likelihood - 0.5 * float(z @ z), gradient - z / std

    def likelihood(self, theta: Array) -> tuple[float, Array]:
        """Return the log marginal likelihood and its gradient.

        The gradient by theta_j is tr(M dK/dtheta_j) / 2 with M = (K^-1 y)(K^-1 y)' - K^-1.
        """
        n = len(self.y)
        signal, noise, level = np.exp(theta[0]), np.exp(theta[-1]), self.settings.priors.level
        inverse_squares = np.exp(-2.0 * theta[1:-1])
        k, slope = covariance(inverse_squares @ self.squared, self.settings.smoothness)
        k *= signal
        gram = np.zeros((n, n), order="F")
        gram[self._pairs] = k + level
        np.fill_diagonal(gram, signal + level + noise + self.noise)
        factor, failed = lapack.dpotrf(gram, lower=1, overwrite_a=1)
        if failed:
            return -_FAILED, np.zeros_like(theta)
        weights, _ = lapack.dpotrs(factor, self.y, lower=1)
        value = -0.5 * self.y @ weights - np.log(factor.diagonal()).sum() - 0.5 * n * math.log(2.0 * math.pi)
        inverse, _ = lapack.dpotri(factor, lower=1)
        trace = float(weights @ weights - inverse.diagonal().sum())
        rows, columns = self._pairs
        m = weights[rows] * weights[columns] - inverse[self._pairs]
        by_scale = (self.squared @ (m * slope)) * (-2.0 * signal * inverse_squares)
        by_signal = float(m @ k) + 0.5 * signal * trace
        return float(value), np.array([by_signal, *by_scale, 0.5 * noise * trace])


def fit(
    x: Array,
    y: Array,
    columns: Sequence[slice],
    *,
    settings: GaussianProcessSettings,
    rng: np.random.Generator,
    noise: Array | None = None,
) -> GaussianProcess:
    """Fit a process to standardised observations.

    Args:
        x: Encoded configs, shape (n, d), n >= 1.
        y: Outcomes of mean about 0 and variance about 1, shape (n,).
        columns: The columns of each parameter.
        settings: Covariance family, start value and priors.
        rng: Source of the restarts.
        noise: Extra variance of each observation, shape (n,).
    """
    extra = np.zeros(len(y)) if noise is None else noise
    objective = LogPosterior(y, pair_distances(x, columns), settings, extra)
    bounds = settings.priors.bounds(len(columns))

    def negative(theta: Array) -> tuple[float, Array]:
        value, gradient = objective(theta)
        return -value, -gradient

    best_value, best = math.inf, None
    for start in _starts(settings, len(y), len(columns), rng):
        start_in_bounds = np.clip(start, bounds[:, 0], bounds[:, 1])
        found = minimize(negative, start_in_bounds, jac=True, method="L-BFGS-B", bounds=bounds, options=_FIT_OPTIONS)
        if best is None or found.fun < best_value:
            best_value, best = float(found.fun), found.x
    return GaussianProcess(x=x, y=y, theta=np.asarray(best), settings=settings, columns=columns, noise=extra)


_FIT_OPTIONS = {"maxiter": 60, "ftol": 1e-7, "gtol": 1e-3}
"""More digits of theta change no suggestion."""
_EXTRA_STARTS = 2
_FEW = 80
"""Up to so many observations the posterior has several modes, and a fit is cheap."""
_SHORT_SCALE = 0.3
_NOISY = 1e-1


def _starts(settings: GaussianProcessSettings, n: int, p: int, rng: np.random.Generator) -> list[Array]:
    """Return where the fit starts: the file's length scale or the prior's mode, a rugged noisy one, restarts."""
    mean, std = settings.priors.parameters(p)
    first, rugged = mean.copy(), mean.copy()
    if settings.length_scale is not None:
        first[1:-1] = math.log(settings.length_scale)
    rugged[1:-1], rugged[-1] = math.log(_SHORT_SCALE), math.log(_NOISY)
    further = settings.n_restarts_optimizer + (_EXTRA_STARTS if n <= _FEW else 0)
    return [first, rugged, *(rng.normal(mean, std) for _ in range(further))]


def pair_distances(x: Array, columns: Sequence[slice]) -> Array:
    """Return the squared distances by parameter of each pair of rows, shape (p, n(n-1)/2)."""
    rows, others = np.tril_indices(len(x), -1)
    difference = x[rows] - x[others]
    difference *= difference
    return np.stack([difference[:, part].sum(axis=1) for part in columns])

"""Maximisation of an acquisition function over a mixed space.

The search points live on the *feasible* part of the unit cube: an axis with few values (categories, integers,
quantised distributions) only ever takes the encodings of its values, because a maximum between two of them is none
(Garrido-Merchán and Hernández-Lobato, Dealing with Categorical and Integer-valued Variables in Bayesian
Optimization with Gaussian Processes, 2020). The other axes are continuous. Three steps:

1. score Sobol points over the whole space and perturbations of the incumbents at several distances;
2. from the best of each kind, climb: L-BFGS-B along the continuous axes, then the best exchange of a single discrete
   value, until neither helps;
3. return everything seen, best first, for the caller takes the first config that is new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np  # noqa: TID253 - the Bayesian modules are where numpy lives
from attrs import frozen
from scipy.optimize import minimize  # noqa: TID253 - the Bayesian modules are where numpy lives
from scipy.stats import qmc  # noqa: TID253 - the Bayesian modules are where numpy lives

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_hptuning.search.covariance import Array
    from airflow_hptuning.space.base import Parameter

N_WARMUP = 1024
"""Sobol points, when the file does not say ``n_warmup``."""
N_POLISH = 6
"""Climbs, when the file does not say ``n_iter``."""
_LARGEST_GRID = 512
"""Parameters with more values are searched as if continuous, and decoded to the nearest value."""
_PERTURBATIONS = 64
"""Points around each incumbent."""
_DISTANCES = (0.2, 0.05, 0.01, 0.002)
_ROUNDS = 4
"""Rounds of a climb: continuous, then discrete; more were never needed."""
_MOST_EXCHANGES = 64
"""Values of one discrete axis that are tried in an exchange: the nearest."""
_CLIMB_OPTIONS = {"maxiter": 60, "ftol": 1e-10, "gtol": 1e-7}


@frozen(eq=False)
class Axis:
    """One parameter in the unit cube.

    Attributes:
        columns: Its columns.
        grid: Encodings of all its values, shape (values, columns); None when it is continuous (one column).
    """

    columns: slice
    grid: Array | None = None

    def place(self, u: Array) -> Array:
        """Return the encodings for uniform numbers, shape (m,) to (m, columns)."""
        if self.grid is None:
            return u[:, None]
        cells: Array = self.grid[np.minimum((u * len(self.grid)).astype(int), len(self.grid) - 1)]
        return cells

    def indices(self, x: Array) -> Any:
        """Return which value of the grid each row of ``x`` holds."""
        if self.grid is None:
            raise ValueError("a continuous axis has no indices")
        part = x[:, self.columns]
        return ((part[:, None, :] - self.grid[None, :, :]) ** 2).sum(axis=2).argmin(axis=1)


def axis_of(parameter: Parameter, columns: slice) -> Axis:
    """Return the axis of a parameter: discrete when it has few values, be they listed or found by looking."""
    if parameter.is_dense or (parameter.support or 0) > _LARGEST_GRID:
        return Axis(columns)
    if parameter.support is not None:
        values = [parameter.support_at(index) for index in range(parameter.support)]
    else:
        values = [parameter.decode([place]) for place in np.linspace(0.0, 1.0, _LARGEST_GRID + 1).tolist()]
    grid = np.unique([parameter.encode(value) for value in values], axis=0)
    return Axis(columns) if len(grid) > _LARGEST_GRID else Axis(columns, grid)


class Objective(Protocol):
    """What is maximised."""

    def scores(self, x: Array) -> Array:
        """Return the score of each row, -inf for rows that must not be proposed."""

    def slopes(self, point: Array) -> tuple[float, Array]:
        """Return score and gradient at one point."""


def place(axes: Sequence[Axis], u: Array) -> Array:
    """Return the points of the feasible cube for uniform numbers, one column per axis: (m, p) to (m, d)."""
    return np.hstack([axis.place(u[:, i]) for i, axis in enumerate(axes)])


def sobol(count: int, dimensions: int, rng: np.random.Generator) -> Array:
    """Return ``count`` points of a scrambled Sobol sequence (Owen, 1998), shape (count, dimensions)."""
    # A power of two is drawn and cut: other numbers lose the balance of the sequence, which scipy warns of.
    points: Array = qmc.Sobol(dimensions, rng=rng).random_base2(max(0, count - 1).bit_length())[:count]
    return points


def perturb(axes: Sequence[Axis], incumbents: Array, rng: np.random.Generator) -> Array:
    """Return points around each incumbent, at several distances, in one axis or more."""
    count = _PERTURBATIONS
    x = np.repeat(incumbents, count, axis=0)
    distances = np.tile(np.repeat(_DISTANCES, count // len(_DISTANCES)), len(incumbents))
    chosen = rng.random((len(x), len(axes))) < max(0.5, 1.0 / len(axes))
    chosen[np.arange(len(x)), rng.integers(len(axes), size=len(x))] = True
    for i, axis in enumerate(axes):
        rows = np.flatnonzero(chosen[:, i])
        if axis.grid is None:
            moved = x[rows, axis.columns.start] + rng.normal(size=len(rows)) * distances[rows]
            x[rows, axis.columns.start] = np.clip(moved, 0.0, 1.0)
        else:
            x[rows, axis.columns] = axis.grid[_moved(axis, x[rows], distances[rows], rng)]
    return x


def _moved(axis: Axis, x: Array, distances: Array, rng: np.random.Generator) -> Any:
    """Return other values: any category, or a number nearby (at least the next one)."""
    size = len(axis.grid) if axis.grid is not None else 0
    if axis.columns.stop - axis.columns.start > 1:
        return rng.integers(size, size=len(x))
    step = rng.normal(size=len(x)) * distances * size
    return np.clip(axis.indices(x) + np.where(step < 0, np.floor(step), np.ceil(step)).astype(int), 0, size - 1)


def maximize(
    objective: Objective,
    axes: Sequence[Axis],
    incumbents: Array,
    rng: np.random.Generator,
    *,
    n_warmup: int = N_WARMUP,
    n_polish: int = N_POLISH,
) -> Array:
    """Return candidate points in the order of their score, best first, without those of score -inf.

    Args:
        objective: Score and slopes.
        axes: The axes, in the order of their columns.
        incumbents: The best observed points, best first, shape (m, d).
        rng: Source of the points.
        n_warmup: Sobol points.
        n_polish: Climbs.
    """
    wide = place(axes, sobol(n_warmup, len(axes), rng))
    near = np.vstack([incumbents, perturb(axes, incumbents, rng)])
    x = np.vstack([wide, near])
    scores = objective.scores(x)
    starts = _best_of_each(scores, len(wide), n_polish)
    climbed = np.array([_climb(objective, axes, x[start]) for start in starts]).reshape(-1, x.shape[1])
    x, scores = np.vstack([climbed, x]), np.concatenate([objective.scores(climbed), scores])
    order = np.argsort(-scores, kind="stable")
    return x[order[np.isfinite(scores[order])]]


def _best_of_each(scores: Array, n_wide: int, count: int) -> list[int]:
    """Return the rows to climb from: the best overall, then in turn the best wide and near ones."""
    order = [int(row) for row in np.argsort(-scores, kind="stable") if np.isfinite(scores[row])]
    wide = [row for row in order if row < n_wide]
    near = [row for row in order if row >= n_wide]
    alternating = [row for pair in zip(wide, near, strict=False) for row in pair]
    return list(dict.fromkeys([*order[:1], *alternating, *order]))[:count]


def _climb(objective: Objective, axes: Sequence[Axis], start: Array) -> Array:
    x, score = start, float(objective.scores(start[None])[0])
    for _ in range(_ROUNDS):
        before = score
        x, score = _climb_continuous(objective, axes, x, score)
        exchanged = _exchanges(axes, x)
        if not len(exchanged):
            break
        scores = objective.scores(exchanged)
        best = int(scores.argmax())
        if not scores[best] > max(score, before):
            break
        x, score = exchanged[best], float(scores[best])
    return x


def _climb_continuous(objective: Objective, axes: Sequence[Axis], start: Array, score: float) -> tuple[Array, float]:
    free = [axis.columns.start for axis in axes if axis.grid is None]
    if not free:
        return start, score

    def negative(part: Array) -> tuple[float, Array]:
        point = start.copy()
        point[free] = part
        value, gradient = objective.slopes(point)
        return -value, -gradient[free]

    found = minimize(
        negative, start[free], jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * len(free), options=_CLIMB_OPTIONS
    )
    if not -found.fun > score:
        return start, score
    end = start.copy()
    end[free] = found.x
    return end, -float(found.fun)


def _exchanges(axes: Sequence[Axis], x: Array) -> Array:
    """Return the points that differ from ``x`` in the value of one discrete axis."""
    points = []
    for axis in axes:
        if axis.grid is None:
            continue
        distance = ((axis.grid - x[axis.columns]) ** 2).sum(axis=1)
        for index in np.argsort(distance, kind="stable")[1 : _MOST_EXCHANGES + 1]:
            point = x.copy()
            point[axis.columns] = axis.grid[index]
            points.append(point)
    return np.array(points).reshape(-1, len(x))

"""The tasks of the Bayesian benchmark: spaces with objectives to minimise."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - a benchmark of numerical code
from attrs import frozen
from sklearn.datasets import load_diabetes, load_digits  # noqa: TID253 - as above
from sklearn.ensemble import GradientBoostingRegressor  # noqa: TID253 - as above
from sklearn.model_selection import cross_val_score  # noqa: TID253 - as above
from sklearn.pipeline import make_pipeline  # noqa: TID253 - as above
from sklearn.preprocessing import StandardScaler  # noqa: TID253 - as above
from sklearn.svm import SVC  # noqa: TID253 - as above

from airflow_hptuning.space.parameters import parse_parameter
from airflow_hptuning.space.search_space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_hptuning.trials import Params


@frozen
class Task:
    """Something to minimise.

    Attributes:
        space: Its search space, of kinds that every peer knows: uniform, loguniform, range and values.
        objective: The value of a config.
        optimum: The smallest value, where it is known.
    """

    space: SearchSpace
    objective: Callable[[Params], float]
    optimum: float | None


def _space(**parameters: tuple[str, Any]) -> SearchSpace:
    return SearchSpace([parse_parameter(name, option, raw) for name, (option, raw) in parameters.items()])


def _log(low: float, high: float) -> tuple[str, list[float]]:
    return ("loguniform", [math.log(low), math.log(high)])


def branin(x1: float, x2: float) -> float:
    """Return the Branin function; three equal minima."""
    valley = x2 - 5.1 / (4 * math.pi**2) * x1**2 + 5 / math.pi * x1 - 6
    return valley * valley + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x1) + 10


_BRANIN_OPTIMUM = 0.39788735772973816
_SHIFTS = {"a": (0.0, 1.0), "b": (4.0, 1.3), "c": (8.0, 0.7), "d": (2.0, 2.0)}
_HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN_SCALES = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_HARTMANN_CENTRES = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann6(params: Params) -> float:
    """Return the Hartmann function in six dimensions."""
    x = np.array([params[f"x{number}"] for number in range(1, 7)])
    exponents = (_HARTMANN_SCALES * (x - _HARTMANN_CENTRES) ** 2).sum(axis=1)
    return -float(_HARTMANN_WEIGHTS @ np.exp(-exponents))


def mixed(params: Params) -> float:
    """Return a Branin that a category shifts and scales, plus the distance of an integer from 3."""
    shift, scale = _SHIFTS[params["kind"]]
    return shift + scale * branin(params["x1"], params["x2"]) + 0.5 * abs(float(params["depth"]) - 3)


@lru_cache
def _digits() -> tuple[Any, Any]:
    x, y = load_digits(return_X_y=True)
    return x[:1000], y[:1000]


def support_vectors(params: Params) -> float:
    """Return the error of a support vector machine on 1000 digits, three folds."""
    model = SVC(C=params["c"], gamma=params["gamma"], kernel=params["kernel"], degree=params["degree"], cache_size=50)
    x, y = _digits()
    return 1.0 - float(cross_val_score(make_pipeline(StandardScaler(), model), x, y, cv=3).mean())


def boosting(params: Params) -> float:
    """Return the root mean squared error of gradient boosting on the diabetes data, three folds."""
    x, y = load_diabetes(return_X_y=True)
    model = GradientBoostingRegressor(random_state=0, n_estimators=60, **params)
    return -float(cross_val_score(model, x, y, cv=3, scoring="neg_root_mean_squared_error").mean())


TASKS = {
    "branin": Task(
        _space(x1=("uniform", [-5, 10]), x2=("uniform", [0, 15])),
        lambda params: branin(params["x1"], params["x2"]),
        _BRANIN_OPTIMUM,
    ),
    "hartmann6": Task(
        _space(**{f"x{number}": ("uniform", [0, 1]) for number in range(1, 7)}), hartmann6, -3.3223680114155147
    ),
    "mixed": Task(
        _space(
            x1=("uniform", [-5, 10]),
            x2=("uniform", [0, 15]),
            depth=("range", [0, 9, 1]),
            kind=("values", ["a", "b", "c", "d"]),
        ),
        mixed,
        _BRANIN_OPTIMUM,
    ),
    "svm-digits": Task(
        _space(
            c=_log(1e-2, 1e3),
            gamma=_log(1e-5, 1e0),
            degree=("range", [2, 6, 1]),
            kernel=("values", ["rbf", "poly", "sigmoid"]),
        ),
        support_vectors,
        None,
    ),
    "boosting-diabetes": Task(
        _space(
            learning_rate=_log(1e-3, 1e0),
            max_depth=("range", [1, 9, 1]),
            min_samples_leaf=("range", [1, 41, 1]),
            subsample=("uniform", [0.3, 1.0]),
            max_features=("uniform", [0.1, 1.0]),
            loss=("values", ["squared_error", "absolute_error", "huber"]),
        ),
        boosting,
        None,
    ),
}

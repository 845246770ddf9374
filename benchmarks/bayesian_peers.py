"""The optimizers of the Bayesian benchmark behind one interface: ask for a config, tell its value (to be minimised)."""

from __future__ import annotations

import logging
import math
import warnings
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from airflow_hptuning.search.acquisition import Acquisition
from airflow_hptuning.search.bayesian import BayesianOptimization
from airflow_hptuning.search.gaussian_process import GaussianProcessSettings
from airflow_hptuning.search.random_search import RandomSearch
from airflow_hptuning.trials import ActiveTrial, CompletedTrial, Direction, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_hptuning.search.base import SearchAlgorithm
    from airflow_hptuning.space.base import Parameter
    from airflow_hptuning.space.search_space import SearchSpace

LOSS = Metric("loss", Direction.MINIMIZE)


class Optimizer(Protocol):
    """An optimizer in the middle of a sweep."""

    concurrency: int

    def ask(self) -> Mapping[str, Any]:
        """Return the next config."""

    def tell(self, params: Mapping[str, Any], value: float) -> None:
        """Take the value of a config."""


class Ours:
    """An algorithm of this package, which knows the running trials when several run."""

    def __init__(self, algorithm: SearchAlgorithm, concurrency: int = 1) -> None:
        self.concurrency = concurrency
        self._algorithm = algorithm
        self._finished: list[CompletedTrial] = []
        self._active: list[ActiveTrial] = []

    def ask(self) -> Mapping[str, Any]:
        """Return the next config."""
        suggestion = self._algorithm.suggest(self._finished, self._active, 1)[0]
        self._active.append(ActiveTrial(suggestion.trial, suggestion.params))
        return suggestion.params

    def tell(self, params: Mapping[str, Any], value: float) -> None:
        """Take the value of the trial that runs longest."""
        self._finished.append(CompletedTrial(self._active.pop(0).trial, params, value))


def ours(
    space: SearchSpace, seed: int, n_initial: int, trials: int, *, concurrency: int = 1, **settings: Any
) -> Optimizer:
    """Start our Bayesian optimisation."""
    return Ours(BayesianOptimization(space, n_initial, trials - n_initial, LOSS, seed, **settings), concurrency)


def random_search(space: SearchSpace, seed: int, n_initial: int, trials: int) -> Optimizer:
    """Start our random search."""
    del n_initial
    return Ours(RandomSearch(space, trials, seed))


class Optuna:
    """Optuna's samplers, by name, with their defaults."""

    concurrency = 1

    def __init__(self, space: SearchSpace, seed: int, n_initial: int, trials: int, *, sampler: str) -> None:
        del trials
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampling = getattr(optuna.samplers, sampler)(seed=seed, n_startup_trials=n_initial)
        self._study = optuna.create_study(sampler=sampling)
        self._distributions = {parameter.name: self._distribution(parameter) for parameter in space.parameters}

    @staticmethod
    def _distribution(parameter: Parameter) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        match parameter.kind:
            case "uniform" | "loguniform":
                return FloatDistribution(parameter.low, parameter.high, log=parameter.kind == "loguniform")
            case "range":
                return IntDistribution(*_ends(parameter))
            case _:
                return CategoricalDistribution(list(parameter.values()))

    def ask(self) -> Mapping[str, Any]:
        """Return the next config."""
        self._trial = self._study.ask(self._distributions)
        params: Mapping[str, Any] = self._trial.params
        return params

    def tell(self, params: Mapping[str, Any], value: float) -> None:
        """Take the value of a config."""
        del params
        self._study.tell(self._trial, value)


class ScikitOptimize:
    """scikit-optimize with the settings of ``gp_minimize``."""

    concurrency = 1

    def __init__(self, space: SearchSpace, seed: int, n_initial: int, trials: int) -> None:
        del trials
        import numpy as np
        import skopt
        from skopt.utils import cook_estimator, normalize_dimensions

        warnings.filterwarnings("ignore", module="skopt|sklearn")
        self._names = space.names
        dimensions = normalize_dimensions([self._dimension(parameter) for parameter in space.parameters])
        # As gp_minimize does, which has no ask and tell.
        model = cook_estimator(
            "GP", space=dimensions, random_state=np.random.RandomState(seed).randint(2**31), noise="gaussian"
        )
        self._optimizer = skopt.Optimizer(
            dimensions, base_estimator=model, n_initial_points=n_initial, random_state=seed, acq_func="gp_hedge"
        )

    @staticmethod
    def _dimension(parameter: Parameter) -> Any:
        from skopt.space import Categorical, Integer, Real

        match parameter.kind:
            case "uniform" | "loguniform":
                prior = "log-uniform" if parameter.kind == "loguniform" else "uniform"
                return Real(parameter.low, parameter.high, prior=prior)
            case "range":
                return Integer(*_ends(parameter))
            case _:
                return Categorical(list(parameter.values()))

    def ask(self) -> Mapping[str, Any]:
        """Return the next config."""
        point = self._optimizer.ask()
        return {
            name: getattr(value, "item", lambda value=value: value)()
            for name, value in zip(self._names, point, strict=True)
        }

    def tell(self, params: Mapping[str, Any], value: float) -> None:
        """Take the value of a config."""
        self._optimizer.tell([params[name] for name in self._names], value)


class BayesianOptimizationPackage:
    """The package bayesian-optimization, which maximises; logarithmic parameters are given by their logarithms."""

    concurrency = 1

    def __init__(self, space: SearchSpace, seed: int, n_initial: int, trials: int) -> None:
        del trials
        import bayes_opt

        warnings.filterwarnings("ignore", module="bayes_opt|sklearn")
        self._space = space
        bounds = {parameter.name: self._bounds(parameter) for parameter in space.parameters}
        self._optimizer = bayes_opt.BayesianOptimization(
            None, bounds, random_state=seed, verbose=0, allow_duplicate_points=True
        )
        self._left = n_initial

    @staticmethod
    def _bounds(parameter: Parameter) -> Any:
        match parameter.kind:
            case "uniform":
                return (parameter.low, parameter.high)
            case "loguniform":
                return (math.log(parameter.low or 1.0), math.log(parameter.high or 1.0))
            case "range":
                return (*_ends(parameter), int)
            case _:
                return tuple(parameter.values())

    def ask(self) -> Mapping[str, Any]:
        """Return the next config."""
        self._left -= 1
        self._point = self._optimizer.random_sample(1)[0] if self._left >= 0 else self._optimizer.suggest()
        return {parameter.name: self._value(parameter) for parameter in self._space.parameters}

    def _value(self, parameter: Parameter) -> Any:
        value = self._point[parameter.name]
        if parameter.kind == "loguniform":
            return math.exp(value)
        return round(value) if parameter.kind == "range" else value

    def tell(self, params: Mapping[str, Any], value: float) -> None:
        """Take the value of a config."""
        del params
        self._optimizer.register(self._point, -value)


class Hypertune:
    """Polyaxon's hypertune; logarithmic parameters, which its model cannot use, are given by their logarithms."""

    concurrency = 1

    def __init__(self, space: SearchSpace, seed: int, n_initial: int, trials: int, **utility: Any) -> None:
        from hypertune.search_managers.bayesian_optimization.manager import BayesSearchManager
        from polyaxon.schemas import V1Bayes

        warnings.filterwarnings("ignore", module="hypertune|sklearn")
        logging.getLogger("hypertune").setLevel(logging.ERROR)
        self._space = space
        content = {
            "kind": "bayes",
            "numInitialRuns": n_initial,
            "maxIterations": trials - n_initial,
            "metric": {"name": "loss", "optimization": "minimize"},
            "utilityFunction": utility,
            # Its seed 0 means no seed.
            "seed": seed + 1,
            "params": {parameter.name: self._definition(parameter) for parameter in space.parameters},
        }
        self._manager = BayesSearchManager(config=V1Bayes.from_dict(content))
        self._designed = list(self._manager.get_suggestions())
        self._configs: list[dict[str, Any]] = []
        self._values: list[float] = []

    @staticmethod
    def _definition(parameter: Parameter) -> Any:
        match parameter.kind:
            case "uniform":
                return {"kind": "uniform", "value": [parameter.low, parameter.high]}
            case "loguniform":
                return {
                    "kind": "uniform",
                    "value": [math.log(parameter.low or 1.0), math.log(parameter.high or 1.0)],
                }
            case "range":
                first, last = _ends(parameter)
                return {"kind": "range", "value": [first, last + 1, 1]}
            case _:
                return {"kind": "choice", "value": list(parameter.values())}

    def ask(self) -> Mapping[str, Any]:
        """Return the next config."""
        if self._designed:
            self._point = self._designed.pop(0)
        else:
            self._point = self._manager.get_suggestions(self._configs, self._values)[0]
        return {parameter.name: self._value(parameter) for parameter in self._space.parameters}

    def _value(self, parameter: Parameter) -> Any:
        value = self._point[parameter.name]
        value = value.item() if hasattr(value, "item") else value
        if parameter.kind == "loguniform":
            return math.exp(value)
        return round(value) if parameter.kind == "range" else value

    def tell(self, params: Mapping[str, Any], value: float) -> None:
        """Take the value of a config."""
        del params
        self._configs.append(dict(self._point))
        self._values.append(value)


def _ends(parameter: Parameter) -> tuple[int, int]:
    values = list(parameter.values())
    return values[0], values[-1]


def _hypertune_model(kernel: str) -> dict[str, Any]:
    return {"kernel": kernel, "lengthScale": 1.0, "nu": 1.9, "numRestartsOptimizer": 0}


def _documented_model(kernel: str) -> GaussianProcessSettings:
    return GaussianProcessSettings(kernel=kernel, length_scale=1.0, nu=1.9)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "ours": ours,
    "ours-ucb": partial(ours, acquisition=Acquisition("ucb", kappa=1.2), gaussian_process=_documented_model("matern")),
    "ours-ei": partial(ours, acquisition=Acquisition("ei", eps=1.2), gaussian_process=_documented_model("rbf")),
    "ours-5-running": partial(ours, concurrency=5),
    "optuna-gp": partial(Optuna, sampler="GPSampler"),
    "optuna-tpe": partial(Optuna, sampler="TPESampler"),
    "scikit-optimize": ScikitOptimize,
    "bayesian-optimization": BayesianOptimizationPackage,
    "hypertune-ucb": partial(
        Hypertune, acquisitionFunction="ucb", kappa=1.2, gaussianProcess=_hypertune_model("matern")
    ),
    "hypertune-ei": partial(Hypertune, acquisitionFunction="ei", eps=1.2, gaussianProcess=_hypertune_model("rbf")),
    "random": random_search,
}
"""``-ucb`` and ``-ei`` are the settings of Polyaxon's documentation, nu 1.9 and eps 1.2 included."""

_PACKAGES = {
    "optuna-gp": ("optuna", "torch"),
    "optuna-tpe": ("optuna",),
    "scikit-optimize": ("skopt",),
    "bayesian-optimization": ("bayes_opt",),
    "hypertune-ucb": ("hypertune", "polyaxon", "traceml"),
    "hypertune-ei": ("hypertune", "polyaxon", "traceml"),
}


def missing(optimizer: str) -> str | None:
    """Return why an optimizer cannot run here, or None."""
    if optimizer not in OPTIMIZERS:
        return "there is no such optimizer"
    absent = [package for package in _PACKAGES.get(optimizer, ()) if find_spec(package) is None]
    return f"{', '.join(absent)} not installed" if absent else None

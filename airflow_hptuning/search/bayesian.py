"""Bayesian optimisation: a Gaussian process over the trials so far says which config to try next.

Every suggestion is a pure function of (space, settings, finished trials, active trials, seed): nothing is kept
between calls, so each task of a sweep can rebuild the algorithm from the records of the trials.

======= ======================================================================================================
step    what happens
======= ======================================================================================================
design  the first ``n_initial_trials`` configs come from a scrambled Sobol sequence, decoded by the space
encode  configs become points x of the unit cube (columns by parameter), outcomes become y (``outcomes``)
fit     ``gaussian_process.fit``: theta by maximum a posteriori
pending active trials are observed with a made-up outcome, the constant liar of Ginsbourger, Le Riche and Carraro,
        Kriging is Well-Suited to Parallelize Optimization, 2010, so that they are not proposed again
search  ``maximizer.maximize`` of the acquisition function; the incumbent is the best posterior mean at an observed
        point, since with noise the best observation is luck
dedupe  the best candidate whose config no trial has; a space without one is exhausted
======= ======================================================================================================
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np  # noqa: TID253 - the Bayesian modules are where numpy lives
from attrs import evolve, field, frozen

from airflow_hptuning.search.acquisition import Acquisition
from airflow_hptuning.search.base import stream
from airflow_hptuning.search.gaussian_process import GaussianProcess, GaussianProcessSettings, fit
from airflow_hptuning.search.maximizer import N_POLISH, N_WARMUP, Axis, maximize, sobol
from airflow_hptuning.search.outcomes import OutcomeTransform
from airflow_hptuning.trials import Suggestion, TrialState

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from airflow_hptuning.search.gaussian_process import Array
    from airflow_hptuning.space.base import Parameter
    from airflow_hptuning.space.search_space import SearchSpace
    from airflow_hptuning.trials import ActiveTrial, CompletedTrial, Metric, Params

_LARGEST_GRID = 512
"""Parameters with more values are searched as if continuous, and decoded to the nearest value."""
_EXTRA_NOISE = 0.1
"""Variance, in units of the outcome's, of observations that say less: stopped trials and those of earlier sweeps."""
_INCUMBENTS = 5
"""Around so many of the best observed points the maximiser looks closely."""
_DRAWS = 2048
"""So many points without a new config, and a space without a known size counts as exhausted."""


@frozen
class BayesianOptimization:
    """Bayesian optimisation of one metric.

    Attributes:
        space: The search space.
        n_initial_trials: Trials of the initial design.
        n_iterations: Trials that the model proposes.
        metric: What is optimised.
        seed: The same seed and the same trials give the same suggestions.
        acquisition: The acquisition function; its kappa and eps act on the standardised outcome.
        gaussian_process: The covariance family, in the unit cube.
        n_warmup, n_iter: Points that are scored, and climbs from the best of them, to maximise the acquisition
            function; None takes ours.
        earlier: Finished trials of earlier sweeps: data with extra noise, which may be proposed again.
    """

    name: ClassVar[str] = "bo"

    space: SearchSpace
    n_initial_trials: int
    n_iterations: int
    metric: Metric
    seed: int | str
    acquisition: Acquisition = field(factory=Acquisition)
    gaussian_process: GaussianProcessSettings = field(factory=GaussianProcessSettings)
    n_warmup: int | None = None
    n_iter: int | None = None
    earlier: tuple[CompletedTrial, ...] = ()

    @property
    def total(self) -> int:
        """Trials of the sweep, unless the space ends before."""
        return self.n_initial_trials + self.n_iterations

    def initial(self) -> list[Suggestion]:
        """Return the initial design: distinct configs, fewer when the space has no more."""
        points = itertools.islice(new_configs(self.space, self.seed, set()), self.n_initial_trials)
        return [Suggestion(trial, params, info={"source": "initial design"}) for trial, params in enumerate(points)]

    def suggest(
        self, finished: Sequence[CompletedTrial], active: Sequence[ActiveTrial], count: int
    ) -> list[Suggestion]:
        """Return the next suggestions, numbered after the known trials.

        Args:
            finished: The finished trials of the sweep, in any order. What a state means: a failed trial, and one
                that succeeded without a finite value, counts as the worst value seen; a stopped one as a noisy
                observation of its value, and as nothing without one; a skipped one as nothing. None of them is
                proposed again.
            active: The trials without a result, the pending points.
            count: Suggestions wanted. Fewer come when the sweep's total is reached or the space is exhausted.
        """
        first = 1 + max((trial.trial for trial in (*finished, *active)), default=-1)
        numbers = range(first, min(first + count, self.total))
        design = [suggestion for suggestion in self.initial() if suggestion.trial in numbers]
        rest = numbers[len(design) :]
        if not rest:
            return design
        history = _History.of(self, finished, active)
        pending = history.evolve_pending(design)
        return [*design, *_propose(self, pending, rest)]

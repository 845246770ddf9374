"""Bayesian optimisation: a Gaussian process over the trials so far says which config to try next.

Every suggestion is a pure function of (space, settings, finished trials, active trials, seed): nothing is kept
between calls, so each task of a sweep can rebuild the algorithm from the records of the trials.

======= ======================================================================================================
step    what happens
======= ======================================================================================================
design  the first ``n_initial_trials`` configs come from a scrambled Sobol sequence, decoded by the space
encode  configs become points x of the unit cube (columns by parameter), outcomes become y (``outcomes``)
fit     ``gaussian_process.fit``: theta by maximum a posteriori
pending the outcomes of active trials are drawn from the model several times, and the acquisition function is
        averaged over these fantasies (Snoek, Larochelle and Adams, Practical Bayesian Optimization of Machine
        Learning Algorithms, 2012, section 3.2), so that the places of active trials promise nothing more
search  ``maximizer.maximize`` of the acquisition function; the incumbent is the best posterior mean at an observed
        point, since with noise the best observation is luck
settle  where ucb or poi choose a point whose outcome is known, the expected improvement chooses instead
dedupe  the best candidate whose config no trial has; a space without one is exhausted
======= ======================================================================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np  # noqa: TID253 - the Bayesian modules are where numpy lives
from attrs import field, frozen

from airflow_hptuning.search.acquisition import Acquisition
from airflow_hptuning.search.base import distinct_configs, stream
from airflow_hptuning.search.gaussian_process import GaussianProcessSettings, fit
from airflow_hptuning.search.maximizer import N_POLISH, N_WARMUP, axis_of, maximize, sobol
from airflow_hptuning.search.outcomes import OutcomeTransform
from airflow_hptuning.search.promise import promise_of, row_keys
from airflow_hptuning.trials import ActiveTrial, Suggestion, TrialState

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from airflow_hptuning.search.covariance import Array
    from airflow_hptuning.search.promise import Promise
    from airflow_hptuning.space.search_space import SearchSpace
    from airflow_hptuning.trials import CompletedTrial, Metric, Params

_EXTRA_NOISE = 0.1
"""Variance, in units of the outcome's, of observations that say less: stopped trials and those of earlier sweeps."""
_INCUMBENTS = 5
"""Around so many of the best observed points the maximiser looks closely."""
_SETTLED = 0.003
"""Below this posterior standard deviation, in those of the outcome, a trial would tell nothing that is not known."""
_DESIGN_POINTS = 2048
"""Length of the Sobol sequence, in which configs can repeat; after it configs are drawn or listed."""


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

    def suggestions(self, start: int, stop: int) -> list[Suggestion]:
        """Return the trials of the initial design from number ``start`` to before ``stop``; fewer in a small space."""
        return self.suggest([], [], min(stop, self.n_initial_trials))[start:]

    def suggestion(
        self, trial: int, finished: Sequence[CompletedTrial], active: Sequence[ActiveTrial]
    ) -> Suggestion | None:
        """Return the suggestion for a trial of a given number, or None when the space is exhausted.

        Args:
            trial: The number. It does not depend on how many trials are known: some may be lost.
            finished: As for ``suggest``.
            active: As for ``suggest``.
        """
        return next(iter(self._suggest(range(trial, trial + 1), finished, active)), None)

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
        known: list[CompletedTrial | ActiveTrial] = [*finished, *active]
        first = 1 + max((trial.trial for trial in known), default=-1)
        return self._suggest(range(first, min(first + count, self.total)), finished, active)

    def _suggest(
        self, numbers: range, finished: Sequence[CompletedTrial], active: Sequence[ActiveTrial]
    ) -> list[Suggestion]:
        known: list[CompletedTrial | ActiveTrial] = [*finished, *active]
        seen = {self.space.identity(trial.params) for trial in known if self.space.contains(trial.params)}
        designed = range(numbers.start, max(numbers.start, min(numbers.stop, self.n_initial_trials)))
        rest = range(designed.stop, numbers.stop)
        suggestions = self._design(designed, seen, {"source": "initial design"})
        if not rest or len(suggestions) < len(designed):
            return suggestions
        observed = self._observe(finished)
        if observed is None:
            return [*suggestions, *self._design(rest, seen, {"source": "random: no trial has a value yet"})]
        waiting = sorted(active, key=lambda trial: trial.trial)
        pending = [*waiting, *(ActiveTrial(one.trial, one.params) for one in suggestions)]
        return [*suggestions, *self._propose(observed, pending, rest, seen)]

    def _design(self, numbers: range, seen: set[Hashable], info: Mapping[str, Any]) -> list[Suggestion]:
        configs = new_configs(self.space, self.seed, seen)
        return [Suggestion(number, params, info=info) for number, params in zip(numbers, configs, strict=False)]

    def _observe(self, finished: Sequence[CompletedTrial]) -> Observations | None:
        """Return the data of the model; None as long as no trial has a value."""
        trials = [
            (trial, earlier)
            for earlier, group in ((True, self.earlier), (False, finished))
            for trial in sorted(group, key=lambda trial: trial.trial)
            if self.space.contains(trial.params) and _says_something(trial)
        ]
        finite = [_finite_value(trial) for trial, _ in trials]
        known = [value for value in finite if value is not None]
        if not known:
            return None
        sign = self.metric.direction.sign
        worst = min(known, key=lambda value: sign * value)
        values = [worst if value is None else value for value in finite]
        transform = OutcomeTransform.fit(values, sign)
        noisy = [earlier or trial.state is TrialState.STOPPED for trial, earlier in trials]
        return Observations(
            trials=tuple(trial.trial for trial, earlier in trials if not earlier),
            x=np.array([self.space.encode(trial.params) for trial, _ in trials]),
            y=transform.forward(values),
            noise=np.where(noisy, _EXTRA_NOISE, 0.0),
            transform=transform,
        )

    def _propose(
        self, observed: Observations, pending: Sequence[ActiveTrial], numbers: range, seen: set[Hashable]
    ) -> list[Suggestion]:
        """Return one suggestion per number, each taking those before it as pending."""
        rng = np.random.default_rng(stream(self.seed, "bayesian", numbers[0]).getrandbits(128))
        columns = [self.space.columns[name] for name in self.space.names]
        axes = [axis_of(parameter, part) for parameter, part in zip(self.space.parameters, columns, strict=True)]
        model = fit(observed.x, observed.y, columns, settings=self.gaussian_process, rng=rng, noise=observed.noise)
        means = model.predict(observed.x)[0]
        incumbents = observed.x[np.argsort(-means, kind="stable")[:_INCUMBENTS]]
        waiting = [trial for trial in pending if self.space.contains(trial.params)]
        blocked = observed.own_points
        suggestions: list[Suggestion] = []
        for number in numbers:
            places = np.array([self.space.encode(trial.params) for trial in waiting]).reshape(-1, observed.x.shape[1])
            taken = frozenset(row_keys(np.vstack([blocked, places])))
            for acquisition in self._acquisitions:
                promise = promise_of(
                    model, places, acquisition=acquisition, best=float(means.max()), blocked=taken, rng=rng
                )
                candidates = maximize(
                    promise, axes, incumbents, rng, n_warmup=self.n_warmup or N_WARMUP, n_polish=self.n_iter or N_POLISH
                )
                if not _is_settled(promise, candidates):
                    break
            params = self._first_new(candidates, seen)
            if params is None:
                break
            info = {
                "source": "model",
                "known": list(observed.trials),
                "pending": [trial.trial for trial in waiting],
                "length_scales": dict(zip(self.space.names, _rounded(model.length_scales), strict=True)),
                **self._prediction(promise, observed.transform, params),
            }
            suggestions.append(Suggestion(number, params, info=info))
            waiting.append(ActiveTrial(number, params))
        return suggestions

    @property
    def _acquisitions(self) -> tuple[Acquisition, ...]:
        """The acquisition function, and what takes its place where it is settled.

        Confidence bound and probability of improvement stay at a maximum that is known to all digits: the rest of the
        sweep would repeat one trial. The expected improvement goes elsewhere by itself.
        """
        return (
            (self.acquisition, Acquisition("auto")) if self.acquisition.kind in {"ucb", "poi"} else (self.acquisition,)
        )

    def _first_new(self, candidates: Array, seen: set[Hashable]) -> Params | None:
        """Return the best config that no trial has, any new one when the candidates have none, or None."""
        for candidate in candidates:
            params = self.space.decode(candidate.tolist())
            identity = self.space.identity(params)
            if identity not in seen:
                seen.add(identity)
                return params
        return next(new_configs(self.space, self.seed, seen), None)

    def _prediction(self, promise: Promise, transform: OutcomeTransform, params: Params) -> dict[str, Any]:
        """Return what the model expects of a config, in the metric's unit.

        The transform need not be linear: its mean is a median there, and half the width of one standard deviation
        to either side stands for the standard deviation.
        """
        point = np.array([self.space.encode(params)])
        mean, std = promise.posterior.predict(point)
        mean = mean.reshape(1, -1).mean(axis=1)
        centre, *ends = transform.inverse(np.concatenate([mean, mean - std, mean + std]))
        score = float(promise.averages(point)[0])
        value = score if promise.acquisition.kind == "ucb" else math.exp(score)
        return {
            "predicted": {"mean": float(centre), "std": float(abs(ends[1] - ends[0]) / 2.0)},
            "acquisition": {"function": promise.acquisition.kind, "value": value},
        }


@frozen(eq=False)
class Observations:
    """What the model is fitted to.

    Attributes:
        trials: Numbers of the trials of this sweep among them.
        x: Encoded configs, those of earlier sweeps first, shape (n, d).
        y: Standardised outcomes, shape (n,).
        noise: Extra variance, shape (n,).
        transform: From metric values to y.
    """

    trials: tuple[int, ...]
    x: Array
    y: Array
    noise: Array
    transform: OutcomeTransform

    @property
    def own_points(self) -> Array:
        """The points of this sweep's trials."""
        return self.x[len(self.x) - len(self.trials) :]


def _is_settled(promise: Promise, candidates: Array) -> bool:
    """Whether the best candidate is a point whose outcome the model knows: all but a duplicate of what was tried."""
    return bool(len(candidates)) and float(promise.posterior.predict(candidates[:1])[1][0]) < _SETTLED


def new_configs(space: SearchSpace, seed: int | str, seen: set[Hashable]) -> Iterator[Params]:
    """Yield configs that are not in ``seen``, which grows by them: a Sobol design, then whatever the space has left.

    Args:
        space: The search space.
        seed: Seed of the sweep.
        seen: Identities of configs that are not wanted.
    """
    rng = np.random.default_rng(stream(seed, "bayesian", "design").getrandbits(128))
    for point in sobol(_DESIGN_POINTS, space.dimensions, rng):
        params = space.decode(point.tolist())
        identity = space.identity(params)
        if identity not in seen:
            seen.add(identity)
            yield params
    yield from distinct_configs(space, stream(seed, "bayesian", "rest"), seen)


def _says_something(trial: CompletedTrial) -> bool:
    """Whether a trial is an observation: it was stopped with a value, it succeeded, or it failed."""
    if trial.state is TrialState.STOPPED:
        return _finite_value(trial) is not None
    return trial.state in {TrialState.SUCCEEDED, TrialState.FAILED}


def _finite_value(trial: CompletedTrial) -> float | None:
    """Return the value that counts; None for a failed trial, whatever it reported before."""
    if trial.state is TrialState.FAILED or trial.value is None or not math.isfinite(trial.value):
        return None
    return float(trial.value)


def _rounded(values: Array) -> list[float]:
    return [float(f"{value:.4g}") for value in values]

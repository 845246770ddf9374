"""Hyperband: random configs, evaluated with little at first; the best of each rung go on with more."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen

from airflow_hptuning.search.base import count_distinct, distinct_configs, stream, unknown
from airflow_hptuning.search.schedule import (
    Bracket,
    ResourceType,
    Rung,
    exact_factor,
    schedule,
    schedule_warnings,
)
from airflow_hptuning.trials import (
    ActiveTrial,
    CompletedTrial,
    Direction,
    Metric,
    Suggestion,
    TrialState,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence
    from fractions import Fraction

    from airflow_hptuning.space.search_space import SearchSpace

__all__ = ["Bracket", "Hyperband", "Rung", "rank", "schedule"]

_RANKED = {TrialState.SUCCEEDED, TrialState.STOPPED}


def has_value(trial: CompletedTrial) -> bool:
    """Whether a trial can be ranked: it did not fail, and its value is a finite number."""
    return trial.state in _RANKED and trial.value is not None and math.isfinite(trial.value)


def rank(trials: Iterable[CompletedTrial], direction: Direction) -> list[CompletedTrial]:
    """Return trials from the best to the worst.

    Trials that failed or have no finite value come last, and equals in the order of their numbers, so that the
    order of the trials does not matter.
    """

    def key(trial: CompletedTrial) -> tuple[bool, float, int]:
        value = trial.value if has_value(trial) else None
        return (value is None, 0.0 if value is None else -direction.sign * value, trial.trial)

    return sorted(trials, key=key)


@frozen(slots=False)
class Hyperband:
    """Brackets of successive halving, which can run side by side.

    Trials have fixed numbers: those of a bracket follow each other rung by rung, and a promoted config gets the
    number of its rank in the new rung.

    Attributes:
        space: Where to draw.
        max_resource: What a config gets at most.
        reduction_factor: One of so many configs survives a rung; more than 1.
        resource_type: Whether resources are whole numbers.
        metric: What rungs are ranked by.
        seed: Seed of the sweep; each bracket has a random stream of its own.
    """

    name: ClassVar[str] = "hyperband"

    space: SearchSpace
    max_resource: int
    reduction_factor: Fraction = field(converter=exact_factor)
    resource_type: ResourceType
    metric: Metric
    seed: int | str

    @cached_property
    def brackets(self) -> tuple[Bracket, ...]:
        """The schedule, the deepest bracket first, no rung larger than the space."""
        settings = (self.max_resource, self.reduction_factor, self.resource_type)
        full = schedule(*settings)
        largest = full[0].rungs[0].trials
        limit = count_distinct(self.space, stream(self.seed, "hyperband", "limit"), largest)
        return full if limit == largest else schedule(*settings, limit=limit)

    def warnings(self) -> list[tuple[str, str]]:
        """Return what was changed in the schedule, as pairs of message and hint."""
        return schedule_warnings(self.brackets)

    def bracket(self, number: int) -> Bracket:
        """Return the bracket with a number."""
        for bracket in self.brackets:
            if bracket.bracket == number:
                return bracket
        raise ValueError(f"there is no bracket {number}")

    @cached_property
    def _configs(self) -> dict[int, list[dict[str, Any]]]:
        """First configs of each bracket: none twice in a bracket, nor in two unless the space is too small."""
        seen: set[Hashable] = set()
        configs = {}
        for bracket in self.brackets:
            count = bracket.rungs[0].trials
            rng = stream(self.seed, "hyperband", bracket.bracket)
            fresh = list(islice(distinct_configs(self.space, rng, seen), count))
            if len(fresh) < count:
                own = {self.space.identity(config) for config in fresh}
                again = stream(self.seed, "hyperband", bracket.bracket, "again")
                fresh += islice(distinct_configs(self.space, again, own), count - len(fresh))
            configs[bracket.bracket] = fresh
        return configs

    def initial(self, bracket: int, rung_trials: int | None = None) -> list[Suggestion]:
        """Return the trials of a bracket's first rung.

        Args:
            bracket: Number of the bracket.
            rung_trials: How many of them at most; default: all.
        """
        own = self.bracket(bracket)
        return [
            Suggestion(own.first_trial + index, config, own.rungs[0].resource, bracket, 0)
            for index, config in enumerate(self._configs[bracket][:rung_trials])
        ]

    def promote(self, bracket: int, rung: int, results: Sequence[CompletedTrial]) -> list[Suggestion]:
        """Return the trials of the next rung: the best of a rung, with more resource.

        Args:
            bracket: Number of the bracket.
            rung: The rung that has ended.
            results: Its trials in any order; trials of other rungs are left out of account. Those that failed or
                have no value are not promoted, even if places stay free.
        """
        own = self.bracket(bracket)
        if rung + 1 >= len(own.rungs):
            return []
        following = own.rungs[rung + 1]
        numbers = range(own.offset(rung), own.offset(rung + 1))
        # One trial per number, whichever of a repeated one ranks first.
        ranked = {
            trial.trial: trial
            for trial in reversed(rank(results, self.metric.direction))
            if trial.trial in numbers and has_value(trial)
        }
        best = rank(ranked.values(), self.metric.direction)[: following.trials]
        return [
            Suggestion(own.offset(rung + 1) + place, trial.params, following.resource, bracket, rung + 1)
            for place, trial in enumerate(best)
        ]

    def suggest(
        self, finished: Sequence[CompletedTrial], active: Sequence[ActiveTrial], count: int
    ) -> list[Suggestion]:
        """Return trials that can start now, those of deeper brackets first."""
        by_number = {trial.trial: trial for trial in finished}
        ready = chain.from_iterable(self._ready(bracket.bracket, by_number) for bracket in self.brackets)
        return unknown(ready, finished, active, count)

    def _ready(self, bracket: int, finished: dict[int, CompletedTrial]) -> Iterator[Suggestion]:
        """Yield the trials of the rungs that have begun."""
        trials, rung = self.initial(bracket), 0
        while trials:
            yield from trials
            if not all(trial.trial in finished for trial in trials):
                return
            trials = self.promote(bracket, rung, [finished[trial.trial] for trial in trials])
            rung += 1

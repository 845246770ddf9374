"""Random search: configs drawn from the space, none twice."""

from __future__ import annotations

from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from airflow_hptuning.search.base import count_distinct, distinct_configs, stream, unknown
from airflow_hptuning.trials import ActiveTrial, CompletedTrial, Suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_hptuning.space.search_space import SearchSpace


@frozen(slots=False)
class RandomSearch:
    """Distinct random configs, or the whole space in random order when it has no more.

    A trial depends on the space, the seed and its own number only: not on ``n_experiments``.

    Attributes:
        space: Where to draw.
        n_experiments: How many configs to try at most.
        seed: Seed of the sweep.
    """

    name: ClassVar[str] = "random"

    space: SearchSpace
    n_experiments: int
    seed: int | str

    def __attrs_post_init__(self) -> None:
        if self.n_experiments < 1:
            raise ValueError(f"`n_experiments` must be at least 1, not {self.n_experiments}")

    @cached_property
    def total(self) -> int:
        """Number of trials."""
        return count_distinct(self.space, stream(self.seed, "random"), self.n_experiments)

    def suggestions(self, start: int = 0, stop: int | None = None) -> list[Suggestion]:
        """Return the trials from number ``start`` to before ``stop`` (default: to the end)."""
        stop = self.n_experiments if stop is None else min(stop, self.n_experiments)
        return list(islice(self._suggestions(), max(start, 0), max(stop, 0)))

    def _suggestions(self) -> Iterator[Suggestion]:
        configs = distinct_configs(self.space, stream(self.seed, "random"))
        for trial, config in enumerate(islice(configs, self.n_experiments)):
            yield Suggestion(trial, config)

    def suggest(
        self, finished: Sequence[CompletedTrial], active: Sequence[ActiveTrial], count: int
    ) -> list[Suggestion]:
        """Return the next trials that have not started."""
        return unknown(self._suggestions(), finished, active, count)

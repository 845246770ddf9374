"""Grid search: all configs of a listed space, in the order of the file, the last parameter varying fastest."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.search.base import unknown
from airflow_hptuning.trials import ActiveTrial, CompletedTrial, Suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_hptuning.space.search_space import SearchSpace


@frozen(slots=False)
class GridSearch:
    """All configs of a space, or the first of them. The grid is never built: a config follows from its number.

    Attributes:
        space: A space without distributions.
        n_experiments: How many configs to try at most; None for all.
    """

    name: ClassVar[str] = "grid"

    space: SearchSpace = field()
    n_experiments: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.n_experiments is not None and self.n_experiments < 1:
            raise ValueError(f"`n_experiments` must be at least 1, not {self.n_experiments}")
        for parameter in self.space.parameters:
            if parameter.is_distribution:
                raise SearchSpaceError(
                    f"`{parameter.name}` defines a distribution, and it cannot be used with grid search",
                    "Use `random_search`, or list the values.",
                )

    @cached_property
    def total(self) -> int:
        """Number of trials."""
        size = self.space.size or 0
        return size if self.n_experiments is None else min(size, self.n_experiments)

    def suggestions(self, start: int = 0, stop: int | None = None) -> list[Suggestion]:
        """Return the trials from number ``start`` to before ``stop`` (default: to the end)."""
        return list(self._suggestions(start, self.total if stop is None else stop))

    def _suggestions(self, start: int, stop: int) -> Iterator[Suggestion]:
        for trial in range(max(start, 0), min(stop, self.total)):
            yield Suggestion(trial, self.space.point(trial))

    def suggest(
        self, finished: Sequence[CompletedTrial], active: Sequence[ActiveTrial], count: int
    ) -> list[Suggestion]:
        """Return the next trials that have not started."""
        return unknown(self._suggestions(0, self.total), finished, active, count)

"""What search algorithms share: their interface, random streams, and drawing configs that differ."""

from __future__ import annotations

import hashlib
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from airflow_hptuning.space.search_space import SearchSpace
    from airflow_hptuning.trials import ActiveTrial, CompletedTrial, Suggestion


class SearchAlgorithm(Protocol):
    """A search algorithm without memory.

    It may be rebuilt at every request, in another process: a suggestion is a function of the algorithm's settings
    and of the trials it is shown, and asking for it changes nothing.
    """

    @property
    def name(self) -> str:
        """``grid``, ``random``, ``hyperband`` or ``bo``."""

    def suggest(
        self, finished: Sequence[CompletedTrial], active: Sequence[ActiveTrial], count: int
    ) -> list[Suggestion]:
        """Return at most ``count`` trials that can start now; none when the search is over or has to wait.

        Args:
            finished: All trials that have ended, in any order.
            active: All trials that have been suggested and have not ended.
            count: How many trials are wanted.
        """


@runtime_checkable
class Batched(Protocol):
    """A search algorithm of which some or all trials are known by their numbers alone."""

    def suggestions(self, start: int, stop: int) -> list[Suggestion]:
        """Return the trials from number ``start`` to before ``stop``, fewer where there are no more."""


def stream(seed: int | str, *names: int | str) -> Random:
    """Return the random stream of a purpose: the same in every process, independent of all other purposes.

    Args:
        seed: Seed of the sweep; 0 is a seed like any other.
        names: What the stream is for, such as ``("hyperband", 3)``.
    """
    words = [f"{type(word).__name__}:{len(str(word))}:{word}" for word in (seed, *names)]
    digest = hashlib.sha256("".join(words).encode()).digest()
    return Random(int.from_bytes(digest))  # noqa: S311 - a search is no secret


_MOST_REDRAWS = 100
"""Repeated draws in a row before the configs left are listed instead."""

_MOST_REDRAWS_UNBOUNDED = 1000
"""The same where they cannot be listed, and drawing just ends."""


def distinct_configs(space: SearchSpace, rng: Random, seen: set[Hashable] | None = None) -> Iterator[dict[str, Any]]:
    """Draw configs, none twice, until the space is exhausted. Always ends on a finite space.

    Args:
        space: Where to draw.
        rng: The random stream; the configs depend on nothing else, so that fewer are a prefix of more.
        seen: Identities of configs that are not wanted; those drawn are added.
    """
    seen = set() if seen is None else seen
    if space.is_listed:
        # All configs are equally likely, so that their order is a permutation.
        draws = (space.point(index) for index in permutation(space.size or 0, rng))
        yield from _unseen(space, draws, seen)
        return
    yield from _redrawn(space, rng, seen)
    if space.n_distinct is not None:
        # What is left has little probability; its order is of no consequence.
        draws = (space.support_point(index) for index in permutation(space.n_distinct, rng))
        yield from _unseen(space, draws, seen)


def _unseen(space: SearchSpace, configs: Iterable[dict[str, Any]], seen: set[Hashable]) -> Iterator[dict[str, Any]]:
    for config in configs:
        identity = space.identity(config)
        if identity not in seen:
            seen.add(identity)
            yield config


def _redrawn(space: SearchSpace, rng: Random, seen: set[Hashable]) -> Iterator[dict[str, Any]]:
    most = _MOST_REDRAWS if space.n_distinct is not None else _MOST_REDRAWS_UNBOUNDED
    while True:
        draws = (space.sample(rng) for _ in range(most))
        config = next(_unseen(space, draws, seen), None)
        if config is None:
            return
        yield config


def permutation(size: int, rng: Random) -> Iterator[int]:
    """Yield the numbers below ``size`` in random order, one at a time: a shuffle that keeps only what it moved."""
    moved: dict[int, int] = {}
    for index in range(size):
        other = rng.randrange(index, size)
        yield moved.get(other, other)
        moved[other] = moved.pop(index, index)


def count_distinct(space: SearchSpace, rng: Random, most: int) -> int:
    """Return how many of ``most`` wanted configs a space can give."""
    if space.is_dense:
        return most
    if space.n_distinct is not None:
        return min(space.n_distinct, most)
    return sum(1 for _ in islice(distinct_configs(space, rng), most))


def unknown(
    suggestions: Iterable[Suggestion],
    finished: Sequence[CompletedTrial],
    active: Sequence[ActiveTrial],
    count: int,
) -> list[Suggestion]:
    """Return the first ``count`` suggestions whose trials have not started."""
    known = {trial.trial for trial in finished} | {trial.trial for trial in active}
    return list(islice((one for one in suggestions if one.trial not in known), max(count, 0)))

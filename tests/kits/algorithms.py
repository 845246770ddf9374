"""What every search algorithm must do, as checks of a factory.

A factory builds an algorithm from a space, a seed and the direction of its objective. The kit runs whole searches
against an objective of its own, some trials failing, and looks at every suggestion on the way.
"""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING, Any, Protocol

from airflow_hptuning.trials import ActiveTrial, CompletedTrial, Direction, Suggestion, TrialState, config_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_hptuning.search.base import SearchAlgorithm
    from airflow_hptuning.space.search_space import SearchSpace
    from airflow_hptuning.trials import Params


class Factory(Protocol):
    """Builds the algorithm under test."""

    def __call__(self, space: SearchSpace, seed: int, direction: Direction) -> SearchAlgorithm:
        """Return a fresh algorithm."""


def objective(params: Params) -> float:
    """Return a number that depends on the values only, without any pattern."""
    digest = hashlib.sha256(config_id(params).encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32


def fails(suggestion: Suggestion) -> bool:
    """Whether the kit lets a trial fail: about one in eight, by its number and config."""
    digest = hashlib.sha256(f"{suggestion.trial} {suggestion.config_id}".encode()).digest()
    return digest[0] < 32


def run(
    algorithm: SearchAlgorithm,
    *,
    concurrency: int = 3,
    sign: int = 1,
    most: int = 500,
    failing: Callable[[Suggestion], bool] = fails,
) -> tuple[list[Suggestion], list[CompletedTrial]]:
    """Run a search to its end and return all suggestions in order, and all results.

    The trial that was started first ends first. After every end the algorithm is asked for the free places.
    """
    finished: list[CompletedTrial] = []
    active: list[Suggestion] = []
    suggested: list[Suggestion] = []
    while len(suggested) <= most:
        free = concurrency - len(active)
        fresh = algorithm.suggest(finished, [ActiveTrial(one.trial, one.params) for one in active], free)
        assert len(fresh) <= free
        active += fresh
        suggested += fresh
        if not active:
            return suggested, finished
        finished.append(finish(active.pop(0), sign=sign, failing=failing))
    raise AssertionError(f"the search did not end after {most} trials")


def finish(suggestion: Suggestion, *, sign: int = 1, failing: Callable[[Suggestion], bool] = fails) -> CompletedTrial:
    """Return the result of a trial by the objective of the kit."""
    failed = failing(suggestion)
    return CompletedTrial(
        suggestion.trial,
        suggestion.params,
        None if failed else sign * objective(suggestion.params),
        TrialState.FAILED if failed else TrialState.SUCCEEDED,
        suggestion.resource,
        suggestion.bracket,
        suggestion.rung,
    )


def check_suggestions_are_valid(factory: Factory, space: SearchSpace) -> None:
    """Every suggestion is a config of the space with a number of its own, and survives JSON."""
    suggested, _ = run(factory(space, 1, Direction.MAXIMIZE))
    assert suggested
    assert len({one.trial for one in suggested}) == len(suggested)
    assert min(one.trial for one in suggested) == 0
    for one in suggested:
        assert space.contains(one.params)
        assert list(one.params) == list(space.names)
        assert Suggestion.from_json(json.loads(json.dumps(one.to_json()))) == one


def check_searches_end(factory: Factory, space: SearchSpace) -> None:
    """A search ends at any concurrency, also when every trial fails or none does."""
    for concurrency in (1, 7):
        run(factory(space, 1, Direction.MAXIMIZE), concurrency=concurrency)
    run(factory(space, 1, Direction.MAXIMIZE), failing=lambda _: True)
    run(factory(space, 1, Direction.MAXIMIZE), failing=lambda _: False)


def check_suggesting_changes_nothing(factory: Factory, space: SearchSpace) -> None:
    """A suggestion is a function of what is shown: asking again, or asking a rebuilt algorithm, gives the same."""
    algorithm = factory(space, 2, Direction.MAXIMIZE)
    first = algorithm.suggest([], [], 4)
    finished = [finish(one) for one in first[:2]]
    active = [ActiveTrial(one.trial, one.params) for one in first[2:]]
    before = (list(finished), list(active))
    once = algorithm.suggest(finished, active, 3)
    assert algorithm.suggest(finished, active, 3) == once
    assert factory(space, 2, Direction.MAXIMIZE).suggest(finished, active, 3) == once
    assert (finished, active) == before


def check_order_does_not_matter(factory: Factory, space: SearchSpace) -> None:
    """The order in which trials are shown changes no suggestion."""
    algorithm = factory(space, 3, Direction.MAXIMIZE)
    _, results = run(algorithm)
    part = results[: max(1, len(results) // 2)]
    shuffled = list(part)
    random.Random(0).shuffle(shuffled)  # noqa: S311 - a test is no secret
    assert algorithm.suggest(part, [], 3) == algorithm.suggest(shuffled, [], 3)


def check_known_trials_are_not_repeated(factory: Factory, space: SearchSpace) -> None:
    """No suggestion has the number of a trial that was shown."""
    algorithm = factory(space, 4, Direction.MAXIMIZE)
    first = algorithm.suggest([], [], 5)
    finished, active = [finish(one) for one in first[:2]], [ActiveTrial(one.trial, one.params) for one in first[2:]]
    again = algorithm.suggest(finished, active, 5)
    assert not {one.trial for one in first} & {one.trial for one in again}


def check_no_place_no_suggestion(factory: Factory, space: SearchSpace) -> None:
    """Asking for none gives none."""
    assert factory(space, 5, Direction.MAXIMIZE).suggest([], [], 0) == []


def check_directions_mirror(factory: Factory, space: SearchSpace) -> None:
    """Maximising x and minimising -x is the same search."""
    up, _ = run(factory(space, 6, Direction.MAXIMIZE), sign=1)
    down, _ = run(factory(space, 6, Direction.MINIMIZE), sign=-1)
    assert [(one.trial, one.params) for one in up] == [(one.trial, one.params) for one in down]


def check_configs_differ(factory: Factory, space: SearchSpace) -> None:
    """No config is tried twice, other than by promotion."""
    suggested, _ = run(factory(space, 7, Direction.MAXIMIZE))
    started = [space.identity(one.params) for one in suggested if not one.rung]
    limit = space.n_distinct
    # Quantised normal kinds have an unknown, often small, number of values.
    may_repeat = not space.is_dense and (limit is None or limit < len(started))
    assert may_repeat or len(set(started)) == len(started)


CHECKS: Sequence[Callable[[Factory, Any], None]] = (
    check_suggestions_are_valid,
    check_searches_end,
    check_suggesting_changes_nothing,
    check_order_does_not_matter,
    check_known_trials_are_not_repeated,
    check_no_place_no_suggestion,
    check_directions_mirror,
    check_configs_differ,
)

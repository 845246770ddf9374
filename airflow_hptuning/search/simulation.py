"""How long a Hyperband schedule takes: bounds, and a simulation on a number of slots.

A trial takes as long as its resource, in the unit of the file. With ``resume`` a promoted config goes on from its
checkpoint and takes only what is added.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_hptuning.search.schedule import Bracket


@frozen
class CriticalPath:
    """What no number of slots can beat.

    Attributes:
        chain: Resource of the longest chain of trials that wait for each other.
        work: Resource of all trials.
    """

    chain: float
    work: float

    def bound(self, concurrency: int) -> float:
        """Return the time below which no order of the trials can get on so many slots."""
        return max(self.chain, self.work / concurrency)


def critical_path(brackets: Sequence[Bracket], *, sequential: bool = False, resume: bool = False) -> CriticalPath:
    """Return the longest chain of resources and the total work of a schedule.

    Args:
        brackets: The schedule.
        sequential: Whether each bracket waits for the one before.
        resume: Whether promoted configs go on from their checkpoints.
    """
    chains = [float(sum(times)) for _, times in _rungs(brackets, resume=resume)]
    work = sum(
        count * time
        for counts, times in _rungs(brackets, resume=resume)
        for count, time in zip(counts, times, strict=True)
    )
    return CriticalPath(sum(chains) if sequential else max(chains), float(work))


def makespan(brackets: Sequence[Bracket], concurrency: int, *, sequential: bool = False, resume: bool = False) -> float:
    """Return how long a schedule takes on so many slots, rungs being barriers and deeper brackets going first.

    Args:
        brackets: The schedule, the deepest bracket first.
        concurrency: Number of slots, at least 1.
        sequential: Whether each bracket waits for the one before.
        resume: Whether promoted configs go on from their checkpoints.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    if sequential:
        return sum(_simulate([bracket], concurrency, resume=resume) for bracket in brackets)
    return _simulate(brackets, concurrency, resume=resume)


def _rungs(brackets: Sequence[Bracket], *, resume: bool) -> list[tuple[list[int], list[float]]]:
    """Return the number of trials and the time of one trial for each rung of each bracket."""
    timed = []
    for bracket in brackets:
        resources = [rung.resource for rung in bracket.rungs]
        spent = [0, *resources[:-1]] if resume else [0] * len(resources)
        times = [float(resource - before) for resource, before in zip(resources, spent, strict=True)]
        timed.append(([rung.trials for rung in bracket.rungs], times))
    return timed


def _simulate(brackets: Sequence[Bracket], concurrency: int, *, resume: bool) -> float:
    timed = _rungs(brackets, resume=resume)
    rung = [0] * len(timed)
    waiting = [counts[0] for counts, _ in timed]
    left = list(waiting)
    running: list[tuple[float, int]] = []
    now = 0.0
    while True:
        for index, (_, times) in enumerate(timed):
            while waiting[index] and len(running) < concurrency:
                waiting[index] -= 1
                heapq.heappush(running, (now + times[rung[index]], index))
        if not running:
            return now
        now, index = heapq.heappop(running)
        left[index] -= 1
        if not left[index] and rung[index] + 1 < len(timed[index][0]):
            rung[index] += 1
            waiting[index] = left[index] = timed[index][0][rung[index]]

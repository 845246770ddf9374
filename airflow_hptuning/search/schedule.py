"""The schedule of Hyperband: how many configs each rung of each bracket evaluates, and with how much.

Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar: Hyperband, JMLR 18 (2018), algorithm 1, in exact arithmetic::

    R        max_resource: what a config gets at most
    η        reduction_factor: one of η configs survives a rung
    s_max    largest s with η^s ≤ R
    s        bracket, from s_max (many configs, little each) to 0 (few configs, R each)
    n_s      configs that bracket s starts with: ceil((s_max+1)·η^s / (s+1)), as Polyaxon computed them
    rung i   floor(n_s·η^-i) configs with R·η^(i-s) each; an integer resource is rounded down

For R = 81 and η = 3 the brackets start with 81, 34, 15, 8 and 5 configs; 206 trials in all.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

if TYPE_CHECKING:
    from decimal import Decimal

ResourceType = Literal["int", "float"]

_MOST_BRACKETS = 100
"""More come only from a reduction factor next to 1, and help nobody."""


@frozen
class Rung:
    """The trials of a bracket that share a resource.

    Attributes:
        rung: Number in its bracket, from 0.
        trials: How many configs are evaluated at most.
        resource: What each of them gets.
    """

    rung: int
    trials: int
    resource: int | float


@frozen
class Bracket:
    """One run of successive halving, independent of the other brackets.

    Attributes:
        bracket: Its number s; the deepest has the most rungs.
        rungs: From the most configs with the least resource to the fewest with all of it.
        first_trial: Number of its first trial in the sweep.
        planned: What the formulas give, before rungs were merged or cut to the size of the space.
    """

    bracket: int
    rungs: tuple[Rung, ...]
    first_trial: int
    planned: tuple[Rung, ...] = field(default=(), eq=False, repr=False)

    @property
    def trials(self) -> int:
        """Number of trials in all rungs."""
        return sum(rung.trials for rung in self.rungs)

    def offset(self, rung: int) -> int:
        """Return the number of the first trial of a rung in the sweep."""
        return self.first_trial + sum(one.trials for one in self.rungs[:rung])


def exact_factor(reduction_factor: float | str | Decimal | Fraction) -> Fraction:
    """Return a reduction factor as it was written: 2.9 is 29/10, not its binary neighbour."""
    return Fraction(repr(reduction_factor) if isinstance(reduction_factor, float) else reduction_factor)


def deepest_bracket(max_resource: int, factor: Fraction) -> int:
    """Return the largest s with ``factor ** s <= max_resource``; logarithms of floats get 243/3 wrong."""
    bracket, power = 0, factor
    while power <= max_resource:
        bracket += 1
        power *= factor
        if bracket > _MOST_BRACKETS:
            raise ValueError(f"a reduction factor of {float(factor):g} gives more than {_MOST_BRACKETS} brackets")
    return bracket


def schedule(
    max_resource: int,
    reduction_factor: float | str | Decimal | Fraction,
    resource_type: ResourceType = "float",
    *,
    limit: int | None = None,
) -> tuple[Bracket, ...]:
    """Return the brackets of Hyperband, the deepest first, with their trials numbered through.

    Args:
        max_resource: R, what a config gets at most; at least 1.
        reduction_factor: η, more than 1; need not be whole.
        resource_type: Whether resources are whole numbers.
        limit: How many different configs the space has, if no rung can be larger.

    Raises:
        ValueError: When the settings make no schedule.
    """
    factor = exact_factor(reduction_factor)
    if max_resource < 1:
        raise ValueError(f"the maximum resource must be at least 1, not {max_resource}")
    if factor <= 1:
        raise ValueError(f"the reduction factor must be more than 1, not {float(factor):g}")
    deepest = deepest_bracket(max_resource, factor)
    brackets: list[Bracket] = []
    first_trial = 0
    for number in range(deepest, -1, -1):
        start = math.ceil((deepest + 1) * factor**number / Fraction(number + 1))
        resources = [_cast(max_resource * factor ** (rung - number), resource_type) for rung in range(number + 1)]
        planned = _rungs(start, factor, resources)
        reachable = planned if limit is None else _rungs(min(start, limit), factor, resources)
        bracket = Bracket(number, _merge(reachable), first_trial, planned)
        brackets.append(bracket)
        first_trial += bracket.trials
    return tuple(brackets)


def _cast(resource: Fraction, resource_type: ResourceType) -> int | float:
    # η^s ≤ R, so that no resource is less than 1.
    return math.floor(resource) if resource_type == "int" else float(resource)


def _rungs(start: int, factor: Fraction, resources: list[int | float]) -> tuple[Rung, ...]:
    return tuple(
        # A space smaller than the schedule still sends its best config to the top.
        Rung(number, max(1, math.floor(start / factor**number)), resource)
        for number, resource in enumerate(resources)
    )


def _merge(rungs: tuple[Rung, ...]) -> tuple[Rung, ...]:
    """Drop rungs that tell nothing: one with the resource of the rung before, one that promotes all its trials."""
    kept: list[Rung] = []
    for rung in rungs:
        if kept and kept[-1].resource == rung.resource:
            continue
        if kept and kept[-1].trials == rung.trials:
            kept.pop()
        kept.append(rung)
    return tuple(Rung(number, rung.trials, rung.resource) for number, rung in enumerate(kept))


def schedule_warnings(brackets: tuple[Bracket, ...]) -> list[tuple[str, str]]:
    """Return what was changed in a schedule, as pairs of message and hint."""
    found = []
    cut = [bracket for bracket in brackets if bracket.rungs[0].trials < bracket.planned[0].trials]
    merged = [bracket for bracket in brackets if len(bracket.rungs) < len(bracket.planned) and bracket not in cut]
    if cut:
        first = cut[0]
        message = (
            f"the search space has fewer configs than bracket {first.bracket} starts with:"
            f" {first.rungs[0].trials} trials rather than {first.planned[0].trials}"
        )
        found.append((message, "Smaller rungs follow; a larger space makes better use of Hyperband."))
    if merged:
        numbers = ", ".join(str(bracket.bracket) for bracket in merged)
        message = f"rungs that differ in nothing are merged in bracket{'s' * (len(merged) > 1)} {numbers}"
        found.append((message, "A larger `eta` spaces the rungs."))
    return found

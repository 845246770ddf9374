"""Parameters that list their values: ``values`` and ``pvalues``."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections import Counter
from copy import deepcopy
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

from attrs import field, frozen

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.base import Parameter, unit_of
from airflow_hptuning.space.notation import is_number, show, to_number

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from random import Random

_DEEPEST = 20
"""Levels of nesting in one value; YAML aliases can even nest a list in itself."""

_LOG_RATIO = 10
"""Numbers that span less are not worth a logarithmic scale."""

_MASS_TOLERANCE = 1e-6


def _as_tuple(items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(items)


@frozen(slots=False)
class _Listed(Parameter):
    """A parameter that lists its values.

    Attributes:
        items: The values, each once, as the file holds them.
        notes: Warnings from reading the file; they do not make two parameters different.
    """

    items: tuple[Any, ...] = field(converter=_as_tuple, hash=False)
    notes: tuple[tuple[str, str], ...] = field(default=(), eq=False, repr=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.items:
            raise SearchSpaceError(f"`{self.kind}` is empty", "List at least one value.")
        _check_items(self.kind, self.items)

    @property
    def size(self) -> int:
        """Number of the listed values."""
        return len(self.items)

    @property
    def support(self) -> int:
        """Number of values that drawing can give."""
        return len(self._reachable)

    @cached_property
    def _reachable(self) -> tuple[int, ...]:
        return tuple(range(len(self.items)))

    @cached_property
    def is_categorical(self) -> bool:
        """Whether an item is no number; booleans are numbers among themselves."""
        booleans = sum(isinstance(item, bool) for item in self.items)
        numbers = sum(is_number(item) for item in self.items)
        return len(self.items) not in (booleans, numbers)

    @property
    def low(self) -> float | None:
        """Smallest number; None for categories."""
        return None if self.is_categorical else min(self.items[index] for index in self._reachable)

    @property
    def high(self) -> float | None:
        """Largest number; None for categories."""
        return None if self.is_categorical else max(self.items[index] for index in self._reachable)

    @property
    def scale(self) -> str:
        """``log`` when the numbers are spread more evenly so, else ``linear``; or ``categorical``."""
        if self.is_categorical:
            return "categorical"
        return "log" if _is_geometric(self.items) else "linear"

    @property
    def dimensions(self) -> int:
        """One column per item for categories, else one."""
        return len(self.items) if self.is_categorical else 1

    def value_at(self, index: int) -> Any:
        """Return the item with an index."""
        item = self.items[index]
        return deepcopy(item) if isinstance(item, list | dict) else item

    def support_at(self, index: int) -> Any:
        """Return an item that can be drawn."""
        return self.value_at(self._reachable[index])

    @cached_property
    def _index(self) -> dict[Hashable, int]:
        return {_identity(self.items[index]): index for index in self._reachable}

    @cached_property
    def _places(self) -> tuple[float, ...]:
        """Place of each number in [0, 1]."""
        ordered = sorted(self.items)
        places = _spread([math.log(item) for item in ordered] if self.scale == "log" else ordered)
        by_item = dict(zip(ordered, places, strict=True))
        return tuple(by_item[item] for item in self.items)

    def encode(self, value: Any) -> tuple[float, ...]:
        """Return one column per item (1 at the value's own) for categories, else one place."""
        index = self._index.get(self.identity(value))
        if index is None:
            raise ValueError(f"{value!r} is no value of `{self.name}`")
        if self.is_categorical:
            return tuple(1.0 if column == index else 0.0 for column in range(len(self.items)))
        return (self._places[index],)

    def decode(self, point: Sequence[float]) -> Any:
        """Return the item with the largest column, or the nearest number; the first of equals."""
        if self.is_categorical:
            return self.value_at(max(self._reachable, key=lambda index: point[index]))
        position = unit_of(point)
        return self.value_at(min(self._reachable, key=lambda index: abs(self._places[index] - position)))

    def contains(self, value: Any) -> bool:
        """Whether the value is listed and can be drawn."""
        return self.identity(value) in self._index

    def identity(self, value: Any) -> Hashable:
        """Return the type-aware key of a value: ``true`` is not 1, but 1.0 is."""
        return _identity(value)

    def warnings(self) -> list[tuple[str, str]]:
        """Return what was found while reading."""
        return list(self.notes)


@frozen(slots=False)
class Choice(_Listed):
    """``values``: one of the listed values, all equally likely."""

    kind: ClassVar[str] = "values"

    @classmethod
    def parse(cls, name: str, raw: Any) -> Self:
        """Build the parameter from a list; repeated items are dropped with a warning."""
        items = _as_numbers(_as_list(cls.kind, raw))
        _check_items(cls.kind, items)
        unique: dict[Hashable, Any] = {}
        for item in items:
            unique.setdefault(_identity(item), item)
        return cls(name, unique.values(), notes=_repeated(items, len(unique)))

    def sample(self, rng: Random) -> Any:
        """Draw an item."""
        return self.value_at(rng.randrange(len(self.items)))

    def definition(self) -> dict[str, Any]:
        """Return the list of items."""
        return {self.kind: deepcopy(list(self.items))}


@frozen(slots=False)
class WeightedChoice(_Listed):
    """``pvalues``: one of the listed values, each with a probability.

    Attributes:
        probabilities: One per item, as the file holds them; what they lack of 1 belongs to the last item.
    """

    kind: ClassVar[str] = "pvalues"
    is_distribution: ClassVar[bool] = True

    probabilities: tuple[float, ...] = field(converter=_as_tuple)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        total = math.fsum(self.probabilities)
        if total > 1 + _MASS_TOLERANCE:
            raise SearchSpaceError(
                f"the probabilities of `pvalues` add up to {show(total)}, which is more than 1",
                "Lower them until they add up to 1.",
            )

    @classmethod
    def parse(cls, name: str, raw: Any) -> Self:
        """Build the parameter from a list of pairs; the probabilities of repeated items are added up."""
        pairs = [_read_pair(number, pair) for number, pair in enumerate(_as_list(cls.kind, raw), start=1)]
        items = _as_numbers([item for item, _ in pairs])
        _check_items(cls.kind, items)
        weights = [weight for _, weight in pairs]
        merged: dict[Hashable, tuple[Any, float]] = {}
        for item, weight in zip(items, weights, strict=True):
            first, before = merged.get(_identity(item), (item, 0.0))
            merged[_identity(item)] = (first, before + weight)
        missing = 1 - math.fsum(weights)
        if len(merged) < len(items) and missing > _MASS_TOLERANCE:
            # The item written last need not be the last of the merged ones.
            last, weight = merged[_identity(items[-1])]
            merged[_identity(items[-1])] = (last, weight + missing)
        kept, sums = zip(*merged.values(), strict=True) if merged else ((), ())
        return cls(name, kept, sums, notes=_repeated(items, len(merged)))

    @property
    def missing(self) -> float:
        """What the written probabilities lack of 1; 0 when that is only noise."""
        missing = 1 - math.fsum(self.probabilities)
        return missing if missing > _MASS_TOLERANCE else 0.0

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """The probabilities in force: the last item has the missing mass."""
        return (*self.probabilities[:-1], self.probabilities[-1] + self.missing)

    @cached_property
    def _reachable(self) -> tuple[int, ...]:
        return tuple(index for index, weight in enumerate(self.weights) if weight > 0)

    @cached_property
    def _cumulated(self) -> tuple[float, ...]:
        return tuple(accumulate(self.weights))

    def sample(self, rng: Random) -> Any:
        """Draw an item by its probability."""
        index = bisect_right(self._cumulated, rng.random() * self._cumulated[-1])
        # The product can round up to the total.
        return self.value_at(min(index, self._reachable[-1]))

    def definition(self) -> dict[str, Any]:
        """Return the list of pairs."""
        pairs = zip(deepcopy(list(self.items)), self.probabilities, strict=True)
        return {self.kind: [[item, weight] for item, weight in pairs]}

    def warnings(self) -> list[tuple[str, str]]:
        """Add to the notes that probabilities do not add up to 1."""
        found = super().warnings()
        if self.missing:
            message = (
                f"the probabilities of `pvalues` add up to {show(1 - self.missing)}; the missing"
                f" {show(self.missing)} goes to the last value, {self.items[-1]!r}"
            )
            found.append((message, "Write probabilities that add up to 1."))
        return found


def _as_list(kind: str, raw: Any) -> list[Any]:
    if isinstance(raw, list | tuple):
        return list(raw)
    example = "[[relu, 0.3], [tanh, 0.7]]" if kind == "pvalues" else "[1, 2, 3]"
    raise SearchSpaceError(f"`{kind}` must be a list", f"Write `{kind}: {example}`.")


def _as_numbers(items: list[Any]) -> list[Any]:
    """Read texts such as ``1e-3`` as numbers if every item is a number or such a text."""
    numbers = [to_number(item) for item in items]
    return items if any(number is None for number in numbers) else numbers


def _read_pair(number: int, pair: Any) -> tuple[Any, float]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:  # noqa: PLR2004 - a pair
        raise SearchSpaceError(
            f"item {number} of `pvalues` is not a pair of value and probability",
            "Write `pvalues: [[relu, 0.3], [tanh, 0.7]]`.",
        )
    item, raw = pair
    probability = to_number(raw)
    if probability is None or not 0 <= probability <= 1:
        raise SearchSpaceError(
            f"the probability of item {number} of `pvalues` must be a number from 0 to 1, not {raw!r}"
        )
    return item, probability


def _check_items(kind: str, items: Iterable[Any]) -> None:
    for number, item in enumerate(items, start=1):
        _check_item(kind, number, item)


def _check_item(kind: str, number: int, item: Any, depth: int = 0) -> None:
    where = f"item {number} of `{kind}`"
    if item is None and depth == 0:
        raise SearchSpaceError(f"{where} is null", "Quote it if you mean the text: 'null'.")
    if depth > _DEEPEST:
        raise SearchSpaceError(f"{where} is nested more than {_DEEPEST} levels deep")
    if isinstance(item, float | int) and not isinstance(item, bool) and not is_number(item):
        raise SearchSpaceError(f"{where} must be a finite number", "Quote it if you mean the text: 'inf'.")
    if item is not None and not isinstance(item, bool | int | float | str | list | dict):
        raise SearchSpaceError(f"{where} is a {type(item).__name__}", "Quote it if you mean the text.")
    children: Iterable[Any] = ()
    if isinstance(item, list):
        children = item
    elif isinstance(item, dict):
        if not all(isinstance(key, str) for key in item):
            raise SearchSpaceError(f"{where} has a key that is no text", "Quote the keys of mappings.")
        children = item.values()
    for child in children:
        _check_item(kind, number, child, depth + 1)


def _identity(value: Any) -> Hashable:
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list | tuple | dict):
        return (list, json.dumps(value, sort_keys=True, default=str))
    key: Hashable = value
    return key


def _repeated(items: list[Any], kept: int) -> tuple[tuple[str, str], ...]:
    if len(items) == kept:
        return ()
    counts = Counter(_identity(item) for item in items)
    twice = {_identity(item): repr(item) for item in items if counts[_identity(item)] > 1}
    verb = "is" if len(twice) == 1 else "are"
    message = f"{', '.join(twice.values())} {verb} listed more than once"
    return ((message, f"Each value counts once: {kept} remain."),)


def _is_geometric(items: Iterable[Any]) -> bool:
    """Whether positive numbers over a wide range lie more evenly on a logarithmic scale."""
    ordered = sorted(items)
    if len(ordered) < 3 or ordered[0] <= 0 or ordered[-1] / ordered[0] < _LOG_RATIO:  # noqa: PLR2004 - a gap to compare
        return False
    widest = max(right - left for left, right in pairwise(ordered)) / (ordered[-1] - ordered[0])
    ratios = [math.log(right) - math.log(left) for left, right in pairwise(ordered)]
    return bool(max(ratios) / (math.log(ordered[-1]) - math.log(ordered[0])) < widest)


def _spread(ordered: Sequence[float]) -> list[float]:
    """Place sorted numbers in [0, 1]; those that floats cannot tell apart there get even places."""
    if len(ordered) == 1:
        return [0.5]
    span = ordered[-1] - ordered[0]
    places = [(item - ordered[0]) / span for item in ordered] if span else []
    if places and all(left < right for left, right in pairwise(places)):
        return places
    return [rank / (len(ordered) - 1) for rank in range(len(ordered))]

"""Parameters that list their values by a rule: ``range``, ``linspace``, ``logspace`` and ``geomspace``.

Values are computed by index and never kept, so a range may hold any number of them. Linear kinds use exact
decimal arithmetic: the end of ``1.2:1.8:0.1`` is excluded and 1.3 is 1.3, whereas ``numpy.arange`` includes
1.8000000000000005.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.base import NumericParameter, clamp, unit_of
from airflow_hptuning.space.notation import Number, exact, show

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

_MOST_VALUES = 2**50
"""Indexes up to here survive the way through the unit cube."""

_NEAREST_LINEAR = 4
"""Units in the last place that neighbours must be apart."""

_NEAREST_LOG = 1e-11
"""The same as a relative difference, for values that come from powers."""


@frozen(slots=False)
class _Spaced(NumericParameter):
    """A parameter whose values follow from their index."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of values."""

    @property
    def low(self) -> float:
        """Smallest value."""
        return min(self._ends)

    @property
    def high(self) -> float:
        """Largest value."""
        return max(self._ends)

    @cached_property
    def _ends(self) -> tuple[Number, Number]:
        return (self.value_at(0), self.value_at(self.size - 1))

    @property
    def scale(self) -> str:
        """``linear``; the logarithmic kinds say ``log``."""
        return "linear"

    @abstractmethod
    def value_at(self, index: int) -> Any:
        """Return the value with an index below ``size``."""

    @abstractmethod
    def _place(self, value: Number) -> float:
        """Return how far a number lies on the way from the first value (0) to the last (1)."""

    def sample(self, rng: Random) -> Any:
        """Draw a value; all are equally likely."""
        return self.value_at(rng.randrange(self.size))

    def encode(self, value: Any) -> tuple[float, ...]:
        """Return how far the value lies on the way from the first to the last."""
        return (0.5,) if self.size == 1 else (clamp(self._place(value)),)

    def decode(self, point: Sequence[float]) -> Any:
        """Return the nearest value; the first of equals."""
        return self.value_at(self._nearest(unit_of(point)))

    def _nearest(self, place: float) -> int:
        return max(0, math.ceil(place * (self.size - 1) - 0.5))

    def _is_feasible(self, value: Number) -> bool:
        return bool(self.value_at(self._nearest(self.encode(value)[0])) == value)

    def _check_order(self, start: Number, stop: Number) -> None:
        if stop <= start:
            raise SearchSpaceError(
                f"`stop` of `{self.kind}` must be more than `start`, but start is {show(start)}"
                f" and stop is {show(stop)}",
                "Swap them." if stop < start else "Use `values` for a single value.",
            )

    def _check_values(self) -> None:
        if self.size > _MOST_VALUES:
            raise SearchSpaceError(
                f"`{self.kind}` has more than {_MOST_VALUES:.0e} values", "Use a distribution such as `uniform`."
            )
        for index in {0, self.size - 2} if self.size > 1 else ():
            if self._are_too_near(self.value_at(index), self.value_at(index + 1)):
                raise SearchSpaceError(
                    f"the values of `{self.kind}` are too close together to be told apart",
                    "Ask for fewer values.",
                )

    def _are_too_near(self, one: float, other: float) -> bool:
        return abs(one - other) < _NEAREST_LINEAR * math.ulp(max(abs(one), abs(other)))


def _read_count(kind: str, num: Number) -> int:
    count = int(num)
    if count != num or count < 1:
        raise SearchSpaceError(f"`num` of `{kind}` must be a whole number from 1, not {num!r}")
    return count


@frozen(slots=False)
class _Linear(_Spaced):
    """Values at equal distances, exact in decimal arithmetic."""

    @cached_property
    @abstractmethod
    def _lattice(self) -> tuple[int, int, int]:
        """First value and distance as whole numbers of one over the third."""

    def value_at(self, index: int) -> Any:
        """Return the number nearest to the exact value."""
        first, distance, denominator = self._lattice
        # Division of whole numbers rounds correctly, whatever their length.
        return (first + index * distance) / denominator

    def _place(self, value: Number) -> float:
        first, distance, denominator = self._lattice
        return float((exact(value) * denominator - first) / (distance * (self.size - 1)))


def _to_lattice(first: Fraction, distance: Fraction) -> tuple[int, int, int]:
    denominator = math.lcm(first.denominator, distance.denominator)
    return (int(first * denominator), int(distance * denominator), denominator)


@frozen(slots=False)
class Range(_Linear):
    """``range``: from start in steps, the end excluded; whole numbers stay whole."""

    kind: ClassVar[str] = "range"
    required: ClassVar[tuple[str, ...]] = ("start", "stop", "step")

    start: Number
    stop: Number
    step: Number

    def __attrs_post_init__(self) -> None:
        self._check_order(self.start, self.stop)
        if self.step <= 0:
            raise SearchSpaceError(f"`step` of `range` must be more than 0, not {show(self.step)}")
        self._check_values()

    @cached_property
    def size(self) -> int:
        """Number of values below the end."""
        return math.ceil((exact(self.stop) - exact(self.start)) / exact(self.step))

    @cached_property
    def _lattice(self) -> tuple[int, int, int]:
        return _to_lattice(exact(self.start), exact(self.step))

    @cached_property
    def _is_whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.start, self.stop, self.step))

    def _are_too_near(self, one: float, other: float) -> bool:
        return not self._is_whole and super()._are_too_near(one, other)

    def value_at(self, index: int) -> Any:
        """Return a whole number if all three arguments are."""
        return self.start + index * self.step if self._is_whole else super().value_at(index)


@frozen(slots=False)
class LinSpace(_Linear):
    """``linspace``: a number of values at equal distances, both ends included."""

    kind: ClassVar[str] = "linspace"
    required: ClassVar[tuple[str, ...]] = ("start", "stop", "num")

    start: Number
    stop: Number
    num: Number

    def __attrs_post_init__(self) -> None:
        _read_count(self.kind, self.num)
        self._check_order(self.start, self.stop)
        self._check_values()

    @property
    def size(self) -> int:
        """The given number."""
        return int(self.num)

    @cached_property
    def _lattice(self) -> tuple[int, int, int]:
        start, stop = exact(self.start), exact(self.stop)
        return _to_lattice(start, (stop - start) / max(self.size - 1, 1))


@frozen(slots=False)
class _Geometric(_Spaced):
    """Values at equal ratios."""

    @property
    def scale(self) -> str:
        """``log`` unless the values are negative."""
        return "log" if self.value_at(0) > 0 else "linear"

    def _are_too_near(self, one: float, other: float) -> bool:
        return abs(one - other) < _NEAREST_LOG * abs(one)

    def _place(self, value: Number) -> float:
        first, last = self._ends
        if value == 0 or (value > 0) != (first > 0):
            return 0.0 if first > 0 else 1.0
        # Differences, since the ratio of the ends can be beyond the floats.
        origin, end, here = (math.log(abs(number)) for number in (first, last, value))
        return (here - origin) / (end - origin)


def _clean(value: float) -> float:
    """Drop the noise that powers leave in the last digits: 0.0010000000000000002 is 0.001."""
    return float(f"{value:.15g}")


@frozen(slots=False)
class LogSpace(_Geometric):
    """``logspace``: powers of a base whose exponents are at equal distances, both ends included.

    Start and stop are exponents: ``-4:-1:4`` gives 0.0001, 0.001, 0.01 and 0.1.
    """

    kind: ClassVar[str] = "logspace"
    required: ClassVar[tuple[str, ...]] = ("start", "stop", "num")
    optional: ClassVar[tuple[str, ...]] = ("base",)

    start: Number
    stop: Number
    num: Number
    base: Number = field(default=10)

    def __attrs_post_init__(self) -> None:
        _read_count(self.kind, self.num)
        if self.base <= 0 or self.base == 1:
            raise SearchSpaceError(f"`base` of `logspace` must be positive and not 1, not {show(self.base)}")
        self._check_order(self.start, self.stop)
        for exponent in (self.start, self.stop):
            _check_power(self.base, exponent)
        self._check_values()

    @property
    def size(self) -> int:
        """The given number."""
        return int(self.num)

    @cached_property
    def _lattice(self) -> tuple[int, int, int]:
        start, stop = exact(self.start), exact(self.stop)
        return _to_lattice(start, (stop - start) / max(self.size - 1, 1))

    def value_at(self, index: int) -> Any:
        """Return the power of an exponent; exact for whole exponents."""
        first, distance, denominator = self._lattice
        exponent = Fraction(first + index * distance, denominator)
        if exponent.denominator == 1:
            return float(exact(self.base) ** exponent.numerator)
        return _clean(float(self.base) ** float(exponent))

    def warnings(self) -> list[tuple[str, str]]:
        """Say so when the exponents look like values."""
        if not (0 < self.start < 1 and 0 < self.stop < 1):
            return []
        start, stop, num = show(self.start), show(self.stop), self.size
        message = (
            f"`start` and `stop` of `logspace` are exponents: the values go from {show(self.low)} to {show(self.high)}"
        )
        return [(message, f"For values from {start} to {stop}, write `geomspace: [{start}, {stop}, {num}]`.")]


def _check_power(base: Number, exponent: Number) -> None:
    digits = exponent * math.log10(base)
    if not -_MOST_DIGITS < digits < _MOST_DIGITS:
        raise SearchSpaceError(
            f"`logspace` asks for {show(base)} to the power of {show(exponent)}, which no float can hold",
            "Start and stop are exponents; `geomspace` takes the values themselves.",
        )


_MOST_DIGITS = 307
"""Decimal exponents between which floats keep their full precision."""


@frozen(slots=False)
class GeomSpace(_Geometric):
    """``geomspace``: a number of values at equal ratios, both ends included and given as they are."""

    kind: ClassVar[str] = "geomspace"
    required: ClassVar[tuple[str, ...]] = ("start", "stop", "num")

    start: Number
    stop: Number
    num: Number

    def __attrs_post_init__(self) -> None:
        _read_count(self.kind, self.num)
        if self.start == 0 or self.stop == 0 or (self.start > 0) != (self.stop > 0):
            raise SearchSpaceError(
                f"`geomspace` goes from {show(self.start)} to {show(self.stop)}, but no ratio leads to 0 or across it",
                "Choose two ends of the same sign, or use `linspace`.",
            )
        self._check_order(self.start, self.stop)
        self._check_values()

    @property
    def size(self) -> int:
        """The given number."""
        return int(self.num)

    def value_at(self, index: int) -> Any:
        """Return a value; the two ends are exact."""
        if index == 0:
            return float(self.start)
        if index == self.size - 1:
            return float(self.stop)
        first, last = math.log(abs(self.start)), math.log(abs(self.stop))
        magnitude = math.exp(first + (last - first) * index / (self.size - 1))
        return _clean(math.copysign(magnitude, self.start))

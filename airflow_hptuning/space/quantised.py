"""Parameters that round a law down to multiples of ``q``.

These are ``quniform``, ``qloguniform``, ``qnormal`` and ``qlognormal``. Rounding down is what Polyaxon did,
except that its multiples carried float noise (0.30000000000000004 for 0.3) and that its ``qlognormal`` ignored
``q`` and took the exponential twice.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

from attrs import field, frozen

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.base import clamp
from airflow_hptuning.space.distributions import Distribution, LogNormal, LogUniform, Normal, Uniform
from airflow_hptuning.space.notation import Number, exact, show

_MOST_STEPS = 1e12
"""Multiples of q between zero and the values; beyond, rounding to q means nothing."""

_NOISE = Fraction(1, 10**9)
"""Part of a step that bounds may be off by, since exponentials are inexact."""


@frozen(slots=False)
class _Quantised(Distribution):
    """A law whose values are rounded down to multiples of q.

    In the unit cube a multiple lies in the middle of all that is rounded down to it.

    Attributes:
        law_type: The law, which takes the arguments before ``q``.
    """

    is_dense: ClassVar[bool] = False
    law_type: ClassVar[type[Distribution]]

    def __attrs_post_init__(self) -> None:
        law = self._law
        if self._q <= 0:
            raise SearchSpaceError(f"`q` must be more than 0, not {show(self._q)}")
        usual = max(abs(law.at(0.001)), abs(law.at(0.999)))
        if usual / self._q > _MOST_STEPS or not math.isfinite(law.at(1.0) / self._q):
            hint = f"Use `{law.kind}`, or a larger `q`."
            raise SearchSpaceError(f"`q` is {show(self._q)}, too small beside the values", hint)

    @cached_property
    def _law(self) -> Distribution:
        *arguments, _ = self.arguments().values()
        return self.law_type(self.name, *arguments)

    @cached_property
    def _q(self) -> Number:
        return self.arguments()["q"]

    @cached_property
    def _ratio(self) -> tuple[int, int]:
        return exact(self._q).as_integer_ratio()

    def _multiple(self, number: int) -> float:
        numerator, denominator = self._ratio
        # Division of whole numbers rounds correctly.
        return number * numerator / denominator

    def _number_of(self, value: Number) -> int:
        return round(exact(value) / exact(self._q))

    @cached_property
    def _bounds(self) -> tuple[int, int] | None:
        """The first and the last multiple that can be drawn; None without a bound."""
        low, high = self._law.low, self._law.high
        if low is None or high is None:
            return None
        first = math.floor(exact(low) / exact(self._q) + _NOISE)
        # The upper bound itself is not drawn.
        return (first, max(first, math.ceil(exact(high) / exact(self._q) - _NOISE) - 1))

    @property
    def low(self) -> float | None:
        """The smallest multiple that can be drawn, which can be less than the bound in the file."""
        return self._multiple(self._bounds[0]) if self._bounds else None

    @property
    def high(self) -> float | None:
        """The largest multiple that can be drawn."""
        return self._multiple(self._bounds[1]) if self._bounds else None

    @property
    def scale(self) -> str:
        """The scale of the law."""
        return self._law.scale

    @property
    def support(self) -> int | None:
        """Number of multiples between the bounds."""
        return self._bounds[1] - self._bounds[0] + 1 if self._bounds else None

    def support_at(self, index: int) -> Any:
        """Return a multiple by its index from the smallest."""
        if self._bounds is None:
            raise TypeError(f"`{self.kind}` has no first value")
        return self._multiple(self._bounds[0] + index)

    def at(self, share: float) -> float:
        """Return the multiple below or at the value of the law."""
        number = math.floor(self._law.at(share) / self._q)
        if self._bounds:
            number = min(max(number, self._bounds[0]), self._bounds[1])
        return self._multiple(number)

    def share(self, value: Number) -> float:
        """Return the middle of the shares of all that is rounded down to the value."""
        number = self._number_of(value)
        below, above = (clamp(self._law.share(self._multiple(end))) for end in (number, number + 1))
        return (below + above) / 2

    def _is_feasible(self, value: Number) -> bool:
        return self._multiple(self._number_of(value)) == value

    def warnings(self) -> list[tuple[str, str]]:
        """Say so when rounding down leads below the lower bound."""
        found = self._law.warnings()
        low, bound = self.low, self._law.low
        if low is not None and bound is not None and (bound - low) / self._q > _NOISE:
            message = f"values are rounded down to multiples of q: the smallest is {show(low)}, below {show(bound)}"
            found.append((message, "Choose bounds that are multiples of q."))
        return found


@frozen(slots=False)
class QUniform(_Quantised):
    """``quniform``: a uniform number, rounded down to a multiple of q."""

    kind: ClassVar[str] = "quniform"
    required: ClassVar[tuple[str, ...]] = ("low", "high", "q")
    law_type: ClassVar[type[Distribution]] = Uniform

    minimum: Number = field(alias="low")
    maximum: Number = field(alias="high")
    q: Number


@frozen(slots=False)
class QLogUniform(QUniform):
    """``qloguniform``: a loguniform number, rounded down to a multiple of q."""

    kind: ClassVar[str] = "qloguniform"
    law_type: ClassVar[type[Distribution]] = LogUniform


@frozen(slots=False)
class QNormal(_Quantised):
    """``qnormal``: a normal number, rounded down to a multiple of q."""

    kind: ClassVar[str] = "qnormal"
    required: ClassVar[tuple[str, ...]] = ("loc", "scale", "q")
    law_type: ClassVar[type[Distribution]] = Normal

    location: Number = field(alias="loc")
    deviation: Number = field(alias="scale")
    q: Number


@frozen(slots=False)
class QLogNormal(QNormal):
    """``qlognormal``: a lognormal number, rounded down to a multiple of q."""

    kind: ClassVar[str] = "qlognormal"
    law_type: ClassVar[type[Distribution]] = LogNormal

    def _is_feasible(self, value: Number) -> bool:
        return value >= 0 and super()._is_feasible(value)

    def warnings(self) -> list[tuple[str, str]]:
        """Say that Polyaxon drew something else."""
        message = "`qlognormal` draws multiples of q; Polyaxon ignored q and took the exponential twice"
        return [*super().warnings(), (message, f"The usual value is around {show(self._law.at(0.5))}.")]

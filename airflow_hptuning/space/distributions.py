"""Parameters that are drawn from a law: ``uniform``, ``loguniform``, ``normal`` and ``lognormal``.

Every law is one increasing map from (0, 1) to the values. Drawing maps a random number, and the unit cube
holds the inverse. The arguments of the logarithmic kinds are natural logarithms: ``loguniform: [-7, -1]``
draws from 0.0009 to 0.37. Messages name no kind, since the quantised kinds share these laws.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.base import NumericParameter, clamp, unit_of
from airflow_hptuning.space.notation import Number, show

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

_TAIL = 2.0**-53
"""Smallest probability that drawing meets; quantiles are taken no further out."""

_FARTHEST = 8.3
"""Standard deviations at that probability."""


@frozen(slots=False)
class Distribution(NumericParameter):
    """A parameter that is drawn from a law."""

    is_distribution: ClassVar[bool] = True
    is_continuous: ClassVar[bool] = True
    is_dense: ClassVar[bool] = True
    optional: ClassVar[tuple[str, ...]] = ("size",)

    @property
    def size(self) -> None:
        """None: the values cannot be listed."""
        return None

    @abstractmethod
    def at(self, share: float) -> float:
        """Return the value below which a share of the law lies."""

    @abstractmethod
    def share(self, value: Number) -> float:
        """Return the share of the law that lies below a value."""

    def sample(self, rng: Random) -> Any:
        """Draw a value."""
        return self.at(rng.random())

    def encode(self, value: Any) -> tuple[float, ...]:
        """Return the share of the law below the value (for uniform kinds its place between the bounds)."""
        return (clamp(self.share(value)),)

    def decode(self, point: Sequence[float]) -> Any:
        """Return the value with a share of the law below it."""
        return self.at(unit_of(point))


@frozen(slots=False)
class Uniform(Distribution):
    """``uniform``: every number from low to high (excluded) equally likely."""

    kind: ClassVar[str] = "uniform"
    required: ClassVar[tuple[str, ...]] = ("low", "high")

    minimum: Number = field(alias="low")
    maximum: Number = field(alias="high")

    def __attrs_post_init__(self) -> None:
        if self.maximum <= self.minimum:
            raise SearchSpaceError(
                f"`high` must be more than `low`, but low is {show(self.minimum)} and high is {show(self.maximum)}",
                "Swap them." if self.maximum < self.minimum else "Use `values` for a single value.",
            )
        if not math.isfinite(float(self.maximum) - float(self.minimum)):
            raise SearchSpaceError("`low` and `high` are farther apart than floats can hold")

    @property
    def low(self) -> float:
        """The lower bound."""
        return self.minimum

    @property
    def high(self) -> float:
        """The upper bound, which is not drawn."""
        return self.maximum

    @property
    def scale(self) -> str:
        """``linear``."""
        return "linear"

    def at(self, share: float) -> float:
        """Return the value below which a share of the law lies."""
        low, high = float(self.minimum), float(self.maximum)
        # The sum can round up to the excluded end.
        return clamp(low + (high - low) * share, low, math.nextafter(high, low))

    def share(self, value: Number) -> float:
        """Return the share of the law that lies below a value."""
        return (value - self.minimum) / (self.maximum - self.minimum)


@frozen(slots=False)
class LogUniform(Uniform):
    """``loguniform``: a number whose natural logarithm is uniform; low and high are those logarithms."""

    kind: ClassVar[str] = "loguniform"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        _check_exponents(self.minimum, self.maximum)

    @property
    def low(self) -> float:
        """The exponential of the lower bound."""
        return math.exp(self.minimum)

    @property
    def high(self) -> float:
        """The exponential of the upper bound."""
        return math.exp(self.maximum)

    @property
    def scale(self) -> str:
        """``log``."""
        return "log"

    def at(self, share: float) -> float:
        """Return the value below which a share of the law lies."""
        return math.exp(super().at(share))

    def share(self, value: Number) -> float:
        """Return the share of the law that lies below a value."""
        return super().share(math.log(value)) if value > 0 else 0.0

    def warnings(self) -> list[tuple[str, str]]:
        """Say so when the logarithms look like values."""
        found = super().warnings()
        if 0 < self.minimum < 1 and 0 < self.maximum < 1:
            bounds = f"{show(math.exp(self.minimum))} to {show(math.exp(self.maximum))}"
            logs = f"{math.log(self.minimum):.4g}, {math.log(self.maximum):.4g}"
            low, high = show(self.minimum), show(self.maximum)
            hint = (
                f"For values from {low} to {high}, write [{logs}], or list some with `geomspace: [{low}, {high}, 10]`."
            )
            found.append((f"`low` and `high` are natural logarithms: the values go from {bounds}", hint))
        return found


@frozen(slots=False)
class Normal(Distribution):
    """``normal``: the normal distribution around loc with standard deviation scale."""

    kind: ClassVar[str] = "normal"
    required: ClassVar[tuple[str, ...]] = ("loc", "scale")

    location: Number = field(alias="loc")
    deviation: Number = field(alias="scale")

    def __attrs_post_init__(self) -> None:
        if self.deviation <= 0:
            raise SearchSpaceError(
                f"`scale` must be more than 0, not {show(self.deviation)}",
                "It is the standard deviation.",
            )
        if not all(math.isfinite(end) for end in self._ends):
            raise SearchSpaceError("the distribution reaches beyond the floats", "Choose a smaller `scale`.")

    @property
    def _ends(self) -> tuple[float, float]:
        location, reach = float(self.location), _FARTHEST * float(self.deviation)
        return (location - reach, location + reach)

    @cached_property
    def _law(self) -> NormalDist:
        return NormalDist(float(self.location), float(self.deviation))

    @property
    def low(self) -> None:
        """None: there is no bound."""
        return None

    @property
    def high(self) -> None:
        """None: there is no bound."""
        return None

    @property
    def scale(self) -> str:
        """``normal``."""
        return "normal"

    def at(self, share: float) -> float:
        """Return the value below which a share of the law lies."""
        return self._law.inv_cdf(clamp(share, _TAIL, 1 - _TAIL))

    def share(self, value: Number) -> float:
        """Return the share of the law that lies below a value."""
        return self._law.cdf(value)


@frozen(slots=False)
class LogNormal(Normal):
    """``lognormal``: a number whose natural logarithm is normal; loc and scale belong to the logarithm."""

    kind: ClassVar[str] = "lognormal"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        _check_exponents(*self._ends)

    @property
    def scale(self) -> str:
        """``lognormal``."""
        return "lognormal"

    def at(self, share: float) -> float:
        """Return the value below which a share of the law lies."""
        return math.exp(super().at(share))

    def share(self, value: Number) -> float:
        """Return the share of the law that lies below a value."""
        return super().share(math.log(value)) if value > 0 else 0.0

    def _is_feasible(self, value: Number) -> bool:
        return value > 0


def _check_exponents(low: float, high: float) -> None:
    if low < _LEAST_EXPONENT or high > _MOST_EXPONENT:
        raise SearchSpaceError(
            f"the values go from e^{show(low)} to e^{show(high)}, which floats cannot hold",
            "Its arguments are natural logarithms.",
        )


_LEAST_EXPONENT = -708.0
_MOST_EXPONENT = 709.0
"""Powers of e between which floats keep their full precision."""

"""What every parameter of a search space can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from attrs import fields, frozen

from airflow_hptuning.space.notation import Number, is_number, read_arguments

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from random import Random


# slots=False, here and in the kinds: cached properties and the quantising mix-in need an ordinary layout.
@frozen(slots=False)
class Parameter(ABC):
    """One searched value: its domain, how it is drawn, listed, and placed in the unit cube.

    Every kind of the file is a subclass. Values are native Python objects (no numpy), so that they can be
    rendered into a command and travel as JSON.

    Attributes:
        kind: The option of the file, such as ``uniform``.
        is_distribution: Whether it only can be sampled, so that grid search refuses it.
        is_continuous: Polyaxon's notion: all distributions except ``pvalues``, the quantised ones included.
        is_dense: Whether two draws practically never agree: continuous and not quantised.
        name: Its key in the file.
    """

    kind: ClassVar[str]
    is_distribution: ClassVar[bool] = False
    is_continuous: ClassVar[bool] = False
    is_dense: ClassVar[bool] = False

    name: str

    @classmethod
    @abstractmethod
    def parse(cls, name: str, raw: Any) -> Self:
        """Build the parameter from what the file holds below the option, or raise SearchSpaceError."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Number of its values; None for continuous kinds."""

    @property
    def support(self) -> int | None:
        """Number of values that drawing can give; None when there is no known bound."""
        return self.size

    @property
    def is_categorical(self) -> bool:
        """Whether its values have no order."""
        return False

    @property
    @abstractmethod
    def low(self) -> float | None:
        """Smallest value (exponents resolved); None without a bound or an order."""

    @property
    @abstractmethod
    def high(self) -> float | None:
        """Largest value (exponents resolved); None without a bound or an order."""

    @property
    @abstractmethod
    def scale(self) -> str:
        """``linear``, ``log``, ``categorical``, ``normal`` or ``lognormal``."""

    @property
    def dimensions(self) -> int:
        """Columns it takes in the unit cube."""
        return 1

    def value_at(self, index: int) -> Any:
        """Return the value with an index below ``size``, in the order of the file."""
        raise TypeError(f"`{self.kind}` has no list of values to take number {index} from")

    def support_at(self, index: int) -> Any:
        """Return the value with an index below ``support``."""
        return self.value_at(index)

    def values(self) -> Iterator[Any]:
        """Yield all values in the order of the file; enumerable kinds only."""
        if self.size is None:
            raise TypeError(f"`{self.kind}` has no list of values")
        return (self.value_at(index) for index in range(self.size))

    @abstractmethod
    def sample(self, rng: Random) -> Any:
        """Draw one value."""

    @abstractmethod
    def encode(self, value: Any) -> tuple[float, ...]:
        """Return the place of a value of the domain in the unit cube of ``dimensions`` columns."""

    @abstractmethod
    def decode(self, point: Sequence[float]) -> Any:
        """Return the value nearest to a point of the unit cube; the inverse of ``encode``."""

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether a value belongs to the domain."""

    def identity(self, value: Any) -> Hashable:
        """Return what two values share exactly when they are the same choice."""
        key: Hashable = value
        return key

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """Return what the file would hold: parsing it gives an equal parameter."""

    def warnings(self) -> list[tuple[str, str]]:
        """Return what may surprise the author of the file, as pairs of message and hint."""
        return []


@frozen(slots=False)
class NumericParameter(Parameter):
    """A parameter with a fixed list of numbers as arguments, in any of the three notations.

    Attributes:
        required: Names of the arguments that must be given, in order.
        optional: Names of the arguments that may follow.
    """

    required: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls, name: str, raw: Any) -> Self:
        """Build the parameter from a text, a list or a mapping."""
        return cls(name, **read_arguments(cls.kind, raw, cls.required, cls.optional))

    def arguments(self) -> dict[str, Number]:
        """Return the arguments by the names that the file gives them, optional ones at their default too."""
        return {field.alias or field.name: getattr(self, field.name) for field in fields(type(self))[1:]}

    def definition(self) -> dict[str, Any]:
        """Return the list notation, without the optional arguments that have their default."""
        written = [
            value
            for field, value in zip(fields(type(self))[1:], self.arguments().values(), strict=True)
            if value != field.default
        ]
        return {self.kind: written}

    def contains(self, value: Any) -> bool:
        """Whether a number lies within the bounds and is feasible."""
        if not is_number(value):
            return False
        if self.low is not None and value < self.low:
            return False
        return (self.high is None or value <= self.high) and self._is_feasible(value)

    def _is_feasible(self, value: Number) -> bool:  # noqa: ARG002 - for the kinds with gaps
        return True


def clamp(value: float, low: float = 0.0, high: float = 1.0) -> float:
    """Return the number of the interval that is nearest to a value."""
    return min(max(value, low), high)


def unit_of(point: Sequence[float]) -> float:
    """Return the only coordinate of a point with one column, within [0, 1]."""
    (position,) = point
    return clamp(float(position))

"""The search space: the product of its parameters."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from airflow_hptuning.errors import SearchSpaceError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from random import Random

    from airflow_hptuning.space.base import Parameter


def _in_order(parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    return tuple(parameters)


@frozen(slots=False)
class SearchSpace:
    """All combinations of the values of some parameters, which stand in the order of the file.

    Attributes:
        parameters: At least one, with different names.
    """

    parameters: tuple[Parameter, ...] = field(converter=_in_order)

    def __attrs_post_init__(self) -> None:
        if not self.parameters:
            raise SearchSpaceError("the search space has no parameter", "Add one, such as `lr: {values: [0.1, 0.01]}`.")
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise SearchSpaceError(f"`{twice[0]}` is searched twice")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def _by_name(self) -> dict[str, Parameter]:
        return {parameter.name: parameter for parameter in self.parameters}

    def __getitem__(self, name: str) -> Parameter:
        return self._by_name[name]

    @cached_property
    def size(self) -> int | None:
        """Number of listed configs; None with a continuous parameter."""
        return _product([parameter.size for parameter in self.parameters])

    @cached_property
    def n_distinct(self) -> int | None:
        """Number of configs that drawing can give; None without a known bound."""
        return _product([parameter.support for parameter in self.parameters])

    @cached_property
    def is_listed(self) -> bool:
        """Whether every config can be listed and all are equally likely."""
        return not any(parameter.is_distribution for parameter in self.parameters)

    @cached_property
    def is_dense(self) -> bool:
        """Whether two draws practically never agree."""
        return any(parameter.is_dense for parameter in self.parameters)

    def point(self, index: int) -> dict[str, Any]:
        """Return the listed config with an index below ``size``; the last parameter varies fastest."""
        return self._at(index, [parameter.size for parameter in self.parameters], "value_at")

    def support_point(self, index: int) -> dict[str, Any]:
        """Return the config with an index below ``n_distinct`` among those that drawing can give."""
        return self._at(index, [parameter.support for parameter in self.parameters], "support_at")

    def _at(self, index: int, radices: Sequence[int | None], method: str) -> dict[str, Any]:
        values = []
        rest = index
        for parameter, radix in zip(reversed(self.parameters), reversed(radices), strict=True):
            if radix is None:
                raise TypeError(f"the configs cannot be listed: `{parameter.name}` is continuous")
            rest, digit = divmod(rest, radix)
            values.append((parameter.name, getattr(parameter, method)(digit)))
        if rest:
            raise IndexError(f"there is no config number {index}")
        return dict(reversed(values))

    def sample(self, rng: Random) -> dict[str, Any]:
        """Draw one config."""
        return {parameter.name: parameter.sample(rng) for parameter in self.parameters}

    def identity(self, params: Mapping[str, Any]) -> Hashable:
        """Return what two configs share exactly when they are the same."""
        return tuple(parameter.identity(params[parameter.name]) for parameter in self.parameters)

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether a config has exactly these parameters, each with a value of its domain."""
        return params.keys() == self._by_name.keys() and all(
            parameter.contains(params[parameter.name]) for parameter in self.parameters
        )

    @cached_property
    def dimensions(self) -> int:
        """Columns of the unit cube."""
        return sum(parameter.dimensions for parameter in self.parameters)

    @cached_property
    def columns(self) -> dict[str, slice]:
        """Columns of each parameter in the unit cube."""
        slices = {}
        start = 0
        for parameter in self.parameters:
            slices[parameter.name] = slice(start, start + parameter.dimensions)
            start += parameter.dimensions
        return slices

    def encode(self, params: Mapping[str, Any]) -> list[float]:
        """Return the place of a config of the space in the unit cube."""
        return [place for parameter in self.parameters for place in parameter.encode(params[parameter.name])]

    def decode(self, vector: Sequence[float]) -> dict[str, Any]:
        """Return the config nearest to a point of the unit cube."""
        if len(vector) != self.dimensions:
            raise ValueError(f"a point of this space has {self.dimensions} columns, not {len(vector)}")
        columns = self.columns
        return {parameter.name: parameter.decode(vector[columns[parameter.name]]) for parameter in self.parameters}


def _product(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None

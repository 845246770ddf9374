"""What every kind of parameter must do, as checks of one parameter."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from airflow_hptuning.space.parameters import parse_parameter

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_hptuning.space.base import Parameter

NATIVE = (bool, int, float, str, list, dict)


def samples(parameter: Parameter, count: int = 20, seed: int = 0) -> list[Any]:
    """Draw some values from a stream of the check's own."""
    rng = random.Random(seed)  # noqa: S311 - a test is no secret
    return [parameter.sample(rng) for _ in range(count)]


def same(parameter: Parameter, one: Any, other: Any) -> bool:
    """Whether two values agree: exactly, or to float accuracy where every number is a value."""
    if parameter.is_dense:
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return type(one) is type(other) and bool(one == other)


def check_samples_lie_in_the_domain(parameter: Parameter) -> None:
    """Every drawn value belongs to the domain, within the bounds where there are some."""
    for value in samples(parameter):
        assert parameter.contains(value)
        if parameter.low is not None:
            assert value >= parameter.low
        if parameter.high is not None:
            assert value <= parameter.high


def check_values_are_native(parameter: Parameter) -> None:
    """Values are plain Python objects and survive JSON."""
    for value in samples(parameter):
        assert type(value) in NATIVE
        assert json.loads(json.dumps(value)) == value


def check_same_stream_same_values(parameter: Parameter) -> None:
    """Drawing depends on the random stream only."""
    assert samples(parameter) == samples(parameter)


def check_decode_inverts_encode(parameter: Parameter) -> None:
    """A value survives the way through the unit cube."""
    for value in samples(parameter):
        point = parameter.encode(value)
        assert len(point) == parameter.dimensions
        assert all(0.0 <= place <= 1.0 for place in point)
        assert same(parameter, parameter.decode(point), value)


def check_every_point_decodes_into_the_domain(parameter: Parameter) -> None:
    """Any point of the unit cube, corners included, is a value of the domain."""
    rng = random.Random(1)  # noqa: S311 - a test is no secret
    columns = range(parameter.dimensions)
    corners = [[0.0 for _ in columns], [1.0 for _ in columns]]
    for point in [*corners, *([rng.random() for _ in columns] for _ in range(20))]:
        value = parameter.decode(point)
        assert parameter.contains(value)
        assert same(parameter, parameter.decode(parameter.encode(value)), value) or parameter.size is None


def check_definition_round_trip(parameter: Parameter) -> None:
    """What the file would hold builds an equal parameter, also after JSON."""
    definition = parameter.definition()
    ((option, raw),) = json.loads(json.dumps(definition)).items()
    assert option == parameter.kind
    assert parse_parameter(parameter.name, option, raw) == parameter
    assert parse_parameter(parameter.name, option, raw).definition() == definition


def check_listing(parameter: Parameter) -> None:
    """A kind with a size lists exactly so many different values; the others refuse."""
    if parameter.size is None:
        with pytest.raises(TypeError, match="no list of values"):
            parameter.values()
        with pytest.raises(TypeError, match="no list of values"):
            parameter.value_at(0)
        return
    values = list(parameter.values())
    assert len(values) == parameter.size >= 1
    assert len({parameter.identity(value) for value in values}) == parameter.size


def check_support(parameter: Parameter) -> None:
    """A kind with a known support lists exactly the values that drawing can give."""
    if parameter.support is None or parameter.support > 10_000:
        return
    support = [parameter.support_at(index) for index in range(parameter.support)]
    identities = {parameter.identity(value) for value in support}
    assert len(identities) == parameter.support
    assert all(parameter.contains(value) for value in support)
    assert all(same(parameter, parameter.decode(parameter.encode(value)), value) for value in support)
    assert {parameter.identity(value) for value in samples(parameter)} <= identities


def check_classes(parameter: Parameter) -> None:
    """The flags agree with each other."""
    assert parameter.is_distribution or not parameter.is_continuous
    assert parameter.is_continuous == (parameter.size is None)
    assert not (parameter.is_dense and parameter.support is not None)
    assert parameter.is_categorical == (parameter.scale == "categorical")
    assert parameter.dimensions == (parameter.size if parameter.is_categorical else 1)
    assert parameter.scale in {"linear", "log", "categorical", "normal", "lognormal"}


def check_foreign_values(parameter: Parameter) -> None:
    """Values of other types do not belong to the domain, and asking is no error."""
    for value in (None, math.nan, math.inf, object(), ("no", "such"), "no such value"):
        assert not parameter.contains(value)
    if not parameter.is_categorical and not isinstance(samples(parameter)[0], bool):
        assert not parameter.contains(True)  # noqa: FBT003 - the value under test


CHECKS: tuple[Callable[[Parameter], None], ...] = (
    check_samples_lie_in_the_domain,
    check_values_are_native,
    check_same_stream_same_values,
    check_decode_inverts_encode,
    check_every_point_decodes_into_the_domain,
    check_definition_round_trip,
    check_listing,
    check_support,
    check_classes,
    check_foreign_values,
)

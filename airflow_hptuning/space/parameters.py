"""All kinds of parameters by the option that names them in a polyaxonfile."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.base import Parameter
from airflow_hptuning.space.choices import Choice, WeightedChoice
from airflow_hptuning.space.distributions import LogNormal, LogUniform, Normal, Uniform
from airflow_hptuning.space.notation import did_you_mean
from airflow_hptuning.space.quantised import QLogNormal, QLogUniform, QNormal, QUniform
from airflow_hptuning.space.ranges import GeomSpace, LinSpace, LogSpace, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PARAMETER_KINDS", "Parameter", "parse_parameter"]

_KINDS: tuple[type[Parameter], ...] = (
    Choice,
    WeightedChoice,
    Range,
    LinSpace,
    LogSpace,
    GeomSpace,
    Uniform,
    QUniform,
    LogUniform,
    QLogUniform,
    Normal,
    QNormal,
    LogNormal,
    QLogNormal,
)

PARAMETER_KINDS: Mapping[str, type[Parameter]] = MappingProxyType({kind.kind: kind for kind in _KINDS})
"""The class of each option."""


def parse_parameter(name: str, option: str, raw: Any) -> Parameter:
    """Build a parameter from its entry in the file.

    Args:
        name: Key of the parameter.
        option: Its only option, such as ``uniform``.
        raw: What the file holds below the option: a text ``a:b:c``, a list or a mapping.

    Raises:
        SearchSpaceError: When the option is unknown or its arguments describe no domain.
    """
    if option not in PARAMETER_KINDS:
        hint = did_you_mean(option, PARAMETER_KINDS) or f"The options are {', '.join(PARAMETER_KINDS)}."
        raise SearchSpaceError(f"`{option}` is no kind of parameter", hint)
    return PARAMETER_KINDS[option].parse(name, raw)

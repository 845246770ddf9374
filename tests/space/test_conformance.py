"""Every kind of parameter against the conformance kit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.space.parameters import PARAMETER_KINDS
from tests.kits.parameters import CHECKS
from tests.strategies import parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_hptuning.space.base import Parameter


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("kind", PARAMETER_KINDS)
@given(data=st.data())
def test_parameter_conforms(kind: str, check: Callable[[Parameter], None], data: st.DataObject) -> None:
    """Each kind passes each check."""
    check(data.draw(parameters([kind])))


def test_there_are_fourteen_kinds() -> None:
    """All kinds of Polyaxon's matrix exist, under their own names."""
    assert list(PARAMETER_KINDS) == [
        "values",
        "pvalues",
        "range",
        "linspace",
        "logspace",
        "geomspace",
        "uniform",
        "quniform",
        "loguniform",
        "qloguniform",
        "normal",
        "qnormal",
        "lognormal",
        "qlognormal",
    ]
    assert all(kind == cls.kind for kind, cls in PARAMETER_KINDS.items())

"""Hypothesis strategies for parameters and search spaces, as a polyaxonfile could hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from airflow_hptuning.space.parameters import PARAMETER_KINDS, Parameter, parse_parameter
from airflow_hptuning.space.search_space import SearchSpace
from airflow_hptuning.trials import CompletedTrial, TrialState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

LISTED_KINDS = ("values", "range", "linspace", "logspace", "geomspace")
"""What grid search admits."""

FINITE_KINDS = (*LISTED_KINDS, "pvalues", "quniform", "qloguniform")
"""Kinds with a known number of values."""

_decimals = st.integers(-5000, 5000).map(lambda number: number / 100)
_numbers = st.integers(-100, 100) | _decimals
_widths = st.integers(1, 200) | st.integers(1, 5000).map(lambda number: number / 100)
_counts = st.integers(1, 30)
_items = st.one_of(
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.text("abcxyz -'\"{}é", max_size=8),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text("ab", min_size=1, max_size=2), st.integers(0, 9), max_size=2),
)


@st.composite
def _values(draw: DrawFn) -> Any:
    return draw(st.lists(_items, min_size=1, max_size=8) | st.lists(_numbers, min_size=1, max_size=8))


@st.composite
def _pvalues(draw: DrawFn) -> Any:
    items = draw(_values())
    weights = [draw(st.integers(0, 10)) for _ in items]
    total = max(sum(weights), 1)
    return [[item, weight / total] for item, weight in zip(items, weights, strict=True)]


@st.composite
def _range(draw: DrawFn) -> Any:
    start, width = draw(_numbers), draw(_widths)
    step = draw(st.integers(1, 50) | st.sampled_from([0.1, 0.25, 0.5, 1.5, 3.3]))
    return [start, start + width, step]


@st.composite
def _linspace(draw: DrawFn) -> Any:
    start = draw(_numbers)
    return [start, start + draw(_widths), draw(_counts)]


@st.composite
def _logspace(draw: DrawFn) -> Any:
    start = draw(st.integers(-8, 4) | st.integers(-80, 40).map(lambda number: number / 10))
    arguments = [start, start + draw(st.sampled_from([0.5, 1, 2, 3.5])), draw(_counts)]
    return arguments + draw(st.sampled_from([[], [2], [10], [2.5], [0.5]]))


@st.composite
def _geomspace(draw: DrawFn) -> Any:
    start = draw(st.floats(1e-6, 1e3))
    ends = [start, start * draw(st.floats(1.1, 1e4))]
    ends = draw(st.sampled_from([ends, [-ends[1], -ends[0]]]))
    return [*ends, draw(_counts)]


@st.composite
def _uniform(draw: DrawFn) -> Any:
    low = draw(_numbers)
    return [low, low + draw(_widths)]


@st.composite
def _loguniform(draw: DrawFn) -> Any:
    low = draw(st.integers(-10, 5) | st.floats(-10, 5))
    return [low, low + draw(st.floats(0.1, 8))]


@st.composite
def _normal(draw: DrawFn) -> Any:
    return [draw(_numbers), draw(st.floats(0.01, 50))]


@st.composite
def _lognormal(draw: DrawFn) -> Any:
    return [draw(st.floats(-5, 5)), draw(st.floats(0.01, 3))]


@st.composite
def _quantised(draw: DrawFn, law: SearchStrategy[Any]) -> Any:
    return [*draw(law), draw(st.integers(1, 20) | st.sampled_from([0.01, 0.1, 0.25, 0.5, 1.5]))]


_ARGUMENTS: dict[str, SearchStrategy[Any]] = {
    "values": _values(),
    "pvalues": _pvalues(),
    "range": _range(),
    "linspace": _linspace(),
    "logspace": _logspace(),
    "geomspace": _geomspace(),
    "uniform": _uniform(),
    "quniform": _quantised(_uniform()),
    "loguniform": _loguniform(),
    "qloguniform": _quantised(_loguniform()),
    "normal": _normal(),
    "qnormal": _quantised(_normal()),
    "lognormal": _lognormal(),
    "qlognormal": _quantised(_lognormal()),
}


def definitions(kinds: Sequence[str] = tuple(PARAMETER_KINDS)) -> SearchStrategy[dict[str, Any]]:
    """Valid entries of a matrix, in list notation, such as ``{"uniform": [0, 1]}``."""
    return st.sampled_from(list(kinds)).flatmap(lambda kind: _ARGUMENTS[kind].map(lambda arguments: {kind: arguments}))


def parameters(kinds: Sequence[str] = tuple(PARAMETER_KINDS), name: str = "x") -> SearchStrategy[Parameter]:
    """Parameters of some kinds."""
    return definitions(kinds).map(lambda definition: build_parameter(name, definition))


def spaces(kinds: Sequence[str] = tuple(PARAMETER_KINDS), max_parameters: int = 4) -> SearchStrategy[SearchSpace]:
    """Spaces with parameters of some kinds."""
    return st.lists(definitions(kinds), min_size=1, max_size=max_parameters).map(
        lambda found: build_space({f"p{number}": one for number, one in enumerate(found)})
    )


def build_parameter(name: str, definition: dict[str, Any]) -> Parameter:
    """Build a parameter from an entry of a matrix with one option."""
    ((option, raw),) = definition.items()
    return parse_parameter(name, option, raw)


def build_space(matrix: dict[str, dict[str, Any]]) -> SearchSpace:
    """Build a space from a matrix."""
    return SearchSpace([build_parameter(name, definition) for name, definition in matrix.items()])


def completed(
    suggestions: Sequence[Any], evaluate: Callable[[Any], float | None], state: TrialState = TrialState.SUCCEEDED
) -> list[CompletedTrial]:
    """Return suggestions as trials that have ended with the value that ``evaluate`` gives for their params."""
    return [
        CompletedTrial(one.trial, one.params, evaluate(one.params), state, one.resource, one.bracket, one.rung)
        for one in suggestions
    ]

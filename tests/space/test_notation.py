"""The three notations of arguments, and what numbers look like."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.notation import exact, is_number, read_arguments, to_number
from airflow_hptuning.space.parameters import PARAMETER_KINDS, parse_parameter
from tests.strategies import build_parameter, definitions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (" 2 ", 2),
        ("-.5e+2", -50.0),
    ],
)
def test_texts_that_are_numbers(text: str, expected: float) -> None:
    """Numbers as YAML 1.1 leaves them in texts are read with their type."""
    number = to_number(text)
    assert number == expected
    assert type(number) is type(expected)


@pytest.mark.parametrize(
    "value", ["", "-", ".", "e5", "a", "007", "01.5", "1_000", "nan", "inf", "1e999", "1:2", "0x10", None, True, []]
)
def test_what_is_no_number(value: Any) -> None:
    """Names, infinities, booleans and numbers with leading zeros are not read as numbers."""
    assert to_number(value) is None


def test_integers_beyond_the_floats_are_no_numbers() -> None:
    """An integer that no float can hold is refused, not an overflow."""
    assert not is_number(10**400)
    assert to_number("9" * 5000) is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_texts_of_floats_are_read_back(value: float) -> None:
    """Every float is read from its own text, and is exactly what its text says."""
    assert to_number(repr(value)) == value
    assert float(exact(value)) == value


def test_exact_takes_decimals_at_their_word() -> None:
    """0.1 is one tenth."""
    assert exact(0.1) == Fraction(1, 10)


@given(definition=definitions([kind for kind in PARAMETER_KINDS if kind not in {"values", "pvalues"}]))
def test_three_notations_mean_the_same(definition: dict[str, Any]) -> None:
    """Text, list and mapping give equal parameters, and numbers may be texts in each."""
    parameter = build_parameter("x", definition)
    ((kind, raw),) = definition.items()
    cls: Any = PARAMETER_KINDS[kind]
    names = [*cls.required, *cls.optional][: len(raw)]
    text = ":".join(repr(number) for number in raw)
    assert parse_parameter("x", kind, text) == parameter
    assert parse_parameter("x", kind, [repr(number) for number in raw]) == parameter
    assert parse_parameter("x", kind, tuple(raw)) == parameter
    assert parse_parameter("x", kind, dict(zip(names, raw, strict=True))) == parameter


@pytest.mark.parametrize(
    ("kind", "short"),
    [("uniform", [0, 1]), ("quniform", [0, 1, 0.1]), ("normal", [0, 1]), ("qlognormal", [0, 1, 0.5])],
)
def test_size_is_accepted_and_ignored(kind: str, short: list[float]) -> None:
    """The optional ``size`` of distributions changes nothing, as in Polyaxon."""
    cls: Any = PARAMETER_KINDS[kind]
    plain = parse_parameter("x", kind, short)
    assert parse_parameter("x", kind, [*short, 3]) == plain
    assert parse_parameter("x", kind, dict(zip([*cls.required, "size"], [*short, 3], strict=True))) == plain


@pytest.mark.parametrize(
    ("raw", "message", "hint"),
    [
        ("0:10", "`range` takes 3 values (start, stop, step), but 2 were given", "`range: [start, stop, step]`"),
        ("5", "but 1 was given", ""),
        ([3, 4, 5, 6], "but 4 were given", ""),
        ([], "but 0 were given", ""),
        ({"start": 0, "stop": 1}, "`range` lacks `step`", ""),
        ({"start": 0, "stp": 1, "step": 1}, "`range` has no `stp`", "Did you mean `stop`?"),
        ({"start": 0, "stop": 1, "step": 1, "dtype": 1}, "`range` has no `dtype`", "start, stop, step"),
        ("a:b:c", "`start` of `range` must be a number, not 'a'", ""),
        ("0:nan:1", "`stop` of `range` must be a number, not 'nan'", ""),
        ([0, float("inf"), 1], "`stop` of `range` must be a finite number, not inf", ""),
        ([0, True, 1], "`stop` of `range` must be a number, not True", ""),
        ([0, None, 1], "`stop` of `range` must be a number, not nothing", ""),
        ([0, [1], 1], "`stop` of `range` must be a number, not a list", ""),
        ([0, {"a": 1}, 1], "not a mapping", ""),
        (3901, "`range` takes a text, a list or a mapping, not 3901", "base-60"),
        (None, "`range` takes a text, a list or a mapping, not nothing", ""),
        (True, "`range` takes a text, a list or a mapping, not True", ""),
    ],
)
def test_broken_arguments(raw: Any, message: str, hint: str) -> None:
    """Every way to get the arguments wrong has a message, and a hint where one helps."""
    with pytest.raises(SearchSpaceError) as caught:
        read_arguments("range", raw, ("start", "stop", "step"))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_optional_arguments_are_counted() -> None:
    """The message about a wrong count says how many are allowed."""
    with pytest.raises(SearchSpaceError, match="takes 3 to 4 values"):
        parse_parameter("x", "logspace", "1:2")


@pytest.mark.parametrize(
    ("option", "hint"), [("unifrom", "Did you mean `uniform`?"), ("choice", "The options are values, pvalues")]
)
def test_unknown_options(option: str, hint: str) -> None:
    """An unknown option is refused with the nearest known one, or with all."""
    with pytest.raises(SearchSpaceError, match="is no kind of parameter") as caught:
        parse_parameter("x", option, [1, 2])
    assert hint in caught.value.hint


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", PARAMETER_KINDS)
@given(raw=_anything | st.lists(st.integers() | st.floats(), min_size=2, max_size=4))
def test_any_input_is_a_parameter_or_an_error_of_ours(kind: str, raw: Any) -> None:
    """Whatever a file holds, the outcome is a usable parameter or a SearchSpaceError."""
    try:
        parameter = parse_parameter("x", kind, raw)
    except SearchSpaceError:
        return
    value = parameter.decode([0.5] * parameter.dimensions)
    assert parameter.contains(value)
    assert parameter.warnings() == parameter.warnings()

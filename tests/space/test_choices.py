"""``values`` and ``pvalues``."""

from __future__ import annotations

import datetime as dt
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.space.choices import Choice, WeightedChoice
from tests.kits.parameters import samples


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (["1e-3", "1e-4"], [0.001, 0.0001]),
        ([1, "2", 0.5], [1, 2, 0.5]),
        (["1e-3", "auto"], ["1e-3", "auto"]),
        (["1", True], ["1", True]),
        (["007", "1"], ["007", "1"]),
        ([True, False], [True, False]),
        ([1, 2.5, "a", [1, [2]], {"a": [None]}], [1, 2.5, "a", [1, [2]], {"a": [None]}]),
    ],
)
def test_items_keep_their_types(raw: list[Any], expected: list[Any]) -> None:
    """Texts become numbers only if all items are numbers or texts of numbers; nothing else is touched."""
    items = list(Choice.parse("x", raw).values())
    assert items == expected
    assert [type(item) for item in items] == [type(item) for item in expected]


def test_duplicates_are_dropped_with_a_warning() -> None:
    """The first of equal items stays, in the order of the file."""
    parameter = Choice.parse("x", [3, 1, 2, 2, 3.0])
    assert list(parameter.values()) == [3, 1, 2]
    ((message, hint),) = parameter.warnings()
    assert message == "3.0, 2 are listed more than once"
    assert "3 remain" in hint


def test_true_is_not_one() -> None:
    """Booleans and numbers are different items, and make categories when mixed."""
    parameter = Choice.parse("x", [True, 1, 0, False])
    assert parameter.size == 4
    assert parameter.is_categorical
    assert [parameter.decode(parameter.encode(value)) for value in parameter.values()] == [True, 1, 0, False]
    assert type(parameter.decode(parameter.encode(True))) is bool  # noqa: FBT003 - the value under test


def test_booleans_alone_are_ordered() -> None:
    """A list of booleans counts as numeric, as in Polyaxon, and gives booleans back."""
    parameter = Choice.parse("x", [True, False])
    assert (parameter.low, parameter.high, parameter.is_categorical) == (False, True, False)
    assert parameter.decode([0.9]) is True


def test_a_caller_cannot_change_the_items() -> None:
    """Lists and mappings are handed out as copies."""
    parameter = Choice.parse("x", [[1], {"a": [1]}])
    parameter.value_at(0).append(2)
    parameter.value_at(1)["a"].append(2)
    assert list(parameter.values()) == [[1], {"a": [1]}]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("1:2:3", "`values` must be a list"),
        ({"a": 1}, "`values` must be a list"),
        (None, "`values` must be a list"),
        ([], "`values` is empty"),
        ([1, None], "item 2 of `values` is null"),
        ([math.nan], "item 1 of `values` must be a finite number"),
        ([math.inf, 1], "item 1 of `values` must be a finite number"),
        ([[1, math.nan]], "item 1 of `values` must be a finite number"),
        ([10**400], "item 1 of `values` must be a finite number"),
        ([dt.date(2020, 1, 1)], "item 1 of `values` is a date"),
        ([{1: 2}], "item 1 of `values` has a key that is no text"),
    ],
)
def test_refused_values(raw: Any, message: str) -> None:
    """What is no list of plain values is refused with the place of the item."""
    with pytest.raises(SearchSpaceError) as caught:
        Choice.parse("x", raw)
    assert message in caught.value.message


def test_a_list_that_contains_itself_is_refused() -> None:
    """YAML aliases can build such a list; it is an error of ours and not a RecursionError."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(SearchSpaceError, match="nested more than 20 levels"):
        Choice.parse("x", [endless])


@pytest.mark.parametrize(
    ("items", "scale", "places"),
    [
        ([1, 2, 3], "linear", [0.0, 0.5, 1.0]),
        ([3, 1, 2], "linear", [1.0, 0.0, 0.5]),
        ([0.001, 0.01, 0.1], "log", [0.0, 0.5, 1.0]),
        ([64, 128, 256, 512], "linear", [0.0, 1 / 7, 3 / 7, 1.0]),
        ([2**53 + 1, float(2**53)], "linear", [1.0, 0.0]),
        ([0, 1e-30, 2e-30, 1e300], "linear", [0.0, 1 / 3, 2 / 3, 1.0]),
        ([-1.5e308, 0, 1.5e308], "linear", [0.0, 0.5, 1.0]),
        ([7], "linear", [0.5]),
    ],
)
def test_places_of_numbers(items: list[float], scale: str, places: list[float]) -> None:
    """Numbers lie on a linear scale, on a logarithmic one if that spreads them, evenly if floats cannot tell."""
    parameter = Choice.parse("x", items)
    assert parameter.scale == scale
    assert [parameter.encode(item)[0] for item in items] == pytest.approx(places, abs=1e-12)
    assert [parameter.decode(parameter.encode(item)) for item in items] == items


def test_categories_have_a_column_each() -> None:
    """A category is the column with the largest coordinate, the first of equals."""
    parameter = Choice.parse("x", ["a", "b", "c"])
    assert parameter.encode("b") == (0.0, 1.0, 0.0)
    assert parameter.decode([0.2, 0.1, 0.3]) == "c"
    assert parameter.decode([0.5, 0.5, 0.5]) == "a"


def test_numbers_snap_to_the_nearest_and_the_first_of_equals() -> None:
    """Halfway between two numbers the first one is taken, as Polyaxon did."""
    parameter = Choice.parse("x", [1, 2, 3])
    assert [parameter.decode([place]) for place in (0.0, 0.24, 0.25, 0.26, 0.75, 1.0)] == [1, 1, 1, 2, 2, 3]


def test_encoding_a_foreign_value_is_an_error() -> None:
    """A value that is not listed has no place."""
    with pytest.raises(ValueError, match="'z' is no value of `x`"):
        Choice.parse("x", ["a"]).encode("z")


def test_probabilities_are_kept() -> None:
    """Frequencies agree with the probabilities: 10,000 draws, 5 standard deviations, fixed seed."""
    parameter = WeightedChoice.parse("x", [["adam", 0.5], ["rmsprop", 0.3], ["sgd", 0.2]])
    drawn = samples(parameter, 10_000, seed=5)
    for name, probability in (("adam", 0.5), ("rmsprop", 0.3), ("sgd", 0.2)):
        sigma = math.sqrt(probability * (1 - probability) * 10_000)
        assert abs(drawn.count(name) - probability * 10_000) < 5 * sigma


def test_missing_mass_goes_to_the_last_value_with_a_warning() -> None:
    """The documented ``[[relu, 0.1], [sigmoid, 0.8]]`` means 0.1 and 0.9, within 5 standard deviations."""
    parameter = WeightedChoice.parse("x", [["relu", 0.1], ["sigmoid", 0.8]])
    assert parameter.weights == pytest.approx((0.1, 0.9))
    ((message, _),) = parameter.warnings()
    assert message == (
        "the probabilities of `pvalues` add up to 0.9; the missing 0.1 goes to the last value, 'sigmoid'"
    )
    drawn = samples(parameter, 10_000, seed=6)
    assert abs(drawn.count("relu") - 1000) < 5 * 30


@pytest.mark.parametrize("weights", [[0.2, 0.4, 0.3, 0.1], [0.1] * 10, [1 / 3] * 3, [0.7, 0.2, 0.1], [1.0], [1]])
def test_sums_that_are_one_but_for_noise(weights: list[float]) -> None:
    """Float noise in the sum neither refuses the file nor warns."""
    assert WeightedChoice.parse("x", [[str(i) + "a", w] for i, w in enumerate(weights)]).warnings() == []


def test_a_value_without_probability_is_never_drawn() -> None:
    """Zeros anywhere are never drawn, decoded or counted in the support, but they keep their columns."""
    parameter = WeightedChoice.parse("x", [["a", 0], ["b", 0.5], ["c", 0.0], ["d", 0.5], ["e", 0]])
    assert set(samples(parameter, 500)) == {"b", "d"}
    assert (parameter.size, parameter.support, parameter.dimensions) == (5, 2, 5)
    assert parameter.decode([1, 0.2, 1, 0.3, 1]) == "d"
    assert not parameter.contains("a")


def test_repeated_values_add_up() -> None:
    """A value listed twice gets both probabilities, and the missing mass follows the entry written last."""
    parameter = WeightedChoice.parse("x", [["a", 0.25], ["b", 0.25], ["a", 0.25]])
    assert dict(zip(parameter.items, parameter.weights, strict=True)) == {"a": 0.75, "b": 0.25}
    assert parameter.warnings()[0][0] == "'a' is listed more than once"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("a:b", "`pvalues` must be a list"),
        ([], "`pvalues` is empty"),
        (["a", "b"], "item 1 of `pvalues` is not a pair"),
        ([["a", 0.5, 1]], "item 1 of `pvalues` is not a pair"),
        ([["a", -0.1], ["b", 0.5]], "the probability of item 1 of `pvalues` must be a number from 0 to 1, not -0.1"),
        ([["a", 0.1], ["b", 2]], "the probability of item 2 of `pvalues` must be a number from 0 to 1, not 2"),
        ([["a", "x"]], "the probability of item 1 of `pvalues` must be a number from 0 to 1, not 'x'"),
        ([["a", math.nan]], "the probability of item 1 of `pvalues` must be a number from 0 to 1, not nan"),
        ([["a", True]], "the probability of item 1 of `pvalues` must be a number from 0 to 1, not True"),
        ([[None, 0.5]], "item 1 of `pvalues` is null"),
        ([["a", 0.6], ["b", 0.5]], "the probabilities of `pvalues` add up to 1.1, which is more than 1"),
    ],
)
def test_refused_pvalues(raw: Any, message: str) -> None:
    """What is no list of pairs with probabilities is refused."""
    with pytest.raises(SearchSpaceError) as caught:
        WeightedChoice.parse("x", raw)
    assert message in caught.value.message


@given(st.lists(st.integers(0, 10), min_size=1, max_size=6), st.integers(0, 100))
def test_drawing_follows_the_support(weights: list[int], seed: int) -> None:
    """Any weights that do not exceed one draw only what has probability."""
    total = max(sum(weights), 1)
    parameter = WeightedChoice.parse("x", [[index, weight / total] for index, weight in enumerate(weights)])
    rng = random.Random(seed)  # noqa: S311 - a test is no secret
    for _ in range(20):
        assert parameter.weights[parameter.sample(rng)] > 0

"""The schedule of Hyperband: tables, properties, and Polyaxon's own numbers."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.search.schedule import (
    Bracket,
    deepest_bracket,
    exact_factor,
    schedule,
    schedule_warnings,
)

_PATH = Path(__file__).resolve().parents[3] / "shared" / "polyaxon" / "hyperband_tables.json"

_TABLES: dict[str, Any] = json.loads(_PATH.read_text()) if _PATH.exists() else {}

_FEWER_BRACKETS = {"243/3", "1000/10"}
"""Deviation: a logarithm of floats lost the deepest bracket of these; exact arithmetic keeps it."""

_CUT_RESOURCES = {
    # Deviation: casting a float to int gave the top rung less than it was promised.
    ("100/3", 3, 3): (99, 100),
    ("100/3", 1, 1): (99, 100),
    ("500/3", 2, 2): (499, 500),
}

_factors = st.fractions(min_value=Fraction(11, 10), max_value=10, max_denominator=10)
_resources = st.integers(1, 2000)
_types = st.sampled_from(["int", "float"])


def rows(brackets: tuple[Bracket, ...]) -> list[list[tuple[int, float]]]:
    """Return trials and resource of every rung, by bracket."""
    return [[(rung.trials, rung.resource) for rung in bracket.rungs] for bracket in brackets]


@pytest.mark.parametrize(
    ("max_resource", "factor", "starts", "trials"),
    [
        (81, 3, [81, 34, 15, 8, 5], 206),
        (243, 3, [243, 98, 41, 18, 9, 6], 611),
        (1000, 10, [1000, 134, 20, 4], 1285),
        (100, 3, [81, 34, 15, 8, 5], 206),
        (729, 3, [729, 284, 114, 48, 21, 11, 7], 1806),
        (10, 3, [9, 5, 3], 22),
        (5, 3, [3, 2], 6),
        (3, 2.9, [3, 2], 6),
        (1, 3, [1], 1),
    ],
)
def test_starts(max_resource: int, factor: float, starts: list[int], trials: int) -> None:
    """Known numbers of configs at the start of each bracket, and of trials in all."""
    brackets = schedule(max_resource, factor)
    assert [bracket.rungs[0].trials for bracket in brackets] == starts
    assert sum(bracket.trials for bracket in brackets) == trials
    assert [bracket.bracket for bracket in brackets] == list(range(len(starts)))[::-1]


def test_the_whole_table_of_81_and_3() -> None:
    """The table of the documentation, with the numbers that Polyaxon's code had."""
    assert rows(schedule(81, 3, "int")) == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]


@pytest.mark.skipif(not _TABLES, reason="the shared folder with Polyaxon's tables is not beside the repository")
def test_tables_are_there() -> None:
    """The file holds what the test below is made from."""
    assert len(_TABLES) >= 13
    assert set(_TABLES) >= _FEWER_BRACKETS


@pytest.mark.parametrize("name", _TABLES)
@pytest.mark.parametrize("resource_type", ["int", "float"])
def test_tables_of_polyaxon(name: str, resource_type: Literal["int", "float"]) -> None:
    """Polyaxon's schedules hold, apart from named deviations.

    Deviations: no extra rung beyond max_iter; brackets that a float error lost (``_FEWER_BRACKETS``) are back;
    integer resources are not cut by float errors (``_CUT_RESOURCES``).
    """
    table = _TABLES[name]
    max_resource, factor = name.split("/")
    brackets = schedule(int(max_resource), factor, resource_type)
    if name in _FEWER_BRACKETS:
        assert len(brackets) == table["s_max"] + 2
        return
    assert len(brackets) == table["s_max"] + 1
    expected = [row for row in table["rows"] if not row["extra"]]
    ours = [(bracket, rung) for bracket in brackets for rung in bracket.rungs]
    assert len(ours) == len(expected)
    for (bracket, rung), row in zip(ours, expected, strict=True):
        assert (bracket.bracket, rung.rung, rung.trials) == (row["bracket"], row["rung"], row["n"])
        if resource_type == "float":
            assert rung.resource == pytest.approx(row["resource"], abs=1e-6)
        else:
            place = (name, bracket.bracket, rung.rung)
            polyaxon, our = _CUT_RESOURCES.get(place, (row["resource_int"], row["resource_int"]))
            assert (row["resource_int"], rung.resource) == (polyaxon, our)
    assert sum(bracket.trials for bracket in brackets) == table["total_runs_without_extra"]


@given(_resources, _factors)
def test_the_deepest_bracket_is_exact(max_resource: int, factor: Fraction) -> None:
    """η^s_max ≤ R < η^(s_max+1)."""
    deepest = deepest_bracket(max_resource, factor)
    assert factor**deepest <= max_resource < factor ** (deepest + 1)


def test_powers_are_where_logarithms_fail() -> None:
    """At every power of a whole factor the deepest bracket is the exponent."""
    for factor in (2, 3, 5, 7, 10):
        for exponent in range(15):
            assert deepest_bracket(factor**exponent, Fraction(factor)) == exponent


@given(_resources, _factors, _types, st.none() | st.integers(1, 50))
def test_rungs(max_resource: int, factor: Fraction, resource_type: Any, limit: int | None) -> None:
    """Rungs fall in size and rise in resource, none gets nothing, and the last one gets exactly R."""
    for bracket in schedule(max_resource, factor, resource_type, limit=limit):
        sizes = [rung.trials for rung in bracket.rungs]
        resources = [rung.resource for rung in bracket.rungs]
        assert [rung.rung for rung in bracket.rungs] == list(range(len(sizes)))
        assert sizes == sorted(set(sizes), reverse=True)
        assert resources == sorted(set(resources))
        assert resources[0] >= 1
        assert resources[-1] == max_resource
        assert sizes[-1] >= 1
        assert all(type(resource).__name__ == resource_type for resource in resources)
        assert limit is None or sizes[0] <= limit


@given(_resources, _factors)
def test_formulas(max_resource: int, factor: Fraction) -> None:
    """Starts and sizes are those of the formulas before rungs are merged, and no bracket costs more than its share."""
    brackets = schedule(max_resource, factor)
    deepest = len(brackets) - 1
    for bracket in brackets:
        s = bracket.bracket
        start = math.ceil((deepest + 1) * factor**s / (s + 1))
        assert [rung.trials for rung in bracket.planned] == [math.floor(start / factor**i) for i in range(s + 1)]
        work = sum(rung.trials * rung.resource for rung in bracket.planned)
        # Each rung costs at most n·r = (s_max+1)·R/(s+1), and up to one config more, which the ceiling adds.
        rounding = sum(rung.resource / factor**rung.rung for rung in bracket.planned)
        assert work <= (deepest + 1) * max_resource + rounding + 1e-6


@given(_resources, _factors, _types)
def test_trials_are_numbered_through(max_resource: int, factor: Fraction, resource_type: Any) -> None:
    """Every trial of every rung has a number of its own, without gaps."""
    numbers = [
        number
        for bracket in schedule(max_resource, factor, resource_type)
        for rung in bracket.rungs
        for number in range(bracket.offset(rung.rung), bracket.offset(rung.rung) + rung.trials)
    ]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("factor", [2.9, "2.9", Decimal("2.9"), Fraction(29, 10)])
def test_factors_mean_what_is_written(factor: Any) -> None:
    """2.9 is 29/10 in every notation."""
    assert exact_factor(factor) == Fraction(29, 10)
    assert schedule(3, factor) == schedule(3, Fraction(29, 10))


def test_rungs_with_the_same_whole_resource_are_merged() -> None:
    """10/1.5 with whole resources has two rungs of 1 in its deepest bracket; they become one, with a warning."""
    brackets = schedule(10, "1.5", "int")
    assert rows(brackets)[0] == [(8, 1), (3, 2), (2, 4), (1, 10)]
    ((message, _),) = schedule_warnings(brackets)
    assert message == "rungs that differ in nothing are merged in bracket 5"
    assert schedule_warnings(schedule(81, 3, "int")) == []


def test_a_rung_that_promotes_everything_is_merged() -> None:
    """With a factor below 2 a rung can promote all its trials: it tells nothing and goes."""
    brackets = schedule(3, 1.2)
    assert [rung.trials for rung in brackets[0].planned] == [3, 2, 2, 1, 1, 1, 1]
    assert [rung.trials for rung in brackets[0].rungs] == [3, 2, 1]


def test_small_spaces_cut_the_rungs() -> None:
    """Six configs cannot fill a rung of 81: rungs shrink by the same factor, the best config still gets R."""
    brackets = schedule(81, 3, "int", limit=6)
    assert rows(brackets) == [
        [(6, 1), (2, 3), (1, 81)],
        [(6, 3), (2, 9), (1, 81)],
        [(6, 9), (2, 27), (1, 81)],
        [(6, 27), (2, 81)],
        [(5, 81)],
    ]
    ((message, _),) = schedule_warnings(brackets)
    assert message == "the search space has fewer configs than bracket 4 starts with: 6 trials rather than 81"


@pytest.mark.parametrize(
    ("max_resource", "factor", "message"),
    [
        (0, 3, "the maximum resource must be at least 1, not 0"),
        (81, 1, "the reduction factor must be more than 1, not 1"),
        (81, 0, "the reduction factor must be more than 1, not 0"),
        (81, 0.5, "the reduction factor must be more than 1, not 0.5"),
        (81, -3, "the reduction factor must be more than 1, not -3"),
        (81, 1.0001, "a reduction factor of 1.0001 gives more than 100 brackets"),
    ],
)
def test_refused_settings(max_resource: int, factor: float, message: str) -> None:
    """Settings that make no schedule are refused, not looped over."""
    with pytest.raises(ValueError, match=message):
        schedule(max_resource, factor)

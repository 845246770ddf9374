"""Bounds and simulated makespans of schedules."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.search.schedule import Bracket, Rung, schedule
from airflow_hptuning.search.simulation import CriticalPath, critical_path, makespan

_schedules = st.builds(
    schedule,
    st.integers(1, 100),
    st.fractions(min_value=Fraction(3, 2), max_value=5, max_denominator=4),
    st.sampled_from(["int", "float"]),
)


def test_critical_path_of_81_and_3() -> None:
    """The longest chain is that of the deepest bracket: 1 + 3 + 9 + 27 + 81."""
    brackets = schedule(81, 3, "int")
    assert critical_path(brackets) == CriticalPath(chain=121, work=1902)
    # 81 · 1 + 27 · 2 + 9 · 6 + 3 · 18 + 1 · 54 and so on, when promoted configs go on from their checkpoints.
    assert critical_path(brackets, resume=True) == CriticalPath(chain=81, work=297 + 276 + 279 + 324 + 405)
    assert critical_path(brackets, sequential=True).chain == 121 + 120 + 117 + 108 + 81


def test_makespan_by_hand() -> None:
    """Two slots: three trials of 1 take 2, then one of 3; the other bracket's trial of 4 fills the gap."""
    deep = Bracket(1, (Rung(0, 3, 1), Rung(1, 1, 3)), 0)
    flat = Bracket(0, (Rung(0, 1, 4),), 4)
    assert makespan([deep], 2) == 5
    # t=0: two of 1; t=1: the third of 1 and the 4; t=2: the 3; both end at 5.
    assert makespan([deep, flat], 2) == 5
    assert makespan([deep, flat], 2, sequential=True) == 9
    assert makespan([deep, flat], 1) == 10
    assert makespan([deep], 2, resume=True) == 4


def test_side_by_side_is_near_the_bound() -> None:
    """81/3 on 10 slots: 206 against 588 one after the other, and within 10 % of the physical bound."""
    brackets = schedule(81, 3, "int")
    assert makespan(brackets, 10, sequential=True) == 588
    assert makespan(brackets, 10) == 206
    assert makespan(brackets, 10) <= 1.1 * critical_path(brackets).bound(10)


@given(_schedules, st.integers(1, 50), st.booleans(), st.booleans())
def test_bounds_hold(brackets: tuple[Bracket, ...], concurrency: int, sequential: bool, resume: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    """No simulation beats the bound; one slot takes all the work; enough slots take the longest chain."""
    path = critical_path(brackets, sequential=sequential, resume=resume)
    took = makespan(brackets, concurrency, sequential=sequential, resume=resume)
    assert took >= path.bound(concurrency) - 1e-6
    assert took <= path.work + 1e-6
    assert makespan(brackets, 1, sequential=sequential, resume=resume) == pytest.approx(path.work)
    slots = sum(bracket.trials for bracket in brackets)
    assert makespan(brackets, slots, sequential=sequential, resume=resume) == pytest.approx(path.chain)


def test_no_slot_no_simulation() -> None:
    """A concurrency below 1 is refused, not waited for."""
    with pytest.raises(ValueError, match="at least 1, not 0"):
        makespan(schedule(9, 3), 0)

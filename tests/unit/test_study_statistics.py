"""Intervals and power of a study."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.study.statistics import Marks, differences, estimate, mean, power, values

ROWS = [f"t-{n}" for n in range(6)]


def marks(bits: dict[int, dict[int, list[bool]]]) -> Marks:
    return {d: {s: dict(zip(ROWS, row, strict=False)) for s, row in seeds.items()} for d, seeds in bits.items()}


def tables() -> st.SearchStrategy[Marks]:
    row = st.lists(st.booleans(), min_size=len(ROWS), max_size=len(ROWS))
    seeds = st.fixed_dictionaries({0: row, 1: row})
    return st.dictionaries(st.integers(0, 3), seeds, min_size=1, max_size=4).map(marks)


@settings(max_examples=30, deadline=None)
@given(tables(), tables())
def test_swapping_the_two_sides_turns_the_sign_and_nothing_else(ours: Marks, theirs: Marks) -> None:
    there, back = (estimate(differences(a, b), resamples=200) for a, b in ((ours, theirs), (theirs, ours)))
    if there is None or back is None:
        assert there is back is None and not ours.keys() & theirs.keys()
        return
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low), abs=1e-12)
    assert there.low - 1e-12 <= there.high


@settings(max_examples=20, deadline=None)
@given(tables())
def test_a_constant_difference_has_an_interval_without_width(ours: Marks) -> None:
    same = estimate(differences(ours, ours), resamples=200)
    assert same is not None and (same.value, same.low, same.high) == (0.0, 0.0, 0.0) and not same.settled
    everywhere = marks({draw: {s: [True] * len(ROWS) for s in (0, 1)} for draw in ours})
    nowhere = marks({draw: {s: [False] * len(ROWS) for s in (0, 1)} for draw in ours})
    found = estimate(differences(everywhere, nowhere), resamples=200)
    assert found is not None and (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0)) and found.settled


@settings(max_examples=20, deadline=None)
@given(tables())
def test_the_mean_lies_in_the_range_of_its_draws_and_is_the_difference_of_means(ours: Marks) -> None:
    draws = values(ours)
    assert min(d.mean() for d in draws) - 1e-12 <= mean(draws) <= max(d.mean() for d in draws) + 1e-12
    nobody = marks({draw: {s: [False] * len(ROWS) for s in (0, 1)} for draw in ours})
    assert mean(differences(ours, nobody)) == pytest.approx(mean(draws))


def test_a_small_example_by_hand() -> None:
    ours = marks({0: {0: [True, True, True, False]}, 1: {0: [True, True, False, False]}})
    theirs = marks({0: {0: [True, False, True, False]}, 1: {0: [True, True, False, False]}})
    # Draw 0: one of four rows gained; draw 1: none.
    assert [table.tolist() for table in differences(ours, theirs)] == [[[0, 1, 0, 0]], [[0, 0, 0, 0]]]
    found = estimate(differences(ours, theirs), resamples=4000)
    assert found is not None and found.value == 0.125
    # Of two draws that are 1/4 of a row's chance and 0: never below 0, and in 1 of 4 samples 0 twice, so the low end is 0.
    assert found.low == 0.0 and 0.25 <= found.high <= 0.625
    assert mean(values(ours)) == (0.75 + 0.5) / 2


def test_rows_and_draws_that_only_one_side_has_do_not_count() -> None:
    ours = {0: {0: {"a": True, "b": False}}, 5: {0: {"a": True}}}
    theirs = {0: {0: {"b": False, "c": True}}, 7: {0: {"a": False}}}
    assert [table.tolist() for table in differences(ours, theirs)] == [[[0.0]]]
    assert estimate(differences(ours, {7: {0: {"a": True}}}), resamples=200) is None


def test_the_interval_of_one_big_draw_is_that_of_a_proportion() -> None:
    right = {0: {0: {f"t-{n}": n % 4 != 0 for n in range(400)}}}
    found = estimate(values(right), resamples=4000)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.75, 0.75 - half, 0.75 + half), abs=0.006)


def test_power_counts_the_draws_that_are_missing() -> None:
    means = [0.02, 0.06, 0.04]  # d = 0.04, s^2 = 0.0004: (1.96 + 0.84)^2 / 4 = 1.96, two draws, and there are three
    tables = [np.full((1, 10), value) for value in means]
    assert power(tables).more == 0
    assert power([np.full((1, 10), value) for value in (-0.05, 0.03, 0.05)]).more == 220 - 3  # s^2 = 0.0028, d = 0.01
    assert power(tables[:1]).more is None and power([]).more is None
    assert power([np.zeros((1, 4)), np.zeros((1, 4))]).more is None


def test_power_tells_run_seeds_from_draws() -> None:
    found = power([np.array([[0.0, 0.0], [0.2, 0.2]]), np.array([[0.1, 0.1], [0.3, 0.3]])])
    assert found.within == pytest.approx(0.02 / 2)  # variance of (0, 0.2) over two run seeds
    assert found.between == 0.0  # the draws' means, 0.1 and 0.2, vary by 0.005, less than their run seeds explain

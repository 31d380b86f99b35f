"""Which student is kept and when it has stopped gaining: by accuracies on the dev rows alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.rounds.dev_gain import kept, without_gain

ACCURACIES = st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("accuracies", "number", "students"),
    [
        ([0.5], 0, 0),
        ([0.5, 0.6], 1, 0),
        ([0.6, 0.5], 0, 1),
        ([0.5, 0.6, 0.6, 0.55], 2, 2),  # of equals the latest is kept, though it gained nothing
        ([0.5, 0.5, 0.5], 2, 2),
    ],
)
def test_the_best_is_kept_and_students_without_gain_are_counted(accuracies: list[float], number: int, students: int) -> None:
    assert (kept(accuracies), without_gain(accuracies)) == (number, students)


@given(ACCURACIES)
def test_nobody_is_better_than_the_kept_one_and_nobody_after_it_as_good(accuracies: list[float]) -> None:
    chosen = kept(accuracies)
    assert all(value <= accuracies[chosen] for value in accuracies)
    assert all(value < accuracies[chosen] for value in accuracies[chosen + 1 :])


@given(ACCURACIES)
def test_students_without_gain_are_those_after_the_first_best(accuracies: list[float]) -> None:
    assert without_gain(accuracies) == len(accuracies) - 1 - accuracies.index(max(accuracies))


def test_without_an_exam_nothing_is_chosen() -> None:
    with pytest.raises(ValueError, match="no student"):
        kept([])

"""The contamination gate's measure: what counts as near, templates, and that the order of rows changes nothing."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.types import Example


def rows(*texts: str) -> list[Example]:
    return [Example(id=f"t-{number}", input=text, output="") for number, text in enumerate(texts)]


def found(held_out: str, text: str, threshold: float = 0.8) -> float | None:
    match = HeldOut(rows(held_out), threshold).find(text)
    return None if match is None else match[1]


WORDS = [f"{first}{rest}" for first in "abcdefgh" for rest in ("lpha", "ravo", "harlie")]


@pytest.mark.parametrize(
    ("length", "changed"),
    [(3, 0), (4, 1), (5, 1), (9, 1), (10, 2), (14, 2), (15, 3), (20, 4)],
)
def test_a_fifth_of_the_words_may_differ_and_one_of_four(length: int, changed: int) -> None:
    text = WORDS[:length]
    for count in (changed, changed + 1):
        edited = [*["x", "y", "z", "u", "v"][:count], *text[count:]]
        assert (found(" ".join(text), " ".join(edited)) is not None) == (count == changed)


def test_scores_and_thresholds() -> None:
    text = "What county is Modesto in ?"
    assert found(text, "WHAT county, is Modesto in") == 1.0
    assert found(text, "In what county is Modesto?") == 0.99
    assert found(text, "Which county is Modesto in") == 0.8
    assert found(text, "Which county is Modesto in", threshold=0.81) is None
    assert found(text, "In what county is Modesto?", threshold=1.0) is None
    assert found(text, "what county is modesto in", threshold=1.0) == 1.0
    assert found(text, "") is None and found("", "What county is Modesto in") is None and found(" ", " ") is None


def test_the_best_match_wins_then_the_smallest_id() -> None:
    gate = HeldOut(rows("one two three four six", "one two three four five", "one two three four seven"), 0.8)
    assert gate.find("one two three four five") == ("t-1", 1.0)
    assert gate.find("one two three four eight") is None, "three fillings of one place: a template"
    assert gate.find("zero one two three four six") == ("t-0", 0.833333)
    two = HeldOut(rows("one two three four six", "zero two three four five"), 0.8)
    assert two.find("one two three four five") == ("t-0", 0.8)


def test_fillings_among_held_out_rows_show_a_template_too() -> None:
    held_out = [f"What does the word {word} mean ?" for word in ("fortnight", "opera", "meta")]
    assert HeldOut(rows(*held_out), 0.8).find("What does the word terrorism mean ?") is None
    assert HeldOut(rows(*held_out[:2]), 0.8).find("What does the word terrorism mean ?") == ("t-0", 0.833333)


_TEXTS = st.lists(st.lists(st.sampled_from("abcde"), max_size=7).map(" ".join), max_size=7)


@given(_TEXTS, _TEXTS, st.lists(st.sampled_from("abcde"), max_size=7).map(" ".join), st.randoms(use_true_random=False))
def test_order_changes_nothing(held_out: list[str], known: list[str], text: str, draw: random.Random) -> None:
    kept, real = rows(*held_out), rows(*known)
    usual = HeldOut(kept, 0.7, real).find(text)
    assert HeldOut(draw.sample(kept, len(kept)), 0.7, draw.sample(real, len(real))).find(text) == usual


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=8), st.lists(st.sampled_from("abcde"), min_size=1, max_size=8))
def test_every_pair_is_counted_as_by_hand(one: list[str], other: list[str]) -> None:
    common = (Counter(one) & Counter(other)).total()
    longer = max(len(one), len(other))
    changed = longer - common
    near = changed == 0 or (longer >= 4 and 1 - changed / max(5, longer) >= 0.8 - 1e-9)
    assert (found(" ".join(one), " ".join(other)) is not None) == near

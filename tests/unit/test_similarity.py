"""Near-duplicate search: the rule, its independence of order, and that LSH misses nothing the rule means."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.augmentation.similarity import NearDuplicates

_LONG = "The hotel room was clean and quiet and the staff were very friendly to all of us"


def _found(one: str, other: str, threshold: float = 0.9) -> tuple[str, float] | None:
    index = NearDuplicates(threshold)
    index.add("one", one)
    return index.find(other)


def test_the_same_text_scores_one_and_a_reordered_one_less() -> None:
    assert _found("Where is Peru?", "where is peru") == ("one", 1.0)
    assert _found("Where is Peru?", "Peru is where?") == ("one", 0.99)


def test_threshold_one_means_the_same_text_only() -> None:
    assert _found("Where is Peru?", "Peru is where?", threshold=1.0) is None
    assert _found("Where is Peru?", "where is peru", threshold=1.0) == ("one", 1.0)


def test_short_texts_of_one_template_are_different() -> None:
    assert _found("What is the capital of France?", "What is the capital of Peru?", threshold=0.5) is None


@pytest.mark.parametrize(("changes", "found"), [(1, True), (2, True), (3, False)])
def test_two_of_twelve_words_may_differ(changes: int, found: bool) -> None:
    twelve = [*("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet"), "kilo", "lima"]
    changed = [*("mike", "november", "oscar")[:changes], *twelve[changes:]]
    assert (_found(" ".join(twelve), " ".join(changed)) is not None) == found
    eleven, changed = twelve[:-1], changed[:-1]
    assert _found(" ".join(eleven), " ".join(changed)) is None


def test_words_added_to_or_dropped_from_a_long_text_count_as_changes() -> None:
    assert _found(_LONG, f"{_LONG} really") is not None
    assert _found(_LONG, _LONG.replace("very ", "")) is not None
    assert _found(_LONG, f"{_LONG} and we shall come again next summer") is None


def test_other_numbers_are_another_text_however_long() -> None:
    problem = "Maria bakes 24 muffins on Saturday and sells 15 of them at the market; how many muffins are left?"
    assert _found(problem, problem.replace("24", "36")) is None
    assert _found(problem, problem.replace("24", "15").replace("sells 15", "sells 24")) is None
    assert _found(problem, problem.replace("Maria", "Laura")) is not None


def test_a_repeated_word_counts_each_time() -> None:
    assert _found(" ".join(["very"] * 12), " ".join(["very"] * 20)) is None


def test_the_best_match_wins_then_the_smallest_id() -> None:
    index = NearDuplicates(0.8)
    index.add("a", _LONG.replace("clean", "tidy"))
    index.add("c", _LONG)
    index.add("b", _LONG.upper())
    assert index.find(_LONG) == ("b", 1.0)
    assert index.find(_LONG.replace("quiet", "calm")) == ("b", 1 - 1 / 20)
    index.add("c", "another row of that name")
    assert index.find("Another row, of that name.") == ("c", 1.0)


def test_blank_text_is_found_nowhere() -> None:
    assert _found(" ", "\n") is None


def test_seed_changes_no_result_here() -> None:
    for seed in range(3):
        index = NearDuplicates(0.9, seed=seed)
        index.add("x", _LONG)
        assert index.find(_LONG.replace("quiet", "calm")) == ("x", 0.95)


@pytest.mark.parametrize(("threshold", "changes"), [(0.9, 2), (0.8, 4)])
def test_lsh_recall_at_the_threshold(threshold: float, changes: int) -> None:
    draw = random.Random(7)
    vocabulary = [f"{a}{b}" for a in "bcdfghjklm" for b in ("ank", "ell", "ino", "op", "urt")]
    rows = [draw.sample(vocabulary, 12) for _ in range(300)]
    index = NearDuplicates(threshold)
    for number, row in enumerate(rows):
        index.add(f"r{number}", " ".join(row))
    found = 0
    for number, row in enumerate(rows):
        changed = ["other"] * changes + row[changes:]
        match = index.find(" ".join(changed))
        found += match is not None and match == (f"r{number}", threshold)
    assert found >= 297


_TEXTS = st.lists(st.text("abc 12.,", max_size=20), max_size=8)


@settings(deadline=None)
@given(_TEXTS, st.randoms(use_true_random=False))
def test_order_of_adding_changes_nothing(texts: list[str], draw: random.Random) -> None:
    numbered = [(f"r{k}", text) for k, text in enumerate(texts)]
    shuffled = draw.sample(numbered, len(numbered))
    one, other = NearDuplicates(0.9), NearDuplicates(0.9)
    for id, text in numbered:
        one.add(id, text)
    for id, text in shuffled:
        other.add(id, text)
    assert [one.find(text) for text in texts] == [other.find(text) for text in texts]


@settings(deadline=None)
@given(st.text())
def test_any_text_finds_itself(text: str) -> None:
    match = _found(text, text)
    assert match == ("one", 1.0) if text.split() else match is None

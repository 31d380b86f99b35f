"""benchmarks/similarity/contamination.py: its edits and verdicts, and what the gate must keep on real questions."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from task_data import real_folder

from benchmarks.similarity.contamination import bucket, is_copy, measured, rows_of, unmet
from benchmarks.similarity.edits import EDITS, ONE_WORD


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ("order", {"b c ? a", "c ? a b", "? a b c"}),
        ("case", {"A B C ?"}),
        ("one deleted", {"b c ?", "a c ?", "a b ?"}),
        ("one word replaced", {"new b c ?", "a new c ?", "a b new ?"}),
        ("two replaced", {"new new c ?", "new b new ?", "a new new ?"}),
    ],
)
def test_an_edit_is_what_its_name_says(edit: str, expected: set[str]) -> None:
    draw = random.Random(0)
    assert {" ".join(EDITS[edit](["a", "b", "c", "?"], draw, ["new"])) for _ in range(60)} == expected


def test_real_rows_that_ask_the_same_are_no_mistake() -> None:
    assert is_copy("Show me the movie times", "Show me some movie times")
    assert is_copy("Which movie schedules", "what movie schedule")
    assert not is_copy("What is the capital of Peru ?", "What is the capital of Ohio ?")
    assert not is_copy("Play a ballad from 1997", "Play a ballad from 1998")
    assert [bucket(text) for text in ("a b ?", "What is a caldera ?", "a well-acted and gripping film")] == ["1-3", "4", "5"]


def test_one_word_edits_of_real_questions_are_caught_and_other_questions_are_not() -> None:
    """The criteria of docs/contamination.md; at four words the second is not met, and the gate takes the strict side."""
    folder = Path(real_folder("trec"))
    train, test = rows_of(folder.parent, "trec")
    found = measured(train, test, kinds=ONE_WORD, edited=100, before=False)
    assert [line.partition(" words: ")[0] for line in unmet("trec", found)] == ["trec, 4"]
    assert found["4"].caught["after", "one word replaced"] == found["4"].edited["one word replaced"]
    assert sum(here.real for here in found.values()) > 5000

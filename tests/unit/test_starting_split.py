"""What is left out of a user's rows and why, and what the split of the others keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_files import requests

from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.errors import UserError
from llm2llm_ray.starting.cleaning import Clean, Read, cleaned
from llm2llm_ray.starting.columns import Roles
from llm2llm_ray.starting.splitting import split, usual_sizes
from llm2llm_ray.starting.table import Table
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.types import Example

TASK = Classification()
Pair = tuple[str, str]


def table(pairs: Sequence[Pair], path: str = "all.csv") -> Table:
    rows = tuple((line, {"text": text, "label": label}) for line, (text, label) in enumerate(pairs, 2))
    return Table(path, ("text", "label"), rows, "")


def clean(pairs: Sequence[Pair], task: str = "classification", **others: Sequence[Pair]) -> Clean:
    tables = {"rows": table(pairs)} | {role: table(rows, f"{role}.csv") for role, rows in others.items()}
    return cleaned(tables, Roles(task, "text", "label", None, ()))


def kept(found: Clean) -> list[tuple[str, int]]:
    return [(row.role, row.line) for row in found.rows]


def left(found: Clean) -> list[tuple[int, str, str]]:
    return [(item.row.line, item.kind, item.why) for item in found.left_out]


def test_a_text_with_two_labels_goes_with_all_its_rows() -> None:
    found = clean([("Where is it?", "shipping"), ("Pay", "billing"), ("Where  is it?", "login"), ("Where is it?", "shipping")])
    assert kept(found) == [("rows", 3)]
    said = "'shipping' on line 2 of all.csv, but 'login' on line 4 of all.csv, but 'shipping' on line 5 of all.csv"
    assert left(found) == [(line, "two labels", said) for line in (2, 4, 5)]


def test_repeats_and_rows_that_lack_something_go_and_other_spellings_of_a_text_stay() -> None:
    found = clean([("A text", "x"), ("a text!", "x"), ("A TEXT", "y"), ("", "x"), ("B text", "")])
    assert kept(found) == [("rows", 2), ("rows", 4)]
    assert left(found) == [(5, "incomplete", "no text"), (6, "incomplete", "no label"), (3, "repeat", "as line 2 of all.csv")]


def test_a_test_row_keeps_its_place_before_dev_and_the_rest() -> None:
    found = clean(
        [("One", "x"), ("Two", "x"), ("Three", "x")], dev=[("two", "x"), ("four", "x")], test=[("one.", "x"), ("four", "x")]
    )
    assert kept(found) == [("test", 2), ("test", 3), ("dev", 2), ("rows", 4)]
    assert [item.why for item in found.left_out] == ["as line 3 of test.csv", "as line 2 of test.csv", "as line 2 of dev.csv"]


def test_labels_that_read_the_same_are_written_as_most_rows_have_them() -> None:
    found = clean([("a", "Billing"), ("b", "billing"), ("c", "billing"), ("d", " 'billing'. "), ("e", "login"), ("f", "0")])
    assert isinstance(found.task, Classification) and found.task.labels == ("0", "billing", "login")
    assert [row.label for row in found.rows] == ["billing"] * 4 + ["login", "0"]
    assert found.spellings == {"Billing": "billing", "'billing'.": "billing"}
    with pytest.raises(UserError, match=r"all\.csv, line 2: label '\*\*' is only punctuation"):
        clean([("a", "**"), ("b", "x")])


def test_of_worked_answers_the_number_decides() -> None:
    found = clean(
        [("1+1?", "2\n#### 2"), ("1+1?", "it is two\n#### 2"), ("2+2?", "4"), ("3?", "#### 3"), ("3?", "#### 4")], "gsm8k"
    )
    assert kept(found) == [("rows", 2), ("rows", 3)]
    assert [(line, kind) for line, kind, _ in left(found)] == [(5, "two labels"), (6, "two labels"), (4, "refused")]


def rows(pairs: Sequence[Pair]) -> list[Read]:
    return [Read("rows", "all.csv", line, text, label) for line, (text, label) in enumerate(pairs, 2)]


def spread(parts: dict[str, list[Read]], role: str) -> Counter[str]:
    return Counter(row.label for row in parts[role])


@given(seed=st.integers(0, 5), dev=st.integers(0, 20), test=st.integers(0, 40), count=st.integers(12, 120))
def test_each_label_has_its_share_and_every_row_one_place(seed: int, dev: int, test: int, count: int) -> None:
    given_rows = rows(requests(count))
    parts = split(given_rows, TASK, {"dev": dev, "test": test}, seed)
    assert sorted(row.line for part in parts.values() for row in part) == [row.line for row in given_rows]
    for label, all_ in Counter(row.label for row in given_rows).items():
        assert spread(parts, "seed")[label] >= all_ / 2
        assert spread(parts, "test")[label] <= test * all_ / count + 1
        assert spread(parts, "dev")[label] <= dev * all_ / count + 1


def test_the_usual_sizes_are_met_on_rows_that_differ() -> None:
    pairs = requests(96)
    parts = split(rows(pairs), TASK, vars_of(96), 0)
    assert {role: len(part) for role, part in parts.items()} == {"seed": 54, "dev": 12, "test": 30}
    assert max(spread(parts, "test").values()) - min(spread(parts, "test").values()) <= 2


def vars_of(count: int) -> dict[str, int]:
    sizes = usual_sizes(count)
    return {"dev": sizes.dev, "test": sizes.test}


def test_the_order_of_the_file_changes_no_place_and_the_seed_does() -> None:
    pairs = requests(96)

    def places(pairs: list[Pair], seed: int) -> dict[str, str]:
        parts = split(rows(pairs), TASK, {"dev": 10, "test": 20}, seed)
        return {row.text: role for role, part in parts.items() for row in part}

    assert places(pairs, 0) == places(pairs[::-1], 0)
    assert places(pairs, 0) != places(pairs, 1)


def test_near_copies_stand_on_one_side_and_a_run_has_nothing_to_tell_of() -> None:
    pairs = requests(90)
    altered = [(f"{text} today", label) for text, label in pairs[:20]] + [
        (" ".join(text.split()[::-1]), label) for text, label in pairs[20:40]
    ]
    parts = split(rows([*pairs, *altered]), TASK, {"dev": 13, "test": 30}, 3)
    held_out = [Example(id=str(row.line), input=row.text, output=row.label) for role in ("dev", "test") for row in parts[role]]
    assert len(held_out) >= 30
    near = HeldOut(held_out, 0.8, [Example(id="s", input=row.text, output=row.label) for row in parts["seed"]])
    assert [row.text for row in parts["seed"] if near.find(row.text)] == []


def test_fillings_of_one_template_are_split_all_the_same() -> None:
    pairs = [(f"Message {n}: what about my order number {n * 7}, please?", "ab"[n % 2]) for n in range(60)]
    parts = split(rows(pairs), TASK, {"dev": 6, "test": 12}, 0)
    assert (len(parts["dev"]), len(parts["test"])) == (6, 12)


def test_a_label_with_one_row_keeps_it_as_a_seed() -> None:
    parts = split(rows([*requests(30), ("the only one of its kind", "rare")]), TASK, {"dev": 5, "test": 10}, 0)
    assert spread(parts, "seed")["rare"] == 1


def test_rows_that_are_all_one_text_stay_together() -> None:
    same = [("please tell me what the price of this plan would be for a whole year", "ab"[n]) for n in range(2)]
    assert [len(part) for part in split(rows(same), TASK, {"dev": 0, "test": 1}, 0).values()] == [2, 0, 0]


def test_questions_without_labels_are_one_group() -> None:
    pairs = [(f"{text}: how many are there?", f"steps\n#### {n}") for n, (text, _) in enumerate(requests(40))]
    parts = split(rows(pairs), Gsm8k(), {"dev": 4, "test": 8}, 0)
    assert [len(parts[role]) for role in ("seed", "dev", "test")] == [28, 4, 8]

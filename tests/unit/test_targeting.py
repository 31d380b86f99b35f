"""Which rows of a graded round the teacher is asked about."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from stream_rows import solved, write_rows

from llm2llm_ray.config import AugmentationConfig, Config
from llm2llm_ray.errors import TemporaryFailure
from llm2llm_ray.rounds.aiming import aiming, answered
from llm2llm_ray.rounds.targeting import Seen, needs_all_rows, quotas, targets
from llm2llm_ray.storage.files import Files
from llm2llm_ray.tasks.classification import Classification

ROWS = [Seen(id=f"s-{n}", group="abcd"[n % 4], wrong=n % 5 == 0, weakness=float(n % 5 == 0)) for n in range(100)]
WRONG = {row.id for row in ROWS if row.wrong}


def chosen(rows: list[Seen], *, run_seed: int = 0, iteration: int = 0, **settings: Any) -> frozenset[str]:
    return targets(rows, AugmentationConfig(**settings), run_seed=run_seed, iteration=iteration)


def test_only_plain_wrong_rows_are_known_one_by_one() -> None:
    assert not needs_all_rows(AugmentationConfig())
    assert needs_all_rows(AugmentationConfig(random_share=0.1))
    assert needs_all_rows(AugmentationConfig(targets="weakest")) and needs_all_rows(AugmentationConfig(targets="random"))


def test_all_rows_are_targets_where_the_config_says_so() -> None:
    assert chosen(ROWS, targets="all") == {row.id for row in ROWS}
    assert needs_all_rows(AugmentationConfig(targets="all"))
    with pytest.raises(ValueError, match="targets: all has no others"):
        AugmentationConfig(targets="all", random_share=0.5)


def test_wrong_rows_are_the_targets() -> None:
    assert chosen(ROWS) == WRONG and len(WRONG) == 20


def test_random_targets_are_as_many_as_are_wrong_and_not_aimed_at_them() -> None:
    drawn = [chosen(ROWS, targets="random", run_seed=seed) for seed in range(200)]
    assert {len(ids) for ids in drawn} == {20} and len(set(drawn)) == 200
    shares = sum(len(ids & WRONG) for ids in drawn) / sum(map(len, drawn))
    assert abs(shares - 0.2) < 0.02, "a fifth of all rows is wrong, and of those drawn (4000 draws)"
    assert chosen(ROWS, targets="random", iteration=1) != drawn[0], "every iteration draws anew"


@pytest.mark.parametrize("settings", [{"targets": "random"}, {"targets": "weakest"}, {"random_share": 0.5}])
def test_the_order_in_which_rows_come_changes_nothing(settings: dict[str, Any]) -> None:
    shuffled = random.Random(3).sample(ROWS, len(ROWS))
    assert chosen(shuffled, **settings) == chosen(ROWS, **settings)


@pytest.mark.parametrize(("share", "more"), [(0.0, 0), (0.2, 5), (0.5, 20), (0.9, 80)])
def test_a_share_of_what_is_asked_is_drawn_from_the_others(share: float, more: int) -> None:
    """20 wrong ones and 80 others; at 0.9 there would have to be 180."""
    found = chosen(ROWS, random_share=share)
    assert found >= WRONG and len(found - WRONG) == more


def ranked(wrong: dict[str, int], rows: dict[str, int]) -> list[Seen]:
    """In each group the first are wrong; weaker the earlier."""
    return [
        Seen(id=f"{group}-{n:02d}", group=group, wrong=n < wrong.get(group, 0), weakness=1 - n / 100)
        for group, count in rows.items()
        for n in range(count)
    ]


def test_the_weakest_are_taken_class_by_class_as_the_wrong_ones_are_spread() -> None:
    rows = ranked({"a": 6, "b": 2}, {"a": 10, "b": 10, "c": 20})
    found = chosen(rows, targets="weakest", weakest_share=0.2)  # 8 of 40
    assert found == {"a-00", "a-01", "a-02", "a-03", "a-04", "a-05", "b-00", "b-01"}
    assert Counter(id[0] for id in chosen(rows, targets="weakest", weakest_share=0.1)) == {"a": 3, "b": 1}


def test_a_class_with_a_wrong_row_is_never_left_out() -> None:
    rows = ranked({"a": 20, "b": 1, "c": 1}, {"a": 20, "b": 20, "c": 20})
    assert Counter(id[0] for id in chosen(rows, targets="weakest", weakest_share=0.05)) == {"a": 1, "b": 1, "c": 1}
    assert len(chosen(rows, targets="weakest", weakest_share=0.02)) == 3, "more than the share, where there are more classes"


def test_where_a_class_has_not_so_many_rows_the_weakest_of_all_fill_up() -> None:
    rows = ranked({"a": 2}, {"a": 2, "b": 10})
    assert chosen(rows, targets="weakest", weakest_share=0.5) == {"a-00", "a-01", "b-00", "b-01", "b-02", "b-03"}


def test_without_a_wrong_row_the_weakest_are_the_weakest() -> None:
    rows = ranked({}, {"a": 3, "b": 3})
    assert chosen(rows, targets="weakest", weakest_share=0.5) == {
        "a-00",
        "b-00",
        *(chosen(rows, targets="weakest") - {"a-00", "b-00"}),
    }
    assert len(chosen(rows, targets="weakest", weakest_share=0.5)) == 3
    assert chosen(rows, targets="wrong") == chosen(rows, targets="random") == frozenset()


def test_equals_are_taken_by_lot_not_by_name() -> None:
    rows = [Seen(id=f"s-{n:02d}", group="", wrong=False, weakness=0.5) for n in range(40)]
    first = sorted(row.id for row in rows)[:20]
    assert sorted(chosen(rows, targets="weakest")) != first and len(chosen(rows, targets="weakest")) == 20
    assert chosen(rows, targets="weakest") != chosen(rows, targets="weakest", run_seed=1)


def groups() -> Iterator[Any]:
    return st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1)  # type: ignore[no-any-return]


@given(groups(), st.integers(0, 60))
def test_quotas_add_up_within_what_there_is(found: dict[str, tuple[int, int]], count: int) -> None:
    wrong = {group: bad for group, (bad, _) in found.items()}
    rows = {group: bad + good for group, (bad, good) in found.items()}
    given_out = quotas(wrong, rows, count)
    assert given_out.keys() == {group for group, bad in wrong.items() if bad}
    assert all(1 <= number <= rows[group] for group, number in given_out.items())
    room = sum(rows[group] for group in given_out)
    assert sum(given_out.values()) == (max(min(count, room), len(given_out)) if given_out else 0)


def test_random_rows_on_top_of_random_rows_are_refused() -> None:
    with pytest.raises(ValidationError, match="targets: random has no others; set random_share to 0"):
        AugmentationConfig(targets="random", random_share=0.2)


def test_targets_are_chosen_only_once_enough_rows_are_answered(tmp_path: Path) -> None:
    """With the missing answers there would be other targets, and these would have been paid for."""
    files, task = Files(str(tmp_path)), Classification(labels=["billing", "account"])
    write_rows(files, "graded", [solved("s-1"), solved("s-2", correct=False), solved("s-3", correct=False, output="account")])
    write_rows(files, "torn", [solved("s-1", correct=False), solved("s-2", correct=False, error="unavailable")])
    tree = {
        "recipe": "paper",
        "task": {"name": "classification", "data": "d"},
        "student": {"model": "m"},
        "teacher": {"model": "m"},
    }
    config = Config.model_validate({**tree, "augmentation": {"targets": "weakest", "weakest_share": 1}, "run": {"name": "r"}})
    choose = aiming(files, task, config)
    assert choose is not None
    assert choose(0, "graded") == {"s-1", "s-2", "s-3"}
    assert [seen.group for seen in answered(files, "graded", task)] == ["billing", "billing", "account"]
    assert aiming(files, task, config.model_copy(update={"augmentation": AugmentationConfig()})) is None
    with pytest.raises(TemporaryFailure, match="iteration 1, round: 1 of 2 rows have no answer: 1 unavailable"):
        choose(0, "torn")

"""Rows of a study's methods that ask no model."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import SEEDS, TASK, UNUSED

from llm2llm_ray.config import TaskConfig
from llm2llm_ray.study.eda import variant
from llm2llm_ray.study.given_rows import rows_file
from llm2llm_ray.study.methods import Given
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.splits import load_splits, unused_rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=15), st.integers(0, 9), st.integers(0, 9))
def test_eda_swaps_words_or_leaves_some_out(words: list[str], number: int, seed: int) -> None:
    text = " ".join(words)
    found = variant(text, number, seed)
    assert found == variant(text, number, seed)
    left = found.split()
    if number % 2 == 0:
        assert sorted(left) == sorted(words)
    elif len(words) > 1:
        assert 1 <= len(left) < len(words)
        rest = iter(words)
        assert all(word in rest for word in left), "in their order"
    else:
        assert left == words


def made(method: Given, each: int = 2) -> list[tuple[str, str, str]]:
    lines = rows_file(method, SEEDS, UNUSED, TASK, each=each, draw=0).decode().splitlines()
    return [(row["seed"], row["input"], row["output"]) for row in map(json.loads, lines)]


def test_duplicates_are_the_seeds_and_eda_keeps_the_answer() -> None:
    assert made("duplicated") == [(seed.id, seed.input, seed.output) for seed in SEEDS for _ in range(2)]
    found = made("eda", 4)
    assert [(seed, output) for seed, _, output in found] == [(seed.id, seed.output) for seed in SEEDS for _ in range(4)]
    assert len({text for _, text, _ in found}) > len(SEEDS)


def test_more_real_rows_are_the_next_of_the_draw_whatever_their_class() -> None:
    found = made("more_real", 1)
    assert {text for _, text, _ in found} == {row.input for row in UNUSED[: len(SEEDS)]}
    assert [seed for seed, *_ in found] == [seed.id for seed in SEEDS]


def test_the_pool_gives_each_seed_the_nearest_unused_row_of_its_class_once() -> None:
    found = made("pool", 2)
    first = {seed: text for seed, text, _ in reversed(found)}
    assert first == {"s-1": "My card was charged twice for one invoice", "s-2": "The profile picture does not change"}
    outputs = {row.input: row.output for row in UNUSED}
    assert all(outputs[text] == output == {"s-1": "billing", "s-2": "account"}[seed] for seed, text, output in found)
    assert len({text for _, text, _ in found}) == len(found)


def test_unused_rows_are_no_seed_no_test_row_and_have_one_answer(tmp_path: Path) -> None:
    def write(name: str, rows: list[tuple[str, str]]) -> None:
        lines = [json.dumps({"id": n, "text": text, "label": label}) + "\n" for n, (text, label) in enumerate(rows)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))

    real = [(f"number {n} of many", ("a", "b")[n % 2]) for n in range(12)]
    write("seed", [*real, ("two answers", "a"), ("two answers", "b"), ("tested", "a"), (real[3][0], real[3][1])])
    write("test", [("Tested!", "a"), ("another", "b")])
    config = TaskConfig(name="classification", data=str(tmp_path), seeds_per_class=2, sample_seed=1)
    task, splits = load_splits(config, Classification(labels=["a", "b"]), base_dir=".")
    free = unused_rows(config, task, splits, base_dir=".")
    assert {row.input for row in free} == {text for text, _ in real} - {row.input for row in splits.seed}
    assert len(free) == 8
    assert [row.input for row in free] == [row.input for row in unused_rows(config, task, splits, base_dir=".")]

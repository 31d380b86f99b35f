"""benchmarks/training/updates.py without its trainings: label scores, order and resumption, the tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.training.label_scores import labels_given
from benchmarks.training.trajectories import Trajectory, best_rates
from benchmarks.training.updates import of_method, read, updates_left, wanted
from benchmarks.training.updates_table import measurement
from llm2llm_ray.runtime.training.packed_attention import install

END = 1
LABELS = [[5, END], [6, 7, END], [6, 8, 9, END], [10, 11, END]]
PROMPTS = [[2, *(3 + (n * k) % 50 for k in range(1, n))] for n in range(2, 29, 3)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take minutes where the processors are busy, for models as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model() -> Any:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )  # fmt: skip
    made = LlamaForCausalLM(config).eval()
    for weights in made.parameters():
        weights.data *= 8  # so that labels differ by more than rounding
    return made


@torch.no_grad()
def alone(student: Any, prompt: list[int], label: list[int]) -> float:
    scores = student(input_ids=torch.tensor([[*prompt, *label]])).logits[0].log_softmax(-1)
    return sum(float(scores[len(prompt) - 1 + place, token]) for place, token in enumerate(label))


@torch.no_grad()
def written(student: Any, prompt: list[int]) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + 4 and ids[-1] != END:
        ids.append(int(student(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_labels_in_one_pass_are_those_of_each_sequence_alone() -> None:
    plain, packed = model(), model()
    install(packed)  # what a student in training has
    expected = [[alone(plain, prompt, label) for label in LABELS] for prompt in PROMPTS]
    for student in (plain, packed):
        found = labels_given(student, PROMPTS, LABELS)
        assert [list(one.log_probs) for one in found] == [pytest.approx(row, rel=1e-4) for row in expected]
        assert [one.likeliest for one in found] == [row.index(max(row)) for row in expected]


def test_greedy_is_what_decoding_writes() -> None:
    student = model()
    said = [written(student, prompt) for prompt in PROMPTS]
    labels = [*LABELS, said[0], said[5]]
    expected = [next((n for n, label in enumerate(labels) if label == words), None) for words in said]
    assert None in expected and 4 in expected
    assert [one.greedy for one in labels_given(student, PROMPTS, labels)] == expected


def options(**changes: Any) -> argparse.Namespace:
    given = {
        "tasks": ["support", "sst2"], "methods": ["full", "lora"], "full_rates": [5e-5, 1e-4, 2e-5], "lora_rates": [1e-3],
        "draws": [0, 1], "looks": [2, 4], "cosine": 4, "test_rows": 10, "small": False, "model": "m",
    }  # fmt: skip
    return argparse.Namespace(**{**given, **changes})


def line(one: Trajectory, accuracy: float = 0.5, seeds_right: float = 1.0) -> dict[str, Any]:
    looks = [
        {"updates": updates, "accuracy": accuracy, "greedy_accuracy": accuracy, "loss": 0.1, "seconds": 2.0 * updates,
         "token_accuracy": seeds_right if updates == one.total else 0.5}
        for updates in one.looks
    ]  # fmt: skip
    return {
        "trajectory": asdict(one), "seeds": 16, "looks": looks, "not_finite": None, "look_seconds": 1, "seconds": 2,
    }  # fmt: skip


def test_every_rate_first_then_the_two_best_with_the_cosine_schedule() -> None:
    given, done = options(), {}
    accuracy = {5e-5: 0.6, 1e-4: 0.4, 2e-5: 0.7, 1e-3: 0.5}
    order = []
    assert updates_left(given, done) == 4 * (12 + 4) + 4 * (8 + 4)
    for one in wanted(given, done):
        order.append(one)
        done[one] = line(one, accuracy[one.rate])
    assert updates_left(given, done) == 0
    assert [one.method for one in order] == ["full"] * 20 + ["lora"] * 8
    constant, cosine = order[:12], order[12:20]
    assert [one.rate for one in constant[::4]] == [5e-5, 1e-4, 2e-5] and constant == of_method(given, "full")
    assert {one.rate for one in cosine} == {2e-5, 5e-5} and {one.schedule for one in cosine} == {"cosine"}
    assert {one.looks for one in cosine} == {(4,)}


def test_what_is_done_is_not_trained_again_and_a_cut_line_is(tmp_path: Path) -> None:
    given = options(methods=["full"], cosine=0)
    every = of_method(given, "full")
    path = tmp_path / "trajectories.jsonl"
    path.write_text("".join(json.dumps(line(one)) + "\n" for one in every[:2]) + json.dumps(line(every[2]))[:50])
    with path.open("a+") as file:
        done = read(file)
        assert list(done) == every[:2] and list(wanted(given, done)) == every[2:]
        file.write(json.dumps(line(every[2])) + "\n")
    with path.open("a+") as file:
        assert list(read(file)) == every[:3]
        assert list(wanted(options(methods=["full"], cosine=0, test_rows=11), read(file))) == of_method(
            options(test_rows=11), "full"
        ), "another test is another table"


def test_a_training_that_was_not_finite_is_the_worst() -> None:
    good, bad = (Trajectory(**{**asdict(of_method(options(), "full")[0]), "rate": rate}) for rate in (1e-4, 1e-2))
    broken = {**line(bad, 0.9), "looks": line(bad, 0.9)["looks"][:1], "not_finite": "update 3: the loss is nan"}
    assert best_rates([broken, line(good, 0.1)], at=4, count=1) == [1e-4]


def test_the_tables_say_when_seeds_are_known() -> None:
    one = of_method(options(), "full")[0]
    lines = [line(one, 0.6), line(replace(one, draw=1), 0.8, seeds_right=0.9), line(replace(one, task="sst2"), 0.5)]
    found = measurement(lines, {}, small=False)
    accuracy, known = found.tables
    last = dict(zip(accuracy.columns, accuracy.rows[-1], strict=True))
    assert last["updates"] == 4 and last["trainings"] == 3
    assert (round(last["support"], 3), last["sst2"], round(last["mean"], 3)) == (0.7, 0.5, 0.6)
    assert last["least"] == 0.9 and last["s per update"] == 2.0
    sst2, support = (dict(zip(known.columns, row, strict=True)) for row in known.rows)
    assert (sst2["updates until known"], sst2["epochs until known"], sst2["never known"]) == (4, 2.0, 0)
    assert (support["updates until known"], support["never known"]) == (4, 1)
    (claim,) = found.claims
    assert round(claim.value, 3) == 0.6 and claim.met is None

"""Weights are what their label says: hashed where they are read, and known again by what they say of a few completions."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from llm2llm_ray.config import StudentConfig
from llm2llm_ray.runtime.models import hand_off
from llm2llm_ray.runtime.models.folders import model_sha
from llm2llm_ray.runtime.models.hand_off import Told, WrongWeights, chosen, compared, read
from llm2llm_ray.runtime.models.node_copy import node_local
from llm2llm_ray.runtime.models.tokens import Row
from llm2llm_ray.runtime.training.completions import told_by
from llm2llm_ray.runtime.training.engine import Progress
from llm2llm_ray.runtime.training.packed_attention import install
from llm2llm_ray.runtime.training.update import Training

ROWS = [Row((5, 9, 17, 33), 3), Row((5, 6, 7, 8, 9, 10), 2), Row((4, 30), 1)]
TOLD = Told(rows=tuple(ROWS), log_probs=((-1.0,), (-2.0, -3.0, -4.0, -5.0), (-6.0,)), dtype="float32")


def said(first: float) -> list[list[float]]:
    return [[first], [-2.0, -3.0, -4.0, -5.0], [-6.0]]


def test_the_difference_is_the_mean_over_all_completion_tokens() -> None:
    numbers = compared(TOLD, said(-1.003), "float32")
    assert numbers["mean_difference"] == pytest.approx(0.0005)  # 0.003 over 6 tokens
    assert numbers["largest_difference"] == pytest.approx(0.003)
    assert numbers["tokens"] == 6


@pytest.mark.parametrize(
    ("first", "engine", "trainer", "right"),
    [
        (-1.005, "float32", "float32", True),
        (-1.007, "float32", "float32", False),  # 0.00117 of 0.001
        (-1.007, "bfloat16", "float32", True),
        (-1.007, "float32", "bfloat16", True),
        (-2.7, "bfloat16", "bfloat16", True),
        (-2.9, "bfloat16", "bfloat16", False),  # 0.317 of 0.3
        (math.nan, "bfloat16", "bfloat16", False),
        (-math.inf, "float32", "float32", False),
    ],
)
def test_more_than_rounding_is_refused(first: float, engine: str, trainer: str, right: bool) -> None:
    told = Told(rows=TOLD.rows, log_probs=TOLD.log_probs, dtype=trainer)
    if right:
        compared(told, said(first), engine)
    else:
        with pytest.raises(WrongWeights, match=r"log-probabilities of 6 tokens .*\(" + engine):
            compared(told, said(first), engine)


def test_an_engine_that_says_too_little_is_no_proof() -> None:
    with pytest.raises(ValueError):
        compared(TOLD, said(-1.0)[:2], "float32")


def test_the_shortest_rows_are_chosen_in_their_order_until_they_are_many_tokens() -> None:
    lengths = [700, 30, 20, 900, 400, 10]
    rows = [Row(tuple(range(n)), n - 1) for n in lengths]
    assert [len(row.ids) for row in chosen(rows)] == [30, 20, 400, 10]  # with 700 they would be 1,160
    assert [len(row.ids) for row in chosen(rows[3:4])] == [900]
    assert chosen([ROWS[2]] * 20) == [ROWS[2]] * 8


def test_what_is_told_lies_beside_the_weights_and_is_no_part_of_them(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = model_sha(str(tmp_path))
    assert read(str(tmp_path)) is None
    (tmp_path / hand_off.FILE).write_bytes(TOLD.written())
    assert read(str(tmp_path)) == TOLD
    assert model_sha(str(tmp_path)) == before
    fitting = TOLD.fitting(6)  # the answer needs a place, too
    assert (fitting.rows, fitting.log_probs) == ((ROWS[0], ROWS[2]), ((-1.0,), (-6.0,)))


# What a trainer says.


class Engine:
    """What a training calls of DeepSpeed's engine, around a model alone."""

    def __init__(self, model: Any) -> None:
        self.module = model
        self.eval = model.eval

    def __call__(self, **inputs: Any) -> Any:
        return self.module(**inputs)


def tiny_llama(seed: int = 0) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=True, attention_dropout=0.3,
        )
    )  # fmt: skip


def training(model: Any) -> Training:
    return Training(
        student=StudentConfig(model="x"), engine=Engine(model), rows=ROWS, pad_id=0, micro=4, rank=0, workers=1,
        device=torch.device("cpu"), total=1, progress=Progress(),
    )  # fmt: skip


@torch.no_grad()
def plainly(model: Any, rows: list[Row] = ROWS) -> list[list[float]]:
    """Each token after all before it, one call of the whole row for each row."""
    found = []
    for row in rows:
        scores = model.eval()(input_ids=torch.tensor([row.ids])).logits[0].float().log_softmax(-1)
        found.append([float(scores[at - 1, row.ids[at]]) for at in range(row.n_prompt, len(row.ids))])
    return found


@pytest.mark.parametrize("packed", [False, True])
def test_a_trainer_tells_of_completions_what_the_model_says_of_them(packed: bool) -> None:
    model = tiny_llama().train()
    if packed:
        install(model)
    told = told_by(training(model))
    assert told.rows == tuple(ROWS) and told.dtype == "float32"
    expected = plainly(tiny_llama())
    assert [len(row) for row in told.log_probs] == [1, 4, 1]
    for ours, theirs in zip(told.log_probs, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def moved(model: Any) -> Any:
    """After 12 updates at a usual rate: every weight has gone that far, up or down."""
    with torch.no_grad():
        for weight in model.parameters():
            weight += 12 * 5e-5 * torch.randint(0, 2, weight.shape).mul(2).sub(1)
    return model


def with_stale_head(before: Any, after: Any) -> Any:
    after.lm_head.weight = torch.nn.Parameter(before.lm_head.weight.detach().clone())
    return after


def half_written(before: Any, after: Any) -> Any:
    """As a file that was given its length first."""
    with torch.no_grad():
        for weight in list(after.parameters())[-9:]:
            weight.zero_()
    return after


@pytest.mark.parametrize("fault", [with_stale_head, half_written, lambda before, after: before])
def test_an_engine_with_a_fault_is_found_out_by_it(fault: Any) -> None:
    told = told_by(training(moved(tiny_llama())))
    wrong = fault(tiny_llama(), moved(tiny_llama()))
    with pytest.raises(WrongWeights):
        compared(told, plainly(wrong), "float32")


def test_one_that_only_rounds_is_not() -> None:
    student = moved(tiny_llama())
    told = told_by(training(student))
    exact = compared(told, plainly(student), "float32")
    rounded = compared(told, plainly(student.bfloat16()), "bfloat16")
    assert exact["tokens"] == rounded["tokens"] == sum(map(len, told.log_probs))
    assert exact["mean_difference"] < rounded["mean_difference"] < rounded["allowed"], "it is rounded, and told apart from exact"


# What a folder holds.


def a_folder(where: Path, weights: bytes = b"weights") -> str:
    where.mkdir(parents=True)
    (where / "model.safetensors").write_bytes(weights)
    (where / "config.json").write_text("{}")
    return str(where)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM2LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_folder_that_holds_other_weights_than_were_handed_on_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "student")
    sha = model_sha(folder)
    assert node_local(folder, sha) == folder
    (tmp_path / "student" / "model.safetensors").write_bytes(b"weigh\0\0")
    with pytest.raises(WrongWeights) as refused:
        node_local(folder, sha)
    assert sha in str(refused.value) and model_sha(folder) in str(refused.value)
    (tmp_path / "student" / "model.safetensors").unlink()
    with pytest.raises(WrongWeights, match="no weights at all"):
        node_local(folder, sha)


def test_a_copy_that_was_damaged_on_the_node_is_fetched_again(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "student")
    sha, uri = model_sha(folder), f"file://{folder}"
    copy = Path(node_local(uri, sha))
    assert copy != Path(folder)
    (copy / "config.json").unlink()
    assert (Path(node_local(uri, sha)) / "config.json").read_text() == "{}"
    shutil.rmtree(copy)
    (tmp_path / "student" / "model.safetensors").write_bytes(b"others")
    with pytest.raises(WrongWeights, match=f"not {sha}"):
        node_local(uri, sha)

"""The optimizer that clips as it steps: the same weights as clipping first."""

from __future__ import annotations

import copy

import pytest
import torch

from llm2llm_ray.config import StudentConfig
from llm2llm_ray.runtime.training.deepspeed_config import clips_itself, deepspeed_config
from llm2llm_ray.runtime.training.optimizer import ClippingAdamW, optimizer_of


def _student(**settings: object) -> StudentConfig:
    return StudentConfig.model_validate({"model": "x", "learning_rate": 0.01, "weight_decay": 0.1} | settings)


@pytest.mark.parametrize("clipping", [0.01, 1.0, 1e9])
def test_it_makes_the_weights_that_clipping_first_makes(clipping: float) -> None:
    torch.manual_seed(3)
    ours = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3))
    theirs = copy.deepcopy(ours)
    student = _student(gradient_clipping=clipping)
    one, other = optimizer_of(ours, student, clips=True), optimizer_of(theirs, student, clips=False)
    for _ in range(4):
        rows, wanted = torch.randn(6, 7), 10 * torch.randn(6, 3)
        for model in (ours, theirs):
            torch.nn.functional.mse_loss(model(rows), wanted).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), clipping)
        for optimizer in (one, other):
            optimizer.step()
            optimizer.zero_grad()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("zero_stage", "clips"), [("auto", True), (0, True), (2, False), (3, False)])
def test_one_of_the_two_clips(zero_stage: int | str, clips: bool) -> None:
    student = _student(zero_stage=zero_stage, gradient_clipping=0.5)
    config = deepspeed_config(student, device="cpu", workers=1, micro=4)
    assert clips_itself(student, "cpu") is clips
    assert config["gradient_clipping"] == (0.0 if clips else 0.5)
    assert isinstance(optimizer_of(torch.nn.Linear(2, 2), student, clips=clips), ClippingAdamW) is clips


def test_several_workers_clip_by_one_norm() -> None:
    assert not clips_itself(_student(zero_stage=0, workers=2), "cpu")


def test_on_gpu_deepspeed_keeps_bfloat16_and_clips() -> None:
    assert not clips_itself(_student(zero_stage=0), "gpu")

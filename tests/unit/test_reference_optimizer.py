"""The careful baseline's optimizer: what a bfloat16 model's weights become is what float32 ones become, rounded."""

from __future__ import annotations

import pytest
import torch

from benchmarks.reference.optimizer import Optimizer
from llm2llm_ray.config import StudentConfig

SETTINGS = StudentConfig(model="none", learning_rate=1e-3, weight_decay=0.1, gradient_clipping=0.5)
STEPS, PASSES = 5, 3


def stepped(dtype: torch.dtype, gradients: list[list[torch.Tensor]]) -> torch.Tensor:
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4).to(torch.bfloat16).to(dtype))
    optimizer = Optimizer([weight], SETTINGS)
    for update in gradients:
        for gradient in update:
            (weight * gradient.to(dtype)).sum().backward()
            optimizer.after_pass()
        optimizer.step(SETTINGS.learning_rate)
        assert weight.grad is None
    return weight.detach()


@pytest.fixture
def gradients() -> list[list[torch.Tensor]]:
    noise = torch.Generator().manual_seed(0)
    return [[torch.randn(3, 4, generator=noise).to(torch.bfloat16) for _ in range(PASSES)] for _ in range(STEPS)]


def test_weights_in_bfloat16_are_those_in_float32_rounded(gradients: list[list[torch.Tensor]]) -> None:
    exact = stepped(torch.float32, gradients)
    assert torch.equal(stepped(torch.bfloat16, gradients), exact.to(torch.bfloat16))


def test_float32_weights_go_the_way_of_torch_with_clipping(gradients: list[list[torch.Tensor]]) -> None:
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4).to(torch.bfloat16).float())
    adamw = torch.optim.AdamW([weight], lr=SETTINGS.learning_rate, weight_decay=SETTINGS.weight_decay)
    clipped = 0
    for update in gradients:
        weight.grad = torch.stack([gradient.float() for gradient in update]).sum(0)
        clipped += int(torch.nn.utils.clip_grad_norm_([weight], SETTINGS.gradient_clipping) > SETTINGS.gradient_clipping)
        adamw.step()
    assert clipped == STEPS
    torch.testing.assert_close(stepped(torch.float32, gradients), weight.detach(), rtol=1e-5, atol=1e-6)
